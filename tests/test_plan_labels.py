"""Maps, labels, losses and accuracy of a plan, against the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import reference
from flax import nnx
from helpers import box_plan, cover, fresh, numbers, read

from jaxmix import (
    Box,
    CutMix,
    Flip,
    Mask,
    MixUp,
    Plan,
    Roll,
)

SHAPE = (5, 6, 5, 3)
FADED = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
OWN = Roll(0)


# Maps.


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "bool"])
@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_maps_take_the_class_of_the_larger_share(from_donors, dtype):
    """The original's on a tie; classes are never blended."""
    shares = np.random.default_rng(0).choice([0, 0.25, 0.5, 0.5000001, 1], (5, 6, 5))
    mask = Mask(jnp.asarray(shares, jnp.float32))
    maps = numbers((5, 6, 5), dtype)
    donors = numbers((5, 6, 5), dtype, seed=1) if from_donors else None
    for plan in (
        Plan.of(SHAPE, Roll(), region=mask),
        Plan.of(SHAPE, Roll(), region=mask, opacity=jnp.asarray(FADED)),
        Plan.of(SHAPE, Roll(), opacity=jnp.asarray(FADED)),
        Plan.of(SHAPE, Roll()),
        box_plan(),
    ):
        mixed = plan.maps(jnp.asarray(maps), donors=None if donors is None else jnp.asarray(donors))
        share, partner = read(plan, (6, 5))
        assert mixed.dtype == maps.dtype
        assert np.array_equal(mixed, reference.maps(maps, partner, share, donors=donors))


def test_maps_at_half_opacity_stay_and_just_above_go():
    halves = np.nextafter(np.float32(0.5), np.array([0, 0.5, 1], np.float32))
    plan = Plan.of((3, 2, 2, 1), OWN, opacity=jnp.asarray(halves))
    maps, donors = jnp.zeros((3, 2, 2), jnp.int32), jnp.full((3, 2, 2), 9)
    assert plan.maps(maps, donors=donors)[:, 0, 0].tolist() == [0, 0, 9]


# Labels.


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2], ids=["hard", "smoothed"])
@pytest.mark.parametrize("dtype", ["int32", "int8", "uint8", "float32", "bfloat16"])
def test_labels(dtype, smoothing, from_donors):
    """Class ids, or dense labels of five classes, one-hot and soft."""
    plan = box_plan(opacity=jnp.asarray(FADED))
    labels, donors = (numbers((5, 5), dtype, seed=seed) for seed in (0, 1))
    if labels.dtype.kind in "iu":
        labels, donors = (y[:, 0] % 5 for y in (labels, donors))
    how = {"num_classes": 5, "smoothing": smoothing}
    others = donors if from_donors else None
    mixed = plan.labels(
        jnp.asarray(labels), donors=None if others is None else jnp.asarray(others), **how
    )
    assert mixed.dtype == jnp.float32 and mixed.shape == (5, 5)
    expected = reference.labels(labels, np.asarray(plan.partner), plan.lam, donors=others, **how)
    np.testing.assert_allclose(mixed, expected, rtol=0, atol=2**-22)


def test_integer_one_hot_and_multi_hot_and_regression_labels():
    plan = box_plan()
    lam, partner = np.asarray(plan.lam), np.asarray(plan.partner)
    one_hot, multi_hot = np.eye(5, dtype=np.int32), numbers((5, 4), "bool").astype(np.int32)
    targets = numbers((5, 1)) - 0.5
    for labels in (one_hot, multi_hot, targets):
        mixed = plan.labels(jnp.asarray(labels))
        assert mixed.dtype == jnp.float32 and mixed.shape == labels.shape
        expected = reference.labels(labels, partner, lam)
        np.testing.assert_allclose(mixed, expected, rtol=0, atol=2**-23)


