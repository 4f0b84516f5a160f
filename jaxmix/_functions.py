"""Functions for the common cases: `cutmix` and `mixup`, in one call."""

from collections.abc import Sequence

from jax import Array
from jax.typing import ArrayLike

from jaxmix import _checks
from jaxmix._checks import ChannelAxis
from jaxmix._mixers import CallOptions, CutMix, MixUp, Per
from jaxmix._pairing import Pairing, PairingName
from jaxmix._region import BoxLaw


def cutmix(
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    num_classes: int | None = None,
    smoothing: ArrayLike = 0.0,
    per: Per = "example",
    pairing: Pairing | PairingName = "swap",
    box: BoxLaw = "paper",
    minmax: Sequence[ArrayLike] | None = None,
    axes: int | Sequence[int] | None = None,
    grid: int | Sequence[int] = 1,
    channel_axis: ChannelAxis = "auto",
) -> tuple[Array, Array]:
    """Replaces a box in each image with the same box of its partner; mixes labels by area.

    Equivalent to `CutMix(...)` with the same options, called with the remaining arguments.

    Args:
        key: a PRNG key, typed or raw.
        images: [B, ...], of any dtype, such as uint8[B, H, W, C].
        labels: class ids int[B], dense labels [B, K] (one-hot, soft or multi-hot), or regression
            targets float[B, 1]. Negative ids are ignored; see `Plan.labels`.
        alpha: the concentration of lambda ~ Beta(alpha, alpha), a number or a traced scalar.
        num_classes: K, the number of classes; required if labels are class ids.
        smoothing: label smoothing in [0, 1), applied before mixing.
        per: the granularity: one draw per "example", per "pair" of rows or per "batch". An int n,
            which divides the batch size, is one draw per run of n rows.
        pairing: which row is mixed with which: "swap", "flip", "roll", "permutation" or a pairing.
        box: how a box is drawn: "paper", "timm" or "contained"; see `CutMix`.
        minmax: (a, b), fractions of the extent: each side of the box is drawn uniformly between
            them, instead of from lambda.
        axes: the spatial axes that the box limits; 0 is the first spatial axis, None is all axes.
        grid: the side of a cell in pixels; boxes consist of whole cells.
        channel_axis: -1 (channels-last), 1 (channels-first), None (no channel axis), or "auto".
            "auto" is -1, but raises ValueError if the layout is ambiguous: images of rank 3, and
            batches that look channels-first.

    Returns:
        (images, labels): the images keep their shape and dtype; the labels are float32[B, K].

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is out of range, a mode is not a valid option, or shapes are
            incompatible.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> images, labels = jaxmix.cutmix(jax.random.key(0), images, labels, num_classes=10)
        >>> images.shape, labels.shape
        ((8, 32, 32, 3), (8, 10))

    Reference:
        Yun et al. 2019, CutMix, section 3.1, https://arxiv.org/abs/1905.04899.
    """
    options = CallOptions(num_classes=num_classes, smoothing=smoothing, channel_axis=channel_axis)
    with _checks.renamed("cutmix", "CutMix"):
        mix = CutMix(alpha, per=per, pairing=pairing, box=box, minmax=minmax, axes=axes, grid=grid)
        return mix(key, images, labels, **options)


def mixup(
    key: Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    num_classes: int | None = None,
    smoothing: ArrayLike = 0.0,
    per: Per = "example",
    pairing: Pairing | PairingName = "swap",
    fold: bool = False,
    channel_axis: ChannelAxis = "auto",
) -> tuple[Array, Array]:
    """Blends each image with its partner, and their labels with the same weight.

    Equivalent to `MixUp(...)` with the same options, called with the remaining arguments.

    Args:
        key: a PRNG key, typed or raw.
        images: [B, ...], of any dtype but bool, such as uint8[B, H, W, C].
        labels: class ids int[B], dense labels [B, K] (one-hot, soft or multi-hot), or regression
            targets float[B, 1]. Negative ids are ignored; see `Plan.labels`.
        alpha: the concentration of lambda ~ Beta(alpha, alpha), a number or a traced scalar.
        num_classes: K, the number of classes; required if labels are class ids.
        smoothing: label smoothing in [0, 1), applied before mixing.
        per: the granularity: one draw per "example", per "pair" of rows or per "batch". An int n,
            which divides the batch size, is one draw per run of n rows.
        pairing: which row is mixed with which: "swap", "flip", "roll", "permutation" or a pairing.
        fold: whether lambda is folded to max(lambda, 1 - lambda); see `MixUp`.
        channel_axis: as in `cutmix`; it does not change the result of MixUp.

    Returns:
        (images, labels): the images keep their shape and dtype; the labels are float32[B, K].

    Raises:
        TypeError: if an argument has the wrong type.
        ValueError: if a number is out of range, a mode is not a valid option, or shapes are
            incompatible.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> images, labels = jaxmix.mixup(jax.random.key(0), images, labels, num_classes=10)
        >>> images.shape, labels.shape
        ((8, 32, 32, 3), (8, 10))

    Reference:
        Zhang et al. 2017, mixup, section 2, https://arxiv.org/abs/1710.09412.
    """
    options = CallOptions(num_classes=num_classes, smoothing=smoothing, channel_axis=channel_axis)
    with _checks.renamed("mixup", "MixUp"):
        return MixUp(alpha, per=per, pairing=pairing, fold=fold)(key, images, labels, **options)
