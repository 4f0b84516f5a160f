"""symmetric_beta: its law, its tails, its dtypes, its gradient, and what it compiles to."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxmix import symmetric_beta

ALPHAS = [0.05, 0.2, 0.4, 1.0, 2.0, 8.0, 32.0, 100.0]
DRAWS = 300_000
# Fixed keys: a right sampler passes always, and fails by chance for one choice of keys in 10,000.
RARE = 1e-4

enable_x64 = jax.enable_x64 if hasattr(jax, "enable_x64") else jax.experimental.enable_x64


@partial(jax.jit, static_argnums=2)
def many(key, alpha, shape=(DRAWS,)):
    return symmetric_beta(key, alpha, shape)


def ks_p_value(draws, alpha):
    """A KS test against Beta(alpha, alpha) rounded to float32, on a grid of its quantiles.

    The law of a float32 sampler has atoms (at 1 - 2**-25 and above everything is 1.0), so the
    continuous law is the wrong reference: P(rounded <= g) is P(exact <= half an ulp above g). A
    supremum over a grid is below the one over the line, which only makes the test more lenient.
    """
    law = stats.beta(alpha, alpha)
    grid = np.unique(np.float32(np.clip(law.ppf(np.linspace(0, 1, 2001)), 1e-35, 1 - 2**-24)))
    half_ulp_above = (np.float64(grid) + np.float64(np.nextafter(grid, np.float32(2)))) / 2
    found = np.searchsorted(np.sort(draws), grid, side="right") / len(draws)
    return stats.kstwo.sf(np.abs(found - law.cdf(half_ulp_above)).max(), len(draws))


@pytest.mark.parametrize("alpha", ALPHAS)
def test_follows_the_beta_law(alpha):
    draws = np.asarray(many(jax.random.key(11), alpha))
    assert ks_p_value(draws, alpha) > RARE


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_test_sees_an_alpha_five_per_cent_off(alpha):
    draws = np.asarray(many(jax.random.key(12), 1.05 * alpha))
    assert ks_p_value(draws, alpha) < RARE


@pytest.mark.parametrize("alpha", [alpha for alpha in ALPHAS if alpha != 1])
def test_the_test_sees_a_gamma_whose_rate_is_alpha(alpha):
    """G(1, alpha) / (G(1, alpha) + G(1, alpha)), as once in the model garden: uniform for any."""
    first, second = np.random.default_rng(0).gamma(1.0, 1 / alpha, (2, DRAWS))
    assert ks_p_value(np.float32(first / (first + second)), alpha) < RARE


@pytest.mark.parametrize("alpha", [0.05, 0.2, 1.0, 8.0])
def test_lower_tail_has_full_precision(alpha):
    """Small lam, where float32 is fine, against the exact law: far tails in relative terms."""
    draws = np.asarray(many(jax.random.key(13), alpha), np.float64)
    for probability in (1e-1, 1e-2, 1e-3):
        quantile = max(stats.beta(alpha, alpha).ppf(probability), 1e-35)
        expected = DRAWS * stats.beta(alpha, alpha).cdf(quantile)
        found = (draws <= quantile).sum()
        assert abs(found - expected) < 4.5 * np.sqrt(expected), (probability, found, expected)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_is_symmetric(alpha):
    """Above and below one half equally often, with the same law of the distance from the ends."""
    draws = np.asarray(many(jax.random.key(14), alpha), np.float64)
    upper = (draws > 0.5).sum()
    assert stats.binomtest(int(upper), DRAWS).pvalue > RARE
    # 1 - lam loses what float32 cannot hold near 1: compare where both sides hold it.
    low, high = draws[draws < 0.5], 1 - draws[draws > 0.5]
    low, high = np.maximum(low, 2**-12), np.maximum(high, 2**-12)
    assert stats.ks_2samp(low, high, method="asymp").pvalue > RARE


@pytest.mark.parametrize("alpha", [1e-3, 0.02, 300.0, 1e4])
def test_extreme_alphas_stay_in_the_unit_interval(alpha):
    draws = np.asarray(many(jax.random.key(15), alpha), np.float64)
    assert np.isfinite(draws).all() and draws.min() >= 0 and draws.max() <= 1
    assert abs(draws.mean() - 0.5) < 4.5 * 0.5 / np.sqrt(DRAWS * (2 * alpha + 1))
    variance = 1 / (4 * (2 * alpha + 1))
    np.testing.assert_allclose(draws.var(), variance, rtol=0.01)


def test_small_alpha_is_a_coin_and_large_alpha_is_one_half():
    coin = np.asarray(many(jax.random.key(16), 1e-3))
    assert np.minimum(coin, 1 - coin).mean() < 2e-3
    half = np.asarray(many(jax.random.key(16), 1e4))
    assert np.abs(half - 0.5).max() < 0.03


@pytest.mark.parametrize("shape", [(), (1,), (0,), (5,), (3, 2), (2, 0, 4)], ids=str)
def test_shapes(shape):
    draws = symmetric_beta(jax.random.key(0), 0.4, shape)
    assert draws.shape == shape and draws.dtype == jnp.float32
    assert not draws.weak_type


def test_shape_defaults_to_a_scalar():
    assert symmetric_beta(jax.random.key(0), 1.0).shape == ()


@pytest.mark.parametrize("shape", [(), (1,), (3,), (4, 1), (4, 3)], ids=str)
def test_alpha_broadcasts_to_shape(shape):
    alpha = jnp.linspace(0.2, 2, int(np.prod(shape)), dtype=jnp.float32).reshape(shape)
    assert symmetric_beta(jax.random.key(0), alpha, (4, 3)).shape == (4, 3)


def test_each_entry_follows_its_own_alpha():
    alphas = np.array([0.2, 1.0, 8.0], np.float32)
    draws = np.asarray(many(jax.random.key(17), alphas, (100_000, 3)))
    for column, alpha in enumerate(alphas):
        assert ks_p_value(draws[:, column], alpha) > RARE


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtypes(dtype):
    draws = symmetric_beta(jax.random.key(1), 0.4, (10_000,), dtype)
    assert draws.dtype == dtype
    draws = np.asarray(draws, np.float64)
    assert draws.min() >= 0 and draws.max() <= 1
    assert abs(draws.mean() - 0.5) < 0.02
    np.testing.assert_allclose(draws.var(), 1 / (4 * (2 * 0.4 + 1)), rtol=0.03)


def test_float64_follows_the_law():
    with enable_x64(True):
        draws = symmetric_beta(jax.random.key(2), 0.5, (100_000,), jnp.float64)
        assert draws.dtype == jnp.float64
        assert symmetric_beta(jax.random.key(2), 0.5).dtype == jnp.float32
    draws = np.asarray(draws)
    assert stats.kstest(draws, stats.beta(0.5, 0.5).cdf).pvalue > RARE
    assert (np.float64(np.float32(draws)) != draws).mean() > 0.9, "float64 in name only"


def test_float64_is_finer_in_the_tails_of_a_small_alpha():
    with enable_x64(True):
        draws = np.asarray(symmetric_beta(jax.random.key(3), 0.05, (100_000,), jnp.float64))
    lower = draws[draws < 0.5]
    assert stats.kstest(lower, lambda x: 2 * stats.beta(0.05, 0.05).cdf(x)).pvalue > RARE


@jax.jit
def slopes_of_many(alpha, keys):
    return jax.vmap(jax.grad(lambda a, key: symmetric_beta(key, a)), (None, 0))(alpha, keys)


@pytest.mark.parametrize("alpha", [1e-3, 0.05, 0.2, 1.0, 8.0, 100.0, 1e4])
def test_gradient_in_alpha_is_finite(alpha):
    slopes = slopes_of_many(jnp.float32(alpha), jax.random.split(jax.random.key(4), 10_000))
    assert np.isfinite(slopes).all()
    assert alpha in (1e-3, 1e4) or np.abs(slopes).max() > 0


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_gradient_matches_finite_differences(alpha):
    """With the bits held fixed, every draw is a smooth function of alpha: its own quantile."""
    with enable_x64(True):

        @jax.jit
        def draws(alpha):
            return symmetric_beta(jax.random.key(5), alpha, (1000,), jnp.float64)

        step = 1e-5 * alpha
        _, slopes = jax.jvp(draws, (alpha,), (1.0,))
        differences = (draws(alpha + step) - draws(alpha - step)) / (2 * step)
        np.testing.assert_allclose(slopes, differences, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("alpha", [0.3, 1.0, 4.0])
def test_gradient_of_the_second_moment(alpha):
    """E[lam ** 2] is 1/4 + 1 / (4 (2 alpha + 1)), so its slope is -1 / (2 (2 alpha + 1) ** 2)."""

    def squares(alpha):
        return many(jax.random.key(6), alpha, (DRAWS,)) ** 2

    _, slopes = jax.jvp(squares, (jnp.float32(alpha),), (jnp.float32(1),))
    slopes = np.asarray(slopes, np.float64)
    error = slopes.std() / np.sqrt(len(slopes))
    assert abs(slopes.mean() + 1 / (2 * (2 * alpha + 1) ** 2)) < 4.5 * error


def primitives(jaxpr):
    """The names of all primitives in a jaxpr, inner ones included."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


