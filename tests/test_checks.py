"""Bad input: every row of the error table, eager and under jit, and what its message says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import jaxmix
from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    Mixer,
    MixUp,
    Neighbour,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
    recipes,
    symmetric_beta,
)

SHAPE = (8, 16, 12, 3)
IMAGES = np.linspace(0, 1, 8 * 16 * 12 * 3, dtype=np.float32).reshape(SHAPE)
LABELS = np.arange(8, dtype=np.int32) % 5
MAPS = np.zeros((8, 16, 12), np.int32)
BAD_ALPHAS = [0, 0.0, -1.0, float("nan"), float("inf"), np.float64(-0.5), np.float32(0)]
BAD_ALPHAS += [1e-46, 1e39]  # Zero and infinity in float32.
BAD_PROBS = [-0.1, 1.5, 2, float("nan"), float("inf")]


def case(name, error, call, *patterns):
    """One row: `call(key, images, labels)` raises `error`, its message matches each pattern."""
    return pytest.param(call, error, patterns, id=name)


def dims(*extents):
    """A shape in a message: (8, 3), float32[8, 3] or [8, 3]."""
    return r"[(\[]" + ", ".join(map(str, extents)) + r",?[)\]]"


def plan(key, mixer=None, **options):
    """A plan of CutMix, or of `mixer`, for SHAPE."""
    return (mixer or CutMix()).plan(key, SHAPE, **options)


def check(call, error, patterns):
    """Call it with a fresh key, arrays as JAX has them, and read the message."""
    with pytest.raises(error) as raised:
        call(jax.random.key(0), jnp.asarray(IMAGES), jnp.asarray(LABELS))
    # A subclass such as TracerArrayConversionError would be an accident, not a check.
    assert type(raised.value) is error
    message = str(raised.value)
    for pattern in patterns:
        assert re.search(pattern, message), f"{pattern!r} is not in {message!r}"


BATCHES = [
    case(
        "cutmix-labels-of-another-batch",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(key, images, labels[:7], num_classes=5),
        *("(?i)cutmix", "labels", dims(7), dims(8, 16, 12, 3)),
    ),
    case(
        "mixup-labels-of-another-batch",
        ValueError,
        lambda key, images, labels: jaxmix.mixup(key, images, labels[:7], num_classes=5),
        *("(?i)mixup|labels", "labels", dims(7), dims(8, 16, 12, 3)),
    ),
    case(
        "mixer-soft-labels-of-another-batch",
        ValueError,
        lambda key, images, labels: CutMix()(key, images, jnp.ones((9, 5)) / 5),
        *("labels", dims(9, 5), dims(8, 16, 12, 3)),
    ),
    case(
        "policy-labels-of-another-batch",
        ValueError,
        lambda key, images, labels: RandomApply(MixUp())(key, images, labels[:2], num_classes=5),
        *("labels", dims(2), dims(8, 16, 12, 3)),
    ),
    case(
        "cutmix-images-without-a-batch-axis",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(key, jnp.float32(1), labels, num_classes=5),
        *("(?i)cutmix", r"images|shape", dims(), "batch"),
    ),
    case(
        "mixup-images-without-a-batch-axis",
        ValueError,
        lambda key, images, labels: jaxmix.mixup(key, jnp.float32(1), labels, num_classes=5),
        *("(?i)mixup", r"images|shape", dims(), "batch"),
    ),
    case(
        "plan-shape-without-a-batch-axis",
        ValueError,
        lambda key, images, labels: CutMix().plan(key, ()),
        *("(?i)cutmix", "shape", dims(), "batch"),
    ),
    case(
        "cutmix-no-spatial-axis",
        ValueError,
        lambda key, images, labels: CutMix().plan(key, (8, 3)),
        *("(?i)cutmix", "images|shape", dims(8, 3), "spatial"),
    ),
    case(
        "cutmix-function-no-spatial-axis",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(key, images[:, 0, 0], labels, num_classes=5),
        *("(?i)cutmix", "images|shape", dims(8, 3), "spatial"),
    ),
    case(
        "cutmix-no-spatial-axis-left-without-channels",
        ValueError,
        lambda key, images, labels: CutMix().plan(key, (8,), channel_axis=None),
        *("(?i)cutmix", "images|shape", dims(8), "spatial"),
    ),
    case(
        "cutmix-empty-spatial-axis",
        ValueError,
        lambda key, images, labels: CutMix().plan(key, (8, 0, 12, 3)),
        *("(?i)cutmix", "images|shape", r"\b0, 12\b"),
    ),
    case(
        "policy-with-a-region-no-spatial-axis",
        ValueError,
        lambda key, images, labels: RandomChoice((MixUp(), CutMix())).plan(key, (8, 3)),
        *(dims(8, 3), "spatial"),
    ),
]

AXES = [
    case(
        "cutmix-rank-3",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(key, images[..., 0], labels, num_classes=5),
        *("(?i)cutmix", dims(8, 16, 12), "channel_axis=None", "channel_axis=-1"),
    ),
    case(
        "plan-rank-3",
        ValueError,
        lambda key, images, labels: CutMix().plan(key, (8, 16, 12)),
        *("(?i)cutmix", dims(8, 16, 12), "channel_axis=None", "channel_axis=-1"),
    ),
    case(
        "policy-rank-3",
        ValueError,
        lambda key, images, labels: RandomChoice((MixUp(), CutMix())).plan(key, (8, 16, 12)),
        *(dims(8, 16, 12), "channel_axis=None", "channel_axis=-1"),
    ),
    *[
        case(
            f"plan-{name}-{rank}-of-equal-extents",
            ValueError,
            lambda key, images, labels, shape=shape, call=call: call(
                CutMix().plan(key, shape, channel_axis=-1), shape
            ),
            *(rf"Plan\.{name}", dims(*shape), dims(*shape[1:-1])),
            *("channel_axis=-1", "channel_axis=1"),
        )
        for rank, shape in [
            ("rank-4", (8, 6, 6, 6)),
            ("rank-3", (8, 6, 6)),
            ("video", (2, *[4] * 4)),
        ]
        for name, call in [
            ("images", lambda plan, shape: plan.images(jnp.zeros(shape))),
            ("weights", lambda plan, shape: plan.weights(shape)),
        ]
    ],
    case(
        "plan-of-rank-3",
        ValueError,
        lambda key, images, labels: Plan.of(
            (8, 16, 12), Flip(), region=Mask(jnp.zeros((8, 16, 12), bool))
        ),
        *(r"(?i)plan\.of", dims(8, 16, 12), "channel_axis=None", "channel_axis=-1"),
    ),
]

KINDS = [
    case(
        "plan-array-for-shape",
        TypeError,
        lambda key, images, labels: CutMix().plan(key, images),
        *("(?i)cutmix", "shape", r"images\.shape\?"),
    ),
    case(
        "plan-numpy-array-for-shape",
        TypeError,
        lambda key, images, labels: MixUp().plan(key, IMAGES),
        *("(?i)mixup", "shape", r"images\.shape\?"),
    ),
    case(
        "plan-of-array-for-shape",
        TypeError,
        lambda key, images, labels: Plan.of(images, Flip(), opacity=jnp.ones(8)),
        *(r"(?i)plan\.of", "shape", r"images\.shape\?"),
    ),
    case(
        "weights-array-for-shape",
        TypeError,
        lambda key, images, labels: plan(key).weights(images),
        *(r"(?i)plan\.weights", "shape", r"images\.shape\?"),
    ),
    *[
        case(
            f"{name}-{kind}-for-key",
            TypeError,
            lambda key, images, labels, call=call, bad=bad: call(bad, images, labels),
            *(f"(?i){name}", "key", r"jax\.random\.key\(0\)"),
        )
        for kind, bad in [("seed", 0), ("none", None), ("images", IMAGES)]
        for name, call in [
            ("cutmix", lambda bad, x, y: jaxmix.cutmix(bad, x, y, num_classes=5)),
            ("mixup", lambda bad, x, y: jaxmix.mixup(bad, x, y, num_classes=5)),
            ("CutMix", lambda bad, x, y: CutMix()(bad, x)),
            ("CutMix.plan", lambda bad, x, y: CutMix().plan(bad, SHAPE)),
            ("RandomChoice", lambda bad, x, y: RandomChoice((CutMix(), MixUp()))(bad, x)),
            ("RandomApply", lambda bad, x, y: RandomApply(MixUp()).plan(bad, SHAPE)),
            ("symmetric_beta", lambda bad, x, y: symmetric_beta(bad, 1.0)),
        ]
    ],
    case(
        "cutmix-images-and-key-swapped",
        TypeError,
        lambda key, images, labels: jaxmix.cutmix(images, key, labels, num_classes=5),
        *("key", r"jax\.random\.key\(0\)"),
    ),
    *[
        case(
            name,
            TypeError,
            call,
            *(function, argument, "list", r"array"),
        )
        for name, function, argument, call in [
            (
                "cutmix-images-list",
                "(?i)cutmix",
                "images",
                lambda k, x, y: jaxmix.cutmix(k, IMAGES.tolist(), y, num_classes=5),
            ),
            (
                "mixup-labels-list",
                r"(?i)mixup|plan\.labels",
                "labels",
                lambda k, x, y: jaxmix.mixup(k, x, LABELS.tolist(), num_classes=5),
            ),
            (
                "mixer-images-list-of-arrays",
                "(?i)mixup",
                "images",
                lambda k, x, y: MixUp()(k, list(IMAGES)),
            ),
            (
                "plan-images-list",
                r"(?i)plan\.images",
                "images",
                lambda k, x, y: plan(k).images(IMAGES.tolist()),
            ),
            (
                "plan-images-donors-list",
                r"(?i)plan\.images",
                "donors",
                lambda k, x, y: plan(k).images(x, donors=IMAGES.tolist()),
            ),
            (
                "plan-labels-list",
                r"(?i)plan\.labels",
                "labels",
                lambda k, x, y: plan(k).labels(LABELS.tolist(), num_classes=5),
            ),
            (
                "plan-labels-list-of-one-hot",
                r"(?i)plan\.labels",
                "labels",
                lambda k, x, y: plan(k).labels([[1.0, 0.0]] * 8),
            ),
            (
                "plan-maps-list",
                r"(?i)plan\.maps",
                "maps",
                lambda k, x, y: plan(k).maps(MAPS.tolist()),
            ),
        ]
    ],
    case(
        "mixup-blends-bool",
        TypeError,
        lambda key, images, labels: MixUp()(key, images > 0.5),
        *("(?i)mixup|plan\\.images", "images", "bool"),
    ),
]

LABEL_KINDS = [
    *[
        case(
            f"{name}-ids-without-num-classes",
            ValueError,
            call,
            *(f"(?i){name}|plan\\.labels", "labels|class ids", "num_classes"),
        )
        for name, call in [
            ("cutmix", lambda key, images, labels: jaxmix.cutmix(key, images, labels)),
            ("mixup", lambda key, images, labels: jaxmix.mixup(key, images, labels)),
            ("RandomApply", lambda key, images, labels: RandomApply(MixUp())(key, images, labels)),
            ("plan.labels", lambda key, images, labels: plan(key).labels(labels)),
        ]
    ],
    case(
        "one-hot-wider-than-num-classes",
        ValueError,
        lambda key, images, labels: plan(key).labels(jnp.ones((8, 4)) / 4, num_classes=5),
        *(r"(?i)plan\.labels", "num_classes", r"\b5\b", r"\b4\b"),
    ),
    case(
        "int-one-hot-narrower-than-num-classes",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(
            key, images, jnp.ones((8, 4), jnp.int32), num_classes=3
        ),
        *(r"(?i)cutmix|plan\.labels", "num_classes", r"\b3\b", r"\b4\b"),
    ),
    *[
        case(
            f"num-classes-{kind}",
            TypeError,
            lambda key, images, labels, bad=bad: plan(key).labels(labels, num_classes=bad),
            *(r"(?i)plan\.labels", "num_classes", "int"),
        )
        for kind, bad in [("float", 5.0), ("str", "5"), ("array", np.ones(5)), ("list", [5])]
    ],
    case(
        "num-classes-traced",
        TypeError,
        lambda key, images, labels: jax.jit(
            lambda n: jaxmix.cutmix(key, images, labels, num_classes=n)
        )(5),
        *(r"(?i)cutmix|plan\.labels", "num_classes", "int"),
    ),
    *[
        case(
            f"{name}-{kind}-labels-of-rank-1",
            TypeError,
            lambda key, images, labels, call=call, kind=kind: call(
                key, images, labels.astype(kind)
            ),
            *(f"(?i){name}|plan\\.labels", "labels", kind, "integer|int", r"\[B, 1\]"),
        )
        for kind in ["float32", "bfloat16", "bool"]
        for name, call in [
            ("cutmix", lambda key, x, y: jaxmix.cutmix(key, x, y, num_classes=5)),
            ("mixup", lambda key, x, y: jaxmix.mixup(key, x, y)),
            ("plan.labels", lambda key, x, y: plan(key).labels(y, num_classes=5)),
        ]
    ],
    case(
        "numpy-ids-too-large",
        ValueError,
        lambda key, images, labels: jaxmix.cutmix(
            key, images, np.array([0, 1, 2, 3, 4, 41, 5, 0]), num_classes=5
        ),
        *(r"(?i)cutmix|plan\.labels", "labels|class ids", r"\b41\b", r"num_classes", r"\b5\b"),
    ),
    case(
        "numpy-ids-just-too-large",
        ValueError,
        lambda key, images, labels: plan(key).labels(np.arange(8) % 6, num_classes=5),
        *(r"(?i)plan\.labels", "labels|class ids", "num_classes", r"\b5\b"),
    ),
    case(
        "int-labels-of-width-1",
        ValueError,
        lambda key, images, labels: plan(key).labels(labels[:, None], num_classes=5),
        *(r"(?i)plan\.labels", "labels", dims(8, 1), "squeeze"),
    ),
    case(
        "dense-maps-for-labels",
        TypeError,
        lambda key, images, labels: plan(key).labels(jnp.asarray(MAPS), num_classes=5),
        *(r"(?i)plan\.labels", "labels", dims(8, 16, 12), r"\bmaps\b"),
    ),
    case(
        "cutmix-dense-maps-for-labels",
        TypeError,
        lambda key, images, labels: jaxmix.cutmix(key, images, jnp.asarray(MAPS), num_classes=5),
        *("labels", dims(8, 16, 12), r"\bmaps\b"),
    ),
    case(
        "float-maps",
        TypeError,
        lambda key, images, labels: plan(key).maps(images[..., 0]),
        *(r"(?i)plan\.maps", "maps", "float32", r"\bimages\b"),
    ),
    case(
        "maps-with-a-channel-axis-of-1",
        ValueError,
        lambda key, images, labels: plan(key).maps(jnp.asarray(MAPS)[..., None]),
        *(r"(?i)plan\.maps", "maps", dims(8, 16, 12, 1), "squeeze"),
    ),
    case(
        "maps-with-a-first-channel-axis-of-1",
        ValueError,
        lambda key, images, labels: plan(key).maps(jnp.asarray(MAPS)[:, None]),
        *(r"(?i)plan\.maps", "maps", dims(8, 1, 16, 12)),
    ),
]

SMOOTHING = [
    case(
        f"{name}-smoothing-{bad}",
        ValueError,
        lambda key, images, labels, call=call, bad=bad: call(key, images, labels, bad),
        *(f"(?i){name}|plan\\.labels", "smoothing", re.escape(str(bad)), r"\[0, 1\)|0 <= "),
    )
    for bad in [-0.1, 1.0, 1, 1.5, float("nan")]
    for name, call in [
        ("cutmix", lambda k, x, y, bad: jaxmix.cutmix(k, x, y, num_classes=5, smoothing=bad)),
        ("mixup", lambda k, x, y, bad: jaxmix.mixup(k, x, y, num_classes=5, smoothing=bad)),
        ("MixUp", lambda k, x, y, bad: MixUp()(k, x, y, num_classes=5, smoothing=bad)),
        ("plan.labels", lambda k, x, y, bad: plan(k).labels(y, num_classes=5, smoothing=bad)),
    ]
]

NUMBERS = [
    *[
        case(
            f"{name}-alpha-{bad!r}",
            ValueError,
            lambda key, images, labels, call=call, bad=bad: call(key, images, labels, bad),
            *(f"(?i){name}", "alpha", re.escape(str(bad)), "> 0|positive|greater"),
        )
        for bad in BAD_ALPHAS
        for name, call in [
            ("CutMix", lambda key, images, labels, bad: CutMix(alpha=bad)),
            ("MixUp", lambda key, images, labels, bad: MixUp(bad)),
            ("cutmix", lambda k, x, y, bad: jaxmix.cutmix(k, x, y, alpha=bad, num_classes=5)),
            ("mixup", lambda k, x, y, bad: jaxmix.mixup(k, x, y, alpha=bad, num_classes=5)),
            ("symmetric_beta", lambda key, images, labels, bad: symmetric_beta(key, bad)),
        ]
    ],
    *[
        case(
            f"{name}-alpha-not-a-scalar",
            ValueError,
            lambda key, images, labels, call=call: call(key, images, labels, np.ones(2)),
            *(f"(?i){name}", "alpha", "scalar", dims(2)),
        )
        for name, call in [
            ("CutMix", lambda key, images, labels, bad: CutMix(bad)),
            ("MixUp", lambda key, images, labels, bad: MixUp(alpha=jnp.asarray(bad))),
            ("mixup", lambda k, x, y, bad: jaxmix.mixup(k, x, y, alpha=bad, num_classes=5)),
        ]
    ],
    *[
        case(
            f"RandomApply-prob-{bad!r}",
            ValueError,
            lambda key, images, labels, bad=bad: RandomApply(CutMix(), prob=bad),
            *("RandomApply", "prob", re.escape(str(bad)), r"\[0, 1\]|0 <= |between 0 and 1"),
        )
        for bad in BAD_PROBS
    ],
    case(
        "RandomApply-prob-not-a-scalar",
        ValueError,
        lambda key, images, labels: RandomApply(CutMix(), prob=np.array([0.1, 0.2])),
        *("RandomApply", "prob", "scalar"),
    ),
    *[
        case(
            f"RandomChoice-probs-{name}",
            ValueError,
            lambda key, images, labels, bad=bad: RandomChoice((CutMix(), MixUp()), probs=bad),
            *("RandomChoice", "probs", *patterns),
        )
        for name, bad, patterns in [
            ("negative", (1.5, -0.5), ["-0.5"]),
            ("too-few", (1.0,), [r"\b1\b", r"\b2\b"]),
            ("too-many", [0.2, 0.3, 0.5], [r"\b3\b", r"\b2\b"]),
            ("all-zero", (0, 0.0), ["zero|0"]),
            ("nan", (float("nan"), 0.5), ["nan"]),
            ("inf", (float("inf"), 0.5), ["inf"]),
            ("sum-beyond-float32", (3e38, 3e38), [r"3e\+38", "float32"]),
            ("below-float32", (1e-46, 0.5), ["1e-46", "float32"]),
            ("empty", (), [r"\(\)|\b0\b", r"\b2\b"]),
        ]
    ],
    case(
        "RandomChoice-probs-numpy-negative",
        ValueError,
        lambda key, images, labels: RandomChoice((CutMix(), MixUp()), probs=np.array([1.5, -0.5])),
        *("RandomChoice", "probs", "-0.5"),
    ),
    case(
        "CutMix-alpha-str",
        TypeError,
        lambda key, images, labels: CutMix(alpha="1"),
        *("CutMix", "alpha", "'1'|str"),
    ),
    case(
        "MixUp-alpha-none",
        TypeError,
        lambda key, images, labels: MixUp(alpha=None),
        *("MixUp", "alpha", "None"),
    ),
    case(
        "RandomApply-prob-str",
        TypeError,
        lambda key, images, labels: RandomApply(MixUp(), prob="often"),
        *("RandomApply", "prob", "'often'|str"),
    ),
]

MODES = [
    case(
        "RandomChoice-no-mixers",
        ValueError,
        lambda key, images, labels: RandomChoice(()),
        *("RandomChoice", "mixers"),
    ),
    case(
        "RandomChoice-of-a-name",
        TypeError,
        lambda key, images, labels: RandomChoice((CutMix(), "mixup")),
        *("RandomChoice", "mixer", "'mixup'|str"),
    ),
    case(
        "RandomChoice-of-a-class",
        TypeError,
        lambda key, images, labels: RandomChoice([CutMix, MixUp()]),
        *("RandomChoice", "mixer"),
    ),
    case(
        "RandomChoice-of-one-bare-mixer",
        TypeError,
        lambda key, images, labels: RandomChoice(CutMix()),
        *("RandomChoice", "mixers", "CutMix"),
    ),
    case(
        "RandomApply-of-a-name",
        TypeError,
        lambda key, images, labels: RandomApply("cutmix"),
        *("RandomApply", "mixer", "'cutmix'|str"),
    ),
    case(
        "RandomApply-of-a-function",
        TypeError,
        lambda key, images, labels: RandomApply(jaxmix.cutmix),
        *("RandomApply", "mixer", "function|cutmix"),
    ),
    *[
        case(
            f"{name}-per-unknown",
            ValueError,
            call,
            *(f"(?i){name}", r"\bper\b", "'image'", "example", "pair", "batch"),
        )
        for name, call in [
            ("CutMix", lambda key, images, labels: CutMix(per="image")),
            ("MixUp", lambda key, images, labels: MixUp(per="image")),
            ("RandomApply", lambda key, images, labels: RandomApply(MixUp(), per="image")),
            ("RandomChoice", lambda key, images, labels: RandomChoice((MixUp(),), per="image")),
            ("cutmix", lambda k, x, y: jaxmix.cutmix(k, x, y, num_classes=5, per="image")),
            ("mixup", lambda k, x, y: jaxmix.mixup(k, x, y, num_classes=5, per="image")),
        ]
    ],
    *[
        case(
            f"{name}-pairing-unknown",
            ValueError,
            call,
            *(f"(?i){name}", "pairing", "'shuffle'", "flip", "roll", "permutation"),
        )
        for name, call in [
            ("CutMix", lambda key, images, labels: CutMix(pairing="shuffle")),
            ("MixUp", lambda key, images, labels: MixUp(pairing="shuffle")),
            ("cutmix", lambda k, x, y: jaxmix.cutmix(k, x, y, num_classes=5, pairing="shuffle")),
            ("mixup", lambda k, x, y: jaxmix.mixup(k, x, y, num_classes=5, pairing="shuffle")),
        ]
    ],
    *[
        case(
            f"{name}-box-unknown",
            ValueError,
            call,
            *(f"(?i){name}", r"\bbox\b", "'round'", "paper", "timm", "contained"),
        )
        for name, call in [
            ("CutMix", lambda key, images, labels: CutMix(box="round")),
            ("cutmix", lambda k, x, y: jaxmix.cutmix(k, x, y, num_classes=5, box="round")),
        ]
    ],
    *[
        case(
            f"minmax-with-box-{box}",
            ValueError,
            lambda key, images, labels, box=box: CutMix(box=box, minmax=(0.2, 0.8)),
            *("CutMix", "minmax", r"\bbox\b", box),
        )
        for box in ["timm", "contained"]
    ],
    *[
        case(
            f"minmax-{name}",
            ValueError,
            lambda key, images, labels, bad=bad: CutMix(minmax=bad),
            *("CutMix", "minmax"),
        )
        for name, bad in [
            ("descending", (0.8, 0.2)),
            ("negative", (-0.1, 0.5)),
            ("above-1", (0.5, 1.5)),
            ("of-three", (0.1, 0.2, 0.3)),
        ]
    ],
    *[
        case(f"fold-{bad}", TypeError, lambda k, x, y, bad=bad: MixUp(fold=bad), "MixUp", "fold")
        for bad in [1, None, "yes"]
    ],
    *[
        case(
            f"recipes-{name}-{argument}-{bad}",
            error,
            lambda k, x, y, call=call, argument=argument, bad=bad: call(**{argument: bad}),
            *(f"recipes.{name}: (each of )?{argument}", f"got.*{re.escape(str(bad)[:4])}"),
        )
        for name, call, argument, bad, error in [
            ("timm", recipes.timm, "mixup_alpha", -0.2, ValueError),
            ("timm", recipes.timm, "cutmix_alpha", float("nan"), ValueError),
            ("timm", recipes.timm, "cutmix_alpha", None, TypeError),
            ("timm", recipes.timm, "mixup_alpha", [0.1, 0.2], ValueError),
            ("timm", recipes.timm, "cutmix_minmax", (0.8, 0.2), ValueError),
            ("timm", recipes.timm, "cutmix_minmax", 0.3, ValueError),
            ("timm", recipes.timm, "prob", 1.5, ValueError),
            ("timm", recipes.timm, "switch_prob", -0.5, ValueError),
            ("timm", recipes.timm, "mode", "half", ValueError),
            ("torchvision", recipes.torchvision, "cutmix_alpha", -1.0, ValueError),
            ("torchvision", recipes.torchvision, "mixup_alpha", "1.0", TypeError),
            ("big_vision", recipes.big_vision, "p", 0.0, ValueError),
            ("big_vision", recipes.big_vision, "p", None, TypeError),
        ]
    ],
    *[
        case(
            f"recipes-{name}-all-off",
            ValueError,
            lambda k, x, y, call=call: call(mixup_alpha=0, cutmix_alpha=0.0),
            *(f"recipes.{name}", "mixup_alpha", "cutmix_alpha", "RandomApply"),
        )
        for name, call in [("timm", recipes.timm), ("torchvision", recipes.torchvision)]
    ],
    *[
        case(
            f"{name}-per-pair-with-{pairing}",
            ValueError,
            lambda key, images, labels, make=make, pairing=pairing: make(pairing).plan(key, SHAPE),
            *(name, "per", "pair", "(?i)flip", f"(?i){pairing}"),
        )
        for pairing in ["roll", "permutation"]
        for name, make in [
            ("CutMix", lambda pairing: CutMix(per="pair", pairing=pairing)),
            ("MixUp", lambda pairing: MixUp(per="pair", pairing=pairing)),
            ("RandomApply", lambda pairing: RandomApply(MixUp(pairing=pairing), per="pair")),
            ("RandomChoice", lambda pairing: RandomChoice((MixUp(pairing=pairing),), per="pair")),
        ]
    ],
    case(
        "batch-not-a-multiple-of-groups",
        ValueError,
        lambda key, images, labels: CutMix(pairing=Flip(groups=3)).plan(key, SHAPE),
        *("(?i)cutmix|flip", "groups", r"\b3\b", r"\b8\b"),
    ),
    case(
        "mixup-batch-not-a-multiple-of-groups",
        ValueError,
        lambda key, images, labels: jaxmix.mixup(
            key, images, labels, num_classes=5, pairing=Flip(3)
        ),
        *("(?i)mixup|flip", "groups", r"\b3\b", r"\b8\b"),
    ),
    case(
        "plan-of-batch-not-a-multiple-of-groups",
        ValueError,
        lambda key, images, labels: Plan.of(SHAPE, Flip(5), opacity=jnp.ones(8)),
        *(r"(?i)plan\.of|flip", "groups", r"\b5\b", r"\b8\b"),
    ),
    case(
        "no-groups",
        ValueError,
        lambda key, images, labels: Flip(groups=0),
        *("Flip", "groups", r"\b0\b"),
    ),
]

PLANS = [
    *[
        case(
            f"{name}-of-another-batch-size",
            ValueError,
            call,
            *(f"(?i)plan\\.{name}", r"\b4\b", r"\b8\b"),
        )
        for name, call in [
            ("images", lambda key, images, labels: plan(key).images(images[:4])),
            ("labels", lambda key, images, labels: plan(key).labels(labels[:4], num_classes=5)),
            ("maps", lambda key, images, labels: plan(key).maps(jnp.asarray(MAPS)[:4])),
            ("weights", lambda key, images, labels: plan(key).weights((4, 16, 12, 3))),
            (
                "loss",
                lambda key, images, labels: plan(key).loss(
                    lambda outputs, y: outputs[:, 0], jnp.ones((8, 5)), labels[:4]
                ),
            ),
            (
                "accuracy",
                lambda key, images, labels: plan(key).accuracy(jnp.ones((4, 5)), labels[:4]),
            ),
        ]
    ],
    case(
        "mixup-images-of-another-batch-size",
        ValueError,
        lambda key, images, labels: plan(key, MixUp()).images(images[:4]),
        *(r"(?i)plan\.images", r"\b4\b", r"\b8\b"),
    ),
    case(
        "images-of-other-extents",
        ValueError,
        lambda key, images, labels: plan(key).images(images[:, :10]),
        *(r"(?i)plan\.images", dims(16, 12), r"\b10, 12\b"),
    ),
    case(
        "images-with-height-and-width-swapped",
        ValueError,
        lambda key, images, labels: plan(key).images(jnp.swapaxes(images, 1, 2)),
        *(r"(?i)plan\.images", dims(16, 12), r"\b12, 16\b"),
    ),
    case(
        "images-channels-first-said-to-be-channels-last",
        ValueError,
        lambda key, images, labels: plan(key).images(jnp.moveaxis(images, -1, 1), channel_axis=-1),
        *(r"(?i)plan\.images", dims(16, 12), dims(8, 3, 16, 12), "channel_axis=-1"),
    ),
    case(
        "weights-of-other-extents",
        ValueError,
        lambda key, images, labels: plan(key).weights((8, 10, 12, 3)),
        *(r"(?i)plan\.weights", dims(16, 12), r"\b10, 12\b"),
    ),
    case(
        "maps-of-other-extents",
        ValueError,
        lambda key, images, labels: plan(key).maps(jnp.asarray(MAPS)[:, :10]),
        *(r"(?i)plan\.maps", dims(16, 12), r"\b10, 12\b"),
    ),
    case(
        "donors-of-another-shape",
        ValueError,
        lambda key, images, labels: plan(key).images(images, donors=images[:, :10]),
        *(r"(?i)plan\.images", "donors", dims(8, 16, 12, 3), dims(8, 10, 12, 3)),
    ),
    case(
        "label-donors-of-another-batch",
        ValueError,
        lambda key, images, labels: plan(key).labels(labels, num_classes=5, donors=labels[:4]),
        *(r"(?i)plan\.labels", "donors", r"\b4\b", r"\b8\b"),
    ),
    *[
        case(
            f"loss-fn-returns-{name}",
            ValueError,
            lambda key, images, labels, loss_fn=loss_fn: plan(key).loss(
                loss_fn, jnp.ones((8, 5)), labels
            ),
            *(r"(?i)plan\.loss", "loss_fn", r"\(8,\)|\[B\]|\[8\]", came),
        )
        for name, loss_fn, came in [
            ("a-mean", lambda outputs, y: outputs.mean(), dims()),
            ("a-matrix", lambda outputs, y: outputs, dims(8, 5)),
            ("half-the-batch", lambda outputs, y: outputs[:4, 0], dims(4)),
        ]
    ],
]

BY_HAND = [
    case(
        "box-of-another-rank",
        ValueError,
        lambda key, images, labels: Plan.of(
            SHAPE, Flip(), region=Box(jnp.zeros((8, 3), jnp.int32), jnp.ones((8, 3), jnp.int32))
        ),
        *(r"(?i)plan\.of|box", dims(8, 3), dims(8, 2)),
    ),
    case(
        "box-of-another-batch",
        ValueError,
        lambda key, images, labels: Plan.of(
            SHAPE, Flip(), region=Box(jnp.zeros((4, 2), jnp.int32), jnp.ones((4, 2), jnp.int32))
        ),
        *(r"(?i)plan\.of|box", dims(4, 2), r"\b8\b"),
    ),
    case(
        "mask-of-other-extents",
        ValueError,
        lambda key, images, labels: Plan.of(
            SHAPE, Flip(), region=Mask(jnp.zeros((8, 10, 12), bool))
        ),
        *(r"(?i)plan\.of|mask", dims(8, 10, 12), r"16, 12"),
    ),
    case(
        "opacity-of-another-batch",
        ValueError,
        lambda key, images, labels: Plan.of(SHAPE, Flip(), opacity=jnp.ones(4)),
        *(r"(?i)plan\.of", "opacity", dims(4), dims(8)),
    ),
    case(
        "permutation-of-another-length",
        ValueError,
        lambda key, images, labels: Plan.of(SHAPE, Permutation(jnp.arange(4)), opacity=jnp.ones(8)),
        *(r"(?i)plan\.of|permutation", r"\b4\b", r"\b8\b"),
    ),
    case(
        "region-of-another-kind",
        TypeError,
        lambda key, images, labels: Plan.of(SHAPE, Flip(), region=jnp.zeros((8, 16, 12), bool)),
        *(r"(?i)plan\.of", "region", "Box", "Mask"),
    ),
]

VALID = np.arange(8) < 6
ONLY = [
    *[
        case(
            f"{argument}-{kind}",
            TypeError,
            lambda key, images, labels, give=give, bad=bad: give(plan(key), bad),
            *(r"Plan\.only", argument, came, remedy),
        )
        for argument, give in [
            ("valid", lambda plan, bad: plan.only(bad)),
            ("donors", lambda plan, bad: plan.only(VALID, donors=bad)),
        ]
        for kind, bad, came, remedy in [
            ("of-ints", np.ones(8, np.int32), "int32" + dims(8), f"{argument} > 0"),
            ("of-floats", np.ones(8, np.float32), "float32" + dims(8), f"{argument} > 0"),
            ("list", [True] * 8, "list", "array"),
        ]
    ],
    *[
        case(
            f"{argument}-of-another-batch",
            ValueError,
            lambda key, images, labels, give=give: give(plan(key), np.ones(7, bool)),
            *(r"Plan\.only", argument, r"\b8\b", dims(7)),
        )
        for argument, give in [
            ("valid", lambda plan, bad: plan.only(bad)),
            ("donors", lambda plan, bad: plan.only(VALID, donors=bad)),
        ]
    ],
    case(
        "valid-of-rank-2",
        ValueError,
        lambda key, images, labels: plan(key).only(np.ones((8, 1), bool)),
        *(r"Plan\.only", "valid", dims(8), dims(8, 1)),
    ),
]

SLICES = [
    *[
        case(
            f"slice-{start}-{stop}-of-{type(pairing).__name__}",
            ValueError,
            lambda key, images, labels, pairing=pairing, start=start, stop=stop: plan(
                key, CutMix(pairing=pairing)
            )[start:stop],
            *(r"Plan\[", "partner", rows, r"\b8\b", type(pairing).__name__, r"Flip\(groups="),
        )
        for pairing, start, stop, rows in [
            (Flip(), 0, 4, r"\b0 to 4\b"),
            (Flip(), 1, 7, r"\b1 to 7\b"),
            (Flip(groups=2), 0, 6, r"\b0 to 6\b"),
            (Flip(groups=2), 2, None, r"\b2 to 8\b"),
            (Flip(groups=2), -5, -1, r"\b3 to 7\b"),
            (Flip(groups=4), 1, 3, r"\b1 to 3\b"),
            (Roll(), 0, 4, r"\b0 to 4\b"),
            (Roll(8), 0, 7, r"\b0 to 7\b"),
            (Permutation(), 4, 8, r"\b4 to 8\b"),
        ]
    ],
    case(
        "slice-with-a-step",
        ValueError,
        lambda key, images, labels: plan(key, CutMix(pairing=Flip(4)))[0:8:2],
        *(r"Plan\[", "step", r"slice\(0, 8, 2\)"),
    ),
    case(
        "slice-backwards",
        ValueError,
        lambda key, images, labels: plan(key)[::-1],
        *(r"Plan\[", "step", "-1"),
    ),
    *[
        case(
            f"index-{name}",
            TypeError,
            lambda key, images, labels, index=index: plan(key)[index],
            *(r"Plan\[", "slice", re.escape(came)),
        )
        for name, index, came in [
            ("int", 3, "3"),
            ("array", np.arange(4), f"{np.arange(4).dtype}[4]"),
            ("ellipsis", ..., "Ellipsis"),
            ("two-slices", (slice(0, 4), slice(0, 4)), "slice(0, 4, None)"),
        ]
    ],
    *[
        case(
            f"bound-{name}",
            TypeError,
            lambda key, images, labels, bad=bad: plan(key)[:bad],
            *(r"Plan\[", "stop", "static", "int", re.escape(str(bad))),
        )
        for name, bad in [("float", 4.0), ("str", "4"), ("bool", True)]
    ],
    case(
        "bound-traced",
        TypeError,
        lambda key, images, labels: jax.jit(lambda plan, start: plan[start:])(plan(key), 0),
        *(r"Plan\[", "start", "static", "int", "static_argnames"),
    ),
]


def everywhere(call, size=2, axis_name="batch"):
    """Calls it with a key, on every device of an axis."""
    return jax.vmap(call, axis_name=axis_name)(jax.random.split(jax.random.key(0), size))


def next_door(mixer=MixUp, **how):
    """A mixer that exchanges along the axis "batch"."""
    return mixer(pairing=Neighbour("batch", **how))


UNBOUND = ("'batch'", r"jax\.pmap", r"jax\.shard_map", "not bound", r"Flip\(\)", r"Roll\(\)")
NEIGHBOURS = [
    *[
        case(
            f"{name}-of-an-unbound-axis",
            ValueError,
            call,
            *(where, *UNBOUND),
        )
        for name, where, call in [
            ("take", r"Neighbour\.take", lambda key, x, y: Neighbour("batch").take(x)),
            ("plan", r"CutMix\.plan", lambda key, x, y: plan(key, next_door(CutMix))),
            ("plan-of", r"Plan\.of", lambda key, x, y: Plan.of(SHAPE, Neighbour("batch"))),
            ("mixer", "MixUp", lambda key, x, y: next_door()(key, x)),
            (
                "function",
                "(?i)cutmix",
                lambda key, x, y: jaxmix.cutmix(
                    key, x, jnp.ones((8, 2)), pairing=Neighbour("batch")
                ),
            ),
            ("policy", "RandomApply", lambda key, x, y: RandomApply(next_door())(key, x)),
            (
                "plan-under-another-name",
                r"MixUp\.plan",
                lambda key, x, y: everywhere(lambda k: plan(k, next_door()), axis_name="devices"),
            ),
            (
                "take-outside-of-where-it-was-drawn",
                r"Neighbour\.take",
                lambda key, x, y: jax.tree.map(
                    lambda leaf: leaf[0], everywhere(lambda k: plan(k, next_door()))
                ).images(x),
            ),
        ]
    ],
    case(
        "plan-on-one-device",
        ValueError,
        lambda key, images, labels: everywhere(lambda k: plan(k, next_door()), size=1),
        *(r"MixUp\.plan", "'batch'", "size 1", r"Flip\(\)", r"Roll\(\)"),
    ),
    case(
        "take-on-one-device",
        ValueError,
        lambda key, images, labels: jax.vmap(Neighbour("batch").take, axis_name="batch")(
            images[:1]
        ),
        *(r"Neighbour\.take", "'batch'", "size 1", r"Flip\(\)", r"Roll\(\)"),
    ),
    *[
        case(
            f"axis-name-{name}",
            TypeError,
            lambda key, images, labels, bad=bad: Neighbour(bad),
            *("Neighbour", "axis_name", "name", re.escape(came)),
        )
        for name, bad, came in [
            ("int", 3, "3"),
            ("none", None, "None"),
            ("empty-list", [], "[]"),
            ("empty-tuple", (), "()"),
            ("array", np.ones(3), "float64[3]"),
            ("pairing", Flip(), "Flip(groups=1)"),
            ("tuple-of-names", ("hosts", "devices"), "('hosts', 'devices')"),
            ("of-a-name-and-a-number", ("batch", 0), "('batch', 0)"),
        ]
    ],
    case(
        "local-unknown",
        ValueError,
        lambda key, images, labels: Neighbour("batch", "shuffle"),
        *("Neighbour", "'shuffle'", "flip", "roll", "permutation"),
    ),
    *[
        case(
            f"local-{name}",
            TypeError,
            lambda key, images, labels, bad=bad: Neighbour("batch", local=bad),
            *("Neighbour", "local", r"Flip\(\)", re.escape(came)),
        )
        for name, bad, came in [("int", 1, "1"), ("none", None, "None"), ("class", Flip, "Flip")]
    ],
    case(
        "local-groups",
        ValueError,
        lambda key, images, labels: everywhere(lambda k: plan(k, next_door(local=Flip(3)))),
        *(r"MixUp\.plan", "groups", r"\b3\b", r"\b8\b"),
    ),
    case(
        "local-permutation-of-another-length",
        ValueError,
        lambda key, images, labels: everywhere(
            lambda k: plan(k, next_door(local=Permutation(np.arange(4)[::-1].copy())))
        ),
        *(r"MixUp\.plan", "Permutation", r"\b4\b", r"\b8\b"),
    ),
    case(
        "local-permutation-not-drawn",
        ValueError,
        lambda key, images, labels: everywhere(
            lambda k: Plan.of(SHAPE, Neighbour("batch", "permutation"))
        ),
        *(r"Plan\.of", "drawn", "Permutation"),
    ),
    *[
        case(
            f"{name}-per-pair-with-neighbour",
            ValueError,
            lambda key, images, labels, make=make: make(Neighbour("batch", "flip")),
            *(name, "per", "pair", "flip", "Neighbour"),
        )
        for name, make in [
            ("MixUp", lambda pairing: MixUp(per="pair", pairing=pairing)),
            ("RandomApply", lambda pairing: RandomApply(MixUp(pairing=pairing), per="pair")),
        ]
    ],
    *[
        case(
            f"policy-{name}",
            ValueError,
            lambda key, images, labels, other=other: RandomChoice(
                (CutMix(pairing=Neighbour("batch")), MixUp(pairing=other))
            ),
            *(
                "RandomChoice",
                "pairing",
                re.escape(repr(Neighbour("batch"))),
                re.escape(repr(other)),
            ),
        )
        for name, other in [
            ("of-two-axes", Neighbour("devices")),
            ("of-two-locals", Neighbour("batch", "flip")),
            ("of-here-and-next-door", Roll(0)),
        ]
    ],
    case(
        "slice-with-partners-outside-of-it",
        ValueError,
        lambda key, images, labels: everywhere(lambda k: plan(k, next_door(local=Flip()))[:4]),
        *(r"Plan\[", "partner", "Neighbour", r"\b0 to 4\b"),
    ),
]

CASES = [
    *BATCHES,
    *AXES,
    *KINDS,
    *LABEL_KINDS,
    *SMOOTHING,
    *NUMBERS,
    *MODES,
    *PLANS,
    *BY_HAND,
    *ONLY,
    *SLICES,
    *NEIGHBOURS,
]


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("call, error, patterns", CASES)
def test_bad_input(call, error, patterns, how):
    check(jax.jit(call) if how == "jit" else call, error, patterns)


DONORS = {  # A method of a plan, with what it mixes and donors for it.
    "images": (lambda plan, x, donors: plan.images(x, donors=donors), IMAGES),
    "labels": (lambda plan, x, donors: plan.labels(x, num_classes=5, donors=donors), LABELS),
    "maps": (lambda plan, x, donors: plan.maps(x, donors=donors), MAPS),
    "loss": (lambda plan, x, donors: plan.loss(lambda _, y: y, x, x, donors=donors), LABELS),
    "accuracy": (
        lambda plan, x, donors: plan.accuracy(jnp.ones((8, 5)), x, donors=donors),
        LABELS,
    ),
    "only": (lambda plan, x, donors: plan.only(x, donors=donors), VALID),
}
every_method = pytest.mark.parametrize("name", DONORS)


def laid_out(x, axis_type, *spec):
    """An array over two devices."""
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(axis_type,), devices=jax.devices()[:2])
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*spec)))


@every_method
@pytest.mark.parametrize("how", ["eager", "jit"])
def test_donors_laid_out_over_an_explicit_mesh_in_another_way(name, how):
    call, x = DONORS[name]
    call = jax.jit(call) if how == "jit" else call
    plan = Plan.of(SHAPE, Roll(0), region=Mask(jnp.ones(SHAPE[:3], bool)))
    split, whole = laid_out(x, AxisType.Explicit, "batch"), laid_out(x, AxisType.Explicit)
    for one, other, order in [(split, whole, "batch.*None"), (whole, split, "None.*batch")]:
        with pytest.raises(ValueError, match=rf"Plan\.{name}: donors .*{order}.*reshard") as raised:
            call(plan, one, other)
        assert type(raised.value) is ValueError


@pytest.mark.parametrize("name", ["images", "labels"])
def test_donors_may_be_laid_out_alike_or_as_an_auto_mesh_likes(name):
    """What the message says to do helps, and where XLA moves the donors nothing is asked."""
    call, x = DONORS[name]
    plan = Plan.of(SHAPE, Roll(0), opacity=jnp.full(8, 0.5))
    split, whole = laid_out(x, AxisType.Explicit, "batch"), laid_out(x, AxisType.Explicit)
    expected = call(plan, jnp.asarray(x), jnp.asarray(x))
    moved = jax.sharding.reshard(whole, split.sharding)
    assert np.array_equal(call(plan, split, moved), expected)
    split, whole = laid_out(x, AxisType.Auto, "batch"), laid_out(x, AxisType.Auto)
    assert np.array_equal(call(plan, split, whole), expected)


@pytest.mark.parametrize("channel_axis", [0, 4, -5, 1.5, "last", [1], np.array([1])], ids=str)
def test_bad_channel_axis(channel_axis):
    with pytest.raises((ValueError, TypeError), match=r"CutMix.*channel_axis"):
        CutMix().plan(jax.random.key(0), SHAPE, channel_axis=channel_axis)
    with pytest.raises((ValueError, TypeError), match=r"CutMix.*channel_axis"):
        CutMix()(jax.random.key(0), jnp.zeros(SHAPE), channel_axis=channel_axis)


CALLS = {
    "cutmix": (jaxmix.cutmix, "CutMix"),
    "mixup": (jaxmix.mixup, "MixUp"),
    "CutMix": (lambda *args, **how: CutMix(how.pop("alpha", 1.0))(*args, **how), "CutMix"),
    "RandomChoice": (lambda *args, **how: RandomChoice((CutMix(), MixUp()))(*args, **how), ""),
}
MISTAKES = {
    "key": lambda call, key, x, y: call(0, x, y, num_classes=5),
    "images": lambda call, key, x, y: call(key, [x], y, num_classes=5),
    "labels": lambda call, key, x, y: call(key, x, [y], num_classes=5),
    "batch": lambda call, key, x, y: call(key, x, y[:4], num_classes=5),
    "num-classes": lambda call, key, x, y: call(key, x, y),
    "float-ids": lambda call, key, x, y: call(key, x, y.astype(jnp.float32), num_classes=5),
    "smoothing": lambda call, key, x, y: call(key, x, y, num_classes=5, smoothing=2),
    "channel-axis": lambda call, key, x, y: call(key, x, y, num_classes=5, channel_axis="last"),
}


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", CALLS)
def test_an_error_names_the_call_that_was_made(name, mistake, how):
    """Not the parts of which that call consists."""

    def step(key):
        return MISTAKES[mistake](CALLS[name][0], key, jnp.asarray(IMAGES), jnp.asarray(LABELS))

    with pytest.raises((TypeError, ValueError)) as raised:
        (jax.jit(step) if how == "jit" else step)(jax.random.key(0))
    assert str(raised.value).startswith(f"{name}: "), raised.value


@pytest.mark.parametrize(
    "how",
    [{"alpha": -1.0}, {"per": "rows"}, {"pairing": "no"}, {"per": "pair", "pairing": "roll"}],
    ids=str,
)
@pytest.mark.parametrize("name", ["cutmix", "mixup"])
def test_an_error_about_an_option_names_the_function(name, how):
    with pytest.raises(ValueError, match=f"^{name}: ") as raised:
        CALLS[name][0](jax.random.key(0), IMAGES, LABELS, num_classes=5, **how)
    assert CALLS[name][1] not in str(raised.value)


def test_errors_of_other_calls_keep_their_name():
    """A user's draw may call the library, and its mistakes are its own."""

    class Own(Mixer):
        def draw(self, key, rows, spatial):
            return None, symmetric_beta(key, -1.0, (rows,))

    class Other(Mixer):
        def draw(self, key, rows, spatial):
            Plan.of((rows, 4), "flip", opacity=0.5).images([1.0])
            return None, None

    with pytest.raises(ValueError, match=r"^symmetric_beta: alpha must be positive"):
        Own()(jax.random.key(0), IMAGES)
    with pytest.raises(TypeError, match=r"^Plan\.images: images must be an array, got list"):
        Other()(jax.random.key(0), IMAGES)


