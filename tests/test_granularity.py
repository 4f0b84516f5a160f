"""The granularity example: what it measures is the variance, and a run leaves its table."""

import csv
import re

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

EXAMPLE = helpers.example("granularity")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def test_the_variance_is_that_of_single_gradients(example):
    """Of each group of keys, summed over the elements, with the draws of the batch in it."""
    data = jnp.asarray(helpers.numbers((32, 4, 4, 1))), jnp.arange(32) % 10
    graph, parameters = nnx.split(example.network(0, 16))
    mixer = example.make("MixUp", 0.8, "pair")
    how = parameters, graph, data, 8
    found = example.variances(mixer, *how, jax.random.split(jax.random.key(1), (2, 5)))
    for group in range(2):
        keys = jax.random.split(jax.random.key(1), (2, 5))[group]
        gradients = [jax.tree.leaves(example.gradient(mixer, *how, key)) for key in keys]
        rows = np.array([np.concatenate([x.ravel() for x in g]) for g in gradients], np.float64)
        np.testing.assert_allclose(found[group], rows.var(0, ddof=1).sum(), rtol=1e-4)
    assert abs(found[0] - found[1]) > 1e-6


def test_none_mixes_nothing(example):
    images = jnp.asarray(helpers.numbers((8, 4, 4, 1)))
    for method in example.METHODS:
        mixed = example.make(method, 0.8, "none")(jax.random.key(0), images)
        np.testing.assert_array_equal(mixed, images)
        for per in example.PERS[1:]:
            assert example.make(method, 0.8, per).mixer.per == per


def test_a_short_run_leaves_its_tables_and_its_picture(example, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(example, "ALPHAS", (0.8,))
    saved = helpers.figures(example, monkeypatch)
    options = ("--epochs", 2, "--draws", 4, "--seeds", 2, "--batch-size", 64, "--out", tmp_path)
    printed, _ = helpers.main(example, monkeypatch, capsys, *options)
    found = re.findall(
        r"^(\w+) +alpha 0\.8 +per (\w+) +(\d\.\d\d) ± \d\.\d\d +\d\.\d\d ± \d\.\d\d +(0\.\d{4}) ±",
        printed,
        re.MULTILINE,
    )
    assert [row[:2] for row in found] == [
        (method, str(per)) for method in example.METHODS for per in example.PERS
    ]
    assert all(row[2] == "1.00" for row in found if row[1] == "example")
    assert all(0.3 < float(row[3]) < 1 for row in found)
    table = list(csv.DictReader((tmp_path / "granularity.csv").read_text().splitlines()))
    assert len(table) == 3 * len(found)
    assert [row["measure"] for row in table[:3]] == list(example.MEASURES)
    assert re.search(r"^ +before +after +test accuracy$", printed, re.MULTILINE)
    assert (tmp_path / "granularity.png").stat().st_size > 10_000
    for axes, title in zip(
        saved["granularity.png"].axes, ("before training", "after 2 epochs"), strict=True
    ):
        ticks = [text.get_text() for text in axes.get_xticklabels()]
        assert ticks == ["no mixing", "example", "pair", "run of 16", "batch"]
        _, *lines = axes.get_lines()
        labels = [line.get_label() for line in lines]
        assert labels == ["CutMix, alpha 0.8", "MixUp, alpha 0.8"] and axes.get_title() == title
        assert len({line.get_marker() for line in lines}) == 2
        assert all(abs(line.get_ydata()[1] - 1) < 1e-6 for line in lines)


def test_bad_arguments_are_refused(example, monkeypatch, capsys, tmp_path):
    message = helpers.refusal(example, monkeypatch, capsys, "--seeds", 1)
    assert "--draws and --seeds must be at least 2" in message
    options = "--dataset", "fashion-mnist", "--data-dir", tmp_path, "--out", tmp_path / "out"
    message = helpers.refusal(example, monkeypatch, capsys, *options)
    assert "apt install dataset-fashion-mnist" in message and not (tmp_path / "out").exists()
