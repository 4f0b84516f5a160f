"""The plan: all random decisions for one batch, and the methods that apply them to arrays."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from jaxmix import _checks, _composite, _labels, _pairing, _region, _sharding
from jaxmix._checks import ChannelAxis
from jaxmix._composite import blends, jit, mix, wider
from jaxmix._pairing import Pairing, PairingName
from jaxmix._pytree import STATIC, pytree, replaced, shown
from jaxmix._region import Box, Mask, Region


@pytree(eq=False)
class Plan:
    """One draw of a mixing policy for one batch.

    Each row's partner is painted over it, through a region, at an opacity. Images, labels, maps and
    losses are computed from the same few arrays, so they always agree. A plan is made by
    `mixer.plan(key, images.shape)`, or by hand with `Plan.of`.

    Attributes:
        pairing: which row is mixed with which.
        region: where the partner is painted: a `Box`, a `Mask`, or None for everywhere.
        opacity: float32[B] in [0, 1], the opacity of the partner, or None for opaque.
        lam: float32[B], the weight of the original's label. It is the original's share of the
            image, averaged over the pixels, unless `relabel` has set it.
        spatial: the extents in pixels that the region was drawn for; None without a region.
        batch: the batch size B. Plans that were split or stacked by hand no longer match it and
            raise ValueError.
        relabelled: whether `relabel` has set `lam`, so that it no longer follows the pixels.

    Example:
        >>> import jax, jaxmix
        >>> images = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3))
        >>> plan = jaxmix.CutMix().plan(jax.random.key(1), images.shape)
        >>> mixed = plan.images(images)
        >>> plan.labels(jax.numpy.arange(8), num_classes=10).shape
        (8, 10)
    """

    pairing: Pairing
    region: Region
    opacity: Array | None
    lam: Array
    spatial: tuple[int, ...] | None = dataclasses.field(metadata=STATIC)
    batch: int = dataclasses.field(metadata=STATIC)
    relabelled: bool = dataclasses.field(default=False, metadata=STATIC)

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        pairing: Pairing | PairingName,
        *,
        region: Region = None,
        opacity: ArrayLike | None = None,
        channel_axis: ChannelAxis = "auto",
    ) -> "Plan":
        """Makes a plan by hand, to replay a draw or to use a custom mask.

        Boxes are clipped to the image, and opacities to [0, 1]. `lam` is computed after clipping.

        Args:
            shape: the static shape of the images.
            pairing: which row is mixed with which; a `Permutation` needs its index.
            region: where the partner is painted; None is everywhere.
            opacity: float32[B] or a scalar; None is opaque.
            channel_axis: -1, 1, None for no channel axis, or "auto".

        Returns:
            The plan.

        Raises:
            TypeError: if an argument has the wrong type.
            ValueError: if shapes are incompatible.

        Example:
            >>> import jax.numpy as jnp, jaxmix
            >>> left = jaxmix.Box(jnp.zeros((4, 2), int), jnp.full((4, 2), 8).at[:, 1].set(2))
            >>> print(jaxmix.Plan.of((4, 8, 8, 3), jaxmix.Flip(), region=left).lam)
            [0.75 0.75 0.75 0.75]
        """
        where = "Plan.of"
        shape = _checks.shape(where, shape)
        batch = shape[0]
        pairing = _pairing.resolve(where, pairing)
        pairing.check(where, batch)
        remedy = "pass Permutation(index), the partner of each row"
        _checks.require(not pairing.random, where, "pairing must be drawn already", pairing, remedy)
        _checks.channel(where, shape, channel_axis, region=False)
        spatial = () if region is None else _checks.canvas(where, shape, channel_axis)
        region = _region.checked(where, region, batch, spatial)
        if opacity is not None and not _checks.shape_of(opacity):
            opacity = jnp.broadcast_to(_checks.fraction(where, "opacity", opacity), (batch,))
        opacity = _region.checked_opacity(where, opacity, batch)
        return assemble(pairing, region, opacity, batch, spatial)

    @property
    def partner(self) -> Array:
        """int32[B]: the row that is painted onto each row."""
        return self.pairing.partner(self._size("Plan.partner"))

    def weights(self, shape: tuple[int, ...], *, channel_axis: ChannelAxis = "auto") -> Array:
        """Computes the original's share of each pixel.

        `lam` is the mean of this share over the pixels (the original's valid pixels after `only`),
        unless `relabel` has set it.

        Args:
            shape: the static shape of the images.
            channel_axis: -1, 1, None for no channel axis, or "auto"; see `images`.

        Returns:
            float32[B, *spatial].

        Raises:
            ValueError: if the plan was made for another batch size or other extents, or "auto" can
                be read in several ways.

        Example:
            >>> import jax, jaxmix
            >>> plan = jaxmix.MixUp().plan(jax.random.key(0), (8, 32, 32, 3))
            >>> plan.weights((8, 32, 32, 3)).shape
            (8, 32, 32)
        """
        where = "Plan.weights"
        shape = self._shape(where, shape)
        spatial = _checks.spatial(shape, self._channel(where, shape, channel_axis))
        return _composite.weights((shape[0], *spatial), self.region, self.opacity)

    def images(
        self,
        images: ArrayLike,
        *,
        channel_axis: ChannelAxis = "auto",
        donors: ArrayLike | None = None,
    ) -> Array:
        """Paints each row's partner over it.

        Pixels that show one image are copied bit for bit. Other pixels are blended in float32
        (float64 for float64) and cast back; integers are rounded half to even. Values that are not
        shown, including NaN and inf, do not reach the result or its gradient. A plan without a
        region applies to arrays of any shape: features, embeddings, tables.

        Plans compose: use `second.images(first.images(x))`, and the same for labels. The labels are
        exact if the later region covers the earlier mixture evenly. Examples are CutMix over MixUp,
        and a cut across the rows over a cut across the columns (RICAP). CutMix over CutMix is not
        exact: one box may hide another, and the labels are then off by 0.1 on average.

        Args:
            images: [B, ...], of any dtype; bool only for opaque plans.
            channel_axis: -1, 1, None for no channel axis, or "auto", which chooses the one that
                matches the extents of the plan's region.
            donors: another batch of the same shape, from which the partners' pixels are taken.

        Returns:
            The mixed images, of the shape and dtype of `images`.

        Raises:
            TypeError: if `images` is not an array, or is bool and would be blended.
            ValueError: if the plan was made for another batch size or other extents, or "auto" can
                be read in several ways.

        Example:
            >>> import jax, jaxmix
            >>> plan = jaxmix.CutMix().plan(jax.random.key(0), (8, 32, 32, 3))
            >>> plan.images(jax.numpy.zeros((8, 32, 32, 3), "uint8")).dtype
            dtype('uint8')
        """
        where = "Plan.images"
        images, donors = self._both(where, "images", images, donors, like=True)
        channel = self._channel(where, images.shape, channel_axis)
        if donors is None and self.pairing == _pairing.SAME_ROW:
            return images
        fits = jnp.issubdtype(images.dtype, jnp.number) or not blends(self.region, self.opacity)
        wanted = f"{images.dtype} images cannot be blended"
        remedy = "cast them to a number type, or use an opaque mixer such as CutMix"
        _checks.require_type(fits, where, wanted, images, remedy)
        return _images(self, images, donors, channel)

    def labels(
        self,
        labels: ArrayLike,
        *,
        num_classes: int | None = None,
        smoothing: ArrayLike = 0.0,
        donors: ArrayLike | None = None,
    ) -> Array:
        """Averages each row's label with its partner's, weighted by their shares of the image.

        If a network has several heads, call this once for each head. If the plan cuts in time, the
        labels of frames [B, T, K] are mixed by
        `plan.at((B, T, 1, K)).images(labels[:, :, None])[:, :, 0]`. To get the partners' labels,
        use `plan.pairing.take(labels)`.

        Args:
            labels: class ids int[B], dense labels [B, K] (one-hot, soft or multi-hot), or
                regression targets float[B, 1]. Negative ids are ignored: their labels are rows of
                zeros. Unsigned ids cannot be negative, so an id that means "ignore", such as 255,
                needs a cast: `jnp.where(ids == 255, -1, ids.astype(int))`. Ids >= num_classes in a
                `jax.Array` are also ignored (values on the device are not checked).
            num_classes: K, the number of classes; required if labels are class ids.
            smoothing: label smoothing in [0, 1), applied before mixing: a label becomes
                `(1 - smoothing) * label + smoothing / K`.
            donors: the labels of another batch, from which the partners' labels are taken.

        Returns:
            float32[B, K], or float64[B, K] for float64 labels.

        Raises:
            TypeError: if class ids are not integers, or `labels` are maps.
            ValueError: if class ids are given without `num_classes`, or shapes are incompatible.

        Example:
            >>> import jax, jax.numpy as jnp, jaxmix
            >>> plan = jaxmix.Plan.of((2, 8, 8, 3), jaxmix.Flip(), opacity=jnp.array([0.25, 0.5]))
            >>> print(plan.labels(jnp.array([0, 1]), num_classes=3))
            [[0.75 0.25 0.  ]
             [0.5  0.5  0.  ]]
        """
        where = "Plan.labels"
        check = functools.partial(_labels.checked, num_classes=num_classes)
        labels, donors = self._both(where, "labels", labels, donors, check)
        if donors is not None:
            width, other = (num_classes if y.ndim == 1 else y.shape[1] for y in (labels, donors))
            wanted = f"donors must have as many classes as labels, {width}"
            _checks.require(width == other, where, wanted, donors)
        smoothing = _labels.checked_smoothing(where, smoothing, labels)
        return _mixed_labels(self, labels, donors, smoothing, num_classes)

    def maps(self, maps: ArrayLike, *, donors: ArrayLike | None = None) -> Array:
        """Gives each pixel the class of the image with the larger share there.

        Classes are never blended. On a tie the pixel keeps the original's class.

        Args:
            maps: int or bool[B, *spatial].
            donors: the maps of another batch, from which the partners' maps are taken.

        Returns:
            The mixed maps, of the shape and dtype of `maps`.

        Raises:
            TypeError: if `maps` are not integer or boolean.
            ValueError: if they have a channel axis, or the plan was made for other sizes.

        Example:
            >>> import jax, jaxmix
            >>> plan = jaxmix.CutMix().plan(jax.random.key(0), (8, 32, 32, 3))
            >>> plan.maps(jax.numpy.zeros((8, 32, 32), "int32")).shape
            (8, 32, 32)
        """
        where = "Plan.maps"
        maps, donors = self._both(where, "maps", maps, donors, like=True)
        if not (jnp.issubdtype(maps.dtype, jnp.integer) or maps.dtype == jnp.bool_):
            remedy = "real-valued maps (depth, soft segmentations) go to plan.images"
            raise _checks.type_error(where, "maps must be integer or boolean", maps, remedy)
        channels = maps.ndim > 2 and 1 in (maps.shape[1], maps.shape[-1])
        if channels if self.spatial is None else maps.shape[1:] != self.spatial:
            wanted = f"maps must be [B, *spatial] with extents {self.spatial or 'of any size'}"
            remedy = "squeeze the channel axis of size 1" if channels else ""
            raise _checks.value_error(where, wanted, maps, remedy)
        return _composite.choose(maps, self._partners(maps, donors), self.region, self.opacity)

    def loss(
        self, loss_fn: Callable[[Any, Any], Array], outputs: Any, labels: Any, *, donors: Any = None
    ) -> Array:
        """Computes the mixed loss of each row, without a dense label array.

        The mixed loss is
        `lam * loss_fn(outputs, labels) + (1 - lam) * loss_fn(outputs, partner's labels)`. If the
        loss is linear in the label, as cross-entropies are, it equals the loss of the mixed label.
        A squared error is larger by `lam * (1 - lam) * (label - partner's label)^2`. This term has
        no gradient with respect to the outputs. For label smoothing, use a loss that smooths.

        Args:
            loss_fn: a per-example loss, `(outputs, labels) -> [B]`, such as
                `optax.softmax_cross_entropy_with_integer_labels`.
            outputs: the outputs of the network, passed on to `loss_fn`.
            labels: [B, ...], or a pytree of such arrays, passed on to `loss_fn`. A pytree may be
                token ids with their lengths, or the labels of several heads. Negative class ids
                int[B] contribute zero loss; in a pytree no value is ignored.
            donors: the labels of another batch, of the same structure, from which the partners'
                labels are taken.

        Returns:
            [B], at least float32.

        Raises:
            TypeError: if `labels` are not arrays.
            ValueError: if `loss_fn` does not return [B], or `labels` have another batch size.

        Example:
            >>> import jax, jax.numpy as jnp, jaxmix
            >>> plan = jaxmix.MixUp().plan(jax.random.key(0), (4, 8, 8, 3))
            >>> square = lambda outputs, labels: (outputs - labels) ** 2
            >>> plan.loss(square, jnp.zeros(4), jnp.ones(4)).shape
            (4,)
        """
        where = "Plan.loss"
        wanted = "loss_fn, the first argument, must be a function"
        _checks.require_type(callable(loss_fn), where, wanted, loss_fn)
        leaves, tree = jax.tree.flatten(labels, is_leaf=_checks.is_variable)
        _checks.require_type(leaves, where, "labels must be arrays", labels)
        given, other = jax.tree.flatten(donors, is_leaf=_checks.is_variable)
        if donors is not None and other != tree:
            wanted = f"donors must have the structure of labels, {tree}"
            raise _checks.type_error(where, wanted, other)
        pairs = zip(leaves, given or [None] * len(leaves), strict=True)
        pairs = [self._both(where, "labels", *pair) for pair in pairs]
        sides = [label for label, _ in pairs], [self._partners(*pair) for pair in pairs]
        losses = (self._loss_of(loss_fn, outputs, tree.unflatten(side)) for side in sides)
        return mix(self._label_share(donors), *losses)

    def accuracy(
        self, logits: ArrayLike, labels: ArrayLike, *, donors: ArrayLike | None = None
    ) -> Array:
        """Computes accuracy weighted by the mixed label: the weight of each row's top class.

        Args:
            logits: [B, K], scores or probabilities.
            labels: class ids int[B].
            donors: the class ids of another batch, from which the partners' ids are taken.

        Returns:
            float32[B] in [0, 1]. Its mean is the training accuracy on mixed images.

        Raises:
            TypeError: if `labels` are not integers.
            ValueError: if shapes are incompatible.

        Example:
            >>> import jax.numpy as jnp, jaxmix
            >>> plan = jaxmix.Plan.of((2, 8, 8, 3), jaxmix.Flip(), opacity=jnp.array([0.25, 0.5]))
            >>> print(plan.accuracy(jnp.eye(2), jnp.array([0, 1])))
            [0.75 0.5 ]
        """
        where = "Plan.accuracy"
        scores = _checks.real(where, "logits", self._batch(where, "logits", logits))
        _checks.require(scores.ndim == 2, where, "logits must be [B, K]", scores)
        labels, donors = self._both(where, "labels", labels, donors, _labels.class_ids)
        credit = jit(Plan.loss, static_argnums=1)  # Hits are mixed like losses.
        return credit(self, _labels.top_class, scores, labels, donors=donors)

    def only(self, valid: ArrayLike | Box, *, donors: ArrayLike | Box | None = None) -> "Plan":
        """Restricts the plan to valid rows or pixels, and leaves the others unmixed.

        A row stays unmixed if it or its partner is not valid. Use this for the padding of the last
        batch of an epoch, or to mix only a part of the batch.

        Pixels that are not valid are neither painted nor painted over, and `lam` counts the
        original's valid pixels only. Use this for the padding of images of different sizes, the
        silent end of a recording, or void regions of a map. Masking the loss of padding is up to
        the caller.

        Args:
            valid: bool[B] for rows or bool[B, *spatial] for pixels, False for padding. Compare
                numbers first, as in `weights > 0`. If the plan has a region, `valid` may also be a
                `Box`, the valid part of each image. Then boxes stay boxes, which are the faster
                kind of region.
            donors: `valid` of the other batch, if the partners come from another batch.

        Returns:
            The restricted plan. Rows that are not mixed have `lam` 1.

        Raises:
            TypeError: if `valid` is neither boolean nor a `Box`.
            ValueError: if `valid` has another batch size or other extents than the plan.

        Example:
            >>> import jax, jax.numpy as jnp, jaxmix
            >>> plan = jaxmix.Plan.of((4, 8, 8, 3), "flip", opacity=jnp.full(4, 0.5))
            >>> print(plan.only(jnp.array([True, True, True, False])).lam)
            [1.  0.5 0.5 1. ]
            >>> widths = jnp.array([8, 4, 8, 8])[:, None, None]  # Image 1 is padded.
            >>> valid = jnp.broadcast_to(jnp.arange(8)[None, None] < widths, (4, 8, 8))
            >>> print(plan.only(valid).lam)
            [0.5  0.5  0.75 0.5 ]
        """
        where = "Plan.only"
        batch, spatial = self._size(where), self.spatial
        if isinstance(valid, Box):
            if spatial is None or not isinstance(donors, Box | None):
                wanted = "a Box needs a plan that has a region, and donors that are a Box or None"
                raise _checks.value_error(where, wanted, valid, "pass bool[B, *spatial]")
            boxes = (_region.checked(where, x, batch, spatial) for x in (valid, donors))
            return _only_pixels(self, *boxes, spatial)
        valid, donors = self._both(where, "valid", valid, donors, _flags, like=True)
        if valid.ndim == 1:
            return _only(self, valid, donors)
        spatial = valid.shape[1:] if spatial is None else spatial
        valid = _checks.shaped(where, "valid", valid, (batch, *spatial))
        return _only_pixels(self, Mask(valid), None if donors is None else Mask(donors), spatial)

    def relabel(self, share: ArrayLike) -> "Plan":
        """Returns the plan with another weight of the original's label.

        Labels, loss and accuracy use the new weight. Images, weights and maps do not change. Use
        this for methods that weight labels not by area but by the attention of a network
        (TransMix), the sizes of the classes (Remix) or the score of a teacher.

        Args:
            share: float32[B] in [0, 1]; the range is checked for NumPy arrays. A row that is its
                own partner keeps its label whatever its share, unless labels come from donors.

        Returns:
            The plan with `lam` set to `share`.

        Raises:
            TypeError: if `share` is not an array of real numbers.
            ValueError: if `share` has another shape, or numbers outside [0, 1].

        Example:
            >>> import jax.numpy as jnp, jaxmix
            >>> plan = jaxmix.Plan.of((2, 8, 8, 3), "swap", opacity=jnp.array([0.25, 0.5]))
            >>> print(plan.relabel(jnp.array([1.0, 0.75])).labels(jnp.eye(2)))
            [[1.   0.  ]
             [0.25 0.75]]
        """
        where = "Plan.relabel"
        given = _checks.array(where, "share", share)
        lam = _region.numbers_of_rows(where, "share", given, self._size(where))
        bad = isinstance(given, np.ndarray) and ~((given >= 0) & (given <= 1))
        if np.any(bad):
            raise _checks.value_error(where, "share must be in [0, 1]", given[bad][0].item())
        return replaced(self, lam=lam, relabelled=True)

    def __getitem__(self, rows: slice) -> "Plan":
        """Returns the plan for a slice of the batch, `plan[i:j]`; it mixes these rows as before.

        For gradient accumulation, draw one plan for the full batch and take a slice of it for each
        micro-batch. Slices of equal length have the same pytree structure, so they can be stacked
        for a scan.

        Args:
            rows: a slice with static bounds and without a step. It must contain the partners of all
                its rows. With `Swap()` the start must be even, and the stop even or the end. With
                `Flip(groups)` both must be bounds of groups. With `Roll(0)` any slice is allowed,
                and an empty slice always is.

        Returns:
            The plan for a batch of `j - i` rows.

        Raises:
            TypeError: if `rows` is not a slice of static integers.
            ValueError: if the slice has a step, or some partners lie outside it.

        Example:
            >>> import jax, jaxmix
            >>> mixer = jaxmix.CutMix(pairing=jaxmix.Flip(groups=2))
            >>> plan = mixer.plan(jax.random.key(0), (8, 32, 32, 3))
            >>> print(plan[4:8].partner)
            [3 2 1 0]
        """
        where = "Plan[start:stop]"
        if not isinstance(rows, slice):
            raise _checks.type_error(where, "plans support slices only, as in plan[i:j]", rows)
        for name in ("start", "stop", "step"):
            if getattr(rows, name) is not None:
                _checks.count(where, name, getattr(rows, name), None)
        batch = self._size(where)
        if not isinstance(batch, int) or rows.step not in (None, 1):
            wanted = f"slices need a static batch ({batch} here) and a step of 1"
            raise _checks.value_error(where, wanted, rows)
        start, stop, _ = rows.indices(batch)
        stop = max(start, stop)
        pairing = self.pairing.within(start, stop, batch) if start < stop else _pairing.SAME_ROW
        if pairing is None:
            raise ValueError(
                f"{where}: rows {start} to {stop} of {batch} have partners outside the slice "
                f"with {self.pairing!r}; slice Swap() at even rows, Flip(groups=n) at whole groups"
            )
        arrays = jax.tree.map(_sharding.with_whole_rows, replaced(self, pairing=None))
        sliced = jax.tree.map(lambda x: x[start:stop], arrays)
        return replaced(sliced, pairing=pairing, batch=stop - start)

    def at(self, shape: tuple[int, ...], *, channel_axis: ChannelAxis = "auto") -> "Plan":
        """Adapts the plan to another resolution, for example to a map of tokens.

        Args:
            shape: the static shape of the arrays to mix.
            channel_axis: -1, 1, None for no channel axis, or "auto", which is -1.

        Returns:
            The plan for images of that shape, with the same `lam`.

        Raises:
            ValueError: if an edge of a box may fall inside a pixel of that shape, the region is a
                mask of other extents, or the batch size differs.

        Example:
            >>> import jax, jaxmix
            >>> plan = jaxmix.CutMix(grid=16).plan(jax.random.key(0), (8, 224, 224, 3))
            >>> plan.at((8, 14, 14, 768)).spatial
            (14, 14)
        """
        where = "Plan.at"
        shape = self._shape(where, shape)
        if self.spatial is None:
            return self
        spatial = _checks.canvas(where, shape, channel_axis)
        if spatial == self.spatial:
            return self
        region = None
        if isinstance(self.region, Box) and len(spatial) == len(self.spatial):
            region = _region.at(self.region, self.spatial, spatial)
        if region is None:
            raise ValueError(
                f"{where}: edges for extents {self.spatial} may fall inside pixels of {spatial}; "
                "draw boxes with CutMix(grid=n), make a plan for each with Plan.of, or make "
                "symbolic extents static"
            )
        return replaced(self, region=region, spatial=spatial)

    def __repr__(self) -> str:
        """One line: batch, extents, pairing, region, whether it blends, and the mean of `lam`."""
        region = None if self.region is None else type(self.region).__name__
        blended, lam = "?", shown(self.lam)
        with contextlib.suppress(Exception):  # A repr must not raise, whatever the leaves are.
            blended = blends(self.region, self.opacity)
            lam = f"{np.asarray(self.lam).sum(dtype=np.float64).item() / self.lam.size:.3f} (mean)"
        return (
            f"Plan(batch={self.batch}, spatial={self.spatial}, pairing={self.pairing!r}, "
            f"region={region}, blends={blended}, lam={lam})"
        )

    def _size(self, where: str) -> Any:
        """The batch size; raises if the plan was split or stacked."""
        if self.lam.shape != (self.batch,):
            raise ValueError(
                f"{where}: the plan was made for a batch of {self.batch}, but its lam is "
                f"{_checks.describe(self.lam)}: it was split or stacked after it was drawn, so its "
                "pairing no longer applies; draw a plan inside jax.shard_map, slice it as "
                "plan[i:j], or map over stacked plans with jax.vmap; across jax.export the batch "
                "must be static"
            )
        return self.batch

    def _batch(self, where: str, argument: str, value: Any, check=_checks.array) -> Array:
        """Checks an array, which must have the batch size of this plan."""
        value = check(where, argument, value)
        _checks.batch(where, argument, value, self._size(where), "the plan")
        return jnp.asarray(value)

    def _shape(self, where: str, shape: Any) -> tuple:
        """Checks a static shape, which must have the batch size of this plan."""
        shape = _checks.shape(where, shape)
        wanted = f"the plan was made for a batch of {self.batch}"
        _checks.require(shape[0] == self._size(where), where, wanted, shape)
        return shape

    def _both(self, where, argument, value, donors, check=_checks.array, *, like=False):
        """Checks an array and its donors, if any. `like` requires one shape and dtype of both."""
        value = self._batch(where, argument, value, check)
        if donors is None:
            return value, None
        donors = self._batch(where, "donors", donors, check)
        wanted = f"donors must have the shape of {argument}, {value.shape}"
        _checks.require(not like or donors.shape == value.shape, where, wanted, donors)
        if like and donors.dtype != value.dtype:
            wanted = f"donors must have the dtype of {argument}, {value.dtype}"
            raise _checks.type_error(where, wanted, donors, "cast one of them")
        _sharding.check_alike(where, argument, value, donors)
        return value, donors

    def _channel(self, where: str, shape: tuple, channel_axis: Any) -> int | None:
        """The channel axis of images; raises unless the other axes match the region."""
        if self.spatial is None:
            return _checks.channel(where, shape, channel_axis, region=False)
        if isinstance(channel_axis, str) and channel_axis == "auto":
            axes = dict.fromkeys((len(shape) - 1, 1, None))
        else:
            axes = (_checks.channel(where, shape, channel_axis, region=True),)
        fitting = [axis for axis in axes if _checks.spatial(shape, axis) == self.spatial]
        if len(fitting) != 1:
            found = f"the plan is for extents {self.spatial}, got images {shape} with channel_axis"
            remedy = "draw a plan for images.shape, or adapt this one with plan.at(images.shape)"
            ways = "they fit in two ways: pass channel_axis=-1 (last) or channel_axis=1 (first)"
            raise ValueError(f"{where}: {found}={channel_axis!r}; {ways if fitting else remedy}")
        return fitting[0]

    def _partners(self, own: Array, donors: Array | None) -> Array:
        """Takes each row's partner, from donors if there are any."""
        return self.pairing.take(own if donors is None else donors)

    def _unpaired(self, donors: Array | None) -> Array | None:
        """bool[B]: True for rows that would be mixed with themselves; None if there are none."""
        return None if donors is not None else self.pairing.own(self.batch)

    def _label_share(self, donors: Array | None) -> Array:
        """float32[B]: the original's share of each row's label."""
        unpaired = self._unpaired(donors)
        return self.lam if unpaired is None else jnp.where(unpaired, 1.0, self.lam)

    def _loss_of(self, loss_fn: Callable, outputs: Any, labels: Any) -> Array:
        """[B]: the loss against one set of labels, zero for ignored class ids."""
        array = isinstance(labels, Array) and labels.ndim == 1
        ids = array and jnp.issubdtype(labels.dtype, jnp.signedinteger)
        ignored = labels < 0 if ids else None
        known = labels if ignored is None else jnp.where(ignored, 0, labels)
        loss = loss_fn(outputs, known)
        if _checks.shape_of(loss) != self.lam.shape:
            wanted = f"loss_fn must return one loss for each example, {self.lam.shape}"
            raise _checks.value_error("Plan.loss", wanted, loss, "take the mean outside of it")
        loss = jnp.asarray(loss).astype(wider(loss.dtype))
        return loss if ignored is None else jnp.where(ignored, jnp.zeros_like(loss), loss)


def _flags(where: str, argument: str, value: Any) -> Array | np.ndarray:
    """Checks an array, which must be bool."""
    value = _checks.array(where, argument, value)
    if value.dtype != jnp.bool_:
        wanted = f"{argument} must be bool[B] or bool[B, *spatial]"
        raise _checks.type_error(where, wanted, value, f"compare it, as in {argument} > 0")
    return value


@functools.partial(jit, static_argnums=(3, 4))
def assemble(pairing, region, opacity, batch, spatial, valid=None) -> Plan:
    """Makes a plan: clips the region to the image, and computes `lam` from the clipped region.

    `valid` is a region of valid pixels. If it is given, `lam` is the mean over these pixels.
    """
    kept = None
    if region is not None:
        region, kept = _region.settle(region, spatial, valid)
    if opacity is None:
        lam = jnp.zeros((batch,), jnp.float32) if kept is None else kept
    else:
        opacity = jnp.clip(opacity, 0, 1)
        # Exact at both ends: lam is `kept` if the partner is opaque, and 1 if nothing is painted.
        lam = 1 - opacity if kept is None else kept + (1 - opacity) * (1 - kept)
    return Plan(pairing, region, opacity, lam, None if region is None else spatial, batch)


@functools.partial(jit, static_argnums=3)
def _images(plan, images, donors, channel):
    """Paints each row's partner over it, except over rows that are their own partners."""
    opacity, unpaired = plan.opacity, plan._unpaired(donors)
    if unpaired is not None and blends(plan.region, opacity):  # A blend would round.
        _, opacity = _region.switch_off(None, opacity, unpaired)
    return _composite.paint(images, plan._partners(images, donors), plan.region, opacity, channel)


@functools.partial(jit, static_argnums=4)
def _mixed_labels(plan, labels, donors, smoothing, num_classes):
    """Encodes both labels densely and mixes them."""
    others = plan._partners(labels, donors)
    own, others, columns = _labels.encode(labels, others, smoothing, num_classes)
    # Without the barrier, some programs compute lam in another way, because XLA rewrites it
    # together with its use.
    share = lax.optimization_barrier(plan._label_share(donors))
    return columns(mix(share[:, None], own, others))


@jit
def _only(plan, valid, donors):
    """Leaves a row unmixed if it or its partner is not valid."""
    off = ~(valid & plan._partners(valid, donors))
    region, opacity = _region.switch_off(plan.region, plan.opacity, off)
    return replaced(plan, region=region, opacity=opacity, lam=jnp.where(off, 1.0, plan.lam))


@functools.partial(jit, static_argnums=3)
def _only_pixels(plan, valid, donors, spatial):
    """Paints only valid pixels of the partner, and only over valid pixels."""
    others = jax.tree.map(plan.pairing.take, valid if donors is None else donors)
    region = _region.overlap(valid, others, spatial)
    if plan.region is not None:
        region = _region.overlap(plan.region, region, spatial)
    new = assemble(plan.pairing, region, plan.opacity, plan.batch, spatial, valid)
    lam = _sharding.spread_like(new.lam, plan.lam)
    lost = plan.relabelled | jnp.isnan(lam)  # A clipped box no longer shows a NaN.
    return replaced(new, lam=jnp.where(lost, lam, new.lam), relabelled=plan.relabelled)
