"""Every parameter of every public signature does what it says."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import pytest

import tests.keywords as tables
from tests.keywords.public import callables, parameters
from tests.keywords.row import ROWS

for module in pkgutil.iter_modules(tables.__path__):
    if module.name.startswith("table_"):
        importlib.import_module(f"{tables.__name__}.{module.name}")


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_parameter(row):
    row.check(row.first, row.second)


def test_every_parameter_has_one_row():
    wanted = {(path, name) for path, thing in callables().items() for name in parameters(thing)}
    given = Counter((row.path, row.parameter) for row in ROWS)
    assert not (missing := sorted(wanted - set(given))), f"{len(missing)} parameters without a row: {missing[:20]}"
    assert not (unknown := sorted(set(given) - wanted)), f"rows of parameters that do not exist: {unknown[:20]}"
    assert not (twice := [key for key, count in given.items() if count > 1]), f"rows that stand twice: {twice[:20]}"


def test_every_row_names_two_values_and_a_property():
    vague = [str(row) for row in ROWS if len(row.states) < 12 or row.first is row.second]
    assert not vague, f"rows without two values or without a property in words: {vague}"
