"""Vision models whose states are maps (rows, columns): SAM's windows with padding, KSwin's shifted ones; in float64."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import record
from krause_dynamics.models import KrauseSwin, KrauseSwinConfig
from tests.test_checkpoints_by_block import killed
from tests.test_checkpoints_windows import built as swin

PIXELS = np.random.default_rng(0).normal(size=(3, 3, 40, 40)).astype(np.float32)
SIZES = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 40, "patch_size": 4}
SIZES |= {"mlp_dim": 24, "output_channels": 8, "window_size": 4, "global_attn_indexes": [1]}
SAM = {
    "sam": (hf.SamVisionConfig, hf.SamVisionModel),
    "sam_hq": (hf.SamHQVisionConfig, hf.SamHQVisionModel),
}


def excited(model):
    """Weights that make attention far from even, also of relative places."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 or "rel_pos" in name:
                weight.normal_(std=0.3)
    return model.eval()


def sam(kind, implementation):
    config, model = SAM[kind]
    torch.manual_seed(0)
    return excited(model(config(**SIZES, attn_implementation=implementation)))


def kswin(**options):
    torch.manual_seed(0)
    sizes = {"image_size": (24, 32), "patch_size": 4, "hidden_size": 16, "depths": (3,), "heads": (2,), "window": 2}
    model = KrauseSwin(KrauseSwinConfig(**sizes, num_labels=3, **options)).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "position_bias" in name:
                weight.normal_()
    return model.eval()


