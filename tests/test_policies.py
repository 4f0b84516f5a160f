"""RandomChoice and RandomApply: how often, how plans merge, and one pass over the pixels."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jaxmix
from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Permutation,
    RandomApply,
    RandomChoice,
    Roll,
    recipes,
)

SHAPE = (16, 10, 12, 3)
ROWS = (100_000, 1)
# Fixed keys: a right law passes always, and fails by chance for one choice of keys in 10,000.
RARE = 1e-4


class Constant(Mixer):
    """The whole partner at a known opacity: it shows who was chosen."""

    value: float = 0.5

    def draw(self, key, rows, spatial):
        """No region, one opacity."""
        return None, jnp.broadcast_to(jnp.asarray(self.value, jnp.float32), (rows,))


class Left(Mixer):
    """The partner's left half through a mask, opaque or a given share of it."""

    share: float = 1.0
    soft: bool = dataclasses.field(default=False, metadata={"static": True})

    def draw(self, key, rows, spatial):
        """A mask, bool unless `soft`, and no opacity."""
        left = jnp.broadcast_to(jnp.arange(spatial[1]) < spatial[1] // 2, (rows, *spatial))
        return Mask(left.astype(jnp.float32) * self.share if self.soft else left), None


class Boxed(Mixer):
    """The same box for every row, which may reach over the border or be upside down."""

    start: tuple = dataclasses.field(default=(0, 0), metadata={"static": True})
    stop: tuple = dataclasses.field(default=(0, 0), metadata={"static": True})

    def draw(self, key, rows, spatial):
        """As it was given, not clipped."""
        edges = (jnp.array([edge] * rows, jnp.int32) for edge in (self.start, self.stop))
        return Box(*edges), None


A, B, C = Constant(0.25), Constant(0.5), Constant(1.0)


def chosen(mixer, key=0, shape=ROWS):
    """The opacity of each row, in NumPy."""
    return np.asarray(mixer.plan(jax.random.key(key), shape).opacity)


def counts(opacity, values):
    """How often each value came, and that no other did."""
    found = [int((opacity == value).sum()) for value in values]
    assert sum(found) == opacity.size
    return found


def assert_shares(opacity, shares):
    """Chi-squared of what came against {value: probability}."""
    found = counts(opacity, shares)
    assert stats.chisquare(found, np.array(list(shares.values())) * opacity.size).pvalue > RARE


# How often --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "probs, shares",
    [
        (None, (1 / 3, 1 / 3, 1 / 3)),
        ((0.2, 0.3, 0.5), (0.2, 0.3, 0.5)),
        ((2, 3, 5), (0.2, 0.3, 0.5)),
        ([0.02, 0.03, 0.05], (0.2, 0.3, 0.5)),
        (np.array([10.0, 80.0, 10.0]), (0.1, 0.8, 0.1)),
        ((1e-30, 1e-30, 2e-30), (0.25, 0.25, 0.5)),
    ],
    ids=str,
)
def test_probs_are_normalised_and_kept(probs, shares):
    opacity = chosen(RandomChoice((A, B, C), probs=probs))
    assert_shares(opacity, dict(zip((0.25, 0.5, 1.0), shares, strict=True)))


def test_the_chi_squared_sees_probs_that_are_not_normalised_and_prob_squared():
    biased = chosen(RandomChoice((A, B, C), probs=(0.21, 0.3, 0.49)))
    found = counts(biased, (0.25, 0.5, 1.0))
    assert stats.chisquare(found, np.array((0.2, 0.3, 0.5)) * biased.size).pvalue < RARE
    squared = chosen(RandomApply(B, prob=0.9**2))
    found = counts(squared, (0.5, 0.0))
    assert stats.chisquare(found, np.array((0.9, 0.1)) * squared.size).pvalue < RARE


@pytest.mark.parametrize("zeros", [(0,), (2,), (0, 1), (1, 2)], ids=str)
@pytest.mark.parametrize("traced", [False, True], ids=["python", "traced"])
def test_members_of_zero_probability_are_never_drawn(zeros, traced):
    probs = tuple(0.0 if index in zeros else 0.1 * (index + 1) for index in range(3))

    def opacities(key, probs):
        return RandomChoice((A, B, C), probs=probs).plan(key, (300_000, 1)).opacity

    draw = jax.jit(opacities) if traced else opacities
    found = set(np.unique(np.asarray(draw(jax.random.key(1), probs))))
    assert found == {(0.25, 0.5, 1.0)[index] for index in range(3) if index not in zeros}


