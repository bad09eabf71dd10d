"""kd.checkpoints.confidence: bandwidths, reach and supports of Krause layers."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords import over_sequences
from tests.keywords.row import row

CONFIDENCE = "kd.checkpoints.confidence"
IDS = [[3, 14, 15, 9, 26, 5, 13, 8, 9, 7, 9, 3, 20, 21, 22, 23], [2, 7, 1, 8, 2, 8, 30, 31]]


@cache
def language_model(sigma=2.0):
    pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    config = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "sigma": sigma}
    model = kd.models.KrauseLM(kd.models.KrauseLMConfig(**config, window=4, attention_top_k=3))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(20.0)
    return model.eval()


def told(model=2.0, inputs=IDS, **options):
    return kd.checkpoints.confidence(language_model(model) if isinstance(model, float) else model, inputs, **options)


def same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=2e-3, atol=1e-4)


@row(CONFIDENCE, "model", 2.0, 3.0, "bandwidth and reach are those of the model")
def model(first, second):
    for sigma in (first, second):
        found = told(sigma)
        np.testing.assert_allclose(found["sigma"], sigma, rtol=1e-6)
        np.testing.assert_array_equal(found["window"], 4)
        np.testing.assert_array_equal(found["top_k"], 3)


class Layer:
    """A module of one's own: two layers of unlike reach in a row."""

    @staticmethod
    def build():
        import torch

        torch.manual_seed(0)
        return torch.nn.Sequential(kd.nn.KrauseAttention(8, 2, kd.Window(3)), kd.nn.KrauseAttention(8, 2, kd.Window(5)))


@row(CONFIDENCE, "blocks", [0, 1], [0], "those modules are blocks, in that order; the others are not looked at")
def blocks(first, second):
    pytest.importorskip("transformers")
    import torch

    module = Layer.build()
    for wanted in (first, second):
        found = kd.checkpoints.confidence(module, torch.randn(1, 9, 8), blocks=[module[i] for i in wanted])
        assert found["window"][0, :, 0].values.tolist() == [(3, 5)[i] for i in wanted]


@row(CONFIDENCE, "inputs", IDS, IDS[::-1], "those of these sequences: keys heard are 1, 2 and then 3 a token")
def inputs(first, second):
    for sequences in (first, second):
        heard = told(inputs=sequences)["heard"]
        for i, ids in enumerate(sequences):
            np.testing.assert_allclose(heard[i], (1 + 2 + 3 * (len(ids) - 2)) / len(ids))


over_sequences.cutting(CONFIDENCE, told, same, IDS)
over_sequences.batches(CONFIDENCE, told, same, IDS)
over_sequences.options(CONFIDENCE, told, same, IDS)
