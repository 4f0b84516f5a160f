"""The box laws, against NumPy written from the papers' code: every box's probability, exactly.

For images of a few pixels the law of a box can be enumerated: every side that int() can give, with
its probability, times every centre or start. So 200,000 drawn boxes are held against the whole
joint law of (start, stop), not against a histogram of a sample.
"""

import functools
import itertools
import re
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import assert_same
from scipy import stats

from jaxmix import Box, CutMix, Flip, Mask, Plan, _region

DRAWS = 200_000
# Fixed keys: a right law passes always, and fails by chance for one choice of keys in 10,000.
RARE = 1e-4
EXTENTS = [(9,), (6, 8), (7, 12), (5, 4, 7)]


# The laws, as the papers' code has them ---------------------------------------------------------


def centred_law(extents, alpha, box_of):
    """P(box) for sides from lam and a centre that is uniform over the pixels.

    Between two of `edges`, (1 - lam) ** (1 / n) gives the same sides.
    """
    edges = {step / extent for extent in extents for step in range(extent + 1)}
    edges = np.array(sorted(edges)) ** len(extents)
    law = Counter()
    for low, high in itertools.pairwise(edges):
        # 1 - lam follows Beta(alpha, alpha) as lam does.
        chance = stats.beta(alpha, alpha).cdf(high) - stats.beta(alpha, alpha).cdf(low)
        for centre in itertools.product(*map(range, extents)):
            start, stop = box_of(1 - (low + high) / 2, centre, extents)
            law[tuple(zip(start, stop, strict=True))] += chance / np.prod(extents)
    return law


def minmax_axis_law(extent, low, high):
    """P((start, stop)) on one axis: timm's randint for the side, start anywhere it fits."""
    law = Counter()
    low, high = int(extent * low), int(extent * high)
    for side in range(low, max(high, low + 1)):
        for start in range(extent - side + 1):
            law[start, start + side] += 1 / max(high - low, 1) / (extent - side + 1)
    return law


def minmax_law(extents, low, high):
    axes = [minmax_axis_law(extent, low, high) for extent in extents]
    return {
        box: np.prod([axis[edge] for axis, edge in zip(axes, box, strict=True)])
        for box in itertools.product(*axes)
    }


LAWS = {
    "paper": functools.cache(lambda extents: centred_law(extents, 1.0, reference.paper_box)),
    "timm": functools.cache(lambda extents: centred_law(extents, 1.0, reference.timm_box)),
}


# What was drawn ---------------------------------------------------------------------------------


def draw(mixer, extents, key=0, rows=DRAWS):
    """start, stop and lam of many plans, in NumPy."""
    plan = mixer.plan(jax.random.key(key), (rows, *extents, 1), channel_axis=-1)
    return np.asarray(plan.region.start), np.asarray(plan.region.stop), np.asarray(plan.lam)


def simulate(axis_box, extents, alpha=1.0, share=None, sides_of=None, seed=0):
    """Boxes of NumPy code, vectorised over draws: for the power checks."""
    generator = np.random.default_rng(seed)
    lam = generator.beta(alpha, alpha, DRAWS)
    share = (1 - lam) ** (1 / len(extents)) if share is None else share(lam)
    starts, stops = [], []
    for extent, measured in zip(extents, sides_of or extents, strict=True):
        side = (measured * share).astype(int)
        start, stop = axis_box(extent, side, generator.integers(0, extent, DRAWS))
        starts.append(start)
        stops.append(stop)
    return np.stack(starts, 1), np.stack(stops, 1)


