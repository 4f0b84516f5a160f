"""The search example: many policies in one program, each as if it were alone."""

import re

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import numbers

from jaxmix import CutMix, MixUp, RandomApply, RandomChoice

EXAMPLE = helpers.example("search")


@pytest.fixture(scope="module")
def example():
    return helpers.load(EXAMPLE)


def test_there_are_16_policies_of_one_structure(example):
    names, mixers = example.policies()
    assert len(names) == len(mixers) == 16
    assert len({jax.tree.structure(mixer) for mixer in mixers}) == 1
    assert mixers[0].prob == 0
    for name, mixer in zip(names[1:], mixers[1:], strict=True):
        alpha = float(re.search(r"\((.*)\)", name)[1])
        kind = {"CutMix": (CutMix(alpha), 1.0), "MixUp": (MixUp(alpha), 0.0)}
        choice = mixer.mixer
        if name.startswith("either"):
            expected = RandomChoice((CutMix(alpha), MixUp(alpha)), probs=(0.5, 0.5))
            assert mixer == RandomApply(expected, 1.0)
        else:
            method, share = kind[name.partition("(")[0]]
            assert method in choice.mixers and choice.probs == (share, 1 - share)


def test_each_network_is_the_one_that_its_policy_trains_alone(example):
    _, mixers = example.policies()
    images, labels = jnp.asarray(numbers((64, 8, 8, 1))), jnp.arange(64) % 10
    graph, parameters = example.network(0)
    optimizer = optax.adam(2e-3)
    train = example.trainer(graph, optimizer, images, labels, 32)
    how = train, graph, parameters, optimizer.init(parameters)
    with jax.numpy_dtype_promotion("standard"):  # For Optax.
        together, _ = example.run(*how, mixers, 2, 0)
        alones = {n: example.run(*how, mixers[n : n + 1], 2, 0)[0] for n in (0, 8, 14)}
    for number, alone in alones.items():
        for many, one in zip(*map(jax.tree.leaves, (together, alone)), strict=True):
            np.testing.assert_allclose(many[number], one[0], atol=2e-4)
    first, second = (
        np.concatenate([x[i].ravel() for x in jax.tree.leaves(together)]) for i in (0, 8)
    )
    assert np.abs(first - second).max() > 1e-2


def test_a_short_run_prints_its_table_and_leaves_its_picture(
    example, monkeypatch, capsys, tmp_path
):
    saved = helpers.figures(example, monkeypatch)
    printed, _ = helpers.main(
        example, monkeypatch, capsys, "--epochs", 3, "--train-images", 128, "--out", tmp_path
    )
    found = re.findall(r"^(.*?) +test accuracy (0\.\d+)$", printed, re.MULTILINE)
    assert [name for name, _ in found] == example.policies()[0]
    assert all(0.2 < float(accuracy) < 1 for _, accuracy in found)
    assert re.search(r"16 policies at once take \d+\.\d times as long as one", printed)
    assert (tmp_path / "search.png").stat().st_size > 10_000
    (axes,) = saved["search.png"].axes
    assert [text.get_text() for text in axes.get_xticklabels()] == [str(x) for x in example.ALPHAS]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["CutMix", "MixUp", "either", "no mixing"]
    assert len({line.get_marker() for line in lines.values()}) == 4
    accuracy = dict(found)
    for name in ("CutMix", "MixUp", "either"):
        expected = [float(accuracy[f"{name}({alpha})"]) for alpha in example.ALPHAS]
        np.testing.assert_allclose(lines[name].get_ydata(), expected, atol=6e-4)


def test_example_stays_short():
    assert len(EXAMPLE.read_text().splitlines()) <= 150