@pytest.mark.parametrize("smoothing", [0.0, 0.1], ids=["hard", "smoothed"])
def test_negative_ids_are_rows_of_zeros(smoothing):
    plan = Plan.of((4, 1), Flip(), opacity=jnp.full(4, 0.25))
    labels = plan.labels(jnp.array([2, -1, 1, -100]), num_classes=4, smoothing=smoothing)
    on, off = 1 - smoothing + smoothing / 4, smoothing / 4
    two = np.array([off, off, on, off])
    one = np.array([off, on, off, off])
    expected = np.stack([0.75 * two, 0.25 * one, 0.75 * one, 0.25 * two])
    np.testing.assert_allclose(labels, expected, rtol=0, atol=2**-23)


def test_more_classes_than_a_byte_holds():
    """Ids in small integers, counted against 1000 classes; and bfloat16 never sees an id."""
    plan = Plan.of((2, 1), Roll(), opacity=jnp.full(2, 0.25))
    for dtype in ("uint8", "int16", "int32"):
        ids = jnp.array([200, 120] if dtype == "uint8" else [999, 257], dtype)
        labels = plan.labels(ids, num_classes=1000)
        own, other = int(ids[0]), int(ids[1])
        assert labels.shape == (2, 1000)
        assert labels[0, own] == 0.75 and labels[0, other] == 0.25 and labels.sum() == 2


@pytest.mark.parametrize("opacity", [0.0, 0.25, 1.0])
def test_hidden_values_reach_no_gradient_of_the_opacity(opacity):
    """Neither the partner's outside of the box, nor the original's under an opaque one."""
    region = Box(jnp.zeros((2, 2), jnp.int32), jnp.full((2, 2), 2, jnp.int32))
    inside = np.zeros((1, 4, 4, 1), bool)
    inside[:, :2, :2] = True
    images, donors = numbers((2, 4, 4, 3)), numbers((2, 4, 4, 3), seed=1)
    if opacity == 1.0:
        images = np.where(inside, np.nan, images)
    donors = np.where(inside & (opacity > 0), donors, np.inf)

    def total(opacity, images, donors):
        plan = Plan.of(images.shape, OWN, region=region, opacity=opacity * jnp.ones(2))
        return plan.images(images, donors=donors).sum()

    arrays = jnp.asarray(images, jnp.float32), jnp.asarray(donors, jnp.float32)
    value, slopes = jax.value_and_grad(total, argnums=(0, 1, 2))(jnp.float32(opacity), *arrays)
    assert np.isfinite(value) and all(np.isfinite(slope).all() for slope in slopes)


# Losses and accuracy.


def sigmoid_cross_entropy(logits, labels):
    """Binary cross-entropy with one-hot targets, made from class ids row by row."""
    return optax.sigmoid_binary_cross_entropy(logits, jax.nn.one_hot(labels, 4)).sum(-1)


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_loss_against_the_oracle(from_donors):
    plan = box_plan(opacity=jnp.asarray(FADED))
    logits = numbers((5, 4)) * 5
    labels, donors = np.array([0, 3, 2, 1, 1]), np.array([1, 1, 0, 2, 3])
    others = donors if from_donors else None
    loss = plan.loss(
        optax.softmax_cross_entropy_with_integer_labels,
        jnp.asarray(logits),
        jnp.asarray(labels),
        donors=None if others is None else jnp.asarray(others),
    )
    expected = reference.loss(
        reference.cross_entropy, logits, labels, np.asarray(plan.partner), plan.lam, donors=others
    )
    assert loss.shape == (5,) and loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_loss_is_the_dense_form():
    """Cross-entropy is linear in the labels, so no dense label is needed; other losses mix too."""
    plan = MixUp().plan(fresh(), SHAPE)
    logits, ids = jnp.asarray(numbers((5, 4)) * 5), jnp.array([0, 3, 2, 1, 1])
    labels = plan.labels(ids, num_classes=4)
    np.testing.assert_allclose(
        plan.loss(optax.softmax_cross_entropy_with_integer_labels, logits, ids),
        optax.softmax_cross_entropy(logits, labels),
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        plan.loss(sigmoid_cross_entropy, logits, ids),
        optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1),
        rtol=1e-5,
    )
    soft = jnp.asarray(numbers((5, 4), seed=1))
    np.testing.assert_allclose(
        plan.loss(optax.softmax_cross_entropy, logits, soft),
        optax.softmax_cross_entropy(logits, plan.labels(soft)),
        rtol=1e-5,
    )
    targets = jnp.asarray(numbers((5, 1)))
    lam, own = np.asarray(plan.lam), np.asarray(targets)[:, 0]
    outputs = np.asarray(logits)[:, 0]
    expected = lam * (outputs - own) ** 2 + (1 - lam) * (outputs - own[plan.partner]) ** 2
    squared = plan.loss(lambda out, y: jnp.square(out - y[:, 0]), jnp.asarray(outputs), targets)
    np.testing.assert_allclose(squared, expected, rtol=1e-5)


