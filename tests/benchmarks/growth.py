"""Measures how the time of a call grows with the batch, the image and the number of classes."""

import timeit

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from .jax_peers import copy, donating, programs

LEAST = (64, 8, 10)  # Batch, side and classes of a call that has almost no work.
SERIES = {  # The quantity that grows: its values, and the batch, side and classes for each.
    "examples": ((128, 256, 512, 1024, 2048, 4096), lambda n: (n, 32, 10)),
    "pixels a side, squared": ((32, 64, 128, 256, 384), lambda n: (64, n, 10)),
    "classes": ((4000, 10000, 20000, 40000, 80000), lambda n: (64, 8, n)),
}


def microseconds(rows, side, classes, calls):
    """Times `calls` calls of a choice of both, then of a copy of the images.

    Both are jitted and write into donated buffers.
    """
    mix, _ = programs("both", "example", "NHWC", classes)
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.random((rows, side, side, 3), np.float32))
    labels = jnp.asarray(generator.integers(0, classes, rows))
    times = []
    for call in (mix, copy):
        run = donating(call, jax.random.key(0), images, labels)
        run()
        times.append(1e6 * np.array(timeit.repeat(run, number=1, repeat=calls)))
    return times


def line(amounts, times, fixed):
    """Fits a line that starts at `fixed`, by least squares of relative errors.

    Returns its slope and the largest error. An error is relative to the time, and negative where
    the line lies above it.
    """
    times = np.array(times)
    relative = np.array(amounts) / times
    slope = np.sum(relative * (1 - fixed / times)) / np.sum(relative**2)
    errors = 1 - fixed / times - slope * relative
    return slope, errors[np.argmax(np.abs(errors))]


def report(path, calls):
    """Formats a Markdown table, and saves a plot."""
    figure = Figure(figsize=(12, 3.5))
    axes = figure.subplots(1, len(SERIES))
    rows, side, classes = LEAST
    calls *= 10  # These calls are short.
    times = microseconds(*LEAST, calls)
    least, best = np.median(times, axis=1), np.min(times[0])
    head = ["what grows", "values"]
    for name in ("microseconds", "a copy of the images"):
        head += [name, "farthest from a line that begins there"]
    lines = [
        f"A call with almost no work, {rows} images of {side} x {side} and {classes} "
        f"classes, takes {least[0]:.0f} microseconds, {best:.0f} at best, a copy {least[1]:.0f}.",
        "",
        f"| {' | '.join(head)} |",
        "|---" * len(head) + "|",
    ]
    for axis, (name, (values, sizes)) in zip(axes, SERIES.items(), strict=True):
        medians = [np.median(microseconds(*sizes(value), calls), axis=1) for value in values]
        amounts = np.array(values, float) ** (2 if "squared" in name else 1)
        cells = [name, ", ".join(map(str, values))]
        shown = zip(np.transpose(medians), least, "ox", ("a choice of both", "a copy"), strict=True)
        for grown, fixed, marker, label in shown:
            slope, error = line(amounts, grown, fixed)
            axis.plot(amounts, grown, marker, label=label)
            axis.plot([0, amounts[-1]], [fixed, fixed + slope * amounts[-1]], color="gray")
            cells += [", ".join(f"{t:.0f}" for t in grown), f"{100 * error:+.0f} %"]
        axis.set(xlabel=name, ylabel="microseconds", xlim=(0, None), ylim=(0, None))
        axis.locator_params(axis="x", nbins=4)
        lines.append(f"| {' | '.join(cells)} |")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    return "\n".join(lines)
