"""Static validation of shapes, dtypes, Python numbers and mode names, never of traced values.

Each check takes `where`, the name of the function that the user called. If the value is valid, most
checks return its normal form. Otherwise they raise an error that states the expected value, the
given value and the remedy.
"""

import contextlib
import functools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

ChannelAxis = int | Literal["auto"] | None
_config: Any = jax.config

# The smallest and the largest positive normal float32. Lambdas and choices are computed in float32,
# and XLA on CPUs treats smaller numbers as 0.
LEAST, LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


def describe(value: Any) -> str:
    """Describes an array by dtype and shape, and any other value by its repr or its type."""
    with contextlib.suppress(Exception):
        if (shape := shape_of(value)) is not None:
            return f"{value.dtype}[{', '.join(map(str, shape))}]"
        if len(text := repr(value)) <= 60:
            return text
    return type(value).__name__


def shape_of(value: Any) -> tuple | None:
    """The shape of an array of any library, or None for any other object; never raises."""
    with contextlib.suppress(Exception):
        return value.shape if isinstance(value.shape, tuple) and hasattr(value, "dtype") else None
    return None


def is_variable(value: Any) -> bool:
    """Whether a value wraps an array, as the variables of Flax do."""
    return hasattr(type(value), "__jax_array__")


def sequence(value: Any, *, arrays: bool = True) -> Any:
    """Converts a sequence or a NumPy array to a tuple, and returns anything else unchanged."""
    if arrays and isinstance(value, np.ndarray) and value.ndim > 0:
        return tuple(value.tolist())
    listed = isinstance(value, Sequence) and not isinstance(value, tuple | str | bytes)
    return tuple(value) if listed else value


def value_error(where: str, wanted: str, got: Any, remedy: str = "") -> ValueError:
    """Makes an error that states the expected value, the given value and the remedy."""
    return ValueError(f"{where}: {wanted}, got {describe(got)}{'; ' if remedy else ''}{remedy}")


def type_error(where: str, wanted: str, got: Any, remedy: str = "") -> TypeError:
    """Makes a TypeError of the same form, for a value of the wrong type."""
    return TypeError(*value_error(where, wanted, got, remedy).args)


def require(holds, where: str, wanted: str, got: Any, remedy: str = "", error=value_error) -> None:
    """Raises an error unless a condition holds."""
    if not holds:
        raise error(where, wanted, got, remedy)


require_type = functools.partial(require, error=type_error)


