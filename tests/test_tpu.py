"""What the compiler for TPUs makes of the library, for v5e chips that are not there.

`pip install -e ".[test,tpu]"` brings the compiler (Linux, x86-64); without it these are skipped.
"""

import functools
import importlib.util
import math
import os
import re
from typing import NamedTuple

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import COLLECTIVE, Fog, Speckle, axis_types, both, cover
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from test_sharding_traffic import SENT, promised

import jaxmix
from jaxmix import Box, CutMix, Mask, MixUp, Plan, RandomApply, recipes

if importlib.util.find_spec("libtpu") is None:
    pytest.skip('needs the compiler for TPUs: pip install -e ".[tpu]"', allow_module_level=True)

DTYPES = ["float32", "bfloat16", "uint8"]
MIXERS = {"cutmix": CutMix(), "mixup": MixUp(), "both": both("swap")}
# To a chip. At 224 pixels 128 images lie along the lanes, and 64 do not; small images always do.
SIZES = {"lanes": (128, 224, 224, 3), "rows": (64, 224, 224, 3), "small": (1024, 32, 32, 3)}
MESHES = {
    "one": ({"batch": 1}, "Auto"),
    "eight": ({"batch": 8}, "Auto"),
    "eight-explicit": ({"batch": 8}, "Explicit"),
    "two-by-four-explicit": ({"batch": 2, "model": 4}, "Explicit"),
}
# Instructions that write nothing, or whose end is the one that counts.
FREE = {"parameter", "get-tuple-element", "tuple", "bitcast", "copy-start", "slice-start"}


class Made(NamedTuple):
    """What a program does.

    Attributes:
        passes: how many results as large as the images of one chip are written to its memory.
        scratch: the bytes of its temporaries.
        sent: the kinds of its collectives.
    """

    passes: int
    scratch: int
    sent: set


@functools.cache
def chips(topology="v5e:2x4"):
    """Descriptions of chips, which programs can be compiled for."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # There is no cloud to ask where we are.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # Several processes compile at once.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices


def mesh_of(sizes, kind, topology="v5e:2x4"):
    """A mesh of the first of these chips."""
    devices = np.array(chips(topology)[: math.prod(sizes.values())]).reshape(*sizes.values())
    return Mesh(devices, tuple(sizes), axis_types=(getattr(AxisType, kind),) * len(sizes))


def abstract(shape, dtype, mesh, *spec):
    """An array that is not there, laid out over a mesh."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))


def arguments(mesh, size, dtype, axis="batch"):
    """A key, images and class ids; `size` is that of the images of one part of the mesh's axis."""
    rows, *rest = size
    rows *= mesh.shape[axis]
    images = abstract((rows, *rest), jnp.dtype(dtype), mesh, axis)
    key = abstract((), jax.eval_shape(lambda: jax.random.key(0)).dtype, mesh)
    return key, images, abstract((rows,), jnp.int32, mesh, axis)


def program(call, mesh, *arguments):
    """The compiled program."""
    with jax.set_mesh(mesh):
        return jax.jit(call).lower(*arguments).compile()


def sent(text):
    """The kinds of a program's collectives."""
    return {kind for _, kind in COLLECTIVE.findall(text)}


def made(compiled, size):
    """What a program does that has images of that size on each chip."""
    text, passes = compiled.as_text(), 0
    for line in text[text.index("ENTRY") :].splitlines():
        found = re.match(r"\s+(?:ROOT )?%?[\w.\-]+ = (.+?) ([a-z][\w\-]*)\(", line)
        if found and found[2] not in FREE:
            for dims, layout in re.findall(r"\w+\[([\d,]*)\](\{[^}]*\})?", found[1]):
                # "S(1)" is memory on the chip, into which what is used next is read ahead.
                large = math.prod(map(int, filter(None, dims.split(",")))) >= math.prod(size)
                passes += large and "S(1)" not in layout
    scratch = compiled.memory_analysis().temp_size_in_bytes
    return Made(passes, scratch, sent(text))


def assert_a_copy(compiled, mesh, size, dtype):
    """One pass over the images, nothing sent, and temporaries of a fifth of them at most.

    Beside what is drawn for each row, which on an Explicit mesh each chip draws for the batch.
    """
    found, drawn = made(compiled, size), size[0] * mesh.size
    limit = 0.2 * math.prod(size) * jnp.dtype(dtype).itemsize + 128 * drawn
    assert found.passes == 1 and found.scratch <= limit and not found.sent, (found, limit)


