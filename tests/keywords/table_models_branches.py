"""kd.models.branch_statistics: against the weights of both branches, and kd.analyze of the same sequences."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords import over_sequences
from tests.keywords.letters import Letters
from tests.keywords.row import row

BRANCHES = "kd.models.branch_statistics"
IDS = [[3, 14, 15, 9, 2, 5, 13, 8, 9, 7, 9, 3], [2, 7, 1, 8, 2, 8]]


@cache
def gated(seed=0):
    pytest.importorskip("transformers")
    import torch

    from tests.model_sizes import gated_base

    torch.manual_seed(seed)
    model = kd.models.add_krause_branch(gated_base("llama", seed), window=4, top_k=3, sigma=1.5)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_krause" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    return model.float().eval()


def told(model=0, inputs=IDS, **options):
    return kd.models.branch_statistics(gated(model) if isinstance(model, int) else model, inputs, **options)


def first_scores(seed, ids):
    """Mean weight of the first key over the other queries, by branch: (branch, block, head)."""
    import torch

    maps = kd.models.branch_weights(gated(seed), torch.tensor([ids]))
    mixed = [
        gate[:, None, :, None, 0] * a + gate[:, None, :, None, 1] * b
        for a, b, gate in zip(maps.softmax, maps.krause, maps.gate, strict=True)
    ]
    return np.stack([torch.stack(list(one))[:, 0, :, 1:, 0].mean(-1) for one in (maps.softmax, maps.krause, mixed)])


def same(one, other):
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)


@row(BRANCHES, "model", 0, 1, "first-token scores of that model's branches and of both together")
def model(first, second):
    for seed in (first, second):
        np.testing.assert_allclose(told(seed)["first_token_score"][:, 0], first_scores(seed, IDS[0]), atol=1e-5)


@row(BRANCHES, "inputs", IDS, IDS[::-1], "those of these sequences, in that order")
def inputs(first, second):
    for sequences in (first, second):
        found = told(inputs=sequences)["first_token_score"]
        for i, ids in enumerate(sequences):
            np.testing.assert_allclose(found[:, i], first_scores(0, ids), atol=1e-5)


@row(BRANCHES, "tokenizer", None, Letters(), "text becomes its ids; without one text is refused")
def tokenizer(first, second):
    same(told(inputs="abcab", tokenizer=second), told(inputs=[[1, 10, 11, 12, 10, 11]]))
    with pytest.raises(ValueError, match="tokenizer"):
        told(inputs="abcab", tokenizer=first)


@row(BRANCHES, "sequence_length", None, 6, "pieces of that many tokens are sequences")
def sequence_length(first, second):
    same(told(inputs=IDS[:1], sequence_length=second), told(inputs=[IDS[0][:6], IDS[0][6:]]))
    assert told(inputs=IDS[:1], sequence_length=first)["length"].values.tolist() == [12]


@row(BRANCHES, "max_sequences", None, 1, "the first ones alone")
def max_sequences(first, second):
    same(told(max_sequences=second), told(inputs=IDS[:second]))
    assert told(max_sequences=first).sizes["sequence"] == 2


@row(BRANCHES, "eps", (0.1, 0.2, 0.3, 0.5), (0.05, 0.12), "per cent of sequences in which alpha_0 exceeds it")
def eps(first, second):
    for thresholds in (first, second):
        found = told(eps=thresholds)
        alpha = found["importance_first"].values.astype(float)
        expected = 100 * (alpha[..., None] > np.array(thresholds)).mean(1)
        np.testing.assert_allclose(found["sink_rate"], expected)


@row(
    BRANCHES, "min_queries", 8, 1, "keys with fewer queries are no strongest key, those of the softmax branch at least"
)
def min_queries(first, second):
    keys = told(min_queries=first)["strongest_key"].sel(branch="softmax")
    assert (keys[0] <= 12 - first).all()
    assert (keys[1] == -1).all()  # six tokens
    assert (told(min_queries=second)["strongest_key"] >= 0).all()


over_sequences.batches(BRANCHES, told, same, IDS)
over_sequences.options(BRANCHES, told, same, IDS)
