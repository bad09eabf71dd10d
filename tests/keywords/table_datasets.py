"""Rows of stored results and of descriptions: files equal their recipes, words say what the numbers say."""

from __future__ import annotations

import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from krause_dynamics.datasets import recipes
from tests.keywords.figures import analysis, comparison
from tests.keywords.row import row


@row("kd.datasets.load", "name", "plane", "phase", "the stored result is what its recipe computes now")
def _(first, second):
    run, again = kd.datasets.load(first), recipes.RECIPES[first]()
    np.testing.assert_allclose(
        run.positions, again.positions, rtol=0, atol=1e-9
    )  # sums in another order: 12 time units
    np.testing.assert_array_equal(run.times, again.times)
    counts = kd.datasets.load(second)
    xarray.testing.assert_equal(counts, recipes.RECIPES[second]())
    assert counts.clusters.min() == 1
    with pytest.raises(ValueError, match="name must be 'circle', 'plane', 'phase' or 'smollm2', got 'circel'"):
        kd.datasets.load("circel")


@row("kd.describe", "data", "a run", "a Dataset", "the words hold the numbers: states, ranges, findings, differences")
def _(first, second):
    run = kd.datasets.load("circle")
    told = kd.describe(run)
    assert told.title == repr(run)
    assert "300" in str(told)
    assert "<li>steps in which something moved: 300</li>" in told._repr_html_()
    swept = xarray.Dataset({"a": (("beta", "seed"), [[1.0, 3.0], [np.nan, 5.0]]), "word": ("beta", ["x", "y"])})
    assert kd.describe(swept).lines == (
        "a over beta (2) x seed (2): 1 to 5, mean 3; 1 are no numbers",
        "word over beta (2)",
    )
    assert kd.describe(analysis()).lines == tuple(kd.report.findings(analysis()))
    lines = kd.describe(comparison(("a", "b"))).lines
    rows = [one for one in kd.report.comparison_rows(comparison(("a", "b"))) if one["low"] > 0 or one["high"] < 0]
    assert len(lines) == max(1, len(rows))
    with pytest.raises(TypeError, match="data must be a Trajectory or an xarray Dataset of this package, got list"):
        kd.describe([1])
