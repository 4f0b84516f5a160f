"""The laws of mixing: one body for every mixer, pairing, granularity, dtype, rank and layout.

A new method gets all of them by joining `MIXERS`.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import boxes, fresh, mesh_of, numbers
from jax.sharding import NamedSharding, PartitionSpec

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
)
from jaxmix._beta import from_uniforms

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


class Swap(Mixer):
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
    "swap": Swap,
    "choice": functools.partial(choice, CutMix, STRONG_MIXUP),
    "choice-box": functools.partial(choice, Swap, CutMix),
    "choice-mask": functools.partial(choice, Speckle, CutMix),
    "choice-own": functools.partial(choice, Ghost, Fog, Swap),
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
    *("speckle", "swap", "choice-box", "choice-mask", "apply-cutmix"),
}
PAIRINGS = {
    "flip": Flip(),
    "flip-groups2": Flip(groups=2),
    "flip-groups8": Flip(groups=8),
    "roll": Roll(),
    "roll-back2": Roll(-2),
    "permutation": Permutation(),
    "permutation-index": Permutation(np.array([2, 0, 1, 5, 3, 4], np.int32)),
}
DTYPES = ("float32", "bfloat16", "float16", "float64", "uint8", "int32")
LAYOUTS = {  # Spatial extents and channel axis.
    "images": ((6, 5), -1),
    "images-first": ((6, 5), 1),
    "grey": ((6, 5), None),
    "sound": ((9,), -1),
    "sound-first": ((9,), 1),
    "steps": ((9,), None),
    "volume": ((4, 3, 2), -1),
    "volume-first": ((4, 3, 2), 1),
    "four-axes": ((3, 2, 2, 3), None),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """One point of the cover: names, so that a failing test says what it was."""

    mixer: str = "choice"
    per: str = "example"
    pairing: str = "flip"
    dtype: str = "float32"
    layout: str = "images"
    rows: int = 6

    def __str__(self):
        """The mixer and whatever is not the default."""
        values = dataclasses.asdict(self)
        default = {field.name: field.default for field in dataclasses.fields(self)}
        named = [str(v) for k, v in values.items() if k == "mixer" or v != default[k]]
        return "-".join(named)

    @property
    def spatial(self):
        """The extents in pixels."""
        return LAYOUTS[self.layout][0]

    @property
    def channel_axis(self):
        """Where the channels are."""
        return LAYOUTS[self.layout][1]

    def shape(self, channels=3):
        """The shape of a batch of images."""
        shape = [self.rows, *self.spatial]
        if self.channel_axis == -1:
            shape.append(channels)
        elif self.channel_axis == 1:
            shape.insert(1, channels)
        return tuple(shape)


CASES = [
    *[Case(mixer) for mixer in MIXERS],
    *[Case(m, per="batch") for m in ("mixup", "choice", "choice-own")],
    *[Case(m, per="pair", rows=7) for m in ("cutmix", "mixup", "choice", "choice-own")],
    *[Case(pairing=p) for p in PAIRINGS if p not in ("flip", "flip-groups8")],
    *[Case("nested", pairing="permutation"), Case("apply-cutmix", pairing="roll")],
    *[Case(m, dtype=d) for m in ("choice", "fog") for d in DTYPES if d != "float32"],
    *[Case(m, dtype=d) for m in ("cutmix", "speckle") for d in (*DTYPES, "bool") if d != "float32"],
    *[Case("choice", layout=layout) for layout in LAYOUTS if layout != "images"],
    *[Case("choice-mask", layout=x) for x in ("images-first", "grey", "sound", "volume-first")],
    *[Case("mixup", layout=layout) for layout in ("steps", "volume-first")],
    *[Case(m, rows=rows) for m in ("choice", "choice-own") for rows in (0, 1, 5)],
]
# The scope makes pytest run all laws of a case in a row, with what was compiled for the first.
every_case = pytest.mark.parametrize("case", CASES, ids=str, scope="module")
every_mixer = pytest.mark.parametrize("name", MIXERS, scope="module")


def enable_x64():
    """`jax.enable_x64(True)`, under the name it had before jax 0.8."""
    return (jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64)(True)


def make(name, *, per="example", pairing="flip"):
    """A mixer of the list."""
    return MIXERS[name](per=per, pairing=PAIRINGS[pairing])


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


def context(case):
    """float64 exists in x64 mode only."""
    return enable_x64() if case.dtype == "float64" else jax.numpy_dtype_promotion("strict")


@functools.cache
def drawn(case):
    """The plan of a case, what is painted by it, and who is whose partner."""
    with context(case):
        mixer = make(case.mixer, per=case.per, pairing=case.pairing)
        plan = mixer.plan(fresh(), case.shape(), channel_axis=case.channel_axis)
        return plan, reference.of_plan(plan, case.spatial), np.asarray(plan.partner)


def opaque(plan):
    """Whether every pixel is the one's or the other's, whatever was drawn."""
    soft = isinstance(plan.region, Mask) and plan.region.painted.dtype != bool
    return plan.opacity is None and not soft


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


# 1. Painted label.


def average_of_painted(plan, rows, spatial, channel_axis, dtype):
    """Paint image i with the one-hot vector of i, mix, average over the pixels: float64[B, B]."""
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


@every_case
def test_painted_label_is_the_label(case):
    if case.rows == 0:
        return  # Nothing to average.
    plan, _, _ = drawn(case)
    assert opaque(plan) == (case.mixer in OPAQUE)
    blends = "float64" if case.dtype == "float64" else "float32"
    dtype = case.dtype if opaque(plan) else blends
    with context(case):
        painted = average_of_painted(plan, case.rows, case.spatial, case.channel_axis, dtype)
        labels = plan.labels(jnp.arange(case.rows), num_classes=case.rows)
    tolerance = 2**-23 if opaque(plan) else 2**-21
    np.testing.assert_allclose(np.asarray(labels, np.float64), painted, rtol=0, atol=tolerance)


@every_case
def test_lam_is_what_the_painting_left(case):
    plan, share, _ = drawn(case)
    lam = np.asarray(plan.lam, np.float64)
    np.testing.assert_allclose(lam, reference.lam(share), rtol=0, atol=2**-22)
    if opaque(plan):
        pixels = math.prod(case.spatial)
        original = (share == 0).reshape(case.rows, -1).sum(1)
        assert [round(x * pixels) for x in lam] == original.tolist()


@every_case
def test_weights_are_what_the_painting_left(case):
    plan, share, _ = drawn(case)
    weights = plan.weights(case.shape(), channel_axis=case.channel_axis)
    assert weights.shape == (case.rows, *case.spatial)
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(np.asarray(weights, np.float64), 1 - share, rtol=0, atol=2**-22)


@pytest.mark.parametrize(
    "spatial", [(4096, 4095), (4093, 4099), (2999, 3001), (224, 223)], ids="{0[0]}x{0[1]}".format
)
def test_lam_counts_pixels_exactly_up_to_two_to_the_24(spatial):
    start, stop = boxes(1000, spatial)
    region = Box(jnp.asarray(start), jnp.asarray(stop))
    plan = Plan.of((1000, *spatial, 1), Flip(), region=region)
    pixels = math.prod(spatial)
    left = pixels - np.prod(stop - start, axis=1, dtype=np.int64)
    assert [round(x * pixels) for x in np.asarray(plan.lam, np.float64)] == left.tolist()
    np.testing.assert_allclose(np.asarray(plan.lam, np.float64), left / pixels, rtol=2**-23)


def test_drawn_lam_counts_pixels_exactly_up_to_two_to_the_24():
    spatial = (4096, 4095)
    plan = CutMix().plan(fresh(), (1000, *spatial, 1))
    sides = np.asarray(plan.region.stop) - np.asarray(plan.region.start)
    left = math.prod(spatial) - np.prod(sides, axis=1, dtype=np.int64)
    lam = np.asarray(plan.lam, np.float64)
    assert [round(x * math.prod(spatial)) for x in lam] == left.tolist()


def test_painted_pixels_of_a_large_image_are_counted_exactly():
    shape = (2, 4096, 4095, 1)
    start = jnp.array([[0, 1], [5, 0]], jnp.int32)
    stop = jnp.array([[4095, 4095], [2048, 4094]], jnp.int32)
    plan = Plan.of(shape, Roll(), region=Box(start, stop))
    mixed = plan.images(jnp.zeros(shape, bool), donors=jnp.ones(shape, bool))
    left = 4096 * 4095 - np.asarray(mixed).reshape(2, -1).sum(1)
    assert left.tolist() == [4096 * 4095 - 4095 * 4094, 4096 * 4095 - 2043 * 4094]
    assert [round(float(x) * 4096 * 4095) for x in plan.lam] == left.tolist()
    by_mask = Plan.of(shape, Roll(), region=Mask(mixed[..., 0]), channel_axis=-1)
    assert [round(float(x) * 4096 * 4095) for x in by_mask.lam] == left.tolist()


@every_case
def test_granularity(case):
    """`per` says which rows are drawn alike: all of them, each pair, or none on purpose."""
    plan, _, partner = drawn(case)
    drawn_numbers = jax.tree.map(np.asarray, (plan.region, plan.opacity, plan.lam))
    for leaf in jax.tree.leaves(drawn_numbers):
        if case.per == "batch":
            assert_bits(leaf, np.broadcast_to(leaf[:1], leaf.shape))
        if case.per == "pair":
            assert_bits(leaf, leaf[partner])


# 2. Untouched is untouched.


@every_case
@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_untouched_and_replaced_pixels_keep_their_bits(case, from_donors):
    plan, share, partner = drawn(case)
    images = noise(case.shape(), case.dtype)
    donors = noise(case.shape(), case.dtype, seed=1) if from_donors else None
    with context(case):
        mixed = plan.images(
            jnp.asarray(images),
            channel_axis=case.channel_axis,
            donors=None if donors is None else jnp.asarray(donors),
        )
    with np.errstate(all="ignore"):
        expected = reference.images(
            images, partner, share, channel_axis=case.channel_axis, donors=donors
        )
    kept = (share == 0) | (share == 1)
    if donors is None:
        kept |= (partner == np.arange(case.rows)).reshape(-1, *[1] * len(case.spatial))
    there = reference.channels_last(np.ones(case.shape(), bool), case.channel_axis)
    where = kept[..., np.newaxis] & there
    if case.channel_axis is None:
        where = where[..., 0]
    elif case.channel_axis == 1:
        where = np.moveaxis(where, -1, 1)
    assert_bits(mixed, expected, where)


def test_opacity_of_zero_and_one_are_exact():
    """The whole of a row at opacity 0 or 1, in each dtype, whatever the other row holds."""
    opacity = jnp.array([0.0, 1.0, 0.0, 1.0], jnp.float32)
    for dtype in ("float32", "bfloat16", "float16", "uint8", "int32"):
        images, donors = noise((4, 5, 3), dtype), noise((4, 5, 3), dtype, seed=1)
        plan = Plan.of(images.shape, Roll(0), opacity=opacity)
        mixed = plan.images(jnp.asarray(images), donors=jnp.asarray(donors))
        assert_bits(mixed, np.stack([images[0], donors[1], images[2], donors[3]]))


ALPHA_MIXERS = {  # Alpha is tiny, so that some rows draw an opacity of exactly 0 and some of 1.
    "mixup": lambda alpha: MixUp(alpha),
    "cutmix": lambda alpha: CutMix(alpha),
    "choice": lambda alpha: RandomChoice((CutMix(alpha), MixUp(alpha))),
    "nested": lambda alpha: RandomApply(
        RandomChoice((MixUp(alpha), Fog(), CutMix(1 + alpha))), 0.7
    ),
}


@pytest.mark.parametrize(
    ("name", "from_donors"),
    [*[(name, True) for name in ALPHA_MIXERS], ("choice", False)],
    ids=[*[f"{name}-donors" for name in ALPHA_MIXERS], "choice-own-batch"],
)
def test_what_is_not_shown_never_leaks_into_a_gradient(name, from_donors):
    shape = (64, 4, 3, 2)
    alpha = jnp.float32(0.02)
    mixer = ALPHA_MIXERS[name]
    plan = mixer(alpha).plan(fresh(), shape, channel_axis=-1)
    share, partner = reference.of_plan(plan, shape[1:3]), np.asarray(plan.partner)
    used = share[np.argsort(partner)]  # What each row gives to the row it is painted on.
    hidden, unused = (share == 1)[..., None], (used == 0)[..., None]
    images, donors, cotangent = (jnp.asarray(numbers(shape, seed=seed)) for seed in range(3))
    bad = jnp.where(jnp.arange(64) % 2 == 0, jnp.float32(np.nan), jnp.float32(np.inf))
    bad = jnp.broadcast_to(bad[:, None, None, None], shape)
    if from_donors:
        images, donors = jnp.where(hidden, bad, images), jnp.where(unused, bad, donors)
        assert np.isnan(donors).any() and np.isinf(donors).any()
    else:
        images, donors = jnp.where(hidden & unused, bad, images), None

    def total(alpha, images, donors):
        plan = mixer(alpha).plan(fresh(), shape, channel_axis=-1)
        return (plan.images(images, channel_axis=-1, donors=donors) * cotangent).sum()

    assert np.isfinite(total(alpha, images, donors))
    gradients = jax.grad(total, argnums=(0, 1, 2) if from_donors else (0, 1))(alpha, images, donors)
    assert all(np.isfinite(g).all() for g in gradients)
    if from_donors:
        assert_bits(gradients[1], cotangent, np.broadcast_to((share == 0)[..., None], shape))
        assert not np.any(np.where(hidden, gradients[1], 0))
        assert not np.any(np.where(unused, gradients[2], 0))
    else:
        assert not np.any(np.where(hidden & unused, gradients[1], 0))


def test_a_traced_alpha_gets_a_gradient():
    images = jnp.asarray(numbers((6, 4, 3, 2)))
    cotangent = jnp.asarray(numbers(images.shape, seed=1))

    def total(alpha):
        return (MixUp(alpha)(fresh(), images) * cotangent).sum()

    slope = (total(1.01) - total(0.99)) / 0.02
    np.testing.assert_allclose(jax.grad(total)(1.0), slope, rtol=0.01)


# 3. Dtype in, dtype out.


@every_case
def test_blended_pixels(case):
    if case.dtype == "bool":
        return  # Never blended.
    plan, share, partner = drawn(case)
    images = numbers(case.shape(), case.dtype)
    with context(case):
        mixed = np.asarray(plan.images(jnp.asarray(images), channel_axis=case.channel_axis))
    assert mixed.dtype == images.dtype and mixed.shape == images.shape
    exact = reference.images(
        images.astype(np.float64), partner, share, channel_axis=case.channel_axis
    )
    assert reference.blended_well(mixed, exact)


HALVES = [  # Two integers, and their average rounded half to even.
    *[(0, 1, 0), (1, 2, 2), (2, 3, 2), (3, 4, 4), (254, 255, 254), (253, 254, 254), (0, 255, 128)],
    *[(7, 7, 7), (3, 5, 4)],
]
SIGNED_HALVES = [
    *[(0, -1, 0), (-1, -2, -2), (-2, -3, -2), (-3, 4, 0), (-5, 8, 2), (-7, 4, -2)],
    *[(2**24 - 1, 2**24, 2**24), (2**24 - 3, 2**24 - 2, 2**24 - 2), (2**23, 2**23 + 1, 2**23)],
    *[(-(2**24), -(2**24) + 1, -(2**24)), (2**24, 2**24, 2**24)],
]


@pytest.mark.parametrize(
    ("dtype", "table"),
    [("uint8", HALVES), ("int32", HALVES + SIGNED_HALVES)],
    ids=["uint8", "int32"],
)
def test_integers_round_half_to_even(dtype, table):
    original, partner, expected = np.array(table).T[:, np.newaxis].astype(dtype)
    plan = Plan.of(original.shape, Roll(0), opacity=jnp.array([0.5], jnp.float32))
    mixed = plan.images(jnp.asarray(original), donors=jnp.asarray(partner))
    assert mixed.dtype == dtype
    assert np.asarray(mixed).tolist() == expected.tolist()


def test_integers_of_every_value_round_half_to_even():
    """All pairs of uint8, at opacities for which float32 is exact, against float64."""
    original, partner = np.mgrid[0:256, 0:256].astype(np.uint8)
    for opacity in (0.125, 0.25, 0.5, 0.75):
        plan = Plan.of((256, 256), Roll(0), opacity=jnp.full(256, opacity, jnp.float32))
        mixed = plan.images(jnp.asarray(original), donors=jnp.asarray(partner))
        expected = np.rint((1 - opacity) * original.astype(float) + opacity * partner.astype(float))
        assert np.array_equal(mixed, expected)


def test_integers_beyond_float32_are_moved_whole():
    """What is not blended never passes through a float, in a plan that could blend."""
    plan, share, partner = drawn(Case("choice"))
    images = np.arange(2**31 - 1 - 6 * 6 * 5 * 3, 2**31 - 1, dtype=np.int64).astype(np.int32)
    images = images.reshape(6, 6, 5, 3)
    mixed = plan.images(jnp.asarray(images), channel_axis=-1)
    kept = np.broadcast_to(((share == 0) | (share == 1))[..., None], images.shape)
    assert_bits(mixed, reference.images(images, partner, share), kept)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_small_floats_are_blended_in_float32(dtype):
    """One rounding, at the end: never more than half a unit of the small dtype away."""
    images, donors = numbers((64, 256), dtype), numbers((64, 256), dtype, seed=1)
    opacity = np.random.default_rng(2).random(64, np.float32)
    plan = Plan.of(images.shape, Roll(0), opacity=jnp.asarray(opacity))
    mixed = plan.images(jnp.asarray(images), donors=jnp.asarray(donors))
    exact = reference.blend(images, donors, opacity.astype(np.float64)[:, np.newaxis])
    rounded = exact.astype(np.float32).astype(images.dtype)
    assert np.mean(np.asarray(mixed) == rounded) > 0.999
    assert np.all(reference.ulps(np.asarray(mixed), rounded) <= 1)


def test_float64_is_blended_in_float64():
    with enable_x64():
        images, donors = numbers((4, 99), "float64"), numbers((4, 99), "float64", seed=1)
        opacity = np.array([0.125, 0.25, 0.5, 0.75], np.float32)
        plan = Plan.of(images.shape, Roll(0), opacity=jnp.asarray(opacity))
        mixed = plan.images(jnp.asarray(images), donors=jnp.asarray(donors))
        assert mixed.dtype == jnp.float64
        exact = reference.blend(images, donors, opacity.astype(np.float64)[:, np.newaxis])
        np.testing.assert_allclose(mixed, exact, rtol=2**-51)


BLENDS = sorted(set(MIXERS) - OPAQUE)


@pytest.mark.parametrize("name", BLENDS)
def test_blending_bool_is_a_type_error(name):
    images = jnp.zeros((6, 6, 5, 3), bool)
    with pytest.raises(TypeError, match="bool"):
        make(name)(fresh(), images)
    with pytest.raises(TypeError, match="bool"):
        jax.jit(make(name))(fresh(), images)


@every_mixer
@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
def test_plans_are_float32(name, x64):
    with enable_x64() if x64 else jax.numpy_dtype_promotion("strict"):
        plan = make(name).plan(fresh(), Case().shape(), channel_axis=-1)
        assert plan.lam.dtype == jnp.float32
        assert plan.partner.dtype == jnp.int32
        assert plan.opacity is None or plan.opacity.dtype == jnp.float32
        if isinstance(plan.region, Box):
            assert plan.region.start.dtype == plan.region.stop.dtype == jnp.int32
        if isinstance(plan.region, Mask):
            assert plan.region.painted.dtype in (jnp.bool_, jnp.float32)
        assert plan.labels(jnp.arange(6), num_classes=6).dtype == jnp.float32


@pytest.mark.parametrize("x64", [False, True], ids=["x32", "x64"])
def test_labels_are_float32_unless_they_are_float64(x64):
    with enable_x64() if x64 else jax.numpy_dtype_promotion("strict"):
        plan = MixUp().plan(fresh(), (6, 1))
        for dtype in ("int8", "int32", "int64") if x64 else ("int8", "int32"):
            assert plan.labels(jnp.arange(6, dtype=dtype), num_classes=6).dtype == jnp.float32
        for dtype in ("float32", "bfloat16", "float16", "int32", "bool"):
            assert plan.labels(jnp.eye(6, dtype=dtype)).dtype == jnp.float32
        if x64:
            labels = jnp.eye(6, dtype=jnp.float64)
            mixed = plan.labels(labels, smoothing=0.1)
            assert mixed.dtype == plan.labels(labels, donors=labels).dtype == jnp.float64
            expected = reference.labels(
                np.eye(6), np.asarray(plan.partner), plan.lam, smoothing=0.1
            )
            np.testing.assert_allclose(mixed, expected, rtol=0, atol=1e-15)


# 4. Rows of labels sum to 1.


@every_case
@pytest.mark.parametrize("smoothing", [0.0, 0.1], ids=["hard", "smoothed"])
def test_labels_sum_to_one(case, smoothing):
    plan, _, partner = drawn(case)
    ids = np.arange(case.rows, dtype=np.int32) * 2 % 5
    with context(case):
        labels = plan.labels(jnp.asarray(ids), num_classes=5, smoothing=smoothing)
        hot = plan.labels(jax.nn.one_hot(ids, 5, dtype=jnp.int32), smoothing=smoothing)
    assert labels.shape == (case.rows, 5) and labels.dtype == hot.dtype == jnp.float32
    expected = reference.labels(ids, partner, plan.lam, num_classes=5, smoothing=smoothing)
    for soft in (labels, hot):
        np.testing.assert_allclose(np.asarray(soft, np.float64), expected, rtol=0, atol=2**-22)
        sums = np.asarray(soft, np.float64).sum(1)
        np.testing.assert_allclose(sums, np.ones(case.rows), rtol=0, atol=2**-22)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_labels_of_many_classes_sum_to_one(smoothing):
    plan = MixUp().plan(fresh(), (256, 1))
    labels = plan.labels(jnp.arange(256), num_classes=1000, smoothing=smoothing)
    sums = np.asarray(labels, np.float64).sum(1)
    np.testing.assert_allclose(sums, np.ones(256), rtol=0, atol=2**-22)


# 5. Pure.

SHAPE = Case().shape()
FEW = ["cutmix", "choice", "choice-own"]  # Opaque, a box with an opacity, a mask with an opacity.
few_mixers = pytest.mark.parametrize("name", FEW)
few_mixers_and_pairings = pytest.mark.parametrize(
    ("name", "pairing"),
    [*[(name, "flip") for name in FEW], ("choice", "roll"), ("choice", "permutation")],
)


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


@every_mixer
def test_eager_is_jit(name):
    """Bit for bit; and the same key twice."""
    mixer, batch = make(name), images_and_labels()
    plan, *mixed = by_plan(mixer, fresh(), *batch)
    eager = call(mixer, fresh(), *batch)
    assert_same(call(mixer, fresh(), *batch), eager)
    assert_same(tuple(mixed), eager)
    assert_same(jax.jit(by_plan)(mixer, fresh(), *batch), (plan, *eager))


@pytest.mark.parametrize("alpha, seed", [(0.8, 0), (0.2, 0), (0.2, 1)])
def test_eager_is_jit_with_one_lambda_for_the_batch(alpha, seed):
    """A compiler is free to fuse either product of a blend into its sum: the last bit differed."""
    mixer, images = MixUp(alpha, per="batch"), jax.random.uniform(fresh(1), (8, 32, 32, 3))

    def mixed(key, images):
        return mixer.plan(key, images.shape).images(images)

    eager = mixed(fresh(seed), images)
    assert_same(jax.jit(mixed)(fresh(seed), images), eager)
    assert_same(mixer(fresh(seed), images), eager)


@pytest.mark.parametrize("rows", [4, 8])
@pytest.mark.parametrize("fold", [False, True])
def test_eager_is_jit_with_dense_labels(fold, rows):
    """A compiler rewrote how lambda is computed together with what is done with it: jax 0.12."""
    mixer = MixUp(0.4, per="batch", fold=fold)
    labels = jax.nn.softmax(jax.random.normal(fresh(2), (rows, 4)))
    batch = jax.random.uniform(fresh(1), (rows, 6, 6, 3)), labels
    eager = call(mixer, fresh(), *batch)
    for mix in (jax.jit(call), by_plan, jax.jit(by_plan)):
        assert_same(tuple(mix(mixer, fresh(), *batch)[-2:]), eager)


@few_mixers
def test_eager_is_jit_with_the_mixer_static_or_closed_over(name):
    mixer, batch = make(name), images_and_labels()
    eager = call(mixer, fresh(), *batch)
    assert_same(jax.jit(call, static_argnums=0)(mixer, fresh(), *batch), eager)
    assert_same(jax.jit(lambda *batch: call(mixer, *batch))(fresh(), *batch), eager)


@pytest.mark.parametrize("mixer", [CutMix(0.3), MixUp(0.3)], ids=["cutmix", "mixup"])
def test_eager_draws_are_jitted_draws(mixer):
    """In every one of many rows: unless it is jitted inside, the last bit of some would differ."""
    shape = (4096, 9, 7, 1)
    eager = mixer.plan(fresh(), shape)
    assert_same(jax.jit(lambda key: mixer.plan(key, shape))(fresh()), eager)
    assert_same(jax.jit(lambda mixer, key: mixer.plan(key, shape))(mixer, fresh()), eager)


def test_eager_calls_are_jitted_inside():
    """A mixer's own code runs when it is traced: once for an eager call and its like."""
    traces = []

    class Counted(Mixer):
        strength: float = 0.5

        def draw(self, key, rows, spatial):
            traces.append(rows)
            return None, self.strength * jax.random.uniform(key, (rows,))

    for seed in range(3):
        Counted(0.1 * seed).plan(fresh(seed), SHAPE)
    assert len(traces) == 1
    for seed in range(3):
        Counted(0.1 * seed)(fresh(seed), jnp.zeros(SHAPE))
    assert len(traces) <= 2