def test_a_zero_at_the_end_of_many_is_never_drawn():
    """Cumulated float32 probabilities fall short of 1: the rest belongs to nobody at zero."""
    probs = (0.0, *(0.1 + 0.01 * i for i in range(9)), 0.0)
    mixers = tuple(Constant(2.0**-i) for i in range(11))
    opacity = chosen(RandomChoice(mixers, probs=probs), shape=(1_000_000, 1))
    assert set(opacity) == {2.0**-i for i in range(1, 10)}


@pytest.mark.parametrize("kind", ["tuple", "array"])
def test_probs_may_be_traced(kind):
    traces = []

    @jax.jit
    def draw(key, first):
        traces.append(first)
        rest = 1 - first
        probs = (first, rest) if kind == "tuple" else jnp.stack([first, rest])
        return RandomChoice((A, B), probs=probs).plan(key, ROWS).opacity

    for first in (0.0, 0.3, 1.0):
        found = counts(np.asarray(draw(jax.random.key(2), first)), (0.25, 0.5))
        assert abs(found[0] - ROWS[0] * first) < 4.5 * np.sqrt(ROWS[0] * first * (1 - first)) + 1e-9
    assert len(traces) == 1


def test_traced_probs_are_normalised():
    draw = jax.jit(lambda key, p: RandomChoice((A, B), probs=p).plan(key, ROWS).opacity)
    assert_shares(np.asarray(draw(jax.random.key(3), (6.0, 2.0))), {0.25: 0.75, 0.5: 0.25})


def test_probs_of_any_scale_draw_the_same():
    first = chosen(RandomChoice((A, B), probs=(3, 1)))
    np.testing.assert_array_equal(first, chosen(RandomChoice((A, B), probs=(0.75, 0.25))))


