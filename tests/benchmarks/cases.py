"""The cases to measure, and a process that runs the contenders of one framework."""

import dataclasses
import importlib
import itertools
import multiprocessing
import time

import numpy as np

SIZES = {"224": ((128, 224, 224, 3), 1000), "32": ((1024, 32, 32, 3), 10)}
METHODS = ("cutmix", "mixup", "both")  # "both" chooses for each row, or for the batch.


@dataclasses.dataclass(frozen=True)
class Case:
    """One row of the table: a whole call with class ids, on one batch."""

    size: str
    dtype: str
    layout: str
    method: str
    per: str
    seed: int = 0  # Of the key. Another seed is another draw in other buffers.

    @property
    def shape(self):
        """The shape of the images, [B, H, W, C] or [B, C, H, W]."""
        rows, height, width, channels = SIZES[self.size][0]
        if self.layout == "NHWC":
            return rows, height, width, channels
        return rows, channels, height, width

    @property
    def classes(self):
        """The number of classes."""
        return SIZES[self.size][1]

    def batch(self):
        """Returns uint8 images, which contenders cast, and class ids."""
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, self.shape, np.uint8)
        return images, generator.integers(0, self.classes, self.shape[0], np.int32)

    def __str__(self):
        """The name of the case in the table."""
        return f"{self.size} {self.dtype} {self.layout} {self.method} per {self.per}"


def cases(quick):
    """Returns all cases, or if quick only those that have a target."""
    if quick:
        kinds = itertools.product(("224", "32"), ("float32", "bfloat16", "uint8"), METHODS)
        return [Case(size, dtype, "NHWC", method, "example") for size, dtype, method in kinds]
    return [
        Case(*case)
        for case in itertools.product(
            SIZES, ("float32", "bfloat16", "uint8"), ("NHWC", "NCHW"), METHODS, ("example", "batch")
        )
    ]


class Framework:
    """A process that holds the contenders of one module and runs them on request."""

    def __init__(self, module):
        """Starts the process; `module` has `contenders(case) -> {name: call or reason}`."""
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(module, theirs), daemon=True)
        self.process.start()

    def prepare(self, case):
        """Prepares a case; returns name -> "", or the reason why the contender cannot run."""
        self.pipe.send(("prepare", case))
        return self.pipe.recv()

    def run(self, name):
        """Returns the seconds of one call, or the reason why it failed."""
        self.pipe.send(("run", name))
        return self.pipe.recv()

    def stop(self):
        """Ends the process."""
        self.pipe.send(("stop", None))
        self.process.join()


def _reason(error):
    """Describes an exception in one line."""
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _serve(module, pipe):
    """Answers requests until it is told to stop."""
    try:
        contenders = importlib.import_module(module).contenders
    except Exception as error:
        reason = f"not measured: {_reason(error)}"

        def contenders(case):
            return {module.rpartition(".")[2].removesuffix("_peers"): reason}

    calls = {}
    while True:
        command, argument = pipe.recv()
        if command == "prepare":
            calls, reasons = {}, {}
            for name, call in contenders(argument).items():
                if isinstance(call, str):
                    reasons[name] = call
                    continue
                try:
                    call()  # Compiles. Contenders that do not accept this input fail here.
                except Exception as error:
                    reasons[name] = _reason(error)
                else:
                    calls[name], reasons[name] = call, ""
            pipe.send(reasons)
        elif command == "run":
            start = time.perf_counter()
            try:
                calls[argument]()
            except Exception as error:
                pipe.send(_reason(error))
            else:
                pipe.send(time.perf_counter() - start)
        else:
            return
