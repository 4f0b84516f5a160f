"""Static validation: shapes, dtypes, Python numbers and names of modes, never traced values.

Every function takes `where`, the name of the call that the user made, and returns what it checked
in its normal form, or raises an error that says what was expected, what came and what to do.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax

# The positive numbers of float32, in which lambdas and choices are computed; smaller ones, which
# are not normal, are 0 to XLA on CPUs.
_LEAST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def describe(value: Any) -> str:
    """The dtype and shape of an array, the value of anything else that is short, or its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__


def array(where: str, argument: str, value: Any) -> jax.Array | np.ndarray:
    """An array with a batch axis."""
    if hasattr(value, "__jax_array__"):
        value = jnp.asarray(value)
    if not isinstance(value, jax.Array | np.ndarray):
        raise TypeError(
            f"{where}: {argument} must be an array, got {type(value).__name__}; "
            f"pass jnp.asarray({argument})"
        )
    if value.ndim == 0:
        raise ValueError(f"{where}: {argument} must have a batch axis, got {describe(value)}")
    return value


def batch(where: str, argument: str, value: Any, size: Any, of: str) -> None:
    """An array whose batch size is the one of another array or of a plan."""
    if value.shape[0] != size:
        raise ValueError(
            f"{where}: {argument} must have the batch size of {of}, {size}, got {describe(value)}"
        )


def key(where: str, value: Any) -> None:
    """One PRNG key, typed or raw."""
    if isinstance(value, jax.Array | np.ndarray):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        if value.ndim == (0 if typed else 1) and (typed or value.dtype == np.uint32):
            return
        if typed:
            raise TypeError(
                f"{where}: key must be one PRNG key, got an array of keys {describe(value)}; "
                "use jax.vmap for batching, or one key such as jax.random.key(0)"
            )
    raise TypeError(
        f"{where}: key must be a PRNG key, the first argument, such as jax.random.key(0), "
        f"got {describe(value)}"
    )


def shape(where: str, value: Any) -> tuple:
    """A static shape; sizes may be symbolic, as in `jax.export`."""
    if hasattr(value, "shape"):
        raise TypeError(
            f"{where}: shape must be a tuple of ints, got an array {describe(value)}; "
            "did you mean images.shape?"
        )
    if not isinstance(value, tuple | list):
        raise TypeError(f"{where}: shape must be a tuple of ints, got {describe(value)}")
    sizes = tuple(value)
    for size in sizes:
        if not (export.is_symbolic_dim(size) or _is_int(size)):
            raise TypeError(f"{where}: shape must be a tuple of ints, got {describe(value)}")
        if _is_int(size) and size < 0:
            raise ValueError(f"{where}: shape must not be negative, got {describe(value)}")
    return sizes


def batched_shape(where: str, value: Any) -> tuple:
    """A static shape with a batch axis."""
    sizes = shape(where, value)
    if not sizes:
        raise ValueError(f"{where}: shape must have a batch axis, got ()")
    return sizes


def channel(where: str, sizes: tuple, channel_axis: Any, region: bool) -> int | None:
    """The position of the channel axis in an array of this shape, counted from the front, or None.

    `region` says whether the answer matters: a plan without a region takes an array of any shape.
    """
    rank = len(sizes)
    if isinstance(channel_axis, str) and channel_axis == "auto":
        if region and rank == 3:
            raise ValueError(
                f"{where}: images of rank 3, here of shape {sizes}, can be read in two ways: pass "
                "channel_axis=None for greyscale [B, H, W], or channel_axis=-1 for [B, T, C]"
            )
        return rank - 1 if rank > 1 else None
    if channel_axis is None:
        return None
    if not _is_int(channel_axis):
        raise ValueError(
            f'{where}: channel_axis must be "auto", -1 (channels-last), 1 (channels-first) or None '
            f"(no channel axis), got {describe(channel_axis)}"
        )
    position = int(channel_axis) + (rank if int(channel_axis) < 0 else 0)
    if 0 < position < rank:
        return position
    if region:
        raise ValueError(
            f"{where}: channel_axis={channel_axis} is no axis behind the batch axis in an array of "
            f"shape {sizes}; pass None if there is no channel axis"
        )
    return None


