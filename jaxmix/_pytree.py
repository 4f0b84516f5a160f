"""Frozen dataclasses that are pytrees."""

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, dataclass_transform

import jax

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
        cls = dataclasses.dataclass(frozen=True, **options)(cls)
        fields = dataclasses.fields(cls)
        static = [field.name for field in fields if field.metadata.get("static")]
        children = [field.name for field in fields if field.name not in static]
        keys = [jax.tree_util.GetAttrKey(name) for name in children]

        def flatten(tree):
            leaves = tuple(getattr(tree, name) for name in children)
            return leaves, tuple(getattr(tree, name) for name in static)

        def flatten_with_keys(tree):
            leaves, modes = flatten(tree)
            return tuple(zip(keys, leaves, strict=True)), modes

        def unflatten(modes, leaves):
            tree = object.__new__(cls)
            tree.__dict__.update(zip(children + static, (*leaves, *modes), strict=True))
            return tree

        jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register
