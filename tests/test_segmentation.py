"""The segmentation example: a run, and that everything follows one plan."""

import re

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

EXAMPLE = helpers.example("segmentation")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def test_a_short_run_prints_its_figures_and_leaves_a_picture(
    example, monkeypatch, capsys, tmp_path
):
    saved = helpers.figures(example, monkeypatch)
    printed, _ = helpers.main(example, monkeypatch, capsys, "--steps", 8, "--out", tmp_path)
    found = re.findall(r"^\| (\w+) +\| (0\.\d+) +\| (0\.\d+) +\|$", printed, re.MULTILINE)
    assert [name for name, _, _ in found] == ["student", "teacher"]
    assert re.search(r"^\| larger class, always \| 0\.5\d\d ", printed, re.MULTILINE)
    assert all(0 < float(overlap) <= float(accuracy) for _, accuracy, overlap in found)
    assert (tmp_path / "mixed.png").stat().st_size > 10_000
    legend = saved["mixed.png"].legends[0]
    colours = {
        text.get_text(): patch.get_facecolor()
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert list(colours) == ["near", "far", "not measured", "box from the partner"]
    shown = saved["mixed.png"].axes[6].get_images()[0]  # The class map of the first crop.
    drawn = shown.to_rgba(np.ma.array([1, 0, 0], mask=[False, False, True]))
    for colour, name in zip(drawn, ("near", "far", "not measured"), strict=True):
        np.testing.assert_allclose(colour, colours[name], atol=0.01)
    assert set(np.unique(shown.get_array().compressed())) <= {0, 1}


def test_bad_arguments_are_refused(example, monkeypatch, capsys):
    message = helpers.refusal(example, monkeypatch, capsys, "--steps", 0)
    assert "--steps must be at least 1, got 0" in message
    message = helpers.refusal(example, monkeypatch, capsys, "--seed", 2**32)
    assert "--seed must be from 0 to 2**32 - 1" in message


def test_the_photograph_is_there_with_its_three_classes(example):
    image, classes = example.load_photograph()
    assert image.shape == (*classes.shape, 3) and 0 <= image.min() < image.max() <= 1
    shares = [(classes == k).mean() for k in (-1, 0, 1)]
    assert 0.001 < shares[0] < 0.2 and abs(shares[1] - shares[2]) < 0.01
    images, maps = example.crops(np.random.default_rng(0), image, classes, 5)
    assert images.shape == (*maps.shape, 3) == (5, 48, 48, 3)


def test_maps_and_the_teachers_targets_come_from_where_the_image_does(example):
    """Marks every pixel with its example and place, and looks where each of them went."""
    shape = (4, 48, 48)
    marks = np.arange(np.prod(shape)).reshape(shape)
    images = np.repeat(marks[..., np.newaxis], 3, axis=-1).astype(np.float32)
    maps = (marks * 7919 % 3 - 1).astype(np.int32)
    plan = example.mixer.plan(jax.random.key(5), images.shape)
    source = np.asarray(plan.images(images))[..., 0].astype(int)
    assert 0.1 < (source != marks).mean() < 0.9
    np.testing.assert_array_equal(plan.maps(maps), maps.reshape(-1)[source])

    def teacher(views):
        return jnp.stack([1e-5 * views[..., 0], -1e-5 * views[..., 0]], axis=-1)

    alone = np.asarray(jax.nn.softmax(teacher(images))).reshape(-1, 2)
    np.testing.assert_array_equal(example.teacher_targets(teacher, plan, images), alone[source])


def test_unknown_pixels_reach_neither_the_loss_nor_its_gradient(example):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 2)), jnp.float32)
    maps = np.random.default_rng(1).integers(-1, 2, (2, 3, 4)).astype(np.int32)
    value, gradient = jax.value_and_grad(example.map_loss)(logits, maps)
    known = maps != -1
    chosen = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), np.where(known, maps, 0)[..., None], -1
    )
    np.testing.assert_allclose(value, -chosen[..., 0][known].mean(), rtol=1e-6)
    assert not np.any(np.asarray(gradient)[~known]) and np.all(np.asarray(gradient)[known])


def test_a_step_moves_the_student_and_a_twentieth_of_it_the_teacher(example):
    student, teacher = (example.Network(rngs=nnx.Rngs(0)) for _ in range(2))
    optimizer = nnx.Optimizer(student, optax.sgd(0.1), wrt=nnx.Param)
    before = np.asarray(teacher.last.kernel[...])
    images, maps = example.crops(np.random.default_rng(0), *example.load_photograph(), 2)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        example.train_step(student, optimizer, teacher, jax.random.key(0), images, maps, images)
    moved = np.asarray(student.last.kernel[...]) - before
    assert np.abs(moved).max() > 1e-4
    np.testing.assert_allclose(
        np.asarray(teacher.last.kernel[...]) - before, 0.05 * moved, atol=1e-7
    )


def test_figures_count_known_pixels_alone(example):
    classes = np.array([[1, 1, 0, 0, -1, -1]])

    def network(images):
        return jax.nn.one_hot(jnp.array([[[1, 0, 0, 0, 1, 0]]]), 2)

    figures = example.evaluate(network, np.zeros((1, 6, 3), np.float32), classes)
    np.testing.assert_allclose(figures, [3 / 4, (1 / 2 + 2 / 3) / 2])
