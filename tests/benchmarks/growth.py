"""How the time of one call grows with the batch, the image and the number of classes."""

import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .jax_peers import donating, mixer

SERIES = {  # What grows: its values, and the batch, side and classes of each.
    "examples": ((128, 256, 512, 1024, 2048, 4096), lambda n: (n, 32, 10)),
    "pixels a side, squared": ((32, 64, 128, 256, 384), lambda n: (64, n, 10)),
    "classes": ((10, 4000, 20000, 40000, 80000), lambda n: (64, 8, n)),
}


def microseconds(rows, side, classes, rounds):
    """The median of a jitted call of the choice of both, into a donated buffer."""
    made = mixer("both", "example")
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((rows, side, side, 3), np.float32))
    labels = jnp.asarray(generator.integers(0, classes, rows))

    def call(key, images, labels):
        return made(key, images, labels, num_classes=classes)

    run = donating(call, jax.random.key(0), images, labels)
    run()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return 1e6 * statistics.median(times)


def report(path, rounds):
    """A table in Markdown, and a plot."""
    figure = Figure(figsize=(12, 3.5))
    axes = figure.subplots(1, len(SERIES))
    lines = ["| what grows | values | microseconds | fixed cost of the line |", "|---|---|---|---|"]
    for axis, (name, (values, sizes)) in zip(axes, SERIES.items(), strict=True):
        times = [microseconds(*sizes(value), rounds) for value in values]
        amounts = np.array(values, float) ** (2 if "squared" in name else 1)
        slope, fixed = np.polyfit(amounts, times, 1, w=1 / np.array(times))
        axis.plot(amounts, times, "o")
        axis.plot([0, amounts[-1]], [fixed, fixed + slope * amounts[-1]])
        axis.set(xlabel=name, ylabel="microseconds", xlim=(0, None), ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
        shown = ", ".join(f"{t:.0f}" for t in times)
        lines.append(f"| {name} | {', '.join(map(str, values))} | {shown} | {fixed:.0f} |")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return "\n".join(lines)
