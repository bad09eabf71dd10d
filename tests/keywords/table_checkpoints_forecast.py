"""kd.checkpoints.forecast: against the states that transformers returns."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords import over_sequences
from tests.keywords.row import row

FORECAST = "kd.checkpoints.forecast"
IDS = [[3, 14, 15, 9, 26, 5, 13, 8, 9, 7, 9, 3, 20, 21, 22, 23], [2, 7, 1, 8, 2, 8, 30, 31]]


@cache
def tiny(kind="llama"):
    pytest.importorskip("transformers")
    from tests import checkpoint_models

    return getattr(checkpoint_models, kind)()


def told(model="llama", inputs=IDS, **options):
    return kd.checkpoints.forecast(tiny(model), inputs, **options)


def contraction(kind, ids):
    """Residual after a block over that before, of the states that the model itself returns; not of the last block."""
    import torch

    with torch.no_grad():
        states = torch.stack(tiny(kind)(torch.tensor([ids]), output_hidden_states=True).hidden_states)[:-1, 0, 1:]
    off = (states - states.mean(1, keepdim=True)).norm(dim=(1, 2)) / states.norm(dim=(1, 2))
    return (off[1:] / off[:-1]).numpy()


def same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=1e-4)


@row(FORECAST, "model", "llama", "gpt2", "contraction of the states of that model")
def model(first, second):
    for kind in (first, second):
        found = told(kind)["contraction"].sel(side="measured")
        for i, ids in enumerate(IDS):
            np.testing.assert_allclose(found[i, :-1], contraction(kind, ids), rtol=1e-4)


@row(FORECAST, "inputs", IDS, IDS[::-1], "those of these sequences, in that order")
def inputs(first, second):
    for sequences in (first, second):
        found = told(inputs=sequences)["contraction"].sel(side="measured")
        for i, ids in enumerate(sequences):
            np.testing.assert_allclose(found[i, :-1], contraction("llama", ids), rtol=1e-4)


over_sequences.cutting(FORECAST, told, same, IDS)
over_sequences.batches(FORECAST, told, same, IDS)
over_sequences.options(FORECAST, told, same, IDS)
