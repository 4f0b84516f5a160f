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
from helpers import (
    MIXERS,
    OPAQUE,
    PAIRINGS,
    Fog,
    assert_bits,
    average_of_painted,
    boxes,
    every_mixer,
    fresh,
    make,
    noise,
    numbers,
    pairwise,
)

from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    MixUp,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
)

DTYPES = ("float32", "bfloat16", "float16", "float64", "uint8", "int32", "bool")
SPATIAL = {1: (9,), 2: (6, 5), 3: (4, 3, 2), 4: (3, 2, 2, 3)}  # Extents by their number.
LAYOUTS = {"last": -1, "first": 1, "grey": None}  # Channel axis.


@dataclasses.dataclass(frozen=True)
class Case:
    """One point of the cover: names, so that a failing test says what it was."""

    mixer: str = "choice"
    per: str = "example"
    pairing: str = "flip"
    dtype: str = "float32"
    rank: int = 2
    layout: str = "last"
    rows: int = 6
    donors: bool = False
    smoothing: float = 0.0

    def __str__(self):
        """The mixer and whatever is not the default."""
        values = dataclasses.asdict(self)
        default = {field.name: field.default for field in dataclasses.fields(self)}
        named = [k if v is True else str(v) for k, v in values.items() if v != default[k]]
        return "-".join(named) or self.mixer

    @property
    def spatial(self):
        """The extents in pixels."""
        return SPATIAL[self.rank]

    @property
    def channel_axis(self):
        """Where the channels are."""
        return LAYOUTS[self.layout]

    def shape(self, channels=3):
        """The shape of a batch of images."""
        shape = [self.rows, *self.spatial]
        if self.channel_axis == -1:
            shape.append(channels)
        elif self.channel_axis == 1:
            shape.insert(1, channels)
        return tuple(shape)


# A region and an opacity of each kind: a box, a mask of bools or of floats, or none; opaque or not.
KINDS = ("cutmix", "mixup", "choice", "speckle", "fog", "choice-mask", "choice-own", "whole")


def allowed(case):
    """Whether a mixer can be made so, and mixes such images."""
    per, rows, pairing = case["per"], case["rows"], case["pairing"]
    if per == "pair" and not pairing.startswith(("swap", "flip")):
        return False
    if per == 3 and rows != 6:
        return False
    if (pairing == "flip-groups2" and rows % 2) or (pairing == "permutation-index" and rows != 6):
        return False
    return case["dtype"] != "bool" or case["mixer"] in OPAQUE


AXES = {
    "per": ("example", "pair", "batch", 3),
    "pairing": [name for name in PAIRINGS if name != "flip-groups8"],
    "dtype": DTYPES,
    "rank": list(SPATIAL),
    "layout": list(LAYOUTS),
    "rows": (6, 5),
    "donors": (False, True),
    "smoothing": (0.0, 0.1),
}
CASES = [Case(**case) for case in pairwise(allowed, {"mixer": KINDS} | AXES)]
CASES += [Case(mixer, rows=rows) for mixer in ("choice", "choice-own") for rows in (0, 1)]
MORE = {Case(**case): None for case in pairwise(allowed, {"mixer": list(MIXERS)} | AXES)}
CASES += [pytest.param(case, marks=pytest.mark.full) for case in MORE if case not in CASES]
# The scope makes pytest run all laws of a case in a row, with what was compiled for the first.
every_case = pytest.mark.parametrize("case", CASES, ids=str, scope="module")


def context(case):
    """float64 exists in x64 mode only."""
    return jax.enable_x64(True) if case.dtype == "float64" else jax.numpy_dtype_promotion("strict")


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


# 1. Painted label.


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
        original = (share == 0).sum(tuple(range(1, share.ndim)))
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


# 2. Untouched is untouched.


@every_case
def test_untouched_and_replaced_pixels_keep_their_bits(case):
    plan, share, partner = drawn(case)
    images = noise(case.shape(), case.dtype)
    donors = noise(case.shape(), case.dtype, seed=1) if case.donors else None
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


@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_integers_of_every_value_round_half_to_even(dtype):
    """All pairs of bytes, at opacities for which float32 is exact, against float64."""
    original, partner = np.mgrid[0:256, 0:256].astype(dtype)
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
    with jax.enable_x64(True):
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
    with jax.enable_x64(True) if x64 else jax.numpy_dtype_promotion("strict"):
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
    with jax.enable_x64(True) if x64 else jax.numpy_dtype_promotion("strict"):
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
def test_labels_sum_to_one(case):
    plan, _, partner = drawn(case)
    smoothing = case.smoothing
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
