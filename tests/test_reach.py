"""Where boxes reach: some of the axes, grids of patches, other resolutions."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import assert_same

from jaxmix import Box, CutMix, Flip, Mask, MixUp, Plan, RandomApply, RandomChoice, Roll

LAWS = {
    "paper": {},
    "timm": {"box": "timm"},
    "contained": {"box": "contained"},
    "minmax": {"minmax": (0.2, 0.9)},
}
every_law = pytest.mark.parametrize("law", LAWS)


def draw(mixer, shape, **options):
    return mixer.plan(jax.random.key(3), shape, **options)


def edges(plan):
    return np.asarray(plan.region.start), np.asarray(plan.region.stop)


def average_of_one_hots(plan, shape, channel_axis=-1):
    """Each image painted with the one-hot vector of its row, mixed, and averaged: [B, B]."""
    rows, rank = shape[0], len(shape)
    axis = channel_axis % rank
    canvas = [*shape[:axis], rows, *shape[axis + 1 :]]
    one_hots = np.eye(rows, dtype=np.float32).reshape(
        [rows if i in (0, axis) else 1 for i in range(rank)]
    )
    images = np.broadcast_to(one_hots, canvas)
    mixed = np.asarray(plan.images(images, channel_axis=channel_axis), np.float64)
    return mixed.mean(axis=tuple(i for i in range(1, rank) if i != axis))


# Some axes.


@every_law
def test_a_spectrogram_is_cut_in_time_only(law):
    """As sound of that length is: the share of the box is that of one side."""
    shape = (16, 40, 12, 2)
    start, stop = edges(plan := draw(CutMix(axes=(0,), **LAWS[law]), shape))
    sound = draw(CutMix(**LAWS[law]), (16, 40, 2), channel_axis=-1)
    assert np.array_equal(start[:, :1], edges(sound)[0])
    assert np.array_equal(stop[:, :1], edges(sound)[1])
    assert np.all(start[:, 1] == 0) and np.all(stop[:, 1] == 12)
    assert_same(plan.lam, sound.lam, ulps=2)
    assert len(set(stop[:, 0] - start[:, 0])) > 3


@every_law
def test_a_video_is_cut_through_every_frame(law):
    shape = (16, 5, 14, 20, 3)
    plan = draw(CutMix(axes=(1, 2), **LAWS[law]), shape)
    frame = draw(CutMix(**LAWS[law]), (16, 14, 20, 3))
    images = np.random.default_rng(0).random(shape, np.float32)
    mixed = plan.images(images)
    for t in range(5):
        assert np.array_equal(mixed[:, t], frame.images(images[:, t]))
    assert_same(plan.lam, frame.lam, ulps=2)


SHAPES = {
    "sound": ((6, 21, 2), -1, {}),
    "spectrogram": ((6, 21, 8, 2), -1, {"axes": 0}),
    "volume": ((6, 9, 8, 7, 2), -1, {}),
    "video": ((6, 4, 8, 7, 3), -1, {"axes": (-2, -1)}),
    "channels-first": ((6, 3, 9, 8), 1, {}),
    "video-channels-first": ((6, 3, 4, 20, 15), 1, {"axes": (1, 2), "grid": (4, 3)}),
    "patches": ((6, 12, 20, 3), -1, {"grid": 4}),
    "patches-channels-first": ((6, 3, 12, 20), 1, {"grid": (3, 5)}),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("law", ["paper", "minmax"])
def test_painted_label_is_the_label(law, name):
    shape, channel_axis, options = SHAPES[name]
    plan = draw(CutMix(**LAWS[law], **options), shape, channel_axis=channel_axis)
    labels = plan.labels(np.arange(6), num_classes=6)
    painted = average_of_one_hots(plan, shape, channel_axis)
    np.testing.assert_allclose(labels, painted, rtol=0, atol=2**-22)
    assert 0 < np.asarray(plan.lam).mean() < 1


def test_axes_and_grids_are_counted_in_the_order_in_which_they_are_named():
    plan = draw(CutMix(axes=(1, 0), grid=(5, 3)), (64, 12, 20, 3))
    for edge in edges(plan):
        assert np.all(edge % [3, 5] == 0) and np.any(edge % [6, 10] != 0)


# A grid of patches.


@every_law
def test_a_grid_of_patches_is_an_image_of_patches(law):
    """The laws hold in cells: the box of 14 x 10 pixels, each of them 16 x 8 large."""
    mixer = CutMix(grid=(16, 8), **LAWS[law])
    large, small = draw(mixer, (64, 224, 80, 3)), draw(CutMix(**LAWS[law]), (64, 14, 10, 3))
    for one, other in zip(edges(large), edges(small), strict=True):
        assert np.array_equal(one, other * [16, 8])
    assert_same(large.lam, small.lam, ulps=2)


@pytest.mark.parametrize("extents", [(32, 32), (48, 80), (224, 224)])
def test_every_token_is_wholly_of_one_image(extents):
    plan = draw(CutMix(grid=16, box="timm"), (32, *extents, 3))
    share = np.asarray(plan.weights((32, *extents, 3)))
    patches = share.reshape(32, extents[0] // 16, 16, extents[1] // 16, 16)
    assert np.all(patches.min(axis=(2, 4)) == patches.max(axis=(2, 4)))


def test_a_bad_traced_alpha_gives_nan_on_a_grid_too():
    lam = jax.jit(lambda alpha: CutMix(alpha, grid=4, axes=0).plan(jax.random.key(0), (4, 8, 8, 3)))
    assert np.all(np.isnan(lam(jnp.float32(-1)).lam))


# Another resolution.

POLICIES = {
    "cutmix": CutMix(grid=16),
    "minmax": CutMix(grid=(16, 32), minmax=(0.2, 0.8)),
    "sometimes": RandomApply(CutMix(grid=16), 0.5),
    "or-mixup": RandomChoice((CutMix(grid=16), MixUp(), RandomApply(CutMix(grid=32)))),
    "two-grids": RandomChoice((CutMix(grid=(32, 48)), CutMix(grid=(16, 32)))),
    "tube": CutMix(grid=16, axes=1),
    "pair": CutMix(grid=16, per="pair"),
}


@pytest.mark.parametrize("name", POLICIES)
def test_a_plan_at_the_resolution_of_tokens(name):
    fine, coarse = (8, 64, 96, 3), (8, 4, 6, 32)
    plan = draw(POLICIES[name], fine)
    tokens = plan.at(coarse, channel_axis=-1)
    assert tokens.spatial == (4, 6) and np.array_equal(tokens.lam, plan.lam)
    share = np.asarray(tokens.weights(coarse))
    assert np.array_equal(np.kron(share, np.ones((1, 16, 16))), plan.weights(fine))
    maps = np.random.default_rng(0).integers(0, 9, (8, 4, 6), np.int32)
    large = np.kron(maps, np.ones((1, 16, 16), np.int32))
    assert np.array_equal(np.kron(tokens.maps(maps), np.ones((16, 16), np.int32)), plan.maps(large))
    back = tokens.at(fine)
    assert jax.tree.structure(back) == jax.tree.structure(plan)
    for one, other in zip(jax.tree.leaves(back), jax.tree.leaves(plan), strict=True):
        assert np.array_equal(one, other)


def test_a_plan_at_a_finer_resolution_needs_no_grid():
    plan = draw(CutMix(), (8, 7, 5, 3))
    share = np.asarray(plan.weights((8, 7, 5, 3)))
    fine = plan.at((8, 3, 21, 10), channel_axis=1)
    assert np.array_equal(
        fine.weights((8, 3, 21, 10), channel_axis=1), np.kron(share, np.ones((1, 3, 2)))
    )
    assert plan.at((8, 7, 5, 64)) is plan


def test_a_plan_without_a_region_is_the_same_at_every_resolution():
    plan = draw(MixUp(), (8, 32, 32, 3))
    assert plan.at((8, 7)) is plan


def test_parts_of_a_plan_keep_its_grid():
    plan = draw(CutMix(grid=4, pairing=Flip(groups=2)), (8, 16, 16, 3))
    valid = np.arange(8) != 2
    coarse = plan.only(valid)[:4].at((4, 4, 4, 3))
    assert np.array_equal(coarse.lam, plan.only(valid).lam[:4]) and coarse.lam[2] == 1
    share = reference.of_plan(coarse, (4, 4))
    assert np.array_equal(
        np.kron(share, np.ones((1, 4, 4))), reference.of_plan(plan.only(valid), (16, 16))[:4]
    )


def test_long_sound_does_not_overflow():
    """A million samples at two resolutions: their product is no int32."""
    start, stop = jnp.array([[160_000]]), jnp.array([[960_000]])
    sound = Plan.of((1, 1_600_000), Roll(0), region=Box(start, stop, grid=160), channel_axis=None)
    frames = sound.at((1, 10_000), channel_axis=None)
    assert edges(frames)[0].tolist() == [[1000]] and edges(frames)[1].tolist() == [[6000]]
    assert edges(frames.at((1, 1_600_000), channel_axis=None))[1].tolist() == [[960_000]]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: draw(CutMix(grid=16), (4, 100, 96, 3)), ValueError, r"grid=16 must divide.*100"),
        (lambda: draw(CutMix(grid=(4, 4, 4)), (4, 8, 8, 3)), ValueError, r"grid=\(4, 4, 4\)"),
        (lambda: CutMix(grid=0), ValueError, "grid must be at least 1, got 0"),
        (lambda: CutMix(grid=8.0), TypeError, "grid must be a static Python int, got 8.0"),
        (lambda: CutMix(axes="time"), TypeError, "axes must be a static Python int"),
        (lambda: draw(CutMix(axes=2), (4, 8, 8, 3)), ValueError, "spatial axes, 0 to 1,.*8, 8"),
        (lambda: draw(CutMix(axes=(0, -2)), (4, 8, 8, 3)), ValueError, "each once"),
        (lambda: draw(CutMix(axes=()), (4, 8, 8, 3)), ValueError, "one or more"),
        (
            lambda: draw(CutMix(), (4, 8, 8, 3)).at((4, 4, 4, 3)),
            ValueError,
            r"\(8, 8\).*\(4, 4\).*CutMix\(grid=n\)",
        ),
        (lambda: draw(CutMix(grid=4), (4, 8, 8, 3)).at((4, 3, 3, 3)), ValueError, r"\(3, 3\)"),
        (lambda: draw(CutMix(), (4, 8, 8, 3)).at((5, 8, 8, 3)), ValueError, "batch of 4"),
        (
            lambda: draw(CutMix(grid=4), (4, 8, 8, 3)).at((4, 2, 3), channel_axis=-1),
            ValueError,
            r"\(8, 8\).*\(2,\)",
        ),
        (
            lambda: Plan.of((4, 8, 8, 3), "flip", region=Mask(jnp.ones((4, 8, 8), bool))).at(
                (4, 4, 4, 3)
            ),
            ValueError,
            r"Plan\.of",
        ),
        (
            lambda: Plan.of((4, 8, 8, 3), "flip", region=Box(EDGE, EDGE, grid=3)),
            ValueError,
            r"Plan\.of: grid=3 must divide.*8",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error) as raised:
        call()
    assert type(raised.value) is error
    assert re.search(message, str(raised.value)), str(raised.value)


EDGE = jnp.zeros((4, 2), jnp.int32)


def test_labels_of_frames_follow_a_cut_in_time():
    """As the docstring of `Plan.labels` has it."""
    rows, frames, classes = 8, 20, 5
    plan = draw(CutMix(axes=0), (rows, frames, 7, 3))
    labels = jnp.asarray(np.random.default_rng(0).random((rows, frames, classes), np.float32))
    mixed = plan.at((rows, frames, 1, classes)).images(labels[:, :, None])[:, :, 0]
    own = np.asarray(plan.weights((rows, frames, 7, 3)))[:, :, :1] == 1
    np.testing.assert_array_equal(mixed, np.where(own, labels, labels[np.asarray(plan.partner)]))
    assert own.any() and not own.all()