@every_mixer
def test_another_key_is_another_draw(name):
    if name == "swap":
        return  # It draws nothing.
    one, other = (make(name).plan(fresh(seed), SHAPE, channel_axis=-1) for seed in (0, 1))
    assert not np.array_equal(one.lam, other.lam)


@few_mixers_and_pairings
def test_vmap_is_a_loop(name, pairing):
    mixer, batches = make(name, pairing=pairing), images_and_labels(copies=3)
    together = jax.vmap(functools.partial(by_plan, mixer))(jax.random.split(fresh(), 3), *batches)
    keys = jax.random.split(fresh(), 3)
    apart = [by_plan(mixer, *batch) for batch in zip(keys, *batches, strict=True)]
    assert_same(jax.tree.map(np.asarray, together), stacked(apart), ulps=1)


@pytest.mark.parametrize("pairing", ["flip-groups2", "roll"])
def test_vmap_over_alpha(pairing):
    alphas, how = jnp.array([0.2, 1.0, 5.0]), {"pairing": PAIRINGS[pairing]}

    def step(alpha):
        policy = RandomApply(RandomChoice((CutMix(alpha, **how), MixUp(**how))))
        return call(policy, fresh(), *images_and_labels())

    assert_same(jax.vmap(step)(alphas), stacked([step(alpha) for alpha in alphas]), ulps=1)


