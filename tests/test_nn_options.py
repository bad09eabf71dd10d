"""Options that a layer only passes on: each must reach the operation, beside the main path too."""

from __future__ import annotations

import pytest
import torch

from krause_dynamics.nn import KrauseAttention


def layer_of(**options):
    torch.manual_seed(0)
    return KrauseAttention(32, 4, window=16, **options).double().eval()


def tokens(batch=3, n=40, seed=0):
    return torch.randn(batch, n, 32, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("factor", [0.25, 2.0])
def test_a_distance_of_scaled_tokens_is_that_of_another_bandwidth(factor):
    """|c q - c k|^2 / (2 (c sigma)^2) = |q - k|^2 / (2 sigma^2); float64, log sigma is rounded once."""
    plain, scaled = layer_of(sigma=1.5), layer_of(sigma=1.5 * factor, project_scale=factor)
    torch.testing.assert_close(scaled(tokens()), plain(tokens()), rtol=1e-6, atol=1e-6)  # sigma is a float32
    for mine, theirs in zip(scaled.project(tokens())[:2], plain.project(tokens())[:2], strict=True):
        torch.testing.assert_close(mine, factor * theirs, rtol=0, atol=0)
    torch.testing.assert_close(scaled.project(tokens())[2], plain.project(tokens())[2], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("static", [False, True])
def test_marks_of_padding_move_with_their_beams(static):
    """Rows padded by 0, 9 and 25 tokens that hold NaN: whoever hears one of them answers NaN."""
    layer, x = layer_of(top_k=6), tokens()
    valid = torch.arange(40) >= torch.tensor([[0], [9], [25]])
    x[~valid] = float("nan")
    beams = torch.tensor([2, 0, 1])
    cache = layer.new_cache(static=static)
    layer(x[:, :30], cache=cache, key_valid=valid[:, :30])
    cache.reorder(beams)
    tail = layer(x[beams, 30:], cache=cache, key_valid=valid[beams, 30:])
    torch.testing.assert_close(tail, layer(x[beams], key_valid=valid[beams])[:, 30:], rtol=1e-11, atol=1e-11)
