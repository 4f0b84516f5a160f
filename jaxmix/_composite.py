"""Compositing: paints one batch over another, through a region, at an opacity."""

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
    """Paints each row's partner over it, in the fastest layout.

    Args:
        images: [B, ...].
        partners: the partner of each row, of the same shape and dtype.
        region: where the partner is painted; None is everywhere.
        opacity: float32[B] in [0, 1]; None is opaque.
        channel: the position of the channel axis, or None.
    """
    rank = images.ndim
    axes = tuple(axis for axis in range(1, rank) if axis != channel)

    def over(images, partners, shape=images.shape, stretch=1):
        painted = _painted(region, shape, axes, stretch)
        mixed = _paint_over(images.reshape(shape), partners.reshape(shape), painted, opacity)
        return mixed.reshape(images.shape)

    # CPU loops do not vectorise under a mask that is broadcast over a short innermost axis, such as
    # three channels. So fold that axis into the one before it. On a TPU that would be a relayout.
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
    """Takes each element from the array with the larger share there, and from `maps` on a tie."""
    painted = _painted(region, maps.shape, tuple(range(1, maps.ndim)))
    return where(_weights(painted, opacity, maps.shape) < 0.5, partners, maps)


@functools.partial(jit, static_argnums=0)
def weights(shape: tuple, region: Region, opacity: Array | None) -> Array:
    """float32[B, *spatial]: the original's share of each pixel."""
    painted = _painted(region, shape, tuple(range(1, len(shape))))
    return jnp.broadcast_to(_weights(painted, opacity, shape), shape)


@jit
def mix(share: Array, original: Array, partner: Array, painted: Array | None = None) -> Array:
    """Computes `share * original + (1 - share) * partner` where painted, else the original.

    Elements that show only one of the two are copied exactly. The others fade: they are blended in
    float32 or wider, and integers are rounded half to even. Before the arithmetic, elements that do
    not fade are replaced by 0, because 0 * inf is NaN, in the result and in the gradient.

    Args:
        share: float32, of the rank of `original`, with size 1 along axes where it is constant.
        original: any dtype but bool.
        partner: of the same shape and dtype.
        painted: bool, of the rank of `original`; None is everywhere.
    """
    dtype = original.dtype
    if dtype == jnp.bfloat16:
        share = jnp.where(jnp.isnan(share), jnp.nan, share)  # A payload could reach the sign.
        return _narrow(mix(share, _widen(original), _widen(partner), painted))
    if jnp.issubdtype(dtype, jnp.complexfloating):  # A complex product turns inf into NaN.
        reals = mix(share, lax.real(original), lax.real(partner), painted)
        return lax.complex(reals, mix(share, lax.imag(original), lax.imag(partner), painted))
    share = _sharding.spread_like(original, share)
    # Written as a negation, so that a share of NaN counts as fading and reaches the result.
    fades = ~((share <= 0) | (share >= 1))
    over = ~(share >= 1) if painted is None else painted & ~(share >= 1)
    shown = where(over, partner, original)
    nothing = jnp.zeros_like(original)
    first, second = (where(fades, x, nothing).astype(wider(dtype)) for x in (original, shown))
    # In a sum of two products, compilers fuse either one into a multiply-add, depending on the
    # program. In a difference they always fuse the first, so eager and jitted results are equal.
    blend = share.astype(first.dtype) * first - (share - 1).astype(first.dtype) * second
    return where(over & fades, _rounded(blend, dtype), shown)


def wider(dtype: Any) -> Any:
    """The dtype for blending values of `dtype`: float32, or `dtype` itself if that is wider."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) and dtype.itemsize >= 4 else jnp.float32


def _rounded(blend, dtype):
    """Converts a blend to the dtype of the images, and rounds integers half to even."""
    if not jnp.issubdtype(dtype, jnp.integer):
        return blend.astype(dtype)
    if dtype.itemsize > 2:
        return jnp.round(blend).astype(dtype)
    # From 2^23 to 2^24 the spacing of float32 is 1. So the sum is rounded to an integer, and its
    # last bits are that integer. Converting float to uint8 would cost as much as everything else.
    return lax.bitcast_convert_type(blend + 1.5 * 2**23, jnp.int32).astype(dtype)


def _conversion(name, dtype, convert, on_cpu):
    """Makes a conversion to `dtype` that JAX treats as linear, whatever `convert` does."""
    primitive = Primitive(name)
    primitive.def_impl(convert)
    primitive.def_abstract_eval(lambda x: x.update(dtype=jnp.dtype(dtype), weak_type=False))
    ad.deflinear2(primitive, lambda cotangent, x: [cotangent.astype(x.aval.dtype)])
    batching.defvectorized(primitive)
    for platform, function in ((None, convert), ("cpu", on_cpu)):
        mlir.register_lowering(primitive, mlir.lower_fun(function, False), platform=platform)
    return primitive.bind


def _widen_bits(x):
    """Converts bfloat16 to float32: its bits become the upper half."""
    bits = lax.bitcast_convert_type(x, jnp.uint16).astype(jnp.uint32)
    return lax.bitcast_convert_type(bits << 16, jnp.float32)


def _narrow_bits(x, any_nan=True):
    """Rounds float32 to the nearest bfloat16, and ties to even."""
    full = lax.bitcast_convert_type(x, jnp.uint32)
    stays = full & 0x1FFFF == 0x8000  # A tie whose lower neighbour is even.
    # GPUs, but not CPUs, produce NaNs of all ones. There a carry would reach the sign.
    stays = stays | jnp.isnan(x) if any_nan else stays
    upper = (jnp.where(stays, full, full + 0x8000) >> 16).astype(jnp.uint16)
    return lax.bitcast_convert_type(upper, jnp.bfloat16)


# bfloat16 needs these conversions. With XLA's own, CPU loops over pixels do not become loops over
# contiguous elements, and the bits of a NaN may change.
_widen = _conversion("widen_bfloat16", jnp.float32, _widen_bits, _widen_bits)
_narrow_on_cpu = functools.partial(_narrow_bits, any_nan=False)
_narrow = _conversion("narrow_to_bfloat16", jnp.bfloat16, _narrow_bits, _narrow_on_cpu)


def _paint_over(images, partners, painted, opacity):
    """Paints in one layout; `painted` is bool, float32, or None for everything.

    A bool mask is kept separate from the share, so that the share is one number per row.
    """
    if painted is not None and painted.dtype != jnp.bool_:
        return mix(_weights(painted, opacity, images.shape), images, partners)
    if opacity is not None:
        return mix(_weights(None, opacity, images.shape), images, partners, painted)
    return partners if painted is None else where(painted, partners, images)


def _painted(region, shape, axes, stretch=1):
    """The painted share of each element: bool or float32 of the rank of `shape`, None for all."""
    if region is None:
        return None
    if isinstance(region, Box):
        return _region.inside(region, shape, axes, stretch)
    return lax.expand_dims(region.painted, [a for a in range(1, len(shape)) if a not in axes])


def _weights(painted, opacity, shape):
    """The original's share of each element, with size 1 along axes where it is constant."""
    opacity = jnp.ones(shape[:1], jnp.float32) if opacity is None else opacity
    opacity = lax.expand_dims(opacity, range(1, len(shape)))
    if painted is None:
        return 1 - opacity
    if painted.dtype == jnp.bool_:
        return jnp.where(painted, 1 - opacity, 1.0)
    return 1 - painted * opacity