def test_vmap_over_a_mixer():
    """A batch of mixers is a mixer whose leaves have a leading axis."""
    mixers = [RandomChoice((CutMix(a), MixUp()), probs=(a / 4, 1 - a / 4)) for a in (1.0, 2.0)]
    leading = jax.tree.map(lambda *leaves: jnp.array(leaves), *mixers)
    together = jax.vmap(lambda mixer: call(mixer, fresh(), *images_and_labels()))(leading)
    apart = [call(mixer, fresh(), *images_and_labels()) for mixer in mixers]
    assert_same(together, stacked(apart), ulps=1)


@few_mixers
def test_scan_is_a_loop(name):
    mixer, batches = make(name), images_and_labels(copies=3)
    _, together = jax.lax.scan(
        lambda carry, batch: (carry, by_plan(mixer, *batch)),
        0,
        (jax.random.split(fresh(), 3), *batches),
    )
    keys = jax.random.split(fresh(), 3)
    apart = [by_plan(mixer, *batch) for batch in zip(keys, *batches, strict=True)]
    assert_same(jax.tree.map(np.asarray, together), stacked(apart), ulps=1)


@few_mixers_and_pairings
@pytest.mark.parametrize("dtype, rtol, atol", [("float32", 1e-5, 0), ("bfloat16", 0.02, 0.02)])
def test_gradient_reaches_both_images(dtype, rtol, atol, name, pairing):
    """Mixing is linear in the images: each gets its weights back, from both rows that show it."""
    mixer, (images, labels) = make(name, pairing=pairing), images_and_labels()
    plan = mixer.plan(fresh(), SHAPE, channel_axis=-1)
    share = reference.of_plan(plan, SHAPE[1:3])[..., np.newaxis]
    cotangent = numbers(SHAPE, seed=1)
    expected = (1 - share) * cotangent
    for i, j in enumerate(np.asarray(plan.partner)):
        expected[j] += share[i] * cotangent[i]

    def total(images):
        mixed, _ = call(mixer, fresh(), images, labels)
        return (mixed.astype(jnp.float32) * cotangent).sum()

    gradient = np.asarray(jax.grad(total)(images.astype(dtype)), np.float32)
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=atol)