@pytest.mark.parametrize("prob", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("traced", [False, True], ids=["python", "traced"])
def test_prob_is_the_share_of_rows_that_are_mixed(prob, traced):
    def opacities(key, prob):
        return RandomApply(B, prob=prob).plan(key, ROWS).opacity

    opacity = (jax.jit(opacities) if traced else opacities)(jax.random.key(4), prob)
    assert_shares(np.asarray(opacity), {0.5: prob, 0.0: 1 - prob})


def test_prob_defaults_to_one_half():
    assert_shares(chosen(RandomApply(B)), {0.5: 0.5, 0.0: 0.5})


@pytest.mark.parametrize("traced", [False, True], ids=["python", "traced"])
@pytest.mark.parametrize("prob", [0, 1.0])
def test_prob_0_and_1_are_exact(prob, traced):
    def opacities(key, prob):
        return RandomApply(B, prob=prob).plan(key, (1_000_000, 1)).opacity

    opacity = (jax.jit(opacities) if traced else opacities)(jax.random.key(5), prob)
    assert set(np.unique(np.asarray(opacity))) == {0.5 * prob}


def test_a_point_of_exactly_zero_reaches_nobody_at_probability_0():
    """A uniform float32 is 0.0 in one of 2**23 draws; these many hold some, for this key."""
    rows = (2**24, 1)
    assert not RandomApply(B, prob=0).plan(jax.random.key(5), rows).opacity.any()
    choice = RandomChoice((A, B), probs=(0, 1)).plan(jax.random.key(5), rows)
    assert (choice.opacity == 0.5).all()


def test_depth_three():
    """Half of the rows; of these a half to A, kept by a half again, the other half to B or C."""
    mixer = RandomApply(RandomChoice((RandomApply(A), RandomChoice((B, C), probs=(1, 3)))))
    expected = {0.25: 1 / 8, 0.5: 1 / 16, 1.0: 3 / 16, 0.0: 5 / 8}
    assert_shares(chosen(mixer, key=6), expected)


def test_levels_decide_independently():
    """Chained RandomApply: the product of the probabilities, not the least of them."""
    mixer = RandomApply(RandomApply(RandomApply(B)))
    assert_shares(chosen(mixer, key=7), {0.5: 1 / 8, 0.0: 7 / 8})
    same = RandomChoice((RandomChoice((A, B)), C))
    assert_shares(chosen(same, key=8), {0.25: 1 / 4, 0.5: 1 / 4, 1.0: 1 / 2})


def test_choice_and_lam_are_independent():
    """Among the chosen lam still follows its own law."""
    plan = RandomChoice((MixUp(0.4), MixUp(8.0))).plan(jax.random.key(9), ROWS)
    applied = RandomApply(MixUp(1.0)).plan(jax.random.key(10), ROWS)
    lam = np.asarray(plan.lam, np.float64)
    low = lam[lam < 0.5]

    def law_of_low(x):
        return stats.beta(0.4, 0.4).cdf(x) + stats.beta(8, 8).cdf(x)

    assert stats.kstest(low, law_of_low).pvalue > RARE
    mixed = np.asarray(applied.lam, np.float64)[np.asarray(applied.opacity) > 0]
    assert stats.kstest(mixed, "uniform").pvalue > RARE


def test_choices_of_neighbours_are_independent():
    side = chosen(RandomChoice((A, B)), key=11) == 0.25
    pairs = np.bincount(side[:-1:2] * 2 + side[1::2], minlength=4)
    assert stats.chisquare(pairs).pvalue > RARE


# Granularity ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda per: RandomChoice((A, B), probs=(1, 3), per=per),
        lambda per: RandomApply(A, prob=0.25, per=per),
    ],
    ids=["RandomChoice", "RandomApply"],
)
@pytest.mark.parametrize("per", ["example", "pair", "batch"])
def test_the_choice_is_shared_as_per_says(make, per):
    mixer = make(per)
    keys = jax.random.split(jax.random.key(12), 5_000)
    opacity = np.asarray(jax.vmap(lambda key: mixer.plan(key, (5, 1)).opacity)(keys)) == 0.25
    for row in range(5):
        assert stats.binomtest(int(opacity[:, row].sum()), 5_000, 0.25).pvalue > RARE
    groups = {
        "example": [[0], [1], [2], [3], [4]],
        "pair": [[0, 1], [2, 3], [4]],
        "batch": [[0, 1, 2, 3, 4]],
    }[per]
    for group in groups:
        assert (opacity[:, group] == opacity[:, group[:1]]).all()
    for first, second in itertools.pairwise(groups):
        both = (opacity[:, first[0]] & opacity[:, second[0]]).mean()
        assert abs(both - 1 / 16) < 4.5 * np.sqrt(1 / 16 / 5_000)


def test_members_keep_their_own_granularity():
    """The choice is each example's, CutMix's box the batch's, MixUp's lambda the pair's."""
    mixer = RandomChoice((CutMix(per="batch"), MixUp(per="pair")))
    plan = mixer.plan(jax.random.key(13), (64, 40, 50, 3))
    cut = np.asarray(plan.opacity) == 1
    assert 0 < cut.sum() < 64
    boxes = np.concatenate([plan.region.start, plan.region.stop], 1)[cut]
    assert len(np.unique(boxes, axis=0)) == 1
    lam, partner = np.asarray(plan.lam), np.asarray(plan.partner)
    both = ~cut & ~cut[partner]
    assert both.any()
    np.testing.assert_array_equal(lam[both], lam[partner][both])
    assert len(np.unique(lam[~cut])) > 5


def test_the_members_of_a_choice_for_the_batch_draw_for_each_row():
    mixer = RandomChoice((CutMix(), CutMix(box="contained")), per="batch")
    keys, whole = jax.random.split(jax.random.key(14), 20), []
    for key in keys:
        region = mixer.plan(key, (32, 101, 103, 3)).region
        boxes = np.concatenate([region.start, region.stop], 1)
        assert len(np.unique(boxes, axis=0)) >= 30
        inside = (boxes[:, :2] > 0) & (boxes[:, 2:] < [101, 103])
        whole.append(inside.all(1).mean() > 0.8)
    # Boxes of the paper's law are cut off at the border as often as not, the others hardly ever.
    assert 0 < sum(whole) < 20, "all rows are of one law, and both laws are chosen"


