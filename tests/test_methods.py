"""The published methods of the examples, each against NumPy loops written from its paper.

Statistical tests have fixed keys, and each of them shows that it rejects another law.
"""

import functools
import itertools
import math
import re
from fractions import Fraction

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from helpers import fresh, numbers
from scipy import optimize, special, stats

import jaxmix
from jaxmix import CutMix, MixUp, Plan, RandomChoice, Roll

RARE = 1e-3


@pytest.fixture(scope="module")
def example():
    return helpers.load(helpers.example("methods"))


@pytest.fixture(autouse=True)
def _no_nan_anywhere():
    with jax.debug_nans(True):
        yield


def follows(found, law, *others):
    """A KS test: the draws follow a law, and none of some others."""
    values = [stats.kstest(np.asarray(found), each).pvalue for each in (law, *others)]
    assert values[0] > RARE > max(values[1:]), values


def counted(found, *laws):
    """A chi-squared test of counts [..., K]: they follow the first law [..., K], and no other."""
    found, values = np.asarray(found, float), []
    for law in laws:
        expected = found.sum(-1, keepdims=True) * np.broadcast_to(law, found.shape)
        possible = expected > 0
        terms = (found - expected)[possible] ** 2 / expected[possible]
        values.append(stats.chi2.sf(terms.sum(), (possible.sum(-1) - 1).sum()))
    assert values[0] > RARE > max(values[1:]), values


def jitter(rows):
    """Uniforms in [0, 1), which spread what was rounded to pixels."""
    return np.random.default_rng(0).random(rows)


def beta(alpha):
    return stats.beta(alpha, alpha).cdf


# Regions.