@contextlib.contextmanager
def renamed(where: str, *calls: str) -> Iterator[None]:
    """Makes errors name `where`, the function that the user called, in place of inner `calls`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        call, _, message = str(error).partition(": ")
        if call in calls:
            error.args = (f"{where}: {message}",)
        raise


def array(where: str, argument: str, value: Any) -> Array | np.ndarray:
    """Checks an array, which must have a batch axis."""
    if is_variable(value):
        value = jnp.asarray(value)
    if not isinstance(value, Array | np.ndarray):
        got, remedy = type(value).__name__, f"pass jnp.asarray({argument})"
        if value is None:
            remedy = "is an argument or a field missing?"
        elif not (isinstance(value, list | tuple) or jax.tree_util.all_leaves([value])):
            remedy = (
                "pass images one by one, as in jax.tree.map(plan.images, tree), labels to "
                "plan.labels and class maps to plan.maps"
            )
        raise TypeError(f"{where}: {argument} must be an array, got {got}; {remedy}")
    require(value.ndim > 0, where, f"{argument} must have a batch axis", value)
    return of_jax(where, argument, value)


def of_jax(where: str, argument: str, value: Any) -> Any:
    """Refuses NumPy arrays with a dtype or a byte order that JAX does not support."""
    if isinstance(value, np.ndarray | np.generic):
        known = hasattr(jnp, value.dtype.name)
        to = f'"{value.dtype.name}"' if known else "..."
        wanted, remedy = "must have a dtype that JAX supports", f"cast it: {argument}.astype({to})"
        fits = known and value.dtype.isnative
        require_type(fits, where, f"{argument} {wanted}", value, remedy)
    return value


def parentheses(value: Any) -> str:
    """The remedy if a class was passed instead of an instance."""
    return f"add parentheses: {value.__name__}()" if isinstance(value, type) else ""


def real(where: str, argument: str, value: Any) -> Any:
    """Checks an array, which must hold real numbers."""
    with contextlib.suppress(AttributeError, TypeError):  # Raised for arrays of other libraries.
        if any(jnp.issubdtype(value.dtype, kind) for kind in (np.floating, np.integer, np.bool_)):
            return value
    raise type_error(where, f"{argument} must hold real numbers", value)


def batch(where: str, argument: str, value: Any, size: Any, of: str) -> None:
    """Checks that an array has the batch size of another array or of a plan."""
    wanted = f"{argument} must have batch size {size}, like {of}"
    require(value.shape[0] == size, where, wanted, value)


def shaped(where: str, argument: str, value: Any, shape: tuple) -> Array:
    """Checks an array, which must have the given shape."""
    value = array(where, argument, value)
    require(value.shape == shape, where, f"{argument} must have the shape {shape}", value)
    return jnp.asarray(value)


def key(where: str, value: Any) -> None:
    """Checks a PRNG key, typed or raw, which must not be a batch of keys."""
    remedy = ""
    if isinstance(value, Array | np.ndarray):
        typed = jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
        raw = _raw_key(_config.jax_default_prng_impl)
        one = () if typed else raw.shape
        if typed or value.dtype == raw.dtype:
            if value.shape == one:
                return
            remedy = "wrap a raw key of another PRNG with jax.random.wrap_key_data(key, impl=...)"
            if value.shape[value.ndim - len(one) :] == one:
                remedy = "pass one of the keys, or use jax.vmap for a batch of keys"
        elif value.shape == one and jnp.issubdtype(value.dtype, np.integer):
            remedy = 'a raw key is uint32: pass key.astype("uint32")'
    elif is_variable(value):
        remedy = "pass the key inside it: key[...]"
    elif callable(value):
        remedy = "call it to get a key, as in rngs() or rngs.mix()"
    wanted = "key, the first argument, must be one PRNG key such as jax.random.key(0)"
    raise type_error(where, wanted, value, remedy)


@functools.cache
def _raw_key(impl: str) -> Any:
    """The shape and the dtype of a raw key."""
    return jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=impl)))


def shape(where: str, value: Any, *, least_rank: int = 1) -> tuple:
    """Checks a static shape of at least `least_rank` axes; sizes may be symbolic (`jax.export`)."""
    sizes = sequence(value, arrays=False)
    static = isinstance(sizes, tuple) and all(is_int(n) or export.is_symbolic_dim(n) for n in sizes)
    traced = "under jit, call this inside the jitted function, or make shape a static argument"
    remedy = "did you mean images.shape?" if shape_of(value) is not None else traced
    require_type(static, where, "shape must be a tuple of ints", value, remedy)
    negative = any(is_int(n) and n < 0 for n in sizes)
    require(not negative, where, "sizes in shape must not be negative", value)
    require(len(sizes) >= least_rank, where, "shape must have a batch axis", value)
    return tuple(int(n) if is_int(n) else n for n in sizes)


def channel(where: str, sizes: tuple, channel_axis: Any, *, region: bool) -> int | None:
    """The position of the channel axis in an array of this shape, counted from the front, or None.

    Pass `region=False` for a plan without a region. Such a plan applies to arrays of any shape, so
    neither an ambiguous layout nor a missing axis is an error.
    """
    rank = len(sizes)
    if isinstance(channel_axis, str) and channel_axis == "auto":
        few = [size in (1, 3, 4) for size in sizes]
        if region and (rank == 3 or (rank > 3 and few[1] and sizes[1] != sizes[2] and not few[-1])):
            other = "None for greyscale [B, H, W]" if rank == 3 else "1 for channels-first"
            remedy = f"pass channel_axis={other}, or channel_axis=-1 if the last axis is channels"
            wanted = f"the layout of images of rank {rank} is ambiguous"
            raise value_error(where, wanted, sizes, remedy)
        return rank - 1 if rank > 1 else None
    if channel_axis is None:
        return None
    wanted = '"auto", -1 (channels-last), 1 (channels-first) or None (no channel axis)'
    require(is_int(channel_axis), where, f"channel_axis must be {wanted}", channel_axis)
    position = int(channel_axis) + (rank if int(channel_axis) < 0 else 0)
    named = 0 < position < rank
    wanted = f"channel_axis={channel_axis} must be an axis other than the batch axis, or None"
    require(named or not region, where, wanted, sizes)
    return position if named else None


def spatial(sizes: tuple, channel: int | None) -> tuple:
    """The sizes of the spatial axes: all but the batch axis and the channel axis."""
    return tuple(n for axis, n in enumerate(sizes) if axis not in (0, channel))


def canvas(where: str, sizes: tuple, channel_axis: Any) -> tuple:
    """The spatial extents of images; raises if no region can be painted on them."""
    extents = spatial(sizes, channel(where, sizes, channel_axis, region=True))
    if not extents or any(is_int(extent) and extent == 0 for extent in extents):
        wanted = "a region needs images with spatial axes of at least one pixel each"
        remedy = "pass channel_axis=None if the last axis is not a channel axis"
        raise value_error(where, wanted, sizes, remedy)
    return extents


def number(where: str, argument: str, value: Any, wanted: str) -> Any:
    """Checks a scalar. Python and NumPy numbers become floats; a `jax.Array` is never read."""
    if isinstance(value, np.generic | np.ndarray) and value.shape == ():
        value = value.item()
    if isinstance(value, int | float | np.floating):  # np.floating is for longdouble.
        # Always a float, so that a program compiled for a float also serves an int.
        small = not isinstance(value, int) or abs(value) < 2**1023
        return float(value) if small else math.copysign(math.inf, value > 0 or -1)
    sizes = shape_of(value)
    if sizes is not None and real(where, argument, value).shape == ():
        return value
    if sizes is not None or isinstance(sequence(value), tuple):
        raise value_error(where, f"{argument} must be a scalar, {wanted}", value)
    raise type_error(where, f"{argument} must be a number, {wanted}", value)


def alpha(where: str, value: Any, argument: str = "alpha") -> Any:
    """Checks the concentration of Beta(alpha, alpha), a scalar."""
    value = number(where, argument, value, "positive and finite")
    fits = not isinstance(value, float) or LEAST <= value <= LARGEST
    mixing = "to switch mixing off use RandomApply(mixer, prob=0.0)"
    remedy = mixing if argument == "alpha" else "0 switches it off"
    require(fits, where, f"{argument} must be positive and finite in float32", value, remedy)
    return value


def fraction(where: str, argument: str, value: Any, *, one: bool = True) -> Any:
    """Checks a fraction: a scalar in [0, 1], or in [0, 1) if `one` is False."""
    interval = "[0, 1]" if one else "[0, 1)"
    value = number(where, argument, value, f"in {interval}")
    if isinstance(value, float) and not (0 <= value < 1 or (one and value == 1)):
        raise value_error(where, f"{argument} must be in {interval}", value)
    return value


def choice(where: str, argument: str, value: Any, choices: tuple[str, ...], more: str = "") -> Any:
    """Checks a name, which must be one of `choices`."""
    if not (isinstance(value, str) and value in choices):
        names = ", ".join(f'"{name}"' for name in choices) + more
        raise value_error(where, f"{argument} must be one of {names}", value)
    return value


def count(where: str, argument: str, value: Any, least: int | None) -> int:
    """Checks a static integer, which must be at least `least`."""
    remedy = "under jit, close over it or name it in static_argnames"
    require_type(is_int(value), where, f"{argument} must be a static Python int", value, remedy)
    reached = least is None or value >= least
    require(reached, where, f"{argument} must be at least {least}", value)
    return operator.index(value)


def counts(where: str, argument: str, value: Any, least: int | None) -> int | tuple[int, ...]:
    """Checks a static integer, or each of several."""
    value = sequence(value)
    if isinstance(value, tuple):
        return tuple(count(where, f"each of {argument}", n, least) for n in value)
    return count(where, argument, value, least)


def is_int(value: Any) -> bool:
    """Whether a value is a static integer; symbolic sizes and bools are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)
