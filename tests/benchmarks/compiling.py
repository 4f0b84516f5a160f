"""Measures what mixing adds to the compilation of a step, in time and in equations."""

import statistics
import time

import jax
import jax.numpy as jnp

from .cases import SIZES
from .jax_peers import copy, programs


def milliseconds(call, *shapes):
    """Returns the time to trace, lower and compile a call with empty caches."""
    times = []
    for _ in range(5):
        jax.clear_caches()
        start = time.perf_counter()
        jax.jit(call).lower(*shapes).compile()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def equations(jaxpr):
    """Counts the equations of a jaxpr, including those inside an inner jit."""
    return sum(
        equations(e.params["jaxpr"].jaxpr) if e.primitive.name == "jit" else 1 for e in jaxpr.eqns
    )


def report():
    """Formats a Markdown table of the cost beyond that of a program that copies the images."""
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
