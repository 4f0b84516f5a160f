"""`jax.export`: what crosses the boundary of an exported function, and symbolic sizes."""

import dataclasses
import enum
import subprocess
import sys
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import fresh
from jax import export

import jaxmix
from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Neighbour,
    Permutation,
    RandomApply,
    RandomChoice,
    Roll,
    Swap,
    recipes,
)

SHAPE = (8, 16, 12, 3)
IMAGES = np.random.default_rng(0).random(SHAPE, np.float32)
LABELS = np.arange(8) % 5
INDEX = np.array([1, 0, 3, 2, 5, 4, 7, 6])


def raw():
    return jax.random.key_data(fresh())


class Stripes(Mixer):
    """A mixer of one's own, with a leaf, modes and the content of each row."""

    strength: float = 0.5
    mode: str = dataclasses.field(default="v", metadata={"static": True})
    sizes: tuple = dataclasses.field(default=(1, 2.5, None, b"x"), metadata={"static": True})
    content: jax.Array | None = dataclasses.field(default=None, metadata={"rows": True})

    def draw(self, key, rows, spatial):
        """The left, or the upper half."""
        height, width = spatial
        along = jnp.arange(width) if self.mode == "v" else jnp.arange(height)[:, None]
        painted = jnp.broadcast_to(along < along.size // 2, (rows, height, width))
        return Mask(painted), jnp.full(rows, self.strength)


def round_trip(function, *arguments):
    """Calls it as it comes back from its serialisation."""
    pytest.importorskip("flatbuffers")
    refuse = unittest.mock.Mock(side_effect=AssertionError("pickled"))
    with unittest.mock.patch.multiple("pickle", dumps=refuse, loads=refuse):
        serialised = export.export(jax.jit(function))(*arguments).serialize()
        return export.deserialize(serialised).call(*arguments)


TAKEN = [
    *(Swap(), Flip(), Flip(groups=2), Roll(), Roll(-3), Permutation(INDEX)),
    *(CutMix(), CutMix(0.5, per="pair", box="timm"), CutMix(minmax=(0.2, 0.8), axes=0, grid=4)),
    *(MixUp(), MixUp(0.2, per="batch", fold=True, pairing=Permutation())),
    RandomChoice((CutMix(), RandomApply(MixUp(), 0.3)), probs=(0.25, 0.75)),
    *(Stripes(), Stripes(0.25, mode="h"), Stripes(content=jnp.ones(8))),
    RandomApply(Stripes(), 0.5),
    recipes.timm(0.8, 1.0, prob=0.9),
]


@pytest.mark.parametrize("taken", TAKEN, ids=repr)
def test_mixers_and_pairings_cross_the_boundary(taken):
    def function(taken, key, images):
        return taken.take(images) if hasattr(taken, "take") else taken(key, images)

    def expected():
        return jax.jit(function)(taken, raw(), IMAGES)

    np.testing.assert_array_equal(round_trip(function, taken, raw(), IMAGES), expected())


REGIONS = [
    Box(jnp.zeros((8, 2), int), jnp.full((8, 2), 4)),
    Box(np.zeros((8, 2), int), np.full((8, 2), 4), (4, 2)),
    Mask(jnp.ones((8, 16, 12), bool)),
    Mask(jnp.full((8, 16, 12), 0.25)),
]
PLANS = {
    **{f"region {i}": (region, None, Flip(2)) for i, region in enumerate(REGIONS)},
    "opacity": (None, jnp.full(8, 0.5), Roll(2)),
    "index": (REGIONS[0], jnp.full(8, 0.5), Permutation(INDEX)),
}


@pytest.mark.parametrize("name", PLANS)
def test_regions_and_plans_cross_the_boundary_in_both_directions(name):
    region, opacity, pairing = PLANS[name]

    def make(region, opacity):
        return jaxmix.Plan.of(SHAPE, pairing, region=region, opacity=opacity), region

    made, same = round_trip(make, region, opacity)
    plan = jaxmix.Plan.of(SHAPE, pairing, region=region, opacity=opacity)
    assert jax.tree.structure((made, same)) == jax.tree.structure((plan, region))
    jax.tree.map(np.testing.assert_array_equal, (made, same), (plan, region))
    mixed = round_trip(lambda plan, images: plan.images(images), plan, IMAGES)
    np.testing.assert_array_equal(mixed, plan.images(IMAGES))


def test_neighbour_crosses_the_boundary():
    def function(pairing, x):
        return pairing, jax.vmap(pairing.take, axis_name="rows")(x)

    pairing, taken = round_trip(function, Neighbour("rows", Flip()), jnp.arange(6).reshape(3, 2))
    assert pairing == Neighbour("rows", Flip())
    np.testing.assert_array_equal(taken, [[3, 2], [5, 4], [1, 0]])


def test_a_class_that_is_defined_twice():
    """As when a cell of a notebook is run again: both can be used, each as itself."""

    def define(strength):
        class Again(Mixer):
            depth: float = strength

            def draw(self, key, rows, spatial):
                return None, jnp.full(rows, self.depth)

        return Again

    for cls in [define(0.25), define(0.5), define(0.75)]:
        plan = round_trip(lambda mixer: mixer.plan(raw(), SHAPE), cls())
        np.testing.assert_array_equal(plan.lam, np.full(8, 1 - cls().depth, np.float32))
        redecorated = dataclasses.dataclass(frozen=True)(cls)
        round_trip(lambda mixer: mixer.plan(raw(), SHAPE), redecorated())


class Direction(enum.Enum):
    """A mode that is no literal."""

    DOWN = 1


@pytest.mark.parametrize(
    "mode",
    [Direction.DOWN, jnp.sin, float("nan"), np.float32],
    ids=["enum", "function", "nan", "type"],
)
def test_a_mode_that_is_no_literal_is_named(mode):
    pytest.importorskip("flatbuffers")
    exported = export.export(jax.jit(lambda mixer, x: x))(Stripes(mode=mode), IMAGES)
    with pytest.raises(
        ValueError, match=r"^Stripes: .* static fields must be literals, .* got {'mode': "
    ):
        exported.serialize()


def test_a_plan_crosses_the_boundary_with_a_static_batch_only():
    pytest.importorskip("flatbuffers")
    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, 16, 12, 3"), jnp.float32)
    exported = export.export(jax.jit(lambda key, x: CutMix().plan(key, x.shape)))(raw(), shape)
    with pytest.raises(ValueError, match=r"^Plan: .*sizes static, got {'batch': b}$"):
        exported.serialize()
    with pytest.raises(ValueError, match=r"^Plan\.images: .*the batch must be static"):
        exported.call(raw(), IMAGES).images(IMAGES)


def test_without_flatbuffers_the_error_says_so():
    program = """
import sys
sys.modules["flatbuffers"] = None
import jax, jaxmix
exported = jax.export.export(jax.jit(lambda mixer: mixer.alpha * 2))(jaxmix.CutMix())
try:
    exported.serialize()
except ImportError as error:
    assert "flatbuffers" in str(error), error
    print("said so")
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ran.stdout == "said so\n", ran.stderr


# Symbolic sizes.


class Left(Mixer):
    """A mask of the left half, for any extents."""

    def draw(self, key, rows, spatial):
        """Opaque."""
        left = jnp.arange(spatial[-1]) < spatial[-1] // 2
        return Mask(jnp.broadcast_to(left, (rows, *spatial))), None


SYMBOLIC = {
    "cutmix": CutMix(),
    "timm's box": CutMix(box="timm", per="batch"),
    "contained": CutMix(box="contained", per="pair"),
    "grid": CutMix(grid=4),
    "minmax": CutMix(minmax=(0.2, 0.8)),
    "axes": CutMix(axes=0, pairing="permutation"),
    "mixup": MixUp(pairing="roll"),
    "two": RandomChoice((CutMix(), CutMix(box="contained"))),
    "both": RandomChoice((CutMix(), MixUp())),
    "recipe": recipes.timm(0.8, 1.0, prob=0.9),
    "mask": Left(),
    "mask and box": RandomChoice((Left(), CutMix())),
    "off": recipes.timm(0.0, 0.0),
}
USES = {
    "call": lambda mixer, key, x, y: mixer(key, x, y, num_classes=5),
    "first": lambda mixer, key, x, y: mixer(key, jnp.moveaxis(x, -1, 1), channel_axis=1),
    "volume": lambda mixer, key, x, y: mixer(key, jnp.stack((x,) * 4, 1)),
    "donors": lambda mixer, key, x, y: mixer.plan(key, x.shape).images(x, donors=x + 1),
    "weights": lambda mixer, key, x, y: mixer.plan(key, x.shape).weights(x.shape),
    "maps": lambda mixer, key, x, y: mixer.plan(key, x.shape).maps((9 * x[..., 0]).astype(int)),
    "only": lambda mixer, key, x, y: mixer.plan(key, x.shape).only(y > 1).images(x),
    "loss": lambda mixer, key, x, y: mixer.plan(key, x.shape).loss(
        lambda out, y: out * y.astype(out.dtype), x.mean((1, 2, 3)), y
    ),
    "same": lambda mixer, key, x, y: mixer.plan(key, x.shape).at(x.shape).images(x),
}
ALL = "b, 4*h, 4*w, 3"
POINTS = [
    *((name, "call", ALL) for name in SYMBOLIC),
    *(("both", use, ALL) for use in USES),
    *(("both", "call", sizes) for sizes in ("b, 16, 4*w, 3", "8, 4*h, 4*w, c", "b, 16, 12, c")),
]


@pytest.mark.parametrize("name, use, sizes", dict.fromkeys(POINTS))
def test_symbolic_extents_and_channels(name, use, sizes):
    mixer, shape = SYMBOLIC[name], export.symbolic_shape(sizes)

    def function(key, x, y):
        return USES[use](mixer, key, x, y)

    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    labels = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    exported = export.export(jax.jit(function))(raw(), images, labels)
    found, expected = (f(raw(), IMAGES, LABELS) for f in (exported.call, jax.jit(function)))
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize(
    "mixer, use, message",
    [
        (CutMix(grid=4), lambda plan: plan, "grid=4 must divide .*make symbolic extents static"),
        (CutMix(), lambda plan: plan.at((8, 4, 4, 3)), "make symbolic extents static"),
        (CutMix(), lambda plan: plan[:2], "static batch"),
    ],
    ids=["grid", "at", "slice"],
)
def test_what_needs_static_sizes_says_which(mixer, use, message):
    batch = 8 if "extents" in message else "b"
    shape = export.symbolic_shape(f"{batch}, h, w, 3")

    def function(key, x):
        return use(mixer.plan(key, x.shape)).lam

    with pytest.raises(ValueError, match=message):
        export.export(jax.jit(function))(raw(), jax.ShapeDtypeStruct(shape, jnp.float32))


@pytest.mark.parametrize("sizes", ["b, d", "b, t, d", "b, t, h, 12, c"])
def test_blends_need_no_static_size_at_all(sizes):
    x = {2: IMAGES[:, 0, 0], 3: IMAGES[:, 0], 5: IMAGES[:, None]}[len(sizes.split(","))]
    given = jax.ShapeDtypeStruct(export.symbolic_shape(sizes), jnp.float32)
    exported = export.export(jax.jit(lambda key, x: MixUp()(key, x)))(raw(), given)
    np.testing.assert_array_equal(exported.call(raw(), x), MixUp()(raw(), x))
