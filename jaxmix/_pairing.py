"""Pairings: which row is mixed with which.

A pairing stays symbolic until it is applied. When a batch is sharded over devices, XLA compiles a
flip or a roll to messages between pairs of devices. It would compile an index array to a gather of
the whole batch.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxmix import _checks, _sharding
from jaxmix._pytree import STATIC, pytree


class Pairing:
    """Base class for pairings: `take` returns each row's partner."""

    mutual = False  # Whether each row is its partner's partner.
    random = False  # Whether it still has to be drawn.
    groups = 1  # The number of equal parts of the batch that rows are paired within.

    def drawn(self, key: Array, batch: Any) -> "Pairing":
        """Draws the random part of this pairing, if any, for a batch of the given size."""
        return self

    def check(self, where: str, batch: Any) -> None:
        """Raises if this pairing does not suit a batch of the given size."""

    def take(self, x: ArrayLike) -> Array:
        """Returns each row's partner, taken from `x` along axis 0."""
        return self._take(jnp.asarray(_checks.array(f"{type(self).__name__}.take", "x", x)))

    def _take(self, x: Array) -> Array:
        """Does the work of `take` for a checked array."""
        raise NotImplementedError

    def partner(self, batch: Any) -> Array:
        """int32[batch]: the partner of each row, computed without communication."""
        raise NotImplementedError

    def own(self, batch: Any) -> Array | None:
        """bool[batch]: True for rows that are their own partners; None if no row can be."""
        return self.partner(batch) == lax.iota(jnp.int32, batch)

    def within(self, start: int, stop: int, batch: int) -> "Pairing | None":
        """The pairing of the rows from `start` to `stop`; None if some partners lie outside."""
        return self if stop - start == batch else None


PairingName = Literal["swap", "flip", "roll", "permutation"]


class PairingField(Protocol):
    """The type of a field that accepts a pairing or its name, and returns a pairing."""

    def __get__(self, instance: Any, owner: Any) -> Pairing: ...
    def __set__(self, instance: Any, value: Pairing | PairingName) -> None: ...


def _fastest(pairing: Pairing, x: Array, split: Callable, padded: Callable) -> Array:
    """Takes each row's partner from `x`, by the fastest of three forms with the same result.

    - Gathering whole rows: CPUs and GPUs then read a row and its neighbour once, in a loop that
      fuses with later operations.
    - `split`: for a batch whose rows are, or may be, on several devices. A gather would send the
      whole batch.
    - `padded`: for TPUs. The batch often lies along the lanes there, and then only a choice between
      shifted copies fuses.
    """
    divided = _sharding.is_split(x)
    if divided and jax.typeof(x).sharding.mesh.manual_axes:
        return split(x)  # JAX cannot differentiate `platform_dependent` there.
    if divided or _sharding.parts(x) > 1:
        return lax.platform_dependent(x, tpu=padded, default=split)
    rows = functools.partial(_sharding.rows_at, index=pairing.partner(x.shape[0]))
    return lax.platform_dependent(x, tpu=padded, default=rows)


