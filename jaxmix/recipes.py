"""Policies of other libraries, as mixers with the argument names of those libraries.

The table lists published training recipes with their mixing. The last column is top-1 accuracy on
ImageNet-1k in percent, at 224 pixels unless stated otherwise. These are the authors' results, not
results of this library.

| training                         | network    | call                    | smoothing | published |
|----------------------------------|------------|-------------------------|-----------|-----------|
| DeiT [1]                         | DeiT-B     | `timm(0.8, 1.0)`        | 0.1       | 81.8      |
| DeiT III [2], BCE                | ViT-S      | `timm(0.8, 1.0)`        | 0         | 81.4      |
| DeiT III, last stage             | ViT-B      | `timm(0.8, 1.0)`        | 0.1       | 83.8      |
| DeiT III, last stage             | ViT-L      | `timm(0.8, 1.0)`        | 0.1       | 84.9      |
| DeiT III, ImageNet-21k           | ViT        | `timm(0.0, 1.0)`        | 0.1       | -         |
| Swin Transformer [3]             | Swin-T     | `timm(0.8, 1.0)`        | 0.1       | 81.2      |
| Swin Transformer V2 [3], 256 px  | SwinV2-T   | `timm(0.8, 1.0)`        | 0.1       | 81.8      |
| ConvNeXt [4]                     | ConvNeXt-T | `timm(0.8, 1.0)`        | 0.1       | 82.1      |
| ConvNeXt V2 [5], fine-tuning     | ConvNeXt-B | `timm(0.8, 1.0)`        | 0.1       | 84.9      |
| MAE [6], fine-tuning             | ViT-B      | `timm(0.8, 1.0)`        | 0.1       | 83.6      |
| BEiT v2 [7], fine-tuning         | BEiT v2-B  | `timm(0.8, 1.0)`        | 0.1       | 85.5      |
| ResNet strikes back [8], A1, BCE | ResNet-50  | `timm(0.2, 1.0)`        | 0.1       | 80.4      |
| ResNet strikes back, A2, BCE     | ResNet-50  | `timm(0.1, 1.0)`        | 0         | 79.8      |
| ResNet strikes back, A3, BCE     | ResNet-50  | `timm(0.1, 1.0)`        | 0         | 78.1      |
| torchvision, "new recipe" [9]    | ResNet-50  | `torchvision(1.0, 0.2)` | 0.1       | 80.7      |
| plain ViT [10], 90 epochs        | ViT-S/16   | `big_vision(0.2)`       | 0         | 76.5      |
| plain ViT, 300 epochs            | ViT-S/16   | `big_vision(0.2)`       | 0         | 80        |
| MLP-Mixer [10], BCE              | Mixer-B/16 | `big_vision(0.5)`       | 0         | 76.3      |

AST [11] mixes the waveforms of AudioSet with `RandomApply(MixUp(10.0), 0.5)`, with BCE, and reaches
0.459 mAP. Some training recipes do not mix: fine-tuning of small networks (ConvNeXt V2-Atto [5]),
fine-tuning after supervised training on ImageNet-22k (ConvNeXt [4], BEiT v2 [7]), SigLIP [10] and
DINOv2 [12].

- BCE is binary cross-entropy. ResNet strikes back uses targets of 0 or 1 for it. In timm this is
  `--bce-loss --bce-target-thresh 0.2`; here it is `(labels > 0.2).astype("float32")` for the
  labels that the mixer returns, smoothed as in timm.
- timm and torchvision draw once for the images of one GPU. Here `per="batch"` draws once for the
  batch of the call, which under `jax.jit` is the global batch. `per=64` draws in the same way as
  GPUs with 64 images each: a batch of 1,024 images then has 16 lambdas instead of one, so the mean
  lambda of a step varies less, with a quarter of the standard deviation.
- The recipes with timm were run before timm 1.0.31, which changed the boxes. Earlier versions draw
  boxes as `CutMix(box="paper")` does. Here, as in timm 1.0.31, an odd side keeps its last pixel.
- ResNet strikes back A3 trains at 160 pixels.
- Smoothing, the number of classes and the key are arguments of the mixer's call, not of a recipe.

A configuration (of ml_collections, for example) may store the name and the options of a recipe. In
Hydra write `_target_: jaxmix.recipes.timm`. If you trust the configuration, it may also contain the
text of a mixer, as `repr(mixer)` writes it.

Example:
    >>> import jaxmix
    >>> deit = jaxmix.recipes.timm(mixup_alpha=0.8, cutmix_alpha=1.0)
    >>> type(deit).__name__, deit.per, deit.pairing
    ('RandomChoice', 'batch', Flip())
    >>> config = {"name": "timm", "mixup_alpha": 0.8, "cutmix_alpha": 1.0}
    >>> getattr(jaxmix.recipes, config.pop("name"))(**config) == deit
    True
    >>> eval("RandomApply(CutMix(per='batch'), prob=0.5)", vars(jaxmix))
    RandomApply(mixer=CutMix(per='batch'))

References. The accuracies are from the repositories:
    [1] Touvron et al. 2020, https://arxiv.org/abs/2012.12877; facebookresearch/deit,
        README_deit.md.
    [2] Touvron et al. 2022, https://arxiv.org/abs/2204.07118; the same repository,
        README_revenge.md. ViT-B and ViT-L first train at 192 pixels with BCE and no smoothing.
    [3] Liu et al. 2021, https://arxiv.org/abs/2103.14030, and 2022,
        https://arxiv.org/abs/2111.09883; microsoft/Swin-Transformer, MODELHUB.md, config.py.
    [4] Liu et al. 2022, https://arxiv.org/abs/2201.03545; facebookresearch/ConvNeXt, TRAINING.md.
    [5] Woo et al. 2023, https://arxiv.org/abs/2301.00808; facebookresearch/ConvNeXt-V2,
        TRAINING.md.
    [6] He et al. 2021, https://arxiv.org/abs/2111.06377; facebookresearch/mae, FINETUNE.md.
    [7] Peng et al. 2022, https://arxiv.org/abs/2208.06366; microsoft/unilm, beit2,
        get_started_for_image_classification.md.
    [8] Wightman et al. 2021, tables 1 and 2, https://arxiv.org/abs/2110.00476; the threshold of A2
        in Alibaba-MIIL/ML_Decoder, README.md, and in timm/loss/binary_cross_entropy.py.
    [9] How to train state-of-the-art models using torchvision's latest primitives,
        https://pytorch.org/blog; https://github.com/pytorch/vision/pull/6433.
    [10] google-research/big_vision, configs/vit_s16_i1k.py (Beyer et al. 2022,
        https://arxiv.org/abs/2205.01580), configs/mlp_mixer_i1k.py (Tolstikhin et al. 2021,
        https://arxiv.org/abs/2105.01601), trainers/proj/image_text/siglip.py.
    [11] Gong et al. 2021, https://arxiv.org/abs/2104.01778; YuanGongND/ast, egs/audioset/run.sh;
        0.448 without averaging the weights.
    [12] facebookresearch/dinov2, data/augmentations.py.
"""