def extents(where: str, sizes: tuple, channel_axis: Any, region: bool) -> tuple:
    """The sizes of the spatial axes: all but the batch axis and the channel axis."""
    position = channel(where, sizes, channel_axis, region)
    return tuple(n for axis, n in enumerate(sizes) if axis not in (0, position))


def canvas(where: str, sizes: tuple, channel_axis: Any) -> None:
    """The shape of images that a region can be painted on."""
    spatial = extents(where, sizes, channel_axis, True)
    if not spatial:
        raise ValueError(
            f"{where}: a region needs images with at least one spatial axis, got none in the shape "
            f"{sizes}; pass images such as [B, H, W, C], or channel_axis=None if the last axis is "
            "no channel axis"
        )
    if any(_is_int(extent) and extent == 0 for extent in spatial):
        raise ValueError(
            f"{where}: a region needs spatial axes of at least one pixel, got images of shape "
            f"{sizes}"
        )


def number(where: str, argument: str, value: Any, wanted: str) -> Any:
    """A Python number, or an array of shape (): `item()` is called on NumPy's alone."""
    if isinstance(value, np.generic | np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, int | float) or getattr(value, "shape", None) == ():
        return value
    if hasattr(value, "shape") or isinstance(value, tuple | list):
        raise ValueError(f"{where}: {argument} must be a scalar, {wanted}, got {describe(value)}")
    raise TypeError(f"{where}: {argument} must be a number, {wanted}, got {describe(value)}")


def alpha(where: str, value: Any, argument: str = "alpha") -> Any:
    """The concentration of Beta(alpha, alpha), a scalar."""
    value = number(where, argument, value, "positive and finite")
    if isinstance(value, int | float) and not _LEAST <= value <= _LARGEST:
        raise ValueError(
            f"{where}: {argument} must be positive and finite in float32, got {value}; "
            "to switch mixing off use RandomApply(mixer, prob=0.0)"
        )
    return value


def alpha_or_off(where: str, argument: str, value: Any) -> Any:
    """A concentration, or None for the number 0, by which other libraries say off."""
    value = number(where, argument, value, "positive and finite, or 0 for off")
    off = isinstance(value, int | float) and value == 0
    return None if off else alpha(where, value, argument)


def concentration(where: str, value: Any, sizes: tuple) -> Any:
    """The concentrations of draws of shape `sizes`."""
    if getattr(value, "shape", ()) == ():
        return alpha(where, value)
    try:
        fits = np.broadcast_shapes(value.shape, sizes) == sizes
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{where}: alpha must broadcast to shape {sizes}, got {describe(value)}; "
            "pass shape=alpha.shape for one draw each"
        )
    return value


def share(where: str, argument: str, value: Any, *, one: bool = True) -> Any:
    """A probability or a share: a scalar in [0, 1], or in [0, 1) unless `one`."""
    interval = "[0, 1]" if one else "[0, 1)"
    value = number(where, argument, value, f"in {interval}")
    if isinstance(value, int | float) and not (0 <= value < 1 or (one and value == 1)):
        raise ValueError(f"{where}: {argument} must be in {interval}, got {value}")
    return value


