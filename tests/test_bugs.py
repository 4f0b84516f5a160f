"""Bugs that other libraries had, or have: one test for each, which fails where the bug is.

Fixed keys; painted labels (image i painted with the one-hot vector of i) show who is where.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from scipy import stats

import jaxmix
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


def painted(rows, *extents, dtype=np.float32):
    """Image i is the one-hot vector of i in every pixel."""
    eye = np.eye(rows, dtype=dtype).reshape(rows, *[1] * len(extents), rows)
    return np.broadcast_to(eye, (rows, *extents, rows))


def shares(mixed):
    """How much of each image is in each mixed one, averaged over the pixels in float64."""
    mixed = np.asarray(mixed, np.float64)
    return mixed.mean(tuple(range(1, mixed.ndim - 1)))


def test_bug_1_lam_not_corrected_after_clipping():
    """The first CutMix code, TensorFlow's model garden, keras-cv, MONAI."""
    images = painted(32, 16, 12)
    mixed, labels = jaxmix.cutmix(jax.random.key(1), images, np.arange(32), num_classes=32)
    np.testing.assert_allclose(labels, shares(mixed), atol=2**-23)
    region = CutMix().plan(jax.random.key(1), images.shape).region
    clipped = (np.asarray(region.start) == 0) | (np.asarray(region.stop) == (16, 12))
    assert clipped.any(1).mean() > 0.5, "the draw does not show the bug"


@pytest.mark.parametrize("extent", [8, 32])
def test_bug_2_lam_from_float_corners_and_pixels_from_integers(extent):
    """Keras 3, datarax: off by up to 0.06 at 32 x 32 and 0.23 at 8 x 8."""
    plan = CutMix().plan(jax.random.key(2), (64, extent, extent, 3))
    pixels = np.asarray(plan.lam, np.float64) * extent**2
    np.testing.assert_allclose(pixels, np.round(pixels), atol=extent**2 * 2**-23)
    kept = np.asarray(plan.weights((64, extent, extent, 3))).sum((1, 2))
    np.testing.assert_array_equal(np.round(pixels), kept)


@pytest.mark.parametrize("mixer", [MixUp(per="batch"), CutMix(per="batch")], ids=str)
def test_bug_3_lam_is_the_partners_share(mixer):
    """In kornia and composer's MixUp: labels have the weights that the pixels do not."""
    images = np.zeros((4, 8, 8, 1), np.float32)
    images[::2] = 1
    plan = mixer.plan(jax.random.key(3), images.shape)
    kept = np.asarray(plan.images(images), np.float64)[::2].mean((1, 2, 3))
    assert abs(plan.lam[0] - 0.5) > 0.05, "the draw does not show the bug"
    np.testing.assert_allclose(kept, np.asarray(plan.lam)[::2], atol=1e-6)
    own = np.asarray(plan.labels(np.array([0, 1, 0, 1]), num_classes=2))[::2, 0]
    np.testing.assert_allclose(kept, own, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 8.0])
def test_bug_4_beta_sampled_as_a_gamma_that_ignores_alpha(alpha):
    """TensorFlow's model garden, keras-cv, for four years: lambda was uniform for every alpha."""
    lam = np.asarray(MixUp(alpha).plan(jax.random.key(4), (20_000, 1)).lam, np.float64)
    np.testing.assert_allclose(lam.var(), 1 / (4 * (2 * alpha + 1)), rtol=0.05)
    assert abs(lam.mean() - 0.5) < 0.02


def test_bug_5_width_from_the_height():
    """TensorFlow's model garden: on oblong images the cut width came from the image height."""
    plan = CutMix(box="contained").plan(jax.random.key(5), (2000, 8, 64, 3))
    sides = np.asarray(plan.region.stop - plan.region.start)
    assert sides[:, 1].max() > 56
    np.testing.assert_allclose(sides[:, 1] / 64, sides[:, 0] / 8, atol=1 / 8 + 1 / 64)
    assert abs(np.asarray(plan.lam).mean() - 0.5) < 0.03


def test_bug_5_channels_cut_as_if_they_were_a_spatial_axis():
    """In torchvision, on channels-last images: a box over columns and channels, silently."""
    images = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None, None], (8, 10, 12, 3))
    last = np.asarray(CutMix()(jax.random.key(5), images))
    assert (last == last[..., :1]).all()
    columns = last[..., 0].any(0)
    assert columns[0].any() and columns[-1].any()
    first = np.asarray(CutMix()(jax.random.key(5), np.moveaxis(images, -1, 1), channel_axis=1))
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)
    with pytest.raises(ValueError, match="channel_axis"):
        CutMix()(jax.random.key(5), images[..., 0])