@cover("mixer, dtype, size, mesh", list(MIXERS), DTYPES, list(SIZES), list(MESHES))
def test_a_call_is_one_pass(mixer, dtype, size, mesh):
    def call(key, images, labels):
        return MIXERS[mixer](key, images, labels, num_classes=1000)

    where = mesh_of(*MESHES[mesh])
    compiled = program(call, where, *arguments(where, SIZES[size], dtype))
    assert_a_copy(compiled, where, SIZES[size], dtype)


def normalised(images):
    """Images of any dtype as a network takes them."""
    mean, spread = jnp.float32([[[[124, 116, 104]]]]), jnp.float32([[[[58, 57, 57]]]])
    return ((images.astype(jnp.float32) - mean) / spread).astype(jnp.bfloat16)


@cover("mixer, dtype, mesh", list(MIXERS), DTYPES, ["one", "eight", "eight-explicit"])
def test_a_mixture_that_is_normalised_is_one_pass(mixer, dtype, mesh):
    def call(key, images, labels):
        mixed, soft = MIXERS[mixer](key, images, labels, num_classes=1000)
        return normalised(mixed), soft

    where = mesh_of(*MESHES[mesh])
    compiled = program(call, where, *arguments(where, SIZES["lanes"], dtype))
    assert_a_copy(compiled, where, SIZES["lanes"], dtype)


@cover("valid, dtype, mesh", ["box", "mask"], DTYPES, ["one", "eight", "eight-explicit"])
def test_valid_pixels_are_one_pass(valid, dtype, mesh):
    size = SIZES["lanes"]

    def call(key, images, ends):
        plan = MIXERS["both"].plan(key, images.shape)
        rows = [jnp.arange(n)[None] < ends[:, d, None] for d, n in enumerate(size[1:3])]
        box, mask = Box(jnp.zeros_like(ends), ends), rows[0][:, :, None] & rows[1][:, None]
        return plan.only(box if valid == "box" else mask).images(images)

    where = mesh_of(*MESHES[mesh])
    key, images, labels = arguments(where, size, dtype)
    ends = abstract((*labels.shape, 2), "int32", where, "batch")
    found = made(program(call, where, key, images, ends), size)
    assert found.passes == 1 and not found.sent, found


