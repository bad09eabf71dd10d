"""Attention within windows of pictures: against the weights that models return, placed by coordinates, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import record

SIDE, WINDOW = 8, 4
PIXELS = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
FAMILIES = {
    "swin": (hf.SwinConfig, hf.SwinModel),
    "swinv2": (hf.Swinv2Config, hf.Swinv2Model),
    "donut": (hf.DonutSwinConfig, hf.DonutSwinModel),
}


def built(kind, *depths, window=WINDOW):
    config, model = FAMILIES[kind]
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": list(depths)}
    sizes["num_heads"] = [2] * len(depths)
    found = model(config(**sizes, window_size=window)).eval()
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if weight.ndim == 2:
                weight.mul_(8.0)
            if "bias_table" in name:
                weight.normal_()
    return found


def placed(weights, shift):
    """Weights of windows (b x windows, heads, S, S) as (b, heads, T, T), and who shares a window; by coordinates."""
    b, (_, heads, size, _) = len(PIXELS), weights.shape
    per = SIDE // WINDOW
    apart = weights.double().numpy().reshape(b, per * per, heads, size, size)
    whole = np.zeros((b, heads, SIDE**2, SIDE**2))
    shared = np.zeros((SIDE**2, SIDE**2), bool)
    for window in range(per * per):
        top, left = divmod(window, per)
        cells = [divmod(place, WINDOW) for place in range(size)]
        moved = [(top * WINDOW + row, left * WINDOW + column) for row, column in cells]
        token = np.array([(row + shift) % SIDE * SIDE + (column + shift) % SIDE for row, column in moved])
        beyond = [(row + shift >= SIDE, column + shift >= SIDE) for row, column in moved]  # came around an edge
        whole[:, :, token[:, None], token] = apart[:, window].transpose(0, 1, 2, 3)
        shared[token[:, None], token] = [[one == other for other in beyond] for one in beyond]
    return whole, shared


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kind", FAMILIES)
def test_weights_within_windows_and_shifted_windows(kind, depth):
    """Models return the weights of a stage's last block: with one block unshifted windows, with two shifted ones."""
    model = built(kind, depth, 1)
    blocks = list(model.encoder.layers[0].blocks)
    run = record(model, PIXELS, blocks=blocks, attention="weights", batch_size=2)
    given = {"pixel_values": torch.from_numpy(PIXELS)}
    with torch.no_grad():
        eager = type(model)(model.config)
        eager.load_state_dict(model.state_dict())
        eager.set_attn_implementation("eager")
        out = eager.eval()(**given, output_attentions=True, output_hidden_states=True)
    whole, shared = placed(out.attentions[0], WINDOW // 2 if depth == 2 else 0)
    assert shared.sum(1).min() < shared.sum(1).max() or depth == 1
    last = {name: values[-1] for name, values in run.extras.items() if getattr(values, "ndim", 0) > 2}
    np.testing.assert_allclose(last["attention"], whole, atol=1e-6)
    np.testing.assert_allclose(last["importance"], whole.sum(-2) / shared.sum(0), atol=1e-5)
    entropy = -(whole * np.log(np.where(whole > 0, whole, 1))).sum(-1) / np.log(shared.sum(1))
    np.testing.assert_allclose(last["entropy"], entropy.mean(-1), atol=1e-5)
    away = np.abs(np.arange(SIDE**2)[:, None] - np.arange(SIDE**2))
    np.testing.assert_allclose(last["mean_distance"], (whole * away).sum(-1).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(last["distance_profile"][..., :2].sum(-1), whole[..., away <= 1].sum(-1) / 64, atol=1e-5)
    np.testing.assert_allclose(last["self_weight"], np.einsum("bhii->bh", whole) / 64, atol=1e-6)
    counted = np.where(shared.sum(0) >= 8, whole.sum(-2) / shared.sum(0), -1)  # corners of a shifted map share four
    np.testing.assert_array_equal(last["strongest_key"], counted.argmax(-1))
    quarter = [whole[..., rows, 0].sum(-1) / max(1, shared[rows, 0].sum()) for rows in np.split(np.arange(64), 4)]
    seen = [shared[rows, 0].any() for rows in np.split(np.arange(64), 4)]
    expected = np.where(seen, np.stack(quarter, -1), np.nan)
    np.testing.assert_allclose(last["first_by_quarter"], expected, atol=1e-5)
    assert np.isnan(last["published_importance"]).all()
    assert np.isnan(last["first_token_score"]).all()


def test_a_window_that_holds_the_whole_map_is_full_attention():
    """Then published scores are those of full attention, and a window is asked for nothing."""
    model = built("swin", 2, window=SIDE)
    run = record(model, PIXELS, blocks=list(model.encoder.layers[0].blocks), attention="weights")
    weights = run.extras["attention"].astype(float)
    np.testing.assert_allclose(run.extras["importance"], weights.mean(-2), atol=1e-6)
    np.testing.assert_allclose(run.extras["published_importance"], weights.mean(-2), atol=1e-6)
    np.testing.assert_allclose(run.extras["first_token_score"], weights[..., 1:, 0].mean(-1), atol=1e-6)


def test_statistics_need_no_maps_and_go_into_a_report(tmp_path):
    model = built("swinv2", 2, 1)
    blocks = list(model.encoder.layers[0].blocks)
    before = model.config._attn_implementation
    full = record(model, PIXELS, blocks=blocks, attention="weights").extras
    found = kd.analyze(model, PIXELS, blocks=blocks)
    np.testing.assert_allclose(found["importance_first"], full["importance"][..., 0].swapaxes(0, 1), atol=1e-6)
    np.testing.assert_allclose(found["entropy"], full["entropy"].swapaxes(0, 1), atol=1e-6)
    np.testing.assert_allclose(found["mean_distance"], full["mean_distance"].swapaxes(0, 1), rtol=1e-5)
    assert "within each window" in " ".join(kd.report.legend(found))
    kd.report.findings(found)
    kept = kd.analyze(model, PIXELS, blocks=blocks, checkpoint=tmp_path / "kept.npz")
    np.testing.assert_allclose(kept["entropy"], found["entropy"], atol=1e-6)
    assert model.config._attn_implementation == before


def test_blocks_of_several_stages_are_refused_with_a_way_out():
    model = built("swin", 2, window=3)
    blocks = list(model.encoder.layers[0].blocks)
    assert record(model, PIXELS, blocks=blocks, attention=None).positions.shape == (3, 3, 64, 16)
    with pytest.raises(kd.UnsupportedModel, match=r"blocks=list.model.encoder.layers.0..blocks."):
        kd.analyze(model, PIXELS)