@few_mixers
def test_jvp_and_checkpoint(name):
    mixer, (images, labels) = make(name), images_and_labels()
    tangent = jnp.asarray(numbers(SHAPE, seed=1))

    def mixed(images):
        return call(mixer, fresh(), images, labels)[0]

    # Two programs may fuse different products with the sum: each of them is within 1.5 ulp of it.
    value, moved = jax.jvp(mixed, (images,), (tangent,))
    assert_same(value, mixed(images), ulps=2)
    np.testing.assert_allclose(moved, mixed(tangent), rtol=1e-6)
    value, pullback = jax.vjp(jax.checkpoint(mixed), images)
    assert_same(value, mixed(images), ulps=2)
    np.testing.assert_allclose(pullback(value)[0], jax.vjp(mixed, images)[1](value)[0], rtol=1e-6)


@every_mixer
def test_eval_shape(name):
    shapes = jax.eval_shape(functools.partial(by_plan, make(name)), fresh(), *images_and_labels())
    values = by_plan(make(name), fresh(), *images_and_labels())
    assert jax.tree.structure(shapes) == jax.tree.structure(values)
    for shape, value in zip(jax.tree.leaves(shapes), jax.tree.leaves(values), strict=True):
        assert (shape.shape, shape.dtype) == (value.shape, value.dtype)


