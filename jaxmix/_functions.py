"""The common cases in one call."""

from typing import Any

import jax
from jax.typing import ArrayLike

from jaxmix._mixers import CutMix, MixUp


def cutmix(
    key: jax.Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    num_classes: int | None = None,
    smoothing: ArrayLike = 0.0,
    per: str = "example",
    pairing: Any = "flip",
    box: str = "paper",
    minmax: tuple[float, float] | None = None,
    channel_axis: int | str | None = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Cuts a box out of each image's partner and pastes it at the same place; mixes labels by area.

    The same as `CutMix(alpha, per=per, pairing=pairing, box=box, minmax=minmax)` called with the
    rest.

    Args:
        key: a PRNG key, typed or raw.
        images: [B, ...], of any dtype, such as uint8[B, H, W, C].
        labels: class ids int[B]; or dense [B, K]: one-hot, soft, multi-hot; or float[B, 1]. A
            negative id is ignored; see `Plan.labels`.
        alpha: the concentration of lambda ~ Beta(alpha, alpha), a number or a traced scalar.
        num_classes: K, which class ids need.
        smoothing: label smoothing in [0, 1), applied before mixing.
        per: what gets a box of its own: each "example", each "pair" of a flip, or the "batch".
        pairing: who is mixed with whom: a pairing, or "flip", "roll" or "permutation".
        box: how a box is placed: "paper", "timm" or "contained"; see `CutMix`.
        minmax: (a, b): draws each side's share uniformly between a and b in place of lambda.
        channel_axis: -1 (channels-last), 1 (channels-first), None (no channel axis), or "auto",
            which is -1, but refuses images of rank 3.

    Returns:
        (images, labels): the images of the shape and dtype given, the labels float32[B, K].

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a number is out of range, a mode unknown, or sizes do not agree.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> images, labels = jaxmix.cutmix(jax.random.key(0), images, labels, num_classes=10)
        >>> images.shape, labels.shape
        ((8, 32, 32, 3), (8, 10))

    Reference:
        Yun et al. 2019, CutMix, section 3.1, https://arxiv.org/abs/1905.04899.
    """
    mixer = CutMix(alpha, per=per, pairing=pairing, box=box, minmax=minmax)
    return mixer(
        key,
        images,
        labels,
        num_classes=num_classes,
        smoothing=smoothing,
        channel_axis=channel_axis,
    )


def mixup(
    key: jax.Array,
    images: ArrayLike,
    labels: ArrayLike,
    *,
    alpha: ArrayLike = 1.0,
    num_classes: int | None = None,
    smoothing: ArrayLike = 0.0,
    per: str = "example",
    pairing: Any = "flip",
    channel_axis: int | str | None = "auto",
) -> tuple[jax.Array, jax.Array]:
    """Blends each image with its partner, and their labels with the same weight.

    The same as `MixUp(alpha, per=per, pairing=pairing)` called with the rest.

    Args:
        key: a PRNG key, typed or raw.
        images: [B, ...], of any dtype but bool, such as uint8[B, H, W, C].
        labels: class ids int[B]; or dense [B, K]: one-hot, soft, multi-hot; or float[B, 1]. A
            negative id is ignored; see `Plan.labels`.
        alpha: the concentration of lambda ~ Beta(alpha, alpha), a number or a traced scalar.
        num_classes: K, which class ids need.
        smoothing: label smoothing in [0, 1), applied before mixing.
        per: what gets a lambda of its own: each "example", each "pair" of a flip, or the "batch".
        pairing: who is mixed with whom: a pairing, or "flip", "roll" or "permutation".
        channel_axis: as in `cutmix`; MixUp gives the same result whatever it is.

    Returns:
        (images, labels): the images of the shape and dtype given, the labels float32[B, K].

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if a number is out of range, a mode unknown, or sizes do not agree.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> images, labels = jaxmix.mixup(jax.random.key(0), images, labels, num_classes=10)
        >>> images.shape, labels.shape
        ((8, 32, 32, 3), (8, 10))

    Reference:
        Zhang et al. 2017, mixup, section 2, https://arxiv.org/abs/1710.09412.
    """
    mixer = MixUp(alpha, per=per, pairing=pairing)
    return mixer(
        key,
        images,
        labels,
        num_classes=num_classes,
        smoothing=smoothing,
        channel_axis=channel_axis,
    )
