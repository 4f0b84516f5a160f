"""Regions: where the partner is painted, and how CutMix draws boxes."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxmix import _checks, _sharding
from jaxmix._pytree import STATIC, pytree
from jaxmix._sharding import where_rows

BoxLaw = Literal["paper", "timm", "contained"]
BOX_LAWS = get_args(BoxLaw)

# The start and the stop that mark a box drawn from NaN. Integers have no NaN, and such a box must
# not look like an empty one. No intended box ends so far before it starts.
LOST = 2**31 - 1, -(2**31)


@pytree(eq=False)
class Box:
    """A box for each row, in integer pixel bounds per spatial axis.

    Attributes:
        start: int32[B, n], the first painted pixel along each of the n spatial axes.
        stop: int32[B, n], one past the last painted pixel.
        grid: a number of pixels for each axis, or one for all axes. Every edge is a multiple of
            it; `Plan.at` relies on this.

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> box = jaxmix.Box(start=jnp.array([[0, 2]]), stop=jnp.array([[4, 4]]))
        >>> plan = jaxmix.Plan.of((1, 4, 4, 3), jaxmix.Roll(), region=box)
        >>> print(plan.lam)
        [0.5]
    """

    start: Array | np.ndarray
    stop: Array | np.ndarray
    grid: Any = dataclasses.field(default=1, metadata=STATIC)  # An int, or an int for each axis.

    def __post_init__(self):
        object.__setattr__(self, "grid", _checks.counts("Box", "grid", self.grid, 1))


@pytree(eq=False)
class Mask:
    """A region of any shape: how much of each pixel is painted.

    Attributes:
        painted: bool[B, *spatial], or float32[B, *spatial] in [0, 1].

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> mask = jaxmix.Mask(jnp.array([[[True, False], [False, False]]]))
        >>> print(jaxmix.Plan.of((1, 2, 2, 3), jaxmix.Roll(), region=mask).lam)
        [0.75]
    """

    painted: Array | np.ndarray


Region = Box | Mask | None
Painted = tuple[Region, Array | None]  # None is opaque.


def box_of_area(
    area: Array, places: Array, law: BoxLaw, spatial: tuple, axes: tuple, grid: tuple
) -> Box:
    """Makes a box for each row that covers a fraction of the image, before it is clipped.

    Boxes consist of cells of `grid` pixels along the n axes that they limit. They span the other
    axes.

    Args:
        area: float32[rows], the fraction of the image.
        places: float32[rows, n] in [0, 1): where the box lies along each axis.
        law: one of `BOX_LAWS`.
        spatial: the extents in pixels.
        axes: the n spatial axes that are limited.
        grid: the n sides of a cell in pixels, each a divisor of its extent.
    """
    n, extents = len(axes), _cells_along(spatial, axes, grid)
    area = area[:, None]
    sides = extents * (jnp.sqrt(area) if n == 2 else area ** (1 / max(n, 1)))
    if law == "contained":
        box = _contained(jnp.round(sides), places, extents)
    else:
        box = _centred(jnp.floor(sides), places, extents, keep_odd=law == "timm")
    return _in_pixels(box, sides, spatial, axes, grid)


def box_between(
    minmax: Sequence, sides: Array, places: Array, spatial: tuple, axes: tuple, grid: tuple
) -> Box:
    """Makes boxes with sides between two fractions of the extents, from uniform `sides`."""
    extents = _cells_along(spatial, axes, grid)
    low, high = (jnp.floor(extents * jnp.asarray(bound).astype(jnp.float32)) for bound in minmax)
    sides = low + jnp.floor(sides * (high - low))
    return _in_pixels(_contained(sides, places, extents), sides, spatial, axes, grid)


def _cells_along(spatial: tuple, axes: tuple, grid: tuple) -> Array:
    """float32[1, n]: the number of cells along each of `axes`."""
    counts = [spatial[axis] // side for axis, side in zip(axes, grid, strict=True)]
    return jnp.array([counts]).astype(jnp.float32)


def _in_pixels(box: Box, sides: Array, spatial: tuple, axes: tuple, grid: tuple) -> Box:
    """Converts boxes over `axes`, in cells, to all axes, in pixels; `LOST` if a side is NaN."""
    if any(side > 1 for side in grid):
        pixels = jnp.array([grid], jnp.int32)
        box = Box(box.start * pixels, box.stop * pixels)
    lost = jnp.isnan(sides)
    box = Box(jnp.where(lost, LOST[0], box.start), jnp.where(lost, LOST[1], box.stop), grid)
    if axes == tuple(range(len(spatial))):
        return box
    whole, columns = full_box(box.start.shape[0], spatial), jnp.array(axes)
    start = jnp.asarray(whole.start).at[:, columns].set(box.start)
    stop = jnp.asarray(whole.stop).at[:, columns].set(box.stop)
    grid = tuple(grid[axes.index(a)] if a in axes else n for a, n in enumerate(whole.grid))
    return Box(start, stop, grid)


def _centred(sides: Array, uniforms: Array, extents: Array, keep_odd: bool) -> Box:
    """Makes boxes around a uniform centre pixel, which the caller clips at the border."""
    sides = sides.astype(jnp.int32)
    centre = jnp.floor(uniforms * extents).astype(jnp.int32)
    half = sides >> 1
    return Box(centre - half, centre + (sides - half if keep_odd else half))


def _contained(sides: Array, uniforms: Array, extents: Array) -> Box:
    """Makes boxes inside the image, with all positions equally likely."""
    start = jnp.floor(uniforms * (extents - sides + 1)).astype(jnp.int32)
    return Box(start, start + sides.astype(jnp.int32))


def full_box(batch: Any, spatial: tuple) -> Box:
    """The box of the whole image."""
    start = jnp.zeros((batch, len(spatial)), jnp.int32)
    grid = tuple(n if isinstance(n, int) else 1 for n in spatial)  # It has no edge inside.
    return Box(start, start + jnp.array([spatial], jnp.int32), grid)


def on_one_grid(boxes: list[Box]) -> list[Box]:
    """Gives boxes the same grid, on which all their edges lie."""
    grid = tuple(math.gcd(*sides) for sides in zip(*(box.grid for box in boxes), strict=True))
    return [dataclasses.replace(box, grid=grid) for box in boxes]


def at(box: Box, spatial: tuple, extents: tuple) -> Box | None:
    """Rescales boxes from `spatial` to `extents`; None if an edge may fall inside a pixel."""
    sides = [(g * n, m) for g, n, m in zip(box.grid, extents, spatial, strict=True)]
    if any(side % m for side, m in sides):
        return None
    grid = tuple(side // m for side, m in sides)
    cells, pixels = jnp.array([box.grid], jnp.int32), jnp.array([grid], jnp.int32)
    return Box(box.start // cells * pixels, box.stop // cells * pixels, grid)


def as_mask(region: Box | Mask, spatial: tuple) -> Mask:
    """Converts a region to a mask."""
    if isinstance(region, Mask):
        return region
    batch = region.start.shape[0]
    painted = inside(clip(region, spatial), (batch, *spatial), tuple(range(1, len(spatial) + 1)))
    return Mask(jnp.broadcast_to(painted, (batch, *spatial)))


def switch_off(region: Region, opacity: Array | None, off: Array) -> Painted:
    """Paints nothing in the rows where bool[B] `off` is True.

    If there is a region, it is emptied in these rows. If not, the opacity is set to 0. So an opaque
    region stays opaque, and a blend of whole images gets no region.
    """
    if region is not None:
        emptied = jax.tree.map(lambda x: where_rows(off, jnp.zeros((), x.dtype), x), region)
        return emptied, opacity
    opacity = jnp.ones(off.shape, jnp.float32) if opacity is None else opacity
    return None, jnp.where(off, 0.0, opacity)


def clip(box: Box, spatial: tuple) -> Box:
    """Clips boxes to the image."""
    extents = jnp.array([spatial], jnp.int32)
    start = jnp.clip(box.start, 0, extents)
    return Box(start, jnp.clip(box.stop, start, extents), box.grid)


def overlap(region: Box | Mask, valid: Box | Mask, spatial: tuple) -> Box | Mask:
    """The part of a region that is valid. It is a box only if both are boxes."""
    if isinstance(region, Box) and isinstance(valid, Box):
        one, other = on_one_grid([region, valid])
        start, stop = jnp.maximum(one.start, other.start), jnp.minimum(one.stop, other.stop)
        return Box(start, stop, one.grid)
    known, painted = (jnp.asarray(as_mask(r, spatial).painted) for r in (valid, region))
    painted = _sharding.spread_like(known, painted)
    return Mask(jnp.where(known, painted, jnp.zeros((), painted.dtype)))


def _count(region: Box | Mask) -> Array:
    """float32[B]: the painted area in pixels; exact up to 2^24 if whole pixels are painted."""
    if isinstance(region, Mask):
        axes = tuple(range(1, region.painted.ndim))
        return jnp.sum(region.painted, axis=axes, dtype=jnp.float32)
    return jnp.prod((region.stop - region.start).astype(jnp.float32), axis=1)


def settle(region: Box | Mask, spatial: tuple, valid: Region = None) -> tuple[Box | Mask, Array]:
    """Clips a region to the image, and computes float32[B], the original's share of it.

    The share counts all pixels, or the valid ones only. It is 1 if there are none.
    """
    if isinstance(region, Mask):
        soft, lost = region.painted.dtype != jnp.bool_, False
        region = Mask(jnp.clip(region.painted, 0, 1)) if soft else region
    else:
        lost = jnp.any((region.start == LOST[0]) & (region.stop == LOST[1]), axis=1)
        region = clip(region, spatial)
    count, total = _count(region), math.prod(spatial)
    if valid is not None:
        total = _count(clip(valid, spatial) if isinstance(valid, Box) else valid)
        total = jnp.where(total == 0, 1, total)
    kept = total - count
    # The denominator is written as a sum because XLA divides by a constant inexactly. On a GPU the
    # quotient may be off by a unit in the last place, which is a pixel of a large image.
    share, total = kept / (kept + count), kept + count
    share = lax.platform_dependent(share, kept, total, cpu=lambda share, *_: share, default=refined)
    return region, jnp.where(lost, jnp.nan, share)


def refined(quotient: Array, dividend: Array, divisor: Array) -> Array:
    """Improves an approximate quotient by one step of Newton's method."""
    return quotient + (dividend - quotient * divisor) / divisor