EXPORTS = [
    *[("mixup", "example", p) for p in ("flip-groups2", "roll-back2", "permutation")],
    *[("choice", "pair", "flip"), ("choice-own", "batch", "flip")],
]


@pytest.mark.parametrize(("name", "per", "pairing"), EXPORTS, ids=map("-".join, EXPORTS))
def test_export_with_a_symbolic_batch(name, per, pairing):
    mixer = make(name, per=per, pairing=pairing)

    @jax.jit
    def step(key_data, images, labels):
        return call(mixer, jax.random.wrap_key_data(key_data), images, labels)

    batch = "2*b" if pairing == "flip-groups2" else "b"
    shape = jax.export.symbolic_shape(f"{batch}, 8, 8, 3")
    exported = jax.export.export(step)(
        jax.ShapeDtypeStruct((2,), jnp.uint32),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    )
    for rows in (4, 6):
        batch = images_and_labels((rows, 8, 8, 3))
        mixed = exported.call(jax.random.key_data(fresh()), *batch)
        assert_same(mixed, step(jax.random.key_data(fresh()), *batch), ulps=1)


@every_mixer
def test_new_keys_and_numbers_compile_nothing(name, caplog):
    """Eager calls too: modes are static, numbers are traced in the library's own jit."""
    mixer, batch, keys = make(name), images_and_labels(), [fresh(0), fresh(1)]
    smaller = jax.tree.map(lambda x: 0.9 * x if isinstance(x, float) else x, mixer)
    call(mixer, keys[0], *batch)
    with jax.log_compiles():
        call(smaller, keys[1], *batch)
        assert "Compiling" not in caplog.text
        jax.jit(lambda x: x + 1)(batch[0])
        assert "Compiling" in caplog.text


