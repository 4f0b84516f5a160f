"""Recipes: the mixers they stand for. That those do what the libraries do: test_golden.py."""

import collections

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmix
from jaxmix import CutMix, MixUp, RandomApply, RandomChoice, Roll, Swap, recipes

BATCH = {"per": "batch", "pairing": "roll"}
FLIPPED = {"per": "batch", "pairing": "flip"}


@pytest.mark.parametrize(
    "made, expected",
    [
        (recipes.timm(), MixUp(1.0, **FLIPPED)),
        (recipes.timm(0.2), MixUp(0.2, **FLIPPED)),
        (recipes.timm(0, 1.0), CutMix(1.0, box="timm", **FLIPPED)),
        (recipes.timm(0.0, 0.5, mode="elem"), CutMix(0.5, box="timm", pairing="flip")),
        (recipes.timm(0, cutmix_minmax=[0.2, 0.8]), CutMix(minmax=(0.2, 0.8), **FLIPPED)),
        (
            recipes.timm(0.8, 1.0),
            RandomChoice(
                (MixUp(0.8, **FLIPPED), CutMix(1.0, box="timm", **FLIPPED)),
                probs=(0.5, 0.5),
                per="batch",
            ),
        ),
        (
            recipes.timm(0.8, 0.3, (0.2, 0.8), 0.9, 0.25, "pair", pairing="swap"),
            RandomApply(
                RandomChoice(
                    (MixUp(0.8, per="pair"), CutMix(minmax=(0.2, 0.8), per="pair")),
                    probs=(0.75, 0.25),
                    per="pair",
                ),
                prob=0.9,
                per="pair",
            ),
        ),
        (recipes.torchvision(cutmix_alpha=1.0), CutMix(1.0, **BATCH)),
        (recipes.torchvision(mixup_alpha=0.2), MixUp(0.2, **BATCH)),
        (
            recipes.torchvision(1.0, 0.2),
            RandomChoice((MixUp(0.2, **BATCH), CutMix(1.0, **BATCH)), per="batch"),
        ),
        (recipes.big_vision(0.2), MixUp(0.2, **BATCH, fold=True)),
        (recipes.torchvision(1.0, pairing="swap"), CutMix(1.0, per="batch")),
        (recipes.timm(0, 1.0, axes=(1, 2)), CutMix(1.0, box="timm", axes=(1, 2), **FLIPPED)),
        (
            recipes.timm(cutmix_minmax=(0.2, 0.8), mixup_alpha=0, axes=0, mode="elem"),
            CutMix(minmax=(0.2, 0.8), axes=0, pairing="flip"),
        ),
        (recipes.torchvision(1.0, axes=[1, 2]), CutMix(1.0, axes=(1, 2), **BATCH)),
        (recipes.big_vision(0.2, pairing="swap"), MixUp(0.2, per="batch", fold=True)),
        (recipes.big_vision(0.2, per="example"), MixUp(0.2, pairing="roll", fold=True)),
        (
            recipes.timm(0.8, 1.0, prob=0.5, per=4),
            RandomApply(
                RandomChoice(
                    (MixUp(0.8, per=4, pairing="flip"), CutMix(box="timm", per=4, pairing="flip")),
                    probs=(0.5, 0.5),
                    per=4,
                ),
                per=4,
            ),
        ),
        (
            recipes.torchvision(1.0, 0.2, per="pair", pairing="swap"),
            RandomChoice((MixUp(0.2, per="pair"), CutMix(per="pair")), per="pair"),
        ),
    ],
    ids=str,
)
def test_a_recipe_is_this_mixer(made, expected):
    assert made == expected
    assert made.pairing == expected.pairing


