"""What several test files need: numbers, keys, meshes, products of cases, and the examples."""

import collections
import contextlib
import ctypes
import dataclasses
import functools
import importlib.util
import itertools
import math
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from jax.sharding import AxisType

from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
    Swap,
)

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


def noise(shape, dtype, seed=0):
    """Every kind of number that the dtype has: for floats NaN, inf, -0.0 and subnormals."""
    rng = np.random.default_rng(seed)
    dtype = jnp.dtype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    raw = rng.integers(0, 256, (*shape, dtype.itemsize), np.uint8)
    numbers = raw.view(dtype)[..., 0]
    if not jnp.issubdtype(dtype, jnp.floating):
        return numbers
    with np.errstate(invalid="ignore"):
        numbers = np.where(numbers != numbers, dtype.type(1), numbers)  # No signalling NaN.
    special = np.array([np.nan, np.inf, -np.inf, -0.0]).astype(dtype)
    return np.where(rng.random(shape) < 0.4, rng.choice(special, shape), numbers)


def boxes(rows, spatial, seed=0):
    """The starts and stops of boxes of every size inside an image."""
    rng = np.random.default_rng(seed)
    corners = rng.integers(0, np.array(spatial) + 1, (2, rows, len(spatial)))
    return corners.min(0).astype(np.int32), corners.max(0).astype(np.int32)


def cross_entropy(logits, labels):
    """The loss of each row, against class ids."""
    return -(jax.nn.one_hot(labels, logits.shape[1]) * jax.nn.log_softmax(logits)).sum(-1)


# Mixers that a user could have written: their laws are the library's.


class Speckle(Mixer):
    """Every pixel from the one or the other: a mask of bools."""

    prob: float = 0.5

    def draw(self, key, rows, spatial):
        """Paint each pixel with probability `prob`."""
        return Mask(jax.random.bernoulli(key, self.prob, (rows, *spatial))), None


class Fog(Mixer):
    """A mask of shares, with zeros and ones among them."""

    density: float = 2.0

    def draw(self, key, rows, spatial):
        """Paint each pixel with a share of its own."""
        thickness = self.density * (jax.random.uniform(key, (rows, *spatial)) - 0.5) + 0.5
        return Mask(jnp.clip(thickness, 0.0, 1.0)), None


class Ghost(Mixer):
    """A see-through box."""

    strength: float = 0.7
    margin: int = dataclasses.field(default=1, metadata={"static": True})

    def draw(self, key, rows, spatial):
        """Paint all but a margin at the left and above, faintly."""
        start = jnp.full((rows, len(spatial)), self.margin, jnp.int32)
        stop = jnp.broadcast_to(jnp.array([spatial], jnp.int32), start.shape)
        return Box(start, stop), self.strength * jax.random.uniform(key, (rows,))


class Whole(Mixer):
    """The partner, whole."""

    def draw(self, key, rows, spatial):
        """Paint everything."""
        return None, None


def choice(*mixers, per="example", pairing="flip"):
    """A choice between mixers that are made with the same settings."""
    return RandomChoice(tuple(m(per=per, pairing=pairing) for m in mixers), per=per)


def apply(mixer, prob=0.5, *, per="example", pairing="flip"):
    """A mixer now and then."""
    return RandomApply(mixer(per=per, pairing=pairing), prob, per=per)


