"""Clusters followed through layers and time: against simulated clusters, and states of models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

import krause_dynamics as kd
from krause_dynamics.checkpoints import record, tracks
from tests import checkpoint_models as models

IDS = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7]]


def test_clusters_of_opinions_keep_their_number_from_start_to_end():
    """Hegselmann-Krause on a line: order is kept, so a track that lives at the end holds a stretch of agents."""
    run = kd.opinions.hegselmann_krause(np.linspace(0, 1, 41)[:, None], radius=0.103)
    labels = kd.clusters.labels(run.positions, 0.02)
    found = kd.clusters.track(labels)
    final = [np.flatnonzero(found.numbers[-1] == k) for k in np.unique(found.numbers[-1]) if k >= 0]
    assert len(final) > 2
    for members in final:
        np.testing.assert_array_equal(np.diff(members), 1)
    # Every merge that the events tell of ends a track with an heir, or begins one of single agents.
    ended = np.flatnonzero(found.last < len(labels) - 1)
    assert (found.heir[ended] >= 0).all()
    assert all(found.first[h] <= found.last[k] + 1 for k, h in zip(ended, found.heir[ended], strict=True))


def test_absent_points_and_states_without_clusters():
    found = kd.clusters.track([[0, 0, -1], [0, 1, 2], [0, 0, 0]])
    assert found.numbers.tolist() == [[0, 0, -1], [-1, -1, -1], [1, 1, 1]]
    assert (found.heir.tolist(), found.parent.tolist()) == ([-1, -1], [-1, -1])
    assert len(kd.clusters.track([[0, 1], [0, 1]])) == 0


def test_tracks_of_a_model_are_those_of_its_states():
    run = record(models.llama(), IDS, attention=None)
    found = tracks(run, radius=1.2)
    assert found["text"].values.tolist() == [str(i) for i in IDS[0]]
    for layer in range(4):
        labels = kd.clusters.find(run.positions[layer, 0].astype(float), 1.2, metric="chord").labels
        together = labels[:, None] == labels
        numbers = found["number"].values[layer]
        np.testing.assert_array_equal((numbers[:, None] == numbers) & (numbers >= 0), together & (together.sum(0) > 1))
    pixels = torch.randn(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    import transformers as hf

    config = hf.ViTConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=24, patch_size=8
    )
    seen = record(models.build(hf.ViTModel, config, 0), pixels)
    assert tracks(seen)["text"].values.tolist() == [str(i) for i in range(10)]
    with pytest.raises(ValueError, match="the run holds no token ids"):
        tracks(seen, tokenizer=object())


def test_exact_transport_is_the_linear_programme_and_bounds_the_sliced_one():
    found = kd.analyze(models.llama(), IDS, measures=["transport", "transport_exact"])
    states = record(models.llama(), IDS, attention=None).positions[:, 0].astype(float)
    assert np.isnan(found["transport_exact"][0, 0]).all()
    for layer in range(1, 4):
        for part, tokens in enumerate(("all", "without_first")):
            x, y = states[layer - 1, part:], states[layer, part:]
            costs = ((x[:, None] - y[None]) ** 2).sum(-1)
            n = len(x)
            ends = np.concatenate([np.kron(np.eye(n), np.ones(n)), np.kron(np.ones(n), np.eye(n))])
            cost = linprog(costs.ravel(), A_eq=ends, b_eq=np.full(2 * n, 1 / n)).fun
            size = np.sqrt((x**2).sum(-1).mean())
            exact = float(found["transport_exact"].sel(tokens=tokens)[0, layer])
            assert exact == pytest.approx(np.sqrt(cost) / size, rel=1e-5)
            assert float(found["transport"].sel(tokens=tokens)[0, layer]) <= exact * np.sqrt(states.shape[-1])
