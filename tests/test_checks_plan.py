"""Bad input to plans, and to what is mapped over devices; see test_checks.py."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import case, dims, mesh_of, refused
from jax.sharding import NamedSharding, PartitionSpec

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
)

SHAPE = (8, 16, 12, 3)
IMAGES = np.linspace(0, 1, 8 * 16 * 12 * 3, dtype=np.float32).reshape(SHAPE)
LABELS = np.arange(8, dtype=np.int32) % 5
MAPS = np.zeros((8, 16, 12), np.int32)


def plan(key, mixer=None, **options):
    """A plan of CutMix, or of `mixer`, for SHAPE."""
    return (mixer or CutMix()).plan(key, SHAPE, **options)


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
    *[
        case(
            f"loss-labels-{name}",
            error,
            lambda key, images, labels, make=make: plan(key).loss(
                lambda outputs, y: jnp.ones(8), None, *make(labels)
            ),
            *(r"^Plan\.loss: ", *patterns),
        )
        for name, error, make, *patterns in [
            ("none", TypeError, lambda y: (None,), "labels must be arrays", "None"),
            ("empty", TypeError, lambda y: ({},), "labels must be arrays"),
            ("scalars", TypeError, lambda y: ([0] * 8,), "labels", r"jnp\.asarray\(labels\)"),
            ("a-scalar", ValueError, lambda y: ((y, jnp.ones(())),), "labels", "batch axis"),
            (
                "short",
                ValueError,
                lambda y: ({"a": y, "b": y[:4]},),
                "labels",
                r"size 8, .*got.*\[4\]",
            ),
        ]
    ],
    *[
        case(
            f"loss-donors-{name}",
            error,
            lambda key, images, labels, donors=donors: plan(key).loss(
                lambda outputs, y: jnp.ones(8), None, {"a": labels}, donors=donors(labels)
            ),
            *(r"^Plan\.loss: ", *patterns),
        )
        for name, error, donors, *patterns in [
            ("array", TypeError, lambda y: y, "donors must have the structure of labels"),
            (
                "other-names",
                TypeError,
                lambda y: {"b": y},
                "donors must have the structure of labels",
            ),
            ("short", ValueError, lambda y: {"a": y[:4]}, "donors", r"size 8, .*got.*\[4\]"),
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
        *(r"Plan\.only", "valid", dims(8, 16, 12), dims(8, 1)),
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
            ("pairing", Flip(), "Flip()"),
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

CASES = [*PLANS, *BY_HAND, *ONLY, *SLICES, *NEIGHBOURS]


@pytest.mark.parametrize("how", ["eager", "jit"])
@pytest.mark.parametrize("call, error, patterns", CASES)
def test_bad_input(call, error, patterns, how):
    refused(jax.jit(call) if how == "jit" else call, (IMAGES, LABELS), error, patterns)


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
    return jax.device_put(x, NamedSharding(mesh_of(2, axis_type), PartitionSpec(*spec)))


@every_method
@pytest.mark.parametrize("how", ["eager", "jit"])
def test_donors_laid_out_over_an_explicit_mesh_in_another_way(name, how):
    call, x = DONORS[name]
    call = jax.jit(call) if how == "jit" else call
    plan = Plan.of(SHAPE, Roll(0), region=Mask(jnp.ones(SHAPE[:3], bool)))
    split, whole = laid_out(x, "Explicit", "batch"), laid_out(x, "Explicit")
    for one, other, order in [(split, whole, "batch.*None"), (whole, split, "None.*batch")]:
        with pytest.raises(ValueError, match=rf"Plan\.{name}: donors .*{order}.*reshard") as raised:
            call(plan, one, other)
        assert type(raised.value) is ValueError


@pytest.mark.parametrize("name", ["images", "labels"])
def test_donors_may_be_laid_out_alike_or_as_an_auto_mesh_likes(name):
    """What the message says to do helps, and where XLA moves the donors nothing is asked."""
    call, x = DONORS[name]
    plan = Plan.of(SHAPE, Roll(0), opacity=jnp.full(8, 0.5))
    split, whole = laid_out(x, "Explicit", "batch"), laid_out(x, "Explicit")
    expected = call(plan, jnp.asarray(x), jnp.asarray(x))
    moved = jax.sharding.reshard(whole, split.sharding)
    assert np.array_equal(call(plan, split, moved), expected)
    split, whole = laid_out(x, "Auto", "batch"), laid_out(x, "Auto")
    assert np.array_equal(call(plan, split, whole), expected)


@pytest.mark.parametrize("grid", [0, -1, 1.5, [0, 1]], ids=str)
def test_bad_grid_of_a_box(grid):
    with pytest.raises((ValueError, TypeError), match=r"^Box: (each of )?grid must be"):
        Box(jnp.zeros((8, 2), jnp.int32), jnp.ones((8, 2), jnp.int32), grid=grid)


BEYOND = {  # A stop to the border, in each dtype that can hold what int32 cannot.
    "int32": np.full((8, 2), 2**31 - 1, np.int32),
    "int64": np.full((8, 2), 2**31),
    "int64-largest": np.full((8, 2), np.iinfo(np.int64).max),
    "uint32": np.full((8, 2), 2**32 - 1, np.uint32),
    "uint64": np.full((8, 2), 2**64 - 1, np.uint64),
    "jax-uint32": jnp.full((8, 2), 2**32 - 1, jnp.uint32),
    "uint8": np.full((8, 2), 255, np.uint8),
    "int8": np.full((8, 2), 127, np.int8),
}


@pytest.mark.parametrize("name", BEYOND)
def test_bounds_beyond_int32_are_clipped_to_the_image(name):
    stop = BEYOND[name]
    for start in (jnp.zeros((8, 2), jnp.int32), np.full((8, 2), np.iinfo(np.int64).min)):
        plan = Plan.of(SHAPE, Flip(), region=Box(start, stop))
        assert np.all(plan.lam == 0) and (np.asarray(plan.region.stop) == (16, 12)).all()
    assert np.all(Plan.of(SHAPE, Flip(), region=Box(stop, stop)).lam == 1)


@pytest.mark.parametrize("lowest", [-(2**31), np.iinfo(np.int64).min], ids=str)
def test_no_bound_by_hand_stands_for_a_box_that_is_lost(lowest):
    """The library marks boxes drawn from NaN with extreme bounds, which `Plan.of` keeps."""
    edge = np.full((8, 2), lowest)
    edge = edge.astype(np.int32) if lowest == -(2**31) else edge

    class Outside(Mixer):
        def draw(self, key, rows, spatial):
            return Box(np.zeros((rows, 2), np.int32), edge[:rows]), None

    for start in (edge, np.zeros((8, 2), np.int32), np.full((8, 2), 2**31 - 2)):
        assert np.all(Plan.of(SHAPE, Flip(), region=Box(start, edge)).lam == 1)
    assert np.all(Outside().plan(jax.random.key(0), SHAPE).lam == 1)
    lost = CutMix(jnp.float32(-1)).draw(jax.random.key(0), 8, SHAPE[1:3])[0]
    assert np.isnan(Plan.of(SHAPE, Flip(), region=lost).lam).all()


def test_the_grid_of_a_box_may_be_a_list():
    box = Box(jnp.zeros((8, 2), jnp.int32), jnp.ones((8, 2), jnp.int32), grid=[1, 2])
    assert Plan.of(SHAPE, Flip(), region=box).region.grid == (1, 2)
