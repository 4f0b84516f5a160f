"""What pyright infers of a user's file, and what it refuses."""

import json
import pathlib
import re
import subprocess
import sys

import pytest

USER = pathlib.Path(__file__).parent / "user_types.py"
ARRAY, PAIR = "Array", "tuple[Array, Array]"
EITHER = f"{ARRAY} | {PAIR}"


@pytest.fixture(scope="module")
def found():
    """The diagnostics of pyright, by line of the file."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable]
    ran = subprocess.run([*command, str(USER)], capture_output=True, text=True, check=False)
    diagnostics = json.loads(ran.stdout)["generalDiagnostics"]
    return [(d["range"]["start"]["line"], d["severity"], d["message"]) for d in diagnostics]


def test_inferred_types(found):
    revealed = [message for _, severity, message in found if severity == "information"]
    types = [re.search(r' is "(.*)"$', message)[1].split(" | ") for message in revealed]
    expected = ["Pairing", ARRAY, ARRAY, PAIR, EITHER, "Pairing", "Plan", ARRAY, PAIR, ARRAY]
    assert [sorted(alternatives) for alternatives in types] == [
        sorted(alternatives.split(" | ")) for alternatives in expected
    ]


def test_errors_are_where_they_belong_and_nowhere_else(found):
    lines = USER.read_text().splitlines()
    first = lines.index("# Each of these is an error.") + 1
    assert sorted({line for line, severity, _ in found if severity == "error"}) == list(
        range(first, len(lines))
    )
