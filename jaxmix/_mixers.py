"""Mixers: frozen descriptions of a mixing policy, which draw plans."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack, dataclass_transform, get_args, overload

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxmix import _checks, _labels, _pairing, _region, _sharding
from jaxmix._beta import float32, from_uniforms, uniforms
from jaxmix._checks import ChannelAxis
from jaxmix._composite import jit
from jaxmix._pairing import Pairing, PairingField, Withheld
from jaxmix._plan import Plan, assemble
from jaxmix._pytree import STATIC, Frozen, pytree, replaced
from jaxmix._region import BoxLaw, Painted

PerName = Literal["example", "pair", "batch"]
Per = PerName | int
DEFAULT_PAIRING: Any = "swap"
STATIC_REMEDY = 'mark an option as static: dataclasses.field(metadata={"static": True})'


class CallOptions(TypedDict, total=False):
    """The options of `Mixer.__call__`, for its overloads."""

    num_classes: int | None
    smoothing: ArrayLike
    channel_axis: ChannelAxis


def _completed(own: Any) -> Any:
    """Wraps a subclass's `__post_init__`; raises if it does not call `super().__post_init__()`."""

    @functools.wraps(own)
    def post_init(self, *given):
        vars(self)["_incomplete"] = True
        own(self, *given)
        if "_incomplete" in vars(self):
            wanted = f"{own.__qualname__} must call super().__post_init__()"
            raise TypeError(f"{type(self).__name__}: {wanted}")

    return post_init


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
@pytree()
class Mixer(Frozen):
    """Base class for mixers, including your own.

    A subclass defines one method, `draw`. Subclassing makes the class a frozen dataclass and
    registers it as a pytree. Do not decorate it: the decorators of `flax.struct` and `chex` raise
    an error. Fields are numbers, arrays or mixers. Mark an option, such as a name or a size, as
    static: `dataclasses.field(metadata={"static": True})`. This class does the rest: granularity,
    pairing, labels, maps, losses, layouts.

    Labels are weighted by area. For other weights call `plan.relabel` in the train step. Do not
    override `plan`: policies such as `RandomChoice` call only `draw`.

    A content-aware method needs data of each row, such as a saliency map. Store it as an array
    [B, ...] in a field with `metadata={"rows": True}`. In `draw`, `self.pairing.take(...)` turns it
    into the data of each row's partner. Such a mixer must have `per="example"`.

    To keep a mixer in a flax `TrainState`, put it into a static field. Or pass it to the train step
    as an argument. `jax.export` serialises functions that take or return mixers. The process that
    loads such a function must define the same class, in a module of the same name.

    Attributes:
        per: the granularity: one draw per "example", per "pair" of rows or per "batch". An int n,
            which divides the batch size, is one draw per run of n rows, as in a library that draws
            once for the n images of each GPU. "pair" needs "swap" or "flip", and conserves the
            batch: labels keep their sum, MixUp keeps the sum of the pixels, and CutMix shows each
            pixel exactly once.
        pairing: which row is mixed with which: "swap", "flip", "roll", "permutation" or a pairing.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> class Halves(jaxmix.Mixer):
        ...     strength: float = 0.5
        ...
        ...     def draw(self, key, rows, spatial):
        ...         height, width = spatial
        ...         left = jnp.broadcast_to(jnp.arange(width) < width // 2, (rows, height, width))
        ...         return jaxmix.Mask(left), jax.random.uniform(key, (rows,)) * self.strength
        >>> mixer = jaxmix.RandomChoice((Halves(0.9, per="batch"), jaxmix.MixUp()))
        >>> mixer(jax.random.key(0), jnp.zeros((4, 8, 8, 3))).shape
        (4, 8, 8, 3)

        A content-aware method:

        >>> import dataclasses
        >>> class Brighter(jaxmix.Mixer):
        ...     light: jax.Array | None = dataclasses.field(default=None, metadata={"rows": True})
        ...
        ...     def draw(self, key, rows, spatial):
        ...         return jaxmix.Mask(self.pairing.take(self.light) > self.light), None
        >>> images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 3))
        >>> mixed = Brighter(light=images.mean(-1))(jax.random.key(1), images)
        >>> bool((mixed.mean(-1) >= images.mean(-1)).all())
        True
    """

    per: Per = dataclasses.field(default="example", kw_only=True, metadata=STATIC)
    pairing: PairingField = dataclasses.field(default=DEFAULT_PAIRING, kw_only=True)
    _own_draws = True  # Whether `per` is the granularity of `draw`. In policies it is not.

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__post_init__ = _completed(cls.__post_init__)
        pytree()(cls)
        # `Frozen` blocks assignment already. These would make a second `dataclass` decorator raise.
        del cls.__setattr__, cls.__delattr__

    def __post_init__(self):
        """Checks and normalises the fields. A subclass that overrides this must call it."""
        name = type(self).__name__
        vars(self).pop("_incomplete", None)
        self._set("pairing", _pairing.resolve(name, self.pairing))
        for field in self._fields:
            value = _checks.sequence(getattr(self, field.name), arrays=False)
            self._set(field.name, value.item() if isinstance(value, np.generic) else value)
            _check_field(name, field, getattr(self, field.name))
        self._set("per", per_rows(name, self.per))
        wanted = 'per="pair" needs a mutual pairing, "swap" or "flip"'
        _checks.require(self.per != "pair" or self.pairing.mutual, name, wanted, self.pairing)
        for field in self._fields_of_rows():
            wanted = f'per must be "example", because the field {field} has data of each row'
            _checks.require(self.per == "example" or not self._own_draws, name, wanted, self.per)

    def draw(self, key: Array, rows: Any, spatial: tuple) -> Painted:
        """Draws where the partner is painted, and how opaquely, for some rows.

        `self.pairing` is the plan's pairing, already drawn. Under jit the fields of `self` are
        tracers. So if `draw` calls a jitted function with `self`, that argument must not be static.

        Args:
            key: a PRNG key, consumed by this call.
            rows: how many draws to return: 1 with `per="batch"`, B / n with `per=n`, else the batch
                size. With `per="pair"` the first draw of each pair is used.
            spatial: the static extents in pixels; empty if the images have no spatial axis.

        Returns:
            (region, opacity). The region is a `Box`, a `Mask`, or None for everywhere. The opacity
            is float32[rows], clipped to [0, 1], or None for opaque.
        """
        raise NotImplementedError(f"{type(self).__name__} must define draw(key, rows, spatial)")

    def plan(
        self, key: Array, shape: tuple[int, ...], *, channel_axis: ChannelAxis = "auto"
    ) -> Plan:
        """Draws a plan: all random decisions for one batch.

        Args:
            key: a PRNG key, typed or raw.
            shape: the static shape of the images, `images.shape`.
            channel_axis: -1 (channels-last), 1 (channels-first), None (no channel axis), or "auto".
                "auto" is -1. If the mixer draws a region, "auto" raises ValueError for ambiguous
                layouts: images of rank 3, and batches that look channels-first: axis 1 has size
                1, 3 or 4 and differs from axis 2, while the last axis has another size.

        Returns:
            The plan for a batch of `shape[0]` rows.

        Raises:
            TypeError: if `key` is not a PRNG key, or `shape` is not a static shape.
            ValueError: if the shape does not suit the mixer.
        """
        where = f"{type(self).__name__}.plan"
        _checks.key(where, key)
        shape = _checks.shape(where, shape)
        _checks.channel(where, shape, channel_axis, region=False)  # Checked before jit hashes it.
        self.pairing.check(where, shape[0])
        return _plan(self, where, key, shape, channel_axis)

    @overload
    def __call__(
        self, key: Array, images: ArrayLike, labels: None = None, **options: Unpack[CallOptions]
    ) -> Array: ...
    @overload
    def __call__(
        self, key: Array, images: ArrayLike, labels: ArrayLike, **options: Unpack[CallOptions]
    ) -> tuple[Array, Array]: ...
    def __call__(
        self,
        key: Array,
        images: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        num_classes: int | None = None,
        smoothing: ArrayLike = 0.0,
        channel_axis: ChannelAxis = "auto",
    ) -> Array | tuple[Array, Array]:
        """Draws a plan, mixes the images, and mixes the labels.

        Axis 0 is the batch, so call the mixer on batches. Under `jax.vmap` over single images, axis
        0 would be the rows of pixels.

        Args:
            key: a PRNG key, typed or raw.
            images: [B, ...], of any dtype.
            labels: class ids int[B], or dense labels [B, K]; see `Plan.labels`.
            num_classes: K, the number of classes; required if labels are class ids.
            smoothing: label smoothing in [0, 1).
            channel_axis: see `plan`.

        Returns:
            (images, labels), or the images alone if `labels` is None. The images keep their shape
            and dtype; the labels are float32[B, K].

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if shapes are incompatible.
        """
        where = type(self).__name__
        _checks.key(where, key)
        images = _checks.array(where, "images", images)
        _checks.channel(where, images.shape, channel_axis, region=False)  # Before jit hashes it.
        if labels is None:
            return _mix(self, key, images, None, None, None, channel_axis)
        labels = _labels.checked(where, "labels", labels, num_classes)
        of = f"images {_checks.describe(images)}"
        _checks.batch(where, "labels", labels, images.shape[0], of)
        smoothing = _labels.checked_smoothing(where, smoothing, labels)
        return _mix(self, key, images, labels, num_classes, smoothing, channel_axis)

    def _set(self, name: str, value: Any) -> None:
        """Sets a field of this frozen dataclass during construction."""
        object.__setattr__(self, name, value)

    def _fields_of_rows(self) -> list[str]:
        """The names of the fields that store data of each row."""
        names = [field.name for field in self._fields if field.metadata.get("rows")]
        return [name for name in names if getattr(self, name) is not None]

    def _for_each_row(self, draw: Callable, batch: Any) -> Any:
        """Calls `draw(rows)` for as many rows as `per` needs, and copies each draw to its rows."""
        per, pairing, where = self.per, self.pairing, type(self).__name__
        if per == "example":
            return draw(batch)
        if per == "batch":
            return jax.tree.map(lambda v: jnp.broadcast_to(v, (batch, *v.shape[1:])), draw(1))
        if per == "pair":  # A pair takes two draws and keeps the first.
            drawn, first = draw(batch), lax.iota(jnp.int32, batch) <= pairing.partner(batch)
            return jax.tree.map(lambda v: _sharding.where_rows(first, v, pairing.take(v)), drawn)
        _checks.require(batch % per == 0, where, f"per={per} must divide the batch size", batch)
        # Inside a shared draw there are no pairs that a run could divide.
        size = batch // (1 if type(pairing) is Withheld else pairing.groups)
        wanted = f"per={per} must divide the group size of the pairing, or be a multiple of it"
        remedy = f"use Flip(groups={batch // per})"
        _checks.require(size % per == 0 or per % size == 0, where, wanted, size, remedy)
        return jax.tree.map(lambda v: jnp.repeat(v, per, axis=0), draw(batch // per))

    def _paired(self, pairing: Pairing) -> "Mixer":
        """Copies the mixer with another pairing, also in the mixers in its fields."""

        def inner(value):
            return isinstance(value, Mixer) and value is not self

        def paired(value):
            return value._paired(pairing) if inner(value) else value

        return replaced(jax.tree.map(paired, self, is_leaf=inner), pairing=pairing)


@functools.partial(jit, static_argnames=("num_classes", "channel_axis"))
def _mix(mixer, key, images, labels, num_classes, smoothing, channel_axis):
    """Draws the plan and mixes images and labels, in one program."""
    where = type(mixer).__name__
    # "auto" is the last axis. The plan alone could not determine it where C = H = W.
    layout = -1 if channel_axis == "auto" else channel_axis
    with _checks.renamed(where, f"{where}.plan"):  # Errors name the user's call.
        plan = mixer.plan(key, images.shape, channel_axis=channel_axis)
    with _checks.renamed(where, "Plan.images", "Plan.labels"):
        mixed = plan.images(images, channel_axis=layout)
        if labels is None:
            return mixed
        return mixed, plan.labels(labels, num_classes=num_classes, smoothing=smoothing)


@functools.partial(jit, static_argnames=("where", "shape", "channel_axis"))
def _plan(mixer, where, key, shape, channel_axis) -> Plan:
    """Draws the pairing, the regions and the opacities."""
    batch, channel = shape[0], _checks.channel(where, shape, channel_axis, region=False)
    spatial = _checks.spatial(shape, channel)
    pairing = mixer.pairing
    if pairing.random:
        pairing_key, key = jax.random.split(key)
        pairing = pairing.drawn(pairing_key, batch)
    region, opacity = draw_rows(mixer._paired(pairing), key, batch, spatial)
    if region is not None:
        _checks.canvas(where, shape, channel_axis)
    return assemble(pairing, region, opacity, batch, spatial)


def draw_rows(mixer: Mixer, key: Array, batch: Any, spatial: tuple) -> Painted:
    """Draws from a mixer, checks the result, and copies it to each row of the batch."""
    where, per, drawing = f"{type(mixer).__name__}.draw", mixer.per, mixer
    for name in mixer._fields_of_rows():
        for content in jax.tree.leaves(getattr(mixer, name)):
            _checks.batch(where, name, _checks.array(where, name, content), batch, "the images")
    if mixer._own_draws and per != "example":
        shared = f'self.pairing needs per="example"; with per={per!r} rows share a draw'
        remedy = 'mark a field with data of each row with metadata={"rows": True}'
        refusal = f"{where}: {shared}; {remedy}"
        drawing = mixer._paired(Withheld(type(mixer.pairing), refusal))

    def draw(rows):
        try:
            drawn = drawing.draw(key, rows, spatial)
        except (IndexError, TypeError) as error:
            if mixer._own_draws and "trace" in str(error).lower():
                error.add_note(f"{where}: draws and fields are traced; {STATIC_REMEDY}")
            raise
        if not (isinstance(drawn, tuple) and len(drawn) == 2):
            raise _checks.type_error(where, "must return (region, opacity)", drawn)
        region = _region.checked(where, drawn[0], rows, spatial)
        return region, _region.checked_opacity(where, drawn[1], rows)

    return mixer._for_each_row(draw, batch) if mixer._own_draws else draw(batch)


def per_rows(where: str, per: Any) -> Per:
    """Checks a granularity: one of the names, or the number of rows that share a draw."""
    if _checks.is_int(per):
        return _checks.count(where, "per", per, 1)
    return _checks.choice(where, "per", per, get_args(PerName), " or how many rows share a draw")


class CutMix(Mixer):
    """Replaces a box in each image with the same box of its partner.

    lambda ~ Beta(alpha, alpha) is the intended share of the original. Each side of the box is the
    fraction (1 - lambda)^(1/n) of its extent, for the n spatial axes that the box limits.
    `plan.lam` is computed from the pixels that the box covers inside the image. So `box` and
    `minmax` set the distribution of boxes, and the mean share that is painted.

    Along an axis of E pixels, with side = floor(E * (1 - lambda)^(1/n)):

    - "paper": the centre c is uniform over the E pixels. The box starts at c - floor(side / 2),
      stops before c + floor(side / 2), and is clipped at the border. Matches the paper's code
      (`rand_bbox`), torchvision (0.29.1, `v2.CutMix`) and timm before 1.0.31.
    - "timm": as "paper", but the box stops before c + ceil(side / 2), so that an odd side keeps its
      last pixel. Matches timm (1.0.31, `rand_bbox`).
    - "contained": the side is rounded to the nearest pixel instead. The box is placed uniformly
      inside the image, so its area is the drawn area. Matches Keras (3.15.1), except that
      Keras's corners lie between pixels.
    - `minmax=(a, b)`: the side is uniform over the integers from floor(a * E) to floor(b * E) - 1,
      or floor(a * E) if there are none. It does not depend on lambda. The box is placed uniformly
      inside the image. Matches timm (1.0.31, `rand_bbox_minmax`).

    For an image of 224 x 224 pixels, at alpha 1:

    | box                 | mean share of | probability that a pixel is painted, in the        |
    |                     | the original  | middle | middle of an edge | corner                |
    |---------------------|---------------|--------|-------------------|-----------------------|
    | "paper"             | 0.68          | 0.49   | 0.25              | 0.12                  |
    | "timm"              | 0.68          | 0.50   | 0.25              | 0.13                  |
    | "contained"         | 0.50          | 0.84   | 0.04              | 0.01                  |
    | minmax=(0.2, 0.8)   | 0.75          | 0.60   | 0.01              | 0.00                  |

    Attributes:
        alpha: the concentration of lambda, positive; 1 is uniform. A number or a traced scalar. A
            traced one is not checked: 0 gives NaN.
        per: the granularity: one box per "example", per "pair" of rows or per "batch". An int n,
            which divides the batch size, is one box per run of n rows. Gradients vary least with
            "pair" and most with "batch": their variance was 0.83 and 1.5 to 1.7 times that with
            "example" (digits, after training, examples/granularity.py). Test accuracy did not
            clearly differ.
        pairing: which row is mixed with which: "swap", "flip", "roll", "permutation" or a pairing.
        box: how the box is drawn: "paper", "timm" or "contained".
        minmax: the bounds (a, b) of each side, as fractions of the extent. They replace lambda and
            `box`.
        axes: the spatial axes that the box limits; 0 is the first spatial axis, None is all axes.
            The box spans the other axes. (0,) cuts a spectrogram [B, T, F, C] in time only. (1, 2)
            cuts the same box out of every frame of a video [B, T, H, W, C].
        grid: the side of a cell in pixels, or one side for each of `axes`. It must divide the
            extents. Boxes are drawn in units of cells. With the patch size of a vision transformer,
            each token comes from one image.

    Raises:
        TypeError: if `axes` or `grid` are not static integers.
        ValueError: if a number is out of range, a mode is not a valid option, or `minmax` is
            combined with a `box` other than "paper".

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> mixer = jaxmix.CutMix(alpha=1.0)
        >>> images, labels = mixer(jax.random.key(0), images, labels, num_classes=10)
        >>> labels.shape
        (8, 10)

    Reference:
        Yun et al. 2019, CutMix, section 3.1 and algorithm A1, https://arxiv.org/abs/1905.04899.
    """

    alpha: ArrayLike = 1.0
    box: BoxLaw = dataclasses.field(default="paper", kw_only=True, metadata=STATIC)
    minmax: Sequence[ArrayLike] | None = dataclasses.field(default=None, kw_only=True)
    axes: int | Sequence[int] | None = dataclasses.field(
        default=None, kw_only=True, metadata=STATIC
    )
    grid: int | Sequence[int] = dataclasses.field(default=1, kw_only=True, metadata=STATIC)

    def __post_init__(self):
        self._set("alpha", _checks.alpha("CutMix", self.alpha))
        _checks.choice("CutMix", "box", self.box, _region.BOX_LAWS)
        self._set("grid", _checks.counts("CutMix", "grid", self.grid, 1))
        if self.axes is not None:
            self._set("axes", _checks.counts("CutMix", "axes", self.axes, None))
        if self.minmax is not None:
            self._set("minmax", _region.minmax("CutMix", self.minmax))
            wanted = "minmax and box are mutually exclusive"
            _checks.require(self.box == "paper", "CutMix", wanted, self.box)
        super().__post_init__()

    def draw(self, key, rows, spatial) -> Painted:
        """Draws an opaque box for each row."""
        name = type(self).__name__
        axes = _region.limited_axes(name, self.axes, spatial)
        grid = _region.cells(name, self.grid, tuple(spatial[axis] for axis in axes))
        if self.minmax is not None:
            sides, places = jnp.split(uniforms(key, rows, 2 * len(axes)), 2, axis=1)
            return _region.box_between(self.minmax, sides, places, spatial, axes, grid), None
        # As symmetric_beta(key, self.alpha, (rows,)), but drawn together with the box's place.
        uniform = uniforms(key, rows, 2 + len(axes))
        lam = from_uniforms(uniform[:, 0], uniform[:, 1], float32(self.alpha))
        return _region.box_of_area(1 - lam, uniform[:, 2:], self.box, spatial, axes, grid), None


class MixUp(Mixer):
    """Blends each image with its partner, pixel by pixel.

    lambda ~ Beta(alpha, alpha) is the share of the original, in every pixel and in the label.

    Attributes:
        alpha: the concentration of lambda, positive; 1 is uniform. A number or a traced scalar. A
            traced one is not checked: 0 gives NaN.
        per: the granularity: one lambda per "example", per "pair" of rows or per "batch". An int n,
            which divides the batch size, is one lambda per run of n rows.
        pairing: which row is mixed with which: "swap", "flip", "roll", "permutation" or a pairing.
        fold: whether lambda is folded to max(lambda, 1 - lambda), so that the original dominates,
            as in big_vision and fastai.

    Raises:
        TypeError: if `fold` is not a bool.
        ValueError: if a number is out of range, or a mode is not a valid option.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> mixer = jaxmix.MixUp(alpha=0.2)
        >>> images, labels = mixer(jax.random.key(0), images, labels, num_classes=10)
        >>> labels.shape
        (8, 10)

    Reference:
        Zhang et al. 2017, mixup, section 2, https://arxiv.org/abs/1710.09412.
    """

    alpha: ArrayLike = 1.0
    fold: bool = dataclasses.field(default=False, kw_only=True, metadata=STATIC)

    def __post_init__(self):
        self._set("alpha", _checks.alpha("MixUp", self.alpha))
        if not isinstance(self.fold, bool):
            raise _checks.type_error("MixUp", "fold must be True or False", self.fold)
        super().__post_init__()

    def draw(self, key, rows, spatial) -> Painted:
        """Draws an opacity for each row; the partner is painted everywhere."""
        uniform = uniforms(key, rows, 2)
        lam = from_uniforms(uniform[:, 0], uniform[:, 1], float32(self.alpha))
        return None, 1 - (jnp.maximum(lam, 1 - lam) if self.fold else lam)


def _check_field(where: str, field: dataclasses.Field, value: Any) -> None:
    """Raises if a static field is an array, or another field holds no numbers or arrays."""
    if field.metadata.get("static"):
        wanted = f"the field {field.name} is static, so it must not be an array"
        fits = not isinstance(value, Array | np.ndarray)
        return _checks.require_type(fits, where, wanted, value, "under jit, close over it")
    for leaf in jax.tree.leaves(value):
        number = isinstance(leaf, int | float | complex) or _checks.shape_of(leaf) is not None
        wanted = f"the field {field.name} must hold numbers or arrays"
        _checks.require_type(number, where, wanted, leaf, STATIC_REMEDY)
        _checks.of_jax(where, field.name, leaf)


def check_mixers(where: str, mixers: Any) -> tuple[Mixer, ...]:
    """Checks a sequence of mixers, and returns it as a tuple."""
    mixers = _checks.sequence(mixers, arrays=False)
    if not isinstance(mixers, tuple):
        remedy = "pass them as a tuple, as in (CutMix(), MixUp())"
        raise _checks.type_error(where, "mixers must be a sequence of mixers", mixers, remedy)
    for mixer in mixers:
        check_mixer(where, "each of mixers", mixer)
    return mixers


def check_mixer(where: str, argument: str, value: Any) -> None:
    """Raises unless a value is a mixer."""
    wanted, remedy = f"{argument} must be a mixer such as CutMix()", _checks.parentheses(value)
    _checks.require_type(isinstance(value, Mixer), where, wanted, value, remedy)
