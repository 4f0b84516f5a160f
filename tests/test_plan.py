"""Plans: what is made by hand, and everything that is computed from a plan, against the oracle."""

import dataclasses
import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from helpers import boxes, fresh, numbers

from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    MixUp,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
    _composite,
)

SHAPE = (5, 6, 5, 3)
FADED = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
OWN = Roll(0)


def box_plan(shape=SHAPE, pairing=None, **how):
    """A plan of drawn boxes."""
    start, stop = boxes(shape[0], shape[1:3])
    region = Box(jnp.asarray(start), jnp.asarray(stop))
    return Plan.of(shape, Roll() if pairing is None else pairing, region=region, **how)


def read(plan, spatial):
    """What is painted by a plan, and who is whose partner."""
    return reference.of_plan(plan, spatial), np.asarray(plan.partner)


# Plans made by hand.


@pytest.mark.parametrize(
    ("start", "stop", "clipped", "lam"),
    [
        ((1, 2), (3, 5), ((1, 2), (3, 5)), 1 - Fraction(6, 30)),
        ((-2, 4), (3, 99), ((0, 4), (3, 5)), 1 - Fraction(3, 30)),
        ((-9, -9), (99, 99), ((0, 0), (6, 5)), 0),
        ((0, 0), (6, 5), ((0, 0), (6, 5)), 0),
        ((2, 2), (2, 4), None, 1),
        ((-5, -5), (0, 0), None, 1),
        ((6, 5), (9, 9), None, 1),
        ((4, 4), (1, 1), None, 1),
        ((-9, 9), (-8, 12), None, 1),
        ((0, 0), (0, 0), None, 1),
        ((5, 4), (6, 5), ((5, 4), (6, 5)), 1 - Fraction(1, 30)),
    ],
    ids=lambda value: str(value).replace(" ", "") if isinstance(value, tuple) else "",
)
def test_boxes_are_clipped_to_the_image(start, stop, clipped, lam):
    region = Box(jnp.array([start], jnp.int32), jnp.array([stop], jnp.int32))
    plan = Plan.of((1, 6, 5, 3), OWN, region=region)
    assert plan.spatial == (6, 5)
    assert float(plan.lam[0]) == np.float32(float(lam))
    shown = plan.images(jnp.zeros((1, 6, 5, 3)), donors=jnp.ones((1, 6, 5, 3)))
    assert round((1 - float(lam)) * 90) == int(shown.sum())
    if clipped is not None:
        assert plan.region.start.tolist() == [list(clipped[0])]
        assert plan.region.stop.tolist() == [list(clipped[1])]
    inside = np.asarray([plan.region.start, plan.region.stop])
    assert np.all((inside >= 0) & (inside <= [6, 5]))


def test_lam_of_a_mask_is_what_it_leaves():
    half = np.zeros((2, 4, 4), bool)
    half[0, :2], half[1, 0, 0] = True, True
    plan = Plan.of((2, 4, 4, 3), Roll(), region=Mask(jnp.asarray(half)), channel_axis=-1)
    assert plan.lam.tolist() == [0.5, 15 / 16]
    shares = np.where(half, np.float32(0.25), np.float32(0.5))
    plan = Plan.of((2, 4, 4, 3), Roll(), region=Mask(jnp.asarray(shares)), channel_axis=-1)
    assert plan.lam.tolist() == [1 - (0.125 + 0.25), 1 - (0.25 + 15 * 0.5) / 16]


@pytest.mark.parametrize("channel_axis", [-1, 1, None])
def test_extents_are_what_is_no_channel(channel_axis):
    shape = {-1: (5, 6, 4, 3), 1: (5, 3, 6, 4), None: (5, 6, 4)}[channel_axis]
    plan = box_plan(shape=(5, 6, 4), channel_axis=None)
    other = Plan.of(shape, Roll(), region=plan.region, channel_axis=channel_axis)
    assert other.spatial == plan.spatial == (6, 4)
    assert other.lam.tolist() == plan.lam.tolist()
    mixed = other.images(jnp.asarray(numbers(shape)), channel_axis=channel_axis)
    share, partner = read(other, (6, 4))
    expected = reference.images(numbers(shape), partner, share, channel_axis=channel_axis)
    assert np.array_equal(mixed, expected)


KNOWN = {
    "last": ((5, 6, 4, 3), -1, -1),
    "first": ((5, 3, 6, 4), 1, 1),
    "none": ((5, 6, 4), None, None),
    "sound-last": ((5, 6, 3), -1, -1),
    "sound-first": ((5, 3, 6), 1, 1),
    "steps": ((5, 6), None, None),
    "volume": ((5, 6, 4, 2, 3), -1, -1),
    "as-many-channels-as-rows": ((5, 6, 4, 6), -1, -1),
    "as-many-channels-as-columns": ((5, 4, 6, 4), 1, 1),
    "one-channel": ((5, 1, 6), 1, 1),
}


@pytest.mark.parametrize("layout", KNOWN)
@pytest.mark.parametrize("drawn_as", ["itself", "without-channels"])
def test_a_plan_knows_the_channel_axis(layout, drawn_as):
    """Once its extents are known there is one axis that is none of them."""
    shape, drawn, read_as = KNOWN[layout]
    if drawn_as == "without-channels" and drawn is not None:
        axis = drawn % len(shape)
        spatial = tuple(n for i, n in enumerate(shape) if i not in (0, axis))
        plan = CutMix().plan(fresh(), (5, *spatial), channel_axis=None)
    else:
        plan = CutMix().plan(fresh(), shape, channel_axis=drawn)
    images = jnp.asarray(numbers(shape))
    expected = plan.images(images, channel_axis=read_as)
    assert np.array_equal(plan.images(images), expected)
    assert np.array_equal(jax.jit(lambda p, x: p.images(x))(plan, images), expected)
    assert plan.weights(shape).shape == (5, *plan.spatial)
    assert np.array_equal(plan.weights(shape), plan.weights(shape, channel_axis=read_as))


def test_a_call_knows_it_too_where_all_axes_are_alike():
    """As its documentation says, "auto" is the last axis there."""
    images, mixer = jnp.asarray(numbers((5, 4, 4, 4))), RandomChoice((CutMix(), MixUp()))
    mixed = mixer(fresh(), images)
    assert np.array_equal(mixed, mixer(fresh(), images, channel_axis=-1))
    assert not np.array_equal(mixed, mixer(fresh(), images, channel_axis=1))


def test_the_repr_of_a_plan_is_one_line():
    plan = Plan.of((4, 6, 6, 3), "roll", region=Box(*np.array([[[0, 0]] * 4, [[3, 6]] * 4])))
    expected = (
        "Plan(batch=4, spatial=(6, 6), pairing=Roll(shift=1), region=Box, blends=False, "
        "lam=0.500 (mean))"
    )
    assert repr(plan) == expected
    traced = []
    jax.jit(lambda plan: traced.append(repr(plan)))(plan)
    assert traced == [expected.replace("0.500 (mean)", "f32[4]")]
    mask = Plan.of((4, 6, 6, 3), Permutation(np.arange(4)), region=Mask(np.ones((4, 6, 6), "f4")))
    assert "region=Mask, blends=True, lam=0.000 (mean)" in repr(mask) and "[4]" in repr(mask)
    assert "region=None, blends=True" in repr(MixUp().plan(fresh(), (4, 6)))
    assert "lam=f32[0]" in repr(MixUp().plan(fresh(), (0, 6)))
    assert "lam=(4,)" in repr(jax.tree.map(lambda leaf: leaf.shape, mask))
    stack = jax.tree.map(lambda *leaves: jnp.stack(leaves), plan, plan, plan)
    assert repr(stack) == expected
    assert "\n" not in repr(mask) + repr(RandomApply(CutMix()).plan(fresh(), (300, 9, 9, 1)))


