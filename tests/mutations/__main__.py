"""Breaks the package on purpose, one change at a time, and reports which tests notice.

python -m tests.mutations [--only NAME ...] [--jobs 2]

Each mutant of `drawing` and `mixing` is made in a temporary copy of the project, where the tests
named for it run as the README's command runs them. Exit code 1 if a mutant survives or cannot be
made.
"""

import argparse
import concurrent.futures
import os
import pathlib
import shlex
import shutil
import subprocess
import sys
import tempfile
import time

from tqdm import tqdm

from . import drawing, mixing

MUTANTS = drawing.MUTANTS + mixing.MUTANTS
ROOT = pathlib.Path(__file__).parents[2]
COPIED = ("jaxmix", "tests", "examples", "README.md", "CHANGELOG.md", "pyproject.toml")


def copy_of_the_project(folder):
    """What the tests need, without caches."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, folder / name)


def verdict(mutant):
    """Killed, survived, or an error that says what is wrong; and the seconds that it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        copy_of_the_project(folder)
        path = folder / mutant.file
        source = path.read_text()
        if source.count(mutant.text) != 1:
            return f"error: its text stands {source.count(mutant.text)} times in {mutant.file}", 0
        path.write_text(source.replace(mutant.text, mutant.replacement))
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-n0"]
        for argument in shlex.split(mutant.tests):
            command += sorted(map(str, folder.glob(argument))) or [argument]
        ran = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            capture_output=True,
            text=True,
            check=False,
        )
    seconds = time.perf_counter() - start
    if ran.returncode in (0, 1):
        return ("killed" if ran.returncode else "survived"), seconds
    lines = ran.stdout.strip().splitlines()
    return (
        f"error: pytest ended with {ran.returncode}: {lines[-1] if lines else ran.stderr}",
        seconds,
    )


def main():
    """Runs the mutants side by side, prints a table of those that were not killed."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--only", metavar="NAME", nargs="+", help="the names of some mutants")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    names = [mutant.name for mutant in MUTANTS]
    unknown = sorted(set(args.only or ()) - set(names))
    if unknown or len(set(names)) < len(names):
        parser.error(f"no mutant is called {', '.join(unknown)}" if unknown else "names twice")
    chosen = [mutant for mutant in MUTANTS if mutant.name in (args.only or names)]
    running = [mutant for mutant in chosen if not mutant.equivalent]
    counts = {"killed": 0, "survived": 0, "error": 0}
    with (
        concurrent.futures.ThreadPoolExecutor(args.jobs) as pool,
        tqdm(total=len(running), unit="mutant") as bar,
    ):
        futures = {pool.submit(verdict, mutant): mutant for mutant in running}
        for future in concurrent.futures.as_completed(futures):
            mutant, (outcome, seconds) = futures[future], future.result()
            counts[outcome.partition(":")[0]] += 1
            bar.update()
            if outcome != "killed" or args.only:
                bar.write(f"{mutant.name} ({mutant.breaks}): {outcome}, {seconds:.0f} s")
    for mutant in chosen:
        if mutant.equivalent:
            print(f"{mutant.name}: equivalent, {mutant.equivalent}")
    print(", ".join(f"{number} {outcome}" for outcome, number in counts.items()))
    sys.exit(counts["survived"] + counts["error"] > 0)


if __name__ == "__main__":
    main()