@pytest.mark.parametrize(
    "mixer",
    [CutMix(), CutMix(box="timm"), CutMix(box="contained"), CutMix(minmax=(0.2, 0.8))],
    ids=["paper", "timm", "contained", "minmax"],
)
def test_bug_6_last_row_and_column_unreachable(mixer):
    """In timm's minmax before 1.0.31 and in kornia."""
    plan = mixer.plan(jax.random.key(6), (4000, 7, 10, 1))
    covered = 1 - np.asarray(plan.weights((4000, 7, 10, 1))).mean(0)
    assert covered.min() > 0.01
    ends = [covered[0].mean(), covered[-1].mean(), covered[:, 0].mean(), covered[:, -1].mean()]
    if mixer.box == "contained" or mixer.minmax:  # Clipped boxes favour the first pixels by law.
        np.testing.assert_allclose(ends[0::2], ends[1::2], rtol=0.15)


@pytest.mark.parametrize(
    "mixer",
    [CutMix(box="timm"), CutMix(box="contained"), CutMix(minmax=(0.2, 0.8))],
    ids=["timm", "contained", "minmax"],
)
def test_bug_6_odd_sides_lose_a_pixel(mixer):
    """In timm before 1.0.31; seen in boxes that the border does not clip."""
    region = mixer.plan(jax.random.key(6), (4000, 21, 30, 1)).region
    start, stop = np.asarray(region.start), np.asarray(region.stop)
    inside = ((start > 0) & (stop < (21, 30))).all(1)
    odd = (stop - start)[inside] % 2 == 1
    assert 0.3 < odd.mean() < 0.7


@pytest.mark.parametrize("mixer", [MixUp(per="batch"), CutMix(), RandomChoice((CutMix(), MixUp()))])
def test_bug_7_uint8_images(mixer):
    """MixUp of torchvision and timm raise; datarax wraps around; elsewhere lambda became 0."""
    images = np.random.default_rng(7).integers(0, 256, (8, 6, 5, 3), np.uint8)
    images[0], images[1] = 250, 255
    plan = mixer.plan(jax.random.key(7), images.shape)
    mixed = plan.images(images)
    assert mixed.dtype == jnp.uint8 and plan.lam.dtype == jnp.float32
    assert np.asarray(mixed)[:2].min() >= 250, "wrapped around"
    exact = plan.images(images.astype(np.float32))
    np.testing.assert_array_equal(np.asarray(mixed), np.round(np.asarray(exact)))


def test_bug_8_lam_and_class_ids_in_bfloat16():
    """In kornia: lambda in the image's dtype, and class ids that are others' above 256."""
    images = np.ones((8, 4, 4, 1), np.float32)
    ids = np.array([0, 255, 257, 301, 513, 777, 999, 1001])
    narrow = jnp.asarray(images, jnp.bfloat16)
    mixed, labels = jaxmix.mixup(jax.random.key(8), narrow, ids, num_classes=1002)
    assert mixed.dtype == jnp.bfloat16 and labels.dtype == jnp.float32
    _, expected = jaxmix.mixup(jax.random.key(8), images, ids, num_classes=1002)
    np.testing.assert_array_equal(labels, expected)
    assert [set(np.flatnonzero(row)) for row in np.asarray(labels)] == [
        {own, other} for own, other in zip(ids, ids[reference.swap(8)], strict=True)
    ]
    plan = MixUp().plan(jax.random.key(8), narrow.shape)
    for drawn in (plan.lam, plan.opacity):
        assert drawn.dtype == jnp.float32
        assert (np.asarray(drawn) != np.asarray(drawn.astype(jnp.bfloat16), np.float32)).all()


def test_bug_9_class_ids_blended_as_numbers():
    """In datarax, and scenic with integer labels: half of 0 and half of 4 is not class 2."""
    plan = Plan.of((2, 4), Flip(), opacity=jnp.full(2, 0.5, jnp.float32))
    labels = plan.labels(np.array([0, 4]), num_classes=5)
    np.testing.assert_array_equal(labels, np.full((2, 5), [0.5, 0, 0, 0, 0.5]))


def test_bug_9_int_labels_broadcast_and_one_hot_reshaped():
    """Keras turned int[B] into [B, B], timm one-hot [4, 4] into [16, 4]; MONAI mixed no one-hot."""
    plan = Plan.of((4, 4), Flip(), opacity=jnp.full(4, 0.25, jnp.float32))
    expected = 0.75 * np.eye(4) + 0.25 * np.eye(4)[::-1]
    for labels in (np.eye(4, dtype=np.float32), np.eye(4, dtype=np.int32)):
        np.testing.assert_array_equal(plan.labels(labels), expected)
    np.testing.assert_array_equal(plan.labels(np.arange(4), num_classes=4), expected)


