"""Compares mixing on this device with a copy of the images, because memory bandwidth limits both.

An accelerator runs several calls in one program, with barriers between them, and several such
programs at once, so that the figures contain no time of the host. A CPU runs one call at a time
into reused buffers, because its compiler drops barriers. All calls of one table row alternate in
each round. Calls of PyTorch on the same GPU run after them.
"""

import functools
import random
import statistics
import time

import jax
import jax.numpy as jnp
from jax import lax

from jaxmix import Flip, Permutation, Plan, Roll, Swap

from .cases import METHODS, SIZES
from .jax_peers import both_read, donating, mixer, programs

CALLS = 8  # The number of calls in one program.
PROGRAMS = 4  # The number of programs that are dispatched without waiting.
PAIRINGS = (Swap(), Flip(), Roll(), Permutation())
DTYPES = ("float32", "bfloat16", "uint8")


def on_cpu():
    """Returns whether there is no accelerator."""
    return jax.default_backend() == "cpu"


def batch(rows, dtype):
    """Returns random images of 224 x 224 pixels, and class ids."""
    shape, classes = (rows, *SIZES["224"][0][1:]), SIZES["224"][1]
    images = jax.random.randint(jax.random.key(0), shape, 0, 256, jnp.uint8)
    if dtype != "uint8":
        images = images.astype(dtype) / jnp.asarray(255, dtype)
    return images, jax.random.randint(jax.random.key(1), (rows,), 0, classes)


def seconds(calls, rounds):
    """Times calls, name -> (call, *arguments): the median over rounds of the fastest of three."""
    times, order = {name: [] for name in calls}, random.Random(0)
    for number in range(rounds + 1):  # The first round compiles.
        runs, fastest = {name: repeated(*call) for name, call in calls.items()}, {}
        for _ in range(3):
            for name in order.sample(list(runs), len(runs)):
                start = time.perf_counter()
                count = runs[name]()
                taken = (time.perf_counter() - start) / count
                fastest[name] = min(taken, fastest.get(name, taken))
        if number > 0:
            for name, taken in fastest.items():
                times[name].append(taken)
    return {name: statistics.median(values) for name, values in times.items()}


def repeated(call, *arguments):
    """Returns a function that runs the call, waits, and returns how many calls it made."""
    if on_cpu():  # New buffers each round: their location matters more than the code.
        run = donating(call, *jax.tree.map(jnp.copy, arguments))
        run()
        return lambda: run() or 1

    def run():
        for _ in range(PROGRAMS):  # Only the results of the last program are kept.
            results = chained(call)(*arguments)
        jax.block_until_ready(results)
        return CALLS * PROGRAMS

    return run


@functools.cache
def chained(call):
    """Returns one program of several calls, each of which waits for the previous one."""

    def run(*arguments):
        results = []
        for _ in range(CALLS):
            result, arguments = lax.optimization_barrier((call(*arguments), arguments))
            results.append(result)
        return results

    return jax.jit(run)


def copied(images):
    """Reads and writes each image once; on accelerators by negation, as compilers drop copies."""
    return jnp.copy(images) if on_cpu() else -images


def table(head, rows):
    """Formats a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def pixels(rounds):
    """Times `plan.images` with every pairing, as a multiple of a copy."""
    head = ["plan.images, 224x224x3", "copy, us (GB/s)", "both read"]
    rows = []
    for count in (128,) if on_cpu() else (128, 1024):
        for dtype in DTYPES:
            images, _ = batch(count, dtype)
            calls = {"copy": (copied, images), "both read": (both_read, None, images)}
            for pairing in PAIRINGS:
                for method in METHODS:
                    plan = mixer(method, "example", pairing).plan(jax.random.key(2), images.shape)
                    calls[pairing, method] = Plan.images, plan, images
            times = seconds(calls, rounds)
            copy = times["copy"]
            cells = [f"{1e6 * copy:.0f} ({2e-9 * images.nbytes / copy:.0f})"]
            cells.append(f"{times['both read'] / copy:.2f}")
            cells += [
                " / ".join(f"{times[pairing, method] / copy:.2f}" for method in METHODS)
                for pairing in PAIRINGS
            ]
            rows.append([f"{count} {dtype}", *cells])
    return table([*head, *map(repr, PAIRINGS)], rows)


def whole_calls(rounds):
    """Times whole calls with labels: jaxmix, naive code, and PyTorch on the same GPU."""
    images, labels = batch(128, "float32")
    calls = {"copy": (copied, images)}
    for method in METHODS:
        pair = programs(method, "example", "NHWC", SIZES["224"][1])
        for name, call in zip(("jaxmix", "naive JAX"), pair, strict=True):
            calls[name, method] = call, jax.random.key(3), images, labels
    times = seconds(calls, rounds)
    rows = [
        [name, *(f"{1e6 * times[name, method]:.0f}" for method in METHODS)]
        for name in ("jaxmix", "naive JAX")
    ]
    for name, taken in on_the_same_gpu(rounds).items():
        rows.append([name, *(f"{1e6 * taken[m]:.0f}" if m in taken else "-" for m in METHODS)])
    head = f"128x224x224x3 float32 with labels, us; a copy takes {1e6 * times['copy']:.0f}"
    return table([head, *METHODS], rows)


def on_the_same_gpu(rounds):
    """Returns library -> method -> seconds for PyTorch libraries, or {} if there are none."""
    try:
        from . import torch_peers
    except ImportError:
        return {}
    return torch_peers.on_gpu(CALLS * PROGRAMS, rounds)


def normalised(images):
    """Normalises uint8 images for a network."""
    mean, spread = (jnp.float32(x) for x in ([123.7, 116.3, 103.5], [58.4, 57.1, 57.4]))
    floats = (images.astype(jnp.float32) - mean) / spread
    return floats if on_cpu() else floats.astype(jnp.bfloat16)


def pipeline(rounds):
    """Times mixing and normalising uint8 images, as a multiple of normalising alone."""
    rows = []
    for count in (128,) if on_cpu() else (128, 1024):
        images, labels = batch(count, "uint8")
        arguments = jax.random.key(4), images, labels
        calls = {
            name: (lambda key, images, labels: normalised(images), *arguments)
            for name in ("alone", "again")
        }
        for method in METHODS:
            pair = programs(method, "example", "NHWC", SIZES["224"][1])
            for name, call in zip(("jaxmix", "naive JAX"), pair, strict=True):

                def mixed(*arguments, call=call):
                    images, soft = call(*arguments)
                    return normalised(images), soft

                calls[name, method] = mixed, *arguments
        times = seconds(calls, rounds)
        ratios = {name: f"{taken / times['alone']:.2f}" for name, taken in times.items()}
        cells = [f"{1e6 * times['alone']:.0f}", ratios["again"]]
        for name in ("jaxmix", "naive JAX"):
            cells.append(" / ".join(ratios[name, method] for method in METHODS))
        rows.append([str(count), *cells])
    head = [
        "uint8 images, normalised",
        "alone, us",
        "alone again",
        "mixed by jaxmix",
        "by naive JAX",
    ]
    return table(head, rows)


def report(rounds):
    """Returns the tables; three figures in a cell are CutMix, MixUp and a choice of both."""
    return "\n\n".join(part(rounds) for part in (pixels, whole_calls, pipeline))