def test_a_plan_of_nothing_replaces_everything():
    plan = Plan.of(SHAPE, Roll())
    assert plan.region is None and plan.opacity is None and plan.spatial is None
    assert plan.lam.tolist() == [0.0] * 5
    images = numbers(SHAPE)
    assert np.array_equal(plan.images(jnp.asarray(images)), np.roll(images, 1, axis=0))
    assert plan.labels(jnp.arange(5), num_classes=5).tolist() == np.roll(np.eye(5), 1, 0).tolist()


def test_opacity_alone_is_the_partners_share():
    plan = Plan.of(SHAPE, Roll(), opacity=jnp.asarray(FADED))
    assert plan.spatial is None
    assert plan.lam.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


def test_opacities_are_clipped():
    opacity = jnp.array([-1.0, 0.0, 1.0, 1.5], jnp.float32)
    plan = Plan.of((4, 3), Roll(), opacity=opacity)
    assert plan.opacity.tolist() == [0, 0, 1, 1] and plan.lam.tolist() == [1, 1, 0, 0]
    images = jnp.asarray(numbers((4, 3)))
    assert np.array_equal(plan.images(images), images[jnp.array([0, 1, 1, 2])])


def test_opacity_and_region_multiply():
    start, stop = jnp.zeros((5, 2), jnp.int32), jnp.full((5, 2), 3, jnp.int32)
    plan = Plan.of(SHAPE, Roll(), region=Box(start, stop), opacity=jnp.asarray(FADED))
    expected = 1 - FADED.astype(np.float64) * 9 / 30
    np.testing.assert_allclose(np.asarray(plan.lam, np.float64), expected, rtol=0, atol=2**-23)
    assert plan.lam[0] == 1


@pytest.mark.parametrize("pairing", [Flip(), Roll(2), Permutation()], ids=repr)
def test_a_drawn_plan_is_replayed_by_hand(pairing):
    mixer = RandomChoice((CutMix(pairing=pairing), MixUp(pairing=pairing)))
    drawn = mixer.plan(fresh(), SHAPE)
    by_hand = [
        Plan.of(SHAPE, drawn.pairing, region=drawn.region, opacity=drawn.opacity),
        Plan.of(SHAPE, Permutation(drawn.partner), region=drawn.region, opacity=drawn.opacity),
    ]
    images = jnp.asarray(numbers(SHAPE))
    for plan in by_hand:
        assert plan.lam.tolist() == drawn.lam.tolist()
        assert plan.partner.tolist() == drawn.partner.tolist()
        assert plan.spatial == drawn.spatial
        assert np.array_equal(plan.images(images), drawn.images(images))


def test_a_plan_is_a_frozen_pytree():
    plan = box_plan(opacity=jnp.asarray(FADED))
    with pytest.raises(dataclasses.FrozenInstanceError):
        plan.lam = jnp.ones(5)
    through = jax.jit(lambda p: p)(plan)
    assert jax.tree.structure(through) == jax.tree.structure(plan)
    assert through.spatial == (6, 5)
    images = jnp.asarray(numbers(SHAPE))
    assert np.array_equal(through.images(images), plan.images(images))
    assert {leaf.dtype.name for leaf in jax.tree.leaves(plan)} == {"int32", "float32"}


def test_a_plan_by_hand_is_traceable():
    start, stop = boxes(5, (6, 5))
    images = jnp.asarray(numbers(SHAPE))

    @jax.jit
    def step(start, stop, opacity, images):
        plan = Plan.of(images.shape, Flip(), region=Box(start, stop), opacity=opacity)
        return plan.lam, plan.images(images)

    by_jit = step(start, stop, FADED, images)
    plan = Plan.of(
        SHAPE,
        Flip(),
        region=Box(jnp.asarray(start), jnp.asarray(stop)),
        opacity=jnp.asarray(FADED),
    )
    assert by_jit[0].tolist() == plan.lam.tolist()
    assert np.all(reference.ulps(np.asarray(by_jit[1]), np.asarray(plan.images(images))) <= 1)


# Pixels.


def test_weights_average_to_lam():
    for plan in (box_plan(), box_plan(opacity=jnp.asarray(FADED))):
        weights = plan.weights(SHAPE)
        assert weights.shape == (5, 6, 5) and weights.dtype == jnp.float32
        share, _ = read(plan, (6, 5))
        np.testing.assert_allclose(np.asarray(weights, np.float64), 1 - share, rtol=0, atol=2**-24)
        average = np.asarray(weights, np.float64).mean((1, 2))
        np.testing.assert_allclose(np.asarray(plan.lam, np.float64), average, rtol=0, atol=2**-22)


def test_weights_without_a_region_are_lam_everywhere():
    plan = Plan.of(SHAPE, Roll(), opacity=jnp.asarray(FADED))
    for shape, channel_axis, spatial in [
        ((5, 4, 3, 2), -1, (4, 3)),
        ((5, 2, 4, 3), 1, (4, 3)),
        ((5, 9), None, (9,)),
        ((5, 9), "auto", ()),
    ]:
        weights = plan.weights(shape, channel_axis=channel_axis)
        expected = (1 - FADED).reshape(5, *[1] * len(spatial))
        assert np.array_equal(weights, np.broadcast_to(expected, (5, *spatial)))


def test_donors_are_painted_row_by_row_with_roll_0():
    plan = box_plan(pairing=OWN)
    images, donors = numbers(SHAPE), numbers(SHAPE, seed=1)
    mixed = plan.images(jnp.asarray(images), donors=jnp.asarray(donors))
    share, partner = read(plan, (6, 5))
    assert partner.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(mixed, np.where(share[..., None] == 1, donors, images))
    ids, other_ids = np.array([0, 1, 2, 3, 4]), np.array([4, 4, 4, 4, 4])
    labels = plan.labels(jnp.asarray(ids), num_classes=5, donors=jnp.asarray(other_ids))
    expected = reference.labels(ids, partner, plan.lam, num_classes=5, donors=other_ids)
    np.testing.assert_allclose(labels, expected, rtol=0, atol=2**-23)


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_every_bfloat16_is_blended_in_float32_and_rounded_half_to_even(share):
    """Infinities, zeros of both signs and NaN of every payload; by these shares exactly.

    But not what is subnormal: processors are told to take it for zero.
    """
    bits = np.arange(2**16, dtype=np.uint16)
    images, donors = bits.view(jnp.bfloat16), (bits * np.uint16(40503)).view(jnp.bfloat16)
    plan = Plan.of((2**16,), Roll(0), opacity=jnp.float32(1 - share))
    mixed = np.asarray(plan.images(jnp.asarray(images), donors=jnp.asarray(donors)))
    small = np.finfo(np.float32).tiny
    with np.errstate(over="ignore", invalid="ignore"):
        parts = [w * x.astype(np.float32) for w, x in ((share, images), (1 - share, donors))]
        blend = parts[0] + parts[1]
    normal = np.all([(part == 0) | ~(abs(part) < small) for part in (*parts, blend)], 0)
    expected = blend.astype(jnp.bfloat16)
    assert np.array_equal(np.isnan(mixed), np.isnan(expected))
    same = mixed.view(np.uint16) == expected.view(np.uint16)
    assert np.all(same | np.isnan(expected) | ~normal) and np.mean(normal) > 0.98


