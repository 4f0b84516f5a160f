"""How near mixing comes to the bandwidth of an accelerator's memory."""

import statistics
import time

import jax
import jax.numpy as jnp

from .cases import METHODS, SIZES
from .jax_peers import mixer, reusing

CALLS = 8  # Sent off before the first has ended, so that sending them takes no time of its own.
COPY = "copy"


def rate(method, images, rounds):
    """GB/s of jitted calls into a donated buffer, that read the batch once and write it once."""
    mix = mixer(method, "example") if method != COPY else lambda key, images: jnp.copy(images)
    run = reusing(mix)
    key, buffer = jax.random.key(0), jnp.copy(images)
    times = []
    for number in range(rounds + 2):  # The first two compile and warm up.
        start = time.perf_counter()
        for _ in range(CALLS):
            buffer = run(buffer, key, images)
        jax.block_until_ready(buffer)
        if number > 1:
            times.append(time.perf_counter() - start)
    return 2 * CALLS * images.nbytes / 1e9 / statistics.median(times)


def report(rounds):
    """A table in Markdown: GB/s, and in brackets the percentage of those of the copy."""
    if jax.default_backend() == "cpu":
        return "Bandwidth on an accelerator: not measured, there is none."
    lines = ["| GB/s | " + " | ".join((COPY, *METHODS)) + " |", "|---" * 5 + "|"]
    for rows in (128, 1024):
        for dtype in ("float32", "bfloat16", "uint8"):
            shape = (rows, *SIZES["224"][0][1:])
            rates = {m: rate(m, jnp.ones(shape, dtype), rounds) for m in (COPY, *METHODS)}
            cells = (f"{r:.0f} ({100 * r / rates[COPY]:.0f} %)" for r in rates.values())
            size = "x".join(map(str, shape))
            lines.append(f"| {size} {dtype} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