def test_a_recipe_joins_a_choice_by_its_pairing():
    recipe = recipes.timm(0.8, 1.0, mode="elem", pairing="swap")
    mixed = RandomChoice((CutMix(), recipe))(jax.random.key(0), jnp.zeros((4, 8, 8, 3)))
    assert mixed.shape == (4, 8, 8, 3)
    with pytest.raises(ValueError, match=r"Swap.*Flip.*same pairing= to each mixer or recipe"):
        RandomChoice((CutMix(), recipes.timm(0.8, 1.0)))


@pytest.mark.parametrize(
    "make", [recipes.timm, recipes.torchvision, recipes.big_vision], ids=lambda make: make.__name__
)
def test_a_bad_option_is_the_recipes_error(make):
    where = rf"^recipes\.{make.__name__}: pairing must be "
    with pytest.raises(TypeError, match=where + r"a pairing such as Flip\(\)"):
        make(0.2, pairing=Swap)
    with pytest.raises(ValueError, match=where + 'one of "swap", "flip"'):
        make(0.2, pairing="shuffle")
    if make is not recipes.big_vision:
        with pytest.raises(TypeError, match=rf"^recipes\.{make.__name__}: each of axes must be"):
            make(axes=(0, 0.5))


OFF = {
    "timm": recipes.timm(0.0, 0.0),
    "timm, rarely": recipes.timm(0, 0, prob=0.5, mode="pair", pairing="swap"),
    "torchvision": recipes.torchvision(),
    "big_vision": recipes.big_vision(0.0),
}


@pytest.mark.parametrize(
    "dtype", ["float32", "bfloat16", "float16", "uint8", "int32", "bool", "complex64"]
)
@pytest.mark.parametrize("name", OFF)
def test_0_is_off_for_images_of_any_kind(name, dtype):
    images = jnp.asarray(np.random.default_rng(4).integers(0, 256, (5, 4, 6, 3))).astype(dtype)
    for x in (images, images[:, 0, 0], images[:, 0, 0, 0]):
        for call in (OFF[name], jax.jit(lambda key, x: OFF[name](key, x))):
            mixed = call(jax.random.key(5), x)
            assert mixed.dtype == x.dtype
            np.testing.assert_array_equal(mixed, x)


@pytest.mark.parametrize("name", OFF)
def test_0_is_off_but_labels_are_encoded_and_smoothed(name):
    images, ids = jnp.zeros((5, 4, 4, 3)), jnp.array([0, 1, 2, 1, -1])
    _, labels = OFF[name](jax.random.key(6), images, ids, num_classes=3, smoothing=0.3)
    hot = np.eye(3)[[0, 1, 2, 1]]
    np.testing.assert_allclose(labels[:4], 0.7 * hot + 0.1, atol=1e-7)
    np.testing.assert_array_equal(labels[4], np.zeros(3))
    plan = OFF[name].plan(jax.random.key(7), images.shape)
    np.testing.assert_array_equal(plan.images(images, donors=images + 1), images)
    assert eval(repr(OFF[name]), vars(jaxmix)) == OFF[name]


def test_a_pair_needs_a_pairing_that_is_mutual():
    with pytest.raises(
        ValueError, match=r'^recipes\.timm: per="pair" needs a mutual pairing, "swap" or "flip"'
    ):
        recipes.timm(mode="pair", pairing="roll")


def test_numbers_of_a_recipe_follow_a_schedule():
    @jax.jit
    def lam(alpha, prob, switch_prob):
        mixer = recipes.timm(alpha, 1.0, prob=prob, switch_prob=switch_prob, mode="elem")
        plan = mixer.plan(jax.random.key(0), (64, 8, 8, 3))
        return plan.lam, plan.opacity

    untouched, _ = lam(0.8, 0.0, 0.5)
    assert np.all(untouched == 1)
    blended, opacity = lam(0.8, 1.0, 0.0)
    np.testing.assert_allclose(blended, 1 - opacity, atol=1e-6)
    cut, opacity = lam(0.8, 1.0, 1.0)
    assert np.all(opacity == 1) and np.all(cut * 64 == np.round(cut * 64))
    assert lam._cache_size() == 1


