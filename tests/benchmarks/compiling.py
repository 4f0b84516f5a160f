"""What mixing adds to the compilation of a step: time, and equations."""

import statistics
import time

import jax
import jax.numpy as jnp

from .cases import SIZES
from .jax_peers import copy, programs


def milliseconds(call, *shapes):
    """To trace, lower and compile it, with nothing left over from the time before."""
    times = []
    for _ in range(5):
        jax.clear_caches()
        start = time.perf_counter()
        jax.jit(call).lower(*shapes).compile()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def equations(jaxpr):
    """The number of equations of a jaxpr, an inner jit counted as what it consists of."""
    return sum(
        equations(e.params["jaxpr"].jaxpr) if e.primitive.name == "jit" else 1 for e in jaxpr.eqns
    )


def report():
    """A table in Markdown: what is beyond a program that copies the images."""
    shape, classes = SIZES["224"]
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    without = milliseconds(copy, key, images, labels)
    head = f"more ms to compile than a copy, which takes {without:.0f}"
    lines = [f"| compilation | {head} | equations |", "|---|---|---|"]
    for method in ("cutmix", "mixup", "both"):
        ours, theirs = programs(method, "example", "NHWC", classes)
        for name, call in (("jaxmix", ours), ("naive JAX", theirs)):
            number = equations(jax.make_jaxpr(call)(key, images, labels).jaxpr)
            more = milliseconds(call, key, images, labels) - without
            lines.append(f"| {name}, {method} | {more:.0f} | {number} |")
    return "\n".join(lines)
