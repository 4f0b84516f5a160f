"""Pairings: who is mixed with whom. What they send over a mesh is in test_sharding.py."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
import scipy.stats
from helpers import assert_bits, cover, fresh, mesh_of, noise
from jax.sharding import PartitionSpec

import jaxmix
from jaxmix import (
    CutMix,
    Flip,
    MixUp,
    Neighbour,
    Permutation,
    Plan,
    RandomApply,
    RandomChoice,
    Roll,
    Swap,
    _pairing,
)

INDEX = [2, 0, 1, 5, 3, 4, 7, 6]
TABLES = {  # A pairing of 8 rows, and everybody's partner.
    "swap": (Swap(), [1, 0, 3, 2, 5, 4, 7, 6]),
    "flip": (Flip(), [7, 6, 5, 4, 3, 2, 1, 0]),
    "flip-groups1": (Flip(1), [7, 6, 5, 4, 3, 2, 1, 0]),
    "flip-groups2": (Flip(groups=2), [3, 2, 1, 0, 7, 6, 5, 4]),
    "flip-groups4": (Flip(groups=4), [1, 0, 3, 2, 5, 4, 7, 6]),
    "flip-groups8": (Flip(groups=8), [0, 1, 2, 3, 4, 5, 6, 7]),
    "roll": (Roll(), [7, 0, 1, 2, 3, 4, 5, 6]),
    "roll-3": (Roll(shift=3), [5, 6, 7, 0, 1, 2, 3, 4]),
    "roll-back": (Roll(-1), [1, 2, 3, 4, 5, 6, 7, 0]),
    "roll-none": (Roll(0), [0, 1, 2, 3, 4, 5, 6, 7]),
    "roll-round": (Roll(8), [0, 1, 2, 3, 4, 5, 6, 7]),
    "roll-beyond": (Roll(11), [5, 6, 7, 0, 1, 2, 3, 4]),
    "permutation": (Permutation(np.array(INDEX, np.int32)), INDEX),
}
every_table = pytest.mark.parametrize("name", TABLES)


def partners(pairing, rows, seed=0):
    """Everybody's partner in a plan that a mixer drew."""
    return np.asarray(MixUp(pairing=pairing).plan(fresh(seed), (rows, 1)).partner)


@every_table
def test_partner(name):
    pairing, expected = TABLES[name]
    plan = MixUp(pairing=pairing).plan(fresh(), (8, 1))
    assert plan.partner.shape == (8,) and plan.partner.dtype == jnp.int32
    assert plan.partner.tolist() == expected


@every_table
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "bool"])
def test_take_gives_each_row_its_partners(name, dtype):
    pairing, expected = TABLES[name]
    rows = np.random.default_rng(0).integers(-9, 9, (8, 2, 3)).astype(jnp.dtype(dtype))
    rows[3, 0] = -rows[3, 0] if rows.dtype.kind == "f" else rows[3, 0]
    taken = pairing.take(jnp.asarray(rows))
    assert taken.dtype == rows.dtype
    assert np.array_equal(reference.bits(np.asarray(taken)), reference.bits(rows[expected]))


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 12])
def test_partner_in_loops(rows):
    everybody = jnp.arange(rows)
    assert Swap().take(everybody).tolist() == reference.swap(rows).tolist()
    for shift in (-5, -1, 0, 1, 2, 7):
        expected = reference.roll(rows, shift).tolist()
        assert Roll(shift).take(everybody).tolist() == expected
    for groups in (1, 2, 3, 4):
        if rows % groups == 0:
            expected = reference.flip(rows, groups).tolist()
            assert Flip(groups=groups).take(everybody).tolist() == expected


FORMS = {  # Whether a program is for a TPU, and into how many parts its rows may be split.
    "whole": (False, 1),
    "split": (False, 8),
    "tpu-whole": (True, 1),
    "tpu-split": (True, 8),
    "tpu-two-groups": (True, 2),
}


def force(monkeypatch, on_tpu, parts):
    """Has rows taken in the form of such a program."""
    form = "tpu" if on_tpu else "default"
    monkeypatch.setattr(_pairing._sharding, "parts", lambda x: parts)
    monkeypatch.setattr(_pairing.lax, "platform_dependent", lambda x, **forms: forms[form](x))


