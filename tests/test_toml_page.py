"""The page of all keys of TOML files: every key and every kind of value stands in it, with words."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from krause_dynamics.command import kinds as of_kinds
from krause_dynamics.command import tables

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import toml_keys  # noqa: E402

NAMES = [name for name in tables.DEFAULTS if name != "files"]  # that one the command writes itself
KEYS = [(name, key) for name in NAMES for key in [*tables.DEFAULTS[name], *of_kinds.FURTHER.get(name, ())]]


@pytest.fixture(scope="module")
def page():
    return toml_keys.page()


def rows(page, table):
    """Key: (default, meaning) of one table."""
    part = page.partition(f"\n### [{table}]\n")[2].partition("\n## ")[0].partition("\n### ")[0]
    return {
        key: (default, words) for key, default, words in re.findall(r"^\| `(\w+)` \| (.*?) \| (.*) \|$", part, re.M)
    }


@pytest.mark.parametrize(("table", "key"), KEYS)
def test_every_key_has_its_default_and_words(table, key, page):
    default, words = rows(page, table)[key]
    given = tables.DEFAULTS[table].get(key)
    assert default == ("-" if given is None else f"`{toml_keys._shown(given).strip('`')}`")
    assert len(words) > 10


def test_keys_of_kinds_of_rules_and_starts_are_there(page):
    assert {"beta", "sigma", "radius", "pair_bias", "score"} < set(rows(page, "rule"))
    assert {"low", "high", "mean", "std", "path"} < set(rows(page, "initial"))
    assert {"epochs", "batch_size", "learning_rate"} < set(rows(page, "training"))


def test_every_kind_of_value_is_there(page):
    for name in ("Gaussian", "Within", "TopK", "Torus", "Adaptive", "ClustersSettled", "Sequential", "StepNoise"):
        assert f"| `{name}` |" in page