def p_value(start, stop, law):
    """Chi-squared of the drawn boxes against the law, with rare boxes pooled."""
    boxes = np.stack([start, stop], -1)
    values, counts = np.unique(boxes.reshape(len(boxes), -1), axis=0, return_counts=True)
    keys = [tuple(map(tuple, value.reshape(-1, 2))) for value in values]
    drawn = dict(zip(keys, counts, strict=True))
    # An empty box is one event wherever it lies: nobody can see it.
    found, expected = Counter(), Counter()
    for source, totals, scale in ((drawn, found, 1), (law, expected, len(boxes))):
        for box, weight in source.items():
            empty = any(a >= b for a, b in box)
            totals["empty" if empty else tuple((int(a), int(b)) for a, b in box)] += weight * scale
    # A few draws may be rounded over an edge of the law in float32; more are another law.
    if sum(count for box, count in found.items() if expected[box] <= 0) > 5:
        return 0.0
    rare = [box for box, weight in expected.items() if weight < 20]
    common = [box for box, weight in expected.items() if weight >= 20]
    observed = [found[box] for box in common]
    wanted = [expected[box] for box in common]
    if (pooled := sum(expected[box] for box in rare)) > 5:
        observed.append(sum(found[box] for box in rare))
        wanted.append(pooled)
    observed, wanted = np.array(observed), np.array(wanted)
    return stats.chisquare(observed, wanted * observed.sum() / wanted.sum()).pvalue


def coverage(start, stop, extents):
    """How often each pixel was painted."""
    painted = np.zeros(extents)
    for box, count in Counter(map(tuple, np.concatenate([start, stop], 1))).items():
        painted[tuple(map(slice, box[: len(extents)], box[len(extents) :]))] += count
    return painted


def law_coverage(law, extents):
    painted = np.zeros(extents)
    for box, chance in law.items():
        painted[tuple(slice(*edge) for edge in box)] += chance
    return painted


def law_mean_lam(law, extents):
    """The mean share of the original."""
    return 1 - sum(
        chance * np.prod([stop - start for start, stop in box]) for box, chance in law.items()
    ) / np.prod(extents)


def assert_follows(start, stop, lam, law, extents):
    """The joint law of the box, the coverage of every pixel, and lam's mean and its exactness."""
    assert p_value(start, stop, law) > RARE
    chance = law_coverage(law, extents)
    z = (coverage(start, stop, extents) - DRAWS * chance) / np.sqrt(DRAWS * chance * (1 - chance))
    assert np.abs(z).max() < 5, z
    area = np.prod(np.maximum(stop - start, 0), axis=1)
    np.testing.assert_allclose(lam, 1 - area / np.prod(extents), atol=2**-23, rtol=0)
    error = (area / np.prod(extents)).std() / np.sqrt(DRAWS)
    assert abs(lam.mean(dtype=np.float64) - law_mean_lam(law, extents)) < 4.5 * error + 2**-24


def assert_inside(start, stop, extents):
    assert start.min() >= 0 and (start <= stop).all() and (stop <= np.array(extents)).all()


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
@pytest.mark.parametrize("box", ["paper", "timm"])
def test_centred_boxes_follow_their_law(box, extents):
    start, stop, lam = draw(CutMix(box=box), extents, key=1)
    assert start.dtype == stop.dtype == np.int32 and lam.dtype == np.float32
    assert start.shape == stop.shape == (DRAWS, len(extents))
    assert_inside(start, stop, extents)
    assert_follows(start, stop, lam, LAWS[box](extents), extents)


@pytest.mark.parametrize("alpha", [0.7, 4.0])
def test_paper_boxes_follow_their_law_at_other_alphas(alpha):
    start, stop, lam = draw(CutMix(alpha=alpha), (7, 12), key=2)
    assert_follows(start, stop, lam, centred_law((7, 12), alpha, reference.paper_box), (7, 12))


@pytest.mark.parametrize("minmax", [(0.22, 0.83), (0.0, 1.0), (0.35, 0.41)], ids=str)
@pytest.mark.parametrize("extents", [(9,), (7, 12), (5, 4, 7)], ids=str)
def test_minmax_boxes_follow_their_law(extents, minmax):
    start, stop, lam = draw(CutMix(minmax=minmax), extents, key=3)
    assert_inside(start, stop, extents)
    assert_follows(start, stop, lam, minmax_law(extents, *minmax), extents)


