"""Runs the tests of the laws on an accelerator, and times mixing there.

python -m tests.accelerator [--rounds 7] [--seconds 220]

Uses the accelerator that JAX finds, and prints a report in Markdown within ten minutes. The report
compares mixing with a copy of the images, and times training steps with and without mixing. Without
an accelerator the program says so. The exit code is 1 if a law is broken or the time was too short.
"""

import argparse
import os
import pathlib
import platform
import subprocess
import sys
import time

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # The laws run beside this process.

import jax

from .benchmarks import bandwidth, steps

HERE = pathlib.Path(__file__).parent
LAWS = [*sorted(path.name for path in HERE.glob("test_laws*.py")), "test_testing.py"]


def laws(seconds):
    """Returns pytest's lines of failures, skips and counts, and whether all laws were kept."""
    command = [sys.executable, "-m", "pytest", "-n0", "-q", "-rfEs", "--tb=no", "--no-header"]
    environment = os.environ | {"JAX_PLATFORMS": ""}  # JAX takes the best one that it finds.
    process = subprocess.Popen(
        [*command, *(HERE / name for name in LAWS)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        printed, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
        printed, _ = process.communicate()
        return [f"stopped after {seconds} s", *printed.splitlines()[-3:]], False
    lines = printed.splitlines()
    kept = ("FAILED", "ERROR", "SKIPPED")
    return [line for line in lines if line.startswith(kept)] + lines[-1:], process.returncode == 0


def main():
    """The command line."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="timings of each figure")
    parser.add_argument("--seconds", type=int, default=220, help="time limit of the laws")
    args = parser.parse_args()
    if jax.default_backend() == "cpu":
        print("There is no accelerator: JAX finds only CPUs here.")
        return
    start = time.perf_counter()
    device = jax.devices()[0]
    versions = f"jax {jax.__version__}, Python {platform.python_version()}"
    print(f"# {device.device_kind} x {jax.device_count()}, {versions}\n\n## Laws\n", flush=True)
    lines, kept = laws(args.seconds)
    print(*(f"- {line.strip('= ')}" for line in lines), sep="\n", flush=True)
    print(f"\n## Compared with a copy\n\n{bandwidth.report(args.rounds)}\n", flush=True)
    print(f"## In a training step\n\n{steps.report(args.rounds)}\n")
    print(f"It took {time.perf_counter() - start:.0f} s.")
    sys.exit(not kept)


if __name__ == "__main__":
    main()
