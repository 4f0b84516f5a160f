"""cutmix and mixup are one call of their mixers, and the draws of a key stay as they are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference

import jaxmix
from jaxmix import Box, CutMix, Flip, MixUp, Permutation, RandomApply, RandomChoice, Roll

IMAGES = np.random.default_rng(0).normal(size=(8, 6, 7, 3)).astype(np.float32)
IDS = np.arange(8) % 5
ONE_HOT = np.eye(5, dtype=np.float32)[IDS]


def assert_same(first, second):
    """Images and labels, bit for bit."""
    for left, right in zip(first, second, strict=True):
        assert isinstance(left, jax.Array) and left.dtype == right.dtype
        np.testing.assert_array_equal(left, right)


# The options of the mixer, then those of its call.
CUTMIX = {
    "defaults": ({}, {"num_classes": 5}),
    "alpha-and-smoothing": ({"alpha": 0.2}, {"num_classes": 5, "smoothing": 0.1}),
    "per-pair-in-groups-last": (
        {"per": "pair", "pairing": Flip(2)},
        {"num_classes": 5, "channel_axis": -1},
    ),
    "per-batch-rolled-timm": (
        {"per": "batch", "pairing": Roll(3), "box": "timm"},
        {"num_classes": 5},
    ),
    "permutation-minmax-channels-first": (
        {"pairing": Permutation(), "minmax": (0.2, 0.8)},
        {"num_classes": 5, "channel_axis": 1},
    ),
    "contained-without-channels": (
        {"box": "contained"},
        {"num_classes": 5, "channel_axis": None},
    ),
    "columns-on-a-grid": ({"axes": (1,), "grid": 7}, {"num_classes": 5}),
    "on-a-grid": ({"grid": (3, 1)}, {"num_classes": 5}),
}


@pytest.mark.parametrize("name", CUTMIX)
def test_cutmix_is_its_mixer_in_one_call(name):
    options, call = CUTMIX[name]
    function = jaxmix.cutmix(jax.random.key(1), IMAGES, IDS, **options, **call)
    assert_same(function, CutMix(**options)(jax.random.key(1), IMAGES, IDS, **call))


MIXUP = {
    **{name: CUTMIX[name] for name in ("defaults", "alpha-and-smoothing")},
    "per-pair-in-groups-last": CUTMIX["per-pair-in-groups-last"],
    "folded": ({"fold": True}, {"num_classes": 5}),
}


@pytest.mark.parametrize("name", MIXUP)
def test_mixup_is_its_mixer_in_one_call(name):
    options, call = MIXUP[name]
    function = jaxmix.mixup(jax.random.key(2), IMAGES, IDS, **options, **call)
    assert_same(function, MixUp(**options)(jax.random.key(2), IMAGES, IDS, **call))


@pytest.mark.parametrize("function", [jaxmix.cutmix, jaxmix.mixup])
@pytest.mark.parametrize("labels", [ONE_HOT, ONE_HOT.astype(np.int32)], ids=["float", "int"])
def test_one_hot_labels_need_no_num_classes(function, labels):
    dense = function(jax.random.key(3), IMAGES, labels)
    assert_same(dense, function(jax.random.key(3), IMAGES, IDS, num_classes=5))


@pytest.mark.parametrize("function", [jaxmix.cutmix, jaxmix.mixup])
@pytest.mark.parametrize("how", [{}, {"smoothing": 0}, {"num_classes": 1}], ids=str)
def test_regression_targets_are_mixed_as_labels_are(function, how):
    key, targets = functools.partial(jax.random.key, 0), np.arange(8, dtype=np.float32) - 3.5
    mixer = {jaxmix.cutmix: CutMix(), jaxmix.mixup: MixUp()}[function]
    lam = np.asarray(mixer.plan(key(), IMAGES.shape).lam)
    _, mixed = function(key(), IMAGES, targets[:, None], **how)
    assert mixed.dtype == jnp.float32 and mixed.shape == (8, 1)
    expected = lam * targets + (1 - lam) * targets[reference.swap(8)]
    np.testing.assert_allclose(mixed[:, 0], expected, atol=1e-6)
    jitted = jax.jit(functools.partial(function, **how))
    np.testing.assert_array_equal(jitted(key(), IMAGES, targets[:, None])[1], mixed)
    with pytest.raises(ValueError, match="smoothing needs class labels"):
        function(key(), IMAGES, targets[:, None], smoothing=0.1)


@pytest.mark.parametrize("function", [jaxmix.cutmix, jaxmix.mixup])
def test_eager_is_jit_and_alpha_may_be_traced(function):
    eager = function(jax.random.key(4), IMAGES, IDS, alpha=0.7, num_classes=5)
    traces = []

    @jax.jit
    def mix(key, images, labels, alpha):
        traces.append(alpha)
        return function(key, images, labels, alpha=alpha, num_classes=5)

    assert_same(eager, mix(jax.random.key(4), IMAGES, IDS, 0.7))
    mix(jax.random.key(5), IMAGES, IDS, 0.2)
    assert len(traces) == 1


def test_the_two_are_not_the_same_function():
    cut, _ = jaxmix.cutmix(jax.random.key(6), IMAGES, IDS, num_classes=5)
    mixed, _ = jaxmix.mixup(jax.random.key(6), IMAGES, IDS, num_classes=5)
    from_a_source = np.isin(np.asarray(cut), IMAGES)
    assert from_a_source.all() and not np.isin(np.asarray(mixed), IMAGES).all()


# What one threefry key draws for six images of 32 x 24 pixels: partner, lam, and the boxes as
# (first row, first column, last row + 1, last column + 1).
SWAPPED = [1, 0, 3, 2, 5, 4]
GOLDEN = {
    "cutmix": (
        CutMix(),
        SWAPPED,
        [0.78515625, 0.6875, 0.828125, 0.66145831, 0.8125, 0.953125],
        [
            [17, 0, 32, 11],
            [0, 0, 20, 12],
            [0, 13, 12, 24],
            [0, 2, 13, 22],
            [0, 12, 12, 24],
            [0, 8, 6, 14],
        ],
    ),
    "cutmix-batch-roll-timm": (
        CutMix(0.3, per="batch", pairing="roll", box="timm"),
        [5, 0, 1, 2, 3, 4],
        [0.79947919] * 6,
        [[18, 0, 32, 11]] * 6,
    ),
    "cutmix-pair-contained": (
        CutMix(per="pair", box="contained"),
        SWAPPED,
        [0.609375, 0.609375, 0.49088541, 0.49088541, 0.65364581, 0.65364581],
        [
            [11, 1, 31, 16],
            [11, 1, 31, 16],
            [0, 7, 23, 24],
            [0, 7, 23, 24],
            [1, 9, 20, 23],
            [1, 9, 20, 23],
        ],
    ),
    "cutmix-minmax-permutation": (
        CutMix(minmax=(0.2, 0.8), pairing="permutation"),
        [5, 3, 4, 2, 0, 1],
        [0.82291669, 0.75651044, 0.8984375, 0.74479169, 0.75, 0.890625],
        [
            [6, 8, 23, 16],
            [15, 0, 26, 17],
            [10, 9, 16, 22],
            [12, 10, 26, 24],
            [7, 9, 31, 17],
            [11, 13, 23, 20],
        ],
    ),
    "mixup": (
        MixUp(0.4),
        SWAPPED,
        [0.65806049, 0.989999, 0.0015048981, 0.78633988, 0.44647384, 0.63788044],
        None,
    ),
    "mixup-pair": (
        MixUp(per="pair"),
        SWAPPED,
        [0.60039562, 0.60039562, 0.047087669, 0.047087669, 0.48092842, 0.48092842],
        None,
    ),
    "choice": (
        RandomChoice((CutMix(), MixUp(0.8)), probs=(0.7, 0.3)),
        SWAPPED,
        [0.32291666, 0.46581465, 0.39167392, 0.92359364, 0.42708334, 0.28148919],
        [
            [0, 1, 26, 21],
            [0, 0, 32, 24],
            [0, 0, 32, 24],
            [0, 0, 32, 24],
            [12, 2, 32, 24],
            [0, 0, 32, 24],
        ],
    ),
    "apply": (
        RandomApply(MixUp(), 0.9),
        SWAPPED,
        [0.25815594, 0.18254268, 1.0, 0.92327315, 0.46368396, 0.61499214],
        None,
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_draws(name):
    """The draws of a key are fixed within 0.Y: a change here is a line in CHANGELOG.md.

    Partners and boxes exactly; lam to float32 rounding, which compilers may do differently.
    """
    mixer, partner, lam, box = GOLDEN[name]
    plan = mixer.plan(jax.random.key(2024, impl="threefry2x32"), (6, 32, 24, 3))
    np.testing.assert_array_equal(plan.partner, partner)
    np.testing.assert_allclose(plan.lam, lam, rtol=1e-5)
    if box is None:
        assert plan.region is None
    else:
        assert isinstance(plan.region, Box)
        np.testing.assert_array_equal(jnp.hstack([plan.region.start, plan.region.stop]), box)


def test_golden_beta():
    """As above: a change here is a line in CHANGELOG.md."""
    key = jax.random.key(2024, impl="threefry2x32")
    expected = [0.60239965, 0.7372663, 0.016015356, 0.49005556, 0.99920124, 0.97121239]
    np.testing.assert_allclose(jaxmix.symmetric_beta(key, 0.4, (6,)), expected, rtol=1e-5)
