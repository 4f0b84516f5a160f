"""Mixers: frozen descriptions of a policy, from which plans are drawn."""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Iterator
from typing import Any, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from jaxmix import _checks, _pairing, _region
from jaxmix._beta import from_uniforms
from jaxmix._pairing import Flip, Pairing
from jaxmix._plan import Plan, _assemble, _labels, jit
from jaxmix._pytree import STATIC, pytree
from jaxmix._region import Region

GRANULARITIES = ("example", "pair", "batch")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
@pytree()
class Mixer:
    """The base class of every mixer, and of your own.

    A subclass has one method, `draw`. Subclassing makes it a frozen dataclass that is registered as
    a pytree: its fields are leaves, and those with `dataclasses.field(metadata={"static": True})`
    are modes. This class does the rest: granularity, pairing, labels, maps, losses, layouts.

    Attributes:
        per: what gets a draw of its own: each "example", each "pair" of a flip, or the "batch".
        pairing: who is mixed with whom: a pairing, or "flip", "roll" or "permutation".

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
    """

    per: str = dataclasses.field(default="example", kw_only=True, metadata=STATIC)
    pairing: Any = dataclasses.field(default="flip", kw_only=True)

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        pytree(repr=False)(cls)

    def __post_init__(self):
        """Brings what was given into normal form; a subclass with checks of its own calls this."""
        name = type(self).__name__
        for field in dataclasses.fields(self):
            self._set(field.name, _normal(getattr(self, field.name)))
        _checks.choice(name, "per", self.per, GRANULARITIES)
        if "pairing" in {field.name for field in dataclasses.fields(self)}:
            self._set("pairing", _pairing.resolve(name, self.pairing))
        if self.per == "pair" and not isinstance(self.pairing, Flip):
            raise ValueError(
                f'{name}: per="pair" needs the pairing "flip", whose partners are mutual, '
                f"got {self.pairing!r}"
            )

    def draw(self, key: jax.Array, rows: Any, spatial: tuple) -> tuple[Region, jax.Array | None]:
        """Decides where the partner is painted, and how opaquely, for some rows.

        Args:
            key: a PRNG key, to be used up.
            rows: how many rows to draw for, 1 if `per="batch"`.
            spatial: the static extents in pixels; empty if the images have no spatial axis.

        Returns:
            (region, opacity): a `Box`, a `Mask` or None for everywhere; float32[rows] in [0, 1],
            or None for opaque.
        """
        return self._decide(_uniform(key, rows, self._uniforms(spatial)), spatial)

    def plan(
        self, key: jax.Array, shape: tuple[int, ...], *, channel_axis: int | str | None = "auto"
    ) -> Plan:
        """Draws everything that mixing one batch needs.

        Args:
            key: a PRNG key, typed or raw.
            shape: the static shape of the images, `images.shape`.
            channel_axis: -1 (channels-last), 1 (channels-first), None (no channel axis), or
                "auto", which is -1, but refuses a region on images of rank 3.

        Returns:
            The plan, for a batch of `shape[0]`.

        Raises:
            TypeError: if `key` is not a PRNG key, or `shape` not a shape.
            ValueError: if the shape does not suit the mixer.
        """
        where = f"{type(self).__name__}.plan"
        _checks.key(where, key)
        shape = _checks.batched_shape(where, shape)
        _checks.channel(where, shape, channel_axis, False)  # Before jit has to hash it.
        return self._plan(where, key, shape, channel_axis)

    def __call__(
        self,
        key: jax.Array,
        images: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        num_classes: int | None = None,
        smoothing: ArrayLike = 0.0,
        channel_axis: int | str | None = "auto",
    ) -> Any:
        """Draws a plan and mixes one batch by it.

        Args:
            key: a PRNG key, typed or raw.
            images: [B, ...], of any dtype.
            labels: class ids int[B], or dense labels [B, K]; see `Plan.labels`.
            num_classes: K, which class ids need.
            smoothing: label smoothing in [0, 1).
            channel_axis: see `plan`.

        Returns:
            (images, labels), the images of the shape and dtype given, the labels float32[B, K]; the
            images alone without labels.

        Raises:
            TypeError: if an argument is of the wrong kind.
            ValueError: if sizes do not agree.
        """
        where = type(self).__name__
        _checks.key(where, key)
        images = _checks.array(where, "images", images)
        _checks.channel(where, images.shape, channel_axis, False)  # Before jit has to hash it.
        if labels is not None:
            labels = _checks.labels(where, labels, num_classes)
            _checks.batch(
                where, "labels", labels, images.shape[0], f"images {_checks.describe(images)}"
            )
            width = labels.shape[1] if labels.ndim == 2 else 0
            smoothing = _checks.smoothing(where, smoothing, width)
        return _apply(self, where, key, images, labels, smoothing, num_classes, channel_axis)

    def __repr__(self) -> str:
        """The call that makes this mixer."""
        names = inspect.signature(type(self)).parameters
        given = ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
        return f"{type(self).__name__}({given})"

    def _set(self, name: str, value: Any) -> None:
        """Sets a field of this frozen dataclass, at construction."""
        object.__setattr__(self, name, value)

    def _plan(self, where: str, key: jax.Array, shape: tuple, channel_axis: Any) -> Plan:
        """The plan, for arguments that were checked."""
        self.pairing.check(where, shape[0])
        return _draw_plan(self, where, key, shape, channel_axis)

    def _uniforms(self, spatial: tuple) -> int:
        """How many uniforms decide a row, of a mixer without a `draw` of its own."""
        raise NotImplementedError(f"{type(self).__name__} must define draw(key, rows, spatial)")

    def _decide(self, uniforms: jax.Array, spatial: tuple) -> tuple[Region, jax.Array | None]:
        """The region and opacity of some rows, from float32[rows, count] in [0, 1)."""
        raise NotImplementedError

    @property
    def _decides(self) -> bool:
        """Whether uniforms decide, which all mixers of a policy share, and no key of its own."""
        return type(self).draw is Mixer.draw

    def _requests(self, spatial: tuple) -> list[tuple[bool, int | None]]:
        """What `_sample` takes, in its order: for the whole batch?, how many uniforms or a key."""
        count = self._uniforms(spatial) if self._decides else None
        return [(self.per == "batch", count)]

    def _sample(self, draws: Iterator[jax.Array], pairing: Pairing, batch: Any, spatial: tuple):
        """The region and opacity of every row of a batch, each drawn `per` what the mixer says."""
        where = f"{type(self).__name__}.draw"
        rows = self._rows(batch)
        if self._decides:
            drawn = self._decide(next(draws), spatial)
        else:
            drawn = self.draw(next(draws), rows, spatial)
        if not (isinstance(drawn, tuple) and len(drawn) == 2):
            raise TypeError(
                f"{where}: must return (region, opacity), got {_checks.describe(drawn)}"
            )
        region = _region.checked(where, drawn[0], rows, spatial)
        opacity = _region.checked_opacity(where, drawn[1], rows)
        return self._spread((region, opacity), pairing, batch)

    def _rows(self, batch: Any) -> Any:
        """How many rows to draw for a batch of that size."""
        return 1 if self.per == "batch" else batch

    def _spread(self, drawn: Any, pairing: Pairing, batch: Any) -> Any:
        """Gives every row of the batch the draw that it shares in."""
        if self.per == "batch":
            return jax.tree.map(lambda v: jnp.broadcast_to(v, (batch, *v.shape[1:])), drawn)
        if self.per == "pair":
            first = lax.iota(jnp.int32, batch) <= pairing.partner(batch)
            return jax.tree.map(lambda v: _where_rows(first, v, pairing.take(v)), drawn)
        return drawn


