"""Pictures of mixed batches, as Matplotlib figures. Requires Matplotlib.

Example:
    >>> import jax, jaxmix
    >>> images = jax.random.uniform(jax.random.key(0), (4, 32, 32, 3))
    >>> jaxmix.plot.show(jaxmix.CutMix()(jax.random.key(1), images))
    <Figure size 500x140 with 4 Axes>
"""

import textwrap
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

__all__ = ["gallery", "show"]

OUTLINE = "#ff2d78"


def show(
    images: ArrayLike,
    labels: ArrayLike | None = None,
    plan: Plan | None = None,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
) -> Any:
    """Shows a mixed batch, with the classes of each image and their shares under it.

    Args:
        images: the mixed images, [B, H, W], [B, H, W, C] or [B, C, H, W] with C 1 or 3, of any
            dtype. Floats are read as 0 to 1 and integers as 0 to 255. A batch that leaves that
            range, such as a normalised one, is stretched from its smallest value to its largest.
        labels: mixed labels float[B, K], shown as they are, or class ids int[B], which `plan` mixes
            if it is given. The titles name the two classes with the largest shares.
        plan: the plan that mixed the images. The painted regions are outlined.
        class_names: the names of the K classes. The default is their numbers.
        columns: the number of images in a row.

    Returns:
        A `matplotlib.figure.Figure` with an axes for each image. In Jupyter, run
        `%matplotlib inline` once to display it.

    Raises:
        ImportError: if matplotlib is not installed.
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
    _checks.require_type(isinstance(plan, Plan | None), where, "plan must be a Plan", plan)
    if plan is not None:
        with _checks.renamed(where, "Plan.weights"):
            plan.weights(pictures.shape[:3], channel_axis=None)
    titles = [""] * len(pictures)
    if labels is not None:
        titles = _titles(_dense(where, labels, plan, class_names, len(pictures)), class_names)
    return _figure(where, [("", pictures, plan, titles)], columns)


def gallery(
    images: ArrayLike,
    mixers: Sequence[Mixer],
    key: Array,
    *,
    labels: ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
) -> Any:
    """Compares several mixers on one batch: a row for each, with the originals on top.

    Args:
        images: the images before mixing, as for `show`.
        mixers: the mixers. Each draws with its own key.
        key: a PRNG key, typed or raw.
        labels: the labels before mixing: class ids int[B] or float[B, K]. The shares of the mixed
            labels are printed under each image. The default is the number of each image, from 0.
        class_names: the names of the K classes, or of the images if there are no labels. The
            default is their numbers.

    Returns:
        A `matplotlib.figure.Figure` of 1 + len(mixers) rows and B columns of axes.

    Raises:
        ImportError: if matplotlib is not installed.
        TypeError: if an argument has the wrong type.
        ValueError: if the images cannot be displayed, or shapes are incompatible.

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
    labels = np.arange(len(pictures)) if labels is None else labels
    own = _dense(where, labels, None, class_names, len(pictures))
    # The channels of a greyscale picture were dropped: all axes are spatial then.
    layout: Any = {"channel_axis": -1 if pictures.ndim == 4 else None}
    groups: list = [("original", pictures, None, _titles(own, class_names))]
    for row, mixer in enumerate(mixers, 1):
        plan = mixer.plan(jax.random.fold_in(key, row), pictures.shape, **layout)
        mixed = np.asarray(plan.images(pictures, **layout))
        groups.append((str(mixer), mixed, plan, _titles(plan.labels(own), class_names)))
    return _figure(where, groups, max(len(pictures), 1))


