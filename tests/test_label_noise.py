"""The label-noise example: its claim, its resumption, and that it measures what it says."""

import csv
import re

import helpers
import jax.numpy as jnp
import numpy as np
import pytest

EXAMPLE = helpers.example("label_noise")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


@pytest.mark.full
def test_mixup_stops_the_network_from_memorising_wrong_labels(example):
    """Three seeds, half of the labels wrong: the claim of mixup's paper, section 3.4."""
    with helpers.as_people_run_it():
        cells = {
            name: example.run_cell("digits", None, 100, 50, name, [0, 1, 2])
            for name in ("no mixing", "MixUp 8")
        }
    mean = {
        name: {figure: np.mean([float(row[figure]) for row in rows]) for figure in example.FIGURES}
        for name, rows in cells.items()
    }
    assert mean["no mixing"]["last"] - mean["MixUp 8"]["last"] >= 5
    assert mean["no mixing"]["memorised"] - mean["MixUp 8"]["memorised"] >= 5
    for figures in mean.values():
        assert figures["best"] <= figures["last"] < figures["fgsm_0.02"] <= figures["fgsm_0.1"]


@pytest.mark.full
def test_a_stopped_run_goes_on_and_ends_as_one_run(example, monkeypatch, capsys, tmp_path):
    options = "--out", tmp_path, "--noises", 80, "--seeds", 1, "--epochs", 2
    whole, _ = helpers.run(EXAMPLE, *options)
    lines = [line for line in whole.splitlines() if line.startswith("| ")]
    assert len(lines) == 1 + 5 and re.search(r"80 % \| MixUp 8 .* 30.9 ", whole)
    assert (tmp_path / "results.png").stat().st_size > 10_000
    path = tmp_path / "results.csv"
    content = path.read_text()
    rows = list(csv.DictReader(content.splitlines()))
    assert len(rows) == 5
    path.write_text("".join(content.splitlines(keepends=True)[:-1]))  # Without the last cell.
    rest, progress = helpers.run(EXAMPLE, *options)
    assert rest == whole and path.read_text() == content
    assert "1/1" in progress and "2/2" not in progress
    message = helpers.refusal(example, monkeypatch, capsys, *options[:-1], 3)
    assert "give another --out" in message
    assert path.read_text() == content


def test_rows_of_other_mixers_are_refused(example, monkeypatch, capsys, tmp_path):
    row = dict.fromkeys(example.COLUMNS, "0") | {"dataset": "digits", "epochs": "150"}
    row["mixer"] = "unknown"
    example.MIXERS["unknown"] = None
    example.write_rows(tmp_path / "results.csv", [row])
    del example.MIXERS["unknown"]
    message = helpers.refusal(example, monkeypatch, capsys, "--out", tmp_path)
    assert "another experiment (digits, 150 epochs, unknown): give another --out" in message


def test_the_plot_tells_the_mixers_apart(example, monkeypatch, tmp_path):
    """Each has a marker and a colour; without wrong labels there is nothing to memorise."""
    saved, noises = helpers.figures(example, monkeypatch), (0, 20)
    rows = [
        {"dataset": "digits", "noise": noise, "mixer": name, "seed": seed}
        | {figure: 10 * i + seed for figure in example.FIGURES}
        for noise in noises
        for i, name in enumerate(example.MIXERS)
        for seed in range(2)
    ]
    example.plot(tmp_path / "results.png", rows, noises, 2)
    panels = saved["results.png"].axes
    for axes, shown in zip(panels, [[0, 20], [20], [0, 20]], strict=True):
        assert axes.get_xlabel() == "wrong training labels, %" and axes.get_ylabel().endswith(", %")
        lines = [bars.lines[0] for bars in axes.containers]
        assert [bars.get_label() for bars in axes.containers] == list(example.MIXERS)
        assert len({line.get_marker() for line in lines} - {"None", ""}) == len(lines)
        assert len({line.get_color() for line in lines}) == len(lines)
        for i, line in enumerate(lines):
            assert line.get_xdata().tolist() == shown and set(line.get_ydata()) == {10 * i + 0.5}
    legend = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert legend == list(example.MIXERS)


@pytest.mark.parametrize("noise", [0, 20, 50, 80])
def test_just_so_many_labels_are_wrong(example, noise):
    labels = np.random.default_rng(0).integers(0, 10, 1437).astype(np.int32)
    given, wrong = example.spoil(np.random.default_rng(1), labels, noise)
    assert wrong.sum() == round(14.37 * noise)
    np.testing.assert_array_equal(given != labels, wrong)
    assert noise == 0 or set(((given - labels) % 10)[wrong]) == set(range(1, 10))


def test_an_attack_moves_no_pixel_further_than_it_says(example):
    generator = np.random.default_rng(0)
    images = generator.random((5, 8, 8, 1), np.float32)
    gradient = generator.normal(size=images.shape).astype(np.float32)
    moved = np.asarray(example.attacked(images, gradient, jnp.float32(0.1)))
    assert moved.min() >= 0 and moved.max() <= 1 and np.abs(moved - images).max() <= 0.1 + 1e-6
    inside = (images > 0.1) & (images < 0.9)
    np.testing.assert_allclose((moved - images)[inside], 0.1 * np.sign(gradient)[inside], atol=1e-6)


def test_what_is_missing_is_what_is_run(example):
    rows = [
        {"noise": str(noise), "mixer": name, "seed": str(seed)}
        for noise in (0, 20)
        for name in example.MIXERS
        for seed in (0, 1)
        if (noise, name, seed) != (20, "either", 0)
    ]
    assert list(example.missing_cells(rows, (0, 20), 2)) == [(20, "either", [0])]
    assert list(example.missing_cells(rows, (0,), 3)) == [(0, name, [2]) for name in example.MIXERS]


def test_bad_arguments_are_refused(example, monkeypatch, capsys, tmp_path):
    message = helpers.refusal(example, monkeypatch, capsys, "--noises", 100)
    assert "--noises must be from 0 to 99, got [100]" in message
    message = helpers.refusal(example, monkeypatch, capsys, "--seeds", 0)
    assert "--seeds must be at least 1, got 0" in message
    options = "--dataset", "fashion-mnist", "--data-dir", tmp_path
    message = helpers.refusal(example, monkeypatch, capsys, *options, "--out", tmp_path)
    assert "apt install dataset-fashion-mnist" in message