STRONG_MIXUP = functools.partial(MixUp, 8.0)
MIXERS = {  # Each is called with `per` and `pairing`.
    "cutmix": CutMix,
    "cutmix-timm": functools.partial(CutMix, box="timm"),
    "cutmix-contained": functools.partial(CutMix, box="contained"),
    "cutmix-minmax": functools.partial(CutMix, minmax=(0.2, 0.9)),
    "mixup": MixUp,
    "mixup-fold": functools.partial(MixUp, fold=True),
    "speckle": Speckle,
    "fog": Fog,
    "ghost": Ghost,
    "whole": Whole,
    "choice": functools.partial(choice, CutMix, STRONG_MIXUP),
    "choice-box": functools.partial(choice, Whole, CutMix),
    "choice-mask": functools.partial(choice, Speckle, CutMix),
    "choice-own": functools.partial(choice, Ghost, Fog, Whole),
    "apply-cutmix": functools.partial(apply, CutMix),
    "apply-mixup": functools.partial(apply, STRONG_MIXUP),
    "nested": functools.partial(
        apply,
        functools.partial(choice, functools.partial(apply, STRONG_MIXUP), CutMix),
        0.8,
    ),
}
OPAQUE = {
    *("cutmix", "cutmix-timm", "cutmix-contained", "cutmix-minmax"),
    *("speckle", "whole", "choice-box", "choice-mask", "apply-cutmix"),
}
PAIRINGS = {
    "swap": Swap(),
    "flip": Flip(),
    "flip-groups2": Flip(groups=2),
    "flip-groups8": Flip(groups=8),
    "roll": Roll(),
    "roll-back2": Roll(-2),
    "permutation": Permutation(),
    "permutation-index": Permutation(np.array([2, 0, 1, 5, 3, 4], np.int32)),
}


def make(name, *, per="example", pairing="flip"):
    """A mixer of the list."""
    return MIXERS[name](per=per, pairing=PAIRINGS[pairing])


def some_mixers(names, *kept):
    """Parametrizes a test over some mixers; all but those that are kept are marked `full`."""
    marks = {name: [] if name in kept else [pytest.mark.full] for name in names}
    return pytest.mark.parametrize("name", [pytest.param(n, marks=m) for n, m in marks.items()])


SHAPE = (6, 6, 5, 3)
FEW = ["cutmix", "choice", "choice-own"]  # Opaque, a box with an opacity, a mask with an opacity.
few_mixers = some_mixers(FEW, "choice")
every_mixer = some_mixers(MIXERS, "choice", "choice-own", "whole")


def images_and_labels(shape=SHAPE, *, copies=None):
    """Everyday images with class ids, or several such batches."""
    shape = shape if copies is None else (copies, *shape)
    labels = np.arange(math.prod(shape[:-3])).reshape(shape[:-3]) % 4
    return jnp.asarray(numbers(shape)), jnp.asarray(labels, jnp.int32)


def call(mixer, key, images, labels):
    """The mixed images and labels."""
    return mixer(key, images, labels, num_classes=4, smoothing=0.1, channel_axis=-1)


def by_plan(mixer, key, images, labels):
    """The plan, and the same images and labels from it."""
    plan = mixer.plan(key, images.shape, channel_axis=-1)
    mixed = plan.images(images, channel_axis=-1)
    return plan, mixed, plan.labels(labels, num_classes=4, smoothing=0.1)


def by_call(mixer, key, images, labels):
    """The plan, and the images and labels that a call with the same key returns."""
    plan = mixer.plan(jax.random.clone(key), images.shape, channel_axis=-1)
    return plan, *call(mixer, key, images, labels)