def _figure(where: str, groups: list, columns: int) -> Any:
    """A figure of groups of pictures, one below the other, outlined where their plans painted.

    Args:
        where: the name of the call, for errors.
        groups: (heading or "", pictures, plan or None, a title for each picture) of each.
        columns: pictures in a row.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"{where} needs matplotlib: pip install matplotlib") from error
    # In inches. A title fits 16 letters below a picture; a heading fits 14 letters per inch.
    width, line = 1.2 * columns + 0.2, 0.15
    if any(heading for heading, *_ in groups):
        width = max(width, 4)
    headings = [textwrap.fill(heading, round(14 * width)) for heading, *_ in groups]
    grids = [max(-(-len(pictures) // columns), 1) for _, pictures, *_ in groups]
    heights = [
        rows * (1.25 + line * max((len(title.splitlines()) for title in titles), default=0))
        + line * (len(heading.splitlines()) + 1)
        for heading, rows, (*_, titles) in zip(headings, grids, groups, strict=True)
    ]
    figure = Figure(figsize=(width, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(groups), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, heading, rows, group in zip(parts, headings, grids, groups, strict=True):
        if heading:
            part.suptitle(heading, x=0.01, ha="left", fontsize=8, parse_math=False)
        _, pictures, plan, titles = group
        painted = _painted(plan)
        for row, (picture, title) in enumerate(zip(pictures, titles, strict=True)):
            axes = part.add_subplot(rows, columns, row + 1)
            axes.imshow(
                np.clip(picture, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest"
            )
            axes.set(xticks=[], yticks=[], anchor="N")
            axes.set_title(title, y=-0.03, pad=0, va="top", fontsize=8, parse_math=False)
            if painted is not None:
                _outline(axes, painted[row])
    return figure


def _pictures(where: str, images: Any) -> np.ndarray:
    """The pictures as float32[B, H, W] or [B, H, W, 3], from 0 to 1."""
    given = _checks.array(where, "images", images)
    pictures = np.asarray(given)
    single = pictures.ndim == 3 and pictures.shape[-1] in (1, 3)
    remedy = "for one image pass images[None], for greyscale images[..., None]"
    _checks.require(not single, where, "images must have a batch axis", given, remedy)
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


def _dense(where: str, labels: Any, plan: Plan | None, names: Any, batch: int) -> np.ndarray:
    """The labels as float[B, K]. Class ids are mixed by the plan, if there is one."""
    labels = _checks.array(where, "labels", labels)
    names, wanted = _checks.sequence(names), "class_names must be a sequence of names"
    _checks.require_type(isinstance(names, tuple | None), where, wanted, names)
    classes: Any = None if names is None else len(names)
    if labels.ndim == 1 and jnp.issubdtype(labels.dtype, jnp.integer):
        classes = classes or max(int(np.max(labels, initial=0)) + 1, 2)
    labels = _labels.checked(where, "labels", labels, classes)
    _checks.batch(where, "labels", labels, batch, "the images")
    if labels.ndim == 1:
        labels = (plan or Plan.of((batch,), Roll(0))).labels(labels, num_classes=classes)
    return np.asarray(labels)


def _titles(labels: ArrayLike, names: Any) -> list[str]:
    """The two largest classes of each row, with their shares, in lines of up to 16 letters."""
    shares = np.asarray(labels).astype(np.float64)
    if shares.shape[1] == 1:
        return [f"{value:.2f}" for value in shares[:, 0]]
    names = range(shares.shape[1]) if names is None else names
    titles = []
    for row in shares:
        top = [k for k in np.argsort(-row, kind="stable")[:2] if row[k] > 0.005]
        shown = (textwrap.wrap(f"{names[k]}: {100 * row[k]:.0f}\xa0%", 16) for k in top)
        titles.append("\n".join(line for lines in shown for line in lines).replace("\xa0", " "))
    return titles


def _painted(plan: Plan | None) -> np.ndarray | None:
    """bool[B, H, W]: the pixels painted onto each row; None if there is nothing to outline."""
    if plan is None or plan.region is None or plan.spatial is None:
        return None
    # Rows that are their own partner show nothing of it, unless all are: then there are donors.
    own = None if plan.pairing == Roll(0) else plan.pairing.own(plan.batch)
    rows = np.ones(plan.batch, bool) if own is None else ~np.asarray(own)
    if plan.opacity is not None:
        rows &= np.asarray(plan.opacity) > 0
    painted = np.asarray(_region.as_mask(plan.region, plan.spatial).painted) >= 0.5
    return painted & rows[:, None, None]


def _outline(axes: Any, painted: np.ndarray) -> None:
    """Outlines painted pixels along their edges, unless all pixels are painted."""
    if painted.all():
        return
    limits, line = axes.axis(), {"colors": OUTLINE, "linewidth": 1.2, "clip_on": False}
    for lines, mask in ((axes.hlines, painted), (axes.vlines, painted.T)):
        at, along = np.nonzero(np.diff(np.pad(mask, 1), axis=0))
        if at.size:
            lines(at - 0.5, along - 1.5, along - 0.5, **line)
    axes.axis(limits)
