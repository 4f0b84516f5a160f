"""The law of devices: on one or on many, a batch is mixed alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import (
    assert_bits,
    assert_same,
    by_call,
    by_plan,
    call,
    few_mixers,
    fresh,
    images_and_labels,
    make,
    mesh_of,
    numbers,
    some_devices,
    stacked,
)
from jax.sharding import NamedSharding, PartitionSpec

from jaxmix._beta import from_uniforms

# 6. Device-count invariant.


def signed_zeros():
    """A batch with both zeros in it."""
    images, labels = images_and_labels((16, 2, 6, 2))
    return jnp.where(images < 0.3, jnp.float32(-0.0), images), labels


@functools.cache
def on_one_device(name, pairing):
    """What comes without any mesh."""
    return jax.jit(by_plan)(make(name, pairing=pairing), fresh(), *signed_zeros())


def assert_device_count_invariant(name, pairing, mesh, step):
    """The same plan, the same opaque pixels, blends within a unit; sharded as the batch was."""
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    batch = jax.device_put(signed_zeros(), sharding)
    plan, mixed, soft = step(make(name, pairing=pairing), fresh(), *batch)
    expected_plan, expected, expected_soft = on_one_device(name, pairing)
    assert_same(plan, expected_plan)
    assert_same(soft, expected_soft, ulps=1)
    assert mixed.sharding.is_equivalent_to(sharding, mixed.ndim)
    share = reference.of_plan(plan, mixed.shape[1:3])
    kept = np.broadcast_to(((share == 0) | (share == 1))[..., np.newaxis], mixed.shape)
    mixed, expected = np.asarray(mixed), np.asarray(expected)
    if pairing == "permutation":  # A sum over devices of what each has loses the sign of -0.0.
        assert np.all((mixed == expected) | ~kept)
    else:
        assert_bits(mixed, expected, kept)
    assert np.all(reference.ulps(mixed, expected) <= 1)


# On 1, 2 and 4 devices and in two processes: test_sharding.py.
@pytest.mark.parametrize("pairing", ["flip", "flip-groups8", "roll", "permutation"])
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter(axis_type, pairing):
    mesh = mesh_of(8, axis_type)
    assert_device_count_invariant("choice", pairing, mesh, jax.jit(by_plan))


@pytest.mark.parametrize("name", ["cutmix", "mixup", "choice-mask", "choice-own"])
@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_other_mixers(axis_type, name):
    assert_device_count_invariant(name, "flip", mesh_of(8, axis_type), jax.jit(by_call))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_within_a_mesh_context(axis_type):
    mesh = mesh_of(8, axis_type)
    with jax.set_mesh(mesh):
        assert_device_count_invariant("choice", "roll", mesh, jax.jit(by_plan))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_eager_calls(axis_type):
    assert_device_count_invariant("choice", "flip", mesh_of(8, axis_type), by_call)


def test_a_lambda_does_not_depend_on_how_many_are_drawn_beside_it():
    """A device of eight draws two of sixteen; before jax 0.8.2, one row in a hundred differed."""
    uniforms = jax.random.uniform(fresh(), (4096, 2))
    draw = jax.jit(lambda part: from_uniforms(part[:, 0], part[:, 1], jnp.float32(0.8)))
    pairs = [draw(pair) for pair in np.split(np.asarray(uniforms), 2048)]
    assert_bits(np.concatenate(pairs), np.asarray(draw(uniforms)))


@pytest.mark.parametrize("axis_type", ["Auto", "Explicit"])
def test_devices_do_not_matter_to_maps_and_losses(axis_type):
    sharding = NamedSharding(mesh_of(8, axis_type), PartitionSpec("batch"))
    images, labels = signed_zeros()
    maps = jnp.asarray(np.random.default_rng(0).integers(0, 9, (16, 2, 6)), jnp.int32)
    logits = jnp.asarray(numbers((16, 4)))

    def cross_entropy(logits, labels):
        return -(jax.nn.one_hot(labels, 4) * jax.nn.log_softmax(logits)).sum(-1)

    @jax.jit
    def step(key, images, labels, maps, logits):
        plan = make("choice").plan(key, images.shape)
        loss = plan.loss(cross_entropy, logits, labels)
        return plan.maps(maps), plan.weights(images.shape), plan.accuracy(logits, labels), loss

    batch = images, labels, maps, logits
    sharded = step(fresh(), *jax.device_put(batch, sharding))
    alone = step(fresh(), *batch)
    assert_same(sharded[:3], alone[:3], ulps=1)
    np.testing.assert_allclose(sharded[3], alone[3], rtol=1e-6)


def on_device(mixer, device, images, labels):
    """What one device of several does: its own key, its own part of the batch."""
    return call(mixer, jax.random.fold_in(fresh(), device), images, labels)


@few_mixers
def test_pmap_is_a_loop_over_devices(name):
    mixer, batches = make(name), images_and_labels(copies=2)

    def step(images, labels):
        return on_device(mixer, jax.lax.axis_index("batch"), images, labels)

    some_devices(2)
    together = jax.pmap(step, axis_name="batch")(*batches)
    apart = [on_device(mixer, device, *(x[device] for x in batches)) for device in (0, 1)]
    assert_same(jax.tree.map(np.asarray, together), stacked(apart), ulps=1)
    assert not np.array_equal(apart[0][1], apart[1][1])


@few_mixers
def test_shard_map_is_a_loop_over_devices(name):
    mixer, batches = make(name), images_and_labels(copies=2)
    sharded = PartitionSpec("batch")

    def step(images, labels):
        return on_device(mixer, jax.lax.axis_index("batch"), images, labels)

    together = jax.shard_map(
        step, mesh=mesh_of(2, "Auto"), in_specs=(sharded, sharded), out_specs=(sharded, sharded)
    )(*(x.reshape(12, *x.shape[2:]) for x in batches))
    apart = [on_device(mixer, device, *(x[device] for x in batches)) for device in (0, 1)]
    flat = jax.tree.map(lambda *leaves: np.concatenate(leaves), *apart)
    assert_same(jax.tree.map(np.asarray, together), flat, ulps=1)
