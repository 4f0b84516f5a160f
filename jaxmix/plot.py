"""Pictures of mixed batches, as Matplotlib figures. Requires Matplotlib.

Example:
    >>> import jax, jaxmix
    >>> images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
    >>> jaxmix.plot.show(jaxmix.CutMix()(jax.random.key(1), images))
    <Figure size 500x130 with 4 Axes>
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxmix import _checks, _labels, _region
from jaxmix._mixers import Mixer, check_mixers
from jaxmix._pairing import Roll
from jaxmix._plan import Plan

OUTLINE = "#ff2d78"


def show(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    plan: Plan | None = None,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
) -> Any:
    """Shows a mixed batch. Titles say the two classes and their weights.

    Args:
        images: the mixed images, [B, H, W], [B, H, W, C] or [B, C, H, W] with C 1 or 3, of any
            dtype. Floats are read as 0 to 1 and integers as 0 to 255; a batch that leaves that
            range, a normalised one for example, is stretched from its smallest value to its
            largest.
        labels: what the titles say: mixed labels float[B, K], or class ids int[B], which are mixed
            by `plan` first if there is one.
        plan: the plan that mixed the images: its painted regions are outlined.
        class_names: the names of the K classes; their numbers by default.
        columns: images in a row.

    Returns:
        A `matplotlib.figure.Figure` with an axes for each image.

    Raises:
        ImportError: without matplotlib.
        TypeError: if an argument has the wrong type.
        ValueError: if the images cannot be displayed, or shapes are incompatible.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jax.random.uniform(jax.random.key(0), (8, 32, 32, 3)), jnp.arange(8)
        >>> plan = jaxmix.CutMix().plan(jax.random.key(1), images.shape)
        >>> figure = jaxmix.plot.show(plan.images(images), labels, plan)
        >>> len(figure.axes)
        8
    """
    where = "plot.show"
    pictures = _pictures(where, images)
    columns = min(_checks.count(where, "columns", columns, 1), max(len(pictures), 1))
    if not isinstance(plan, Plan | None):
        raise _checks.type_error(where, "plan must be a Plan", plan)
    if plan is not None:
        with _checks.renamed(where, "Plan.weights"):
            plan.weights(pictures.shape[:3], channel_axis=None)
    titles = _titles(where, labels, plan, class_names, len(pictures))
    figure = _figure(where, [(pictures, plan)], columns, 1.1 if labels is None else 1.5)
    for axes, title in zip(figure.axes, titles, strict=True):
        axes.set_title(title, fontsize=8)
    return figure


def gallery(images: ArrayLike, mixers: Sequence[Mixer], key: Array) -> Any:
    """Compares several mixers on one batch: a row for each, with the originals on top.

    Args:
        images: as for `show`, not mixed yet.
        mixers: the mixers; each draws with its own key.
        key: a PRNG key, typed or raw.

    Returns:
        A `matplotlib.figure.Figure` of 1 + len(mixers) rows and B columns of axes.

    Raises:
        ImportError: without matplotlib.
        TypeError: if an argument has the wrong type.
        ValueError: if the images cannot be displayed.

    Example:
        >>> import jax, jaxmix
        >>> images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
        >>> mixers = jaxmix.CutMix(), jaxmix.MixUp(alpha=0.4)
        >>> len(jaxmix.plot.gallery(images, mixers, jax.random.key(1)).axes)
        12
    """
    where = "plot.gallery"
    pictures = _pictures(where, images)
    _checks.key(where, key)
    mixers = check_mixers(where, mixers)
    # The channels of a greyscale picture were dropped: all axes are spatial then.
    layout: Any = {"channel_axis": -1 if pictures.ndim == 4 else None}
    batches: list = [(pictures, None)]
    for row, mixer in enumerate(mixers, 1):
        plan = mixer.plan(jax.random.fold_in(key, row), pictures.shape, **layout)
        batches.append((np.asarray(plan.images(pictures, **layout)), plan))
    columns = max(len(pictures), 1)
    figure = _figure(where, batches, columns, 1.35)
    figure.get_layout_engine().set(h_pad=0.1)
    for axes, mixer in zip(figure.axes[::columns], ("original", *mixers), strict=False):
        # A title that is wider than its axes would widen the first column.
        axes.set_title(" ", fontsize=8)
        axes.text(0, 1.06, str(mixer), fontsize=8, transform=axes.transAxes, in_layout=False)
    return figure


def _figure(where: str, batches: list, columns: int, height: float) -> Any:
    """The pictures of some batches, one after the other, outlined where their plans painted.

    Args:
        where: the name of the call, for errors.
        batches: (pictures, plan or None) of each.
        columns: pictures in a row.
        height: the height of a row in inches.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{where} needs matplotlib: pip install matplotlib") from error
    tiles = [(*tile, plan) for pictures, plan in batches for tile in enumerate(pictures)]
    rows = -(-len(tiles) // columns)
    figure = Figure(figsize=(1.2 * columns + 0.2, height * rows + 0.2), layout="constrained")
    for place, (row, picture, plan) in enumerate(tiles, 1):
        axes = figure.add_subplot(rows, columns, place)
        axes.imshow(np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        if plan is not None:
            _outline(axes, plan, row)
    return figure


def _pictures(where: str, images: Any) -> np.ndarray:
    """The pictures as float32[B, H, W] or [B, H, W, 3], from 0 to 1."""
    given = _checks.array(where, "images", images)
    pictures = np.asarray(given)
    if pictures.ndim == 4 and pictures.shape[-1] not in (1, 3):
        pictures = np.moveaxis(pictures, 1, -1)
    if pictures.ndim == 4 and pictures.shape[-1] == 1:
        pictures = pictures[..., 0]
    if pictures.ndim != 3 and (pictures.ndim != 4 or pictures.shape[-1] != 3):
        wanted = "images must be [B, H, W], [B, H, W, C] or [B, C, H, W] with 1 or 3 channels"
        raise _checks.value_error(where, wanted, given)
    top = 255.0 if np.issubdtype(pictures.dtype, np.integer) else 1.0
    pictures = pictures.astype(np.float32)
    finite = pictures[np.isfinite(pictures)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, top)
    if low >= 0 and high <= top:
        low, high = 0.0, top
    return np.nan_to_num((pictures - low) / max(high - low, 1e-30), posinf=1.0, neginf=0.0)


def _titles(where: str, labels: Any, plan: Plan | None, names: Any, batch: int) -> list[str]:
    """For each image its two largest classes, with their shares."""
    if labels is None:
        return [""] * batch
    labels = _checks.array(where, "labels", labels)
    names = _checks.sequence(names)
    if not isinstance(names, tuple | None):
        raise _checks.type_error(where, "class_names must be a sequence of names", names)
    classes: Any = None if names is None else len(names)
    if labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer):
        classes = classes or max(int(np.max(labels, initial=0)) + 1, 2)
    labels = _labels.checked(where, "labels", labels, classes)
    _checks.batch(where, "labels", labels, batch, f"a batch of {batch} images")
    if labels.ndim == 1:
        labels = (plan or Plan.of((batch,), Roll(0))).labels(labels, num_classes=classes)
    shares = np.asarray(labels).astype(np.float64)
    if shares.shape[1] == 1:
        return [f"{value:.2f}" for value in shares[:, 0]]
    names = range(shares.shape[1]) if names is None else names
    top = zip(shares, np.argsort(-shares, axis=1, kind="stable")[:, :2], strict=True)
    shown = ([f"{names[k]} {row[k]:.2f}" for k in two if row[k] >= 0.005] for row, two in top)
    return list(map("\n".join, shown))


def _outline(axes: Any, plan: Plan, row: int) -> None:
    """Outlines what was painted onto a row, along the edges of pixels, unless it is everything."""
    if plan.region is None or plan.spatial is None or plan._label_share(None)[row] == 1:
        return
    region = jax.tree.map(lambda x: x[row : row + 1], plan.region)
    painted = np.asarray(_region.as_mask(region, plan.spatial).painted[0]) >= 0.5
    if painted.all():
        return
    limits, line = axes.axis(), {"colors": OUTLINE, "linewidth": 1.2, "clip_on": False}
    for lines, mask in ((axes.hlines, painted), (axes.vlines, painted.T)):
        at, along = np.nonzero(np.diff(np.pad(mask, 1), axis=0))
        lines(at - 0.5, along - 1.5, along - 0.5, **line)
    axes.axis(limits)