def _shifted(x: Array, shift: int) -> Array:
    """Moves rows by a static shift, down the batch if it is positive, and fills with zeros."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(shift, -shift, 0), *[(0, 0, 0)] * (x.ndim - 1)])


@pytree()
class Swap(Pairing):
    """Pairs adjacent rows: row 0 with row 1, row 2 with row 3, and so on.

    This is the fastest pairing: partners are adjacent in memory, so each image is read once.
    Communication cost when the batch is sharded over devices: none if each device has an even
    number of rows, else one row from each side (a collective-permute). The last row of an odd batch
    is its own partner and stays as it is.

    Adjacent examples must be unrelated, so shuffle first. Some loaders still put related examples
    side by side: repeated augmentation, batches grouped by class, frames of one clip, two views of
    an image in turn. Then use `Flip()` or `Roll(k)`. If each device of `jax.pmap` or
    `jax.shard_map` has only one row, use `Neighbour`, which mixes across devices.

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> print(jaxmix.Swap().take(jnp.arange(5)))
        [1 0 3 2 4]
    """

    mutual = True

    def partner(self, batch: Any) -> Array:
        return jnp.minimum(lax.iota(jnp.int32, batch) ^ 1, batch - 1)

    def own(self, batch: Any) -> Array | None:
        return None if isinstance(batch, int) and batch % 2 == 0 else super().own(batch)

    def within(self, start: int, stop: int, batch: int) -> Pairing | None:
        return None if start % 2 or (stop % 2 and stop < batch) else self

    def _take(self, x: Array) -> Array:
        batch, parts = x.shape[0], _sharding.parts(x)
        # As many groups of whole pairs as there are devices, or nearly: they exchange nothing.
        groups = math.gcd(batch // 2, parts) if self.own(batch) is None and batch > 0 else 1
        padded = functools.partial(self._padded, groups=groups)
        padded = functools.partial(_sharding.keep_sharding, padded) if parts > 1 else padded
        split = Flip(groups=batch // 2).take if groups == parts > 1 else padded
        return _fastest(self, x, split, padded)

    def _padded(self, x: Array, groups: int) -> Array:
        if groups > 1:
            grouped = x.reshape(groups, x.shape[0] // groups, *x.shape[1:])
            return jax.vmap(lambda x: self._padded(x, 1))(grouped).reshape(x.shape)
        row, alone = lax.iota(jnp.int32, x.shape[0]), self.own(x.shape[0])
        swapped = _sharding.where_rows(row % 2 == 0, _shifted(x, -1), _shifted(x, 1))
        return swapped if alone is None else _sharding.where_rows(alone, x, swapped)


@pytree()
class Flip(Pairing):
    """Pairs row i with row B-1-i, within each of `groups` equal parts of the batch.

    Partners are far apart in memory, so each image is read twice; `Swap` reads it once.
    Communication cost when the batch is sharded over devices: each device sends one shard (a
    collective-permute), or nothing if `groups` is a multiple of the number of devices. The middle
    row of an odd group is its own partner and stays as it is.

    Attributes:
        groups: the number of parts; it must divide the batch size.

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> print(jaxmix.Flip(groups=2).take(jnp.arange(6)))
        [2 1 0 5 4 3]
    """

    groups: int = dataclasses.field(default=1, metadata=STATIC)
    mutual = True

    def __post_init__(self):
        object.__setattr__(self, "groups", _checks.count("Flip", "groups", self.groups, 1))

    def check(self, where: str, batch: Any) -> None:
        if self.groups > 1 and batch % self.groups != 0:
            wanted = "the batch size must be a multiple of groups"
            raise ValueError(f"{where}: {wanted}, got {batch} rows for {self!r}")

    def partner(self, batch: Any) -> Array:
        row = lax.iota(jnp.int32, batch)
        if self.groups == 1:
            return batch - 1 - row
        size = batch // self.groups
        return row // size * (2 * size) + size - 1 - row

    def own(self, batch: Any) -> Array | None:
        even = isinstance(batch, int) and batch // self.groups % 2 == 0
        return None if even else super().own(batch)

    def within(self, start: int, stop: int, batch: int) -> Pairing | None:
        size = max(batch // self.groups, 1)
        whole = start % size == stop % size == 0
        return Flip(groups=max((stop - start) // size, 1)) if whole else None

    def _take(self, x: Array) -> Array:
        if self.groups == 1:
            return jnp.flip(x, 0)
        self.check("Flip.take", x.shape[0])
        return _sharding.keep_sharding(self._take_grouped, x)

    def _take_grouped(self, x: Array) -> Array:
        groups = x.reshape(self.groups, x.shape[0] // self.groups, *x.shape[1:])
        return jnp.flip(groups, 1).reshape(x.shape)


@pytree()
class Roll(Pairing):
    """Pairs row i with row i-shift, and wraps around at the end of the batch.

    Communication cost when the batch is sharded over devices: each device sends `shift` examples,
    at most its shard. No row is its own partner unless `shift % B == 0`. `Roll(0)` pairs every row
    with itself, for mixing with another batch (`donors`).

    Attributes:
        shift: the distance to the partner: row i is painted onto row i+shift.

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> print(jaxmix.Roll().take(jnp.arange(4)))
        [3 0 1 2]
    """

    shift: int = dataclasses.field(default=1, metadata=STATIC)

    def __post_init__(self):
        object.__setattr__(self, "shift", _checks.count("Roll", "shift", self.shift, None))

    def partner(self, batch: Any) -> Array:
        return (lax.iota(jnp.int32, batch) - self._reduced(batch)) % batch

    def own(self, batch: Any) -> Array | None:
        moved = isinstance(batch, int) and self._reduced(batch) != 0
        return None if moved else super().own(batch)

    def within(self, start: int, stop: int, batch: int) -> Pairing | None:
        return self if self.shift == 0 else super().within(start, stop, batch)

    def _take(self, x: Array) -> Array:
        batch, whole = x.shape[0], _sharding.parts(x) == 1
        shift = self._reduced(batch)
        if shift == 0:
            return x

        def padded(x):
            first = lax.iota(jnp.int32, batch) < shift
            return _sharding.where_rows(first, _shifted(x, shift - batch), _shifted(x, shift))

        roll = functools.partial(jnp.roll, shift=self.shift, axis=0)
        rolled = functools.partial(_sharding.keep_sharding, roll)
        on_tpu = padded if whole and isinstance(batch, int) else rolled
        return _fastest(self, x, rolled, on_tpu)

    def _reduced(self, batch: Any) -> int:
        """The shift modulo the batch size, because a large shift would overflow int32."""
        return self.shift % max(batch, 1) if isinstance(batch, int) else self.shift


@pytree()
class Permutation(Pairing):
    """Pairs each row with the next one of a random cycle through the whole batch.

    A cycle is as random as a shuffle, but no row is its own partner (if B > 1). Each image is read
    twice. On a TPU, where rows may lie across the lanes, it is read several times. Communication
    cost when the batch is sharded over devices: every device receives the whole batch (XLA chooses
    an all-gather or an all-reduce). On a pod use another pairing: its partners are as random as
    your shuffling.

    Attributes:
        index: int[B], the partner of each row; None draws a cycle. The index may be traced, so it
            can be computed from the batch. It may contain a row several times, as in C-Mixup, which
            pairs similar targets.

    Example:
        >>> import jax.numpy as jnp, jaxmix
        >>> print(jaxmix.Permutation(jnp.array([2, 0, 1])).take(jnp.arange(3)))
        [2 0 1]
    """

    index: Array | np.ndarray | None = None

    def __post_init__(self):
        if self.index is None:
            return
        index = _checks.sequence(self.index, arrays=False)
        if isinstance(index, tuple):
            index = np.array(_checks.counts("Permutation", "index", index, None), int)
        index = _checks.array("Permutation", "index", index)
        if index.ndim != 1 or not jnp.issubdtype(index.dtype, jnp.integer):
            wanted = "index must be int[B], the partner of each row"
            raise _checks.value_error("Permutation", wanted, index)
        if isinstance(index, np.ndarray) and not ((0 <= index) & (index < index.size)).all():
            wanted = f"index must hold row numbers from 0 to {index.size - 1}"
            raise ValueError(f"Permutation: {wanted}, got {index.min()} to {index.max()}")
        object.__setattr__(self, "index", index)

    @property
    def random(self) -> bool:
        """Whether the cycle still has to be drawn."""
        return self.index is None

    def drawn(self, key: Array, batch: Any) -> "Permutation":
        order = jnp.argsort(jax.random.bits(key, (batch,), jnp.uint32)).astype(jnp.int32)
        following = order[(lax.iota(jnp.int32, batch) + 1) % batch]
        return Permutation(jnp.zeros_like(order).at[order].set(following, unique_indices=True))

    def check(self, where: str, batch: Any) -> None:
        if self.index is not None:
            _checks.batch(where, "the index of Permutation", self.index, batch, "the images")

    def partner(self, batch: Any) -> Array:
        if self.index is None:
            remedy = "draw it with mixer.plan, or pass Permutation(index)"
            raise ValueError(f"Permutation: the cycle is not drawn yet; {remedy}")
        return jnp.asarray(self.index).astype(jnp.int32)

    def _take(self, x: Array) -> Array:
        index = self.partner(x.shape[0])
        _checks.batch("Permutation.take", "x", x, index.shape[0], "the index")
        return _sharding.rows_at(x, index)


SAME_ROW: Any = Roll(0)


@pytree()
class Neighbour(Pairing):
    """Pairs each row with a row of the next device, in `jax.pmap` and `jax.shard_map`.

    There each device has its own batch, and the other pairings stay within it. This pairing mixes
    across devices: device d takes the images and the labels of device d+1, and the last device
    takes those of the first. Communication cost: each device sends one shard (a
    collective-permute). No row is its own partner.

    Attributes:
        axis_name: the name of the axis that `jax.pmap`, `jax.shard_map` or `jax.vmap` maps over. It
            must have at least two devices.
        local: a pairing or its name, which selects the row of the next device. `Roll(0)` selects
            the same row.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> pairing = jaxmix.Neighbour("batch")
        >>> shards = jnp.array([[0, 1], [2, 3], [4, 5]])  # Two rows on each of three devices.
        >>> print(jax.vmap(pairing.take, axis_name="batch")(shards))
        [[2 3]
         [4 5]
         [0 1]]
    """

    axis_name: str = dataclasses.field(metadata=STATIC)
    local: PairingField = dataclasses.field(default=SAME_ROW)

    def __post_init__(self):
        if not isinstance(self.axis_name, str):
            wanted = "axis_name must be the name of one axis of jax.pmap or jax.shard_map"
            remedy = "for two axes nest them: Neighbour(a, local=Neighbour(b))"
            raise _checks.type_error("Neighbour", wanted, self.axis_name, remedy)
        object.__setattr__(self, "local", resolve("Neighbour", self.local, "local"))

    @property
    def random(self) -> bool:
        """Whether `local` still has to be drawn."""
        return self.local.random

    def drawn(self, key: Array, batch: Any) -> "Neighbour":
        return Neighbour(self.axis_name, self.local.drawn(key, batch))

    def check(self, where: str, batch: Any) -> None:
        self._axis_size(where)
        self.local.check(where, batch)

    def partner(self, batch: Any) -> Array:
        """int32[batch]: the row number of each partner on the next device."""
        return self.local.partner(batch)

    def own(self, batch: Any) -> None:
        return None

    def within(self, start: int, stop: int, batch: int) -> Pairing | None:
        local = self.local.within(start, stop, batch)
        return None if local is None else Neighbour(self.axis_name, local)

    def _take(self, x: Array) -> Array:
        size = self._axis_size("Neighbour.take")
        # Send before `local` selects: a cycle drawn on this device is over the rows it receives.
        sent = [((device + 1) % size, device) for device in range(size)]
        return self.local.take(lax.ppermute(x, self.axis_name, sent))

    def _axis_size(self, where: str) -> int:
        """The size of the mapped axis; raises if it is not bound or has only one device."""
        problem = "is not bound here"
        with contextlib.suppress(NameError):
            if (size := lax.axis_size(self.axis_name)) > 1:
                return size
            problem = "has size 1, so there is no neighbouring device"
        raise ValueError(
            f"{where}: the axis {self.axis_name!r} of Neighbour {problem}; map over it with "
            "jax.pmap or jax.shard_map on at least two devices, or use Swap(), Flip() or Roll() on "
            "one device and under jax.jit with shardings"
        )


@pytree()
class Withheld(Pairing):
    """Replaces the pairing in a draw that several rows share, and raises on any use.

    It passes type checks as its `kind`, so that `draw` can construct another mixer with it.

    Attributes:
        kind: the type of the pairing.
        message: the text of the error.
    """

    kind: type[Pairing] = dataclasses.field(metadata=STATIC)
    message: str = dataclasses.field(metadata=STATIC)

    def __getattribute__(self, name: str) -> Any:
        if name in ("__class__", "mutual"):
            return self.kind if name == "__class__" else self.kind.mutual
        if name in ("kind", "message") or name.startswith("__"):
            return super().__getattribute__(name)
        raise ValueError(self.message)

    def __eq__(self, other: Any) -> bool:
        if type(other) is Withheld:
            return True
        raise ValueError(self.message)


PAIRINGS = {"swap": Swap, "flip": Flip, "roll": Roll, "permutation": Permutation}


def resolve(where: str, pairing: Any, argument: str = "pairing") -> Pairing:
    """Returns a pairing, given the pairing or its name."""
    if isinstance(pairing, str):
        return PAIRINGS[_checks.choice(where, argument, pairing, tuple(PAIRINGS))]()
    if not isinstance(pairing, Pairing):
        names = ", ".join(map(repr, PAIRINGS))
        wanted = f"{argument} must be a pairing such as Flip(), or one of {names}"
        raise _checks.type_error(where, wanted, pairing, _checks.parentheses(pairing))
    return pairing


def same(one: Pairing, other: Pairing) -> bool:
    """Whether two pairings have the same type, settings and index."""
    alike = jax.tree.structure(one) == jax.tree.structure(other)
    return alike and all(map(_equal, jax.tree.leaves(one), jax.tree.leaves(other)))


def _equal(one: Any, other: Any) -> bool:
    """Whether two leaves are equal. If one is traced, only their shapes are compared."""
    if isinstance(one, Tracer) or isinstance(other, Tracer):
        return np.shape(one) == np.shape(other)
    return np.array_equal(one, other)