def waves(spatial, most=8):
    """The signed wave numbers along each axis, up to 8 either way, each wave once."""
    return [range(-min(most, (n - 1) // 2), min(most, n // 2) + 1) for n in spatial]


def amplitude(wave, spatial, decay):
    """The paper's decay with frequency, from that of one turn along the longest side."""
    frequency = math.hypot(*(k / n for k, n in zip(wave, spatial, strict=True)))
    return max(frequency, 1 / max(spatial)) ** -decay


def grey_image(key, rows, spatial, decay):
    """The paper's low-frequency image by a full inverse DFT of the noise that the key gives."""
    numbered = itertools.product(*map(enumerate, waves(spatial)))
    shape = (2, rows, *map(len, waves(spatial)))
    real, imaginary = np.asarray(jax.random.normal(key, shape), np.float64)
    spectrum = np.zeros((rows, *spatial), complex)
    for place, wave in (zip(*pairs, strict=True) for pairs in numbered):
        noise = real[:, *place] + 1j * imaginary[:, *place]
        spectrum[:, *wave] += noise * amplitude(wave, spatial, decay)  # Wave -1 is the last.
    return np.fft.ifftn(spectrum, axes=range(1, 1 + len(spatial))).real * math.prod(spatial)


@pytest.mark.parametrize("spatial", [(20,), (12, 31), (31, 12), (6, 5), (9, 18, 5)], ids=str)
def test_fmix_paints_the_top_share_of_the_inverse_dft(example, spatial):
    rows, decay = 6, 2.5
    (noise_key, share_key), again = jax.random.split(fresh(1)), jax.random.split(fresh(1))[0]
    grey = grey_image(noise_key, rows, spatial, decay)
    error = 3e-6 * np.abs(grey).max()
    np.testing.assert_allclose(example.waves(again, rows, spatial, decay), grey, atol=error)
    region, opacity = example.FMix(0.8, decay).draw(fresh(1), rows, spatial)
    shares = np.asarray(jaxmix.symmetric_beta(share_key, 0.8, (rows,)))
    for values, painted, share in zip(grey, np.asarray(region.painted), shares, strict=True):
        assert abs(painted.sum() - share * painted.size) <= 1 and opacity is None
        assert values[painted].min(initial=np.inf) > values[~painted].max() - error


def test_the_share_of_fmix_is_beta(example):
    plan = example.FMix(2.0).plan(fresh(2), (1500, 24, 26, 1))
    follows(plan.lam, beta(2), beta(1), beta(3))


def test_each_wave_of_fmix_has_its_power(example):
    """Across and down alike an exponential of that mean, and nothing beyond the kept waves."""
    spatial = (24, 40)
    image = np.asarray(example.waves(fresh(3), 60, spatial, 3.0), np.float64)
    power = np.abs(np.fft.fft2(image) / math.prod(spatial)) ** 2
    kept = sum(power[:, *wave].sum() for wave in itertools.product(*waves(spatial)))
    assert power.sum() - kept < 1e-9 * kept
    for some in ([(k, 0) for k in range(1, 9)], [(0, k) for k in range(1, 9)], [(8, -5)]):
        units = [power[:, *wave] / amplitude(wave, spatial, 3.0) ** 2 for wave in some]
        follows(np.concatenate(units), stats.expon.cdf, stats.expon(scale=2).cdf)


def test_smoothmix_paints_a_bell(example):
    spatial, sigmas, centres = (18, 25), [], []
    painted = np.asarray(example.SmoothMix().draw(fresh(4), 500, spatial)[0].painted, np.float64)
    for number, bell in enumerate(painted):
        y, x = np.unravel_index(bell.argmax(), spatial)
        square = {(i, j): ((i - y) / 18) ** 2 + ((j - x) / 25) ** 2 for i, j in np.ndindex(18, 25)}
        far = max(square, key=square.__getitem__)
        sigmas.append(math.sqrt(-square[far] / (2 * math.log(bell[far]))))
        centres.append((y, x))
        for place in square if number < 20 else ():
            expected = math.exp(-square[place] / (2 * sigmas[-1] ** 2))
            assert bell[place] == pytest.approx(expected, abs=1e-5)
    follows(sigmas, stats.uniform(0.25, 0.25).cdf, stats.uniform(0.25, 0.3).cdf)
    for found, n in zip(np.transpose(centres), spatial, strict=True):
        middle = 1.0 + np.minimum(np.arange(n), np.arange(n)[::-1])
        counted(np.bincount(found, minlength=n), np.full(n, 1 / n), middle / middle.sum())


@pytest.mark.parametrize("share", [0.5, 0.3])
def test_halfbox_has_its_share_of_the_area(example, share):
    extents, (box, _) = [4000, 12], example.HalfBox(share).draw(fresh(5), 1500, (4000, 12))
    start, stop = np.asarray(box.start), np.asarray(box.stop)
    sides = stop - start
    assert np.all(start >= 0) and np.all(stop <= extents)
    off = np.abs(sides.prod(1) - share * 4000 * 12)
    assert np.all(off <= 0.5 * sides.sum(1) + 0.25), "each side is rounded to a pixel"
    heights = np.log(sides[:, 0] / 4000) / np.log(share)
    follows(heights, stats.uniform.cdf, lambda x: (1 - share**x) / (1 - share))
    for places in ((start + jitter(start.shape)) / (extents - sides + 1)).T:
        follows(places, stats.uniform.cdf, beta(1.3))


# Content.


def test_saliencymix_surrounds_the_peak_of_each_rows_own_partner(example):
    saliency, peaks = numbers((8, 9, 14), seed=6), set()
    mixer = example.SaliencyMix(0.7, saliency=saliency, pairing=Roll(3))
    plan, shares = mixer.plan(fresh(6), (8, 9, 14, 3)), jaxmix.symmetric_beta(fresh(6), 0.7, (8,))
    for i in range(8):
        peak = max(np.ndindex(9, 14), key=saliency[(i - 3) % 8].__getitem__)
        for axis, n in enumerate((9, 14)):
            half = int(np.sqrt(np.float32(shares[i])) * n) // 2
            assert plan.region.start[i, axis] == max(peak[axis] - half, 0)
            assert plan.region.stop[i, axis] == min(peak[axis] + half, n)
        peaks.add(peak)
    assert len(peaks) > 4, "or one peak for all would pass"


def test_the_side_of_saliencymix_is_the_root_of_a_beta(example):
    saliency = np.zeros((1000, 400, 3), np.float32)
    box, _ = example.SaliencyMix(2.0, saliency=saliency).draw(fresh(7), 1000, (400, 3))
    sides = (np.asarray(box.stop - box.start)[:, 0] + 2 * jitter(1000)) / 400
    follows(sides, lambda side: beta(2)(side**2), beta(2), lambda side: side**2)


def test_attentivecutmix_paints_the_best_cells_of_each_rows_own_partner(example):
    attention, expected = numbers((6, 4, 5), seed=8), np.zeros((6, 11, 16), bool)
    plan = example.AttentiveCutMix(attention, 7, pairing=Roll(2)).plan(fresh(8), (6, 11, 16, 3))
    for i in range(6):
        best = sorted(np.ndindex(4, 5), key=attention[(i - 2) % 6].__getitem__)[-7:]
        for y, x in np.ndindex(11, 16):
            expected[i, y, x] = (y * 4 // 11, x * 5 // 16) in best
    np.testing.assert_array_equal(plan.region.painted, expected)
    np.testing.assert_allclose(plan.lam, 1 - expected.mean((1, 2)), atol=1e-6)
    assert len(set(np.asarray(plan.lam).tolist())) > 2, "or one label for all would pass"


def test_classmix_paints_half_of_the_classes_of_the_partner(example):
    """Void pixels, of class -1 or 255, count as no class, and are not painted."""
    maps = np.random.default_rng(9).integers(-1, 6, (6, 5, 7)).astype(np.int32)
    maps[1], maps[2], maps[3] = np.minimum(maps[1], 1), 4, -1
    maps[4][maps[4] == 2] = 255
    plan = example.ClassMix(maps, 6, pairing="roll").plan(fresh(9), (6, 5, 7, 3))
    for i, painted in enumerate(np.asarray(plan.region.painted)):
        present, taken = set(maps[i - 1].flat) - {-1, 255}, set(maps[i - 1][painted])
        assert taken <= present and len(taken) == len(present) // 2
        np.testing.assert_array_equal(painted, np.isin(maps[i - 1], list(taken)))
        np.testing.assert_array_equal(plan.maps(maps)[i], np.where(painted, maps[i - 1], maps[i]))


def test_classmix_takes_each_half_as_often_as_any(example):
    maps = np.broadcast_to(np.array([0, 2, 3, 5, 6], np.int32), (3000, 1, 5))
    painted = np.asarray(example.ClassMix(maps, 7).draw(fresh(10), 3000, (1, 5))[0].painted)[:, 0]
    halves = list(itertools.combinations(range(5), 2))
    found = [(painted[:, half].all(1) & (painted.sum(1) == 2)).sum() for half in halves]
    assert sum(found) == 3000
    counted(found, np.full(10, 0.1), [0.12 if 0 in half else 0.52 / 6 for half in halves])


# Labels.


def test_transmix_counts_attention_not_pixels(example):
    shape, attention, images = (6, 16, 24, 3), numbers((6, 4, 6), seed=11), numbers((6, 16, 24, 3))
    plan = CutMix(grid=4, box="contained").plan(fresh(11), shape)
    original = np.asarray(plan.weights(shape))[:, ::4, ::4] == 1
    assert all(0 < row.sum() < row.size for row in original)
    attention[2][original[2]], attention[3][~original[3]] = 0, 0  # All of either one's.
    mixed = example.transmix(plan, attention, (6, 4, 6, 1))
    for i, label in enumerate(np.asarray(mixed.labels(jnp.arange(6), num_classes=6))):
        seen = sum(attention[i][place] for place in np.ndindex(4, 6) if original[i][place])
        share = seen / sum(attention[i][place] for place in np.ndindex(4, 6))
        expected = [share * (k == i) + (1 - share) * (k == i ^ 1) for k in range(6)]
        np.testing.assert_allclose(label, expected, atol=1e-6)
    assert np.abs(np.asarray(mixed.lam - plan.lam)).max() > 0.1
    helpers.assert_same(mixed.images(images), plan.images(images))


@pytest.mark.parametrize("kappa, tau", [(3.0, 0.5), (2.0, 0.75)])
@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_remix_follows_the_three_cases(example, kappa, tau, dtype):
    counts = np.array([90, 30, 31, 60, 10], dtype)
    cases = list(itertools.product(range(5), range(5), [0.0, 0.25, 0.5, 0.75, 1.0]))
    labels = jnp.array([(i, j) for i, j, _ in cases]).reshape(-1)
    opacity = jnp.array([1 - lam for *_, lam in cases]).repeat(2)
    plan = Plan.of((len(labels), 2, 2, 3), "swap", opacity=opacity)
    found = jax.jit(lambda plan, labels: example.remix(plan, labels, counts, kappa, tau).lam)
    for (i, j, lam), share in zip(cases, np.asarray(found(plan, labels))[::2], strict=True):
        ratio, expected = Fraction(int(counts[i]), int(counts[j])), lam
        if ratio >= Fraction(kappa) and lam < tau:
            expected = 0.0
        if ratio <= 1 / Fraction(kappa) and 1 - lam < tau:
            expected = 1.0
        assert share == expected, (counts[i], counts[j], lam)


def test_binarised_labels_are_those_above_the_threshold(example):
    shares = [0.75, 0.75, 0.5, 0.5, 1.0, 0.0, 0.25, 0.875]
    labels = np.array([0, 1, 2, 2, 3, 0, 1, -1], np.int32)
    plan = Plan.of((8, 2, 2, 3), "swap", opacity=1 - jnp.array(shares))
    found = example.binarised(plan, labels, 0.25, num_classes=4)
    for i, k in np.ndindex(8, 4):
        weight = shares[i] * (labels[i] == k) + (1 - shares[i]) * (labels[i ^ 1] == k)
        assert bool(found[i, k]) == (weight > 0.25)
    assert found.dtype == jnp.float32 and found[0, 1] == 0, "a quarter is not above a quarter"
    smoothed = example.binarised(plan, labels, 0.25, num_classes=4, smoothing=0.1)
    assert smoothed[0, 1] == 0 and smoothed[2, 2] == 1, "0.9 * 0.25 + 0.025 is the threshold"


# Pairings.


def test_c_mixup_draws_partners_by_a_gaussian_kernel(example):
    targets, width = numbers((6, 2), seed=12), 0.3
    draw = jax.vmap(lambda key: example.c_mixup(key, targets, width).index)
    index = np.asarray(draw(jax.random.split(fresh(12), 4000)))

    def law(width, power=2):
        shares = np.zeros((6, 6))
        for i, j in itertools.permutations(range(6), 2):
            shares[i, j] = math.exp(-(math.dist(targets[i], targets[j]) ** power) / (2 * width**2))
        return shares / shares.sum(1, keepdims=True)

    found = np.array([np.bincount(column, minlength=6) for column in index.T])
    assert not np.diag(found).any(), "no row is its own partner"
    counted(found, law(width), law(1.1 * width), law(width, power=1), (1 - np.eye(6)) / 5)


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_k_mixup_finds_the_cheapest_matching(example, k, dtype):
    images, costlier = numbers((32, 2, 1, 1), dtype, seed=18), set()
    index = np.asarray(jax.jit(example.k_mixup, static_argnums=1)(images, k).index)
    np.testing.assert_array_equal(index[index], np.arange(32))
    for first in range(0, 32, 2 * k):
        one, other = (images[i : i + k].astype(float) for i in (first, first + k))
        cost = np.array([[((x - y) ** 2).sum() for y in other] for x in one])
        matched = index[first : first + k] - first - k
        assert sorted(matched) == list(range(k)), "each of a half with one of the other half"
        best = cost[optimize.linear_sum_assignment(cost)].sum()
        assert cost[range(k), matched].sum() == pytest.approx(best, rel=1e-5)
        others = range(k), optimize.linear_sum_assignment(np.sqrt(cost))[1]
        costlier |= {n for n, j in enumerate(others) if cost[range(k), j].sum() > 1.001 * best}
    assert len(costlier) == min(2, k) or k == 1, "or neighbours, or plain distances would pass"


# Several plans, and a network.


def test_ricap_shows_four_images_around_one_point(example):
    rows, height, width = 7, 9, 13
    images = np.arange(rows * height * width, dtype=np.float32).reshape(rows, height, width, 1)
    mixed, labels = example.ricap(fresh(14), images, np.eye(rows, dtype=np.float32), 0.9)
    points = np.asarray(jaxmix.symmetric_beta(fresh(14), 0.9, (rows, 2))) * [height, width]
    for i, (down, across) in enumerate(np.round(points)):
        shares = np.zeros(rows)
        for y, x in np.ndindex(height, width):
            source = (i - (x >= across) - 2 * (y >= down)) % rows
            assert mixed[i, y, x] == images[source, y, x]
            shares[source] += 1 / (height * width)
        np.testing.assert_allclose(labels[i], shares, atol=1e-6)
    assert max((np.asarray(labels) > 0).sum(1)) == 4


def test_the_point_of_ricap_is_beta(example):
    rows, n = 600, 20
    eye, images = np.eye(rows, dtype=np.float32), np.zeros((rows, n, n, 1), np.float32)
    labels = np.asarray(example.ricap(fresh(15), images, eye)[1], np.float64)
    parts = [np.array([labels[i, i - k] for i in range(rows)]) for k in range(4)]
    edges = np.array([-1, *(np.arange(n) + 0.5), n + 1]) / n
    laws = [np.diff(beta(b)(edges)) for b in (0.3, 0.5, 1.0)]
    for k in (1, 2):  # The upper part, and the left one.
        cut = np.round(n * (parts[0] + parts[k])).astype(int)
        counted(np.bincount(cut, minlength=n + 1), *laws)


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_regmixup_adds_a_mixed_loss_to_the_clean_one(example, weight):
    images, labels = helpers.images_and_labels()
    kernel, loss = numbers((images[0].size, 4), seed=16), helpers.cross_entropy
    given = fresh(16), loss, lambda x: x.reshape(len(x), -1) @ kernel, images, labels, 2.0, weight
    found, rows = example.regmixup(*given), len(images)
    lam = np.asarray(MixUp(2.0).plan(fresh(16), images.shape).lam)
    pixels = np.asarray(images).reshape(rows, -1)

    def entropy(x, row):
        return -special.log_softmax(x @ kernel)[labels[row]]

    for i in range(rows):
        blend = lam[i] * pixels[i] + (1 - lam[i]) * pixels[i ^ 1]
        mixed = lam[i] * entropy(blend, i) + (1 - lam[i]) * entropy(blend, i ^ 1)
        assert found[i] == pytest.approx(entropy(pixels[i], i) + weight * mixed, rel=1e-4)


def test_manifold_mixup_mixes_at_any_depth(example):
    """Mixing commutes with linear layers; between others it happens where it is told to."""
    images, traces, outputs = numbers((5, 6), seed=18) - 0.5, [], []
    plan = MixUp(pairing="roll").plan(fresh(17), images.shape)
    rngs, lam = nnx.Rngs(17), np.asarray(plan.lam)[:, None]
    layers = [nnx.Linear(n, n + 1, use_bias=False, rngs=rngs) for n in (6, 7, 8)]
    linear = example.ManifoldMixup(layers)
    bent = example.ManifoldMixup([nnx.Sequential(layer, jnp.abs) for layer in layers])
    kernels = [np.asarray(layer.kernel[...]) for layer in layers]
    whole = kernels[0] @ kernels[1] @ kernels[2]

    def mixed(x):
        return lam * x + (1 - lam) * np.roll(x, 1, axis=0)

    @nnx.jit
    def apply(network, x, plan, depth):
        traces.append(depth)
        return network(x, plan, depth)

    for depth in range(3):
        found, expected = apply(linear, images, plan, jnp.int32(depth)), images
        np.testing.assert_allclose(found, mixed(images) @ whole, atol=1e-5)
        for number, kernel in enumerate(kernels):
            expected = np.abs((mixed(expected) if number == depth else expected) @ kernel)
        outputs.append(np.asarray(apply(bent, images, plan, jnp.int32(depth))))
        np.testing.assert_allclose(outputs[-1], expected, atol=1e-5)
    assert len(traces) == 2, "one for each network"
    assert min(np.abs(one - other).max() for one, other in itertools.pairwise(outputs)) > 0.01
    np.testing.assert_allclose(linear(images), images @ whole, atol=1e-5)


# Another batch.


def shrunk(image, extents):
    """A whole image in fewer pixels, by a triangle filter twice as wide as the new pixels."""
    for axis, n in enumerate(extents):
        old = image.shape[axis]
        centres = (np.arange(n) + 0.5) * old / n - 0.5
        weights = np.maximum(0, 1 - np.abs(np.arange(old) - centres[:, None]) * n / old)
        weights /= weights.sum(1, keepdims=True)
        image = np.moveaxis(np.tensordot(weights, image, (1, axis)), 0, axis)
    return image


def boxes_of(images, mixed):
    """The box of each row, which the pixels span that are not the original's."""
    for own, other in zip(np.asarray(images), np.asarray(mixed), strict=True):
        ys, xs = np.nonzero((own != other).any(-1))
        yield slice(ys.min(), ys.max() + 1), slice(xs.min(), xs.max() + 1)


def test_resizemix_shows_the_whole_partner_in_a_box(example):
    images = np.random.default_rng(19).uniform(1, 2, (8, 20, 30, 2)).astype(np.float32)
    corners = np.array([[[6, 7], [8, 9]], [[1, 2], [3, 4]]], np.float32)
    images[1], images[2] = 5.0, corners.repeat(10, 0).repeat(15, 1)
    mixed, labels = example.resizemix(fresh(19), images, np.eye(8, dtype=np.float32), 0.2)
    for i, box in enumerate(boxes_of(images, mixed)):
        inside = np.asarray(mixed[i])[box]
        np.testing.assert_allclose(inside, shrunk(images[i - 1], inside.shape[:2]), atol=1e-4)
        share = inside[..., 0].size / 600
        expected = [(1 - share) * (k == i) + share * (k == (i - 1) % 8) for k in range(8)]
        np.testing.assert_allclose(labels[i], expected, atol=1e-6)
        if i == 2:
            np.testing.assert_allclose(inside, 5.0, rtol=1e-6)
        if i == 3:
            np.testing.assert_allclose(inside[:: len(inside) - 1][:, [0, -1]], corners, rtol=1e-6)


def test_the_scale_and_the_place_of_resizemix_are_uniform(example):
    rows, n = 500, 100
    images = np.arange(rows, dtype=np.float32)[:, None, None, None] + np.zeros((1, n, 5, 1), "f")
    mixed, labels = example.resizemix(fresh(20), images, np.eye(rows, dtype=np.float32))
    down, across = zip(*boxes_of(images, mixed), strict=True)
    heights, widths = (np.array([cut.stop - cut.start for cut in cuts]) for cuts in (down, across))
    shares = [labels[i, i - 1] for i in range(rows)]
    np.testing.assert_allclose(shares, heights * widths / (5 * n), rtol=1e-5)
    scales = (heights - 0.5 + jitter(rows)) / n
    follows(scales, stats.uniform(0.1, 0.7).cdf, lambda x: np.clip((x**2 - 0.01) / 0.63, 0, 1))
    places = (np.array([cut.start for cut in down]) + jitter(rows)) / (n - heights + 1)
    follows(places, stats.uniform.cdf, beta(1.6))


def test_mixmatch_mixes_all_with_all(example):
    eye = np.eye(400, dtype=np.float32)  # 50 are labelled, and seven times as many are not.
    both = [(x[:, None, None], x) for x in (eye[:50], eye[50:])]
    mixed = example.mixmatch(fresh(21), *both)
    assert [len(x) for part in mixed for x in part] == [50, 50, 350, 350]
    images, labels = (np.concatenate([np.asarray(part[i]) for part in mixed]) for i in range(2))
    np.testing.assert_allclose(images[:, 0, 0], labels, atol=1e-6)
    np.testing.assert_allclose(labels.sum(1), 1, atol=1e-6)
    own, partner = np.diag(labels), (labels * (1 - eye)).argmax(1)
    assert own.min() >= 0.5 and (np.sort(labels, 1)[:, :-2] == 0).all()
    assert (partner[:50] >= 50).sum() > 30 and (partner[50:] < 50).sum() > 30
    folded = [lambda x, a=a: np.clip(2 * beta(a)(x) - 1, 0, 1) for a in (0.75, 1.5)]
    follows(own, folded[0], folded[1], beta(0.75))


def test_visible_counts_what_is_left_of_each_box(example):
    shape = 4, 9, 11, 3
    boxes = np.concatenate(helpers.boxes(24, (13, 15)), 1).reshape(4, 6, 4) - 2
    boxes[0, 0], boxes[0, 1] = [0, 0, 9, 11], [3, 3, 3, 8]
    plan = example.SmoothMix().plan(fresh(22), shape)
    weights = np.asarray(plan.weights(shape), np.float64)
    found = np.asarray(example.visible(plan, boxes, shape))
    for i, n in np.ndindex(4, 6):
        y0, x0, y1, x1 = boxes[i, n]
        left = [weights[i, y, x] for y, x in np.ndindex(9, 11) if y0 <= y < y1 and x0 <= x < x1]
        assert found[i, n] == pytest.approx(sum(left) / max(len(left), 1), abs=1e-6)
    assert found[0, 0] == pytest.approx(plan.lam[0]) and found[0, 1] == 0 and (found > 0).sum() > 15


# All of them.

MIXERS = {
    "FMix": lambda rng: {"alpha": 1 + rng.random()},
    "SmoothMix": lambda rng: {"sigmas": (0.25, 0.4 + rng.random())},
    "HalfBox": lambda rng: {"share": 0.4 + 0.2 * rng.random()},
    "SaliencyMix": lambda rng: {"saliency": rng.random((8, 12, 14), np.float32)},
    "AttentiveCutMix": lambda rng: {"attention": rng.random((8, 3, 4), np.float32), "count": 5},
    "ClassMix": lambda rng: {"maps": rng.integers(0, 5, (8, 12, 14), np.int32), "classes": 5},
}


@pytest.mark.parametrize("name", ["FMix", "SmoothMix", "HalfBox"])
def test_mixers_obey_the_laws(example, name):
    with jax.debug_nans(False):  # NaN is among the pixels.
        jaxmix.testing.check(getattr(example, name)())


@pytest.mark.parametrize("name", MIXERS)
def test_under_jit_with_every_pairing_and_in_a_policy(example, name):
    """Labels follow the pixels; new keys, settings and content are no new program."""
    images = np.broadcast_to(np.eye(8, dtype=np.float32)[:, None, None], (8, 12, 14, 8))
    traces, seen = [], []

    @jax.jit
    def step(mixers, key):
        traces.append(key)
        keys = zip(mixers, jax.random.split(key, len(mixers)), strict=True)
        return [mixer(key, images, jnp.arange(8), num_classes=8) for mixer, key in keys]

    for seed in range(3):
        made = MIXERS[name](np.random.default_rng(seed))
        make = functools.partial(getattr(example, name), **made)
        mixers = [make(pairing=name) for name in ("swap", "flip", "roll", "permutation")]
        policies = [RandomChoice((mixer, CutMix(pairing=mixer.pairing))) for mixer in mixers]
        for mixed, labels in step(mixers + policies, fresh(seed)):
            np.testing.assert_allclose(np.asarray(mixed).mean((1, 2)), labels, atol=1e-6)
            assert np.all((np.asarray(labels) > 0).sum(1) <= 2)
            assert (np.diag(labels) < 1).sum() > 3
            seen.append(np.asarray(labels).tobytes())
    assert len(traces) == 1 and len(set(seen)) == len(seen) == 24


def test_a_run_prints_a_line_for_each_method_and_leaves_a_picture(
    example, monkeypatch, capsys, tmp_path
):
    saved = helpers.figures(example, monkeypatch)
    printed, _ = helpers.main(example, monkeypatch, capsys, "--seed", 1, "--out", tmp_path)
    found = re.findall(r"^(\S+) +mean share of the original (\d\.\d\d)$", printed, re.M)
    assert found[0] == ("original", "1.00") and len(printed.splitlines()) == len(found)
    assert len(dict(found)) >= 12 and all(0.1 < float(share) < 1 for _, share in found[1:])
    assert (tmp_path / "methods.png").stat().st_size > 100_000
    axes = saved["methods.png"].axes
    titles = [re.fullmatch(r"original: (\d+) %", ax.get_title()) for ax in axes]
    assert len(titles) == 8 * len(found) and all(titles)
    for i, (name, share) in enumerate(found):
        shown = [int(title[1]) for title in titles[8 * i : 8 * (i + 1)] if title]
        assert axes[8 * i].get_ylabel() == name and abs(np.mean(shown) - 100 * float(share)) < 1.1


def test_example_stays_short():
    assert len(helpers.example("methods").read_text().splitlines()) <= 350
