"""Frozen dataclasses that are pytrees."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax
import numpy as np

T = TypeVar("T")

STATIC = {"static": True}


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(**options: bool) -> Callable[[type[T]], type[T]]:
    """Makes a class a frozen dataclass, with `options`, and registers it as a pytree.

    Fields are children, except those with `metadata=STATIC`. Unflattening bypasses the constructor
    (`jax.tree_util.register_dataclass` calls it), so that the placeholders which JAX puts into
    pytrees never meet a check.
    """

    def register(cls: Any) -> Any:
        cls = dataclasses.dataclass(frozen=True, repr=False, **options)(cls)
        if cls.__repr__ is object.__repr__:
            cls.__repr__ = _call
        fields = dataclasses.fields(cls)
        static = [field.name for field in fields if field.metadata.get("static")]
        children = [field.name for field in fields if field.name not in static]

        def flatten(tree):
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in children]
            return leaves, tuple(getattr(tree, name) for name in static)

        def unflatten(modes, leaves):
            tree = object.__new__(cls)
            tree.__dict__.update(zip(children + static, (*leaves, *modes), strict=True))
            return tree

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        return cls

    return register


def replaced(tree: T, **values: Any) -> T:
    """A copy with other values in some fields; like unflattening, it bypasses the constructor."""
    copy = object.__new__(type(tree))
    copy.__dict__.update(tree.__dict__, **values)
    return copy


def shown(value: Any) -> str:
    """The repr of a value, in which an array is its dtype and shape, such as f32[8]."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return repr(value)
    if value.shape == () and isinstance(value, np.ndarray | np.generic | jax.Array):
        try:
            return repr(np.asarray(value).item())
        except Exception:  # A tracer, a key, an array that was deleted: a repr raises nothing.
            pass
    name = str(value.dtype)
    for word in ("float", "uint", "int", "complex"):
        name = name.replace(word, word[0])
    return f"{name}[{','.join(map(str, value.shape))}]"


def _call(self: Any) -> str:
    """The call that makes a pytree."""
    names = [field.name for field in dataclasses.fields(self) if field.init]
    given = ", ".join(f"{name}={shown(getattr(self, name))}" for name in names)
    return f"{type(self).__name__}({given})"