@pytest.mark.parametrize("rows", [0, 1, 5, 8, 24])
@cover("form, dtype", [*FORMS], ["float32", "bfloat16", "bool"])
def test_every_form_of_every_backend_gives_the_same_bits(dtype, form, rows, monkeypatch):
    force(monkeypatch, *FORMS[form])
    x = noise((rows, 2, 3), dtype)
    for pairing in (Swap(), Roll(-3)):
        assert_bits(pairing.take(jnp.asarray(x)), x[np.asarray(pairing.partner(rows))])


@cover("form, pairing", [*FORMS], [Swap(), Roll(), Roll(-3)])
def test_every_form_is_exported_with_a_symbolic_batch(pairing, form, monkeypatch):
    force(monkeypatch, *FORMS[form])
    shape = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 3"), jnp.float32)
    exported = jax.export.export(jax.jit(pairing.take))(shape)
    for rows in (1, 4, 5):
        x = np.random.default_rng(0).random((rows, 3), np.float32)
        assert_bits(exported.call(x), x[np.asarray(pairing.partner(rows))])


def test_neighbours_of_one_class_mix_only_among_themselves():
    """A swap leaves the labels of a batch that is grouped by class; a flip does not."""
    labels = jnp.repeat(jnp.arange(4), 4)
    hard = jax.nn.one_hot(labels, 4)
    soft = {
        pairing: MixUp(8.0, pairing=pairing).plan(fresh(), (16, 1)).labels(labels, num_classes=4)
        for pairing in (Swap(), Flip(), Roll(4))
    }
    np.testing.assert_allclose(soft[Swap()], hard, atol=1e-6)
    assert all(soft[pairing].max(1).max() < 0.99 for pairing in (Flip(), Roll(4)))


def test_slices_of_a_swap_hold_whole_pairs():
    plan = MixUp(pairing=Swap()).plan(fresh(), (7, 1))
    assert plan[2:6].partner.tolist() == [1, 0, 3, 2]
    assert plan[4:].partner.tolist() == [1, 0, 2] and plan[6:].partner.tolist() == [0]
    assert len(plan[3:3].partner) == 0
    for rows in (slice(1, 3), slice(0, 3), slice(5, 7)):
        with pytest.raises(ValueError, match=r"slice Swap\(\) at even rows"):
            plan[rows]


def test_names_stand_for_pairings():
    assert MixUp(pairing="flip").pairing == Flip() == Flip(groups=1)
    assert MixUp(pairing="swap").pairing == Swap() == MixUp().pairing
    assert MixUp(pairing="roll").pairing == Roll() == Roll(shift=1)
    assert MixUp(pairing="permutation").pairing == Permutation()
    assert len({Swap(), Flip(), Flip(1), Flip(2), Roll(), Roll(2), Permutation()}) == 6


@pytest.mark.parametrize("name", ["swap", "flip", "flip-groups2", "roll-3"])
def test_pairings_are_printed_as_they_are_made(name):
    pairing, _ = TABLES[name]
    assert eval(repr(pairing), {"Flip": Flip, "Roll": Roll, "Swap": Swap}) == pairing


@every_table
def test_gradient_goes_back_to_the_partner(name):
    pairing, expected = TABLES[name]
    cotangent = np.random.default_rng(0).random((8, 3), np.float32)
    gradient = jax.grad(lambda rows: (pairing.take(rows) * cotangent).sum())(jnp.zeros((8, 3)))
    back = np.zeros((8, 3), np.float32)
    for i, j in enumerate(expected):
        back[j] += cotangent[i]
    assert np.array_equal(gradient, back)


@every_table
def test_vmap_takes_within_each_batch(name):
    pairing, expected = TABLES[name]
    batches = np.random.default_rng(0).random((3, 8, 2), np.float32)
    assert np.array_equal(jax.vmap(pairing.take)(jnp.asarray(batches)), batches[:, expected])


@every_table
def test_pairings_are_pytrees(name):
    """Closed over, static where they hash, or traced: the shift and the groups stay static."""
    pairing, expected = TABLES[name]
    rows = jnp.arange(8)
    assert jax.jit(lambda p, x: p.take(x))(pairing, rows).tolist() == expected
    assert jax.jit(pairing.take)(rows).tolist() == expected
    copy = jax.tree.map(lambda leaf: leaf, pairing)
    assert copy.take(rows).tolist() == expected


