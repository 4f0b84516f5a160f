"""Static validation: shapes, dtypes, Python numbers and names of modes, never traced values.

The checks take `where`, the name of the call that the user made. They return what they checked in
its normal form, or raise an error that says what was expected, what came and what to do.
"""

import contextlib
import math
import operator
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

ChannelAxis = int | Literal["auto"] | None

# The positive numbers of float32, in which lambdas and choices are computed; smaller ones, which
# are not normal, are 0 to XLA on CPUs.
LEAST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def describe(value: Any) -> str:
    """The dtype and shape of an array, the value of anything else that is short, or its type."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}[{', '.join(map(str, value.shape))}]"
    text = repr(value)
    return text if len(text) <= 60 else type(value).__name__


def value_error(where: str, wanted: str, got: Any, remedy: str = "") -> ValueError:
    """The error that says what was expected, what came and what to do."""
    return ValueError(f"{where}: {wanted}, got {describe(got)}{'; ' if remedy else ''}{remedy}")


def type_error(where: str, wanted: str, got: Any, remedy: str = "") -> TypeError:
    """The same for something of the wrong type."""
    return TypeError(*value_error(where, wanted, got, remedy).args)


@contextlib.contextmanager
def renamed(where: str, *calls: str) -> Iterator[None]:
    """Lets the errors of `calls` name the call that the user made, `where`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        call, _, message = str(error).partition(": ")
        if call in calls:
            error.args = (f"{where}: {message}",)
        raise


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
        raise value_error(where, f"{argument} must have a batch axis", value)
    return value


