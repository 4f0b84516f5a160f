"""The report of an accelerator: what it says with one, without, and of laws that are broken."""

import importlib
import sys

import helpers
import jax
import pytest


@pytest.fixture
def accelerator(monkeypatch):
    monkeypatch.syspath_prepend(helpers.ROOT)
    monkeypatch.setattr(sys, "argv", ["accelerator", "--seconds", "60"])
    return importlib.import_module("tests.accelerator")


def test_there_may_be_none(accelerator, capsys):
    accelerator.main()
    assert capsys.readouterr().out.startswith("There is no accelerator")


@pytest.mark.parametrize("broken", [False, True], ids=["kept", "broken"])
def test_the_report(accelerator, monkeypatch, tmp_path, capsys, broken):
    tests = "import pytest\ndef test_law(): assert {}\ndef test_two(): pytest.skip('needs 2')\n"
    (tmp_path / "test_laws.py").write_text(tests.format(not broken))
    monkeypatch.setattr(accelerator, "HERE", tmp_path)
    monkeypatch.setattr(accelerator, "LAWS", ["test_laws.py"])
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(accelerator.bandwidth, "report", lambda rounds: "| GB/s |")
    monkeypatch.setattr(accelerator.steps, "report", lambda rounds: "| ms |")
    with pytest.raises(SystemExit) as exit_:
        accelerator.main()
    text = capsys.readouterr().out
    assert exit_.value.code == broken
    assert (
        "## Laws" in text
        and "copy\n\n| GB/s |" in text
        and "step\n\n| ms |" in text
        and "needs 2" in text
    )
    assert ("1 failed, 1 skipped" if broken else "1 passed, 1 skipped") in text
    assert ("- FAILED" in text) == broken


def test_laws_that_take_too_long_are_stopped(accelerator, monkeypatch, tmp_path):
    (tmp_path / "test_laws.py").write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setattr(accelerator, "HERE", tmp_path)
    monkeypatch.setattr(accelerator, "LAWS", ["test_laws.py"])
    lines, kept = accelerator.laws(2)
    assert lines[0] == "stopped after 2 s" and not kept
