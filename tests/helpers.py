"""What several test files need: numbers, keys, meshes, products of cases, and the examples."""

import importlib.util
import itertools
import math
import os
import pathlib
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

ROOT = pathlib.Path(__file__).parent.parent


# Numbers and keys.


def fresh(seed=0, impl=None):
    """A key that nobody has used yet: `jax_debug_key_reuse` follows each key object."""
    return jax.random.key(seed, impl=impl)


def numbers(shape, dtype="float32", seed=0):
    """Everyday pixels."""
    rng = np.random.default_rng(seed)
    if jnp.issubdtype(dtype, jnp.floating):
        return rng.uniform(0.1, 1.0, shape).astype(jnp.dtype(dtype))
    return rng.integers(0, 2 if dtype == "bool" else 256, shape).astype(dtype)


def boxes(rows, spatial, seed=0):
    """The starts and stops of boxes of every size inside an image."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, np.array(spatial) + 1, (2, rows, len(spatial)))
    return corners.min(0).astype(np.int32), corners.max(0).astype(np.int32)


def cross_entropy(logits, labels):
    """The loss of each row, against class ids."""
    return -(jax.nn.one_hot(labels, logits.shape[1]) * jax.nn.log_softmax(logits)).sum(-1)


# Meshes.


def some_devices(count):
    """The first devices; the test is skipped where there are not so many."""
    found = jax.devices()
    if len(found) < count:
        pytest.skip(f"needs {count} devices, and here are {len(found)}")
    return found[:count]


def mesh_of(sizes, axis_type):
    """A mesh of the first devices: the sizes of its axes, or that of the one axis "batch"."""
    sizes = {"batch": sizes} if isinstance(sizes, int) else sizes
    types = (getattr(AxisType, axis_type),) * len(sizes)
    found = some_devices(math.prod(sizes.values()))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=found)


# Cases.


def cover(names, *axes, strength=2, **options):
    """Parametrizes a test over a product; cases that add nothing to the others are marked `full`.

    Args:
        names: the names of the arguments, as for `pytest.mark.parametrize`.
        axes: the values of each argument.
        strength: how many arguments at a time are to meet in all their combinations.
        options: for `pytest.mark.parametrize`.
    """
    sizes, seen, cases = [len(axis) for axis in axes], set(), []

    def diagonal(places):
        return [(place - places[0]) % size for place, size in zip(places, sizes, strict=True)]

    together = list(itertools.combinations(range(len(axes)), strength))
    for places in sorted(itertools.product(*map(range, sizes)), key=diagonal):
        met = {(some, *(places[i] for i in some)) for some in together}
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        marks = [pytest.mark.full] if met <= seen else []
        cases.append((places, pytest.param(*values, marks=marks)))
        seen |= met
    cases.sort(key=lambda case: case[0])
    return pytest.mark.parametrize(names, [case for _, case in cases], **options)


# The examples as modules and as command lines, and Python in processes of its own.


def example(name):
    """The path of one."""
    return ROOT / "examples" / f"{name}.py"


def load(path):
    """A program as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def refusal(module, monkeypatch, capsys, *options):
    """What an example prints before it exits with code 2, in this process and on its devices."""
    name = f"{module.__name__}.py"
    monkeypatch.setattr(sys, "argv", [name, *map(str, options)])
    with pytest.raises(SystemExit) as exit_:
        module.main()
    assert exit_.value.code == 2
    usage, error, message = capsys.readouterr().err.partition(f"{name}: error: ")
    assert error and "Traceback" not in usage + message
    return message


def run(*arguments, code=0):
    """Runs Python, which has to end with that code; what it printed to stdout and stderr."""
    return run_together(arguments, code=code)[0]


def run_together(*commands, code=0, optimized=False):
    """The same for each list of arguments, all at once; warnings are errors there, too.

    Programs are compiled without most optimisations unless `optimized`: a run of seconds spends
    more time on them than it gains.
    """
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(not optimized))}
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, command)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for command in commands
    ]
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, errors) in zip(processes, outputs, strict=True):
        assert process.returncode == code, errors[-3000:]
    return outputs


def free_port():
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