def test_bfloat16_keeps_every_bit_of_what_is_not_blended():
    """Subnormals and NaN of every payload, beside pixels that are blended."""
    bits = np.arange(2**16, dtype=np.uint16).reshape(2**8, 2**8)
    images, donors = bits.view(jnp.bfloat16), bits[::-1].copy().view(jnp.bfloat16)
    opacity = jnp.asarray(np.arange(2**8) % 3 / 2, jnp.float32)  # Nothing, half of it, all of it.
    painted = jnp.asarray(np.random.default_rng(0).random((2**8, 2**8)) < 0.5)
    for region in (Mask(painted), None):
        plan = Plan.of((2**8, 2**8), Roll(0), region=region, opacity=opacity, channel_axis=None)
        mixed = plan.images(jnp.asarray(images), donors=jnp.asarray(donors))
        mixed = np.asarray(mixed).view(np.uint16)
        shown = np.ones_like(painted) if region is None else np.asarray(painted)
        own, theirs = np.asarray(opacity == 0)[:, None] | ~shown, np.asarray(opacity == 1)[:, None]
        assert np.array_equal(mixed[own], bits[own])
        assert np.array_equal(mixed[theirs & shown], bits[::-1][theirs & shown])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "complex64"])
@pytest.mark.parametrize("pairing", ["flip", "roll", "permutation"])
@pytest.mark.parametrize("mixer", [CutMix, MixUp], ids=["cutmix", "mixup"])
def test_the_transpose_of_mixing(mixer, pairing, dtype):
    """<mix(x), y> = <x, transpose(y)>, by itself, jitted, mapped over and as a gradient."""
    plan = mixer(pairing=pairing).plan(fresh(), (5, 6, 4, 3))
    x, y = (jnp.asarray(numbers((5, 6, 4, 3), seed=seed)).astype(dtype) for seed in (0, 1))
    (back,) = jax.linear_transpose(plan.images, x)(y)
    assert back.dtype == x.dtype

    def product(one, other):
        return np.sum(np.asarray(one, np.complex128) * np.asarray(other, np.complex128))

    bits = {"float32": 20, "complex64": 20, "float16": 9, "bfloat16": 6}[dtype]
    np.testing.assert_allclose(product(plan.images(x), y), product(x, back), rtol=2.0**-bits)
    _, pullback = jax.vjp(plan.images, x)
    assert np.array_equal(pullback(y)[0], back)
    jitted = jax.jit(lambda y: jax.linear_transpose(plan.images, x)(y)[0])(y)
    np.testing.assert_allclose(jitted, back, rtol=2.0**-bits)
    mapped = jax.vmap(lambda y: jax.linear_transpose(plan.images, x)(y)[0])(jnp.stack([y, x]))
    np.testing.assert_allclose(mapped[0], back, rtol=2.0**-bits)


def test_complex_images_blend_in_both_components_apart():
    values = [1 + 2j, complex(np.inf, 1), complex(2, np.nan), complex(-np.inf, np.nan)]
    images = jnp.asarray(np.array(values, np.complex64)[:, None])
    plan = Plan.of((4, 1), Roll(1), opacity=jnp.full(4, 0.25))
    mixed = np.asarray(plan.images(images))[:, 0]
    real, imaginary = np.array(values).real, np.array(values).imag
    assert np.array_equal(mixed.real, 0.75 * real + 0.25 * np.roll(real, 1), equal_nan=True)
    theirs = 0.75 * imaginary + 0.25 * np.roll(imaginary, 1)
    assert np.array_equal(mixed.imag, theirs, equal_nan=True)
    assert np.isfinite(mixed.imag[1])


@pytest.mark.parametrize("bits", [0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0xFFC00000, 0x7FFF8000])
def test_every_nan_of_a_blend_is_one_in_bfloat16(bits):
    """A GPU computes NaN as 0x7FFFFFFF, no CPU does: so the conversion itself is asked."""
    nan = jnp.asarray(np.array([bits], np.uint32).view(np.float32))
    assert np.isnan(np.asarray(_composite._narrow_bits(nan))).all()
    assert np.asarray(_composite._narrow_bits(jnp.array([1.5, -0.0], jnp.float32))).tolist() == [
        1.5,
        -0.0,
    ]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_an_opacity_of_nan_is_seen_whatever_its_payload(dtype):
    opacity = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00000, 0x7F800001], np.uint32)
    plan = Plan.of((4, 3), Roll(), opacity=jnp.asarray(opacity.view(np.float32)))
    assert np.isnan(plan.images(jnp.ones((4, 3), dtype))).all()


@pytest.mark.parametrize(
    ("rows", "alone"), [(1, [0]), (5, [2]), (4, [])], ids=["one-row", "odd-flip", "even-flip"]
)
@pytest.mark.parametrize("pairing", [Flip(), OWN], ids=repr)
def test_a_row_that_is_its_own_partner_keeps_its_bits(pairing, rows, alone):
    """Blended with itself a row would be rounded; with donors it is mixed like any other."""
    alone = range(rows) if pairing == OWN else alone
    images, donors = numbers((rows, 9, 2)), numbers((rows, 9, 2), seed=1)
    images[:, 0], images[:, 1] = np.nan, -0.0
    opacity = np.full(rows, 0.3, np.float32)
    plan = Plan.of(images.shape, pairing, opacity=jnp.asarray(opacity))
    mixed = np.asarray(plan.images(jnp.asarray(images)))
    for i in alone:
        assert np.array_equal(reference.bits(mixed[i]), reference.bits(images[i]))
    mixed = plan.images(jnp.asarray(images[:, 2:]), donors=jnp.asarray(donors[:, 2:]))
    share = np.broadcast_to(opacity.astype(np.float64)[:, None], (rows, 7))
    exact = reference.images(
        images[:, 2:].astype(np.float64), np.asarray(plan.partner), share, donors=donors[:, 2:]
    )
    assert reference.blended_well(np.asarray(mixed), exact)
    ids = np.arange(rows)
    labels = plan.labels(jnp.asarray(ids), num_classes=rows)
    for i in alone:
        assert labels[i, i] == 1


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "uint8"])
def test_no_opacity_rounds_a_row_that_is_its_own_partner(dtype):
    """A multiply-add hides it in float32, where a processor has one; float64 shows it."""
    opacity = np.linspace(0, 1, 100, dtype=np.float32)[:, None].repeat(3, 1)
    with jax.enable_x64(True):
        images = jnp.asarray(numbers((3, 500), "uint8" if dtype == "uint8" else "float32"))
        images = (images * 1.7).astype(dtype) if dtype == "float64" else images.astype(dtype)
        for alone in opacity:
            plan = Plan.of((3, 500), Flip(), opacity=jnp.asarray(alone), channel_axis=None)
            assert np.array_equal(plan.images(images)[1], images[1])


