"""Bad input: every row of the error table, eager and under jit, and what its message says."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import case, dims, refused

import jaxmix
from jaxmix import (
    CutMix,
    Flip,
    Mask,
    MixUp,
    Plan,
    RandomApply,
    RandomChoice,
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


def plan(key, mixer=None, **options):
    """A plan of CutMix, or of `mixer`, for SHAPE."""
    return (mixer or CutMix()).plan(key, SHAPE, **options)


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

AXES += [  # Channels-first, or so it seems.
    case(
        f"{name}-{'x'.join(map(str, shape))}",
        ValueError,
        lambda key, images, labels, call=call, shape=shape: call(key, shape),
        *("ambiguous", re.escape(str(shape)), r"channel_axis=1\b", r"channel_axis=-1\b"),
    )
    for shape in [(8, 3, 32, 32), (8, 1, 28, 20), (8, 4, 16, 5), (2, 3, 8, 32, 32)]
    for name, call in [
        ("plan", lambda key, shape: CutMix().plan(key, shape)),
        ("call", lambda key, shape: CutMix(grid=1)(key, jnp.zeros(shape))),
        ("choice", lambda key, shape: RandomChoice((MixUp(), CutMix())).plan(key, shape)),
        (
            "cutmix",
            lambda key, shape: jaxmix.cutmix(
                key, jnp.zeros(shape), jnp.arange(shape[0]), num_classes=8
            ),
        ),
        (
            "by-hand",
            lambda key, shape: Plan.of(shape, "swap", region=Mask(jnp.ones(shape[:-1], bool))),
        ),
        ("at", lambda key, shape: CutMix(axes=0).plan(key, (shape[0], 6, 7, 3)).at(shape)),
    ]
]


@pytest.mark.parametrize(
    "shape",
    [(8, 32, 32, 3), (8, 3, 3, 3), (8, 1, 40, 1), (8, 3, 32, 1), (8, 7, 7, 64), (8, 3, 3, 64)],
    ids=str,
)
def test_what_is_not_channels_first_needs_no_channel_axis(shape):
    assert CutMix().plan(jax.random.key(0), shape).spatial == shape[1:-1]


@pytest.mark.parametrize("shape", [(8, 3, 32, 32), (8, 3, 32, 20), (2, 3, 8, 32, 32)], ids=str)
def test_a_channels_first_batch_is_mixed_as_it_is_told(shape):
    for axis, spatial in ((1, shape[2:]), (-1, shape[1:-1]), (None, shape[1:])):
        plan = CutMix().plan(jax.random.key(0), shape, channel_axis=axis)
        assert plan.spatial == spatial and plan.images(jnp.zeros(shape)).shape == shape
    assert MixUp()(jax.random.key(0), jnp.zeros(shape)).shape == shape, "there is nothing to read"


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

Z = np.complex64(0.5 + 1j)
UNREAL = [  # A PRNG key or a complex number where a real number belongs.
    case(
        f"{name}-{kind}",
        TypeError,
        lambda key, images, labels, call=call, make=make: call(key, images, labels, make(key)),
        *(f"(?i){where}", argument, "real number|must be a number", r"complex64|key<|\(0\.5\+1j\)"),
    )
    for kind, make in [
        ("key", lambda key: key),
        ("complex", lambda key: jnp.asarray(Z)),
        ("numpy-complex", lambda key: Z),
    ]
    for name, where, argument, call in [
        ("CutMix-alpha", "CutMix", "alpha", lambda k, x, y, bad: CutMix(bad)),
        ("MixUp-alpha", "MixUp", "alpha", lambda k, x, y, bad: MixUp(bad)),
        ("minmax", "CutMix", "minmax", lambda k, x, y, bad: CutMix(minmax=(0.1, bad))),
        ("prob", "RandomApply", "prob", lambda k, x, y, bad: RandomApply(CutMix(), bad)),
        (
            "one-of-probs",
            "RandomChoice",
            "probs",
            lambda k, x, y, b: RandomChoice((MixUp(),), (b,)),
        ),
        (
            "smoothing",
            "cutmix",
            "smoothing",
            lambda k, x, y, bad: jaxmix.cutmix(k, x, y, num_classes=5, smoothing=bad),
        ),
        (
            "one-opacity",
            "Plan.of",
            "opacity",
            lambda k, x, y, bad: Plan.of(SHAPE, "flip", opacity=bad),
        ),
        ("recipe", "timm", "mixup_alpha", lambda k, x, y, bad: recipes.timm(bad)),
        ("beta", "symmetric_beta", "alpha", lambda k, x, y, bad: symmetric_beta(k, bad)),
    ]
]
UNREAL += [
    case(
        f"{name}-array-{kind}",
        TypeError,
        lambda key, images, labels, call=call, make=make: call(key, images, labels, make(key)),
        *(argument, "real numbers", r"complex64\[|key<"),
    )
    for kind, make in [
        ("keys", lambda key: jax.random.split(key, 8)),
        ("complex", lambda key: jnp.full(8, Z)),
    ]
    for name, argument, call in [
        ("probs", "probs", lambda k, x, y, bad: RandomChoice((MixUp(), CutMix()), bad[:2])),
        ("opacity", "opacity", lambda k, x, y, bad: Plan.of(SHAPE, "flip", opacity=bad)),
        ("labels", "labels", lambda k, x, y, bad: MixUp()(k, x, bad[:, None])),
        ("ids", "labels", lambda k, x, y, bad: MixUp()(k, x, bad, num_classes=5)),
        (
            "donors",
            "donors",
            lambda k, x, y, bad: plan(jax.random.key(1)).labels(
                jnp.ones((8, 5)), donors=bad[:, None]
            ),
        ),
        ("beta", "alpha", lambda k, x, y, bad: symmetric_beta(k, bad, (8,))),
    ]
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
            ("big_vision", recipes.big_vision, "p", -0.1, ValueError),
            ("timm", recipes.timm, "axes", 0.5, TypeError),
            ("torchvision", recipes.torchvision, "axes", 0.5, TypeError),
            ("big_vision", recipes.big_vision, "p", None, TypeError),
        ]
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

CASES = [
    *BATCHES,
    *AXES,
    *KINDS,
    *LABEL_KINDS,
    *SMOOTHING,
    *NUMBERS,
    *UNREAL,
    *MODES,
]


class Foreign:
    """A scalar of another library, without a dtype."""

    shape = ()


class ForeignDtype(Foreign):
    """One whose dtype is not NumPy's."""

    dtype = "a dtype of its own"


