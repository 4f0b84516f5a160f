"""The notebook: it runs from top to bottom, it is committed as it ran, and it installs jaxmix."""

import json
import re
import types
import warnings
from pathlib import Path

import helpers
import jax
import pytest

NOTEBOOK = helpers.ROOT / "examples" / "quickstart.ipynb"
PICTURES = 6
HOW = ("without mixing", "with mixing")


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def source(cell):
    return "".join(cell["source"])


def printed(notebook):
    """What all cells printed."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return "".join("".join(output.get("text", "")) for output in outputs)


def pictures(notebook):
    """How many pictures the cells show."""
    outputs = [output for cell in code_cells(notebook) for output in cell["outputs"]]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def number(text, label):
    """The last number of the line that starts with a label."""
    (line,) = [line for line in text.splitlines() if line.startswith(label)]
    return float(re.findall(r"\d+\.\d+", line)[-1])


def check(notebook):
    """The claims of the text, read from what was printed."""
    text = printed(notebook)
    without, mixed = (number(text, f"half random   {how}") for how in HOW)
    assert mixed > without + 0.1
    assert number(text, "clean labels  with mixing") > 0.9
    learnt, less = (number(text, f"wrong labels that the network has learnt {how}") for how in HOW)
    assert learnt > 0.3 and less < 0.2
    ceiling, reached = (
        number(text, label) for label in ("mean of the larger shares", "accuracy on mixed images")
    )
    assert 0.6 < reached < ceiling < 0.9 < number(text, "accuracy on original images")
    assert "8 devices with 16 images each" in text
    assert "same images, same labels: True True" in text
    assert "sent between devices: nothing" in text
    assert pictures(notebook) == PICTURES


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
    check(notebook)


def test_it_is_committed_with_its_outputs(committed):
    cells = code_cells(committed)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    check(committed)


def test_links_lead_somewhere(committed):
    texts = [source(cell) for cell in committed["cells"] if cell["cell_type"] == "markdown"]
    links = re.findall(r"\]\(([^)]+)\)", "".join(texts))
    assert len(links) >= 4 and all((NOTEBOOK.parent / link).exists() for link in links)


def run_first_cell(
    committed, monkeypatch, *, packages, tpu=False, gpu=False, address=None, works=True
):
    """Runs the first cell on a machine with these packages; returns what it passes to pip."""
    packages = list(packages)
    from IPython.core.inputtransformer2 import TransformerManager

    first = source(code_cells(committed)[0])
    assert first.count('REPOSITORY = ""') == 1
    if address:
        first = first.replace('REPOSITORY = ""', f"REPOSITORY = {address!r}")
    commands, names = [], {}

    def run_line_magic(magic, line):
        commands.append(f"{magic} {line}".format_map(names))
        packages.extend(["jaxmix-augment"] * works)

    names["get_ipython"] = lambda: types.SimpleNamespace(run_line_magic=run_line_magic)
    monkeypatch.setattr(
        "importlib.metadata.distributions", lambda name: [name] if name in packages else []
    )
    monkeypatch.setattr(Path, "exists", lambda path: gpu and str(path) == "/dev/nvidia0")
    monkeypatch.delenv("TPU_ACCELERATOR_TYPE", raising=False)
    if tpu:
        monkeypatch.setenv("TPU_ACCELERATOR_TYPE", "v5e-1")
    try:
        exec(TransformerManager().transform_cell(first), names)
        message = None
    except SystemExit as stopped:
        message = str(stopped)
    return commands, message, names


def test_the_first_cell_asks_for_the_address(committed, monkeypatch):
    commands, message, _ = run_first_cell(committed, monkeypatch, packages=())
    assert not commands and "set REPOSITORY in this cell" in message


@pytest.mark.parametrize(
    "machine, packages, expected",
    [
        ({"tpu": True}, (), "jax[tpu]"),
        ({"gpu": True}, (), "jax[cuda13]"),
        ({"gpu": True}, ("jax", "jax-cuda12-plugin"), "jax[cuda12]"),
        ({}, ("jax",), "jax"),
    ],
    ids=["TPU", "GPU", "GPU with CUDA 12", "CPU"],
)
def test_the_first_cell_installs_the_matching_jax(
    committed, monkeypatch, machine, packages, expected
):
    address = "https://example.org/jaxmix"
    commands, message, names = run_first_cell(
        committed, monkeypatch, packages=packages, address=address, **machine
    )
    assert commands == [
        f'pip install -q -U "{expected}" "jaxmix-augment[examples] @ git+{address}"'
    ]
    assert "Restart session" in message
    assert names["runtime"] == next(iter(machine), "cpu")


@pytest.mark.parametrize("other", [(), ("jaxmix",)], ids=["none", "the unrelated jaxmix"])
def test_the_first_cell_says_that_pip_failed(committed, monkeypatch, other):
    commands, message, _ = run_first_cell(
        committed, monkeypatch, packages=other, address="https://typo", works=False
    )
    assert len(commands) == 1 and message.startswith("The installation failed")


def test_the_first_cell_installs_nothing_twice(committed, monkeypatch):
    commands, message, _ = run_first_cell(committed, monkeypatch, packages=("jaxmix-augment",))
    assert not commands and message is None


def test_jax_must_not_have_been_used_before(committed, monkeypatch):
    second = source(code_cells(committed)[1])
    found = re.search(r"^try:\n.*?from None\n", second, re.DOTALL | re.MULTILINE)

    def update(name, value):
        raise RuntimeError("before backends are initialized")

    monkeypatch.setattr(jax, "config", types.SimpleNamespace(update=update))
    assert found
    with pytest.raises(SystemExit, match=r"JAX was used before this cell.*Restart session"):
        exec(found[0], {"jax": jax})


@pytest.mark.parametrize("runtime", ["cpu", "tpu", "gpu"])
def test_jax_must_use_the_device_of_the_runtime(committed, monkeypatch, runtime):
    second = source(code_cells(committed)[1])
    found = re.search(r"^if jax.default_backend.*?^    \)\n", second, re.DOTALL | re.MULTILINE)
    assert found
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(jax, "config", types.SimpleNamespace(jax_platforms=None))
    names = {"jax": jax, "runtime": runtime, "jax_package": f"jax[{runtime}]"}
    if runtime == "cpu":
        exec(found[0], names)
        return
    with pytest.raises(SystemExit, match=rf"has a {runtime.upper()}, but JAX uses the CPU. .*pip"):
        exec(found[0], names)


def test_nothing_is_left_to_be_filled_in(committed):
    assert "OWNER" not in json.dumps(committed)