def test_a_plan_without_a_region_fits_arrays_of_any_shape():
    """Hidden features, embeddings, tables: all that counts is the batch size."""
    plan = MixUp().plan(fresh(), SHAPE)
    lam, partner = np.asarray(plan.lam, np.float64), np.asarray(plan.partner)
    for shape in [(5,), (5, 7), (5, 3, 2), (5, 2, 2, 2), (5, 2, 1, 2, 1, 2)]:
        features = numbers(shape)
        mixed = plan.images(jnp.asarray(features))
        assert mixed.shape == shape
        share = 1 - lam.reshape(5, *[1] * (len(shape) - 1))
        expected = reference.blend(features, features[partner], share)
        np.testing.assert_allclose(mixed, expected, rtol=1e-6)


def test_an_empty_batch_is_mixed_into_an_empty_batch():
    for plan in (
        CutMix().plan(fresh(), (0, 6, 5, 3)),
        MixUp(pairing="permutation").plan(fresh(), (0, 6, 5, 3)),
        Plan.of((0, 6, 5, 3), Roll()),
    ):
        assert plan.partner.shape == plan.lam.shape == (0,)
        assert plan.images(jnp.zeros((0, 6, 5, 3))).shape == (0, 6, 5, 3)
        assert plan.labels(jnp.zeros((0,), jnp.int32), num_classes=4).shape == (0, 4)
        assert plan.labels(jnp.zeros((0, 4))).shape == (0, 4)
        assert plan.maps(jnp.zeros((0, 6, 5), jnp.int32)).shape == (0, 6, 5)
        assert plan.weights((0, 6, 5, 3)).shape == (0, 6, 5)
        logits, ids = jnp.zeros((0, 4)), jnp.zeros((0,), jnp.int32)
        assert plan.loss(lambda out, y: out[:, 0], logits, ids).shape == (0,)
        assert plan.accuracy(logits, ids).shape == (0,)


# Maps.


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "bool"])
@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_maps_take_the_class_of_the_larger_share(from_donors, dtype):
    """The original's on a tie; classes are never blended."""
    shares = np.random.default_rng(0).choice([0, 0.25, 0.5, 0.5000001, 1], (5, 6, 5))
    mask = Mask(jnp.asarray(shares, jnp.float32))
    maps = numbers((5, 6, 5), dtype)
    donors = numbers((5, 6, 5), dtype, seed=1) if from_donors else None
    for plan in (
        Plan.of(SHAPE, Roll(), region=mask),
        Plan.of(SHAPE, Roll(), region=mask, opacity=jnp.asarray(FADED)),
        Plan.of(SHAPE, Roll(), opacity=jnp.asarray(FADED)),
        Plan.of(SHAPE, Roll()),
        box_plan(),
    ):
        mixed = plan.maps(jnp.asarray(maps), donors=None if donors is None else jnp.asarray(donors))
        share, partner = read(plan, (6, 5))
        assert mixed.dtype == maps.dtype
        assert np.array_equal(mixed, reference.maps(maps, partner, share, donors=donors))


def test_maps_at_half_opacity_stay_and_just_above_go():
    halves = np.nextafter(np.float32(0.5), np.array([0, 0.5, 1], np.float32))
    plan = Plan.of((3, 2, 2, 1), OWN, opacity=jnp.asarray(halves))
    maps, donors = jnp.zeros((3, 2, 2), jnp.int32), jnp.full((3, 2, 2), 9)
    assert plan.maps(maps, donors=donors)[:, 0, 0].tolist() == [0, 0, 9]


# Labels.


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2], ids=["hard", "smoothed"])
@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8", "float32", "bfloat16"])
def test_labels(dtype, smoothing, from_donors):
    """Class ids, or dense labels of five classes, one-hot and soft."""
    plan = box_plan(opacity=jnp.asarray(FADED))
    labels, donors = (numbers((5, 5), dtype, seed=seed) for seed in (0, 1))
    if labels.dtype.kind in "iu":
        labels, donors = (y[:, 0] % 5 for y in (labels, donors))
    how = {"num_classes": 5, "smoothing": smoothing}
    others = donors if from_donors else None
    mixed = plan.labels(
        jnp.asarray(labels), donors=None if others is None else jnp.asarray(others), **how
    )
    assert mixed.dtype == jnp.float32 and mixed.shape == (5, 5)
    expected = reference.labels(labels, np.asarray(plan.partner), plan.lam, donors=others, **how)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=2**-22)


def test_integer_one_hot_and_multi_hot_and_regression_labels():
    plan = box_plan()
    lam, partner = np.asarray(plan.lam), np.asarray(plan.partner)
    one_hot, multi_hot = np.eye(5, dtype=np.int32), numbers((5, 4), "bool").astype(np.int32)
    targets = numbers((5, 1)) - 0.5
    for labels in (one_hot, multi_hot, targets):
        mixed = plan.labels(jnp.asarray(labels))
        assert mixed.dtype == jnp.float32 and mixed.shape == labels.shape
        expected = reference.labels(labels, partner, lam)
        np.testing.assert_allclose(mixed, expected, rtol=0, atol=2**-23)


@pytest.mark.parametrize("smoothing", [0.0, 0.1], ids=["hard", "smoothed"])
def test_negative_ids_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 1), Flip(), opacity=jnp.full(4, 0.25))
    labels = plan.labels(jnp.array([2, -1, 1, -100]), num_classes=4, smoothing=smoothing)
    on, off = 1 - smoothing + smoothing / 4, smoothing / 4
    two = np.array([off, off, on, off])
    one = np.array([off, on, off, off])
    expected = np.stack([0.75 * two, 0.25 * one, 0.75 * one, 0.25 * two])
    np.testing.assert_allclose(labels, expected, rtol=0, atol=2**-23)


def test_more_classes_than_a_byte_holds():
    """Ids in small integers, counted against 1000 classes; and bfloat16 never sees an id."""
    plan = Plan.of((2, 1), Roll(), opacity=jnp.full(2, 0.25))
    for dtype in ("uint8", "int16", "int32"):
        ids = jnp.array([200, 120] if dtype == "uint8" else [999, 257], dtype)
        labels = plan.labels(ids, num_classes=1000)
        own, other = int(ids[0]), int(ids[1])
        assert labels.shape == (2, 1000)
        assert labels[0, own] == 0.75 and labels[0, other] == 0.25 and labels.sum() == 2


@pytest.mark.parametrize("opacity", [0.0, 0.25, 1.0])
def test_hidden_values_reach_no_gradient_of_the_opacity(opacity):
    """Neither the partner's outside of the box, nor the original's under an opaque one."""
    region = Box(jnp.zeros((2, 2), jnp.int32), jnp.full((2, 2), 2, jnp.int32))
    inside = np.zeros((1, 4, 4, 1), bool)
    inside[:, :2, :2] = True
    images, donors = numbers((2, 4, 4, 3)), numbers((2, 4, 4, 3), seed=1)
    if opacity == 1.0:
        images = np.where(inside, np.nan, images)
    donors = np.where(inside & (opacity > 0), donors, np.inf)

    def total(opacity, images, donors):
        plan = Plan.of(images.shape, OWN, region=region, opacity=opacity * jnp.ones(2))
        return plan.images(images, donors=donors).sum()

    arrays = jnp.asarray(images, jnp.float32), jnp.asarray(donors, jnp.float32)
    value, slopes = jax.value_and_grad(total, argnums=(0, 1, 2))(jnp.float32(opacity), *arrays)
    assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)