def stacked(trees):
    """One tree of arrays with a leading axis."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *trees)


def compiled(call, *arguments):
    """The program that runs, by the generator of loops that everybody has: see conftest.py."""
    usual = {"xla_cpu_use_fusion_emitters": True} if jax.__version_info__ < (0, 11) else {}
    return jax.jit(call).lower(*arguments).compile(usual)


SIZES = {"pred": 1, "u8": 1, "s8": 1, "u16": 2, "bf16": 2, "f32": 4, "s32": 4, "u32": 4}
COLLECTIVE = re.compile(
    r"= (.+?) (all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast"
    r"|reduce-scatter|send|recv)(?:-start)?\("
)


def sent(function, *arguments):
    """The bytes that each kind of collective delivers to a device, in the compiled program."""
    result = collections.Counter()
    for shapes, kind in COLLECTIVE.findall(jax.jit(function).lower(*arguments).compile().as_text()):
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", shapes):
            result[kind] += SIZES[dtype] * math.prod(map(int, filter(None, dims.split(","))))
    return dict(result)


def both(pairing, per="example"):
    """CutMix or MixUp with that pairing: boxes, opacities, and one pass over the pixels."""
    return RandomChoice((CutMix(pairing=pairing), MixUp(pairing=pairing)), per=per)


def box_plan(shape=(5, 6, 5, 3), pairing=None, **how):
    """A plan of drawn boxes."""
    start, stop = boxes(shape[0], shape[1:3])
    region = Box(jnp.asarray(start), jnp.asarray(stop))
    return Plan.of(shape, Roll() if pairing is None else pairing, region=region, **how)


def read(plan, spatial):
    """What is painted by a plan, and who is whose partner."""
    return reference.of_plan(plan, spatial), np.asarray(plan.partner)


# Comparisons.


def assert_bits(left, right, where=None):
    """The same bits everywhere, or where told."""
    left, right = np.asarray(left), np.asarray(right)
    assert (left.shape, left.dtype) == (right.shape, right.dtype)
    same = reference.bits(left) == reference.bits(right)
    assert np.all(same if where is None else same | ~where)


def assert_same(left, right, ulps=0):
    """Two pytrees of the same structure, dtypes and numbers, to so many units in the last place."""
    assert jax.tree.structure(left) == jax.tree.structure(right)
    for one, other in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        one, other = np.asarray(one), np.asarray(other)
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        if ulps and np.issubdtype(one.dtype, np.floating):
            assert np.all(reference.ulps(one, other) <= ulps)
        else:
            assert_bits(one, other)


def average_of_painted(plan, rows, spatial, channel_axis, dtype):
    """Paints image i with the one-hot vector of i, mixes and averages the pixels: float64[B, B]."""
    channels, averages = 1 if channel_axis is None else 3, []
    eye = np.eye(rows, -(-rows // channels) * channels)  # Painted a few channels at a time.
    for colours in np.split(eye, eye.shape[1] // channels, axis=1):
        images = np.broadcast_to(
            colours.reshape(rows, *[1] * len(spatial), channels), (rows, *spatial, channels)
        )
        images = images[..., 0] if channel_axis is None else np.moveaxis(images, -1, channel_axis)
        mixed = plan.images(jnp.asarray(images.astype(jnp.dtype(dtype))), channel_axis=channel_axis)
        mixed = reference.channels_last(np.asarray(mixed, np.float64), channel_axis)
        averages.append(mixed.reshape(rows, -1, channels).mean(1))
    return np.concatenate(averages, axis=1)[:, :rows]


# Meshes.


def some_devices(count):
    """The first devices; the test is skipped where there are not so many."""
    found = jax.devices()
    if len(found) < count:
        pytest.skip(f"needs {count} devices, and here are {len(found)}")
    return found[:count]


axis_types = pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])


def mesh_of(sizes, axis_type):
    """A mesh of the first devices: the sizes of its axes, or that of the one axis "batch"."""
    sizes = {"batch": sizes} if isinstance(sizes, int) else sizes
    types = (getattr(AxisType, axis_type),) * len(sizes)
    found = some_devices(math.prod(sizes.values()))
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=types, devices=found)


# Cases.


def pairwise(allowed, axes):
    """Cases of which one has each pair of values of two axes, if some case that is `allowed` has.

    Args:
        allowed: whether a case, a dict of a value for each axis, can be.
        axes: a dict of the values of each axis.
    """
    rng, cases = np.random.default_rng(0), []

    def pairs(case):
        return set(itertools.combinations(case.items(), 2))

    values = [[(name, value) for value in axis] for name, axis in axes.items()]
    pending = {
        pair: None for two in itertools.combinations(values, 2) for pair in itertools.product(*two)
    }
    while pending:
        pair = next(iter(pending))
        drawn = [{n: x[rng.integers(len(x))] for n, x in axes.items()} for _ in range(100)]
        tries = [case for case in (one | dict(pair) for one in drawn) if allowed(case)]
        if tries:
            cases.append(max(tries, key=lambda case: len(pairs(case) & pending.keys())))
        met = pairs(cases[-1]) if tries else {pair}
        pending = {pair: None for pair in pending if pair not in met}
    return cases


def cover(names, *axes, **options):
    """Parametrizes a test over a product; cases that add no value to the others are marked `full`.

    Args:
        names: the names of the arguments, as for `pytest.mark.parametrize`.
        axes: the values of each argument.
        options: for `pytest.mark.parametrize`.
    """
    sizes, seen, cases = [len(axis) for axis in axes], set(), []

    def diagonal(places):
        return [(place - places[0]) % size for place, size in zip(places, sizes, strict=True)]

    for places in sorted(itertools.product(*map(range, sizes)), key=diagonal):
        met = set(enumerate(places))
        values = [axis[place] for axis, place in zip(axes, places, strict=True)]
        marks = [pytest.mark.full] if met <= seen else []
        cases.append((places, pytest.param(*values, marks=marks)))
        seen |= met
    cases.sort(key=lambda case: case[0])
    return pytest.mark.parametrize(names, [case for _, case in cases], **options)


# Bad input.


def case(name, error, call, *patterns):
    """One row: `call(key, images, labels)` raises `error`, its message matches each pattern."""
    return pytest.param(call, error, patterns, id=name)


def dims(*extents):
    """A shape in a message: (8, 3), float32[8, 3] or [8, 3]."""
    return r"[(\[]" + ", ".join(map(str, extents)) + r",?[)\]]"


def refused(call, batch, error, patterns):
    """Calls it with a key and a batch, and reads the message of the error."""
    with pytest.raises(error) as raised:
        call(fresh(), *map(jnp.asarray, batch))
    # A subclass such as TracerArrayConversionError would be an accident, not a check.
    assert type(raised.value) is error
    message = str(raised.value)
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in {message!r}"


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


@contextlib.contextmanager
def as_people_run_it():
    """JAX's own settings in place of the strict ones."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        with jax.debug_key_reuse(False):
            yield