def real(where: str, argument: str, value: Any) -> Any:
    """An array of real numbers."""
    with contextlib.suppress(AttributeError, TypeError):  # As of an array of another library.
        if any(jnp.issubdtype(value.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
            return value
    raise type_error(where, f"{argument} must be real numbers", value)


def batch(where: str, argument: str, value: Any, size: Any, of: str) -> None:
    """An array whose batch size is the one of another array or of a plan."""
    if value.shape[0] != size:
        raise value_error(where, f"{argument} must have the batch size of {of}, {size}", value)


def shaped(where: str, argument: str, value: Any, shape: tuple) -> jax.Array:
    """An array of that shape."""
    value = array(where, argument, value)
    if value.shape != shape:
        raise value_error(where, f"{argument} must have the shape {shape}", value)
    return jnp.asarray(value)


def key(where: str, value: Any) -> None:
    """One PRNG key, typed or raw."""
    if isinstance(value, jax.Array | np.ndarray):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        if value.ndim == (0 if typed else 1) and (typed or value.dtype == np.uint32):
            return
        if typed:
            remedy = "use jax.vmap for batching, or one key such as jax.random.key(0)"
            raise type_error(where, "key must be one PRNG key", value, remedy)
    wanted = "key must be a PRNG key, the first argument, such as jax.random.key(0)"
    raise type_error(where, wanted, value)


def shape(where: str, value: Any, *, least_rank: int = 1) -> tuple:
    """A static shape, with a batch axis by default; sizes may be symbolic, as in `jax.export`."""
    listed = isinstance(value, tuple | list)
    if not listed or not all(export.is_symbolic_dim(n) or _is_int(n) for n in value):
        remedy = "did you mean images.shape?" if hasattr(value, "shape") else ""
        raise type_error(where, "shape must be a tuple of ints", value, remedy)
    if any(_is_int(n) and n < 0 for n in value):
        raise value_error(where, "shape must not be negative", value)
    if len(value) < least_rank:
        raise value_error(where, "shape must have a batch axis", value)
    return tuple(value)


def channel(where: str, sizes: tuple, channel_axis: Any, *, region: bool) -> int | None:
    """The position of the channel axis in an array of this shape, counted from the front, or None.

    `region` says whether the answer matters: a plan without a region takes an array of any shape.
    """
    rank = len(sizes)
    if isinstance(channel_axis, str) and channel_axis == "auto":
        few = [size in (1, 3, 4) for size in sizes]
        if region and (rank == 3 or (rank > 3 and few[1] and sizes[1] != sizes[2] and not few[-1])):
            other = "None for greyscale [B, H, W]" if rank == 3 else "1 for channels-first"
            remedy = f"pass channel_axis={other}, or channel_axis=-1 if the last axis is channels"
            wanted = f"images of rank {rank} can be read in two ways"
            raise value_error(where, wanted, sizes, remedy)
        return rank - 1 if rank > 1 else None
    if channel_axis is None:
        return None
    if not _is_int(channel_axis):
        wanted = '"auto", -1 (channels-last), 1 (channels-first) or None (no channel axis)'
        raise value_error(where, f"channel_axis must be {wanted}", channel_axis)
    position = int(channel_axis) + (rank if int(channel_axis) < 0 else 0)
    if 0 < position < rank:
        return position
    if region:
        raise ValueError(
            f"{where}: channel_axis={channel_axis} is not valid for shape {sizes}: it must be from "
            f"1 to {rank - 1}, or from {1 - rank} to -1, or None if there is no channel axis"
        )
    return None


def spatial(sizes: tuple, channel: int | None) -> tuple:
    """The sizes of the spatial axes: all but the batch axis and the channel axis."""
    return tuple(n for axis, n in enumerate(sizes) if axis not in (0, channel))


def canvas(where: str, sizes: tuple, channel_axis: Any) -> tuple:
    """The spatial extents of images that a region can be painted on."""
    extents = spatial(sizes, channel(where, sizes, channel_axis, region=True))
    if not extents or any(_is_int(extent) and extent == 0 for extent in extents):
        wanted = "a region needs images with spatial axes, each of at least one pixel"
        remedy = "pass channel_axis=None if the last axis is no channel axis"
        raise value_error(where, wanted, sizes, remedy)
    return extents


def number(where: str, argument: str, value: Any, wanted: str) -> Any:
    """A Python number, as a float, or an array of shape (); a `jax.Array` is never read back."""
    if isinstance(value, np.generic | np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, int | float):
        # One type, so that a program which was compiled for a float serves an int, too.
        small = isinstance(value, float) or abs(value) < 2**1023
        return float(value) if small else math.copysign(math.inf, value > 0 or -1)
    if getattr(value, "shape", None) == ():
        return real(where, argument, value)
    if hasattr(value, "shape") or isinstance(value, tuple | list):
        raise value_error(where, f"{argument} must be a scalar, {wanted}", value)
    raise type_error(where, f"{argument} must be a number, {wanted}", value)


def alpha(where: str, value: Any, argument: str = "alpha") -> Any:
    """The concentration of Beta(alpha, alpha), a scalar."""
    value = number(where, argument, value, "positive and finite")
    if isinstance(value, float) and not LEAST <= value <= LARGEST:
        remedy = "to switch mixing off use RandomApply(mixer, prob=0.0)"
        wanted = f"{argument} must be positive and finite in float32"
        raise value_error(where, wanted, value, remedy)
    return value


def fraction(where: str, argument: str, value: Any, *, one: bool = True) -> Any:
    """A probability or another fraction: a scalar in [0, 1], or in [0, 1) unless `one`."""
    interval = "[0, 1]" if one else "[0, 1)"
    value = number(where, argument, value, f"in {interval}")
    if isinstance(value, float) and not (0 <= value < 1 or (one and value == 1)):
        raise value_error(where, f"{argument} must be in {interval}", value)
    return value


def choice(where: str, argument: str, value: Any, choices: tuple[str, ...]) -> Any:
    """One of a few names."""
    if not (isinstance(value, str) and value in choices):
        names = ", ".join(f'"{name}"' for name in choices)
        raise value_error(where, f"{argument} must be one of {names}", value)
    return value


def count(where: str, argument: str, value: Any, least: int | None) -> int:
    """A static integer."""
    if not _is_int(value):
        remedy = "it shapes the program, so under jit close over it or name it in static_argnames"
        raise type_error(where, f"{argument} must be a static Python int", value, remedy)
    if least is not None and value < least:
        raise value_error(where, f"{argument} must be at least {least}", value)
    return operator.index(value)


def counts(where: str, argument: str, value: Any, least: int | None) -> int | tuple[int, ...]:
    """A static integer, or several."""
    if isinstance(value, tuple | list):
        return tuple(count(where, f"each of {argument}", n, least) for n in value)
    return count(where, argument, value, least)


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
