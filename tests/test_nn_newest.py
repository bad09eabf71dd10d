"""A layer on the newest token as a function of rows: it answers as the layer does when it is called."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from krause_dynamics import TopK, Window
from krause_dynamics.nn import KrauseAttention
from krause_dynamics.nn.newest import attention_rows
from krause_dynamics.nn.rows import FEW, Read, rows_of

LAYERS = {
    "window and rank": {"neighbourhood": Window(5) & TopK(2), "sigma_per_head": True},
    "ties stay": {"neighbourhood": Window(6) & TopK(2, ties="keep")},
    "nobody ranks at first": {"neighbourhood": Window(6) & TopK(2, exempt=4)},
    "first tokens": {"neighbourhood": Window(3, prefix_tokens=2) & TopK(3)},
    "softmax over all": {"causal": True, "score": "dot"},
    "grouped queries": {"neighbourhood": Window(4) & TopK(3), "kv_heads": 2, "bias": False},
    "rotary, which is called": {"neighbourhood": Window(4), "rotary": 100.0},
    "a sink, which is called": {"neighbourhood": Window(4), "sink": True},
}


def layer_of(name, dtype=torch.float64):
    torch.manual_seed(0)
    return KrauseAttention(16, 4, **LAYERS[name]).to(dtype).eval()


@torch.no_grad()
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("name", list(LAYERS))
def test_rows_are_the_layer_called(name, batch):
    layer, read = layer_of(name), Read(batch, torch.float64)
    x = 2.0 * torch.randn(batch, 14, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    x[:, 3], x[:, 9] = x[:, 2], x[:, 8]  # equal keys: the earlier one wins a tie, in both
    attend, caches = attention_rows(layer, read), (layer.new_cache(), layer.new_cache())
    for i in range(14):
        expected = layer(x[:, i : i + 1], cache=caches[0])[:, 0].numpy()
        found = attend(x[:, i].numpy(), caches[1])
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)  # sums in another order
    assert [cache.seen for cache in caches] == [14, 14]


@torch.no_grad()
def test_a_nan_reaches_those_who_hear_it_and_nobody_else():
    layer, x = layer_of("window and rank"), torch.randn(1, 12, 16, dtype=torch.float64)
    x[0, 2, 0] = torch.nan
    attend, cache, whole = attention_rows(layer, Read(1, torch.float64)), layer.new_cache(), layer(x)[0]
    found = [bool(np.isnan(attend(x[:, i].numpy(), cache)).any()) for i in range(12)]
    assert found == whole.isnan().any(-1).tolist()
    assert found[2:7] == [True] * 5
    assert not found[11]


@torch.no_grad()
def test_a_token_that_is_told_from_padding_is_given_to_the_layer():
    layer, x = layer_of("window and rank"), torch.randn(2, 8, 16, dtype=torch.float64)
    valid = torch.ones(2, 8, dtype=torch.bool)
    valid[0, :3] = False
    cache, whole = layer.new_cache(), layer(x, key_valid=valid)
    layer(x[:, :7], key_valid=valid[:, :7], cache=cache)
    found = attention_rows(layer, Read(2, torch.float64))(x[:, 7].numpy(), cache)
    np.testing.assert_allclose(found, whole[:, 7].numpy(), rtol=1e-12, atol=1e-13)


@torch.no_grad()
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 4, FEW + 1])
@pytest.mark.parametrize(
    "module",
    [
        torch.nn.Linear(12, 30),
        torch.nn.Linear(12, 5, bias=False),
        torch.nn.LayerNorm(12, eps=0.1),
        torch.nn.LayerNorm(12, elementwise_affine=False),
        torch.nn.GELU(),
        torch.nn.GELU("tanh"),
        torch.nn.Sequential(torch.nn.Linear(12, 9), torch.nn.GELU(), torch.nn.Dropout(0.5), torch.nn.Tanh()),
    ],
    ids=str,
)
def test_a_module_as_a_function_of_rows_is_that_module(module, batch, threads):
    before, module = torch.get_num_threads(), module.double().eval()
    for weight in module.parameters():
        weight.copy_(torch.randn(weight.shape, dtype=torch.float64))
    x = 3.0 * torch.randn(batch, 12, dtype=torch.float64)
    try:
        torch.set_num_threads(threads)
        rows = rows_of(module, Read(batch, torch.float64))
    finally:
        torch.set_num_threads(before)
    np.testing.assert_allclose(rows(x.numpy()), module(x).numpy(), rtol=1e-12, atol=1e-13)
