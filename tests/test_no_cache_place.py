"""Compiled loops where numba finds no place for its cache: a package that another user has installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLS = """
import numpy as np
import torch
from numba.core import caching

class Nowhere(caching._CacheLocator):  # what is left where nothing may be written
    @classmethod
    def from_function(cls, *arguments):
        return None

caching.CacheImpl._locator_classes = [Nowhere]

import krause_dynamics as kd
from krause_dynamics.nn import krause_attention

x = np.random.default_rng(0).normal(size=(40, 1))
assert kd.aggregate(kd.bounded_confidence(0.5), x, impl="sorted1d").mean.shape == (40, 1)
assert kd.hegselmann_krause(x[:, 0], 0.3).final.shape[0] == 40
assert len(kd.clusters.find(x, 0.1).labels) == 40
q = torch.randn(1, 1, 8, 4)
assert krause_attention(q, q, q, window=3, top_k=2).shape == q.shape
"""


def nowhere(monkeypatch):
    from numba.core import caching

    class Nowhere(caching._CacheLocator):
        @classmethod
        def from_function(cls, *arguments):
            return None

    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [Nowhere])


def test_functions_are_compiled_without_a_cache(monkeypatch):
    from krause_dynamics._compiled import njit
    from krause_dynamics.forms.attention.cpu.compiled import entry

    def successor(x):
        return x + 1

    nowhere(monkeypatch)
    assert njit()(successor)(1) == 2
    assert entry(successor)(1) == 2


@pytest.mark.slow
def test_everything_works_without_a_cache():
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    run = subprocess.run([sys.executable, "-c", CALLS], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
