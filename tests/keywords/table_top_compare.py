"""kd.compare: cases side by side, each as if analysed by itself."""

from __future__ import annotations

import json

import numpy as np
import xarray as xr

import krause_dynamics as kd
from tests.keywords.figures import analysis
from tests.keywords.row import row
from tests.keywords.table_top_analyze import IDS, tiny

PAIR = {"a": analysis(1), "b": analysis(2)}


def equals(found, case, alone):
    """The order parameter of a case is that of its own analysis."""
    here = found.order_parameter.sel(case=case).transpose("sequence", "depth", "tokens")
    np.testing.assert_allclose(here, alone.order_parameter, atol=1e-7)


@row("kd.compare", "cases", (1, 2), (3, 4), "each case holds the numbers of its own analysis")
def cases(first, second):
    for seeds in (first, second):
        found = kd.compare({str(seed): analysis(seed) for seed in seeds})
        for seed in seeds:
            equals(found, str(seed), analysis(seed))


@row("kd.compare", "inputs", IDS[1:], IDS[1:2], "what all models are shown")
def inputs(first, second):
    for given in (first, second):
        found = kd.compare({"a": tiny("llama"), "b": tiny("llama", 1)}, given)
        equals(found, "b", kd.analyze(tiny("llama", 1), given))


@row("kd.compare", "model", "llama", "gpt2", "the model that is shown all texts")
def model(first, second):
    for kind in (first, second):
        found = kd.compare({"a": IDS[1:2], "b": IDS[2:]}, model=tiny(kind))
        equals(found, "b", kd.analyze(tiny(kind), IDS[2:]))


@row("kd.compare", "reference", None, "b", "from whom differences are taken: the first, or the one named")
def reference(first, second):
    one, other = (kd.compare(PAIR, reference=name) for name in (first, second))
    np.testing.assert_allclose(one.entropy_difference.sel(case="b"), -other.entropy_difference.sel(case="a"))
    assert json.loads(other.attrs["meta"])["reference"] == second


# Enough sequences to be resampled; of fewer, intervals are those of t.
MANY = {
    name: xr.concat([analysis(seed).isel(sequence=slice(0, 3)) for seed in seeds], "sequence", data_vars="minimal",
                    coords="minimal", compat="override", combine_attrs="override").assign_coords(sequence=range(9))
    for name, seeds in (("a", (1, 2, 3)), ("b", (4, 5, 6)))
}  # fmt: skip


def width(**options):
    found = kd.compare(MANY, **options).entropy_interval.sel(case="b")
    return float((found.sel(bound="high") - found.sel(bound="low")).mean())


@row("kd.compare", "level", 0.95, 0.5, "a lower level gives a narrower interval")
def level(first, second):
    assert width(level=first) > 1.5 * width(level=second) > 0
    assert width(level=first) == width()


@row("kd.compare", "draws", 1000, 1, "of one draw nothing is left of an interval")
def draws(first, second):
    assert width(draws=first) > 0
    assert width(draws=second) == 0


@row("kd.compare", "rng", 0, 1, "another seed resamples anew; a generator does as its seed")
def rng(first, second):
    assert width(rng=first) == width(rng=np.random.default_rng(first)) == width()
    assert width(rng=second) != width()


@row(
    "kd.compare", "options", {}, {"sequence_length": 8}, "what kd.analyze is told beside the model and what it is shown"
)
def options(first, second):
    models = {"a": tiny("llama"), "b": tiny("llama", 1)}
    for given in (first, second):
        found = kd.compare(models, IDS[:1], **given)
        equals(found, "b", kd.analyze(models["b"], IDS[:1], **given))