@pytest.mark.parametrize("kind", [Foreign, ForeignDtype])
@pytest.mark.parametrize(
    "call, where, argument",
    [
        (CutMix, "CutMix", "alpha"),
        (lambda bad: RandomApply(CutMix(), bad), "RandomApply", "prob"),
        (lambda bad: Plan.of(SHAPE, "swap", opacity=bad), r"Plan\.of", "opacity"),
        (lambda bad: symmetric_beta(jax.random.key(0), bad), "symmetric_beta", "alpha"),
    ],
    ids=["alpha", "prob", "opacity", "beta"],
)
def test_scalars_of_other_libraries_are_no_numbers(kind, call, where, argument):
    with pytest.raises(
        TypeError, match=f"{where}: {argument} must (hold real numbers|be a number)"
    ):
        call(kind())


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("call, error, patterns", CASES)
def test_bad_input(call, error, patterns, how):
    refused(jax.jit(call) if how == "jit" else call, (IMAGES, LABELS), error, patterns)


@pytest.mark.parametrize("channel_axis", [0, 4, -5, 1.5, "last", [1], np.array([1])], ids=str)
def test_bad_channel_axis(channel_axis):
    with pytest.raises((ValueError, TypeError), match=r"CutMix.*channel_axis"):
        CutMix().plan(jax.random.key(0), SHAPE, channel_axis=channel_axis)
    with pytest.raises((ValueError, TypeError), match=r"CutMix.*channel_axis"):
        CutMix()(jax.random.key(0), jnp.zeros(SHAPE), channel_axis=channel_axis)
