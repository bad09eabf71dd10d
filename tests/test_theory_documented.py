"""What a reader of `kd.theory` finds at every function: each argument with its unit, the source, an example that runs.

`tests/test_examples.py` runs the examples.
"""

from __future__ import annotations

import inspect
import re

import pytest

from krause_dynamics import theory

FUNCTIONS = [name for name in theory.__all__ if inspect.isfunction(getattr(theory, name))]
LENGTHS = {
    "angle", "circumference", "key_diameter", "length", "noise", "opening", "query_diameter", "radius", "separation",
    "sigma", "spacing", "wavenumber",
}  # fmt: skip
UNIT = re.compile(r"unit|radian|in patches|in tokens")


def documented(name: str) -> dict[str, str]:
    """Arguments of a function with what its docstring says of them, lines joined."""
    doc = inspect.getdoc(getattr(theory, name)) or ""
    block = re.search(r"^Args:\n((?:    .*\n|\n)*)", doc + "\n", re.MULTILINE)
    found = re.findall(r"^    (\w+): ((?:.*\n)(?:        .*\n)*)", block.group(1), re.MULTILINE) if block else []
    return {parameter: " ".join(text.split()) for parameter, text in found}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described_with_its_unit(name):
    said = documented(name)
    assert list(said) == list(inspect.signature(getattr(theory, name)).parameters)
    bare = {p: text for p, text in said.items() if p in LENGTHS and not UNIT.search(text)}
    assert not bare, f"arguments of {name} without a unit: {bare}"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_names_its_source_and_shows_itself(name):
    doc = inspect.getdoc(getattr(theory, name)) or ""
    assert re.search(r"Sources?: \S", doc), f"{name} has no source"
    assert f"theory.{name}(" in doc.partition("Examples:")[2], f"{name} has no example of itself"