# Losses and accuracy.


def sigmoid_cross_entropy(logits, labels):
    """Binary cross-entropy with one-hot targets, made from class ids row by row."""
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(labels, 4)).sum(-1)


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_loss_against_the_oracle(from_donors):
    plan = box_plan(opacity=jnp.asarray(FADED))
    logits = numbers((5, 4)) * 5
    labels, donors = np.array([0, 3, 2, 1, 1]), np.array([1, 1, 0, 2, 3])
    others = donors if from_donors else None
    loss = plan.loss(
        optax.softmax_cross_entropy_with_integer_labels,
        jnp.asarray(logits),
        jnp.asarray(labels),
        donors=None if others is None else jnp.asarray(others),
    )
    expected = reference.loss(
        reference.cross_entropy, logits, labels, np.asarray(plan.partner), plan.lam, donors=others
    )
    assert loss.shape == (5,) and loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_is_the_dense_form():
    """Cross-entropy is linear in the labels, so no dense label is needed; other losses mix too."""
    plan = MixUp().plan(fresh(), SHAPE)
    logits, ids = jnp.asarray(numbers((5, 4)) * 5), jnp.array([0, 3, 2, 1, 1])
    labels = plan.labels(ids, num_classes=4)
    np.testing.assert_allclose(
        plan.loss(optax.softmax_cross_entropy_with_integer_labels, logits, ids),
        optax.softmax_cross_entropy(logits, labels),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        plan.loss(sigmoid_cross_entropy, logits, ids),
        optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1),
        rtol=1e-5,
    )
    soft = jnp.asarray(numbers((5, 4), seed=1))
    np.testing.assert_allclose(
        plan.loss(optax.softmax_cross_entropy, logits, soft),
        optax.softmax_cross_entropy(logits, plan.labels(soft)),
        rtol=1e-5,
    )
    targets = jnp.asarray(numbers((5, 1)))
    lam, own = np.asarray(plan.lam), np.asarray(targets)[:, 0]
    outputs = np.asarray(logits)[:, 0]
    expected = lam * (outputs - own) ** 2 + (1 - lam) * (outputs - own[plan.partner]) ** 2
    squared = plan.loss(lambda out, y: jnp.square(out - y[:, 0]), jnp.asarray(outputs), targets)
    np.testing.assert_allclose(squared, expected, rtol=1e-5)


def test_loss_is_at_least_float32():
    plan = Plan.of((4, 1), Roll(), opacity=jnp.full(4, 0.3))
    ids = jnp.arange(4)
    for dtype in ("bfloat16", "float16"):
        outputs = jnp.asarray(numbers((4, 4), dtype))
        loss = plan.loss(lambda out, y: out[jnp.arange(4), y], outputs, ids)
        assert loss.dtype == jnp.float32
        own, others = (
            np.asarray(outputs, np.float64)[np.arange(4), np.roll(ids, k)] for k in (0, 1)
        )
        opacity = float(np.float32(0.3))
        np.testing.assert_allclose(loss, (1 - opacity) * own + opacity * others, rtol=1e-6)


def test_loss_of_many_classes_makes_no_one_hot_array():
    """Nothing as large as [B, K] is compiled, for a loss that needs no such thing."""
    rows, classes = 64, 21_841

    def loss_fn(outputs, labels):
        table = jnp.linspace(0.0, 1.0, classes)
        return outputs * table[labels]

    @jax.jit
    def step(plan, outputs, labels):
        return plan.loss(loss_fn, outputs, labels).sum()

    plan = MixUp().plan(fresh(), (rows, 1))
    ids = jnp.asarray(np.random.default_rng(0).integers(0, classes, rows), jnp.int32)
    compiled = step.lower(plan, jnp.ones(rows), ids).compile().as_text()
    assert f"[{classes}]" in compiled
    assert f"[{rows},{classes}]" not in compiled
    labels = jax.jit(lambda plan, ids: plan.labels(ids, num_classes=classes))
    assert f"[{rows},{classes}]" in labels.lower(plan, ids).compile().as_text()


def test_negative_ids_cost_nothing():
    """Neither in the loss nor in its gradient, where the loss itself has no answer for them."""
    plan = Plan.of((4, 1), Flip(), opacity=jnp.full(4, 0.25))
    logits, labels = numbers((4, 4)) * 5, np.array([2, -1, 1, -100])

    def picky(logits, labels):
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return loss * jnp.where(labels < 0, jnp.float32(np.nan), jnp.float32(1))

    for loss_fn in (optax.softmax_cross_entropy_with_integer_labels, picky):

        def total(logits, loss_fn=loss_fn):
            loss = plan.loss(loss_fn, logits, jnp.asarray(labels))
            return loss.sum(), loss

        gradient, loss = jax.grad(total, has_aux=True)(jnp.asarray(logits))
        expected = reference.loss(
            reference.cross_entropy, logits, labels, np.asarray(plan.partner), plan.lam
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert np.isfinite(gradient).all()
        assert np.all(np.asarray(gradient).any(1))


LOSSES = {  # On class ids; on dense labels; both of them optax's.
    "softmax": (
        optax.softmax_cross_entropy_with_integer_labels,
        optax.softmax_cross_entropy,
    ),
    "sigmoid": (
        lambda logits, ids: optax.sigmoid_binary_cross_entropy(
            logits, jax.nn.one_hot(ids, logits.shape[1])
        ).sum(-1),
        lambda logits, labels: optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1),
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("mixer", [CutMix(), MixUp()], ids=["cutmix", "mixup"])
def test_losses_of_optax_with_21841_classes(mixer, kind):
    """The dense form to 1e-6, its gradient too; with class ids its [B, K] is never in memory."""
    rows, classes = 16, 21_841
    by_ids, by_labels = LOSSES[kind]
    plan = mixer.plan(fresh(), (rows, 8, 8, 3))
    logits = jnp.asarray(numbers((rows, classes)) * 5)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, classes, rows), jnp.int32)

    def mixed(logits):
        return plan.loss(by_ids, logits, ids)

    def dense(logits):
        return by_labels(logits, plan.labels(ids, num_classes=classes))

    np.testing.assert_allclose(mixed(logits), dense(logits), rtol=1e-6)
    slope, dense_slope = (
        jax.grad(lambda logits, loss=loss: loss(logits).sum())(logits) for loss in (mixed, dense)
    )
    np.testing.assert_allclose(slope, dense_slope, rtol=0, atol=1e-6)
    memory = [
        jax.jit(loss).lower(logits).compile().memory_analysis().temp_size_in_bytes
        for loss in (mixed, dense)
    ]
    if kind == "softmax":  # The other one's first form makes a one-hot array itself.
        assert memory[0] < 4 * rows * classes / 100 < 4 * rows * classes <= memory[1]


def test_squared_error_exceeds_the_dense_form_by_a_constant():
    plan = MixUp().plan(fresh(), SHAPE)
    outputs, targets = jnp.asarray(numbers((5, 1))), jnp.asarray(numbers((5, 1), seed=1))
    loss = plan.loss(lambda out, y: optax.squared_error(out, y)[:, 0], outputs, targets)
    dense = optax.squared_error(outputs, plan.labels(targets))[:, 0]
    gap = (np.asarray(targets) - np.asarray(targets)[np.asarray(plan.partner)])[:, 0] ** 2
    lam = np.asarray(plan.lam)
    assert gap.max() > 0.01
    np.testing.assert_allclose(loss, dense + lam * (1 - lam) * gap, atol=1e-6, rtol=1e-6)