def test_schedules_trace_once():
    """Alpha, prob and probs may change at every step of a jitted loop."""
    traces = []

    @jax.jit
    def step(mixer, key, images, labels):
        traces.append(mixer)
        return by_plan(mixer, key, images, labels)

    lams = []
    for seed in range(3):
        rate = 0.2 + 0.3 * seed
        chosen = RandomChoice((CutMix(rate), MixUp(2 * rate)), probs=(rate, 1 - rate))
        plan, *_ = step(RandomApply(chosen, prob=rate), fresh(seed), *images_and_labels())
        lams.append(tuple(np.asarray(plan.lam)))
    assert len(traces) == 1
    assert len(set(lams)) == 3


def test_traced_prob_switches_the_mixing_on_and_off():
    images, _ = images_and_labels()

    @jax.jit
    def step(prob, images):
        return RandomApply(Swap(), prob)(fresh(), images)

    assert_bits(step(0.0, images), images)
    assert_bits(step(1.0, images), images[::-1])


def test_traced_probs_choose():
    images, _ = images_and_labels()

    @jax.jit
    def step(probs, images):
        return RandomChoice((Swap(), MixUp()), probs=probs)(fresh(), images)

    assert_bits(step(jnp.array([1.0, 0.0]), images), images[::-1])
    assert not np.any(np.asarray(step(jnp.array([0.0, 1.0]), images)) == images[::-1])