def inside(box: Box, shape: tuple, axes: tuple[int, ...], stretch: int = 1) -> Array:
    """Whether each element lies in its row's box: bool of the rank of `shape`.

    Its size is 1 along axes other than `axes`. Each axis needs only one comparison, because an
    index before the start wraps around to a large number. The box must be clipped. `stretch` is the
    number of elements per pixel along the last of `axes`, if channels were folded into that axis.
    """
    rank = len(shape)
    starts = box.start.astype(jnp.uint32)
    sizes = box.stop.astype(jnp.uint32) - starts
    result = whole = jnp.ones((1,) * rank, bool)
    for d, axis in enumerate(axes):
        start, size = (lax.expand_dims(x[:, d], range(1, rank)) for x in (starts, sizes))
        if stretch > 1 and axis == axes[-1]:
            start, size = start * stretch, size * stretch
        along = [n if a == axis else 1 for a, n in enumerate(shape)]
        index = lax.broadcasted_iota(jnp.uint32, along, axis)
        result &= index - start < size
        whole &= size >= shape[axis]
    # `whole` is one bool per row. For rows without a border inside, such as those of a MixUp in a
    # RandomChoice with CutMix, compilers then make a loop without comparisons.
    return whole | result


def checked(where: str, region: Any, batch: Any, spatial: tuple) -> Region:
    """Checks a region for `batch` rows, and converts it to int32, bool or float32."""
    if region is None:
        return None
    if isinstance(region, Mask):
        painted = _checks.shaped(where, "Mask.painted", region.painted, (batch, *spatial))
        if painted.dtype == jnp.bool_:
            return Mask(painted)
        if not jnp.issubdtype(painted.dtype, jnp.floating):
            raise _checks.type_error(where, "Mask.painted must be bool or float32", painted)
        return Mask(painted.astype(jnp.float32))
    if not isinstance(region, Box):
        raise _checks.type_error(where, "region must be a Box, a Mask or None", region)
    edges = []
    for name in ("start", "stop"):
        edge = _checks.array(where, f"Box.{name}", getattr(region, name))
        if not jnp.issubdtype(edge.dtype, jnp.integer):
            raise _checks.type_error(where, f"Box.{name} must be integer pixel bounds", edge)
        if edge.dtype != jnp.int32:  # Clip first: other values would wrap around.
            info = jnp.iinfo(edge.dtype)
            edge = edge.clip(max(info.min, 1 - 2**31), min(info.max, 2**31 - 1)).astype(jnp.int32)
        edges.append(_checks.shaped(where, f"Box.{name}", edge, (batch, len(spatial))))
    return Box(edges[0], edges[1], cells(where, region.grid, spatial))