from collections.abc import Sequence
from typing import Any, Literal

from jax.typing import ArrayLike

from jaxmix import _checks, _region
from jaxmix._mixers import CutMix, Mixer, MixUp, Per
from jaxmix._pairing import Pairing, PairingName, Roll
from jaxmix._policies import RandomApply, RandomChoice

__all__ = ["big_vision", "timm", "torchvision"]

OFF = RandomApply(MixUp(pairing=Roll(0)), prob=0.0)  # Nothing is sent: rows are their own partners.
ROLLED = {"pairing": "roll", "per": "batch"}
TIMM_MODES: dict[str, Per] = {"batch": "batch", "pair": "pair", "elem": "example"}


def timm(
    mixup_alpha: ArrayLike = 1.0,
    cutmix_alpha: ArrayLike = 0.0,
    cutmix_minmax: tuple[float, float] | None = None,
    prob: ArrayLike = 1.0,
    switch_prob: ArrayLike = 0.5,
    mode: Literal["batch", "pair", "elem"] = "batch",
    *,
    axes: int | Sequence[int] | None = None,
    pairing: Pairing | PairingName | None = None,
    per: Per | None = None,
) -> Mixer:
    """Makes a mixer equivalent to `timm.data.Mixup` in timm 1.0.31, with its arguments.

    Pass timm's `label_smoothing` and `num_classes` to the mixer's call, as `smoothing` and
    `num_classes`. Instead of `mixup_off_epoch`, use a schedule of `prob`. With `multi_label=True`
    timm smooths towards one half; for that, pass `smoothing / 2 + (1 - smoothing) * labels` as
    labels, without `smoothing`. There is no `correct_lam`: labels always follow the pixels. timm
    refuses odd batches; this mixer accepts them.

    Args:
        mixup_alpha: the concentration of MixUp's lambda; 0 switches MixUp off.
        cutmix_alpha: the concentration of CutMix's lambda; 0 switches CutMix off.
        cutmix_minmax: the bounds of each side, as fractions of the extent. They replace
            `cutmix_alpha`.
        prob: the probability of mixing.
        switch_prob: the probability of CutMix, if MixUp and CutMix are both on.
        mode: the granularity: one draw per "batch", per "pair" of rows, or per "elem" (example).
        axes: the spatial axes that boxes limit; all by default. (1, 2) is for video
            [B, T, H, W, C].
        pairing: which row is mixed with which; None keeps timm's "flip". "swap" is the fastest.
        per: another granularity, which replaces `mode`; None keeps `mode`. timm draws once for the
            images of one GPU; `per=n` draws once per run of n rows.

    Returns:
        A MixUp, a CutMix or a RandomChoice of both, inside a RandomApply unless `prob` is 1. If
        both are off, the mixer leaves images unchanged, but still encodes and smooths labels.

    Raises:
        TypeError: if an argument is not a number, or `pairing` is not a pairing.
        ValueError: if a number is out of range, `mode` is not a valid option, or the pairing is not
            mutual with `mode="pair"`.

    Example:
        >>> import jax, jax.numpy as jnp, jaxmix
        >>> mixer = jaxmix.recipes.timm(mixup_alpha=0.8, cutmix_alpha=1.0, mode="pair")
        >>> images, labels = jnp.zeros((8, 32, 32, 3)), jnp.arange(8)
        >>> images, labels = mixer(
        ...     jax.random.key(0), images, labels, num_classes=10, smoothing=0.1
        ... )
        >>> labels.shape
        (8, 10)

    Reference:
        timm 1.0.31, timm/data/mixup.py, https://github.com/huggingface/pytorch-image-models.
    """
    where = "recipes.timm"
    usual = TIMM_MODES[_checks.choice(where, "mode", mode, tuple(TIMM_MODES))]
    options = _options(where, {"pairing": "flip", "per": usual}, axes, pairing=pairing, per=per)
    prob = _checks.fraction(where, "prob", prob)
    switch_prob = _checks.fraction(where, "switch_prob", switch_prob)
    mixup = _on(where, "mixup_alpha", mixup_alpha, MixUp, **options)
    cutmix = _on(where, "cutmix_alpha", cutmix_alpha, CutMix, box="timm", axes=axes, **options)
    if cutmix_minmax is not None:
        bounds = _region.minmax(where, cutmix_minmax, "cutmix_minmax")
        cutmix = CutMix(minmax=bounds, axes=axes, **options)
    mixer = _one_of(mixup, cutmix, (1 - switch_prob, switch_prob), options["per"])
    always = mixer is OFF or (isinstance(prob, float) and prob == 1)
    return mixer if always else RandomApply(mixer, prob, per=options["per"])


