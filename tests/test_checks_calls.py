"""Errors: which call they name, what is checked first, and what is allowed; see test_checks.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix
from jaxmix import (
    CutMix,
    Flip,
    Mixer,
    MixUp,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
    symmetric_beta,
)

SHAPE = (8, 16, 12, 3)
IMAGES = np.linspace(0, 1, 8 * 16 * 12 * 3, dtype=np.float32).reshape(SHAPE)
LABELS = np.arange(8, dtype=np.int32) % 5


def plan(key, mixer=None, **options):
    """A plan of CutMix, or of `mixer`, for SHAPE."""
    return (mixer or CutMix()).plan(key, SHAPE, **options)


CALLS = {
    "cutmix": (jaxmix.cutmix, "CutMix"),
    "mixup": (jaxmix.mixup, "MixUp"),
    "CutMix": (lambda *args, **how: CutMix(how.pop("alpha", 1.0))(*args, **how), "CutMix"),
    "RandomChoice": (lambda *args, **how: RandomChoice((CutMix(), MixUp()))(*args, **how), ""),
}
MISTAKES = {
    "key": lambda call, key, x, y: call(0, x, y, num_classes=5),
    "images": lambda call, key, x, y: call(key, [x], y, num_classes=5),
    "labels": lambda call, key, x, y: call(key, x, [y], num_classes=5),
    "batch": lambda call, key, x, y: call(key, x, y[:4], num_classes=5),
    "num-classes": lambda call, key, x, y: call(key, x, y),
    "float-ids": lambda call, key, x, y: call(key, x, y.astype(jnp.float32), num_classes=5),
    "smoothing": lambda call, key, x, y: call(key, x, y, num_classes=5, smoothing=2),
    "channel-axis": lambda call, key, x, y: call(key, x, y, num_classes=5, channel_axis="last"),
}


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", CALLS)
def test_an_error_names_the_call_that_was_made(name, mistake, how):
    """Not the parts of which that call consists."""

    def step(key):
        return MISTAKES[mistake](CALLS[name][0], key, jnp.asarray(IMAGES), jnp.asarray(LABELS))

    with pytest.raises((TypeError, ValueError)) as raised:
        (jax.jit(step) if how == "jit" else step)(jax.random.key(0))
    assert str(raised.value).startswith(f"{name}: "), raised.value


@pytest.mark.parametrize(
    "how",
    [{"alpha": -1.0}, {"per": "rows"}, {"pairing": "no"}, {"per": "pair", "pairing": "roll"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["cutmix", "mixup"])
def test_an_error_about_an_option_names_the_function(name, how):
    with pytest.raises(ValueError, match=f"^{name}: ") as raised:
        CALLS[name][0](jax.random.key(0), IMAGES, LABELS, num_classes=5, **how)
    assert CALLS[name][1] not in str(raised.value)


def test_errors_of_other_calls_keep_their_name():
    """A user's draw may call the library, and its mistakes are its own."""

    class Own(Mixer):
        def draw(self, key, rows, spatial):
            return None, symmetric_beta(key, -1.0, (rows,))

    class Other(Mixer):
        def draw(self, key, rows, spatial):
            Plan.of((rows, 4), "flip", opacity=0.5).images([1.0])
            return None, None

    with pytest.raises(ValueError, match=r"^symmetric_beta: alpha must be positive"):
        Own()(jax.random.key(0), IMAGES)
    with pytest.raises(TypeError, match=r"^Plan\.images: images must be an array, got list"):
        Other()(jax.random.key(0), IMAGES)


@pytest.mark.parametrize(
    "labels, num_classes, smoothing",
    [([0] * 8, 5, 0), (LABELS, None, 0), (LABELS[:4], 5, 0), (LABELS, 5, 1.0)],
    ids=["list", "no-classes", "batch", "smoothing"],
)
def test_labels_are_checked_before_anything_is_drawn(labels, num_classes, smoothing):
    class Never(Mixer):
        def draw(self, key, rows, spatial):
            raise AssertionError("drawn")

    never = Never()
    with pytest.raises((TypeError, ValueError), match=r"^Never: "):
        never(jax.random.key(0), IMAGES, labels, num_classes=num_classes, smoothing=smoothing)


def test_the_channel_axis_is_checked_without_a_region_too():
    with pytest.raises(ValueError, match=r'^Plan\.of: channel_axis must be "auto".*\'last\''):
        Plan.of(SHAPE, "flip", opacity=0.5, channel_axis="last")


def test_a_batch_that_was_asked_for_is_not_squeezed():
    """The remedy is for a channel axis of 1, and there is none."""
    with pytest.raises(ValueError, match=r"Plan\.maps: maps must be") as raised:
        plan(jax.random.key(0)).maps(np.zeros((8, 10, 12), np.int32))
    assert "squeeze" not in str(raised.value)