@pytest.mark.parametrize(
    "labels, num_classes, smoothing",
    [([0] * 8, 5, 0), (LABELS, None, 0), (LABELS[:4], 5, 0), (LABELS, 5, 1.0)],
    ids=["list", "no-classes", "batch", "smoothing"],
)
def test_labels_are_checked_before_anything_is_drawn(labels, num_classes, smoothing):
    class Never(Mixer):
        def draw(self, key, rows, spatial):
            raise AssertionError("drawn")

    never = Never()
    with pytest.raises((TypeError, ValueError), match=r"^Never: "):
        never(jax.random.key(0), IMAGES, labels, num_classes=num_classes, smoothing=smoothing)


def test_the_channel_axis_is_checked_without_a_region_too():
    with pytest.raises(ValueError, match=r'^Plan\.of: channel_axis must be "auto".*\'last\''):
        Plan.of(SHAPE, "flip", opacity=0.5, channel_axis="last")


def test_a_batch_that_was_asked_for_is_not_squeezed():
    """The remedy is for a channel axis of 1, and there is none."""
    with pytest.raises(ValueError, match=r"Plan\.maps: maps must be") as raised:
        plan(jax.random.key(0)).maps(np.zeros((8, 10, 12), np.int32))
    assert "squeeze" not in str(raised.value)


