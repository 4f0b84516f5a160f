"""The notebook: it runs from top to bottom, and is committed as it ran."""

import json
import warnings
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples" / "quickstart.ipynb"


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text(cell):
    """What a cell printed."""
    found = [output.get("text", "") for output in cell["outputs"]]
    return "".join("".join(part) for part in found)


@pytest.fixture(scope="module")
def committed():
    return json.loads(NOTEBOOK.read_text())


def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    with warnings.catch_warnings():  # Jupyter's own.
        warnings.simplefilter("ignore")
        import nbclient
        import nbformat

        notebook = nbformat.read(NOTEBOOK, as_version=4)
        for cell in code_cells(notebook):
            cell["outputs"] = []
        resources = {"metadata": {"path": str(tmp_path)}}
        nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    pictures = [
        "image/png" in output.get("data", {})
        for cell in code_cells(notebook)
        for output in cell["outputs"]
    ]
    assert sum(pictures) == 5
    printed = "".join(text(cell) for cell in code_cells(notebook))
    assert float(printed.split("held-out digits: ")[1].split()[0]) > 0.85
    assert float(printed.split("difference of the losses: ")[1].split()[0]) < 1e-5


def test_it_is_committed_with_its_outputs(committed):
    cells = code_cells(committed)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 5
    assert "held-out digits" in "".join(map(text, cells))


def test_the_address_stands_in_one_place(committed):
    sources = ["".join(cell["source"]) for cell in committed["cells"]]
    assert sum(source.count("OWNER") for source in sources) == 1
