"""Pairings: who is mixed with whom, and what it costs to send."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import scipy.stats
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxmix import CutMix, Flip, MixUp, Permutation, RandomChoice, Roll

INDEX = [2, 0, 1, 5, 3, 4, 7, 6]
TABLES = {  # A pairing of 8 rows, and everybody's partner.
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


def fresh(seed=0):
    """A key that nobody has used yet: `jax_debug_key_reuse` follows each key object."""
    return jax.random.key(seed)


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
    for shift in (-5, -1, 0, 1, 2, 7):
        expected = reference.roll(rows, shift).tolist()
        assert Roll(shift).take(everybody).tolist() == expected
    for groups in (1, 2, 3, 4):
        if rows % groups == 0:
            expected = reference.flip(rows, groups).tolist()
            assert Flip(groups=groups).take(everybody).tolist() == expected


def test_names_stand_for_pairings():
    assert MixUp(pairing="flip").pairing == Flip() == Flip(groups=1) == MixUp().pairing
    assert MixUp(pairing="roll").pairing == Roll() == Roll(shift=1)
    assert MixUp(pairing="permutation").pairing == Permutation()
    assert len({Flip(), Flip(1), Flip(2), Roll(), Roll(2), Permutation()}) == 5


@pytest.mark.parametrize("name", ["flip", "flip-groups2", "roll-3"])
def test_pairings_are_printed_as_they_are_made(name):
    pairing, _ = TABLES[name]
    assert eval(repr(pairing), {"Flip": Flip, "Roll": Roll}) == pairing


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


def test_mixers_of_a_policy_share_one_permutation():
    policy = RandomChoice((CutMix(pairing="permutation"), MixUp(pairing="permutation")))
    plan = policy.plan(fresh(), (9, 4, 4, 1))
    assert reference.is_single_cycle(np.asarray(plan.partner))


# What crosses the wire when the batch is sharded over eight devices.

COLLECTIVES = re.compile(
    r"= \S+ (all-gather|all-reduce|all-to-all|collective-permute|collective-broadcast)\S*\("
)


def sent(pairing, axis_type):
    """The collectives of taking the partners of a sharded batch of 64 rows of 12 kB."""
    mesh = jax.make_mesh((8,), ("batch",), axis_types=(axis_type,), devices=jax.devices()[:8])
    rows = jnp.zeros((64, 32, 32, 3))
    rows = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("batch")))
    taken = jax.jit(lambda p, x: p.take(x)).lower(pairing, rows).compile()
    return set(COLLECTIVES.findall(taken.as_text()))


both_meshes = pytest.mark.parametrize(
    "axis_type", [AxisType.Auto, AxisType.Explicit], ids=["Auto", "Explicit"]
)


@both_meshes
@pytest.mark.parametrize("groups", [8, 16])
def test_groups_within_a_device_send_nothing(groups, axis_type):
    assert sent(Flip(groups=groups), axis_type) == set()


@both_meshes
@pytest.mark.parametrize("pairing", [Flip(), Roll(), Roll(-3)], ids=repr)
def test_flip_and_roll_send_to_a_neighbour_only(pairing, axis_type):
    assert sent(pairing, axis_type) == {"collective-permute"}


@both_meshes
def test_a_permutation_sends_the_batch(axis_type):
    index = np.random.default_rng(0).permutation(64).astype(np.int32)
    assert sent(Permutation(index), axis_type) <= {"all-gather", "all-reduce"}
