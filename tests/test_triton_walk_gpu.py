"""Kernels of several passes on a GPU against the dense float64 definition: no top-k, and top-k over long rows.

Tokens and tolerances are those of test_triton_gpu.py: scores are exact in float32, so a wrong set shows in the output.
"""

import math

import pytest
import torch

from tests.test_triton_gpu import BRAIN, HALF, SINGLE, TOLERANCE, launch, poisoned_memory, tokens
from tests.triton_oracle import dense, launched

__all__ = ["poisoned_memory"]
pytestmark = pytest.mark.gpu
# Neighbourhood, shapes, whether there is a key bias.
SOFT = {
    "window": ({"left": 127, "right": 0}, {"n": 1000}, True),
    "short, both sides": ({"left": 15, "right": 16}, {"n": 333, "kv_heads": 1}, True),
    "causal, no bias": ({"right": 0}, {"n": 777}, False),
    "everything, small heads": ({}, {"n": 300, "d": 16, "dtype": HALF}, True),
    "prefix, padded heads": ({"left": 40, "right": 9, "prefix": 70}, {"n": 500, "d": 80}, True),
    "large heads": ({"left": 90, "right": 0, "query_offset": 150}, {"n": 250, "keys": 400, "d": 256}, True),
    "float32": ({"left": 99, "right": 5}, {"n": 400, "dtype": SINGLE}, True),
}
LONG = {
    "long window": {"left": 599, "right": 0, "top_k": 100},
    "causal": {"right": 0, "top_k": 64},
    "prefix, ties kept": {"left": 100, "right": 30, "prefix": 3, "top_k": 20, "ties": "keep"},
}


def error(out, z, expected, log_partition):
    """Relative error of outputs; log-partitions must agree wherever there is one."""
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)
    return ((out.double() - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", SOFT)
def test_without_top_k(name):
    """Also keys that nobody hears, full of NaN and infinity, and a row's neighbour NaN in a value."""
    where, shape, biased = SOFT[name]
    q, k, v, bias = tokens("far", **shape)
    if biased:
        bias[..., 7] = -math.inf
        k[:, :, 7] = math.nan
        v[:, :, 7] = math.inf
    bias = bias if biased else None
    expected, log_partition, heard = dense(q, k, v, scale=1 / 16, key_bias=bias, **where)
    out, z, _ = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    assert error(out, z, expected, log_partition) < TOLERANCE[q.dtype]
    v[:, :, 200, -1] = math.nan
    touched, again, _ = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    assert touched.isnan().any(-1).equal(heard[..., 200])
    assert torch.allclose(again, z, atol=1e-4, rtol=1e-5)
    rest = ~heard[..., 200]
    # Computed once more in another order of sums: a unit of the output's type.
    assert torch.allclose(touched[rest].float(), out[rest].float(), rtol=TOLERANCE[q.dtype], atol=TOLERANCE[q.dtype])


@pytest.mark.parametrize("scale", [-1 / 16, 0.0])
def test_scales_that_are_not_positive(scale):
    q, k, v, _ = tokens("normal", 150)
    where = {"left": 20, "right": 3}
    expected, log_partition, _ = dense(q, k, v, scale=scale, **where)
    out, z, _ = launch.forward(q, k, v, scale=scale, **launched(**where))
    assert error(out, z, expected, log_partition) < TOLERANCE[BRAIN]


@pytest.mark.parametrize("kind", ["normal", "far", "eight", "equal"])
@pytest.mark.parametrize("name", LONG)
def test_long_rows(name, kind):
    """Gaussian tokens, far keys, eight different tokens, all tokens equal."""
    q, k, v, bias = tokens(kind, 1100)
    bias[..., 7] = -math.inf
    k[:, :, 7] = math.nan
    v[:, :, 7] = math.inf
    expected, log_partition, _ = dense(q, k, v, scale=1 / 16, key_bias=bias, **LONG[name])
    out, z, _ = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**LONG[name]))
    assert error(out, z, expected, log_partition) < TOLERANCE[BRAIN]