def torchvision(
    cutmix_alpha: ArrayLike = 0.0,
    mixup_alpha: ArrayLike = 0.0,
    *,
    axes: int | Sequence[int] | None = None,
    pairing: Pairing | PairingName | None = None,
    per: Per | None = None,
) -> Mixer:
    """Makes the mixer of torchvision's reference training script: CutMix or MixUp for each batch.

    Pass the script's `num_classes` and `--label-smoothing` to the mixer's call, as `num_classes`
    and `smoothing`.

    Args:
        cutmix_alpha: the concentration of CutMix's lambda; 0 switches CutMix off.
        mixup_alpha: the concentration of MixUp's lambda; 0 switches MixUp off.
        axes: the spatial axes that boxes limit; all by default. (1, 2) is for video
            [B, T, H, W, C].
        pairing: which row is mixed with which; None keeps torchvision's "roll". "swap" is the
            fastest.
        per: another granularity; None keeps "batch". torchvision draws once for the images of one
            GPU; `per=n` draws once per run of n rows.

    Returns:
        A CutMix, a MixUp or a RandomChoice of both. If both are off, the mixer leaves images
        unchanged, but still encodes and smooths labels.

    Raises:
        TypeError: if an argument is not a number, or `pairing` is not a pairing.
        ValueError: if a number is out of range.

    Example:
        >>> import jaxmix
        >>> jaxmix.recipes.torchvision(mixup_alpha=0.2)
        MixUp(alpha=0.2, per='batch', pairing=Roll())

    Reference:
        torchvision 0.29.1, references/classification/transforms.py (`get_mixup_cutmix`) and
        torchvision/transforms/v2/_augment.py, https://github.com/pytorch/vision.
    """
    where = "recipes.torchvision"
    options = _options(where, ROLLED, axes, pairing=pairing, per=per)
    mixup = _on(where, "mixup_alpha", mixup_alpha, MixUp, **options)
    cutmix = _on(where, "cutmix_alpha", cutmix_alpha, CutMix, axes=axes, **options)
    return _one_of(mixup, cutmix, None, options["per"])


