"""Krause layers: geometry against a computation of its own in float64, and cases whose answers are known."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import confidence
from krause_dynamics.nn import KrauseAttention
from tests import checkpoint_models as models
from tests.test_checkpoints_own import Bare, language_model

IDS = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7]]


def test_a_decoder_of_the_package_by_hand():
    model = language_model().double()
    found = confidence(model, IDS)
    with torch.no_grad():
        states = model(torch.tensor(IDS), output_hidden_states=True).hidden_states
        for i, block in enumerate(model.layers):
            q, k, _ = (x[0].numpy() for x in block.attention.project(block.norm1(states[i])))
            for head in range(4):
                sigma = float(block.attention.sigma.flatten()[0])
                here = {name: float(found[name][0, i, head]) for name in found}
                distance = np.array([[np.sqrt(((a - b) ** 2).sum()) for b in k[head]] for a in q[head]])
                support = np.zeros((10, 10), bool)
                for row in range(10):
                    inside = list(range(max(0, row - 3), row + 1))
                    support[row, sorted(inside, key=lambda j: distance[row, j])[:3]] = True
                weights = np.where(support, np.exp(-(distance**2) / (2 * sigma**2)), 0)
                weights /= weights.sum(1, keepdims=True)
                graph = nx.from_numpy_array(support.astype(int), create_using=nx.DiGraph)
                closed = list(nx.attracting_components(graph))
                member = np.array([any(t in c for c in closed) for t in range(10)]) & (len(closed) > 1)
                mean = weights @ k[head]
                cosine = (k[head] * mean).sum(1) / np.linalg.norm(k[head], axis=1) / np.linalg.norm(mean, axis=1)
                near = np.degrees(np.arccos(np.clip(cosine, -1, 1))) <= 4.86
                assert here["sigma"] == pytest.approx(sigma, rel=1e-6)
                assert (here["window"], here["top_k"]) == (4, 3)
                assert here["heard"] == pytest.approx(support.sum() / 10)
                assert here["distance"] == pytest.approx(distance[support].mean() / sigma, rel=1e-5)
                assert here["groups"] == len(closed)
                assert here["blocks_apart"] == nx.number_weakly_connected_components(graph)
                assert here["share_separated"] == pytest.approx(member.mean())
                assert here["share_near_centroid"] == pytest.approx(near.mean())
                assert here["share_theorem"] == pytest.approx((near & member).mean())
                assert here["share_within_sigma"] == pytest.approx(
                    (np.where(support, distance, 0).max(1) <= sigma).mean()
                )
                assert here["separation"] == pytest.approx(sigma * np.sqrt(2 * np.log(100 * support.sum() / 10)))


def plain(neighbourhood, sigma=1.0):
    """One layer whose queries and keys are the tokens."""
    layer = KrauseAttention(2, 1, neighbourhood, sigma=sigma)
    model = Bare(lambda: layer)
    model.blocks = torch.nn.ModuleList(list(model.blocks)[:1])
    with torch.no_grad():
        for name, weight in layer.named_parameters():
            if weight.ndim == 2:
                weight.copy_(torch.eye(2).repeat(len(weight) // 2, 1))
            elif "sigma" not in name:
                weight.zero_()
    return model


def test_two_groups_that_do_not_hear_each_other_satisfy_the_theorem_and_one_does_not():
    directions = torch.tensor([[1.0, 0.0], [1.0, 0.02], [1.0, -0.02], [0.0, 1.0], [0.02, 1.0], [-0.02, 1.0]])
    model = plain(kd.TopK(3), sigma=0.25)
    found = confidence(model, (10.0 * directions)[None], blocks=list(model.blocks)).isel(sequence=0, block=0, head=0)
    assert (int(found["groups"]), int(found["groups_predicted"]), int(found["blocks_apart"])) == (2, 2, 2)
    assert float(found["share_theorem"]) == 1.0
    assert float(found["share_within_sigma"]) == pytest.approx(1 / 3)  # the middle of each: 0.2; ends are 0.4 apart
    model = plain(kd.Everyone(), sigma=1e3)
    found = confidence(model, (10.0 * directions)[None], blocks=list(model.blocks)).isel(sequence=0, block=0, head=0)
    assert (int(found["groups"]), int(found["groups_predicted"])) == (1, 1)
    assert float(found["share_separated"]) == float(found["share_theorem"]) == 0.0
    assert float(found["share_near_centroid"]) == 0.0  # all are 45 degrees off
    assert float(found["share_within_sigma"]) == 1.0


def test_weights_beyond_the_dtype_are_still_heard():
    """exp(-1e4) is 0 in any dtype, but the key is admitted: the two are one group."""
    x = torch.tensor([[[0.0, 0.0], [141.0, 0.0]]])
    model = plain(kd.Everyone(), sigma=1.0)
    found = confidence(model, x, blocks=list(model.blocks)).isel(sequence=0, block=0, head=0)
    assert int(found["groups"]) == 1
    assert int(found["groups_predicted"]) == 2


def test_a_model_without_krause_layers_is_refused_and_a_gated_one_has_its_branch():
    with pytest.raises(kd.UnsupportedModel, match="has no Krause layer"):
        confidence(models.llama(), IDS)
    gated = language_model(gate=True)
    assert confidence(gated, IDS)["block"].values.tolist() == [1, 2]