@every_mixer
def test_numpy_inputs_are_read_not_written(name):
    mixer, batch = make(name), images_and_labels()
    arrays = [np.array(array) for array in batch]
    for array in arrays:
        array.flags.writeable = False
    before = [array.copy() for array in arrays]
    assert_same(by_plan(mixer, fresh(), *arrays), by_plan(mixer, fresh(), *batch))
    assert_same(call(mixer, fresh(), *arrays), call(mixer, fresh(), *batch))
    for array, given, copy in zip(arrays, batch, before, strict=True):
        assert np.array_equal(array, copy) and np.array_equal(given, copy)


# 6. Device-count invariant.


def signed_zeros():
    """A batch with both zeros in it."""
    images, labels = images_and_labels((16, 4, 3, 2))
    return jnp.where(images < 0.3, jnp.float32(-0.0), images), labels


@functools.cache
def on_one_device(name, pairing):
    """What comes without any mesh."""
    return jax.jit(by_plan)(make(name, pairing=pairing), fresh(), *signed_zeros())


def assert_device_count_invariant(name, pairing, mesh, step):
    """The same plan, the same opaque pixels, blends within a unit; sharded as the batch was."""
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    batch = jax.device_put(signed_zeros(), sharding)
    plan, mixed, soft = step(make(name, pairing=pairing), fresh(), *batch)
    expected_plan, expected, expected_soft = on_one_device(name, pairing)
    assert_same(plan, expected_plan)
    assert_same(soft, expected_soft, ulps=1)
    assert mixed.sharding.is_equivalent_to(sharding, mixed.ndim)
    share = reference.of_plan(plan, (4, 3))
    kept = np.broadcast_to(((share == 0) | (share == 1))[..., np.newaxis], mixed.shape)
    mixed, expected = np.asarray(mixed), np.asarray(expected)
    if pairing == "permutation":  # A sum over devices of what each has loses the sign of -0.0.
        assert np.all((mixed == expected) | ~kept)
    else:
        assert_bits(mixed, expected, kept)
    assert np.all(reference.ulps(mixed, expected) <= 1)


# On 1, 2 and 4 devices and in two processes: test_sharding.py.
@pytest.mark.parametrize("pairing", ["flip", "flip-groups8", "roll", "permutation"])
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter(axis_type, pairing):
    mesh = mesh_of(8, axis_type)
    assert_device_count_invariant("choice", pairing, mesh, jax.jit(by_plan))


@pytest.mark.parametrize("name", ["cutmix", "mixup", "choice-mask", "choice-own"])
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_other_mixers(axis_type, name):
    assert_device_count_invariant(name, "flip", mesh_of(8, axis_type), jax.jit(by_call))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_within_a_mesh_context(axis_type):
    mesh = mesh_of(8, axis_type)
    with jax.set_mesh(mesh):
        assert_device_count_invariant("choice", "roll", mesh, jax.jit(by_plan))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_eager_calls(axis_type):
    assert_device_count_invariant("choice", "flip", mesh_of(8, axis_type), by_call)