# Permutation: a random single cycle.


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 64])
def test_permutation_is_a_single_cycle(rows):
    draw = jax.vmap(lambda key: MixUp(pairing="permutation").plan(key, (rows, 1)).partner)
    for partner in np.asarray(draw(jax.random.split(fresh(), 20))):
        assert reference.is_single_cycle(partner)
        assert rows == 1 or np.all(partner != np.arange(rows))


def test_permutation_of_nobody():
    assert partners("permutation", 0).shape == (0,)


def test_every_cycle_is_equally_likely():
    """Chi-squared over the six cycles of four rows; a fair draw fails once in 10,000 seeds."""
    draw = jax.jit(jax.vmap(lambda key: MixUp(pairing="permutation").plan(key, (4, 1)).partner))
    cycles, counts = np.unique(draw(jax.random.split(fresh(), 6000)), axis=0, return_counts=True)
    assert len(cycles) == 6
    assert scipy.stats.chisquare(counts).pvalue > 1e-4
    skewed = counts * np.array([1.1, 1.1, 1.1, 0.9, 0.9, 0.9])  # The test has the power to fail.
    assert scipy.stats.chisquare(skewed * 6000 / skewed.sum()).pvalue < 1e-4


def test_partners_of_a_large_batch_are_uniform():
    """Row 0 of sixteen: each of the fifteen others alike."""
    mixer = CutMix(pairing="permutation")
    draw = jax.jit(jax.vmap(lambda key: mixer.plan(key, (16, 4, 4, 1)).partner[0]))
    counts = np.bincount(draw(jax.random.split(fresh(1), 6000)), minlength=16)
    assert counts[0] == 0
    assert scipy.stats.chisquare(counts[1:]).pvalue > 1e-4


def test_permutation_does_not_depend_on_the_mixing():
    """A cycle that was drawn together with a lambda says nothing about it."""

    def draw(key):
        plan = MixUp(pairing="permutation").plan(key, (4, 1))
        return plan.partner[0], plan.lam[0]

    partner, lam = map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(fresh(2), 6000)))
    assert scipy.stats.ks_2samp(lam[partner == 1], lam[partner == 3]).pvalue > 1e-4


def test_permutation_differs_from_key_to_key_and_is_replayed_by_its_index():
    one, other = partners("permutation", 16, seed=0), partners("permutation", 16, seed=1)
    assert one.tolist() != other.tolist()
    assert partners(Permutation(jnp.asarray(one)), 16, seed=1).tolist() == one.tolist()
    images = jnp.asarray(np.random.default_rng(0).random((16, 4), np.float32))
    plan = MixUp(pairing="permutation").plan(fresh(), images.shape)
    assert np.array_equal(plan.pairing.take(images), images[plan.partner])


def test_an_index_may_repeat_rows_and_be_traced():
    """C-Mixup: partners with a similar target, found inside of jit."""
    targets = jnp.array([0.0, 5.0, 5.5, 0.2, 9.0, 0.1])
    images = jax.random.uniform(fresh(), (6, 4, 4, 1))

    @jax.jit
    def mix(targets, images):
        distance = jnp.abs(targets[:, None] - targets[None]) + 99 * jnp.eye(6)
        pairing = Permutation(jnp.argmin(distance, axis=1))
        plan = MixUp(pairing=pairing).plan(fresh(1), images.shape)
        return plan, plan.images(images), plan.labels(targets[:, None])

    plan, mixed, labels = mix(targets, images)
    partner = np.array([5, 2, 1, 5, 2, 0])
    np.testing.assert_array_equal(plan.partner, partner)
    for x, found in ((images, mixed), (targets[:, None], labels)):
        lam = np.asarray(plan.lam).reshape(6, *[1] * (x.ndim - 1))
        x = np.asarray(x)
        np.testing.assert_allclose(found, lam * x + (1 - lam) * x[partner], atol=1e-6)


@pytest.mark.parametrize(
    ("index", "found"), [([0, 3, 1], "0 to 3"), ([-1, 0, 1], "-1 to 1"), ((1, 2, 3), "1 to 3")]
)
def test_an_index_holds_numbers_of_rows(index, found):
    for given in (index, np.array(index), np.array(index, np.int8)):
        with pytest.raises(ValueError, match=rf"Permutation: index .* from 0 to 2, got {found}"):
            Permutation(given)