@functools.partial(jit, static_argnames=("where", "shape", "channel_axis"))
def _draw_plan(mixer, where, key, shape, channel_axis) -> Plan:
    """Draws the pairing, the region and the opacity."""
    batch, spatial = shape[0], _checks.extents(where, shape, channel_axis, False)
    pairing = mixer.pairing
    requests = mixer._requests(spatial)
    if pairing.random:
        pairing_key, key = jax.random.split(key)
        pairing = pairing.draw(pairing_key, batch)
    region, opacity = mixer._sample(_draws(key, requests, batch), pairing, batch, spatial)
    if region is not None:
        _checks.canvas(where, shape, channel_axis)
    return _assemble(pairing, region, opacity, batch, spatial)


def _draws(key, requests, batch):
    """Yields what was requested: float32[rows, count] in [0, 1), or a key.

    All the uniforms of a plan are one draw, those for the whole batch another: compiling a draw
    costs more than anything else about a plan. Neither is sent anywhere if the batch is split.
    """
    counts = {whole: [] for whole, count in requests if count is not None}
    for whole, count in requests:
        if count is not None:
            counts[whole].append(count)
    streams = len(counts) + sum(count is None for _, count in requests)
    keys = iter([key] if streams == 1 else jax.random.split(key, streams))
    uniforms = {}
    for whole, widths in counts.items():
        drawn = _uniform(next(keys), 1 if whole else batch, sum(widths))
        *ends, _ = itertools.accumulate(widths)
        uniforms[whole] = iter(jnp.split(drawn, ends, axis=1))
    for whole, count in requests:
        yield next(keys) if count is None else next(uniforms[whole])


