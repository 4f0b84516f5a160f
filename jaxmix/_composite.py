"""Compositing: painting one batch over another, through a region, at an opacity."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxmix import _region, _sharding
from jaxmix._region import Box, Mask, Region
from jaxmix._sharding import where

jit = functools.partial(jax.jit, inline=True)


def blends(region: Region, opacity: Array | None) -> bool:
    """Whether an element can show both images at once."""
    return opacity is not None or (isinstance(region, Mask) and region.painted.dtype != jnp.bool_)


def paint(
    images: Array, partners: Array, region: Region, opacity: Array | None, channel: int | None
) -> Array:
    """Paints the row of each row's partner over it, in the layout in which that is fastest.

    Args:
        images: [B, ...].
        partners: the row to paint onto each row, of the same shape and dtype.
        region: where the partner is painted; None is everywhere.
        opacity: float32[B], how opaquely; None is opaque.
        channel: the position of the channel axis, or None.
    """
    rank = images.ndim
    axes = tuple(axis for axis in range(1, rank) if axis != channel)

    def over(images, partners, shape=images.shape, stretch=1):
        painted = _painted(region, shape, axes, stretch)
        mixed = _paint_over(images.reshape(shape), partners.reshape(shape), painted, opacity)
        return mixed.reshape(images.shape)

    # Under a mask that is broadcast over a short innermost axis, such as three channels, loops on
    # CPUs do not vectorise: fold it into the axis before it. On a TPU that would be a relayout.
    def folded(images, partners):
        *outer, width, channels = images.shape
        return over(images, partners, (*outer, width * channels), channels)

    short = rank > 2 and isinstance(images.shape[-1], int) and images.shape[-1] <= 16
    foldable = region is None or (isinstance(region, Box) and channel == rank - 1)
    if not (short and foldable) or _sharding.is_split(images, rank - 2):
        return over(images, partners)
    return lax.platform_dependent(images, partners, tpu=over, default=folded)


@jit
def choose(maps: Array, partners: Array, region: Region, opacity: Array | None) -> Array:
    """Takes each element of [B, *spatial] from whichever has the larger share, `maps` on a tie."""
    painted = _painted(region, maps.shape, tuple(range(1, maps.ndim)))
    return where(_weights(painted, opacity, maps.shape) < 0.5, partners, maps)


@functools.partial(jit, static_argnums=0)
def weights(shape: tuple, region: Region, opacity: Array | None) -> Array:
    """float32[B, *spatial]: the share of each pixel that the region and the opacity leave."""
    painted = _painted(region, shape, tuple(range(1, len(shape))))
    return jnp.broadcast_to(_weights(painted, opacity, shape), shape)


@jit
def mix(share: Array, original: Array, partner: Array, painted: Array | None = None) -> Array:
    """`share * original + (1 - share) * partner` where it is painted, else the original.

    Each is exact where it alone is shown: the partner is painted opaquely, and what fades is then
    blended, in float32 or wider, rounding half to even for integers. What does not fade is replaced
    by 0 before the arithmetic, because 0 * inf is NaN, in the result as in the gradient.

    Args:
        share: float32, of the rank of `original` and 1 along the axes on which it does not depend.
        original: any dtype but bool.
        partner: of the same shape and dtype.
        painted: bool, of the rank of `original`; None is everywhere.
    """
    dtype = original.dtype
    if dtype == jnp.bfloat16:
        share = jnp.where(jnp.isnan(share), jnp.nan, share)  # Its payload would reach the sign.
        return _narrow(mix(share, _widen(original), _widen(partner), painted))
    if jnp.issubdtype(dtype, jnp.complexfloating):  # In one product inf would spread as NaN.
        reals = mix(share, lax.real(original), lax.real(partner), painted)
        return lax.complex(reals, mix(share, lax.imag(original), lax.imag(partner), painted))
    share = _sharding.spread_like(original, share)
    # Negated, so that a share of NaN blends and reaches the result.
    fades = ~((share <= 0) | (share >= 1))
    over = ~(share >= 1) if painted is None else painted & ~(share >= 1)
    shown = where(over, partner, original)
    nothing = jnp.zeros_like(original)
    first, second = (where(fades, x, nothing).astype(wider(dtype)) for x in (original, shown))
    # Of a sum of two products compilers fuse either one into a multiply-add, depending on the
    # program; of a difference always the first. So eager and jitted results agree to the last bit.
    blend = share.astype(first.dtype) * first - (share - 1).astype(first.dtype) * second
    return where(over & fades, _rounded(blend, dtype), shown)


def wider(dtype: Any) -> Any:
    """The dtype in which values of `dtype` are blended: float32 unless they are wider."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) and dtype.itemsize >= 4 else jnp.float32