@cover("mixer, dtype, rows", list(MIXERS), DTYPES, [256, 264, 24])
def test_nothing_is_sent_where_another_axis_might_split_the_batch(mixer, dtype, rows):
    """On a mesh of (2, 4) in Auto mode the compiler alone knows which axis does."""
    mesh, size = mesh_of({"batch": 2, "model": 4}, "Auto"), (rows // 2, 32, 32, 3)
    compiled = program(MIXERS[mixer], mesh, *arguments(mesh, size, dtype)[:2])
    assert not made(compiled, size).sent


@cover("kind, axis", ["Auto", "Explicit"], ["batch", None])
def test_of_an_odd_number_of_rows_one_crosses_each_border(kind, axis):
    mesh, size = mesh_of({"batch": 8}, kind), (3, 32, 32, 3)
    key, images, _ = arguments(mesh, size, "float32")
    if axis is None:
        images = abstract((9, 32, 32, 3), jnp.float32, mesh)
    found = made(program(MIXERS["both"], mesh, key, images), images.shape)
    assert found.sent == ({"collective-permute"} if axis else set())


@pytest.mark.parametrize("name", SENT)
@axis_types
def test_pairings_send_what_the_guide_says(axis_type, name):
    mesh, size, pairing = mesh_of({"batch": 8}, axis_type), (32, 32, 32, 3), SENT[name]
    call = both(pairing)
    if isinstance(pairing, jaxmix.Neighbour):
        specs = PartitionSpec(), PartitionSpec("batch")
        call = jax.shard_map(call, mesh=mesh, in_specs=specs, out_specs=specs[1])
    compiled = program(call, mesh, *arguments(mesh, size, "float32")[:2])
    collective, bytes_sent = promised()[name]
    assert made(compiled, size).sent == ({collective} if bytes_sent else set())


def test_rolling_is_one_pass_on_one_chip():
    mesh, size = mesh_of({"batch": 1}, "Auto"), SIZES["lanes"]
    compiled = program(both("roll"), mesh, *arguments(mesh, size, "float32")[:2])
    assert_a_copy(compiled, mesh, size, "float32")


@pytest.mark.parametrize("mapped", ["shard_map", "pmap"])
def test_a_batch_of_one_device_is_one_pass(mapped):
    """It is whole there, whatever mesh it is a part of."""
    size, mesh = SIZES["lanes"], mesh_of({"batch": 8}, "Auto")
    if mapped == "shard_map":
        specs = PartitionSpec(), PartitionSpec("batch")
        call = jax.shard_map(MIXERS["both"], mesh=mesh, in_specs=specs, out_specs=specs[1])
        compiled = program(call, mesh, *arguments(mesh, size, "float32")[:2])
    else:
        call = jax.pmap(MIXERS["both"], axis_name="batch", in_axes=(None, 0), devices=chips())
        images = jax.ShapeDtypeStruct((8, *size), jnp.float32)
        compiled = call.lower(jax.eval_shape(lambda: jax.random.key(0)), images).compile()
    assert_a_copy(compiled, mesh, size, "float32")


@pytest.mark.full
@axis_types
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_pod_sends_nothing(dtype, axis_type):
    """256 chips with 128 images each."""
    mesh = mesh_of({"batch": 256}, axis_type, "v5e:16x16")

    def call(key, images, labels):
        return MIXERS["both"](key, images, labels, num_classes=1000)

    compiled = program(call, mesh, *arguments(mesh, SIZES["lanes"], dtype))
    assert_a_copy(compiled, mesh, SIZES["lanes"], dtype)


@pytest.mark.parametrize("mesh", ["one", "eight"])
def test_the_test_sees_passes_temporaries_and_collectives(mesh):
    """What copied code does, a random permutation, is anything but one pass."""

    def call(key, images):
        return (images + jax.random.permutation(key, images)) / 2

    where, size = mesh_of(*MESHES[mesh]), SIZES["lanes"]
    found = made(program(call, where, *arguments(where, size, "float32")[:2]), size)
    assert found.passes > 1 and found.scratch > 4 * math.prod(size)
    assert bool(found.sent) == (mesh == "eight")


# Every public call compiles.

SHAPE = (8, 32, 32, 3)
EDGE = jnp.full((8, 2), 4)


def plan_of(**how):
    """A plan by hand."""
    return Plan.of(SHAPE, "swap", **how)


def by_mixer(mixer, shape=SHAPE, dtype="float32", **layout):
    """A call of a mixer with labels."""

    def call(key):
        images, labels = jnp.zeros(shape, dtype), jnp.arange(shape[0])
        return mixer(key, images, labels, num_classes=10, smoothing=0.1, **layout)

    return call


def by_plan(use, mixer=MIXERS["both"]):
    """Something done with a drawn plan."""
    return lambda key: use(mixer.plan(key, SHAPE))


def loss(outputs, labels):
    """One for each example."""
    return -jnp.take_along_axis(outputs, labels[:, None], 1)[:, 0]


CALLS = {
    "cutmix": lambda key: jaxmix.cutmix(key, jnp.zeros(SHAPE), jnp.arange(8), num_classes=10),
    "mixup": lambda key: jaxmix.mixup(key, jnp.zeros(SHAPE), jnp.arange(8), num_classes=10),
    "symmetric_beta": lambda key: jaxmix.symmetric_beta(key, 0.4, (1000,)),
    **{
        f"dtype-{dtype}": by_mixer(both("swap") if dtype != "bool" else CutMix(), dtype=dtype)
        for dtype in (*DTYPES, "float16", "int32", "bool")
    },
    **{f"box-{law}": by_mixer(CutMix(box=law)) for law in ("paper", "timm", "contained")},
    **{f"per-{per}": by_mixer(both("swap", per)) for per in ("example", "pair", "batch")},
    **{
        f"{name}-{rows}-rows": by_mixer(both(pairing), (rows, *SHAPE[1:]))
        for name, pairing in helpers.PAIRINGS.items()
        for rows in ((6,) if "index" in name else (8, 16) if "groups" in name else (1, 2, 7, 8))
    },
    "minmax": by_mixer(CutMix(minmax=(0.2, 0.8))),
    "axes": by_mixer(CutMix(axes=0)),
    "grid": by_mixer(CutMix(grid=4)),
    "fold": by_mixer(MixUp(fold=True)),
    "apply": by_mixer(RandomApply(both("roll"), 0.5)),
    "masks": by_mixer(helpers.choice(Speckle, Fog, CutMix)),
    "timm": by_mixer(recipes.timm(0.8, 1.0, mode="pair")),
    "torchvision": by_mixer(recipes.torchvision(1.0, 0.2)),
    "big_vision": by_mixer(recipes.big_vision(0.2)),
    "channels-first": by_mixer(both("swap"), (8, 3, 32, 32), channel_axis=1),
    "sound": by_mixer(both("swap"), (8, 100, 2), channel_axis=-1),
    "volume": by_mixer(both("swap"), (8, 6, 7, 8, 2)),
    "table": by_mixer(MixUp(), (8, 5)),
    "partner": by_plan(lambda plan: plan.partner),
    "weights": by_plan(lambda plan: plan.weights(SHAPE)),
    "images": by_plan(lambda plan: plan.images(jnp.zeros(SHAPE))),
    "donors": by_plan(lambda plan: plan.images(jnp.zeros(SHAPE), donors=jnp.ones(SHAPE))),
    "labels": by_plan(lambda plan: plan.labels(jnp.ones((8, 5)) / 5)),
    "maps": by_plan(lambda plan: plan.maps(jnp.zeros(SHAPE[:3], int))),
    "loss": by_plan(lambda plan: plan.loss(loss, jnp.zeros((8, 9)), jnp.arange(8))),
    "accuracy": by_plan(lambda plan: plan.accuracy(jnp.zeros((8, 9)), jnp.arange(8))),
    "only": by_plan(lambda plan: plan.only(jnp.arange(8) < 5).images(jnp.zeros(SHAPE))),
    "slice": by_plan(lambda plan: plan[2:6].images(jnp.zeros((4, *SHAPE[1:])))),
    "at": by_plan(
        lambda plan: plan.at((8, 8, 8, 5)).images(jnp.zeros((8, 8, 8, 5))), CutMix(grid=4)
    ),
    "of-box": lambda key: plan_of(region=Box(EDGE, EDGE + 8)).images(jnp.zeros(SHAPE)),
    "of-mask": lambda key: plan_of(region=Mask(jnp.ones(SHAPE[:3]))).images(jnp.zeros(SHAPE)),
    "of-opacity": lambda key: plan_of(opacity=0.5).images(jnp.zeros(SHAPE)),
    "gradient": by_plan(
        lambda plan: jax.grad(lambda x: (plan.images(x) ** 2).sum())(jnp.ones(SHAPE))
    ),
    "vmap": lambda key: jax.vmap(lambda key: MIXERS["both"](key, jnp.zeros(SHAPE)))(
        jax.random.split(key, 3)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_call_compiles(name):
    mesh = mesh_of({"batch": 1}, "Auto")
    program(CALLS[name], mesh, arguments(mesh, SHAPE, "float32")[0])


# The train steps of the examples.


def test_the_step_of_the_pmap_example_shares_gradients_alone():
    example = helpers.load(helpers.example("train_pmap"))
    key, images, labels = jax.eval_shape(
        lambda: (jax.random.key(0), jnp.zeros((32, 8, 8, 1)), jnp.zeros(32, int))
    )
    step = jax.pmap(
        example.train_step.__wrapped__,
        axis_name="batch",
        in_axes=(None, None, 0, 0, 0),
        out_axes=(0, None),
        devices=chips(),
    )
    with helpers.as_people_run_it():
        state = jax.eval_shape(example.create_state, key, images)
        copies = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((8, *x.shape), x.dtype), (state, images, labels)
        )
        mixer = example.make_mixer("both", 1.0, "example")
        text = step.lower(mixer, key, *copies).compile().as_text()
    assert sent(text) == {"all-reduce"}


@pytest.mark.parametrize("network", ["small", pytest.param("resnet18", marks=pytest.mark.full)])
def test_the_step_of_the_sharded_example_shares_gradients_alone(network):
    example = helpers.load(helpers.example("train_sharded"))
    mesh = mesh_of({"data": 8}, "Auto")
    images = abstract((1, 256, 28, 28, 1), jnp.uint8, mesh, None, "data")
    labels = abstract((1, 256), jnp.int32, mesh, None, "data")
    key, mixer = (
        jax.eval_shape(lambda: jax.random.key(0)),
        example.make_mixer("both", 1.0, "example"),
    )
    with jax.set_mesh(mesh), helpers.as_people_run_it():
        state = nnx.eval_shape(lambda: example.create(jax.random.key(0), network, (28, 28, 1)))
        compiled = example.train_step.lower(*state, mixer, key, images, labels).compile()
    text = compiled.compiled.as_text()
    assert sent(text) == {"all-reduce"}
