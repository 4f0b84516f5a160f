"""The examples as modules and as command lines, and Python in processes of its own."""

import importlib.util
import os
import pathlib
import socket
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent


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
