"""The picture of the README: every image has its label below it, as shares that sum to one."""

import re

import helpers


def test_labels_are_shares_in_percent(monkeypatch, capsys, tmp_path):
    example = helpers.load(helpers.example("picture"))
    saved = helpers.figures(example, monkeypatch)
    helpers.main(example, monkeypatch, capsys, "--out", tmp_path / "mixed.png")
    shown = [axes.get_xlabel() for axes in saved["mixed.png"].axes]
    assert shown[:4] == [f"{name}: 100 %" for name in example.CORNERS]
    for label in shown[4:]:
        found = re.fullmatch(r"(\w+): (\d+) %, (\w+): (\d+) %", label)
        assert found and int(found[2]) + int(found[4]) == 100 and int(found[2]) >= int(found[4])