def big_vision(
    p: ArrayLike, *, pairing: Pairing | PairingName | None = None, per: Per | None = None
) -> Mixer:
    """Makes the mixer of big_vision's `mixup`: one folded lambda for each batch.

    big_vision's `fold_in` gives each device its own key. For that, apply `jax.random.fold_in` to
    the key of the mixer's call.

    Args:
        p: the concentration of lambda; 0 switches MixUp off.
        pairing: which row is mixed with which; None keeps big_vision's "roll". "swap" is the
            fastest.
        per: another granularity; None keeps "batch".

    Returns:
        `MixUp(p, per="batch", pairing="roll", fold=True)` by default. If `p` is 0, the mixer leaves
        images unchanged.

    Raises:
        TypeError: if `p` is not a number, or `pairing` is not a pairing.
        ValueError: if `p` is negative or not finite.

    Example:
        >>> import jax, jaxmix
        >>> plan = jaxmix.recipes.big_vision(p=0.2).plan(jax.random.key(0), (4, 32, 32, 3))
        >>> bool((plan.lam >= 0.5).all())
        True

    Reference:
        big_vision, `get_mixup` in big_vision/utils.py,
        https://github.com/google-research/big_vision.
    """
    where = "recipes.big_vision"
    options = _options(where, ROLLED, pairing=pairing, per=per)
    return _on(where, "p", p, MixUp, fold=True, **options) or OFF


def _options(where: str, usual: dict[str, Any], axes: Any = None, **given: Any) -> dict[str, Any]:
    """The usual granularity and pairing of a library, unless others are given."""
    changed = {name: value for name, value in given.items() if value is not None}
    with _checks.renamed(where, "CutMix"):
        mixer = CutMix(**(usual | changed), axes=axes)
    return {"per": mixer.per, "pairing": mixer.pairing}


def _on(where: str, argument: str, alpha: Any, make: Any, **options: Any) -> Mixer | None:
    """Makes a mixer with a concentration, or None for 0, which means off in other libraries."""
    alpha = _checks.number(where, argument, alpha, "positive and finite, or 0 for off")
    if isinstance(alpha, float) and alpha == 0:
        return None
    return make(_checks.alpha(where, alpha, argument), **options)


def _one_of(mixup: Mixer | None, cutmix: Mixer | None, probs: Any, per: Per) -> Mixer:
    """Returns the mixer that is on, a choice of both, or a mixer that does nothing."""
    if mixup is not None and cutmix is not None:
        return RandomChoice((mixup, cutmix), probs, per=per)
    return mixup or cutmix or OFF