def test_mixers_of_a_policy_share_one_permutation():
    policy = RandomChoice((CutMix(pairing="permutation"), MixUp(pairing="permutation")))
    plan = policy.plan(fresh(), (9, 4, 4, 1))
    assert reference.is_single_cycle(np.asarray(plan.partner))


# Partners in closed form: from the number of a row, with nothing taken or sent.


def pairings_of(rows):
    """Pairings that suit a batch of that size."""
    groups = [Flip(groups) for groups in (1, 2, 3) if rows % groups == 0]
    rolls = [Roll(shift) for shift in (-7, -1, 0, 1, 4, 5, 1 - 2**31, 2**40)]
    index = np.arange(rows, dtype=np.int32)
    return [*groups, *rolls, *map(Permutation, (index, np.roll(index, 1), index[::-1].copy()))]


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 6])
def test_partner_and_own_say_whom_take_takes(rows):
    @jax.jit
    def ask():
        everybody = jnp.arange(rows)
        return [(p.take(everybody), p.partner(rows), p.own(rows)) for p in pairings_of(rows)]

    for pairing, (taken, partner, own) in zip(pairings_of(rows), ask(), strict=True):
        assert partner.dtype == jnp.int32 and partner.shape == (rows,)
        assert partner.tolist() == taken.tolist(), pairing
        own = np.zeros(rows, bool) if own is None else own
        assert own.dtype == jnp.bool_
        assert own.tolist() == (np.asarray(taken) == np.arange(rows)).tolist(), pairing


@pytest.mark.parametrize(
    ("pairing", "rows", "nobody"),
    [
        (Flip(), 4, True),
        (Flip(), 5, False),
        (Flip(2), 4, True),
        (Flip(2), 6, False),
        (Roll(), 5, True),
        (Roll(5), 5, False),
        (Roll(0), 4, False),
        (Neighbour("batch"), 4, True),
        (Neighbour("batch", Flip()), 5, True),
    ],
    ids=str,
)
def test_batches_in_which_nobody_is_its_own_partner_are_known_to_be(pairing, rows, nobody):
    """Then nothing has to be computed to leave such rows alone."""
    assert (pairing.own(rows) is None) == nobody


# Neighbour: the next device's rows. `vmap` stands for the devices: three of them, so that the next
# one is not the one before.

LOCALS = {
    "same": Roll(0),
    "roll": Roll(),
    "flip": "flip",
    "flip-groups2": Flip(2),
    "permutation": "permutation",
}
every_local = pytest.mark.parametrize("local", LOCALS.values(), ids=LOCALS)


def devices_of(function, *shards):
    """Calls it on each device, with the axis "batch" bound."""
    return jax.jit(jax.vmap(function, axis_name="batch"))(*shards)


def shards_of(*shape, seed=0):
    """Everyday pixels on three devices."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, (3, *shape)).astype(np.float32)


def quarter_plan(images, pairing):
    """A quarter of everybody's partner."""
    return Plan.of(images.shape, pairing, opacity=jnp.full(images.shape[0], 0.25))


@every_local
def test_neighbour_mixes_with_the_next_device(local):
    """Against loops over the devices, each with the batch of the next one for its donors."""
    pairing = Neighbour("batch", local)
    mixer = RandomChoice((CutMix(pairing=pairing), MixUp(pairing=pairing)))

    def mix(key, images, ids, maps, logits):
        plan = mixer.plan(key, images.shape)
        loss = plan.loss(optax.softmax_cross_entropy_with_integer_labels, logits, ids)
        labels = plan.labels(ids, num_classes=5)
        credit = plan.accuracy(logits, ids)
        return plan, plan.partner, plan.images(images), labels, plan.maps(maps), loss, credit

    images, logits = shards_of(4, 6, 5, 2), shards_of(4, 5, seed=1) * 5
    ids = np.array([[0, 1, 2, 3], [4, 0, 1, -1], [2, 3, 4, 0]])
    maps = np.random.default_rng(2).integers(0, 9, (3, 4, 6, 5))
    mixed = devices_of(mix, jax.random.split(fresh(), 3), images, ids, maps, logits)
    for d in range(3):
        following = (d + 1) % 3
        plan, partner, *found = jax.tree.map(lambda x, d=d: np.asarray(x[d]), mixed)
        share = reference.of_plan(plan, (6, 5))
        assert np.mean(plan.lam < 1) >= 0.5
        exact = reference.images(images[d], partner, share, donors=images[following])
        assert reference.blended_well(found[0], exact.astype(np.float64))
        how = {"donors": ids[following]}
        expected = [
            reference.labels(ids[d], partner, plan.lam, num_classes=5, **how),
            reference.maps(maps[d], partner, share, donors=maps[following]),
            reference.loss(reference.cross_entropy, logits[d], ids[d], partner, plan.lam, **how),
            reference.accuracy(logits[d], ids[d], partner, plan.lam, **how),
        ]
        for one, other in zip(found[1:], expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=2**-22)