def main(module, monkeypatch, capsys, *options):
    """What an example prints to stdout and stderr, in this process and on its devices."""
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, options)])
    with as_people_run_it():
        module.main()
    return capsys.readouterr()


def refusal(module, monkeypatch, capsys, *options):
    """What an example prints before it exits with code 2, in this process and on its devices."""
    with pytest.raises(SystemExit) as exit_:
        main(module, monkeypatch, capsys, *options)
    assert exit_.value.code == 2
    usage, error, message = capsys.readouterr().err.partition(f"{module.__name__}.py: error: ")
    assert error and "Traceback" not in usage + message
    return message


def figures(module, monkeypatch):
    """A dict that an example's figures are put into as it saves them, by the names of the files."""
    saved, savefig = {}, module.Figure.savefig

    def save(figure, path, **options):
        saved[path.name] = figure
        savefig(figure, path, **options)

    monkeypatch.setattr(module.Figure, "savefig", save)
    return saved


def metrics_of_an_epoch(module, monkeypatch, backend, step, *arguments):
    """The mean metrics of an example's epoch of steps that do nothing, and how often it fetched."""
    fetched, device_get = [], jax.device_get

    def get(x):
        fetched.append(x)
        return device_get(x)

    monkeypatch.setattr(jax, "device_get", get)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(module, "train_step", step)
    with module.tqdm(disable=True) as bar:
        result = module.train_epoch(*arguments, bar)
    return result, len(fetched)


def let_go(limit=0):
    """Lets go of compiled programs, if this process holds more bytes than that; on Linux alone."""
    try:
        pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
        if pages * os.sysconf("SC_PAGE_SIZE") > limit:
            jax.clear_caches()
            ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        pass


def run(*arguments, code=0):
    """Runs Python, which has to end with that code; what it printed to stdout and stderr."""
    return run_together(arguments, code=code)[0]


def run_together(*commands, code=0, optimised=False):
    """The same for each list of arguments, all at once, on CPUs; warnings are errors there, too.

    Most optimisations are off: most runs of seconds spend more time on them than they gain.
    """
    let_go()
    settings = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": str(1 - optimised)}
    settings["PYTHONUNBUFFERED"] = "1"  # A process that aborts would lose what it printed.
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", *map(str, command)],
            env=os.environ | settings,
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
        # gRPC's server may abort when JAX's coordinator ends: a race, after the program itself.
        aborted = process.returncode == -signal.SIGABRT and "queue.Pop() == nullptr" in errors
        assert process.returncode == code or (aborted and code == 0), errors[-3000:]
    return outputs


def free_port():
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]