def test_a_folded_lambda_is_the_larger_of_two():
    """The same draw, folded: an image stays mostly itself, and follows the folded Beta law."""
    plans = [
        MixUp(0.4, fold=fold).plan(jax.random.key(1), (4096, 2, 2, 1)) for fold in (False, True)
    ]
    plain, folded = (np.asarray(plan.lam) for plan in plans)
    assert (plain < 0.5).mean() > 0.4 and folded.min() >= 0.5
    np.testing.assert_array_equal(folded, np.maximum(plain, 1 - plain))


def test_the_recipe_of_big_vision_in_its_own_words():
    """`a = max(a, 1 - a)`, one for the batch, `a * x + (1 - a) * roll(x, 1)`."""
    images = jax.random.uniform(jax.random.key(2), (6, 4, 4, 3))
    labels = jax.nn.one_hot(jnp.arange(6), 6)
    plan = recipes.big_vision(p=0.3).plan(jax.random.key(3), images.shape)
    a = plan.lam[0]
    assert np.all(plan.lam == a) and a >= 0.5 and plan.pairing == Roll(1)
    for x, mixed in ((images, plan.images(images)), (labels, plan.labels(labels))):
        np.testing.assert_allclose(mixed, a * x + (1 - a) * jnp.roll(x, 1, 0), atol=1e-6)


def rows(text):
    """The cells of the docstring's table, of the rows that call a mixer."""
    cells = [[cell.strip() for cell in line.strip(" |").split("|")] for line in text.splitlines()]
    return [row for row in cells if len(row) == 5 and row[2].startswith("`")]


def test_what_was_published_can_be_called():
    documented = rows(recipes.__doc__)
    assert len(documented) == 18
    names = {**vars(jaxmix), **vars(recipes)}
    for _, _, call, smoothing, published in documented:
        mixer = eval(call.strip("`"), names)
        images, labels = mixer(
            *(jax.random.key(0), jnp.zeros((4, 8, 8, 3)), jnp.arange(4)),
            **{"num_classes": 5, "smoothing": float(smoothing)},
        )
        assert images.shape == (4, 8, 8, 3) and labels.shape == (4, 5)
        assert published == "-" or 76 < float(published) < 86


def test_targets_of_a_binary_loss_are_0_or_1():
    """Both classes of a mixed image that weigh more than the threshold."""
    plan = recipes.timm(0.1, 1.0).plan(jax.random.key(0), (4, 8, 8, 3))
    plan = plan.relabel(jnp.array([0.9, 0.5, 0.1, 1.0]))
    targets = plan.labels(jnp.array([0, 1, 2, 3]), num_classes=4) > 0.2
    np.testing.assert_array_equal(targets, [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


def test_a_recipe_comes_from_a_configuration():
    """As Hydra calls it, with its own kind of lists, and from an ml_collections.ConfigDict."""
    options = {
        "mixup_alpha": 0.8,
        "cutmix_minmax": collections.UserList([0.2, 0.8]),
        "mode": "elem",
    }
    called = getattr(recipes, "timm")(**options)  # noqa: B009
    assert called == recipes.timm(0.8, cutmix_minmax=(0.2, 0.8), mode="elem")
    assert eval(repr(called), vars(jaxmix)) == called
    config_dict = pytest.importorskip("ml_collections").ConfigDict({"p": 0.2, "pairing": "swap"})
    assert recipes.big_vision(**config_dict) == recipes.big_vision(0.2, pairing="swap")


@pytest.mark.parametrize("option", ["label_smoothing", "num_classes", "correct_lam", "fold_in"])
def test_what_belongs_to_the_call_is_no_option(option):
    for make in (recipes.timm, recipes.torchvision, recipes.big_vision):
        with pytest.raises(TypeError, match=option):
            make(0.2, **{option: 1})
    assert option in recipes.timm.__doc__ + recipes.torchvision.__doc__ + recipes.big_vision.__doc__
