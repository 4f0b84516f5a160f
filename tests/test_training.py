"""What a training loop asks of a plan: two views, micro-batches, keys of their own, padding."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
from helpers import cross_entropy, some_devices

from jaxmix import CutMix, Flip, MixUp, Neighbour, RandomChoice

ROWS, SIDE, CLASSES = 8, 6, 3


def policy(pairing="flip"):
    return RandomChoice((CutMix(pairing=pairing), MixUp(pairing=pairing)))


def batch(side=SIDE):
    """Images, labels, and the weights of a linear network."""
    rng = np.random.default_rng(0)
    images = rng.random((ROWS, side, side, 2), np.float32)
    labels = rng.integers(0, CLASSES, ROWS, np.int32)
    return images, labels, rng.normal(size=(SIDE * SIDE * 2, CLASSES)).astype(np.float32)


def logits_of(weights, images):
    return images.reshape(len(images), -1) @ weights


# Two views, one plan.


def test_a_teacher_and_a_student_see_two_crops_under_one_plan():
    images, _, weights = batch(SIDE + 3)

    @jax.jit
    def step(key, student, teacher, images):
        crops = images[:, :SIDE, :SIDE], images[:, 3:, 2 : 2 + SIDE, ::-1]
        plan = policy().plan(key, crops[0].shape)
        views = [plan.images(crop) for crop in crops]

        def distance(student):
            seen = jax.lax.stop_gradient(logits_of(teacher, views[1]))
            return ((logits_of(student, views[0]) - seen) ** 2).mean()

        return plan, crops, views, jax.value_and_grad(distance)(student)

    plan, crops, views, (distance, gradient) = step(jax.random.key(0), weights, weights + 1, images)
    share = reference.of_plan(plan, (SIDE, SIDE))
    assert 0 < share.min(axis=(1, 2)).sum() < share.max(axis=(1, 2)).sum()
    for crop, view in zip(crops, views, strict=True):
        expected = reference.images(np.asarray(crop), np.asarray(plan.partner), share)
        assert reference.blended_well(np.asarray(view), expected)
    assert not np.array_equal(views[0], views[1])
    first, second = (logits_of(w, v) for w, v in zip((weights, weights + 1), views, strict=True))
    np.testing.assert_allclose(distance, ((first - second) ** 2).mean(), rtol=1e-5)
    pull = 2 * (first - second) / first.size
    np.testing.assert_allclose(gradient, views[0].reshape(ROWS, -1).T @ pull, rtol=1e-3, atol=1e-5)


# Gradient accumulation.


@pytest.mark.parametrize("count", [1, 2, 4])
def test_micro_batches_of_one_plan_have_the_gradient_of_the_whole_batch(count):
    images, labels, weights = batch()
    plan = policy(Flip(groups=4)).plan(jax.random.key(0), images.shape)

    def loss(weights, plan, images, labels):
        return plan.loss(cross_entropy, logits_of(weights, plan.images(images)), labels).mean()

    whole = jax.grad(loss)(weights, plan, images, labels)
    parts, size = [], ROWS // count
    for start in range(0, ROWS, size):
        part = slice(start, start + size)
        parts.append(jax.grad(loss)(weights, plan[part], images[part], labels[part]))
    np.testing.assert_allclose(sum(parts) / count, whole, rtol=1e-4, atol=1e-6)
    unmixed = jax.grad(lambda w: cross_entropy(logits_of(w, images), labels).mean())(weights)
    assert np.abs(unmixed - whole).max() > 1e-2, "the mixing matters"


def draw_key(key, step, micro_batch):
    """The guide's schedule: the step first, then the micro-batch."""
    return jax.random.fold_in(jax.random.fold_in(key, step), micro_batch)


def test_every_step_micro_batch_and_device_draws_its_own():
    """No two draws of a run are the same, as they would be if the numbers were added up."""
    shape = ROWS, SIDE, SIDE, 2
    some_devices(4)

    @jax.pmap
    def draw(devices, key):
        key = jax.random.fold_in(key, devices)
        return policy().plan(key, shape).lam

    def schedule():
        for step, micro_batch in itertools.product(range(3), range(4)):
            key = draw_key(jax.random.key(0), step, micro_batch)
            lams = draw(jnp.arange(4), jnp.broadcast_to(key, (4,)))
            for device, lam in enumerate(np.asarray(lams)):
                yield (step, micro_batch, device), lam.tobytes()

    drawn = dict(schedule())
    assert len(drawn) == len(set(drawn.values())) == 3 * 4 * 4
    assert drawn == dict(schedule()), "a resumed run draws what it would have drawn"


# Padded batches.


@pytest.mark.parametrize("count", [1, 5, 7])
def test_padding_reaches_no_loss(count):
    """The guide's two lines: whatever the padding holds, the mean over the rest is the same."""
    images, labels, weights = batch()
    valid = np.arange(ROWS) < count

    @jax.jit
    def loss(weights, images, labels, valid):
        plan = policy().plan(jax.random.key(0), images.shape).only(valid)
        losses = plan.loss(cross_entropy, logits_of(weights, plan.images(images)), labels)
        return losses.mean(where=valid)

    padding = ~valid[:, None, None, None]
    values = []
    for pixel, label in ((0.0, 0), (1e6, 2), (np.nan, -1)):
        filled = np.where(padding, np.float32(pixel), images)
        filled_labels = np.where(valid, labels, label).astype(np.int32)
        values.append(jax.value_and_grad(loss)(weights, filled, filled_labels, valid))
    for value, _ in values:
        assert np.isfinite(value) and value == values[0][0]
    np.testing.assert_array_equal(values[0][1], values[1][1])


def test_padding_on_the_next_device_is_not_mixed_in():
    images, labels, _ = (x.reshape(2, 4, *x.shape[1:]) if len(x) == ROWS else x for x in batch())
    valid = np.arange(ROWS).reshape(2, 4) < 6
    some_devices(2)

    def step(images, labels, valid):
        key = jax.random.fold_in(jax.random.key(0), jax.lax.axis_index("batch"))
        plan = MixUp(pairing=Neighbour("batch")).plan(key, images.shape).only(valid)
        return plan.lam, plan.labels(labels, num_classes=CLASSES)

    lam, soft = jax.pmap(step, axis_name="batch")(images, labels, valid)
    assert np.all(np.asarray(lam)[:, 2:] == 1) and np.all(np.asarray(lam)[:, :2] < 1)
    np.testing.assert_array_equal(np.asarray(soft)[:, 2:], jax.nn.one_hot(labels, CLASSES)[:, 2:])