@pytest.mark.parametrize("bad", [-(10**400), 10**400, -1e300, -0.25], ids=["-big", "big", "-", "q"])
def test_the_bad_one_of_many_probs_is_named(bad):
    probs = [0.125] * 29 + [bad]
    with pytest.raises(ValueError, match="probs must be finite and >= 0") as raised:
        RandomChoice([CutMix()] * 30, probs=probs)
    shown = {10**400: "inf", -(10**400): "-inf"}.get(bad, str(bad))
    assert str(raised.value).endswith(f"got {shown}")


@pytest.mark.parametrize("grid", [0, -1, 1.5, [0, 1]], ids=str)
def test_bad_grid_of_a_box(grid):
    box = Box(jnp.zeros((8, 2), jnp.int32), jnp.ones((8, 2), jnp.int32), grid=grid)
    with pytest.raises((ValueError, TypeError), match=r"Plan\.of.*Box\.grid"):
        Plan.of(SHAPE, Flip(), region=box)


def test_the_grid_of_a_box_may_be_a_list():
    box = Box(jnp.zeros((8, 2), jnp.int32), jnp.ones((8, 2), jnp.int32), grid=[1, 2])
    assert Plan.of(SHAPE, Flip(), region=box).region.grid == (1, 2)


def test_numpy_ids_are_checked_where_the_images_are_traced():
    mix = jax.jit(lambda k, x: jaxmix.mixup(k, x, np.full(8, 17), num_classes=5))
    with pytest.raises(ValueError, match=r"\b17\b"):
        mix(jax.random.key(0), IMAGES)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ids_too_large_in_a_jax_array_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 6), Flip(), opacity=jnp.zeros(4))
    labels = plan.labels(jnp.array([0, 7, 3, 2]), num_classes=3, smoothing=smoothing)
    assert np.flatnonzero(np.asarray(labels).any(1)).tolist() == [0, 3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_negative_ids_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 6), Flip(), opacity=jnp.zeros(4))
    labels = plan.labels(np.array([0, -1, -100, 2]), num_classes=3, smoothing=smoothing)
    assert np.flatnonzero(np.asarray(labels).any(1)).tolist() == [0, 3]


