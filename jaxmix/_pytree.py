"""Frozen dataclasses that are pytrees."""

import ast
import collections
import contextlib
import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar, TypeVar, dataclass_transform

import jax
import numpy as np
from jax import Array, export

T = TypeVar("T")

STATIC = {"static": True}

# The number of definitions of each class name, as notebooks run cells again.
_definitions = collections.Counter[str]()


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def pytree(**options: bool) -> Callable[[type[T]], type[T]]:
    """Makes a class a frozen dataclass, with `options`, and registers it as a pytree.

    Fields are children, except those with `metadata=STATIC`. Unflattening bypasses the constructor,
    which `jax.tree_util.register_dataclass` would call. So the checks never see the placeholders
    that JAX puts into pytrees. `jax.export` serialises the static fields as literals.
    """

    def register(cls: Any) -> Any:
        cls = dataclasses.dataclass(frozen=True, repr=False, **options)(cls)
        cls.__repr__ = _call if cls.__repr__ is object.__repr__ else cls.__repr__
        cls._fields = fields = dataclasses.fields(cls)
        static = [field.name for field in fields if field.metadata.get("static")]
        children = [field.name for field in fields if field.name not in static]

        def flatten(tree):
            leaves = [(jax.tree_util.GetAttrKey(name), getattr(tree, name)) for name in children]
            return leaves, tuple(getattr(tree, name) for name in static)

        def unflatten(modes, leaves):
            tree = object.__new__(cls)
            tree.__dict__.update(zip(children + static, (*leaves, *modes), strict=True))
            return tree

        def serialize(modes):
            given = zip(static, modes, strict=True)
            if odd := {name: mode for name, mode in given if not _is_literal(mode)}:
                wanted = "in exported functions static fields must be literals, and sizes static"
                raise ValueError(f"{cls.__name__}: {wanted}, got {odd}")
            return repr(modes).encode()

        jax.tree_util.register_pytree_with_keys(cls, flatten, unflatten)
        name = f"{cls.__module__}.{cls.__qualname__}"
        _definitions[name] += 1
        export.register_pytree_node_serialization(
            cls,
            serialized_name=f"{name}#{_definitions[name]}",
            serialize_auxdata=serialize,
            deserialize_auxdata=lambda text: ast.literal_eval(text.decode()),
        )
        return cls

    return register


def _is_literal(value: Any) -> bool:
    """Whether the repr of a value is a literal that evaluates to the value."""
    with contextlib.suppress(SyntaxError, ValueError):
        return ast.literal_eval(repr(value)) == value
    return False


class Frozen:
    """Base class whose subclasses refuse assignment to their fields."""

    _fields: ClassVar[tuple[dataclasses.Field, ...]]

    def __setattr__(self, name: str, *value: Any) -> None:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    __delattr__ = __setattr__


def replaced(tree: T, **values: Any) -> T:
    """Copies a pytree with new values in some fields. Bypasses the constructor."""
    copy = object.__new__(type(tree))
    copy.__dict__.update(tree.__dict__, **values)
    return copy


def shown(value: Any) -> str:
    """The repr of a value, which shows arrays by dtype and shape, such as f32[8]."""
    if isinstance(value, tuple):
        return "(" + ", ".join(map(shown, value)) + ("," if len(value) == 1 else "") + ")"
    if not (hasattr(type(value), "shape") and hasattr(type(value), "dtype")):
        return repr(value)
    if value.shape == () and isinstance(value, np.ndarray | np.generic | Array):
        with contextlib.suppress(Exception):  # Tracers, keys and deleted arrays raise.
            return repr(np.asarray(value).item())
    name = str(value.dtype)
    for word in ("float", "uint", "int", "complex"):
        name = name.replace(word, word[0])
    return f"{name}[{','.join(map(str, value.shape))}]"


def _call(self: Any) -> str:
    """The repr of a pytree: the call that makes it, without arguments that are defaults."""
    given = []
    for field in sorted(type(self)._fields, key=lambda field: bool(field.kw_only)):
        value, default = getattr(self, field.name), field.default
        arrays = any(hasattr(leaf, "shape") for leaf in jax.tree.leaves(value))
        usual = type(value) is type(default) and shown(value) == shown(default)
        usual = usual or shown(value).lower() == f"{default}()"  # A pairing's name.
        if field.init and (arrays or not usual):
            given.append(f"{field.name}={shown(value)}")
    return f"{type(self).__name__}({', '.join(given)})"