def tokens(key):
    """Sequences of token ids with their lengths: -1 and 0 are nothing special here."""
    ids, lengths = jax.random.split(key)
    return {
        "ids": jax.random.randint(ids, (8, 6), -1, 5),
        "lengths": jax.random.randint(lengths, (8,), -2, 7),
    }


def by_length(outputs, labels):
    weights = (jnp.arange(6)[None] < labels["lengths"][:, None]).astype(outputs.dtype)
    hits = jnp.take_along_axis(outputs, labels["ids"] % 5, axis=1)
    return jnp.sum(hits * weights, axis=1) - labels["lengths"].astype(outputs.dtype)


def two_heads(outputs, labels):
    first, second = labels
    return outputs[:, 0] * first.astype(outputs.dtype) + outputs[:, 1] * second[:, 1]


def weighted(outputs, labels):
    ids, weights = labels
    return weights * optax.softmax_cross_entropy_with_integer_labels(outputs, ids)


TREES = {
    "token ids and lengths": (tokens, by_length),
    "two heads": (lambda key: [jnp.arange(8) - 4, jax.random.uniform(key, (8, 3))], two_heads),
    "weights": (lambda key: (jnp.arange(8) % 5, jax.random.uniform(key, (8,))), weighted),
}


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
@pytest.mark.parametrize("name", TREES)
def test_loss_of_labels_that_are_a_pytree(name, from_donors):
    make, loss_fn = TREES[name]
    labels, outputs = make(fresh()), jax.random.normal(fresh(1), (8, 5))
    donors = make(fresh(2)) if from_donors else None
    plan = MixUp(0.7, pairing="roll").plan(fresh(3), (8, 4, 4, 3))
    partners = jax.tree.map(lambda x: x[plan.partner], labels if donors is None else donors)
    own, others = loss_fn(outputs, labels), loss_fn(outputs, partners)
    expected = plan.lam * own + (1 - plan.lam) * others
    assert np.ptp(np.asarray(own - others)) > 0.1
    for loss in (plan.loss, jax.jit(plan.loss, static_argnums=0)):
        found = loss(loss_fn, outputs, labels, donors=donors)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_ids_in_a_variable_are_ignored_like_others():
    """A variable of Flax NNX is a pytree, and an array to JAX."""
    plan, ids = MixUp().plan(fresh(), (4, 4, 4, 3)), jnp.array([-1, 2, -3, 1])
    loss = lambda _, y: 1.0 + y.astype(jnp.float32)  # noqa: E731
    held = plan.loss(loss, None, nnx.Variable(ids), donors=nnx.Variable(ids + 1))
    np.testing.assert_array_equal(held, plan.loss(loss, None, ids, donors=ids + 1))
    both = plan.loss(
        lambda _, y: y["a"] * y["b"], None, {"a": nnx.Variable(plan.lam), "b": plan.lam}
    )
    np.testing.assert_array_equal(both, plan.loss(lambda _, y: y, None, plan.lam**2))