@pytest.mark.parametrize("mixer", [MixUp(), CutMix(), RandomChoice((CutMix(), MixUp()))], ids=str)
def test_bug_10_segmentation_maps_blended_or_reordered(mixer):
    """Keras' MixUp blended class ids of maps, and permuted them along the wrong axis."""
    maps = np.random.default_rng(10).choice(np.array([0, 7, 200], np.uint8), (6, 9, 8))
    plan = mixer.plan(jax.random.key(10), (6, 9, 8, 3))
    mixed = plan.maps(maps)
    assert mixed.dtype == jnp.uint8 and mixed.shape == maps.shape
    kept = np.asarray(plan.weights((6, 9, 8, 3))) >= 0.5
    np.testing.assert_array_equal(mixed, np.where(kept, maps, maps[np.asarray(plan.partner)]))


def test_bug_10_maps_at_equal_shares_are_the_originals():
    maps = np.random.default_rng(10).choice(np.array([0, 7, 200], np.uint8), (6, 9, 8))
    plan = Plan.of((6, 9, 8, 3), Flip(), opacity=jnp.full(6, 0.5, jnp.float32))
    np.testing.assert_array_equal(plan.maps(maps), maps)


@pytest.mark.parametrize("rows", [1, 7])
@pytest.mark.parametrize("mixer", [CutMix(), MixUp(per="pair"), RandomApply(MixUp())], ids=str)
def test_bug_11_odd_batches_and_batches_of_one(mixer, rows):
    """Odd: refused by timm. One: big_vision crashed, or did nothing on pods."""
    mixed, labels = mixer(
        jax.random.key(11), painted(rows, 6, 5), np.arange(rows), num_classes=rows
    )
    np.testing.assert_allclose(labels, shares(mixed), atol=1e-6)
    alone = np.eye(rows)[-1]
    np.testing.assert_array_equal(np.asarray(mixed)[-1].reshape(-1, rows).mean(0), alone)


def test_bug_12_one_box_for_the_batch():
    """In kornia and MONAI: one position for all, when each example was to have its own."""
    region = CutMix().plan(jax.random.key(12), (64, 40, 50, 3)).region
    start = np.asarray(region.start)
    assert len(np.unique(start, axis=0)) > 32
    one = CutMix(per="batch").plan(jax.random.key(12), (64, 40, 50, 3)).region
    assert len(np.unique(np.asarray(one.start), axis=0)) == 1


def test_bug_12_mixed_with_probability_squared():
    """In kornia, which decided twice whether a row was mixed."""
    lam = np.asarray(RandomApply(MixUp(), prob=0.5).plan(jax.random.key(12), (40_000, 1)).lam)
    assert abs((lam < 1).mean() - 0.5) < 0.015


@pytest.mark.parametrize("mixer", [CutMix(), MixUp(), RandomChoice((CutMix(), MixUp()))], ids=str)
def test_bug_13_the_callers_batch_changed_in_place(mixer):
    """In timm, scenic's dict, fastai and YOLOX's cache."""
    images = np.random.default_rng(13).normal(size=(8, 6, 5, 3)).astype(np.float32)
    labels = np.eye(8, dtype=np.float32)
    before = images.copy(), labels.copy()
    arrays = jnp.asarray(images), jnp.asarray(labels)
    mixed, _ = mixer(jax.random.key(13), images, labels)
    mixer(jax.random.key(13), *arrays)
    for array, copy, device in zip((images, labels), before, arrays, strict=True):
        np.testing.assert_array_equal(array, copy)
        np.testing.assert_array_equal(device, copy)
    assert (np.asarray(mixed) != images).any()


def test_bug_13_black_images_at_lambda_0():
    """In timm, which multiplied in place and had nothing left to paste."""
    images = np.random.default_rng(13).normal(size=(4, 6, 5, 3)).astype(np.float32)
    whole = Box(jnp.zeros((4, 2), jnp.int32), jnp.full((4, 2), 6, jnp.int32))
    for options in ({"region": whole}, {"opacity": jnp.ones(4, jnp.float32)}):
        plan = Plan.of(images.shape, Flip(), **options)
        np.testing.assert_array_equal(plan.lam, np.zeros(4))
        np.testing.assert_array_equal(plan.images(images), images[::-1])


def test_bug_14_the_same_draw_on_every_worker_device_or_epoch():
    """Lightning, pyannote: here a key that was folded with each index draws anew."""
    plans = jax.vmap(
        lambda index: CutMix().plan(jax.random.fold_in(jax.random.key(14), index), (4, 50, 60, 1))
    )(np.arange(64))
    assert len(np.unique(np.asarray(plans.region.start).reshape(64, -1), axis=0)) == 64