def _rounded(blend, dtype):
    """A blend in the dtype of the images, rounded half to even."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return blend.astype(dtype)
    if dtype.itemsize > 2:
        return jnp.round(blend).astype(dtype)
    # From 2^23 to 2^24 float32 counts in ones: the sum is rounded, its last bits are the integer.
    # A conversion from float to uint8 would cost as much as all the rest.
    return lax.bitcast_convert_type(blend + 1.5 * 2**23, jnp.int32).astype(dtype)


def _conversion(name, dtype, convert, on_cpu):
    """A conversion to `dtype` that is linear to JAX, whatever `convert` does to the bits."""
    primitive = Primitive(name)
    primitive.def_impl(convert)
    primitive.def_abstract_eval(lambda x: x.update(dtype=jnp.dtype(dtype), weak_type=False))
    ad.deflinear2(primitive, lambda cotangent, x: [cotangent.astype(x.aval.dtype)])
    batching.defvectorized(primitive)
    for platform, function in ((None, convert), ("cpu", on_cpu)):
        mlir.register_lowering(primitive, mlir.lower_fun(function, False), platform=platform)
    return primitive.bind


def _widen_bits(x):
    """The float32 of which a bfloat16 is the upper half."""
    bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type(bits << 16, jnp.float32)


def _narrow_bits(x, any_nan=True):
    """The bfloat16 next to a float32, on a tie the even one."""
    full = lax.bitcast_convert_type(x, jnp.uint32)
    stays = full & 0x1FFFF == 0x8000  # Just between two numbers, of which the lower is even.
    # A carry would reach the sign of a NaN that is all ones, as GPUs make it; CPUs do not.
    stays = stays | jnp.isnan(x) if any_nan else stays
    upper = (jnp.where(stays, full, full + 0x8000) >> 16).astype(jnp.uint16)
    return lax.bitcast_convert_type(upper, jnp.bfloat16)


# Conversions of their own for bfloat16: those of XLA keep a loop over pixels on CPUs from becoming
# one over contiguous elements, and need not keep the bits of a NaN.
_widen = _conversion("widen_bfloat16", jnp.float32, _widen_bits, _widen_bits)
_narrow_on_cpu = functools.partial(_narrow_bits, any_nan=False)
_narrow = _conversion("narrow_to_bfloat16", jnp.bfloat16, _narrow_bits, _narrow_on_cpu)


def _paint_over(images, partners, painted, opacity):
    """Paints in one layout; `painted` is bool, float32, or None for everything.

    A mask of bools stays apart from the share, which then is one number for each row.
    """
    if painted is not None and painted.dtype != jnp.bool_:
        return mix(_weights(painted, opacity, images.shape), images, partners)
    if opacity is not None:
        return mix(_weights(None, opacity, images.shape), images, partners, painted)
    return partners if painted is None else where(painted, partners, images)


def _painted(region, shape, axes, stretch=1):
    """How much of each element is painted, of the rank of `shape`: bool, float32, None for all."""
    if region is None:
        return None
    if isinstance(region, Box):
        return _region.inside(region, shape, axes, stretch)
    return lax.expand_dims(region.painted, [a for a in range(1, len(shape)) if a not in axes])


def _weights(painted, opacity, shape):
    """The original's share of each element, 1 along the axes on which it does not depend."""
    opacity = jnp.ones(shape[:1], jnp.float32) if opacity is None else opacity
    opacity = lax.expand_dims(opacity, range(1, len(shape)))
    if painted is None:
        return 1 - opacity
    if painted.dtype == jnp.bool_:
        return jnp.where(painted, 1 - opacity, 1.0)
    return 1 - painted * opacity
