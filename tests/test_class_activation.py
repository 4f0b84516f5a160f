"""The class-activation example: a run, and that its maps and figures are what they are called."""

import helpers
import jax
import numpy as np
import pytest

EXAMPLE = helpers.example("class_activation")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def test_a_short_run_prints_its_tables_and_leaves_its_pictures(
    example, monkeypatch, capsys, tmp_path
):
    monkeypatch.setattr(example, "SHIFTS", [1])
    printed, _ = helpers.main(example, monkeypatch, capsys, "--epochs", 1, "--out", tmp_path)
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if "|" in line]
    assert [row[0] for row in rows[2:5]] == ["none", "mixup", "cutmix"]
    along = [row for row in rows if row[0] in ("CutMix", "MixUp")]
    assert len(along) == 6 and all(len(row) == 2 + 9 for row in along)
    assert all(0 <= float(cell) <= 100 for row in along for cell in row[2:])
    for name in ("maps.png", "neither.png"):
        assert (tmp_path / name).stat().st_size > 10_000


def test_bad_arguments_are_refused(example, monkeypatch, capsys, tmp_path):
    options = "--dataset", "fashion-mnist", "--data-dir", tmp_path
    message = helpers.refusal(example, monkeypatch, capsys, *options)
    assert "apt install dataset-fashion-mnist" in message


def test_the_mean_of_a_map_is_the_logit_without_its_bias(example):
    """What makes it a class activation map (Zhou et al. 2016, section 2)."""
    images = np.random.default_rng(0).random((3, 16, 16, 1), np.float32)
    params = example.Network().init(jax.random.key(0), images)
    params["params"]["Dense_0"]["bias"] = np.arange(10, dtype=np.float32)
    logits, features = example.predict(params, images)
    classes = np.array([2, 0, 7])
    maps = example.activation_maps(params, features, classes)
    assert maps.shape == (3, 8, 8)
    expected = np.asarray(logits)[np.arange(3), classes] - classes
    np.testing.assert_allclose(maps.mean((1, 2)), expected, atol=1e-5)


def test_figures_of_made_up_logits(example):
    logits = np.array([[5.0, 4, 0, 1], [5, 0, 4, 1], [0, 5, 4, 1], [0, 1, 5, 6]])
    labels, others = np.array([0, 0, 0, 0]), np.array([1, 1, 1, 1])
    assert example.both_in_top_two(logits, labels, others).tolist() == [True, False, False, False]
    assert example.both_in_top_two(logits, others, labels).tolist() == [True, False, False, False]
    assert example.neither(logits, labels, others).tolist() == [False, False, False, True]


@pytest.mark.parametrize("lam", [0.1, 0.5, 0.9])
def test_plans_have_the_lambda_that_was_asked_for(example, lam):
    key, shape = jax.random.key(0), (64, 16, 16, 1)
    boxes = example.cutmix_plan(key, shape, lam, 3)
    assert np.abs(np.asarray(boxes.lam) - lam).max() < 0.03
    assert len(np.unique(np.asarray(boxes.region.start), axis=0)) >= 4
    assert np.asarray(boxes.region.start).min() == 0 and np.asarray(boxes.region.stop).max() == 16
    blended = example.mixup_plan(key, shape, lam, 3)
    np.testing.assert_allclose(blended.lam, lam, atol=1e-6)
    for plan in (boxes, blended):
        np.testing.assert_array_equal(plan.partner, (np.arange(64) - 3) % 64)


def test_pairs_of_one_class_are_not_counted(example):
    """Of four images of two classes, Roll(1) pairs two with their own class."""
    labels = np.array([0, 0, 1, 1], np.int32)
    images = np.random.default_rng(0).random((4, 16, 16, 1), np.float32)
    params = {"any": example.Network().init(jax.random.key(0), images)}
    seen = []

    def figure(logits, labels, others):
        seen.append((labels != others).tolist())
        return labels != others

    found = example.share(
        figure, params, jax.random.key(1), example.mixup_plan, 0.5, (images, labels)
    )
    assert found == {"any": 100.0} and [True, False, True, False] in seen