def test_bug_14_one_key_used_for_two_draws():
    """The same bits for lambda and place: then large boxes would all lie in one corner."""
    mixer = CutMix(box="contained")
    plan = mixer.plan(jax.random.key(14), (20_000, 101, 103, 1))
    start, stop = np.asarray(plan.region.start), np.asarray(plan.region.stop)
    positions = np.array([101, 103]) - (stop - start) + 1
    dither = np.random.default_rng(14).random(start.shape)
    place = (start + dither) / positions  # Uniform in [0, 1) for every size of the box.
    for first, second in itertools.combinations([*place.T, np.asarray(plan.lam)], 2):
        table = np.histogram2d(first, second, 4)[0]
        assert stats.chi2_contingency(table).pvalue > 1e-4
    choice = RandomChoice((MixUp(), CutMix())).plan(jax.random.key(15), (20_000, 20, 20, 1))
    opacity = np.asarray(choice.opacity)
    assert abs(opacity[opacity < 1].mean() - 0.5) < 0.02


@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
def test_bug_15_branches_of_different_dtype(dtype):
    """In scenic: lax.cond over a mixed and an unmixed batch failed under bfloat16."""
    images = jnp.ones((4, 6, 5, 3), dtype)

    @jax.jit
    def maybe(key, images, on):
        return jax.lax.cond(
            on, RandomChoice((CutMix(), MixUp())).__call__, lambda key, images: images, key, images
        )

    assert maybe(jax.random.key(15), images, True).dtype == dtype


def test_bug_15_both_images_computed_and_one_thrown_away():
    """Most JAX trainers: here a NaN in what MixUp would show leaves CutMix's rows alone."""
    images = np.ones((64, 6, 5, 3), np.float32)
    donors = np.full_like(images, np.nan)
    plan = RandomChoice((CutMix(), MixUp())).plan(jax.random.key(15), images.shape)
    mixed = np.asarray(plan.images(images, donors=donors))
    cut = np.asarray(plan.opacity) == 1
    share = np.isnan(mixed).mean((1, 2, 3))
    np.testing.assert_allclose(share[cut], 1 - np.asarray(plan.lam)[cut], atol=1e-6)
    assert cut.any() and (share[~cut] == 1).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("kind", ["box", "mask"])
def test_bug_16_zero_times_infinity(bad, kind):
    """A float mask multiplies what is not shown: NaN and infinity spread from there."""
    images = np.ones((2, 4, 6, 1), np.float32)
    images[1, :, 3:] = bad
    left = np.broadcast_to(np.arange(6) < 3, (2, 4, 6))
    box = Box(jnp.zeros((2, 2), jnp.int32), jnp.array([[4, 3]] * 2, jnp.int32))
    plan = Plan.of(images.shape, Flip(), region=box if kind == "box" else Mask(jnp.asarray(left)))
    assert np.isfinite(plan.images(images)[0]).all()

    def total(images):
        return plan.images(images)[0].sum()

    gradient = np.asarray(jax.grad(total)(images))
    np.testing.assert_array_equal(gradient[0, :, :, 0], ~left[0])
    np.testing.assert_array_equal(gradient[1, :, :, 0], left[0])


@pytest.mark.parametrize(
    "mixer",
    [
        CutMix(),
        CutMix(pairing=Roll(3)),
        CutMix(pairing="permutation"),
        MixUp(pairing=Flip(4)),
        MixUp(pairing="permutation"),
    ],
    ids=str,
)
def test_bug_17_labels_of_another_partner_than_the_pixels(mixer):
    """Labels permuted anew, or along another axis, or with the inverse permutation."""
    plan = mixer.plan(jax.random.key(17), (8, 5, 4, 8))
    found = shares(plan.images(painted(8, 5, 4)))
    np.testing.assert_allclose(plan.labels(np.arange(8), num_classes=8), found, atol=1e-6)
    maps = np.broadcast_to(np.arange(8)[:, None, None], (8, 5, 4))
    cells = [set(np.unique(row)) for row in np.asarray(plan.maps(maps))]
    assert all(cell <= {i, int(plan.partner[i])} for i, cell in enumerate(cells))


@pytest.mark.parametrize("rows", [3, 8])
def test_bug_18_a_sample_mixed_with_itself(rows):
    """A plain permutation leaves one example a batch, on average, as its own partner."""
    for seed in range(5):
        plan = MixUp(pairing="permutation").plan(jax.random.key(seed), (rows, 1))
        partner = np.asarray(plan.partner)
        assert (partner != np.arange(rows)).all() and len(set(partner)) == rows
    rolled = np.asarray(MixUp(pairing="roll").plan(jax.random.key(0), (rows, 1)).partner)
    assert (rolled != np.arange(rows)).all()