@functools.partial(jit, static_argnames=("where", "num_classes", "channel_axis"))
def _apply(mixer, where, key, images, labels, smoothing, num_classes, channel_axis):
    """Draws a plan and mixes by it in one program."""
    plan = mixer._plan(where, key, images.shape, channel_axis)
    images = plan.images(images, channel_axis=channel_axis)
    if labels is None:
        return images
    # Not by `plan.labels`, which would check again, and cannot see that a traced smoothing is 0.
    return images, _labels(plan, labels, None, smoothing, num_classes)


class CutMix(Mixer):
    """Cuts a box out of the partner and pastes it at the same place.

    lambda ~ Beta(alpha, alpha) is the share of the original. The box has the share
    (1 - lambda)^(1/n) of each of the n spatial extents, and `plan.lam` is computed from the pixels
    that it really covers, so that it is the law of the box that decides how much is painted, and
    where. Along an axis of E pixels, with side = floor(E * (1 - lambda)^(1/n)):

    - "paper": a centre c uniform over the E pixels, and the pixels from c - floor(side / 2) up to,
      but without, c + floor(side / 2), clipped at the border. So does the paper's own code
      (`rand_bbox`), so does torchvision (0.29.1, `v2.CutMix`), so did timm before 1.0.31.
    - "timm": the same, up to c + ceil(side / 2), so that an odd side keeps its last pixel. So does
      timm (1.0.31, `rand_bbox`).
    - "contained": the side rounded to the nearest pixel instead, and the box at one of the places
      inside the image, each as likely: the area that was drawn is the area that is painted. So
      does Keras (3.15.1), but with corners between pixels.
    - `minmax=(a, b)`: a side uniform over the integers from floor(a * E) to floor(b * E) - 1,
      whatever lambda, at one of the places inside the image; floor(a * E) if there are no others.
      So does timm (1.0.31, `rand_bbox_minmax`).

    What that means for an image of 224 x 224 pixels, at alpha 1:

    | law                 | mean share of | chance of being painted of a pixel in the          |
    |                     | the original  | middle | middle of an edge | corner                |
    |---------------------|---------------|--------|-------------------|-----------------------|
    | "paper"             | 0.68          | 0.49   | 0.25              | 0.12                  |
    | "timm"              | 0.68          | 0.50   | 0.25              | 0.13                  |
    | "contained"         | 0.50          | 0.84   | 0.04              | 0.01                  |
    | minmax=(0.2, 0.8)   | 0.75          | 0.60   | 0.01              | 0.00                  |

    Attributes:
        alpha: the concentration of lambda, positive; 1 is uniform. A number or a traced scalar.
        per: what gets a box of its own: each "example", each "pair" of a flip, or the "batch".
        pairing: who is mixed with whom: a pairing, or "flip", "roll" or "permutation".
        box: the law of the box: "paper", "timm" or "contained".
        minmax: the bounds (a, b) of each side's share of the extent, in place of lambda and `box`.
        axes: the spatial axes that the box limits, counted from 0 among the spatial axes; it spans
            the others. (0,) cuts a spectrogram [B, T, F, C] in time only, (1, 2) the same box out
            of every frame of a video [B, T, H, W, C]. None is all of them.
        grid: the side in pixels of the cells that the box is made of, a divisor of the extents, or
            one side for each of `axes`: with the patch size of a vision transformer each token is
            wholly one image's. The box laws then hold in cells.

    Raises:
        TypeError: if `axes` or `grid` are not static integers.
        ValueError: for a bad number, an unknown mode, or `minmax` with a `box`.

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

    alpha: Any = 1.0
    box: str = dataclasses.field(default="paper", kw_only=True, metadata=STATIC)
    minmax: Any = dataclasses.field(default=None, kw_only=True)
    axes: Any = dataclasses.field(default=None, kw_only=True, metadata=STATIC)
    grid: Any = dataclasses.field(default=1, kw_only=True, metadata=STATIC)

    def __post_init__(self):
        super().__post_init__()
        self._set("alpha", _checks.alpha("CutMix", self.alpha))
        _checks.choice("CutMix", "box", self.box, _region.BOX_LAWS)
        self._set("grid", _checks.counts("CutMix", "grid", self.grid, 1))
        if self.axes is not None:
            self._set("axes", _checks.counts("CutMix", "axes", self.axes, None))
        if self.minmax is None:
            return
        self._set("minmax", _checks.minmax("CutMix", self.minmax))
        if self.box != "paper":
            raise ValueError(
                f'CutMix: minmax places its boxes itself, got box="{self.box}" with it; give one '
                "of the two"
            )

    def _uniforms(self, spatial):
        """Two for each side and place; or two for lambda and one for each place."""
        n = len(_checks.limited("CutMix", self.axes, spatial))
        return 2 + n if self.minmax is None else 2 * n

    def _decide(self, uniforms, spatial):
        """A box for each row, opaque."""
        axes = _checks.limited("CutMix", self.axes, spatial)
        grid = _checks.grid("CutMix", self.grid, tuple(spatial[axis] for axis in axes))
        draw_box = functools.partial(
            _region.draw_box, spatial=spatial, law=self.box, axes=axes, grid=grid
        )
        if self.minmax is not None:
            return draw_box(uniforms, minmax=self.minmax), None
        lam = from_uniforms(uniforms[:, 0], uniforms[:, 1], _float32(self.alpha))
        return draw_box(uniforms[:, 2:], lam=lam), None


class MixUp(Mixer):
    """Blends each image with its partner, pixel by pixel.

    lambda ~ Beta(alpha, alpha) is the share of the original, in every pixel as in the label.

    Attributes:
        alpha: the concentration of lambda, positive; 1 is uniform. A number or a traced scalar.
        per: what gets a lambda of its own: each "example", each "pair" of a flip, or the "batch".
        pairing: who is mixed with whom: a pairing, or "flip", "roll" or "permutation".
        fold: whether lambda is folded to max(lambda, 1 - lambda), so that an image stays mostly
            itself, as big_vision and fastai have it.

    Raises:
        TypeError: if `fold` is not a bool.
        ValueError: for a bad number or an unknown mode.

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

    alpha: Any = 1.0
    fold: bool = dataclasses.field(default=False, kw_only=True, metadata=STATIC)

    def __post_init__(self):
        super().__post_init__()
        self._set("alpha", _checks.alpha("MixUp", self.alpha))
        _checks.flag("MixUp", "fold", self.fold)

    def _uniforms(self, spatial):
        """Two, for lambda."""
        return 2

    def _decide(self, uniforms, spatial):
        """The partner everywhere, at a random opacity."""
        lam = from_uniforms(uniforms[:, 0], uniforms[:, 1], _float32(self.alpha))
        return None, 1 - (jnp.maximum(lam, 1 - lam) if self.fold else lam)


def _normal(value: Any) -> Any:
    """A field's value in the form in which it can be hashed and printed."""
    if isinstance(value, np.generic):
        return value.item()
    return tuple(value) if isinstance(value, list) else value


def _uniform(key: jax.Array, rows: Any, count: int) -> jax.Array:
    """float32[rows, count] in [0, 1)."""
    # Drawn along one axis: to number the elements along two takes half as long again to compile.
    return jax.random.uniform(key, (rows * count,), jnp.float32).reshape(rows, count)


def _float32(value: Any) -> jax.Array:
    """A number, weakly typed or of any precision, as float32."""
    return jnp.asarray(value).astype(jnp.float32)


def _where_rows(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """Chooses whole rows."""
    return jnp.where(lax.expand_dims(condition, range(1, yes.ndim)), yes, no)