@pytest.mark.parametrize(
    "returned", [None, {"loss": jnp.ones(5)}, (jnp.ones(5), {}), 1.0, jnp.ones(())], ids=type
)
def test_a_loss_that_is_no_array_of_the_batch(returned):
    plan = MixUp().plan(fresh(), SHAPE)
    with pytest.raises(ValueError, match=r"^Plan\.loss: loss_fn must return one loss for each"):
        plan.loss(lambda outputs, labels: returned, None, jnp.arange(5))


def test_no_class_at_all_is_a_label_of_no_columns():
    plan = MixUp().plan(fresh(), SHAPE)
    assert plan.labels(np.zeros((5, 0), np.float32), smoothing=0.1).shape == (5, 0)


def test_nothing_of_a_pytree_is_ignored_by_its_value():
    """A class id below 0 is, where the labels are class ids and nothing else."""
    plan, ids = MixUp().plan(fresh(), (4, 4, 4, 3)), jnp.array([-1, 2, -3, 4])
    alone = plan.loss(lambda _, y: 1.0 + y.astype(jnp.float32), None, ids)
    in_a_tree = plan.loss(lambda _, y: 1.0 + y[0].astype(jnp.float32), None, (ids,))
    lam = np.asarray(plan.lam)
    mix = lambda x: lam * x + (1 - lam) * x[[1, 0, 3, 2]]  # noqa: E731
    np.testing.assert_allclose(alone, mix(np.array([0, 3, 0, 5])), atol=1e-5)
    np.testing.assert_allclose(in_a_tree, mix(np.array([0, 3, -2, 5])), atol=1e-5)


def test_loss_is_at_least_float32():
    plan = Plan.of((4, 1), Roll(), opacity=jnp.full(4, 0.3))
    ids = jnp.arange(4)
    for dtype in ("bfloat16", "float16"):
        outputs = jnp.asarray(numbers((4, 4), dtype))
        loss = plan.loss(lambda out, y: out[jnp.arange(4), y], outputs, ids)
        assert loss.dtype == jnp.float32
        own, others = (
            np.asarray(outputs, np.float64)[np.arange(4), np.roll(ids, k)] for k in (0, 1)
        )
        opacity = float(np.float32(0.3))
        np.testing.assert_allclose(loss, (1 - opacity) * own + opacity * others, rtol=1e-6)


def test_loss_of_many_classes_makes_no_one_hot_array():
    """Nothing as large as [B, K] is compiled, for a loss that needs no such thing."""
    rows, classes = 64, 21_841

    def loss_fn(outputs, labels):
        table = jnp.linspace(0.0, 1.0, classes)
        return outputs * table[labels]

    @jax.jit
    def step(plan, outputs, labels):
        return plan.loss(loss_fn, outputs, labels).sum()

    plan = MixUp().plan(fresh(), (rows, 1))
    ids = jnp.asarray(np.random.default_rng(0).integers(0, classes, rows), jnp.int32)
    compiled = step.lower(plan, jnp.ones(rows), ids).compile().as_text()
    assert f"[{classes}]" in compiled
    assert f"[{rows},{classes}]" not in compiled
    labels = jax.jit(lambda plan, ids: plan.labels(ids, num_classes=classes))
    assert f"[{rows},{classes}]" in labels.lower(plan, ids).compile().as_text()