def probs(where: str, value: Any, count: int) -> Any:
    """Weights of `count` alternatives: a tuple of scalars, or an array of shape [count]."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not (hasattr(value, "shape") or isinstance(value, tuple | list)):
        raise TypeError(f"{where}: probs must be a sequence of numbers, got {describe(value)}")
    sizes = (len(value),) if isinstance(value, tuple | list) else value.shape
    if sizes != (count,):
        raise ValueError(
            f"{where}: probs must have one number for each of the {count} mixers, "
            f"got {describe(value)}"
        )
    if not isinstance(value, tuple | list):
        return value
    value = tuple(number(where, "each of probs", prob, "not negative") for prob in value)
    known = [prob for prob in value if isinstance(prob, int | float)]
    if any(not (prob == 0 or _LEAST <= prob) for prob in known) or sum(known) > _LARGEST:
        raise ValueError(f"{where}: probs must be finite and not negative, in float32, got {value}")
    if len(known) == count and not sum(known) > 0:
        raise ValueError(f"{where}: probs must not all be zero, got {value}")
    return value


def minmax(where: str, value: Any, argument: str = "minmax") -> tuple:
    """The bounds of a side's share."""
    if not (isinstance(value, tuple | list) and len(value) == 2):
        raise ValueError(
            f"{where}: {argument} must be a pair (a, b) of shares, got {describe(value)}"
        )
    low, high = (share(where, f"each of {argument}", bound) for bound in value)
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ValueError(
            f"{where}: {argument} must be a pair (a, b) with a <= b, got {(low, high)}"
        )
    return low, high


