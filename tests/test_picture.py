"""The picture of the README: every image has its label below it, as shares that it shows."""

import re

import helpers
import numpy as np


def test_labels_are_the_shares_that_are_shown(monkeypatch, capsys, tmp_path):
    example = helpers.load(helpers.example("picture"))
    saved = helpers.figures(example, monkeypatch)
    helpers.main(example, monkeypatch, capsys, "--out", tmp_path / "mixed.png")
    axes = saved["mixed.png"].axes
    shown = [np.asarray(ax.images[0].get_array(), float) for ax in axes]
    labels = [ax.get_xlabel() for ax in axes]
    assert labels[:4] == [f"{name}: 100 %" for name in example.CORNERS]
    assert [axes[row].get_ylabel() for row in (0, 4, 8)] == ["original", "CutMix", "MixUp"]
    originals = dict(zip(example.CORNERS, shown, strict=False))
    for number, (image, label) in enumerate(zip(shown[4:], labels[4:], strict=True)):
        found = re.fullmatch(r"(\w+): (\d+) %, (\w+): (\d+) %", label)
        assert found and int(found[2]) + int(found[4]) == 100 and int(found[2]) >= int(found[4])
        assert list(example.CORNERS)[number % 4] in (found[1], found[3])
        first, second = (originals[found[k]] for k in (1, 3))
        if number < 4:  # CutMix: the share of the pixels that are those of the first.
            share = (image == first).all(-1).mean()
        else:  # MixUp: the weight of the first, by least squares.
            difference = first - second
            share = ((image - second) * difference).sum() / (difference**2).sum()
        assert abs(100 * share - int(found[2])) < 2, label
