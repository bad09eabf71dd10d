"""Attention by branch: against sums over the branches' own weights in float64, written out."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("transformers")

import krause_dynamics as kd  # noqa: E402
from krause_dynamics.models import add_krause_branch, branch_statistics, branch_weights  # noqa: E402
from krause_dynamics.models.gated_record import gates  # noqa: E402
from krause_dynamics.nn.attention import WATCHERS  # noqa: E402
from tests import checkpoint_models  # noqa: E402
from tests.model_sizes import PATCHES, gated_base, words  # noqa: E402

WINDOW = 6


def adapted(family="llama", **settings):
    """A decoder with a branch that has learned something, in float64."""
    torch.manual_seed(0)
    model = add_krause_branch(gated_base(family), **{"window": WINDOW, "top_k": 3, "sigma": 1.5, **settings}).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_krause" in name:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


def language_model():
    torch.manual_seed(0)
    config = {"vocab_size": 23, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = kd.models.KrauseLM(kd.models.KrauseLMConfig(**config, window=WINDOW, attention_top_k=3, gate=True)).double()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(20.0)
    return model.eval()


def expected(weights, seen, share):
    """What is told of weights (b, h, T, T), of pairs in reach (T, T) and shares (b, T) of one branch."""
    n = weights.shape[-1]
    queries = seen.sum(0)
    even = seen / seen.sum(1, keepdims=True)
    entropy = -np.where(weights > 0, weights * np.log(np.where(weights > 0, weights, 1)), 0).sum(-1)
    several = seen.sum(1) > 1
    alpha = weights.sum(-2) / queries
    return {
        "importance_first": alpha[..., 0],
        "published_importance_first": weights[..., 0].sum(-1) / n,
        "first_token_score": weights[..., 1:, 0].mean(-1),
        "entropy": (entropy / np.log(np.maximum(seen.sum(1), 2)))[..., several].mean(-1),
        "self_weight": np.diagonal(weights, axis1=-2, axis2=-1).mean(-1),
        "even_importance_first": np.full(weights.shape[:2], even[:, 0].sum() / queries[0]),
        "even_first_token_score": np.full(weights.shape[:2], even[1:, 0].mean()),
        "gate": share.mean(-1),
        "gate_spread": share.std(-1),
    }


@pytest.mark.parametrize("build", [adapted, language_model, lambda: adapted("qwen2")])
def test_each_branch_and_both_together(build):
    model, x, n = build(), words(17), 17
    found = branch_statistics(model, x.numpy(), batch_size=1)
    assert found["branch"].values.tolist() == ["softmax", "krause", "mixed"]
    maps, i = branch_weights(model, x), np.arange(n)
    causal = (i[:, None] >= i).astype(float)
    window = causal * (i[:, None] - i < WINDOW)
    for block in range(2):
        softmax, krause, gate = (part[block].double().numpy() for part in maps)
        mixed = gate[:, None, :, None, 0] * softmax + gate[:, None, :, None, 1] * krause
        told = {
            "softmax": expected(softmax, causal, gate[..., 0]),
            "krause": expected(krause, window, gate[..., 1]),
        }
        # Together: a query counts with the share of the branches that can see the key.
        by_query = gate[..., 0, None] * causal + gate[..., 1, None] * window  # (b, T, T)
        even = (
            gate[..., 0, None] * causal / causal.sum(1)[:, None] + gate[..., 1, None] * window / window.sum(1)[:, None]
        )
        told["mixed"] = expected(mixed, causal, np.ones_like(gate[..., 0])) | {
            "importance_first": mixed.sum(-2)[..., 0] / by_query.sum(1)[:, None, 0],
            "even_importance_first": np.broadcast_to(even.sum(1)[:, None, 0] / by_query.sum(1)[:, None, 0], (2, 4)),
            "even_first_token_score": np.broadcast_to(even[:, 1:, 0].mean(1)[:, None], (2, 4)),
        }
        for branch, values in told.items():
            here = found.sel(branch=branch, block=block + 1)
            for name, value in values.items():
                np.testing.assert_allclose(here[name], value, atol=2e-6, err_msg=f"{branch} {name}")


def test_a_window_is_not_taken_for_the_absence_of_a_sink():
    """Even attention in a window and even attention to all: unlike scores, each equal to its own expectation."""
    model = adapted(window=4, top_k=4, sigma=1e6)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.q_proj.weight.zero_()
    found = branch_statistics(model, words(16).numpy())
    for branch, (alpha, score) in {
        "softmax": (np.sum(1 / np.arange(1, 17)) / 16, np.sum(1 / np.arange(2, 17)) / 15),
        "krause": ((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, (1 / 2 + 1 / 3 + 1 / 4) / 15),
    }.items():
        here = found.sel(branch=branch)
        for name, value in (("importance_first", alpha), ("first_token_score", score)):
            np.testing.assert_allclose(here[name], value, atol=1e-6)
            np.testing.assert_allclose(here[f"even_{name}"], value, atol=1e-6)
    assert found["first_token_score"].sel(branch="krause").max() < 0.08


def test_a_model_of_one_branch_has_the_numbers_of_its_analysis():
    krause = kd.models.KrauseLM(
        kd.models.KrauseLMConfig(
            vocab_size=23, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, window=6, attention_top_k=3
        )
    ).eval()
    torch.manual_seed(0)
    picture = kd.models.KrauseViT(kd.models.KrauseViTConfig(**PATCHES, attention_top_k=3)).eval()
    height, width = picture.config.pixels
    for name, model, inputs in (
        ("krause", krause, words(17).numpy()),
        ("softmax", checkpoint_models.llama(), [[3, 14, 15, 9, 26, 5], [7, 7, 1]]),
        ("softmax", checkpoint_models.mistral(), [[3, 14, 15, 9, 26, 5], [7, 7, 1]]),
        ("krause", picture, torch.randn(1, 3, height, width)),
    ):
        found, analysis = branch_statistics(model, inputs), kd.analyze(model, inputs)
        assert found["branch"].values.tolist() == [name]
        for key in ("importance_first", "first_token_score", "entropy", "mean_distance", "sink_rate"):
            np.testing.assert_allclose(found[key][0], analysis[key], atol=2e-5, err_msg=f"{name} {key}")
        np.testing.assert_array_equal(found["gate"], 1.0)


def test_blocks_of_one_branch_each_are_told_apart():
    """One of three layers krausified: each branch has its own blocks, with the numbers of the analysis."""
    model = kd.models.krausify(checkpoint_models.llama(), window=4, top_k=3, layers=[1])
    found, analysis = (take(model, [list(range(1, 13))]) for take in (branch_statistics, kd.analyze))
    for branch, blocks in (("softmax", [1, 3]), ("krause", [2])):
        here = found["first_token_score"].sel(branch=branch)
        np.testing.assert_allclose(here.sel(block=blocks), analysis["first_token_score"].sel(block=blocks), atol=1e-5)
        assert np.isnan(here.drop_sel(block=blocks)).all()
        assert (found["strongest_key"].sel(branch=branch).drop_sel(block=blocks) == -1).all()


def test_what_one_cannot_tell_apart_is_refused_and_nobody_watches_afterwards():
    model = adapted()
    model.model.layers[1].self_attn.o_proj_krause.register_forward_pre_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        branch_statistics(model, words(9).numpy())
    assert WATCHERS == []
    assert all(not gate._forward_pre_hooks for gate in gates(model))
    with pytest.raises(kd.UnsupportedModel, match="attends with softcap"):
        branch_statistics(checkpoint_models.gemma2(), [[1, 2, 3]])