ALLOWED = [
    CutMix(),
    CutMix(minmax=(0.2, 0.8), per="batch", pairing="permutation"),
    RandomChoice((CutMix(per="pair", box="contained"), MixUp())),
    RandomApply(MixUp(pairing="roll"), per="batch"),
]


@pytest.mark.parametrize("batch", [0, 1, 7])
@pytest.mark.parametrize("mixer", ALLOWED, ids=str)
def test_empty_single_and_odd_batches_are_allowed(mixer, batch):
    images = np.linspace(0, 1, batch * 5 * 4 * 3, dtype=np.float32).reshape(batch, 5, 4, 3)
    mixed, labels = mixer(jax.random.key(0), images, np.arange(batch) % 3, num_classes=3)
    assert mixed.shape == images.shape and labels.shape == (batch, 3)
    np.testing.assert_allclose(np.asarray(labels, np.float64).sum(1), np.ones(batch), atol=2e-7)
    if batch == 1:
        np.testing.assert_array_equal(mixed, images)


@pytest.mark.parametrize("shape", [(8,), (8, 3), (8, 16, 12), (8, 2, 3, 4, 5, 6)], ids=str)
def test_a_plan_without_a_region_applies_to_any_shape(shape):
    mixed = MixUp().plan(jax.random.key(0), (8, 4)).images(np.ones(shape, np.float32))
    np.testing.assert_allclose(mixed, np.ones(shape), rtol=2e-7)


