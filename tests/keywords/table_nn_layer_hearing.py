"""KrauseAttention: who is heard, by a neighbourhood, its short forms and the words of the last release."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from tests.keywords.heads import allowed_of, cells, draw, same
from tests.keywords.row import row
from tests.keywords.table_nn_layer import CLOSE, X, layer, written


def hears(module, x=X, **rule):
    """The layer is the one written out with this rule, and its rule is what `kd.aggregate` computes."""
    same(module(x), written(module, x, **rule), **CLOSE)
    q, k, v = module.project(x)
    mean = kd.aggregate(module.interaction, q, k, v).mean
    same(module.out_proj(mean.transpose(1, 2).flatten(2)), module(x), **CLOSE)


@row(
    "kd.nn.KrauseAttention",
    "neighbourhood",
    None,
    kd.Window(3, two_sided=True) & kd.TopK(2),
    "everyone, or who the value admits, pair by pair; keywords beside it join it",
)
def neighbourhood(first, second):
    hears(layer(neighbourhood=first))
    hears(layer(neighbourhood=second), heard=allowed_of(6, 3, two_sided=True), top_k=2)
    hears(layer(neighbourhood=second, causal=True), heard=allowed_of(6, 2), top_k=2)
    sequence = np.repeat([0, 1], [2, 4])
    hears(layer(neighbourhood=kd.Segments(torch.tensor([0, 2, 6]))), heard=sequence[:, None] == sequence)
    with pytest.raises(ValueError, match=r"kd\.aggregate"):
        layer(neighbourhood=kd.Within(1.0))


@row("kd.nn.KrauseAttention", "window", None, 3, "the last 3 tokens, itself counted; of one alone the value projected")
def window(first, second):
    hears(layer(window=first))
    hears(layer(window=second), heard=allowed_of(6, second))
    module = layer(window=1)
    same(module(X), module.out_proj(module.v_proj(X)))


@row("kd.nn.KrauseAttention", "top_k", None, 2, "the highest scores of those heard; k beyond the row means all")
def top_k(first, second):
    hears(layer(top_k=first))
    hears(layer(top_k=second), top_k=second)
    hears(layer(top_k=second, window=4), top_k=second, heard=allowed_of(6, 4))
    hears(layer(top_k=9))


@row(
    "kd.nn.KrauseAttention", "causal", False, True, "True: no later tokens, so that decoding gives the rows of the pass"
)
def causal(first, second):
    hears(layer(causal=first))
    module = layer(causal=second)
    hears(module, heard=np.tri(6, dtype=bool))
    cache = module.new_cache()
    steps = [module(X[:, i : i + 1], cache=cache) for i in range(6)]
    same(torch.cat(steps, 1), module(X))
    with pytest.raises(ValueError, match="causal"):
        layer(causal=first).new_cache()


@row("kd.nn.KrauseAttention", "grid", None, (2, 4), "cells at most 2 rows and columns away, or as the Grid given says")
def grid(first, second):
    hears(layer(grid=first))
    picture = draw(2, 8, 8, seed=2)  # its first column does not hear its last
    hears(layer(grid=second), picture, heard=cells(2, 4, 2))
    hears(layer(grid=second[::-1]), picture, heard=cells(4, 2, 2))
    hears(layer(grid=kd.Grid(2, 3, 1, "manhattan")), heard=cells(2, 3, 1, manhattan=True))
    with pytest.raises(ValueError, match="whole pictures"):
        layer(grid=(2, 2))(X)


@row(
    "kd.nn.KrauseAttention",
    "old",
    {},
    {"side": "both"},
    "words of the last release mean what they meant, with a warning",
)
def old(first, second):
    hears(layer(window=3, **first), heard=allowed_of(6, 3))
    with pytest.warns(DeprecationWarning, match=r"Window\(3, two_sided=True\)"):
        module = layer(window=3, **second)
    hears(module, heard=allowed_of(6, 3, two_sided=True))
    with pytest.warns(DeprecationWarning, match="Grid"):
        module = layer(grid=(2, 3), radius=1, metric="manhattan")
    hears(module, heard=cells(2, 3, 1, manhattan=True))
    with pytest.warns(DeprecationWarning, match="ties='keep'"):
        module = layer(top_k=2, ties="keep")
    with torch.no_grad():
        module.k_proj.weight.zero_()
    same(module(X), written(module, X), **CLOSE)  # all keys are one, and so all stay
    with pytest.raises(TypeError, match="windows"):
        layer(windows=3)