def test_nothing_is_rejected():
    """No loop: neither in what is traced, nor in what is compiled (rbg: threefry rolls its own)."""
    key = jax.random.key(0, impl="rbg")
    names = set(primitives(jax.make_jaxpr(lambda a: symmetric_beta(key, a, (1000,)))(0.4).jaxpr))
    assert "log1p" in names or "log" in names, names
    assert not names & {"while", "scan", "cond"}
    text = many.lower(key, 0.4, (1000,)).compile().as_text()
    assert "while(" not in text


def correlation(first, second):
    return abs(np.corrcoef(first, second)[0, 1])


def test_neighbouring_draws_are_independent():
    draws = np.asarray(many(jax.random.key(18), 0.7), np.float64)
    bound = 4.5 / np.sqrt(DRAWS)
    for lag in (1, 2, DRAWS // 2):
        assert correlation(draws[lag:], draws[:-lag]) < bound
        # Sizes without signs, in case the two halves of a draw were shared between neighbours.
        distance = np.abs(draws - 0.5)
        assert correlation(distance[lag:], distance[:-lag]) < bound
    side = draws[: DRAWS // 2 * 2].reshape(-1, 2) > 0.5
    counts = np.bincount(side[:, 0] * 2 + side[:, 1], minlength=4)
    assert stats.chisquare(counts).pvalue > RARE


def test_other_keys_draw_others():
    first = np.asarray(many(jax.random.key(19), 0.7), np.float64)
    second = np.asarray(many(jax.random.key(20), 0.7), np.float64)
    assert correlation(first, second) < 4.5 / np.sqrt(DRAWS)
    assert len(np.unique(many(jax.random.key(21), 0.7, (1000,)))) > 990


@pytest.mark.parametrize("alpha", [0.2, 1.0, 8.0])
def test_eager_is_jit(alpha):
    eager = symmetric_beta(jax.random.key(7), alpha, (1000,))
    traced = many(jax.random.key(7), alpha, (1000,))
    closed = jax.jit(lambda key: symmetric_beta(key, alpha, (1000,)))(jax.random.key(7))
    np.testing.assert_array_equal(eager, traced)
    np.testing.assert_array_equal(eager, closed)


def test_same_key_same_draw_and_a_python_number_is_an_array():
    first = symmetric_beta(jax.random.key(8), 0.3, (100,))
    np.testing.assert_array_equal(first, symmetric_beta(jax.random.key(8), 0.3, (100,)))
    alpha = np.float32(0.3)
    np.testing.assert_array_equal(first, symmetric_beta(jax.random.key(8), alpha, (100,)))
    np.testing.assert_array_equal(
        first, symmetric_beta(jax.random.key(8), jnp.float32(0.3), (100,))
    )


def test_vmap_over_alpha():
    keys = jax.random.split(jax.random.key(9), 4)
    alphas = jnp.array([0.1, 0.5, 1.0, 5.0], jnp.float32)
    draws = jax.vmap(lambda key, alpha: symmetric_beta(key, alpha, (3,)))(keys, alphas)
    alone = symmetric_beta(jax.random.split(jax.random.key(9), 4)[2], 1.0, (3,))
    np.testing.assert_allclose(draws[2], alone, rtol=1e-6)


def test_a_new_alpha_does_not_retrace():
    traces = []

    @jax.jit
    def draw(key, alpha):
        traces.append(alpha)
        return symmetric_beta(key, alpha, (10,))

    for step in range(5):
        draw(jax.random.key(step), 0.1 + step)
    assert len(traces) == 1


@pytest.mark.parametrize("bad", [0, -1.0, float("nan"), float("inf")])
def test_a_bad_alpha_is_a_value_error(bad):
    with pytest.raises(ValueError, match=r"symmetric_beta.*alpha"):
        symmetric_beta(jax.random.key(0), bad)


def test_an_alpha_that_does_not_fit_shape_is_a_value_error():
    with pytest.raises(ValueError, match=r"symmetric_beta.*alpha.*shape.*4.*3"):
        symmetric_beta(jax.random.key(0), jnp.ones(3), (4,))


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_a_dtype_that_is_not_a_float_is_an_error(dtype):
    with pytest.raises((ValueError, TypeError), match="dtype"):
        symmetric_beta(jax.random.key(0), 1.0, (4,), dtype)