@pytest.mark.parametrize("local", ["flip", "permutation"])
def test_neighbour_draws_what_its_local_pairing_draws(local):
    """Which row of the next device, and how much of it: the key decides as it does alone."""

    def draw(key):
        pairings = Neighbour("batch", local), local
        plans = [CutMix(pairing=pairing).plan(fresh(key), (4, 6, 5, 1)) for pairing in pairings]
        return [(plan.partner, plan.region, plan.lam) for plan in plans]

    across, within = devices_of(draw, np.arange(3))
    jax.tree.map(np.testing.assert_array_equal, across, within)


def test_each_device_draws_its_own_cycle():
    def draw(key):
        return MixUp(pairing=Neighbour("batch", "permutation")).plan(key, (16, 1)).partner

    drawn = np.asarray(devices_of(draw, jax.random.split(fresh(), 3)))
    assert all(map(reference.is_single_cycle, drawn))
    assert len({tuple(partner) for partner in drawn.tolist()}) == 3


def test_the_same_row_of_the_next_device_is_somebody_else():
    """`Roll(0)` names the row itself, but on another device: its image and its lam are mixed."""
    images = shards_of(4, 2)

    def mix(images):
        plan = quarter_plan(images, Neighbour("batch"))
        return plan.partner, plan.images(images), plan.labels(jnp.arange(4), num_classes=4)

    partner, mixed, labels = devices_of(mix, images)
    assert partner.tolist() == [[0, 1, 2, 3]] * 3
    np.testing.assert_allclose(mixed, 0.75 * images + 0.25 * np.roll(images, -1, 0), rtol=1e-6)
    assert np.array_equal(labels, [np.eye(4)] * 3)
    other = devices_of(
        lambda d: quarter_plan(jnp.zeros((4, 1)), Neighbour("batch")).labels(
            jnp.full(4, d), num_classes=3
        ),
        jnp.arange(3),
    )
    assert other[:, 0].tolist() == [[0.75, 0.25, 0], [0, 0.75, 0.25], [0.25, 0, 0.75]]


def test_neighbours_of_another_number_of_devices():
    """Eagerly, where the number of devices is all by which two calls of one program differ."""

    def swap(rows):
        return Plan.of(rows.shape, Neighbour("batch")).maps(rows)

    for size in (3, 2, 5):
        rows = np.arange(2 * size).reshape(size, 2)
        swapped = jax.vmap(swap, axis_name="batch")(rows)
        assert swapped.tolist() == np.roll(rows, -1, 0).tolist()


def test_neighbours_nest_along_two_axes():
    """On a mesh of 2 x 2 each device takes from the one that is next along both."""
    mesh = mesh_of({"row": 2, "column": 2}, "Auto")
    split = PartitionSpec(("row", "column"))
    diagonal = Neighbour("row", local=Neighbour("column"))
    take = jax.shard_map(diagonal.take, mesh=mesh, in_specs=split, out_specs=split)
    assert jax.jit(take)(np.arange(4)).tolist() == [3, 2, 1, 0]


def test_only_the_axis_that_is_named_is_exchanged_along():
    rows = jnp.arange(12).reshape(2, 3, 2)
    take = jax.vmap(jax.vmap(Neighbour("inner").take, axis_name="inner"), axis_name="outer")
    assert take(rows).tolist() == np.roll(rows, -1, 1).tolist()
    take = jax.vmap(jax.vmap(Neighbour("outer").take, axis_name="inner"), axis_name="outer")
    assert take(rows).tolist() == np.roll(rows, -1, 0).tolist()


