"""Mutations: the package broken on purpose, one change at a time, and the tests that notice."""

import dataclasses

LAWS = "tests/test_laws*.py"
SHARDING = "tests/test_sharding*.py"


@dataclasses.dataclass(frozen=True)
class Mutant:
    """One change to one file; `text` must stand there exactly once."""

    name: str
    file: str
    text: str
    replacement: str
    breaks: str
    tests: str  # Arguments of pytest, from the root of the project.
    equivalent: str = ""  # Why no test can notice: then it is not run.


def mutants(file, *changes):
    """The mutants of one file."""
    return [Mutant(name, file, *change) for name, *change in changes]