def checked_opacity(where: str, opacity: Any, batch: Any) -> Array | None:
    """Checks the opacity of each row."""
    if opacity is None:
        return None
    number = isinstance(opacity, int | float) or _checks.shape_of(opacity) == ()
    wanted, remedy = f"opacity must have the shape {(batch,)}", "use jnp.full((rows,), opacity)"
    _checks.require(not number, where, wanted, opacity, remedy)
    return numbers_of_rows(where, "opacity", opacity, batch)


def numbers_of_rows(where: str, argument: str, value: Any, batch: Any) -> Array:
    """Checks a number for each row, and converts it to float32."""
    value = _checks.shaped(where, argument, value, (batch,))
    return _checks.real(where, argument, value).astype(jnp.float32)


def limited_axes(where: str, axes: Any, spatial: tuple) -> tuple[int, ...]:
    """The spatial axes that a box limits, counted from the front; None is all axes."""
    rank = len(spatial)
    if axes is None:
        return tuple(range(rank))
    named = (axes,) if isinstance(axes, int) else axes
    positions = tuple(axis + rank if axis < 0 else axis for axis in named)
    if not positions or sorted(set(positions) & set(range(rank))) != sorted(positions):
        wanted = f"axes={axes} must name one or more spatial axes, 0 to {rank - 1}, each once"
        raise _checks.value_error(where, wanted, spatial)
    return positions


def cells(where: str, grid: Any, extents: tuple) -> tuple[int, ...]:
    """The side of a cell along each axis; raises unless it divides the extent."""
    sides = grid if isinstance(grid, tuple) else (grid,) * len(extents)
    if len(sides) != len(extents) or any(n % m != 0 for n, m in zip(extents, sides, strict=True)):
        wanted = f"grid={grid} must divide the extents {extents} that the box limits"
        remedy = "resize or pad the images, choose another grid, or make symbolic extents static"
        raise ValueError(f"{where}: {wanted}; {remedy}")
    return sides


def minmax(where: str, value: Any, argument: str = "minmax") -> tuple:
    """Checks the bounds of each side, as fractions of the extent."""
    value = _checks.sequence(value)
    if not (isinstance(value, tuple) and len(value) == 2):
        raise _checks.value_error(where, f"{argument} must be a pair (a, b) of fractions", value)
    low, high = (_checks.fraction(where, f"each of {argument}", bound) for bound in value)
    if isinstance(low, float) and isinstance(high, float) and low > high:
        raise _checks.value_error(where, f"{argument} must be (a, b) with a <= b", (low, high))
    return low, high
