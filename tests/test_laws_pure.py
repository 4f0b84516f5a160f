"""The law of purity: the same key gives the same, under every transformation and strict setting."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import (
    FEW,
    OPAQUE,
    PAIRINGS,
    SHAPE,
    Whole,
    assert_bits,
    assert_same,
    average_of_painted,
    by_plan,
    call,
    cover,
    every_mixer,
    few_mixers,
    fresh,
    images_and_labels,
    make,
    numbers,
    stacked,
)

from jaxmix import CutMix, MixUp, RandomApply, RandomChoice

# 5. Pure.


@every_mixer
def test_another_key_is_another_draw(name):
    if name == "whole":
        return  # It draws nothing.
    one, other = (make(name).plan(fresh(seed), SHAPE, channel_axis=-1) for seed in (0, 1))
    assert not np.array_equal(one.lam, other.lam)


@pytest.mark.parametrize("pairing", ["flip-groups2", "roll"])
def test_vmap_over_alpha(pairing):
    alphas, how = jnp.array([0.2, 1.0, 5.0]), {"pairing": PAIRINGS[pairing]}

    def step(alpha):
        policy = RandomApply(RandomChoice((CutMix(alpha, **how), MixUp(**how))))
        return call(policy, fresh(), *images_and_labels())

    assert_same(jax.vmap(step)(alphas), stacked([step(alpha) for alpha in alphas]), ulps=1)


def test_vmap_over_a_mixer():
    """A batch of mixers is a mixer whose leaves have a leading axis."""
    mixers = [RandomChoice((CutMix(a), MixUp()), probs=(a / 4, 1 - a / 4)) for a in (1.0, 2.0)]
    leading = jax.tree.map(lambda *leaves: jnp.array(leaves), *mixers)
    together = jax.vmap(lambda mixer: call(mixer, fresh(), *images_and_labels()))(leading)
    apart = [call(mixer, fresh(), *images_and_labels()) for mixer in mixers]
    assert_same(together, stacked(apart), ulps=1)


@few_mixers
def test_scan_is_a_loop(name):
    mixer, batches = make(name), images_and_labels(copies=3)
    _, together = jax.lax.scan(
        lambda carry, batch: (carry, by_plan(mixer, *batch)),
        0,
        (jax.random.split(fresh(), 3), *batches),
    )
    keys = jax.random.split(fresh(), 3)
    apart = [by_plan(mixer, *batch) for batch in zip(keys, *batches, strict=True)]
    assert_same(jax.tree.map(np.asarray, together), stacked(apart), ulps=1)


@cover(
    "name, pairing, dtype",
    FEW,
    ["swap", "flip", "roll", "permutation"],
    ["float32", "bfloat16"],
)
def test_gradient_reaches_both_images(name, pairing, dtype):
    """Mixing is linear in the images: each gets its weights back, from both rows that show it."""
    mixer, (images, labels) = make(name, pairing=pairing), images_and_labels()
    plan = mixer.plan(fresh(), SHAPE, channel_axis=-1)
    share = reference.of_plan(plan, SHAPE[1:3])[..., np.newaxis]
    cotangent = numbers(SHAPE, seed=1)
    expected = (1 - share) * cotangent
    for i, j in enumerate(np.asarray(plan.partner)):
        expected[j] += share[i] * cotangent[i]

    def total(images):
        mixed, _ = call(mixer, fresh(), images, labels)
        return (mixed.astype(jnp.float32) * cotangent).sum()

    gradient = np.asarray(jax.grad(total)(images.astype(dtype)), np.float32)
    rtol, atol = {"float32": (1e-5, 0), "bfloat16": (0.02, 0.02)}[dtype]
    np.testing.assert_allclose(gradient, expected, rtol=rtol, atol=atol)


@few_mixers
def test_jvp_and_checkpoint(name):
    mixer, (images, labels) = make(name), images_and_labels()
    tangent = jnp.asarray(numbers(SHAPE, seed=1))

    def mixed(images):
        return call(mixer, fresh(), images, labels)[0]

    # Two programs may fuse different products with the sum: each of them is within 1.5 ulp of it.
    value, moved = jax.jvp(mixed, (images,), (tangent,))
    assert_same(value, mixed(images), ulps=2)
    np.testing.assert_allclose(moved, mixed(tangent), rtol=1e-6)
    value, pullback = jax.vjp(jax.checkpoint(mixed), images)
    assert_same(value, mixed(images), ulps=2)
    np.testing.assert_allclose(pullback(value)[0], jax.vjp(mixed, images)[1](value)[0], rtol=1e-6)


@every_mixer
def test_eval_shape(name):
    shapes = jax.eval_shape(functools.partial(by_plan, make(name)), fresh(), *images_and_labels())
    values = by_plan(make(name), fresh(), *images_and_labels())
    assert jax.tree.structure(shapes) == jax.tree.structure(values)
    for shape, value in zip(jax.tree.leaves(shapes), jax.tree.leaves(values), strict=True):
        assert (shape.shape, shape.dtype) == (value.shape, value.dtype)


EXPORTS = [
    *[("mixup", "example", p) for p in ("swap", "flip-groups2", "roll-back2", "permutation")],
    *[("choice", "pair", "swap"), ("choice-own", "batch", "flip")],
]


@pytest.mark.parametrize(("name", "per", "pairing"), EXPORTS, ids=map("-".join, EXPORTS))
def test_export_with_a_symbolic_batch(name, per, pairing):
    mixer = make(name, per=per, pairing=pairing)

    @jax.jit
    def step(key_data, images, labels):
        return call(mixer, jax.random.wrap_key_data(key_data), images, labels)

    batch = "2*b" if pairing == "flip-groups2" else "b"
    shape = jax.export.symbolic_shape(f"{batch}, 8, 8, 3")
    exported = jax.export.export(step)(
        jax.ShapeDtypeStruct((2,), jnp.uint32),
        jax.ShapeDtypeStruct(shape, jnp.float32),
        jax.ShapeDtypeStruct(shape[:1], jnp.int32),
    )
    for rows in (4, 6) if pairing == "flip-groups2" else (4, 5):
        batch = images_and_labels((rows, 8, 8, 3))
        mixed = exported.call(jax.random.key_data(fresh()), *batch)
        assert_same(mixed, step(jax.random.key_data(fresh()), *batch), ulps=1)


def test_schedules_trace_once():
    """Alpha, prob and probs may change at every step of a jitted loop."""
    traces = []

    @jax.jit
    def step(mixer, key, images, labels):
        traces.append(mixer)
        return by_plan(mixer, key, images, labels)

    lams = []
    for seed in range(3):
        rate = 0.2 + 0.3 * seed
        chosen = RandomChoice((CutMix(rate), MixUp(2 * rate)), probs=(rate, 1 - rate))
        plan, *_ = step(RandomApply(chosen, prob=rate), fresh(seed), *images_and_labels())
        lams.append(tuple(np.asarray(plan.lam)))
    assert len(traces) == 1
    assert len(set(lams)) == 3


def test_traced_prob_switches_the_mixing_on_and_off():
    images, _ = images_and_labels()

    @jax.jit
    def step(prob, images):
        return RandomApply(Whole(), prob)(fresh(), images)

    assert_bits(step(0.0, images), images)
    assert_bits(step(1.0, images), images[reference.swap(len(images))])


def test_traced_probs_choose():
    images, _ = images_and_labels()

    @jax.jit
    def step(probs, images):
        return RandomChoice((Whole(), MixUp()), probs=probs)(fresh(), images)

    partners = images[reference.swap(len(images))]
    assert_bits(step(jnp.array([1.0, 0.0]), images), partners)
    assert not np.any(np.asarray(step(jnp.array([0.0, 1.0]), images)) == partners)


@every_mixer
def test_numpy_inputs_are_read_not_written(name):
    mixer, batch = make(name), images_and_labels()
    arrays = [np.array(array) for array in batch]
    for array in arrays:
        array.flags.writeable = False
    before = [array.copy() for array in arrays]
    assert_same(by_plan(mixer, fresh(), *arrays), by_plan(mixer, fresh(), *batch))
    assert_same(call(mixer, fresh(), *arrays), call(mixer, fresh(), *batch))
    for array, given, copy in zip(arrays, batch, before, strict=True):
        assert np.array_equal(array, copy) and np.array_equal(given, copy)


# 7. Strict. The promotion of dtypes and ranks and the reuse of keys are checked in every test here.


def assert_mixes(mixer, key, *, opaque):
    """A mixer works in full: it is applied, painted and differentiated."""
    plan, mixed, soft = by_plan(mixer, key, *images_and_labels())
    painted = average_of_painted(plan, 6, (6, 5), -1, "float32")
    drawn = np.asarray(plan.labels(jnp.arange(6), num_classes=6), np.float64)
    np.testing.assert_allclose(drawn, painted, rtol=0, atol=2**-23 if opaque else 2**-21)
    assert mixed.dtype == jnp.float32 and mixed.shape == SHAPE
    assert soft.dtype == jnp.float32 and soft.shape == (6, 4)
    gradient = jax.grad(lambda x: plan.images(x, channel_axis=-1).sum())(jnp.ones(SHAPE))
    np.testing.assert_allclose(gradient.sum(), math.prod(SHAPE), rtol=1e-5)


@every_mixer
def test_x64(name):
    with jax.enable_x64(True):
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)


@every_mixer
def test_debug_nans(name):
    with jax.debug_nans(True):
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)


@few_mixers
def test_nothing_leaks(name):
    with jax.checking_leaks():
        assert_mixes(make(name), fresh(), opaque=name in OPAQUE)
        jax.jit(by_plan)(make(name), fresh(), *images_and_labels())


@pytest.mark.parametrize("impl", ["rbg", "unsafe_rbg"])
@pytest.mark.parametrize("name", ["choice-own", "cutmix-minmax"])
def test_any_kind_of_key(name, impl):
    mixer = make(name, pairing="permutation")
    assert_mixes(mixer, fresh(impl=impl), opaque=name in OPAQUE)
    one, other = (mixer.plan(fresh(impl=impl), SHAPE, channel_axis=-1) for _ in range(2))
    assert_same(one, other)


@pytest.mark.parametrize(("name", "impl"), [("cutmix", "threefry2x32"), ("mixup", "rbg")])
def test_raw_keys_draw_what_typed_keys_draw(name, impl):
    mixer, batch = make(name), images_and_labels()
    with jax.default_prng_impl(impl):
        typed = call(mixer, jax.random.key(7), *batch)
        assert_same(call(mixer, jax.random.PRNGKey(7), *batch), typed)
        assert_same(jax.jit(call)(mixer, jax.random.PRNGKey(7), *batch), typed)
