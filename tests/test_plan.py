"""Plans: what is made by hand, and everything that is computed from a plan, against the oracle."""

import dataclasses
import math
from fractions import Fraction

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import box_plan, boxes, cover, fresh, numbers, read

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
        "Plan(batch=4, spatial=(6, 6), pairing=Roll(), region=Box, blends=False, lam=0.500 (mean))"
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


@cover(
    "dtype, pairing, mixer",
    ["float32", "bfloat16", "float16", "complex64"],
    ["flip", "roll", "permutation"],
    [CutMix, MixUp],
)
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


# One plan over another.

ONES = np.broadcast_to(np.eye(16, dtype=np.float32)[:, None, None], (16, 32, 24, 16))


def off_by(first, second):
    """The mean share of a label that is not where the pixels are."""
    pixels = np.asarray(second.images(first.images(jnp.asarray(ONES))), np.float64).mean((1, 2))
    labels = np.asarray(second.labels(first.labels(jnp.eye(16))), np.float64)
    np.testing.assert_allclose(labels.sum(1), np.ones(16), atol=1e-6)
    return np.abs(pixels - labels).sum(1).mean() / 2


@pytest.mark.parametrize("later", [CutMix(pairing=Roll(2)), MixUp(pairing=Roll(2))], ids=str)
def test_over_a_blend_labels_are_exact(later):
    first = MixUp().plan(fresh(), ONES.shape)
    assert off_by(first, later.plan(fresh(1), ONES.shape)) < 1e-6


def test_a_blend_over_a_box_is_exact():
    first = CutMix().plan(fresh(), ONES.shape)
    assert off_by(first, MixUp(pairing=Roll(2)).plan(fresh(1), ONES.shape)) < 1e-6


def test_a_cut_across_the_rows_over_one_across_the_columns_is_exact():
    """RICAP, four images in one."""
    first = CutMix(axes=1, box="contained").plan(fresh(), ONES.shape)
    second = CutMix(axes=0, box="contained", pairing=Roll(2)).plan(fresh(1), ONES.shape)
    assert off_by(first, second) < 1e-6
    mixed = second.images(first.images(jnp.asarray(ONES)))
    assert (np.asarray(mixed).any((1, 2)).sum(1) == 4).any()


def test_a_box_over_a_box_is_not():
    """As the docstring of `Plan.images` says."""
    keys = jax.random.split(jax.random.key(2), (40, 2))
    second = CutMix(pairing=Roll(2))
    found = [
        off_by(CutMix().plan(one, ONES.shape), second.plan(two, ONES.shape)) for one, two in keys
    ]
    assert np.mean(found) == pytest.approx(0.1, abs=0.01)