@pytest.mark.parametrize("extent", [(1, 1), (1, 7), (2, 1)], ids=str)
def test_axes_of_one_pixel_are_allowed(extent):
    plan = CutMix().plan(jax.random.key(0), (8, *extent, 3))
    assert plan.images(np.ones((8, *extent, 3), np.uint8)).shape == (8, *extent, 3)


def test_keys_of_both_kinds_are_allowed():
    new = CutMix().plan(jax.random.key(3), SHAPE)
    old = CutMix().plan(jax.random.PRNGKey(3), SHAPE)
    jax.tree.map(np.testing.assert_array_equal, new, old)


BAD_TRACED = [0.0, -1.0, float("nan"), float("inf"), float("-inf")]


@jax.jit
def lams(key, alpha):
    """Lam from everything that takes an alpha."""
    beta_key, mixup_key, cutmix_key, batch_key = jax.random.split(key, 4)
    return (
        symmetric_beta(beta_key, alpha, (8,)),
        MixUp(alpha=alpha).plan(mixup_key, SHAPE).lam,
        CutMix(alpha=alpha).plan(cutmix_key, SHAPE).lam,
        CutMix(alpha=alpha, per="batch", box="contained").plan(batch_key, SHAPE).lam,
    )


@pytest.mark.parametrize("alpha", BAD_TRACED)
def test_traced_bad_alpha_gives_nan(alpha):
    for lam in lams(jax.random.key(0), alpha):
        assert np.isnan(lam).all(), lam


def test_traced_good_alpha_does_not():
    for lam in lams(jax.random.key(0), 0.5):
        assert np.isfinite(lam).all(), lam


def test_roll_by_any_shift_is_allowed():
    for shift in (0, 3, -1, 8, 21):
        partner = Plan.of((8, 4), Roll(shift), opacity=jnp.ones(8)).partner
        np.testing.assert_array_equal(partner, (np.arange(8) - shift) % 8)