def test_negative_ids_cost_nothing():
    """Neither in the loss nor in its gradient, where the loss itself has no answer for them."""
    plan = Plan.of((4, 1), Flip(), opacity=jnp.full(4, 0.25))
    logits, labels = numbers((4, 4)) * 5, np.array([2, -1, 1, -100])

    def picky(logits, labels):
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
        return loss * jnp.where(labels < 0, jnp.float32(np.nan), jnp.float32(1))

    for loss_fn in (optax.softmax_cross_entropy_with_integer_labels, picky):

        def total(logits, loss_fn=loss_fn):
            loss = plan.loss(loss_fn, logits, jnp.asarray(labels))
            return loss.sum(), loss

        gradient, loss = jax.grad(total, has_aux=True)(jnp.asarray(logits))
        expected = reference.loss(
            reference.cross_entropy, logits, labels, np.asarray(plan.partner), plan.lam
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        assert np.isfinite(gradient).all()
        assert np.all(np.asarray(gradient).any(1))


LOSSES = {  # On class ids; on dense labels; both of them optax's.
    "softmax": (
        optax.softmax_cross_entropy_with_integer_labels,
        optax.softmax_cross_entropy,
    ),
    "sigmoid": (
        lambda logits, ids: optax.sigmoid_binary_cross_entropy(
            logits, jax.nn.one_hot(ids, logits.shape[1])
        ).sum(-1),
        lambda logits, labels: optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1),
    ),
}


@cover("kind, mixer", [*LOSSES], [CutMix(), MixUp()], ids=str)
def test_losses_of_optax_with_21841_classes(mixer, kind):
    """The dense form to 1e-6, its gradient too; with class ids its [B, K] is never in memory."""
    rows, classes = 16, 21_841
    by_ids, by_labels = LOSSES[kind]
    plan = mixer.plan(fresh(), (rows, 8, 8, 3))
    logits = jnp.asarray(numbers((rows, classes)) * 5)
    ids = jnp.asarray(np.random.default_rng(0).integers(0, classes, rows), jnp.int32)

    def mixed(logits):
        return plan.loss(by_ids, logits, ids)

    def dense(logits):
        return by_labels(logits, plan.labels(ids, num_classes=classes))

    np.testing.assert_allclose(mixed(logits), dense(logits), rtol=1e-6)
    slope, dense_slope = (
        jax.grad(lambda logits, loss=loss: loss(logits).sum())(logits) for loss in (mixed, dense)
    )
    np.testing.assert_allclose(slope, dense_slope, rtol=0, atol=1e-6)
    memory = [
        jax.jit(loss).lower(logits).compile().memory_analysis().temp_size_in_bytes
        for loss in (mixed, dense)
    ]
    # The other one's first form makes a one-hot array itself; other compilers plan other buffers.
    if kind == "softmax" and jax.default_backend() == "cpu":
        assert memory[0] < 4 * rows * classes / 100 < 4 * rows * classes <= memory[1]


def test_squared_error_exceeds_the_dense_form_by_a_constant():
    plan = MixUp().plan(fresh(), SHAPE)
    outputs, targets = jnp.asarray(numbers((5, 1))), jnp.asarray(numbers((5, 1), seed=1))
    loss = plan.loss(lambda out, y: optax.squared_error(out, y)[:, 0], outputs, targets)
    dense = optax.squared_error(outputs, plan.labels(targets))[:, 0]
    gap = (np.asarray(targets) - np.asarray(targets)[np.asarray(plan.partner)])[:, 0] ** 2
    lam = np.asarray(plan.lam)
    assert gap.max() > 0.01
    np.testing.assert_allclose(loss, dense + lam * (1 - lam) * gap, atol=1e-6, rtol=1e-6)