NEIGHBOURS = [
    Neighbour("batch"),
    Neighbour("devices"),
    Neighbour("hosts", local=Neighbour("devices")),
    Neighbour("batch", "flip"),
    Neighbour("batch", Flip(2)),
    Neighbour("batch", "roll"),
    Neighbour("batch", "permutation"),
]


@pytest.mark.parametrize("pairing", NEIGHBOURS, ids=repr)
def test_neighbour_is_printed_hashed_and_pickled_as_it_is_made(pairing):
    for value in (pairing, MixUp(pairing=pairing), RandomApply(CutMix(pairing=pairing))):
        for copy in (eval(repr(value), vars(jaxmix).copy()), pickle.loads(pickle.dumps(value))):
            assert copy == value and hash(copy) == hash(value)
    assert jax.tree.leaves(pairing) == []
    assert jax.tree.map(lambda leaf: leaf, pairing) == pairing
    assert [pairing == other for other in NEIGHBOURS].count(True) == 1


def test_neighbours_in_normal_form():
    assert Neighbour("batch") == Neighbour("batch", Roll(0)) == Neighbour("batch", local=Roll(0))
    assert Neighbour("batch", "flip").local == Flip()
    assert Neighbour("batch", "permutation").local == Permutation()
    assert Neighbour("batch", "permutation").random and not Neighbour("batch").random


@pytest.mark.parametrize("local", [Roll(0), Flip(2), Roll()], ids=repr)
def test_rows_whose_neighbour_is_padding_stay_unmixed(local):
    images = shards_of(4, 2)
    valid = np.array([[1, 1, 1, 0], [1, 0, 1, 1], [0, 1, 1, 1]], bool)
    images[~valid] = np.nan

    def mix(images, valid):
        plan = quarter_plan(images, Neighbour("batch", local)).only(valid)
        return plan.lam, plan.images(images)

    lam, mixed = map(np.asarray, devices_of(mix, images, valid))
    partner = np.asarray(local.take(jnp.arange(4)))
    on = valid & np.roll(valid, -1, 0)[:, partner]
    assert lam.tolist() == np.where(on, 0.75, 1.0).tolist() and 0 < on.sum() < valid.sum()
    expected = 0.75 * images + 0.25 * np.roll(images, -1, 0)[:, partner]
    np.testing.assert_allclose(mixed[on], expected[on], rtol=1e-6)
    assert np.array_equal(reference.bits(mixed[~on]), reference.bits(images[~on]))


@pytest.mark.parametrize("local", [Roll(0), Flip(2)], ids=repr)
def test_slices_of_a_plan_with_neighbours(local):
    def mix(key, images):
        plan = CutMix(pairing=Neighbour("batch", local)).plan(key, images.shape)
        parts = [plan[k : k + 2].images(images[k : k + 2]) for k in (0, 2)]
        return plan.images(images), jnp.concatenate(parts), plan[:].images(images)

    images = shards_of(4, 6, 5, 1)
    whole, parts, same = devices_of(mix, jax.random.split(fresh(), 3), images)
    assert np.array_equal(whole, parts) and np.array_equal(whole, same)
    assert not np.array_equal(whole, images)


@every_local
def test_gradient_goes_back_to_the_neighbour(local):
    local = Permutation(np.array([2, 0, 3, 1], np.int32)) if local == "permutation" else local
    pairing, cotangents = Neighbour("batch", local), shards_of(4, 2)
    gradient = jax.grad(lambda x: (devices_of(pairing.take, x) * cotangents).sum())
    back = np.zeros((3, 4, 2), np.float32)
    for d in range(3):
        for i, j in enumerate(np.asarray(pairing.partner(4))):
            back[(d + 1) % 3, j] += cotangents[d, i]
    assert np.array_equal(gradient(jnp.zeros((3, 4, 2))), back)


def test_take_of_groups_that_do_not_divide_says_so():
    with pytest.raises(ValueError, match=r"Flip\.take.*12 rows for Flip\(groups=8\)"):
        Flip(8).take(np.arange(12))