def test_the_members_of_a_policy_share_no_draw():
    """Two of the same kind, and the choice between them, from one key."""
    mixer = RandomChoice((MixUp(), MixUp()), probs=(0.5, 0.5))
    same = MixUp().plan(jax.random.key(15), (1000, 1))
    plan = mixer.plan(jax.random.key(15), (1000, 1))
    assert np.isin(np.asarray(plan.lam), np.asarray(same.lam)).mean() < 0.01
    drawn = np.asarray(RandomApply(mixer, 1.0).plan(jax.random.key(15), (1000, 1)).lam)
    assert len(set(drawn.tolist())) > 990
    assert np.isin(drawn, np.asarray(plan.lam)).mean() < 0.01


# How plans merge --------------------------------------------------------------------------------


MERGES = [
    (MixUp(), None, True),
    (CutMix(), Box, False),
    (Left(), bool, False),
    (Left(soft=True), float, False),
    (RandomChoice((MixUp(), MixUp(0.2))), None, True),
    (RandomChoice((CutMix(), CutMix(0.2))), Box, False),
    (RandomChoice((CutMix(), CutMix(minmax=(0.2, 0.3)))), Box, False),
    (RandomChoice((CutMix(), MixUp())), Box, True),
    (RandomChoice((MixUp(), CutMix())), Box, True),
    (RandomChoice((CutMix(), Left())), bool, False),
    (RandomChoice((Left(), MixUp())), bool, True),
    (RandomChoice((Left(), Left(soft=True))), float, False),
    (RandomChoice((CutMix(), Left(soft=True), MixUp())), float, True),
    (RandomApply(MixUp()), None, True),
    (RandomApply(CutMix()), Box, False),
    (RandomApply(Left()), bool, False),
    (RandomApply(Left(soft=True)), float, False),
    (RandomApply(RandomChoice((CutMix(), MixUp()))), Box, True),
    (RandomChoice((RandomApply(CutMix()), CutMix())), Box, False),
    (RandomChoice((RandomApply(MixUp()), CutMix())), Box, True),
    (RandomApply(RandomChoice((RandomApply(Left()), CutMix()))), bool, False),
]


@pytest.mark.parametrize("mixer, region, opacity", MERGES, ids=str)
def test_what_merges_to_what(mixer, region, opacity):
    plan = jax.eval_shape(lambda key: mixer.plan(key, SHAPE), jax.random.key(14))
    if region is None:
        assert plan.region is None and plan.spatial is None
    else:
        assert plan.spatial == (10, 12)
        kind = Box if region is Box else Mask
        assert type(plan.region) is kind
        if kind is Mask:
            assert plan.region.painted.dtype == {bool: jnp.bool_, float: jnp.float32}[region]
            assert plan.region.painted.shape == SHAPE[:3]
        else:
            assert plan.region.start.dtype == plan.region.stop.dtype == jnp.int32
            assert plan.region.start.shape == plan.region.stop.shape == (16, 2)
    if opacity:
        assert plan.opacity.shape == (16,) and plan.opacity.dtype == jnp.float32
    else:
        assert plan.opacity is None
    assert plan.lam.shape == (16,) and plan.lam.dtype == jnp.float32


@pytest.mark.parametrize(
    "start, stop",
    [((-3, 2), (7, 100)), ((4, -2), (14, 10)), ((5, 0), (3, 12)), ((-9, -9), (-1, 12))],
    ids=["over-a-corner", "as-large-as-the-image", "upside-down", "outside"],
)
def test_boxes_beside_masks_are_masks_of_what_lies_inside(start, stop):
    mixer = RandomChoice((Boxed(start, stop), Left()), probs=(1.0, 0.0))
    plan = mixer.plan(jax.random.key(16), SHAPE)
    rows, columns = np.indices(SHAPE[1:3])
    expected = (start[0] <= rows) & (rows < stop[0]) & (start[1] <= columns) & (columns < stop[1])
    assert plan.region.painted.dtype == jnp.bool_
    assert np.array_equal(plan.region.painted, np.broadcast_to(expected, SHAPE[:3]))