@pytest.mark.parametrize("bad", [-(10**400), 10**400, -1e300, -0.25], ids=["-big", "big", "-", "q"])
def test_the_bad_one_of_many_probs_is_named(bad):
    probs = [0.125] * 29 + [bad]
    with pytest.raises(ValueError, match="probs must be finite and >= 0") as raised:
        RandomChoice([CutMix()] * 30, probs=probs)
    shown = {10**400: "inf", -(10**400): "-inf"}.get(bad, str(bad))
    assert str(raised.value).endswith(f"got {shown}")


def test_numpy_ids_are_checked_where_the_images_are_traced():
    mix = jax.jit(lambda k, x: jaxmix.mixup(k, x, np.full(8, 17), num_classes=5))
    with pytest.raises(ValueError, match=r"\b17\b"):
        mix(jax.random.key(0), IMAGES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ids_too_large_in_a_jax_array_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 6), Flip(), opacity=jnp.zeros(4))
    labels = plan.labels(jnp.array([0, 7, 3, 2]), num_classes=3, smoothing=smoothing)
    assert np.flatnonzero(np.asarray(labels).any(1)).tolist() == [0, 3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_negative_ids_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 6), Flip(), opacity=jnp.zeros(4))
    labels = plan.labels(np.array([0, -1, -100, 2]), num_classes=3, smoothing=smoothing)
    assert np.flatnonzero(np.asarray(labels).any(1)).tolist() == [0, 3]


ALLOWED = [
    CutMix(),
    CutMix(minmax=(0.2, 0.8), per="batch", pairing="permutation"),
    RandomChoice((CutMix(per="pair", box="contained"), MixUp())),
    RandomApply(MixUp(pairing="roll"), per="batch"),
]


@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("mixer", ALLOWED, ids=str)
def test_empty_single_and_odd_batches_are_allowed(mixer, batch):
    images = np.linspace(0, 1, batch * 5 * 4 * 3, dtype=np.float32).reshape(batch, 5, 4, 3)
    mixed, labels = mixer(jax.random.key(0), images, np.arange(batch) % 3, num_classes=3)
    assert mixed.shape == images.shape and labels.shape == (batch, 3)
    np.testing.assert_allclose(np.asarray(labels, np.float64).sum(1), np.ones(batch), atol=2e-7)
    if batch == 1:
        np.testing.assert_array_equal(mixed, images)


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 16, 12), (8, 2, 3, 4, 5, 6)], ids=str)
def test_a_plan_without_a_region_applies_to_any_shape(shape):
    mixed = MixUp().plan(jax.random.key(0), (8, 4)).images(np.ones(shape, np.float32))
    np.testing.assert_allclose(mixed, np.ones(shape), rtol=2e-7)


@pytest.mark.parametrize("extent", [(1, 1), (1, 7), (2, 1)], ids=str)
def test_axes_of_one_pixel_are_allowed(extent):
    plan = CutMix().plan(jax.random.key(0), (8, *extent, 3))
    assert plan.images(np.ones((8, *extent, 3), np.uint8)).shape == (8, *extent, 3)


def test_keys_of_both_kinds_are_allowed():
    new = CutMix().plan(jax.random.key(3), SHAPE)
    old = CutMix().plan(jax.random.PRNGKey(3), SHAPE)
    jax.tree.map(np.testing.assert_array_equal, new, old)


BAD_TRACED = [0.0, -1.0, float("nan"), float("inf"), float("-inf")]


@jax.jit
def lams(key, alpha):
    """Lam from everything that takes an alpha."""
    beta_key, mixup_key, cutmix_key, batch_key = jax.random.split(key, 4)
    return (
        symmetric_beta(beta_key, alpha, (8,)),
        MixUp(alpha=alpha).plan(mixup_key, SHAPE).lam,
        CutMix(alpha=alpha).plan(cutmix_key, SHAPE).lam,
        CutMix(alpha=alpha, per="batch", box="contained").plan(batch_key, SHAPE).lam,
    )


@pytest.mark.parametrize("alpha", BAD_TRACED)
def test_traced_bad_alpha_gives_nan(alpha):
    for lam in lams(jax.random.key(0), alpha):
        assert np.isnan(lam).all(), lam


def test_traced_good_alpha_does_not():
    for lam in lams(jax.random.key(0), 0.5):
        assert np.isfinite(lam).all(), lam


def test_roll_by_any_shift_is_allowed():
    for shift in (0, 3, -1, 8, 21):
        partner = Plan.of((8, 4), Roll(shift), opacity=jnp.ones(8)).partner
        np.testing.assert_array_equal(partner, (np.arange(8) - shift) % 8)
