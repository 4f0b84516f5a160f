"""What is sent between devices: for each pairing what the guide's table says, and no more."""

import re

import helpers
import jax
import jax.numpy as jnp
import pytest
from helpers import axis_types, both, cover, fresh, mesh_of, sent
from jax.sharding import NamedSharding, PartitionSpec

from jaxmix import CutMix, Flip, MixUp, Neighbour, Permutation, RandomApply, Roll, Swap, recipes


def promised():
    """The guide's table: for each pairing the collective and the bytes of its example."""
    guide = (helpers.ROOT / "examples" / "GUIDE.md").read_text()
    table = {}
    for line in guide.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        match = re.fullmatch(r"`(\w+\(.*\))`.*", cells[0])
        if len(cells) == 4 and match and re.fullmatch(r"[\d,]+", cells[3]):
            table[match[1]] = cells[2], int(cells[3].replace(",", ""))
    return table


SENT = {  # As the guide writes them, for eight devices.
    "Swap()": Swap(),
    "Flip()": Flip(),
    "Flip(groups=8)": Flip(groups=8),
    "Roll(shift=1)": Roll(),
    "Permutation()": Permutation(),
    'Neighbour("batch")': Neighbour("batch"),
}


def mixing(pairing, dtype="float32", **kind):
    """A function that mixes f32[256, 32, 32, 3] over eight devices, and its arguments."""
    mesh = mesh_of({"batch": 8}, kind.get("axis_type", "Auto"))
    rows = NamedSharding(mesh, PartitionSpec("batch"))
    images = jax.device_put(jnp.zeros((256, 32, 32, 3), dtype), rows)
    labels = jax.device_put(jnp.zeros(256, jnp.int32), rows)

    def mix(key, images, labels):
        mixer = both(pairing)
        if not kind.get("labels"):
            return mixer(key, images)
        return mixer(key, images, labels, num_classes=10)

    if isinstance(pairing, Neighbour):
        specs = PartitionSpec(), PartitionSpec("batch"), PartitionSpec("batch")
        mix = jax.shard_map(mix, mesh=mesh, in_specs=specs, out_specs=PartitionSpec("batch"))
    return mix, fresh(), images, labels


@cover(
    "sizes, dtype, axis_type",
    [{"batch": 8}, {"batch": 2}, {"batch": 4, "model": 2}],
    ["float32", "bfloat16", "uint8"],
    ["Explicit", "Auto"],
    ids=str,
)
def test_neighbouring_rows_send_nothing(axis_type, dtype, sizes):
    """Whole calls, wherever each device holds an even number of rows."""
    rows = NamedSharding(mesh_of(sizes, axis_type), PartitionSpec("batch"))
    images = jax.device_put(jnp.zeros((32, 8, 8, 3), dtype), rows)
    labels = jax.device_put(jnp.zeros(32, jnp.int32), rows)

    def mix(key, images, labels):
        return both(Swap())(key, images, labels, num_classes=10)

    assert sent(mix, fresh(), images, labels) == {}
    for result in jax.jit(mix)(fresh(), images, labels):
        assert result.sharding.is_equivalent_to(rows, result.ndim)


@cover("batch, axis_type", [8, 24], ["Auto", "Explicit"])
def test_of_an_odd_number_of_rows_one_crosses_each_border(axis_type, batch):
    """A row from either side, never the batch."""
    rows = NamedSharding(mesh_of({"batch": 8}, axis_type), PartitionSpec("batch"))
    images = jax.device_put(jnp.zeros((batch, 8, 8, 3)), rows)
    assert sent(both(Swap()), fresh(), images) == {"collective-permute": 2 * 4 * 8 * 8 * 3}


@axis_types
@pytest.mark.parametrize(
    "off", [recipes.timm(0.0, 0.0), recipes.torchvision(), recipes.big_vision(0.0)], ids=repr
)
def test_recipes_that_are_off_send_nothing(off, axis_type):
    rows = NamedSharding(mesh_of({"batch": 8}, axis_type), PartitionSpec("batch"))
    batch = (jax.device_put(jnp.zeros(shape), rows) for shape in [(24, 8, 8, 3), (24, 5)])
    assert sent(off, fresh(), *batch) == {}


def test_the_guide_names_every_pairing():
    assert promised().keys() == SENT.keys()


@pytest.mark.parametrize("name", SENT)
@axis_types
def test_pairings_send_what_the_guide_says(axis_type, name):
    collective, size = promised()[name]
    expected = {} if size == 0 else {collective: size}
    assert sent(*mixing(SENT[name], axis_type=axis_type)) == expected


@pytest.mark.parametrize(
    ("pairing", "size"),
    [
        (Flip(groups=2), 393216),
        (Flip(groups=16), 0),
        (Roll(-3), 3 * 12288),
        (Roll(40), 393216),
        (Roll(0), 0),
        (Neighbour("batch", Flip(2)), 393216),
    ],
    ids=repr,
)
def test_other_settings_send_no_more_than_a_shard(pairing, size):
    assert sent(*mixing(pairing)) == ({"collective-permute": size} if size else {})


@pytest.mark.parametrize(("dtype", "size"), [("uint8", 98304), ("int32", 393216)])
def test_pixels_travel_as_wide_as_they_are(dtype, size):
    """So does bfloat16 on TPUs and GPUs; XLA on CPUs sends it as float32."""
    assert sent(*mixing(Flip(), dtype)) == {"collective-permute": size}


@axis_types
def test_labels_add_their_own_bytes_and_nothing_else(axis_type):
    """A class id of four bytes for each row: nothing is sent to find out who has no partner."""
    assert sent(*mixing(Flip(), labels=True, axis_type=axis_type)) == {
        "collective-permute": 393216 + 4 * 32
    }


DRAWN = {
    "cutmix": CutMix(),
    "mixup-pair": MixUp(per="pair"),
    "mixup-pair-flip": MixUp(per="pair", pairing="flip"),
    "cutmix-batch": CutMix(per="batch", pairing="roll"),
    "runs": CutMix(per=32),
    "recipe": recipes.timm(0.8, 1.0, prob=0.5, pairing=Flip(groups=8), per=8),
    "choice": RandomApply(both(Flip(groups=8)), prob=0.5),
    "choice-permutation": both(Permutation()),
}


@pytest.mark.parametrize("split", [False, True], ids=["replicated", "split"])
@pytest.mark.parametrize("name", DRAWN)
def test_drawing_a_plan_sends_nothing(split, name):
    """But for each row's draw to its partner, if both share it and live on different devices."""
    mixer = DRAWN[name]
    mesh = mesh_of({"batch": 8}, "Auto")
    spec = PartitionSpec("batch") if split else PartitionSpec()
    draw = jax.jit(
        lambda key: mixer.plan(key, (256, 32, 32, 3)), out_shardings=NamedSharding(mesh, spec)
    )
    shared = {"collective-permute": 4 * 32} if split and name == "mixup-pair-flip" else {}
    assert sent(draw, fresh()) == shared