def test_cutmix_or_mixup_is_a_box_and_an_opacity():
    plan = RandomChoice((CutMix(), MixUp())).plan(jax.random.key(15), (256, 10, 12, 3))
    start, stop = np.asarray(plan.region.start), np.asarray(plan.region.stop)
    opacity, lam = np.asarray(plan.opacity), np.asarray(plan.lam)
    mixup = opacity < 1
    assert 80 < mixup.sum() < 176
    np.testing.assert_array_equal(start[mixup], np.zeros((mixup.sum(), 2)))
    np.testing.assert_array_equal(stop[mixup], np.broadcast_to((10, 12), (mixup.sum(), 2)))
    np.testing.assert_allclose(lam[mixup], 1 - opacity[mixup], atol=1e-6)
    area = np.prod(stop - start, axis=1)[~mixup]
    np.testing.assert_allclose(lam[~mixup], 1 - area / 120, atol=1e-7)
    assert (area < 120).all()


def test_a_mask_and_a_box_and_everything_is_a_mask():
    mixer = RandomChoice((CutMix(minmax=(0.5, 0.5)), Left(), C))
    plan = mixer.plan(jax.random.key(16), (300, 10, 12, 3))
    painted = np.asarray(plan.region.painted)
    half = np.broadcast_to(np.arange(12) < 6, (10, 12))
    left = (painted == half).all((1, 2))
    whole = painted.all((1, 2))
    box = painted.sum((1, 2)) == 30
    assert (left | whole | box).all() and min(left.sum(), whole.sum(), box.sum()) > 50
    np.testing.assert_allclose(plan.lam, 1 - painted.mean((1, 2)), atol=1e-6)
    np.testing.assert_array_equal(plan.opacity, np.ones(300))


def test_soft_masks_and_bool_masks_are_floats():
    plan = RandomChoice((Left(0.5, soft=True), Left())).plan(jax.random.key(17), (64, 4, 6, 1))
    corner = np.asarray(plan.region.painted)[:, 0, 0]
    assert set(corner) == {0.5, 1.0}
    np.testing.assert_allclose(plan.lam, 1 - corner / 2, atol=1e-7)


OFF = [
    RandomApply(CutMix(0.7)),
    RandomApply(MixUp()),
    RandomApply(Left(), per="pair"),
    RandomApply(RandomChoice((CutMix(0.7), Left(0.7, soft=True)))),
    RandomChoice((RandomApply(MixUp()), CutMix(0.7))),
]


@pytest.mark.parametrize("mixer", OFF, ids=str)
def test_untouched_rows_are_the_originals_bit_for_bit(mixer):
    """NaN, infinity and minus zero included; everybody else's partner being NaN."""
    generator = np.random.default_rng(0)
    images = generator.normal(size=(64, 10, 12, 3)).astype(np.float32)
    images[:, 0, 0], images[:, 0, 1], images[::2, 9, 11] = -0.0, np.inf, np.nan
    plan = mixer.plan(jax.random.key(18), images.shape)
    off = np.asarray(plan.lam) == 1
    assert 5 < off.sum() < 64
    mixed = np.asarray(plan.images(images, donors=np.full_like(images, np.nan)))
    np.testing.assert_array_equal(mixed[off].view(np.uint32), images[off].view(np.uint32))
    assert all(np.isnan(row).sum() > 2 for row in mixed[~off])
    labels = np.asarray(plan.labels(np.arange(64) % 7, num_classes=7))
    np.testing.assert_array_equal(labels[off], np.eye(7)[np.arange(64) % 7][off])


def test_switching_off_empties_the_region_or_the_opacity():
    box = RandomApply(CutMix(), prob=0).plan(jax.random.key(19), SHAPE)
    assert (np.asarray(box.region.stop) <= np.asarray(box.region.start)).any(1).all()
    mask = RandomApply(Left(), prob=0).plan(jax.random.key(19), SHAPE)
    assert not np.asarray(mask.region.painted).any()
    opacity = RandomApply(MixUp(), prob=0).plan(jax.random.key(19), SHAPE)
    assert not np.asarray(opacity.opacity).any()
    both = RandomApply(RandomChoice((CutMix(), MixUp())), prob=0).plan(jax.random.key(19), SHAPE)
    for plan in (box, mask, opacity, both):
        np.testing.assert_array_equal(plan.lam, np.ones(16))
        np.testing.assert_array_equal(plan.weights(SHAPE), np.ones(SHAPE[:3]))


