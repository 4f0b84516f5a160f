"""Labels: checks them, makes them dense and smooths them."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxmix import _checks

Columns = Callable[[Array], Array]


def checked(where: str, argument: str, value: Any, num_classes: Any) -> Array | np.ndarray:
    """Checks labels, which must be class ids int[B] or dense labels [B, K]."""
    if isinstance(value, Array):  # Keys are not labels, whatever their shape.
        _checks.real(where, argument, value)
    value = _checks.real(where, argument, _checks.array(where, argument, value))
    if value.ndim > 2:
        frames = f"{argument}.astype('float32')"
        remedy = (
            "pass integer maps to plan.maps, and real-valued maps to plan.images; mix labels of "
            f"frames by plan.images({frames}, channel_axis=-1) for images [B, T, C], and for "
            "images [B, T, F, C] by plan.at((B, T, 1, K), channel_axis=-1)"
            f".images({frames}[:, :, None], channel_axis=-1)[:, :, 0]"
        )
        wanted = f"{argument} must be class ids int[B] or dense [B, K]"
        raise _checks.type_error(where, wanted, value, remedy)
    if num_classes is not None:
        num_classes = _checks.count(where, "num_classes", num_classes, 1)
    if value.ndim == 2:
        return _dense_checked(where, argument, value, num_classes)
    ids = jnp.issubdtype(value.dtype, jnp.integer)
    wanted = f"{argument} of rank 1 must be integer class ids"
    remedy = "cast ids to an integer dtype, or pass regression targets as float[B, 1]"
    _checks.require_type(ids, where, wanted, value, remedy)
    if num_classes is None:
        given = f"{argument} are class ids ({_checks.describe(value)})"
        raise ValueError(f"{where}: {given}: pass num_classes=K")
    if isinstance(value, np.ndarray) and value.size and value.max() >= num_classes:
        wanted = f"class ids must be below num_classes={num_classes}"
        raise _checks.value_error(where, wanted, value.max().item())
    return value


def _dense_checked(where, argument, value, num_classes):
    """Checks dense labels [B, K]. Integers must be 0 or 1: others may be ids, counts or shares."""
    ids = jnp.issubdtype(value.dtype, jnp.integer)
    if ids and value.shape[1] == 1:
        given = f"{argument} {_checks.describe(value)} could be class ids or regression targets"
        remedy = "squeeze class ids to int[B], cast regression targets to float"
        raise ValueError(f"{where}: {given}: {remedy}")
    heads = f"for several heads call plan.labels({argument}[:, i], num_classes=...) for each"
    if ids and isinstance(value, np.ndarray):
        odd = value[(value != 0) & (value != 1)]
        if odd.size:
            wanted = f"dense integer {argument} must be 0 or 1"
            remedy = f'{heads}, for counts or shares pass {argument}.astype("float32")'
            raise _checks.value_error(where, wanted, odd[0].item(), remedy)
    wanted = f"num_classes={num_classes} does not match the K of {argument}"
    remedy = f"omit num_classes for dense labels; {heads}"
    _checks.require(num_classes in (None, value.shape[1]), where, wanted, value, remedy)
    return value


def class_ids(where: str, argument: str, value: Any) -> Array | np.ndarray:
    """Checks class ids, which must be int[B]."""
    value = _checks.array(where, argument, value)
    if value.ndim != 1 or not jnp.issubdtype(value.dtype, jnp.integer):
        remedy = "for one-hot labels pass their argmax"
        raise _checks.type_error(where, f"{argument} must be class ids int[B]", value, remedy)
    return value


def checked_smoothing(where: str, value: Any, labels: Array | np.ndarray) -> Any:
    """Checks label smoothing. Returns None, a 0 that jit does not trace, for targets [B, 1]."""
    regression = labels.ndim == 2 and labels.shape[1] == 1
    if regression and value is None:
        return None
    value = _checks.fraction(where, "smoothing", value, one=False)
    if regression and not (isinstance(value, float) and value == 0):
        wanted = "smoothing needs class labels, not regression targets [B, 1]"
        raise _checks.value_error(where, wanted, labels)
    return None if regression else value


def encode(
    own: Array, others: Array, smoothing: Any, num_classes: int | None
) -> tuple[Array, Array, Columns]:
    """Smooths both labels of each row, and returns a function that expands them to [B, K].

    Class ids are mixed in four columns instead of K: the class of both images, of the row's own
    image only, of its partner only, and of neither.
    """
    if not own.ndim == others.ndim == 1:
        dtype = jnp.float64 if jnp.float64 in (own.dtype, others.dtype) else jnp.float32
        own, others = (_dense(labels, dtype, smoothing, num_classes) for labels in (own, others))
        return own, others, lambda mixed: mixed
    own_hits, own_known = _hits(own, num_classes)
    other_hits, other_known = _hits(others, num_classes)
    mine = _smooth(jnp.array([[1.0, 1, 0, 0]], jnp.float32), own_known, smoothing, num_classes)
    theirs = _smooth(jnp.array([[1.0, 0, 1, 0]], jnp.float32), other_known, smoothing, num_classes)

    def columns(mixed):
        both, first, second, neither = jnp.split(mixed, 4, axis=1)
        at_own = jnp.where(other_hits, both, first)
        return jnp.where(own_hits, at_own, jnp.where(other_hits, second, neither))

    return mine, theirs, columns


def top_class(logits: Array, ids: Array) -> Array:
    """float32[B]: 1 where the largest logit is at the class id, else 0."""
    ids = _countable(ids)
    return (jnp.argmax(logits, axis=1).astype(ids.dtype) == ids).astype(jnp.float32)


def _dense(labels, dtype, smoothing, num_classes):
    """Converts labels to dense, smoothed labels [B, K] of the given dtype."""
    if labels.ndim == 1:
        hits, known = _hits(labels, num_classes)
        return _smooth(hits.astype(dtype), known.astype(dtype), smoothing, num_classes)
    width = labels.shape[1]
    dense = labels.astype(dtype)
    return dense if width == 1 else _smooth(dense, 1.0, smoothing, max(width, 1))


def _hits(ids, num_classes):
    """One-hot labels, bool[B, K], and float32[B, 1], which is 0 for ignored ids and else 1."""
    ids = _countable(ids)
    hits = ids[:, None] == jnp.arange(num_classes, dtype=ids.dtype)[None, :]
    return hits, ((ids >= 0) & (ids < num_classes))[:, None].astype(jnp.float32)


def _countable(ids):
    """Widens class ids to at least 32 bits: the number of classes may not fit into fewer."""
    return ids.astype(jnp.int32) if ids.dtype.itemsize < 4 else ids


def _smooth(dense, known, smoothing, num_classes):
    """Spreads `smoothing` of each known label evenly over the classes."""
    smoothing = jnp.asarray(smoothing).astype(dense.dtype)
    # (1 - smoothing) * dense + smoothing / K would round the on-value twice.
    return dense - smoothing * (dense - known / num_classes)