def test_a_lambda_does_not_depend_on_how_many_are_drawn_beside_it():
    """A device of eight draws two of sixteen; before jax 0.8.2, one row in a hundred differed."""
    uniforms = jax.random.uniform(fresh(), (4096, 2))
    draw = jax.jit(lambda part: from_uniforms(part[:, 0], part[:, 1], jnp.float32(0.8)))
    pairs = [draw(pair) for pair in np.split(np.asarray(uniforms), 2048)]
    assert_bits(np.concatenate(pairs), np.asarray(draw(uniforms)))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_maps_and_losses(axis_type):
    sharding = NamedSharding(mesh_of(8, axis_type), PartitionSpec("batch"))
    images, labels = signed_zeros()
    maps = jnp.asarray(np.random.default_rng(0).integers(0, 9, (16, 4, 3)), jnp.int32)
    logits = jnp.asarray(numbers((16, 4)))

    def cross_entropy(logits, labels):
        return -(jax.nn.one_hot(labels, 4) * jax.nn.log_softmax(logits)).sum(-1)

    @jax.jit
    def step(key, images, labels, maps, logits):
        plan = make("choice").plan(key, images.shape)
        loss = plan.loss(cross_entropy, logits, labels)
        return plan.maps(maps), plan.weights(images.shape), plan.accuracy(logits, labels), loss

    batch = images, labels, maps, logits
    sharded = step(fresh(), *jax.device_put(batch, sharding))
    alone = step(fresh(), *batch)
    assert_same(sharded[:3], alone[:3], ulps=1)
    np.testing.assert_allclose(sharded[3], alone[3], rtol=1e-6)


def on_device(mixer, device, images, labels):
    """What one device of several does: its own key, its own part of the batch."""
    return call(mixer, jax.random.fold_in(fresh(), device), images, labels)


@few_mixers
def test_pmap_is_a_loop_over_devices(name):
    mixer, batches = make(name), images_and_labels(copies=2)

    def step(images, labels):
        return on_device(mixer, jax.lax.axis_index("batch"), images, labels)

    together = jax.pmap(step, axis_name="batch")(*batches)
    apart = [on_device(mixer, device, *(x[device] for x in batches)) for device in (0, 1)]
    assert_same(jax.tree.map(np.asarray, together), stacked(apart), ulps=1)
    assert not np.array_equal(apart[0][1], apart[1][1])


@few_mixers
def test_shard_map_is_a_loop_over_devices(name):
    mixer, batches = make(name), images_and_labels(copies=2)
    sharded = PartitionSpec("batch")

    def step(images, labels):
        return on_device(mixer, jax.lax.axis_index("batch"), images, labels)

    together = jax.shard_map(
        step, mesh=mesh_of(2, "Auto"), in_specs=(sharded, sharded), out_specs=(sharded, sharded)
    )(*(x.reshape(12, *x.shape[2:]) for x in batches))
    apart = [on_device(mixer, device, *(x[device] for x in batches)) for device in (0, 1)]
    flat = jax.tree.map(lambda *leaves: np.concatenate(leaves), *apart)
    assert_same(jax.tree.map(np.asarray, together), flat, ulps=1)


# 7. Strict. The promotion of dtypes and ranks and the reuse of keys are checked in every test here.


def assert_mixes(mixer, key, *, opaque):
    """A mixer works in full: it is applied, painted and differentiated."""
    plan, mixed, soft = by_plan(mixer, key, *images_and_labels())
    painted = average_of_painted(plan, 6, (6, 5), -1, "float32")
    drawn = np.asarray(plan.labels(jnp.arange(6), num_classes=6), np.float64)
    np.testing.assert_allclose(drawn, painted, rtol=0, atol=2**-23 if opaque else 2**-21)
    assert mixed.dtype == jnp.float32 and mixed.shape == SHAPE
    assert soft.dtype == jnp.float32 and soft.shape == (6, 4)
    gradient = jax.grad(lambda x: plan.images(x, channel_axis=-1).sum())(jnp.ones(SHAPE))
    np.testing.assert_allclose(gradient.sum(), math.prod(SHAPE), rtol=1e-5)


@every_mixer
def test_x64(name):
    with enable_x64():
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)


@every_mixer
def test_debug_nans(name):
    with jax.debug_nans(True):
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)


@few_mixers
def test_nothing_leaks(name):
    with jax.checking_leaks():
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)
        jax.jit(by_plan)(make(name), fresh(), *images_and_labels())


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("name", ["choice-own", "cutmix-minmax"])
def test_any_kind_of_key(name, impl):
    mixer = make(name, pairing="permutation")
    assert_mixes(mixer, fresh(impl=impl), opaque=name in OPAQUE)
    one, other = (mixer.plan(fresh(impl=impl), SHAPE, channel_axis=-1) for _ in range(2))
    assert_same(one, other)


@pytest.mark.parametrize(("name", "impl"), [("cutmix", "threefry2x32"), ("mixup", "rbg")])
def test_raw_keys_draw_what_typed_keys_draw(name, impl):
    mixer, batch = make(name), images_and_labels()
    with jax.default_prng_impl(impl):
        typed = call(mixer, jax.random.key(7), *batch)
        assert_same(call(mixer, jax.random.PRNGKey(7), *batch), typed)
        assert_same(jax.jit(call)(mixer, jax.random.PRNGKey(7), *batch), typed)