def test_a_policy_of_opaque_methods_mixes_bool_images():
    images = np.random.default_rng(1).random(SHAPE) < 0.5
    for mixer in (RandomApply(CutMix()), RandomChoice((CutMix(), Left())), RandomApply(Left())):
        mixed = mixer(jax.random.key(20), images)
        assert mixed.dtype == bool
    with pytest.raises(TypeError, match="bool"):
        RandomChoice((CutMix(), MixUp()))(jax.random.key(20), images)


def test_a_policy_without_a_region_mixes_any_shape():
    plan = RandomApply(RandomChoice((MixUp(), MixUp(0.2)))).plan(jax.random.key(21), (6, 4))
    for shape in ((6,), (6, 3), (6, 3, 4), (6, 2, 3, 4, 5)):
        assert plan.images(np.ones(shape, np.float32)).shape == shape


def test_members_may_be_mixed_by_any_method_of_their_plan():
    plan = RandomChoice((CutMix(), MixUp())).plan(jax.random.key(22), SHAPE)
    weights = np.asarray(plan.weights(SHAPE), np.float64)
    np.testing.assert_allclose(weights.mean((1, 2)), plan.lam, atol=1e-6)
    maps = np.broadcast_to(np.arange(16, dtype=np.uint8)[:, None, None], SHAPE[:3])
    partner = np.asarray(plan.partner)[:, None, None]
    np.testing.assert_array_equal(plan.maps(maps), np.where(weights >= 0.5, maps, partner))


# Pairings ---------------------------------------------------------------------------------------


DISAGREE = [
    ((CutMix(), MixUp(pairing="roll")), "Swap", "Roll"),
    ((CutMix(pairing=Roll(1)), MixUp(pairing=Roll(2))), "Roll", "2"),
    ((CutMix(), MixUp(pairing=Flip(2))), "Swap", "Flip"),
    ((CutMix(pairing=Flip(4)), MixUp(pairing=Flip(2))), "4", "2"),
    ((CutMix(), recipes.timm(0.8, 1.0)), "Swap", "Flip"),
    ((CutMix(pairing="permutation"), MixUp()), "Permutation", "Swap"),
    ((CutMix(), RandomApply(RandomApply(MixUp(pairing="roll")))), "Swap", "Roll"),
    ((RandomChoice((CutMix(), MixUp())), Left(pairing="permutation")), "Swap", "Permutation"),
]


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("mixers, first, second", DISAGREE, ids=str)
def test_mixers_that_disagree_on_their_partners(mixers, first, second, how):
    def plan(key):
        return RandomChoice(mixers).plan(key, SHAPE)

    with pytest.raises(ValueError, match="pairing") as raised:
        (jax.jit(plan) if how == "jit" else plan)(jax.random.key(23))
    message = str(raised.value)
    assert "RandomChoice" in message and "pass the same pairing=" in message
    assert re.search(first, message) and re.search(second, message), message


def index_of(*order):
    return Permutation(np.array(order, np.int32))


@pytest.mark.parametrize(
    "first, second",
    [
        (Permutation(), index_of(1, 2, 3, 0)),
        (index_of(1, 2, 3, 0), index_of(3, 0, 1, 2)),
        (index_of(1, 2, 0), index_of(1, 2, 3, 0)),
    ],
    ids=["drawn-and-given", "other-order", "other-length"],
)
def test_permutations_that_disagree(first, second):
    with pytest.raises(ValueError, match=r"(?s)RandomChoice.*pairing|pairing.*RandomChoice"):
        RandomChoice((CutMix(pairing=first), MixUp(pairing=second))).plan(
            jax.random.key(24), (4, 5, 6, 1)
        )


@pytest.mark.parametrize(
    "pairing",
    ["permutation", Flip(4), Roll(5), Roll(0)],
    ids=str,
)
def test_a_policy_has_the_pairing_of_its_mixers(pairing):
    members = Constant(0.25, pairing=pairing), RandomApply(Constant(0.5, pairing=pairing))
    mixer = RandomApply(RandomChoice(members))
    plan = mixer.plan(jax.random.key(25), SHAPE)
    expected = MixUp(pairing=pairing).pairing
    assert type(plan.pairing) is type(expected)
    partner = np.asarray(plan.partner)
    assert sorted(partner) == list(range(16))
    if not isinstance(expected, Permutation):
        np.testing.assert_array_equal(partner, np.asarray(expected.take(jnp.arange(16))))
    else:
        assert (partner != np.arange(16)).all()


