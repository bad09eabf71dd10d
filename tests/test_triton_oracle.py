"""The dense float64 definition of the kernel tests is `kd.aggregate(..., impl="reference")`, over its own arguments."""

from __future__ import annotations

import math

import pytest
import torch

import krause_dynamics as kd
from tests.triton_oracle import admitted, dense

N = 20
# Arguments of the oracle beside the neighbourhood that they mean.
WHERE = {
    "everyone": ({}, kd.Everyone()),
    "causal": ({"right": 0}, kd.Causal()),
    "window": ({"left": 4, "right": 0}, kd.Window(5)),
    "centred": ({"left": 3, "right": 3}, kd.Window(7, two_sided=True)),
    "patch": ({"grid": (4, 5, 1, "chebyshev")}, kd.Grid(4, 5, radius=1)),
    "diamond": ({"grid": (4, 5, 2, "manhattan")}, kd.Grid(4, 5, radius=2, metric="manhattan")),
    "patch and tokens": ({"grid": (3, 6, 1, "chebyshev"), "prefix": 2}, kd.Grid(3, 6, radius=1, prefix=2)),
}
RANKS = {
    "all": ({}, None),
    "best 3": ({"top_k": 3}, kd.TopK(3)),
    "ties": ({"top_k": 3, "ties": "keep"}, kd.TopK(3, ties="keep")),
    "more than there are": ({"top_k": 50}, kd.TopK(50)),
}


def problem(*, heads=2, kv_heads=1, queries=N, seed=0):
    """Whole eighths: scores are exact in float32, in which the oracle ranks, so that sets and ties are equal."""
    draw = torch.Generator().manual_seed(seed)
    q, k, v = (
        torch.randint(-8, 9, (2, h, n, 4), generator=draw).double() / 8
        for h, n in ((heads, queries), (kv_heads, N), (kv_heads, N))
    )
    return q, k, v


def reference(rule_of, q, k, v, scale, log_mass=None, offset=0):
    """Mean, log Z and support of the definition, one head after the other."""
    group = q.shape[1] // k.shape[1]
    outs, logs, supports = [], [], []
    for head in range(q.shape[1]):
        arrays = (q[:, head], k[:, head // group], v[:, head // group])
        index = {"query_index": torch.arange(q.shape[2]) + offset, "source_index": torch.arange(k.shape[2])}
        given = index | {"log_mass": None if log_mass is None else log_mass[:, head]}
        rule = rule_of(float(scale[head]))
        result = kd.aggregate(rule, *arrays, **given, impl="reference")
        outs.append(result.mean)
        logs.append(result.log_partition)
        supports.append(kd.weights(rule, *arrays[:2], **given) > 0)
    return torch.stack(outs, 1), torch.stack(logs, 1), torch.stack(supports, 1)


def agree(mine, theirs):
    """Both sum the same float64 terms; scores below 10."""
    for a, b in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-13, atol=1e-13)
    assert torch.equal(mine[2], theirs[2])


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("kv_heads", [1, 2])
def test_dot_products(where, rank, kv_heads):
    """One scale a head, heads that share keys."""
    q, k, v = problem(kv_heads=kv_heads)
    scale = torch.tensor([0.5, 0.25])
    near = WHERE[where][1] if RANKS[rank][1] is None else WHERE[where][1] & RANKS[rank][1]
    mine = dense(q, k, v, scale=scale[None], **WHERE[where][0], **RANKS[rank][0])
    agree(mine, reference(lambda beta: kd.softmax(beta, near), q, k, v, scale))


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("where", ["causal", "window", "patch"])
def test_distances_by_a_bias_of_keys(where, rank):
    """``a <q, k> - a |k|^2 / 2`` is the Gaussian's score but for the query's term, which joins log Z."""
    q, k, v = problem()
    sigma = 2.0
    near = WHERE[where][1] if RANKS[rank][1] is None else WHERE[where][1] & RANKS[rank][1]
    bias = (-0.5 * k.square().sum(-1) / sigma**2).expand(2, 2, N)
    out, log_partition, kept = dense(q, k, v, scale=sigma**-2, key_bias=bias, **WHERE[where][0], **RANKS[rank][0])
    log_partition = log_partition - 0.5 * q.square().sum(-1) / sigma**2
    theirs = reference(lambda _: kd.krause(sigma, near), q, k, v, [0.0, 0.0])
    agree((out, log_partition, kept), theirs)


@pytest.mark.parametrize("where", ["everyone", "window", "centred", "patch and tokens"])
def test_keys_that_are_absent_or_heavy(where):
    """A bias of -inf takes a key out whatever it holds, others are masses; some rows hear nobody."""
    q, k, v = problem()
    bias = -torch.randint(0, 9, (2, 2, N), generator=torch.Generator().manual_seed(1)).double() / 8
    bias[..., :6] = -math.inf
    expected = reference(lambda beta: kd.softmax(beta, WHERE[where][1]), q, k, v, [0.5, 0.5], bias)
    k[:, :, :6], v[:, :, :6] = math.nan, math.inf
    agree(dense(q, k, v, scale=0.5, key_bias=bias, **WHERE[where][0]), expected)


@pytest.mark.parametrize("rank", RANKS)
def test_later_queries(rank):
    q, k, v = problem(queries=7)
    near = kd.Window(5) if RANKS[rank][1] is None else kd.Window(5) & RANKS[rank][1]
    mine = dense(q, k, v, scale=0.5, left=4, right=0, query_offset=13, **RANKS[rank][0])
    agree(mine, reference(lambda beta: kd.softmax(beta, near), q, k, v, [0.5, 0.5], offset=13))


@pytest.mark.parametrize("where", ["window", "patch"])
def test_gradients(where):
    """Of outputs and log-partitions with respect to queries, keys and values."""
    q, k, v = (x.requires_grad_() for x in problem(heads=1))
    mine = dense(q, k, v, scale=0.5, top_k=3, **WHERE[where][0])
    theirs = reference(lambda beta: kd.softmax(beta, WHERE[where][1] & kd.TopK(3)), q, k, v, [0.5])
    draw = torch.Generator().manual_seed(2)
    factors = [torch.randn(x.shape, generator=draw, dtype=torch.float64) for x in mine[:2]]
    gradients = [
        torch.autograd.grad(sum((x * f).sum() for x, f in zip(result[:2], factors, strict=True)), (q, k, v))
        for result in (mine, theirs)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_a_chosen_set_is_taken_as_it_is():
    """Sums over exactly that set, whatever the ranking says: here the definition on a network of the same pairs."""
    q, k, v = problem(heads=1)
    chosen = torch.rand(N, N, generator=torch.Generator().manual_seed(3)) < 0.3
    chosen[4] = False
    mine = dense(q, k, v, scale=0.5, chosen=chosen.expand(2, 1, N, N))
    agree(mine, reference(lambda beta: kd.softmax(beta, kd.Graph(chosen.numpy())), q, k, v, [0.5]))


@pytest.mark.parametrize("where", WHERE)
def test_who_hears_whom_before_anything_is_ranked(where):
    given, near = WHERE[where]
    x = torch.zeros(1, N, 1, dtype=torch.float64)
    assert torch.equal(admitted(N, N, **given), kd.weights(kd.softmax(1.0, near), x)[0] > 0)
