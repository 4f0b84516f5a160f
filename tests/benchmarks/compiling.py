"""What mixing adds to the compilation of a step: time, and equations."""

import statistics
import time

import jax
import jax.numpy as jnp

from .cases import SIZES
from .jax_peers import mixer, naive


def milliseconds(call, *shapes):
    """To trace, lower and compile it, with nothing left over from the time before."""
    times = []
    for _ in range(5):
        jax.clear_caches()
        start = time.perf_counter()
        jax.jit(call).lower(*shapes).compile()
        times.append(time.perf_counter() - start)
    return 1e3 * statistics.median(times)


def report():
    """A table in Markdown."""
    shape, classes = SIZES["224"]
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    lines = ["| compilation | time, ms | equations |", "|---|---|---|"]
    for method in ("cutmix", "mixup", "both"):
        made = mixer(method, "example")
        for name, call in {
            "jaxmix": lambda key, images, labels, made=made: made(
                key, images, labels, num_classes=classes
            ),
            "naive JAX": lambda key, images, labels, method=method: naive(
                method, "example", classes, key, images, labels
            ),
        }.items():
            equations = len(jax.make_jaxpr(call)(key, images, labels).eqns)
            time_taken = milliseconds(call, key, images, labels)
            lines.append(f"| {name}, {method} | {time_taken:.0f} | {equations} |")
    return "\n".join(lines)