def test_the_same_index_in_both_agrees():
    order = (3, 2, 0, 1)
    for second in (index_of(*order), None):
        first = index_of(*order)
        mixer = RandomChoice((Constant(pairing=first), Constant(pairing=second or first)))
        plan = mixer.plan(jax.random.key(26), (4, 5, 6, 1))
        np.testing.assert_array_equal(plan.partner, order)


# One pass ---------------------------------------------------------------------------------------


def takes(jaxpr):
    """How often whole images are reversed in a jaxpr, inner ones included."""
    count = 0
    for equation in jaxpr.eqns:
        name, size = equation.primitive.name, equation.outvars[0].aval.size
        count += name == "rev" and size >= np.prod(SHAPE)
        for value in jax.tree.leaves(equation.params, is_leaf=lambda leaf: hasattr(leaf, "eqns")):
            inner = getattr(value, "jaxpr", value)
            count += takes(inner) if hasattr(inner, "eqns") else 0
    return count


def traced(mix):
    return jax.make_jaxpr(mix)(jax.random.key(27), np.ones(SHAPE, np.float32)).jaxpr


DEEP = RandomApply(RandomChoice((CutMix(), MixUp(), RandomApply(Left()))))


@pytest.mark.parametrize(
    "mixer", [CutMix(), MixUp(), RandomChoice((CutMix(), MixUp())), DEEP], ids=str
)
def test_a_policy_touches_the_pixels_once(mixer):
    """One take of the partners' pixels, whatever the depth."""
    assert takes(traced(mixer)) == 1


def test_the_count_sees_two_passes():
    """What most trainers write: both images, and a choice between them."""

    def both(key, images):
        cut, mix = CutMix()(key, images), MixUp()(jax.random.fold_in(key, 1), images)
        return jnp.where(jnp.arange(16)[:, None, None, None] < 8, cut, mix)

    assert takes(traced(both)) == 2


def test_no_branch_over_images_is_compiled():
    mix = jax.jit(DEEP.__call__)
    text = mix.lower(jax.random.key(28), np.ones(SHAPE, np.float32)).compile().as_text()
    assert " conditional(" not in text
    assert len(re.findall(r" reverse\(", text)) >= 1, "the text is not read as it was written"
    images = [found for found in re.findall(r"= f32\[([\d,]+)\]\S* reverse\(", text)]
    sizes = [np.prod([int(n) for n in shape.split(",")]) for shape in images]
    assert sum(size >= np.prod(SHAPE) for size in sizes) == 1


def test_repr_of_a_policy_shows_its_members():
    text = repr(RandomApply(RandomChoice((CutMix(), MixUp(alpha=0.8))), prob=0.25))
    for part in ("RandomApply", "RandomChoice", "CutMix", "MixUp", "0.8", "0.25"):
        assert part in text
    assert text == repr(eval(text, vars(jaxmix)))


def test_a_method_that_draws_for_itself_has_a_key_of_its_own_in_a_policy():
    """Also one that changes the drawing of CutMix, and whatever else the policy draws."""

    class Corner(CutMix):
        def draw(self, key, rows, spatial):
            box, opacity = super().draw(key, rows, spatial)
            sides = box.stop - box.start
            return Box(jnp.zeros_like(sides), sides), opacity

    class Fade(Mixer):
        def draw(self, key, rows, spatial):
            return None, jax.random.uniform(key, (rows,))

    alone = Corner().plan(jax.random.key(30), (64, 16, 16, 3))
    assert not alone.region.start.any() and len(set(alone.lam.tolist())) > 5
    mixer = RandomChoice((Corner(), Fade(), Fade(), MixUp()))
    plan = mixer.plan(jax.random.key(30), (256, 16, 16, 3))
    assert not plan.region.start.any()
    faded = np.asarray(plan.opacity)[np.asarray(plan.opacity) < 1]
    assert len(set(faded.tolist())) == len(faded) > 150, "a draw that was made twice"
