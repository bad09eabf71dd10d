"""kd.checkpoints.Measure: against the states and the weights that transformers returns."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row
from tests.keywords.table_top_analyze import IDS, analyze, importance, theirs

MEASURE = "kd.checkpoints.Measure"
LAYER, HEAD = ("sequence", "layer"), ("sequence", "block", "head")


def size(state):
    """Largest entry in size of a layer, (b,)."""
    return state.tokens.abs().amax((1, 2))


def told(**fields):
    given = {"name": "size", "dims": LAYER, "long_name": "largest entry", "of": "state", "formula": size} | fields
    return analyze(measures=[kd.checkpoints.Measure(**given)])


def sizes(formula):
    """Of the layers before the last, which transformers returns after the final norm; (sequences, layers)."""
    return np.stack([formula(theirs("llama", tuple(ids))[0][:-1]) for ids in IDS])


@row(MEASURE, "name", "size", "other", "that of the variable")
@row(MEASURE, "long_name", "largest entry", "in other words", "the words of the variable")
def words(first, second):
    for given in (first, second):
        key = "name" if given.isidentifier() else "long_name"
        found = told(**{key: given})
        name = given if key == "name" else "size"
        assert name in found
        assert found[name].attrs["long_name"] == (given if key == "long_name" else "largest entry")


@row(MEASURE, "dims", LAYER, (*LAYER, "entry"), "those of the variable; a formula of other dimensions is refused")
def dims(first, second):
    np.testing.assert_allclose(told(dims=first)["size"][:, :-1], sizes(lambda x: np.abs(x).max((1, 2))), rtol=1e-5)
    found = told(dims=second, formula=lambda state: state.tokens[:, 0])["size"]
    assert found.dims == second
    np.testing.assert_allclose(found[:, :-1], sizes(lambda x: x[:, 0]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="must give numbers over"):
        told(dims=second)


@row(MEASURE, "of", "state", "attention", "the formula is given a layer, or a block")
def of(first, second):
    assert told(of=first)["size"].dims == LAYER
    found = told(of=second, dims=HEAD, formula=lambda block: block.importance.amax(-1))["size"]
    np.testing.assert_allclose(found, np.stack([importance("llama", ids).max(-1) for ids in IDS]), rtol=1e-4)


def mean(state):
    """Mean entry of a layer, (b,)."""
    return state.tokens.mean((1, 2))


@row(MEASURE, "formula", size, mean, "the numbers are its answers")
def formula(first, second):
    for given, expected in ((first, lambda x: np.abs(x).max((1, 2))), (second, lambda x: x.mean((1, 2)))):
        np.testing.assert_allclose(told(formula=given)["size"][:, :-1], sizes(expected), rtol=1e-4, atol=1e-5)


@row(MEASURE, "extra", False, True, "says of the package's own measures who asks; one that is handed in is measured")
def extra(first, second):
    np.testing.assert_array_equal(told(extra=first)["size"], told(extra=second)["size"])


@row(MEASURE, "centred", False, True, "the tokens less the mean of the corpus are there, of all tokens but the first")
def centred(first, second):
    def largest(state):
        return state.centred[0].points.abs().amax((1, 2))

    with pytest.raises(AssertionError):
        told(centred=first, formula=largest)
    layers = [theirs("llama", tuple(ids))[0][:-1] for ids in IDS]
    middle = np.concatenate([states[:, 1:] for states in layers], 1).mean(1, keepdims=True)
    expected = np.stack([np.abs(states - middle).max((1, 2)) for states in layers])
    np.testing.assert_allclose(told(centred=second, formula=largest)["size"][:, :-1], expected, rtol=1e-4)