def test_loss_has_the_gradient_of_the_dense_form():
    plan = MixUp().plan(fresh(), SHAPE)
    logits, ids = jnp.asarray(numbers((5, 4)) * 5), jnp.array([0, 3, 2, 1, 1])
    labels = plan.labels(ids, num_classes=4)

    def by_ids(logits):
        return plan.loss(optax.softmax_cross_entropy_with_integer_labels, logits, ids).sum()

    dense = jax.grad(lambda logits: optax.softmax_cross_entropy(logits, labels).sum())(logits)
    np.testing.assert_allclose(jax.grad(by_ids)(logits), dense, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_accuracy_gives_credit_by_lam(from_donors):
    plan = box_plan(opacity=jnp.asarray(FADED))
    logits = numbers((5, 4))
    labels, donors = np.array([0, 3, 2, -1, 1]), np.array([1, 1, 0, 2, -1])
    others = donors if from_donors else None
    credit = plan.accuracy(
        jnp.asarray(logits),
        jnp.asarray(labels),
        donors=None if others is None else jnp.asarray(others),
    )
    expected = reference.accuracy(logits, labels, np.asarray(plan.partner), plan.lam, donors=others)
    assert credit.dtype == jnp.float32 and credit.shape == (5,)
    np.testing.assert_allclose(credit, expected, rtol=0, atol=2**-23)


def test_accuracy_of_either_class_of_both_and_of_none():
    plan = Plan.of((4, 1), Roll(), opacity=jnp.full(4, 0.25))
    labels = jnp.array([0, 1, 2, 2])  # The partners' are 2, 0, 1, 2.
    top = jnp.array([2, 1, 3, 2])
    credit = plan.accuracy(jax.nn.one_hot(top, 4), labels)
    assert credit.tolist() == [0.25, 0.75, 0.0, 1.0]
    nobody = plan.accuracy(jax.nn.one_hot(top, 4), jnp.full(4, -1))
    assert nobody.tolist() == [0.0] * 4


def test_accuracy_of_ids_in_any_integer():
    plan = Plan.of((2, 3), Roll(0), opacity=0.0)
    for dtype, none in (("uint8", 200), ("int8", -1), ("uint32", 2**32 - 1), ("int64", 2**32)):
        with jax.enable_x64(True):
            credit = plan.accuracy(jnp.eye(2), jnp.array([none, 1], dtype))
        assert credit.dtype == jnp.float32 and credit.tolist() == [0, 1]


def test_nothing_is_sent_to_the_device():
    """Numbers of Python's would be, unless they are part of a program."""
    plan = MixUp().plan(fresh(), (5, 4))  # The row in the middle is its own partner.
    rows, labels = jnp.ones((5, 4)), jnp.arange(5) % 4
    valid, smoothing = jnp.ones(5, bool), jnp.float32(0.1)
    with jax.transfer_guard("disallow"):
        plan.images(rows)
        plan.labels(labels, num_classes=4, smoothing=smoothing)
        plan.accuracy(rows, labels)
        plan.only(valid)


# Only the valid rows, and the plan of a slice of the batch.


def regions(rows, spatial=(6, 5)):
    """Every kind of plan by what `Plan.of` makes it from."""
    rng = np.random.default_rng(3)
    box = Box(*map(jnp.asarray, boxes(rows, spatial)))
    mask = Mask(jnp.asarray(rng.random((rows, *spatial)) < 0.5))
    soft = Mask(jnp.asarray(rng.choice([0.0, 0.3, 1.0], (rows, *spatial)), jnp.float32))
    opacity = jnp.asarray(rng.uniform(0.1, 0.9, rows), jnp.float32)
    return {
        "box": {"region": box},
        "mask": {"region": mask},
        "soft-mask": {"region": soft},
        "opacity": {"opacity": opacity},
        "faded-box": {"region": box, "opacity": opacity},
        "faded-mask": {"region": mask, "opacity": opacity},
        "everything": {},
    }


def batch_of(rows, seed=0):
    """Images, class ids, maps and logits."""
    shape = (rows, 6, 5, 3)
    ids = np.random.default_rng(seed).integers(0, 7, rows)
    maps, logits = numbers(shape[:3], "int32", seed), numbers((rows, 7), seed=seed)
    return numbers(shape, seed=seed), ids, maps, logits


def own_loss(outputs, labels):
    """The logit of the label, so that no sum rounds in another order."""
    return outputs[jnp.arange(labels.size), labels]


@jax.jit
def mixed_by(plan, batch, donors=None):
    """Everything that a plan computes from a batch."""
    images, ids, maps, logits = batch
    other_images, other_ids, other_maps, _ = donors or (None,) * 4
    return {
        "images": plan.images(images, donors=other_images),
        "labels": plan.labels(ids, num_classes=7, donors=other_ids),
        "maps": plan.maps(maps, donors=other_maps),
        "loss": plan.loss(own_loss, logits, ids, donors=other_ids),
        "accuracy": plan.accuracy(logits, ids, donors=other_ids),
    }


def unmixed(batch):
    """The same of rows that are left alone."""
    images, ids, maps, logits = batch
    own = logits[np.arange(ids.size), ids]
    credit = (logits.argmax(1) == ids).astype(np.float32)
    labels = np.eye(7, dtype=np.float32)[ids]
    return {"images": images, "labels": labels, "maps": maps, "loss": own, "accuracy": credit}


def assert_same_bits(found, expected, rows=slice(None)):
    """Equal to the bit, in some of the rows."""
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        one, other = np.asarray(one)[rows], np.asarray(other)[rows]
        assert one.shape == other.shape and one.dtype == other.dtype
        if one.dtype != bool:
            one, other = reference.bits(one), reference.bits(other)
        assert np.array_equal(one, other)


VALID = np.array([1, 1, 0, 1, 1, 1, 0], bool)
BY_SEVEN = {
    "flip": Flip(),
    "flip-groups7": Flip(groups=7),
    "roll": Roll(),
    "roll-back2": Roll(-2),
    "roll-none": OWN,
    "permutation": Permutation(np.array([3, 0, 1, 6, 2, 4, 5], np.int32)),
}


def valid_pairs(plan, valid=VALID, theirs=VALID):
    """The rows that are to be mixed."""
    return np.array([valid[i] and theirs[j] for i, j in enumerate(np.asarray(plan.partner))])


@pytest.mark.parametrize(
    ("kind", "pairing"),
    [
        *[(kind, "flip") for kind in regions(1)],
        *[("faded-box", pairing) for pairing in BY_SEVEN if pairing != "flip"],
        *[("box", pairing) for pairing in ("roll", "permutation")],
    ],
)
def test_only_mixes_valid_rows_with_valid_partners(kind, pairing):
    """To the bit: rows with one of them invalid are the originals, all others as without `only`."""
    plan = Plan.of((7, 6, 5, 3), BY_SEVEN[pairing], **regions(7)[kind])
    batch, on = batch_of(7), valid_pairs(plan)
    batch[0][~VALID] = np.nan

    only = plan.only(VALID)
    assert only.partner.tolist() == plan.partner.tolist() and only.spatial == plan.spatial
    assert np.all(np.asarray(only.lam)[~on] == 1)
    assert_same_bits(only.lam, plan.lam, on)
    as_drawn = mixed_by(plan, batch)
    found = mixed_by(only, batch)
    assert_same_bits(found, unmixed(batch), ~on)
    assert_same_bits(found, as_drawn, on)
    assert np.isfinite(np.asarray(found["images"])[VALID]).all()

    everybody, nobody = plan.only(np.ones(7, bool)), plan.only(jnp.zeros(7, bool))
    assert_same_bits(everybody.lam, plan.lam)
    assert_same_bits(mixed_by(everybody, batch), as_drawn)
    assert nobody.lam.tolist() == [1.0] * 7
    assert_same_bits(mixed_by(nobody, batch), unmixed(batch))


def test_only_changes_what_is_painted_and_not_how():
    """Opaque plans stay opaque, so bools can be mixed; what has no region gets none."""
    for kind, how in regions(7).items():
        plan = Plan.of((7, 6, 5, 3), Flip(), **how)
        only = plan.only(VALID)
        if how:
            assert jax.tree.structure(only) == jax.tree.structure(plan)
            dtypes = [[x.dtype for x in jax.tree.leaves(p)] for p in (only, plan)]
            assert dtypes[0] == dtypes[1]
        assert (only.region is None) == ("region" not in how), kind
        if kind in ("box", "mask"):
            lit, on = jnp.asarray(numbers((7, 6, 5, 3), "bool")), valid_pairs(plan)
            assert_same_bits(only.images(lit), plan.images(lit), on)
            assert_same_bits(only.images(lit), lit, ~on)


@pytest.mark.parametrize("kind", ["soft-mask", "opacity", "faded-box"])
def test_padding_reaches_no_gradient(kind):
    plan = Plan.of((7, 6, 5, 3), Roll(), **regions(7)[kind])
    images, cotangent = numbers((7, 6, 5, 3)), numbers((7, 6, 5, 3), seed=1)
    images[~VALID] = np.nan

    @jax.jit
    def gradient(images, valid):
        rows = valid[:, None, None, None]

        def total(images):
            return jnp.where(rows, plan.only(valid).images(images) * cotangent, 0).sum()

        return jax.grad(total)(images)

    found = np.asarray(gradient(images, VALID))
    weights = np.asarray(plan.only(VALID).weights(images.shape))[..., None]
    expected = np.where(VALID[:, None, None, None], weights * cotangent, 0)
    expected += np.roll(np.where(VALID[:, None, None, None], (1 - weights) * cotangent, 0), -1, 0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    assert not found[~VALID].any()


@pytest.mark.parametrize("kind", ["box", "soft-mask", "opacity", "everything"])
def test_padding_is_in_no_valid_rows_label(kind):
    """Painted with the one-hot vector of its number, a row shows where it has come to."""
    plan = Plan.of((7, 6, 5, 7), Roll(2), **regions(7)[kind]).only(VALID)
    number = np.broadcast_to(np.eye(7, dtype=np.float32)[:, None, None], (7, 6, 5, 7))
    shown = np.asarray(plan.images(jnp.asarray(number)), np.float64).mean((1, 2))
    labels = plan.labels(jnp.arange(7), num_classes=7)
    np.testing.assert_allclose(labels, shown, rtol=0, atol=2**-22)
    for table in (shown, np.asarray(labels)):
        assert not table[np.ix_(VALID, ~VALID)].any()
        assert not table[np.ix_(~VALID, VALID)].any()
        np.testing.assert_allclose(table.sum(1), np.ones(7), rtol=0, atol=2**-22)


@pytest.mark.parametrize("pairing", [OWN, Roll(3)], ids=repr)
def test_only_with_the_valid_rows_of_the_donors(pairing):
    """Rows of two batches, either of them padded: here a row that is its own partner is mixed."""
    plan = Plan.of((7, 6, 5, 3), pairing, **regions(7)["faded-box"])
    batch, donors = batch_of(7), batch_of(7, seed=1)
    theirs = np.array([0, 1, 1, 1, 0, 1, 1], bool)
    donors[0][~theirs] = np.nan
    on = valid_pairs(plan, theirs=theirs)
    only = plan.only(VALID, donors=jnp.asarray(theirs))
    assert np.all(np.asarray(only.lam)[~on] == 1)
    found = mixed_by(only, batch, donors)
    assert_same_bits(found, mixed_by(plan, batch, donors), on)
    assert_same_bits(found, unmixed(batch), ~on)


def test_only_under_jit_is_only_without_and_traces_once():
    traces = []

    @jax.jit
    def step(plan, valid):
        traces.append(None)
        return plan.only(valid)

    plan = RandomChoice((CutMix(), MixUp())).plan(fresh(), (7, 6, 5, 3))
    for valid in (VALID, ~VALID, np.ones(7, bool)):
        assert_same_bits(step(plan, valid), plan.only(valid))
    assert len(traces) == 1


def slices_of(plan, size):
    """The plans of the micro-batches of that size."""
    return [plan[k : k + size] for k in range(0, plan.lam.shape[0], size)]


def rows_of(batch, start, stop):
    """A part of every array of a batch."""
    return tuple(x[start:stop] for x in batch)


@pytest.mark.parametrize("groups", [3, 6, 12])
@pytest.mark.parametrize("kind", ["box", "mask", "everything"])
def test_slices_mix_what_the_whole_mixes(kind, groups):
    """Three micro-batches of one, two or four groups: bit for bit the whole batch."""
    plan = Plan.of((12, 6, 5, 3), Flip(groups=groups), **regions(12)[kind])
    batch = batch_of(12)
    parts = slices_of(plan, 4)
    assert [part.pairing for part in parts] == [Flip(groups=groups // 3)] * 3
    mixed = [mixed_by(part, rows_of(batch, 4 * k, 4 * k + 4)) for k, part in enumerate(parts)]
    found = jax.tree.map(lambda *x: np.concatenate(x), *mixed)
    assert_same_bits(found, mixed_by(plan, batch))


@pytest.mark.parametrize("kind", ["soft-mask", "opacity", "faded-mask"])
def test_slices_blend_what_the_whole_blends(kind):
    """What a slice holds is the whole's to the bit; a blend may be rounded in another way."""
    plan = Plan.of((12, 6, 5, 3), Flip(groups=6), **regions(12)[kind])
    batch, parts = batch_of(12), slices_of(plan, 4)
    drawn = [(part.region, part.opacity, part.lam) for part in parts]
    together = jax.tree.map(lambda *x: np.concatenate(x), *drawn)
    assert_same_bits(together, (plan.region, plan.opacity, plan.lam))
    mixed = [mixed_by(part, rows_of(batch, 4 * k, 4 * k + 4)) for k, part in enumerate(parts)]
    found, expected = jax.tree.map(lambda *x: np.concatenate(x), *mixed), mixed_by(plan, batch)
    for name in ("images", "labels", "loss", "accuracy"):
        assert np.all(reference.ulps(found[name], np.asarray(expected[name])) <= 1), name
    assert np.array_equal(found["maps"], expected["maps"])


def test_slices_of_any_rows_with_donors():
    plan = box_plan((7, 6, 5, 3), OWN)
    batch, donors = batch_of(7), batch_of(7, seed=1)
    expected = mixed_by(plan, batch, donors)
    for start, stop in [(0, 3), (3, 4), (2, 7)]:
        part = plan[start:stop]
        assert part.pairing == OWN and part.spatial == (6, 5)
        found = mixed_by(part, rows_of(batch, start, stop), rows_of(donors, start, stop))
        assert_same_bits(found, jax.tree.map(lambda x, i=start, j=stop: x[i:j], expected))


@pytest.mark.parametrize("pairing", BY_SEVEN.values(), ids=BY_SEVEN)
def test_the_slice_of_all_rows_is_the_plan(pairing):
    plan = box_plan((7, 6, 5, 3), pairing, opacity=jnp.linspace(0, 1, 7))
    for copy in (plan[:], plan[0:7], plan[-7:], plan[:99:1]):
        assert_same_bits(copy, plan)


@pytest.mark.parametrize(
    "rows",
    [
        slice(-4, None),
        slice(None, -4),
        slice(2, 6),
        slice(-6, 99),
        slice(np.int64(2), None, 1),
        slice(4, 4),
        slice(6, 2),
        slice(8, None),
        slice(0, 0),
    ],
    ids=str,
)
def test_bounds_of_a_slice_are_pythons(rows):
    plan = box_plan((8, 6, 5, 3), Flip(groups=4))
    part, images = plan[rows], numbers((8, 6, 5, 3))
    assert part.lam.tolist() == plan.lam[rows].tolist()
    assert part.region.stop.tolist() == plan.region.stop[rows].tolist()
    assert part.partner.tolist() == [i ^ 1 for i in range(part.lam.size)]
    mixed = np.asarray(plan.images(jnp.asarray(images)))
    assert np.array_equal(part.images(jnp.asarray(images[rows])), mixed[rows])


def test_a_slice_of_a_slice():
    plan = box_plan((8, 6, 5, 3), Flip(groups=4))
    assert_same_bits(plan[2:8][2:4], plan[4:6])


def test_slices_stack_for_a_scan():
    """Gradient accumulation: one plan, drawn for the full batch, applied part by part."""
    mixer = RandomApply(CutMix(pairing=Flip(groups=6)), 0.7)
    images = jnp.asarray(numbers((12, 6, 5, 3)))

    @jax.jit
    def accumulate(key, images):
        plan = mixer.plan(key, images.shape)
        parts = jax.tree.map(lambda *x: jnp.stack(x), *slices_of(plan, 4))

        def step(total, part):
            mixed = part[0].images(part[1])
            return total + mixed.sum(), (mixed, part[0].labels(jnp.arange(4), num_classes=4))

        _, mixed = jax.lax.scan(step, 0.0, (parts, images.reshape(3, 4, 6, 5, 3)))
        return jax.tree.map(lambda x: x.reshape(12, *x.shape[2:]), mixed)

    plan = mixer.plan(fresh(), images.shape)
    labels = plan.labels(jnp.arange(12) % 4, num_classes=4)
    assert_same_bits(accumulate(fresh(), images), (plan.images(images), labels))


def test_only_and_slices_commute():
    plan = box_plan((12, 6, 5, 3), Flip(groups=3), opacity=jnp.linspace(0, 1, 12))
    valid = np.arange(12) < 9
    for start in (0, 4, 8):
        part = plan[start : start + 4].only(valid[start : start + 4])
        assert_same_bits(part, plan.only(valid)[start : start + 4])


# All of it together, for any shape, dtype, region, opacity and pairing.

LAYOUTS = {(4, 3, 2, 3): -1, (4, 3, 3, 2): 1, (5, 7): None, (1, 2, 3, 2, 2): -1, (4, 5, 2): -1}


@st.composite
def made_plans(draw):
    """A plan by hand, with the shape and the channel axis it is for."""
    shape, channel_axis = draw(st.sampled_from(sorted(LAYOUTS.items(), key=str)))
    rows = shape[0]
    spatial = reference.channels_last(np.zeros(shape), channel_axis).shape[1:-1]
    pairings = [Flip(), Roll(), Roll(-2), Roll(0), Permutation(np.arange(rows)[::-1].copy())]
    pairing = draw(st.sampled_from(pairings + ([Flip(2)] if rows == 4 else [])))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    region = draw(st.sampled_from(["box", "bool", "float", None]))
    if region == "box":
        edges = rng.integers(-2, np.array(spatial) + 3, (2, rows, len(spatial)))
        region = Box(*jnp.asarray(edges, jnp.int32))
    elif region == "bool":
        region = Mask(jnp.asarray(rng.random((rows, *spatial)) < 0.5))
    elif region == "float":
        region = Mask(jnp.asarray(rng.choice([0, 0.5, 0.7, 1], (rows, *spatial)), jnp.float32))
    opacity = rng.choice([0, 0.3, 0.5, 1], rows) if draw(st.booleans()) else None
    opacity = None if opacity is None else jnp.asarray(opacity, jnp.float32)
    plan = Plan.of(shape, pairing, region=region, opacity=opacity, channel_axis=channel_axis)
    return plan, shape, channel_axis, spatial


@hypothesis.settings(max_examples=20)
@hypothesis.given(
    made=made_plans(),
    dtype=st.sampled_from(["float32", "bfloat16", "uint8"]),
    from_donors=st.booleans(),
)
def test_any_plan_against_the_oracle(made, dtype, from_donors):
    plan, shape, channel_axis, spatial = made
    rows = shape[0]
    share, partner = read(plan, spatial)
    np.testing.assert_allclose(plan.lam, reference.lam(share), rtol=0, atol=2**-22)
    weights = plan.weights(shape, channel_axis=channel_axis)
    np.testing.assert_allclose(weights, 1 - share, rtol=0, atol=2**-23)

    images, donors = numbers(shape, dtype), numbers(shape, dtype, seed=1)
    donors = donors if from_donors else None
    mixed = plan.images(
        jnp.asarray(images),
        channel_axis=channel_axis,
        donors=None if donors is None else jnp.asarray(donors),
    )
    exact = reference.images(
        images.astype(np.float64),
        partner,
        share,
        channel_axis=channel_axis,
        donors=None if donors is None else donors.astype(np.float64),
    )
    assert mixed.dtype == images.dtype
    assert reference.blended_well(np.asarray(mixed), exact)

    maps = numbers((rows, *spatial), "int32")
    assert np.array_equal(plan.maps(jnp.asarray(maps)), reference.maps(maps, partner, share))
    ids = np.arange(rows) % 3 - 1
    labels = plan.labels(jnp.asarray(ids), num_classes=3, smoothing=0.1)
    expected = reference.labels(ids, partner, plan.lam, num_classes=3, smoothing=0.1)
    np.testing.assert_allclose(labels, expected, rtol=0, atol=2**-22)
    assert math.isclose(np.asarray(labels, np.float64).sum(), expected.sum(), abs_tol=1e-5)


def test_a_stack_of_plans_is_mapped_over_and_not_used_as_one():
    draw = jax.vmap(lambda key: MixUp(pairing=Flip(groups=5)).plan(key, SHAPE))
    plans = draw(jax.random.split(fresh(), 4))
    images = jnp.asarray(numbers(SHAPE))
    for use in (lambda: plans.images(images), lambda: plans[0:2], lambda: plans.partner):
        with pytest.raises(ValueError, match="split or stacked"):
            use()
    assert jax.vmap(lambda plan: plan.images(images))(plans).shape == (4, *SHAPE)
