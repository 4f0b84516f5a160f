"""Samplers for uniform variates, and for symmetric Beta variates without a rejection loop."""

import contextlib
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from jaxmix import _checks


def symmetric_beta(
    key: Array, alpha: ArrayLike, shape: tuple[int, ...] = (), dtype: DTypeLike = jnp.float32
) -> Array:
    """Draws from Beta(alpha, alpha), the distribution of lambda in MixUp and CutMix.

    `jax.random.beta` uses a rejection loop. This function does not, so it compiles in a fraction of
    the time, costs a few times as much as `jax.random.uniform`, and needs no communication when it
    is sharded. Draws have finite pathwise gradients with respect to `alpha`, at least for `alpha`
    from 1e-10 to 1e30.

    The method: if T follows Student's t-distribution with `2 * alpha` degrees of freedom, then
    `(1 + T / sqrt(2 * alpha + T^2)) / 2` follows Beta(alpha, alpha). Bailey's polar method draws T
    from two uniforms.

    Args:
        key: a PRNG key, typed or raw.
        alpha: the concentration, positive and finite: a number, or an array that broadcasts to
            `shape`. Invalid values in an array give NaN, as in `jax.random`.
        shape: the static shape of the result.
        dtype: a floating dtype. Dtypes narrower than float32 are drawn in float32 and rounded.

    Returns:
        dtype[*shape], in [0, 1].

    Raises:
        TypeError: if `key` is not a PRNG key, or `dtype` is not a floating dtype.
        ValueError: if a Python `alpha` is not positive and finite, or `alpha` does not broadcast.

    Example:
        >>> import jax, jaxmix
        >>> jaxmix.symmetric_beta(jax.random.key(0), 0.4, (3, 2)).shape
        (3, 2)

    Reference:
        Bailey 1994, Polar generation of random variates with the t-distribution, Math. Comp. 62.
        Devroye 1996, Random variate generation in one line of code, Proc. WSC 28.
    """
    _checks.key("symmetric_beta", key)
    floating = False
    with contextlib.suppress(TypeError):
        floating = jnp.issubdtype(dtype, jnp.floating)
    if not floating:
        raise TypeError(f"symmetric_beta: dtype must be a floating dtype, got {dtype}")
    dtype = jax.dtypes.canonicalize_dtype(dtype)  # float64 becomes float32 unless x64 is enabled.
    shape = _checks.shape("symmetric_beta", shape, least_rank=0)
    given = _checks.shape_of(alpha)
    if not given:
        return _draw(key, _checks.alpha("symmetric_beta", alpha), shape, dtype)
    sizes = zip(reversed(given), reversed(shape), strict=False)
    if len(given) > len(shape) or any(n not in (1, of) for n, of in sizes):
        remedy = "pass shape=alpha.shape for one draw each"
        wanted = f"alpha must broadcast to shape {shape}"
        raise _checks.value_error("symmetric_beta", wanted, alpha, remedy)
    return _draw(key, _checks.real("symmetric_beta", "alpha", alpha), shape, dtype)


@functools.partial(jax.jit, static_argnames=("shape", "dtype"), inline=True)
def _draw(key, alpha, shape, dtype):
    wide = dtype if dtype == jnp.float64 else jnp.dtype(jnp.float32)
    alpha = jnp.broadcast_to(jnp.asarray(alpha).astype(wide), shape)
    radius, angle = jax.random.uniform(key, (2, *shape), wide)
    return from_uniforms(radius, angle, alpha).astype(dtype)


def from_uniforms(radius: Array, angle: Array, alpha: Array) -> Array:
    """Computes Beta(alpha, alpha) from two uniforms in [0, 1) by Bailey's method, in float32.

    Let q = (1 - radius)^(1 / alpha), p = 1 - q, c = cos(2 pi angle) and d = sqrt(q + c^2 p). The
    draw is (1 +- |c| sqrt(p) / d) / 2. The smaller of the two is computed without cancellation.
    """
    # Take the reciprocal first. XLA turns a division by a constant into a multiplication by its
    # reciprocal, so the last bit of a draw would depend on whether alpha was traced.
    scale = jnp.where((alpha > 0) & (alpha < jnp.inf), 1 / alpha, jnp.nan)
    decay = jnp.maximum(-jnp.log1p(-radius), 1e-7) * scale
    q, p = jnp.exp(-decay), -jnp.expm1(-decay)
    cosine = jnp.cos(2 * jnp.pi * angle)
    distance = jnp.sqrt(q + cosine**2 * p)
    smaller = q / (2 * distance * (distance + jnp.abs(cosine) * jnp.sqrt(p)))
    return jnp.where(cosine < 0, smaller, 1 - smaller)


def uniforms(key: Array, rows: Any, count: int) -> Array:
    """Draws float32[rows, count] in [0, 1)."""
    # Drawn along one axis: numbering the elements along two axes takes 50 % longer to compile.
    return jax.random.uniform(key, (rows * count,), jnp.float32).reshape(rows, count)


def float32(value: Any) -> Array:
    """Converts a number, weakly typed or of any precision, to float32."""
    return jnp.asarray(value).astype(jnp.float32)
