"""Compares mixing with copies of the batch, naive code and other libraries.

    pip install -e ".[bench]" && python -m tests.benchmarks

Each framework has its own process. In each round every contender of a case makes one call, grouped
by framework, in a new random order. This is repeated for several keys, in new buffers. A figure is
the median over the keys of the fastest of three calls, because a call takes twice as long if both
of its threads happen to run on one core. The tables are printed, and written to --out as
results.md, results.png and growth.png. --quick measures only the cases that have a target, with
fewer keys.
"""

import argparse
import dataclasses
import itertools
import os
import pathlib
import platform
import random
import statistics

import jax
from matplotlib.figure import Figure
from tqdm import tqdm

from . import bandwidth, compiling, growth, steps
from .cases import METHODS, Framework, cases

FRAMEWORKS = ("jax_peers", "torch_peers", "keras_peers", "numpy_peers")
FLOOR = "copy, donated"
KEYS, QUICK_KEYS, ROUNDS = 9, 3, 3


def measure(frameworks, case, keys):
    """Returns each contender's seconds, and for those without a figure the reason."""
    refused, fastest, order = {}, {}, random.Random(0)
    for seed in range(keys):
        names, times = {}, {}
        for framework in frameworks:
            reasons = framework.prepare(dataclasses.replace(case, seed=seed))
            refused |= {name: reason for name, reason in reasons.items() if reason}
            names[framework] = list(reasons)
        for framework, name in itertools.chain(*(turns(names, order) for _ in range(ROUNDS))):
            if name in refused:
                continue
            taken = framework.run(name)
            if isinstance(taken, str):
                refused[name] = taken
            else:
                times.setdefault(name, []).append(taken)
        for name, values in times.items():
            fastest.setdefault(name, []).append(min(values))
    done = [name for block in names.values() for name in block if name not in refused]
    return {name: statistics.median(fastest[name]) for name in done}, refused


def turns(names, order):
    """Returns the calls of one round: frameworks, and the contenders in each, in random order."""
    frameworks = order.sample(list(names), len(names))
    return [(f, name) for f in frameworks for name in order.sample(names[f], len(names[f]))]


def table(results):
    """Formats times as multiples of a copy into a donated buffer; rows are cases."""
    names = list(dict.fromkeys(name for _, medians, _ in results for name in medians))
    refusals = [refused for _, _, refused in results]
    names += list(dict.fromkeys(n for refused in refusals for n in refused if n not in names))
    names.remove(FLOOR)
    lines = ["| case | copy, ms | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for case, medians, _ in results:
        floor = medians[FLOOR]
        cells = [f"{medians[n] / floor:.2f}" if n in medians else "-" for n in names]
        lines.append(f"| {case} | {1e3 * floor:.2f} | " + " | ".join(cells) + " |")
    reasons = dict.fromkeys(
        f"- {name}: {why}" for refused in refusals for name, why in refused.items()
    )
    return "\n".join([*lines, "", "Why a cell is empty:", "", *reasons])


def chart(results, path):
    """Draws a bar for each contender, for channels-last cases with one draw per example."""
    shown = [r for r in results if r[0].layout == "NHWC" and r[0].per == "example"]
    rows = -(-len(shown) // len(METHODS))
    names = list(dict.fromkeys(n for _, medians, _ in shown for n in medians if "eager" not in n))
    figure = Figure(figsize=(12, 2.2 * rows))
    axes = figure.subplots(rows, len(METHODS), sharex=True, sharey=True, squeeze=False)
    for axis, (case, medians, _) in zip(axes.flat, shown, strict=True):
        ratios = [medians.get(name, 0) / medians[FLOOR] for name in names]
        colors = ["C1" if name.startswith("jaxmix") else "C0" for name in names]
        axis.barh(names, ratios, color=colors)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.set_title(f"{case.size} {case.dtype} {case.method}", fontsize=9)
        axis.tick_params(labelsize=7)
    axes[0, 0].set_xscale("log")
    axes[0, 0].set_xlim(0.25, 200)
    axes[0, 0].invert_yaxis()
    figure.supxlabel("time as a multiple of a copy into a donated buffer (no bar: cannot do it)")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer cases and keys")
    parser.add_argument("--keys", type=int, help=f"default: {KEYS}, or {QUICK_KEYS} with --quick")
    parser.add_argument("--frameworks", nargs="+", choices=FRAMEWORKS, default=FRAMEWORKS)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("benchmark"))
    args = parser.parse_args()
    keys = args.keys or (QUICK_KEYS if args.quick else KEYS)
    calls = ROUNDS * keys
    args.out.mkdir(parents=True, exist_ok=True)

    frameworks = [Framework(f"{__package__}.{name}") for name in args.frameworks]
    results = []
    for case in tqdm(cases(args.quick), unit="case"):
        results.append((case, *measure(frameworks, case, keys)))
    for framework in frameworks:
        framework.stop()
    machine = (
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} CPU cores, "
        f"jax {jax.__version__}, Python {platform.python_version()}; medians over {keys} keys "
        f"of the fastest of {ROUNDS} calls, "
        "as multiples of a jitted copy of the images into a donated buffer"
    )
    parts = ["# Benchmark", machine, table(results), bandwidth.report(keys), compiling.report()]
    parts += [steps.report(calls), growth.report(args.out / "growth.png", calls)]
    report = "\n\n".join(parts)
    (args.out / "results.md").write_text(report + "\n")
    chart(results, args.out / "results.png")
    print(report)


if __name__ == "__main__":
    main()