def test_minmax_of_one_value_is_a_fixed_side():
    start, stop, lam = draw(CutMix(minmax=(0.5, 0.5)), (8, 12), key=3)
    np.testing.assert_array_equal(stop - start, np.broadcast_to((4, 6), (DRAWS, 2)))
    np.testing.assert_array_equal(lam, np.full(DRAWS, 0.75, np.float32))
    assert set(start[:, 0]) == set(range(5)) and set(start[:, 1]) == set(range(7))


def test_minmax_of_everything_is_the_whole_image():
    _, stop, lam = draw(CutMix(minmax=(1.0, 1.0)), (8, 12), key=3, rows=50)
    np.testing.assert_array_equal(stop, np.broadcast_to((8, 12), (50, 2)))
    np.testing.assert_array_equal(lam, np.zeros(50, np.float32))


# Power: the same test on wrong code ------------------------------------------------------------


def unclipped_centre(extent, side, centre):
    """The centre kept away from the edges instead of the box being clipped."""
    centre = np.clip(centre, side // 2, extent - (side + 1) // 2)
    return centre - side // 2, centre + side // 2


def last_pixel_unreachable(extent, side, centre):
    return np.clip(centre - side // 2, 0, extent - 1), np.clip(centre + side // 2, 0, extent - 1)


def one_side_up(extent, side, centre):
    """Half the side rounded up: one pixel more for odd sides."""
    return np.clip(centre - (side + 1) // 2, 0, extent), np.clip(centre + side // 2, 0, extent)


def centre_of_half_the_image(extent, side, centre):
    return paper_axes(extent, side, centre // 2)


def paper_axes(extent, side, centre):
    return np.clip(centre - side // 2, 0, extent), np.clip(centre + side // 2, 0, extent)


WRONG = {
    "centre-kept-inside": (unclipped_centre, {}),
    "last-pixel-unreachable": (last_pixel_unreachable, {}),
    "odd-sides-rounded-up": (one_side_up, {}),
    "centre-in-one-half": (centre_of_half_the_image, {}),
    "no-square-root": (paper_axes, {"share": lambda lam: 1 - lam}),
    "lam-instead-of-its-rest": (paper_axes, {"alpha": 0.5, "share": np.sqrt}),
    "alpha-10-per-cent-off": (paper_axes, {"alpha": 1.1}),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_test_sees_wrong_laws(wrong):
    axis_box, options = WRONG[wrong]
    start, stop = simulate(axis_box, (7, 12), **options)
    assert p_value(start, stop, LAWS["paper"]((7, 12))) < RARE


def test_the_test_passes_the_paper_law_in_numpy():
    assert p_value(*simulate(paper_axes, (7, 12)), LAWS["paper"]((7, 12))) > RARE


def test_the_test_sees_a_width_cut_from_the_height():
    start, stop = simulate(paper_axes, (7, 12), sides_of=(12, 7))
    assert p_value(start, stop, LAWS["paper"]((7, 12))) < RARE


@pytest.mark.parametrize("drawn, law", [("paper", "timm"), ("timm", "paper")])
def test_the_test_tells_paper_and_timm_apart(drawn, law):
    start, stop, _ = draw(CutMix(box=drawn), (7, 12), key=1)
    assert p_value(start, stop, LAWS[law]((7, 12))) == 0


# Contained boxes --------------------------------------------------------------------------------


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_contained_boxes_have_the_drawn_area_up_to_a_pixel_of_their_sides(extents):
    """One share for all axes, and P(side <= k) between its values for rounding down and up."""
    start, stop, _ = draw(CutMix(box="contained"), extents, key=4)
    assert_inside(start, stop, extents)
    sides = stop - start
    least = ((sides - 1) / np.array(extents)).max(1)
    most = ((sides + 1) / np.array(extents)).min(1)
    assert (least <= most).all(), "the sides of a box do not come from one share"
    for axis, extent in enumerate(extents):
        for side in range(1, extent):
            below, above = (side / extent) ** len(extents), ((side + 1) / extent) ** len(extents)
            found = (sides[:, axis] <= side).mean()
            noise = 4.5 / np.sqrt(DRAWS) / 2
            assert below - noise < found < above + noise, (axis, side, found)


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_contained_sides_are_rounded_to_the_nearest_pixel(extents):
    area = np.linspace(0, 1, 997, dtype=np.float32)
    n = len(extents)
    places = jnp.full((997, n), 0.5, jnp.float32)
    box = _region.box_of_area(
        jnp.asarray(area), places, "contained", extents, tuple(range(n)), (1,) * n
    )
    exact = area[:, None].astype(np.float64) ** (1 / n) * np.array(extents)
    assert np.abs(np.asarray(box.stop - box.start) - exact).max() <= 0.5 + 1e-5


@pytest.mark.parametrize("extents", [(224, 224), (65, 33)], ids=str)
def test_contained_boxes_leave_the_drawn_lam(extents):
    """With alpha 1 lam is uniform, up to the rounding of the sides."""
    _, _, lam = draw(CutMix(box="contained"), extents, key=5)
    rounding = sum(1 / extent for extent in extents)
    assert abs(lam.mean(dtype=np.float64) - 0.5) < rounding
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        assert abs((lam <= share).mean() - share) < 1.5 * rounding


@pytest.mark.parametrize("extents", EXTENTS, ids=str)
def test_contained_boxes_start_anywhere_they_fit(extents):
    """Given its sides, a box lies at each of its positions equally often."""
    start, stop, _ = draw(CutMix(box="contained"), extents, key=6)
    statistic, freedom = 0.0, 0
    for sides in {tuple(row) for row in stop - start}:
        rows = (stop - start == np.array(sides)).all(1)
        places = tuple(extent - side + 1 for extent, side in zip(extents, sides, strict=True))
        if 0 in sides or rows.sum() < 10 * np.prod(places) or np.prod(places) == 1:
            continue
        cells = np.ravel_multi_index(tuple(start[rows].T), places)
        counts = np.bincount(cells, minlength=int(np.prod(places)))
        statistic += stats.chisquare(counts).statistic
        freedom += len(counts) - 1
    assert freedom > 3
    assert stats.chi2(freedom).sf(statistic) > RARE


def test_contained_boxes_reach_the_last_row_and_column():
    start, stop, _ = draw(CutMix(box="contained"), (7, 12), key=6)
    painted = coverage(start, stop, (7, 12))
    np.testing.assert_allclose(painted, painted[::-1, ::-1], rtol=0.05)
    assert painted.min() > 0


# Size, mean and dtype ---------------------------------------------------------------------------


TABLE = {
    row[0].strip(): [float(cell) for cell in row[1:]]
    for line in (CutMix.__doc__ or "").splitlines()
    if re.fullmatch(r"(\|[^|]+){5}\|", line.strip())
    and re.search(r"0\.\d\d", (row := line.strip(" |").split("|"))[1])
}


@pytest.mark.parametrize("law", TABLE)
def test_the_documented_shares_of_each_law(law):
    """The table of CutMix: the mean share of the original, and three pixels' chance of paint."""
    mixer = eval(f"CutMix({law if '=' in law else f'box={law}'})")
    start, stop, lam = draw(mixer, (224, 224), key=7)
    found = [lam.mean(dtype=np.float64)]
    for pixel in [(112, 112), (112, 0), (0, 0)]:
        found.append(((start <= pixel) & (pixel < stop)).all(1).mean())
    rounding, noise = 0.005, 4.5 * 0.5 / np.sqrt(DRAWS)
    np.testing.assert_allclose(found, TABLE[law], rtol=0, atol=rounding + noise)


def test_every_law_is_in_the_table():
    assert list(TABLE) == ['"paper"', '"timm"', '"contained"', "minmax=(0.2, 0.8)"]


def test_the_mean_of_the_papers_code_at_224():
    start, stop = simulate(paper_axes, (224, 224), seed=3)
    _, _, lam = draw(CutMix(), (224, 224), key=8)
    expected = 1 - np.prod(stop - start, axis=1).mean() / 224**2
    assert abs(lam.mean(dtype=np.float64) - expected) < 4.5 * np.sqrt(2 / DRAWS) * 0.3


@pytest.mark.parametrize("extents", [(224, 224), (64, 8), (8, 64), (16, 20, 24)], ids=str)
def test_the_share_of_a_side_is_a_root_of_the_area(extents):
    """Unclipped boxes at real sizes: both sides from one share, each from its own extent."""
    start, stop, _ = draw(CutMix(box="timm"), extents, key=9, rows=20_000)
    inside = ((start > 0) & (stop < np.array(extents))).all(1)
    sides, extents = (stop - start)[inside], np.array(extents)
    assert inside.sum() > 100
    assert ((sides / extents).max(1) < ((sides + 1) / extents).min(1)).all()


def test_rows_and_columns_of_the_centre_are_independent():
    """Boxes of about one size: where it lies on one axis says nothing about the other, or lam."""
    start, stop, lam = draw(CutMix(box="contained"), (33, 65), key=10)
    place = start / np.maximum(np.array([33, 65]) - (stop - start), 1)
    fits = ((stop - start) < np.array([30, 60])).all(1)
    columns = np.stack([place[fits, 0], place[fits, 1], lam[fits]])
    correlations = np.corrcoef(columns)[np.triu_indices(3, 1)]
    # Position is discrete and its mean 1/2 whatever the size, so lam does not correlate with it.
    assert np.abs(correlations).max() < 4.5 / np.sqrt(fits.sum())
    spread = np.corrcoef(np.abs(place[fits].T - 0.5))[0, 1]
    assert abs(spread) < 0.03


# Plans by hand ----------------------------------------------------------------------------------


def test_boxes_by_hand_are_clipped_and_counted():
    start = jnp.array([[-3, 2], [5, 5], [0, 0], [2, 9]], jnp.int32)
    stop = jnp.array([[2, 5], [100, 6], [0, 7], [1, 100]], jnp.int32)
    plan = Plan.of((4, 6, 8, 3), Flip(), region=Box(start, stop))
    assert plan.spatial == (6, 8) and plan.opacity is None
    assert (np.asarray(plan.region.start) >= 0).all()
    assert (np.asarray(plan.region.stop) <= np.array([6, 8])).all()
    # Areas 2 * 3, 1 * 1, nothing, nothing (upside down and outside).
    expected = np.float32(1 - np.array([6, 1, 0, 0]) / 48)
    assert_same(plan.lam, expected, ulps=1)
    painted = 1 - np.asarray(plan.weights((4, 6, 8, 3)))
    np.testing.assert_array_equal(painted.sum((1, 2)), [6, 1, 0, 0])
    np.testing.assert_array_equal(painted[0, :2, 2:5], np.ones((2, 3)))


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masks_by_hand_are_averaged(dtype):
    painted = np.zeros((2, 4, 6), dtype)
    painted[0, 1, :3] = 1
    painted[1, :, 5] = dtype(1)
    plan = Plan.of((2, 4, 6, 3), Flip(), region=Mask(jnp.asarray(painted)))
    np.testing.assert_allclose(plan.lam, [21 / 24, 20 / 24], atol=1e-7)
    np.testing.assert_array_equal(plan.weights((2, 4, 6, 3)), 1 - painted.astype(np.float32))


def test_opacity_and_box_together():
    whole = Box(jnp.zeros((3, 2), jnp.int32), jnp.full((3, 2), 4, jnp.int32))
    opacity = jnp.array([0.0, 0.25, 1.0], jnp.float32)
    plan = Plan.of((3, 4, 8), Flip(), region=whole, opacity=opacity, channel_axis=None)
    np.testing.assert_allclose(plan.lam, [1, 1 - 0.25 / 2, 0.5], atol=1e-7)