def test_loss_has_the_gradient_of_the_dense_form():
    plan = MixUp().plan(fresh(), SHAPE)
    logits, ids = jnp.asarray(numbers((5, 4)) * 5), jnp.array([0, 3, 2, 1, 1])
    labels = plan.labels(ids, num_classes=4)

    def by_ids(logits):
        return plan.loss(optax.softmax_cross_entropy_with_integer_labels, logits, ids).sum()

    dense = jax.grad(lambda logits: optax.softmax_cross_entropy(logits, labels).sum())(logits)
    np.testing.assert_allclose(jax.grad(by_ids)(logits), dense, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("from_donors", [False, True], ids=["own-batch", "donors"])
def test_accuracy_gives_credit_by_lam(from_donors):
    plan = box_plan(opacity=jnp.asarray(FADED))
    logits = numbers((5, 4))
    labels, donors = np.array([0, 3, 2, -1, 1]), np.array([1, 1, 0, 2, -1])
    others = donors if from_donors else None
    credit = plan.accuracy(
        jnp.asarray(logits),
        jnp.asarray(labels),
        donors=None if others is None else jnp.asarray(others),
    )
    expected = reference.accuracy(logits, labels, np.asarray(plan.partner), plan.lam, donors=others)
    assert credit.dtype == jnp.float32 and credit.shape == (5,)
    np.testing.assert_allclose(credit, expected, rtol=0, atol=2**-23)


def test_accuracy_of_either_class_of_both_and_of_none():
    plan = Plan.of((4, 1), Roll(), opacity=jnp.full(4, 0.25))
    labels = jnp.array([0, 1, 2, 2])  # The partners' are 2, 0, 1, 2.
    top = jnp.array([2, 1, 3, 2])
    credit = plan.accuracy(jax.nn.one_hot(top, 4), labels)
    assert credit.tolist() == [0.25, 0.75, 0.0, 1.0]
    nobody = plan.accuracy(jax.nn.one_hot(top, 4), jnp.full(4, -1))
    assert nobody.tolist() == [0.0] * 4


def test_accuracy_of_ids_in_any_integer():
    plan = Plan.of((2, 3), Roll(0), opacity=0.0)
    for dtype, none in (("uint8", 200), ("int8", -1), ("uint32", 2**32 - 1), ("int64", 2**32)):
        with jax.enable_x64(True):
            credit = plan.accuracy(jnp.eye(2), jnp.array([none, 1], dtype))
        assert credit.dtype == jnp.float32 and credit.tolist() == [0, 1]


def test_nothing_is_sent_to_the_device():
    """Numbers of Python's would be, unless they are part of a program."""
    plan = MixUp().plan(fresh(), (5, 4))  # The row in the middle is its own partner.
    rows, labels = jnp.ones((5, 4)), jnp.arange(5) % 4
    valid, smoothing = jnp.ones(5, bool), jnp.float32(0.1)
    with jax.transfer_guard("disallow"):
        plan.images(rows)
        plan.labels(labels, num_classes=4, smoothing=smoothing)
        plan.accuracy(rows, labels)
        plan.only(valid)


# Labels of their own.


def relabelled(share, rows=6, pairing="roll"):
    plan = CutMix(pairing=pairing).plan(fresh(), (rows, 8, 6, 3))
    return plan, plan.relabel(share)


@pytest.mark.parametrize("pairing", ["swap", "flip", "roll", "permutation"])
@pytest.mark.parametrize("rows", [6, 5])
def test_labels_loss_and_accuracy_follow_another_share(pairing, rows):
    share = np.linspace(0, 1, rows, dtype=np.float32)
    plan, other = relabelled(share, rows, pairing)
    partner, own = np.asarray(plan.partner), np.asarray(plan.partner) == np.arange(rows)
    expected = np.where(own, 1, share)
    labels = np.asarray(other.labels(jnp.arange(rows), num_classes=rows, smoothing=0.3), np.float64)
    hot = np.eye(rows) * 0.7 + 0.3 / rows
    mixed = expected[:, None] * hot + (1 - expected[:, None]) * hot[partner]
    np.testing.assert_allclose(labels, mixed, atol=1e-6)
    np.testing.assert_allclose(labels.sum(1), np.ones(rows), rtol=0, atol=2**-22)
    logits = jax.random.normal(fresh(1), (rows, rows))
    loss = other.loss(optax.softmax_cross_entropy_with_integer_labels, logits, jnp.arange(rows))
    dense = optax.softmax_cross_entropy(logits, other.labels(jnp.eye(rows)))
    np.testing.assert_allclose(loss, dense, rtol=1e-5)
    accuracy = other.accuracy(jnp.eye(rows), jnp.arange(rows))
    np.testing.assert_allclose(accuracy, expected, atol=1e-6)
    np.testing.assert_array_equal(other.lam, share)


def test_pixels_and_maps_follow_no_other_share():
    plan, other = relabelled(np.full(6, 0.25, np.float32))
    images, maps = numbers((6, 8, 6, 3)), numbers((6, 8, 6), "int32")
    np.testing.assert_array_equal(other.images(images), plan.images(images))
    np.testing.assert_array_equal(other.maps(maps), plan.maps(maps))
    np.testing.assert_array_equal(other.weights(images.shape), plan.weights(images.shape))


def test_another_share_survives():
    """Slices, other resolutions, valid rows and pixels, jit, vmap and scan."""
    share = jnp.linspace(0, 1, 8)
    plan = CutMix(grid=2).plan(fresh(), (8, 8, 6, 3)).relabel(share)
    np.testing.assert_array_equal(plan[2:6].lam, share[2:6])
    np.testing.assert_array_equal(plan.at((8, 4, 3, 3)).lam, share)
    valid = jnp.arange(8) < 6
    np.testing.assert_array_equal(plan.only(valid).lam, jnp.where(valid, share, 1))
    pixels = jnp.broadcast_to((jnp.arange(6) < 3)[None, None], (8, 8, 6))
    np.testing.assert_array_equal(plan.only(pixels).lam, share)
    np.testing.assert_array_equal(
        plan.only(Box(*jnp.array([[[0, 0]] * 8, [[8, 3]] * 8]))).lam, share
    )
    np.testing.assert_array_equal(
        jax.jit(lambda plan, y: plan.relabel(y).lam)(plan, 1 - share), 1 - share
    )
    shares = jnp.stack((share, 1 - share))
    many = jax.vmap(plan.relabel)(shares)
    np.testing.assert_array_equal(many.lam, shares)
    labels = jax.vmap(lambda plan: plan.labels(jnp.eye(8)))(many)
    np.testing.assert_array_equal(labels[1], plan.relabel(1 - share).labels(jnp.eye(8)))
    assert jax.tree.structure(plan.relabel(share)) == jax.tree.structure(plan)


def test_with_donors_a_row_that_is_its_own_partner_follows_its_share():
    share = jnp.array([0.0, 0.25, 0.5, 1.0])
    plan = Plan.of((4, 2, 2, 1), Roll(0)).relabel(share)
    zeros, ones = jnp.zeros((4, 1)), jnp.ones((4, 1))
    np.testing.assert_array_equal(plan.labels(zeros, donors=ones)[:, 0], 1 - share)
    np.testing.assert_array_equal(plan.labels(zeros), zeros)


@pytest.mark.parametrize(
    "share, error, message",
    [
        (np.ones(5), ValueError, r"share must have the shape \(6,\), got float64\[5\]"),
        (jnp.ones((6, 1)), ValueError, r"share must have the shape \(6,\), got float32\[6, 1\]"),
        (0.5, TypeError, "share must be an array, got float"),
        ([0.5] * 6, TypeError, r"share must be an array, got list; pass jnp\.asarray\(share\)"),
        (np.ones(6, complex), TypeError, "share must hold real numbers"),
        (np.array([0, 0, 1.5, 0, 0, 0]), ValueError, r"share must be in \[0, 1\], got 1\.5"),
        (np.array([0, -1, 0, 0, 0, 0]), ValueError, r"share must be in \[0, 1\], got -1"),
        (np.full(6, np.nan), ValueError, r"share must be in \[0, 1\], got nan"),
    ],
    ids=str,
)
def test_a_bad_share(share, error, message):
    with pytest.raises(error, match=rf"^Plan\.relabel: {message}"):
        relabelled(share)


def test_a_share_of_any_real_dtype():
    for dtype in ("float64", "float16", "int32", "bool", "bfloat16"):
        _, other = relabelled(np.array([0, 1, 1, 0, 1, 0]).astype(dtype))
        assert other.lam.dtype == jnp.float32 and other.lam.tolist() == [0, 1, 1, 0, 1, 0]