def on_the_map(weights, side, size, shift=0):
    """Weights of windows (b x windows, heads, S, S) as (b, heads, T, T) by coordinates, and who shares a window.

    A window is a square of ``side`` of the map, first continued by padding to a multiple of it, then moved around its
    edges by ``shift``; padding is left out.
    """
    down, across = (-(-length // side) for length in size)
    apart = weights.reshape(-1, down * across, *weights.shape[1:])
    tokens = size[0] * size[1]
    whole, shared = np.zeros((len(apart), weights.shape[1], tokens, tokens)), np.zeros((tokens, tokens), bool)
    for window in range(down * across):
        top, left = divmod(window, across)
        moved = [(top * side + place // side + shift, left * side + place % side + shift) for place in range(side**2)]
        around = [(row >= down * side, column >= across * side) for row, column in moved]
        cells = [(row % (down * side), column % (across * side)) for row, column in moved]
        real = [i for i, (row, column) in enumerate(cells) if row < size[0] and column < size[1]]
        token = np.array([cells[i][0] * size[1] + cells[i][1] for i in real], int)
        together = np.array([[around[i] == around[j] for j in real] for i in real], bool).reshape(len(real), len(real))
        part = apart[:, window][..., real, :][..., real]
        whole[:, :, token[:, None], token] = np.where(together, part, 0.0)
        shared[token[:, None], token] = together
    return whole, shared


def agrees(extras, block, whole, shared):
    """Statistics of a block against the whole T x T weights (b, heads, T, T), which may leave a share to padding."""
    last = {name: values[block] for name, values in extras.items() if getattr(values, "ndim", 0) > 2}
    np.testing.assert_allclose(last["attention"], whole, atol=1e-6)
    np.testing.assert_allclose(last["importance"], whole.sum(-2) / shared.sum(0), atol=1e-5)
    np.testing.assert_allclose(last["learned_sink"], 1.0 - whole.sum((-2, -1)) / len(shared), atol=1e-5)
    among = whole / whole.sum(-1, keepdims=True)
    several = shared.sum(1) > 1
    entropy = -(among * np.log(np.where(among > 0, among, 1))).sum(-1)[..., several] / np.log(shared.sum(1)[several])
    np.testing.assert_allclose(last["entropy"], entropy.mean(-1), atol=1e-5)
    away = np.abs(np.subtract.outer(np.arange(len(shared)), np.arange(len(shared))))
    np.testing.assert_allclose(last["mean_distance"], (whole * away).sum(-1).mean(-1), rtol=1e-5)
    np.testing.assert_allclose(last["self_weight"], np.einsum("bhii->bh", whole) / len(shared), atol=1e-6)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("kind", SAM)
def test_sam_hears_windows_padding_and_in_one_block_the_whole_map(kind, implementation):
    model = sam(kind, implementation)
    run = record(model, PIXELS, attention="weights", batch_size=2)
    exact = sam(kind, "eager")
    exact.load_state_dict(model.state_dict())
    exact, seen = exact.double(), []
    for layer in exact.vision_encoder.layers if hasattr(exact, "vision_encoder") else exact.layers:
        layer.attn.register_forward_hook(lambda module, args, out: seen.append(out[1]))
        layer.register_forward_hook(lambda module, args, out: seen.append(out[0] if isinstance(out, tuple) else out))
    with torch.no_grad():
        exact(torch.from_numpy(PIXELS).double())
    for block, (weights, state) in enumerate(zip(seen[::2], seen[1::2], strict=True)):
        apart = weights.unflatten(0, (-1, 2)).numpy()
        whole, shared = on_the_map(apart, 10 if block == 1 else 4, (10, 10))
        agrees(run.extras, block, whole, shared)
        np.testing.assert_allclose(run.positions[block + 1], state.flatten(1, 2).numpy(), rtol=1e-3, atol=1e-4)
    padded = run.extras["learned_sink"].mean((1, 2))
    assert (padded > 0.05).tolist() == [True, False, True]
    assert np.isnan(run.extras["first_token_score"]).all((1, 2)).tolist() == [True, False, True]


def test_a_report_of_sam_and_its_forecast():
    model = sam("sam", "sdpa")
    found = kd.analyze(model, PIXELS)
    assert found.sizes["block"] == 3
    whole = record(model, PIXELS, attention="weights").extras
    np.testing.assert_allclose(found["entropy"], whole["entropy"].swapaxes(0, 1), atol=1e-6)
    assert any("padding of windows) take" in sentence for sentence in kd.report.findings(found))
    predicted, measured = kd.checkpoints.forecast(model, PIXELS)["contraction"].to_numpy()
    assert predicted.shape == measured.shape == (3, 3)
    assert np.isfinite(predicted).all()


@pytest.mark.parametrize("options", [{}, {"score": "dot"}, {"support": "window+top_k", "attention_top_k": 3}])
def test_kswin_hears_windows_and_shifted_windows(options):
    model = kswin(**options)
    pixels = np.random.default_rng(1).normal(size=(2, 3, 24, 32))
    run = record(model, pixels, blocks=list(model.layers[:3]), attention="weights")
    with torch.no_grad():
        out = model(torch.from_numpy(pixels), output_attentions=True, output_hidden_states=True)
    for block in range(3):
        shift = block % 2
        whole, shared = on_the_map(out.attentions[block].numpy(), 2, (6, 8), shift)
        agrees(run.extras, block, whole, shared)
        np.testing.assert_allclose(run.positions[block], out.hidden_states[block], rtol=1e-5, atol=1e-6)
    assert shared.sum(1).max() == 4
    with pytest.raises(kd.UnsupportedModel, match=r"list.model.layers.:2.. of KSwin"):
        kd.analyze(model, pixels)


@pytest.mark.parametrize("depth", [1, 2])
def test_swin_hears_padding_where_windows_reach_beyond_its_map(depth):
    """Of a stage transformers returns the weights of the last block: with two of them of shifted windows."""
    model = swin("swin", depth, 1, window=3)
    pixels = PIXELS[..., :32, :32]
    run = record(model, pixels, blocks=list(model.encoder.layers[0].blocks), attention="weights")
    exact = type(model)(model.config)
    exact.load_state_dict(model.state_dict())
    exact.set_attn_implementation("eager")
    with torch.no_grad():
        out = exact.double().eval()(torch.from_numpy(pixels).double(), output_attentions=True)
    agrees(run.extras, depth - 1, *on_the_map(out.attentions[0].numpy(), 3, (8, 8), depth - 1))
    assert run.extras["learned_sink"].min() > 0.01


def test_maps_are_kept_in_a_file_and_go_on_from_it(tmp_path, monkeypatch):
    model, file = sam("sam", "sdpa"), tmp_path / "half.npz"
    given = {"measures": ["default", "transport"], "batch_size": 2}
    whole = kd.analyze(model, PIXELS, checkpoint=tmp_path / "whole.npz", **given)
    killed(monkeypatch, 2, lambda: kd.analyze(model, PIXELS, checkpoint=file, **given))
    again = kd.analyze(model, PIXELS, checkpoint=file, **given)
    for name in whole.data_vars:
        np.testing.assert_array_equal(whole[name], again[name], err_msg=name)


def test_channels_first_are_no_tokens():
    """Of (batch, d, rows, columns) tokens would be channels; what is refused is said, with the states it has."""
    config = hf.VitDetConfig(hidden_size=16, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=4)
    model = hf.VitDetModel(config).eval()
    with pytest.raises(kd.UnsupportedModel, match="channels first, is not analysed"):
        record(model, PIXELS[..., :32, :32], attention=None)
    square = copy.deepcopy(config)
    square.patch_size = 2  # as many rows as channels
    with pytest.raises(kd.UnsupportedModel, match="channels first, is not analysed"):
        record(hf.VitDetModel(square).eval(), PIXELS[..., :32, :32], attention=None)
