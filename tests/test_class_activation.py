"""The class-activation example: a run, and that its maps and figures are what they are called."""

import re

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
    saved = helpers.figures(example, monkeypatch)
    printed, _ = helpers.main(example, monkeypatch, capsys, "--epochs", 1, "--out", tmp_path)
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if "|" in line]
    trained = ["no mixing", "MixUp", "CutMix"]
    assert [row[0] for row in rows[2:5]] == trained
    along = rows[-6:]
    assert [row[:2] for row in along] == [
        [kind, w] for kind in ("CutMix", "MixUp") for w in trained
    ]
    assert all(len(row) == 2 + 9 for row in along)
    assert all(0 <= float(cell) <= 100 for row in along for cell in row[2:])
    for name in ("maps.png", "neither.png"):
        assert (tmp_path / name).stat().st_size > 10_000

    titles = [axes.get_title() for axes in saved["maps.png"].axes[: 5 * 7]]
    for i in range(0, len(titles), 7):
        image, *maps = (title.replace("\n", " ") for title in titles[i : i + 7])
        own, other = re.fullmatch(r"(\d), with (\d) in the box", image).groups()
        heads = ["trained without mixing ", "trained with MixUp ", "trained with CutMix "]
        for j, title in enumerate(maps):
            name = f"{other} in the box" if j % 2 else own
            assert re.fullmatch(rf"{'' if i else heads[j // 2]}{name}: \d+ %", title)
    left, right = saved["neither.png"].axes
    assert [text.get_text() for text in right.get_legend().get_texts()] == trained
    assert len({line.get_marker() for line in left.get_lines()}) == 3


def test_bad_arguments_are_refused(example, monkeypatch, capsys, tmp_path):
    options = "--dataset", "fashion-mnist", "--data-dir", tmp_path
    message = helpers.refusal(example, monkeypatch, capsys, *options)
    assert "apt install dataset-fashion-mnist" in message
    message = helpers.refusal(example, monkeypatch, capsys, "--epochs", 0)
    assert "--epochs must be at least 1, got 0" in message
    message = helpers.refusal(example, monkeypatch, capsys, "--seed", -1)
    assert "--seed must be from 0 to 2**32 - 1, got -1" in message


def test_titles_name_what_is_in_the_box(example, monkeypatch, tmp_path):
    """Image i is of class i and brightness (i + 1) / 10, so that the box shows whose it is."""
    saved = helpers.figures(example, monkeypatch)
    images = np.broadcast_to(np.arange(1, 11)[:, None, None, None] / 10, (10, 16, 16, 1))
    images, labels = images.astype(np.float32), np.arange(10, dtype=np.int32)
    params = {"MixUp": example.Network().init(jax.random.key(0), images)}
    data = images, labels
    example.draw_maps(tmp_path / "maps.png", params, jax.random.key(1), data, "abcdefghij")
    for axes in saved["maps.png"].axes[: 5 * 3 : 3]:
        own, other = re.findall(r"\b[a-j]\b", axes.get_title())
        shown, (box,) = axes.get_images()[0].get_array(), axes.patches
        middle = shown[int(box.get_y() + box.get_height() / 2), int(box.get_x() + 1)]
        outside = set(np.unique(shown)) - {middle}
        assert round(10 * float(middle)) - 1 == "abcdefghij".index(other)
        assert {round(10 * float(x)) - 1 for x in outside} == {"abcdefghij".index(own)}


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