def choice(where: str, argument: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of a few names."""
    if not (isinstance(value, str) and value in choices):
        names = ", ".join(f'"{name}"' for name in choices)
        raise ValueError(f"{where}: {argument} must be one of {names}, got {describe(value)}")
    return value


def flag(where: str, argument: str, value: Any) -> bool:
    """A static yes or no."""
    if not isinstance(value, bool):
        raise TypeError(f"{where}: {argument} must be True or False, got {describe(value)}")
    return value


def count(where: str, argument: str, value: Any, least: int | None) -> int:
    """A static integer."""
    if not _is_int(value):
        raise TypeError(
            f"{where}: {argument} must be a static Python int, got {describe(value)}; it shapes "
            "the program, so under jit close over it or name it in static_argnames"
        )
    if least is not None and value < least:
        raise ValueError(f"{where}: {argument} must be at least {least}, got {value}")
    return operator.index(value)


def counts(where: str, argument: str, value: Any, least: int | None) -> int | tuple[int, ...]:
    """A static integer, or several."""
    if isinstance(value, tuple | list):
        return tuple(count(where, f"each of {argument}", n, least) for n in value)
    return count(where, argument, value, least)


def limited(where: str, axes: Any, spatial: tuple) -> tuple[int, ...]:
    """The spatial axes that a box limits, counted from the front; all for None."""
    rank = len(spatial)
    if axes is None:
        return tuple(range(rank))
    named = (axes,) if isinstance(axes, int) else axes
    positions = tuple(axis + rank if axis < 0 else axis for axis in named)
    if not positions or sorted(set(positions) & set(range(rank))) != sorted(positions):
        raise ValueError(
            f"{where}: axes={axes} must name one or more of the {rank} spatial axes of images of "
            f"extents {spatial}, each once, counted from 0 among them"
        )
    return positions


def grid(where: str, value: Any, extents: tuple) -> tuple[int, ...]:
    """The side of a cell along each axis, a divisor of its extent."""
    sides = value if isinstance(value, tuple) else (value,) * len(extents)
    if len(sides) != len(extents) or any(n % side for n, side in zip(extents, sides, strict=True)):
        raise ValueError(
            f"{where}: grid={value} must divide the extents {extents} that the box limits; resize "
            "or pad the images, or choose another grid"
        )
    return sides


def axis_name(where: str, value: Any) -> None:
    """The name of a mapped axis."""
    if not isinstance(value, str):
        raise TypeError(
            f"{where}: axis_name must be the name of one axis of jax.pmap or jax.shard_map, "
            f"got {describe(value)}; over two axes nest one in the other's local"
        )


def axis_size(where: str, name: str) -> int:
    """The size of a mapped axis that has somebody to exchange with."""
    try:
        size = lax.axis_size(name)
    except NameError:
        raise ValueError(
            f"{where}: the axis {name!r} of Neighbour is not bound here; it must be one that "
            "jax.pmap or jax.shard_map maps over, by the name it has there; under jax.jit with "
            "shardings use Flip() or Roll(), which reach other devices by themselves"
        ) from None
    if size == 1:
        raise ValueError(
            f"{where}: the axis {name!r} of Neighbour has size 1, so that nobody is next; on one "
            "device use Flip() or Roll()"
        )
    return size


def floating(where: str, dtype: Any) -> np.dtype:
    """A floating dtype, in the precision that is enabled."""
    if not jnp.issubdtype(dtype, jnp.floating):
        raise TypeError(f"{where}: dtype must be a floating dtype, got {dtype}")
    return jax.dtypes.canonicalize_dtype(dtype)


def labels(where: str, value: Any, num_classes: Any) -> jax.Array | np.ndarray:
    """Class ids int[B], or dense labels [B, K]."""
    value = array(where, "labels", value)
    ids = jnp.issubdtype(value.dtype, jnp.integer)
    if value.ndim > 2:
        raise TypeError(
            f"{where}: labels must be class ids int[B] or dense [B, K], got {describe(value)}; "
            "integer maps go to plan.maps, real-valued ones to plan.images"
        )
    if num_classes is not None:
        num_classes = count(where, "num_classes", num_classes, 1)
    if value.ndim == 2:
        if ids and value.shape[1] == 1:
            raise ValueError(
                f"{where}: labels {describe(value)} could be class ids or one-hot: squeeze class "
                "ids to int[B], cast regression targets to float"
            )
        if num_classes not in (None, value.shape[1]):
            raise ValueError(
                f"{where}: num_classes={num_classes} differs from the K of labels "
                f"{describe(value)}; leave num_classes out for dense labels"
            )
        return value
    if not ids:
        raise TypeError(
            f"{where}: labels of rank 1 must be class ids, which are integers, got "
            f"{describe(value)}; regression targets are float[B, 1]"
        )
    if num_classes is None:
        raise ValueError(f"{where}: class ids {describe(value)} need num_classes")
    if isinstance(value, np.ndarray) and value.size and value.max() >= num_classes:
        raise ValueError(
            f"{where}: class ids must be below num_classes={num_classes}, got {value.max()}"
        )
    return value


def smoothing(where: str, value: Any, dense_width: Any) -> Any:
    """Label smoothing, which a regression target of width 1 has no use for."""
    value = share(where, "smoothing", value, one=False)
    if dense_width == 1 and not (isinstance(value, int | float) and value == 0):
        raise ValueError(f"{where}: smoothing spreads over classes; labels [B, 1] have none")
    return value


def donors(where: str, argument: str, value: Any, like: jax.Array) -> jax.Array | None:
    """Another batch of the same shape and dtype."""
    if value is None:
        return None
    value = jnp.asarray(array(where, "donors", value))
    if value.shape != like.shape:
        raise ValueError(
            f"{where}: donors must have the shape of {argument}, {like.shape}, "
            f"got {describe(value)}"
        )
    if value.dtype != like.dtype:
        raise TypeError(
            f"{where}: donors must have the dtype of {argument}, {like.dtype}, "
            f"got {describe(value)}; cast one of them"
        )
    layout(where, argument, like, value)
    return value


def layout(where: str, argument: str, like: jax.Array, donors: jax.Array) -> None:
    """Donors that are split over an Explicit mesh as what they are mixed with is."""
    specs = []
    for x in (like, donors):
        sharding = explicit_sharding(x)
        specs.append((None,) * x.ndim if sharding is None else (*sharding.spec,))
    if any(one != other for one, other in zip(*specs, strict=False)):
        raise ValueError(
            f"{where}: donors must be laid out over the mesh as {argument} are, P{specs[0]}, got "
            f"P{specs[1]}; jax.sharding.reshard moves them"
        )


def explicit_sharding(x: jax.Array) -> Any:
    """The sharding of `x` if its mesh has axes in Explicit mode, else None."""
    sharding = jax.typeof(x).sharding
    types = sharding.mesh.axis_types if isinstance(sharding, jax.sharding.NamedSharding) else ()
    return sharding if jax.sharding.AxisType.Explicit in types else None


def is_split(x: jax.Array, axis: int = 0) -> bool:
    """Whether an Explicit mesh splits `x` along `axis` or a later one."""
    sharding = explicit_sharding(x)
    return sharding is not None and any(name is not None for name in sharding.spec[axis:])


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
