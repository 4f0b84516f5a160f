"""Meshes: how arrays are split over devices, and how to give one array another's sharding.

Under an Explicit mesh the sharding of an array is part of its type, and operations raise if they
cannot determine the sharding of the result. Under an Auto mesh XLA decides, and most of these
functions change nothing.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def explicit(x: Array) -> NamedSharding | None:
    """The sharding of `x` if its mesh has axes in Explicit mode, else None."""
    sharding = jax.typeof(x).sharding
    types = sharding.mesh.axis_types if isinstance(sharding, NamedSharding) else ()
    return sharding if AxisType.Explicit in types else None


def is_split(x: Array, axis: int = 0) -> bool:
    """Whether an Explicit mesh splits `x` along `axis` or a later one."""
    sharding = explicit(x)
    return sharding is not None and any(name is not None for name in sharding.spec[axis:])


def parts(x: Array) -> int:
    """The number of shards that the rows of `x` have, or can have at most where XLA decides."""
    sharding = jax.typeof(x).sharding
    if not isinstance(sharding, NamedSharding) or sharding.mesh.empty:
        return jax.device_count()
    mesh, rows = sharding.mesh, sharding.spec[0] if sharding.spec else None
    names = rows if isinstance(rows, tuple) else (rows,)
    axes = zip(mesh.axis_names, mesh.axis_sizes, mesh.axis_types, strict=True)
    return math.prod(n for name, n, kind in axes if kind is AxisType.Auto or name in names)


def spread_like(x: Array, values: Array) -> Array:
    """Shards `values` as an Explicit mesh shards `x`, except along axes where its size is 1."""
    sharding = explicit(x)
    if sharding is None:
        return values
    sizes = zip(sharding.spec, values.shape, x.shape, strict=False)
    spec = PartitionSpec(*(name if size == of else None for name, size, of in sizes))
    return jax.sharding.reshard(values, NamedSharding(sharding.mesh, spec))


def with_whole_rows(x: Array) -> Array:
    """Reshards an array so that an Explicit mesh does not split its rows."""
    sharding = explicit(x)
    if sharding is None or sharding.spec[0] is None:
        return x
    spec = PartitionSpec(None, *sharding.spec[1:])
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec))


def keep_sharding(rearrange: Callable[[Any], Any], x: Array) -> Any:
    """Computes `rearrange(x)` with the sharding of `x`, using Auto axes on Explicit meshes."""
    sharding = explicit(x)
    if sharding is None:
        return rearrange(x)
    types = zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True)
    axes = tuple(name for name, kind in types if kind is AxisType.Explicit)
    return jax.sharding.auto_axes(rearrange, axes=axes, out_sharding=sharding)(x)


def rows_at(x: Array, index: Array) -> Array:
    """Gathers rows of `x` at an index within bounds; an Explicit mesh shards them like `x`."""
    split = any(map(is_split, (x, index)))
    # If nothing is split, an explicit sharding would break the gradient in a `jax.shard_map` over
    # some of the axes of an Explicit mesh.
    return x.at[index].get(mode="promise_in_bounds", out_sharding=explicit(x) if split else None)


def check_alike(where: str, argument: str, like: Array, donors: Array) -> None:
    """Raises unless an Explicit mesh shards donors like the array that they are mixed with."""
    specs = [(*s.spec,) if (s := explicit(x)) else (None,) * x.ndim for x in (like, donors)]
    if any(one != other for one, other in zip(*specs, strict=False)):
        wanted = f"donors must be sharded like {argument}, P{specs[0]}"
        raise ValueError(f"{where}: {wanted}, got P{specs[1]}; use jax.sharding.reshard")


def where(condition: Array, yes: Array, no: Array) -> Array:
    """`jnp.where` for a condition that may have another sharding than the arrays."""
    return jnp.where(spread_like(no, condition), yes, no)


def where_rows(condition: Array, yes: Array, no: Array) -> Array:
    """Chooses whole rows by a condition, bool[B]."""
    return where(lax.expand_dims(condition, range(1, no.ndim)), yes, no)
