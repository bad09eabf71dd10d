"""Kernels in Triton's interpreter; test_triton_interpreter.py runs this in a process of its own."""

import math

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate.calls import ATTEND
from krause_dynamics.forms.attention import kernel_operators, kernel_steps, listed
from krause_dynamics.forms.attention.call import Call, split_heads
from krause_dynamics.forms.attention.triton import launch, replay
from krause_dynamics.forms.attention.triton.primitives import INTERPRETED
from krause_dynamics.forms.attention.triton.tiling import Tiling
from krause_dynamics.interaction import random_keys
from krause_dynamics.interaction.reach import Reach
from tests.triton_oracle import dense, launched

assert INTERPRETED.value, "run with TRITON_INTERPRET=1"

NEIGHBOURHOODS = {
    "causal window": ({"left": 31, "right": 0, "top_k": 16}, 37),
    "centred window": ({"left": 20, "right": 15, "top_k": 9}, 63),
    "window only": ({"left": 20, "right": 0}, 37),
    "whole row": ({"right": 0, "top_k": 10}, 37),
    "plain softmax": ({}, 37),
    "grid with token": ({"grid": (6, 6, 1, "chebyshev"), "prefix": 1, "top_k": 4}, 37),
    "grid, no top-k": ({"grid": (6, 6, 2, "manhattan"), "prefix": 1}, 37),
    "grid, later queries": ({"grid": (4, 5, 2, "chebyshev"), "prefix": 2, "top_k": 6, "query_offset": 1}, 22),
    "wide grid neighbourhood": ({"grid": (6, 6, 5, "manhattan"), "prefix": 1, "top_k": 4}, 37),
    "later queries": ({"left": 20, "right": 0, "top_k": 8, "query_offset": 13}, 50),
    "prefix": ({"left": 10, "right": 5, "prefix": 3}, 37),
    "first tokens, some in the window of a later block": ({"left": 30, "right": 0, "first": 3}, 70),
    "first tokens, later than some queries": ({"left": 6, "right": 0, "first": 35, "query_offset": 9}, 70),
    "exempt row of two": ({"grid": (6, 6, 1, "chebyshev"), "prefix": 2, "top_k": 4, "exempt": 1}, 38),
    "exempt rows, later queries": (
        {"grid": (4, 5, 2, "chebyshev"), "prefix": 3, "top_k": 6, "exempt": 2, "query_offset": 1},
        23,
    ),
}


def problem(n, keys, *, batch=1, heads=2, kv_heads=1, d=16, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    q = torch.randn(batch, heads, n, d, generator=generator).to(dtype)
    k = torch.randn(batch, kv_heads, keys, d, generator=generator).to(dtype)
    v = torch.randn(batch, kv_heads, keys, d, generator=generator).to(dtype)
    scale = torch.tensor([0.3, 0.5])[None, :heads]
    bias = -0.1 * torch.rand(batch, heads, keys, generator=generator)
    return q, k, v, scale, bias


def compare(q, k, v, scale, bias, tolerance, **where):
    """Outputs, log-partitions and all gradients (also of the log-partition) against the dense definition in float64."""
    leaves = [x.clone().requires_grad_() for x in (q, k, v, bias, scale)]
    out, log_partition, _ = dense(leaves[0], leaves[1], leaves[2], scale=leaves[4], key_bias=leaves[3], **where)
    g = torch.randn(out.shape, generator=torch.Generator().manual_seed(5)).to(q.dtype)
    h = torch.randn(log_partition.shape, generator=torch.Generator().manual_seed(6))
    total = (out * g).sum() + (torch.where(torch.isfinite(log_partition), log_partition, 0.0) * h).sum()
    expected = torch.autograd.grad(total, leaves)
    found, z, selected = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    *gradients, rows = launch.backward(
        g, q, k, v, found, z, selected, scale=scale, key_bias=bias, grad_log_partition=h, **launched(**where)
    )
    assert torch.allclose(found.double(), out.double(), atol=tolerance, rtol=0)
    assert torch.allclose(z.double(), log_partition.double(), atol=tolerance, rtol=0)
    for name, value, reference in zip(("dq", "dk", "dv", "dbias"), gradients, expected[:4], strict=True):
        assert torch.allclose(value.double(), reference.double(), atol=4 * tolerance, rtol=4 * tolerance), name
    # A sum of a thousand products of order one.
    assert torch.allclose(rows.sum((0, 2)), expected[4][0], atol=100 * tolerance)


@pytest.mark.parametrize("name", NEIGHBOURHOODS)
def test_outputs_and_gradients(name):
    """Also an invalid key that holds NaN and infinity, grouped heads, one scale a head."""
    where, keys = NEIGHBOURHOODS[name]
    q, k, v, scale, bias = problem(keys - where.get("query_offset", 0), keys)
    bias[..., 5] = -math.inf
    k[:, :, 5] = math.nan
    v[:, :, 5] = math.inf
    compare(q, k, v, scale, bias, 5e-6, **where)


# Rows that are held, rows of all keys, the walk along short windows (half types), patches of a picture, several passes.
DISTANCES = {
    "causal window": torch.float32,
    "plain softmax": torch.float32,
    "window 12": torch.float16,
    "grid with token": torch.float32,
    "wide grid neighbourhood": torch.float32,
    "first tokens, some in the window of a later block": torch.float32,
}


@pytest.mark.parametrize(
    ("name", "together"),
    [
        ("causal window", True),
        ("plain softmax", False),
        ("window 12", False),
        ("window 12", True),
        ("grid with token", True),
        ("wide grid neighbourhood", False),
        ("first tokens, some in the window of a later block", True),
    ],
)
def test_distances(name, together):
    """Keys and scale have a second gradient, through -scale |k|^2 / 2; tokens apart, or parts of one tensor.

    In one case a scale for each head, then one for all heads three times: the third call repeats what the second
    recorded.
    """
    where = {"window 12": {"left": 11, "right": 0, "top_k": 5}}.get(name) or NEIGHBOURHOODS[name][0]
    dtype, kv_heads, reach = DISTANCES[name], 2 if name == "window 12" else 1, launched(**where)["reach"]
    generator = torch.Generator().manual_seed(3)
    whole = torch.randn(2, 37, 2 + 2 * kv_heads, 16, generator=generator).to(dtype).requires_grad_()
    g = torch.randn(2, 2, 37, 16, generator=generator).to(dtype)
    scales = [torch.tensor([[0.3, 0.5]]), *[torch.tensor([[0.4]])] * 3]
    for scale in scales if name == "causal window" else scales[:1] if together else scales[1:2]:
        scale.requires_grad_()
        q, k, v = split_heads(whole, kv_heads)
        call = Call(q, k, v, scale, True, reach, joint=whole if together else None)
        out, _ = kernel_steps.attend(call, tracked=True)
        found = torch.autograd.grad(out, (whole, scale), g)
        exact, wide = whole.detach().double().requires_grad_(), scale.detach().double().requires_grad_()
        q, k, v = split_heads(exact, kv_heads)
        bias = -0.5 * wide[..., None] * k.square().sum(-1).repeat_interleave(2 // kv_heads, 1)
        expected, *_ = dense(q, k, v, scale=wide, key_bias=bias, **where)
        # A sum over all pairs, whose terms cancel, loses a digit more than others do.
        tolerance, of_sum = (5e-6, 5e-5) if dtype == torch.float32 else (2e-3, 2e-2)
        assert torch.allclose(out.double(), expected, atol=tolerance, rtol=tolerance)
        theirs = torch.autograd.grad(expected, (exact, wide), g.double())
        assert (found[0].double() - theirs[0]).norm() / theirs[0].norm() < tolerance
        assert (found[1].double() - theirs[1]).norm() / theirs[1].norm() < of_sum


# Tiles of 32 keys and of 64; rows of the prefix, which hear all; a window and a rank besides; queries that come later.
RANDOM = {
    "with a token": (kd.RandomKeys(5, seed=2, tokens=37, prefix=1), 37, 0, torch.float32),
    "past, rank": (kd.RandomKeys(9, seed=7, prefix=2) & kd.Window(20) & kd.TopK(3), 40, 5, torch.float32),
    "wide tiles": (kd.RandomKeys(20, seed=1, tokens=70, prefix=1), 70, 0, torch.float16),
}


@pytest.mark.parametrize("name", RANDOM)
def test_random_keys_equal_the_definition(name):
    """Output, log-partition and gradients in float64; one key is padding that holds NaN and infinity.

    In one case three times: the third call repeats what the second recorded.
    """
    rule, m, offset, dtype = RANDOM[name]
    generator = torch.Generator().manual_seed(3)
    q, k, v = (torch.randn(2, 2, x, 16, generator=generator).to(dtype) for x in (m - offset, m, m))
    mass = torch.zeros(2, 2, m)
    mass[1, :, 6] = -math.inf
    scale = torch.tensor([[0.3, 0.5]])
    weights = torch.randn(q.shape, generator=generator).to(dtype)
    k[1, :, 6], v[1, :, 6] = math.nan, math.inf
    call = Call(q, k, v, scale, True, rule.reach, mass, offset=offset, mask_only=True)
    for _ in range(3 if name == "with a token" else 1):
        found = differentiated(lambda c: kernel_steps.attend(c, tracked=True), call, weights)
    wide = [x.double() for x in (q, k, v, scale)]
    wide[1][1, :, 6], wide[2][1, :, 6] = 0.0, 0.0
    exact = differentiated(
        ATTEND["reference"], call._replace(q=wide[0], k=wide[1], v=wide[2], scale=wide[3]), weights.double()
    )
    tolerance = 5e-6 if dtype == torch.float32 else 2e-3
    half = 0.5 * wide[3][..., None] * wide[0].square().sum(-1)  # the query's term, which joins later
    for mine, theirs in zip(found, (exact[0], exact[1] + half, *exact[2:]), strict=True):
        assert (mine.double() - theirs).norm() / theirs.norm() < 10 * tolerance


def test_a_query_that_is_no_number_and_hears_nobody_answers_nothing():
    """All of its own random keys are padding, others are there."""
    rule, m, row = kd.RandomKeys(4, tokens=36), 36, 9
    q, k, v, scale, bias = problem(m, m, kv_heads=2)
    bias[..., torch.from_numpy(random_keys.admitted(rule.reach, m)[row])] = -math.inf
    q[:, :, row] = math.nan
    bits = listed.bits(rule.reach.random, 0, m, m, q.device)
    out, z, _ = launch.forward(q, k, v, scale=scale, key_bias=bias, reach=rule.reach, listed=bits)
    assert not out[:, :, row].any()
    assert torch.isneginf(z[:, :, row]).all()
    assert torch.isfinite(z).sum() > z.numel() / 2


def differentiated(attend, call, weights):
    """Output, log-partition and gradients of queries, keys, values and scale."""
    leaves = [x.detach().clone().requires_grad_() for x in (call.q, call.k, call.v, call.scale)]
    out, log_partition = attend(call._replace(**dict(zip(("q", "k", "v", "scale"), leaves, strict=True))))
    return out.detach(), log_partition.detach(), *torch.autograd.grad((out * weights).sum(), leaves)


@pytest.mark.parametrize("together", [False, True])
def test_operators(together):
    """What the compiler is told of shapes, strides and gradients holds, and later calls are repeated from a record."""
    whole = torch.randn(1, 9, 4, 16, generator=torch.Generator().manual_seed(3)).requires_grad_()
    scale = torch.tensor([[0.3]]).requires_grad_()
    tokens = (whole, None, None) if together else [x.detach().requires_grad_() for x in split_heads(whole, 1)]
    arguments = (*tokens, scale, None, Reach(3, 0, top_k=2).numbers, True, 0, 1)
    checks = ("test_schema", "test_faketensor", "test_autograd_registration")
    torch.library.opcheck(torch.ops.krause_dynamics.kernels.default, arguments, test_utils=checks)
    replay._RECORDINGS.clear()
    for _ in range(3):
        out, *_ = kernel_operators.kernels(*arguments)
        out.backward(torch.ones(out.shape))
    assert [type(found).__name__ for found in replay._RECORDINGS.values()] == ["_Recording", "_Recording"]


@pytest.mark.parametrize(
    "where", [{"left": 31, "right": 0, "top_k": 16}, {"right": 0, "top_k": 10}, {"left": 9, "right": 9}]
)
def test_streaming_kernel_agrees(where, monkeypatch):
    monkeypatch.setattr(Tiling, "registers", lambda hood, keys: (False, False))
    q, k, v, scale, bias = problem(37, 37)
    bias[..., 7] = -math.inf
    compare(q, k, v, scale, bias, 5e-6, **where)


@pytest.mark.parametrize("tiles", [launch.Tiles(16, 16, 1), launch.Tiles(32, 32, 2), launch.Tiles(64, 64, 4)])
@pytest.mark.parametrize("ties", ["index", "keep"])
def test_selected_sets_on_integers(tiles, ties):
    """Scores of small integers are exact, so sets must be equal, ties and far keys included."""
    generator = torch.Generator().manual_seed(1)
    k = torch.randint(-2, 3, (6, 16), generator=generator).float()[torch.randint(0, 6, (1, 1, 65), generator=generator)]
    k[:, :, ::9] *= 30
    q = torch.randint(-2, 3, (1, 1, 65, 16), generator=generator).float()
    v = torch.randn(1, 1, 65, 16, generator=generator)
    bias = -0.125 * k.square().sum(-1)
    where = {"left": 31, "right": 0, "top_k": 13}
    expected = dense(q, k, v, scale=0.25, key_bias=bias, ties=ties, **where)
    out, z, selected = launch.forward(q, k, v, scale=0.25, key_bias=bias, tiles=tiles, **launched(ties=ties, **where))
    assert torch.equal(launch.selected_mask(selected, 65, **launched(**where)), expected[2])
    assert torch.allclose(out.double(), expected[0], atol=1e-5)
    assert torch.allclose(z.double(), expected[1], atol=1e-5)


@pytest.mark.parametrize(
    ("grid", "prefix", "top_k", "ties"),
    [
        ((4, 7, 2, "chebyshev"), 1, 8, "index"),
        ((5, 4, 3, "manhattan"), 0, 9, "keep"),
        ((3, 5, 1, "manhattan"), 3, 3, "index"),
    ],
)
def test_selected_sets_on_grids(grid, prefix, top_k, ties):
    """As for windows: few distinct keys of small integers, some far, so that sets are equal and ties many."""
    n = grid[0] * grid[1] + prefix
    generator = torch.Generator().manual_seed(1)
    k = torch.randint(-2, 3, (6, 16), generator=generator).float()[torch.randint(0, 6, (1, 1, n), generator=generator)]
    k[:, :, ::9] *= 30
    q = torch.randint(-2, 3, (1, 2, n, 16), generator=generator).float()
    v = torch.randn(1, 1, n, 16, generator=generator)
    bias = (-0.125 * k.square().sum(-1)).expand(1, 2, n)
    where = {"grid": grid, "prefix": prefix, "top_k": top_k}
    expected = dense(q, k, v, scale=0.25, key_bias=bias, ties=ties, **where)
    out, z, selected = launch.forward(q, k, v, scale=0.25, key_bias=bias, **launched(ties=ties, **where))
    assert torch.equal(launch.selected_mask(selected, n, **launched(**where)), expected[2])
    assert torch.allclose(out.double(), expected[0], atol=1e-5)
    assert torch.allclose(z.double(), expected[1], atol=1e-5)


def test_nan_on_grids():
    """A value that is NaN poisons the rows that select it and no other; a NaN key those that hear it."""
    grid, n = (4, 5, 1, "chebyshev"), 20
    q, k, v, scale, bias = problem(n, n, kv_heads=2)
    where = {"grid": grid, "top_k": 4}
    clean, _, selected = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    hears = dense(q, k, v, scale=scale, key_bias=bias, grid=grid)[2][0, 0, :, 8]
    takes = launch.selected_mask(selected, n, **launched(**where))[0, 1, :, 8]
    k[:, 0, 8] = math.nan
    v[:, 1, 8] = math.nan
    out = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))[0]
    assert out[:, 0, hears].isnan().all()
    assert out[:, 1, takes].isnan().all()
    assert torch.equal(out[:, 0, ~hears], clean[:, 0, ~hears])
    assert torch.equal(out[:, 1, ~takes], clean[:, 1, ~takes])


@pytest.mark.parametrize("where", [{"left": 15, "right": 0, "top_k": 5}, {"right": 0, "top_k": 6}])
def test_equal_scores_keep_the_earliest(where):
    q = torch.ones(1, 1, 40, 16)
    _, _, selected = launch.forward(q, q, q, scale=0.25, key_bias=None, **launched(**where))
    mask = launch.selected_mask(selected, 40, **launched(**where))
    for i in range(40):
        first = max(0, i - where.get("left", 40))
        assert mask[0, 0, i].nonzero().flatten().tolist() == list(range(first, min(i + 1, first + where["top_k"])))


def test_few_valid_keys_and_empty_rows():
    """Left padding: rows without a key answer 0, -inf, gradient 0; rows with fewer than k keys hear all of them."""
    q, k, v, scale, bias = problem(33, 33)
    bias[..., :12] = -math.inf
    k[:, :, :12] = math.nan
    v[:, :, :12] = math.nan
    where = {"left": 19, "right": 0, "top_k": 8}
    out, z, selected = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    assert not out[:, :, :12].any()
    assert torch.isneginf(z[:, :, :12]).all()
    dq, dk, *_ = launch.backward(out, q, k, v, out, z, selected, scale=scale, key_bias=bias, **launched(**where))
    assert not dq[:, :, :12].any()
    assert not dk[:, :, :12].any()
    compare(q, k, v, scale, bias, 5e-6, **where)


def test_nan_stays_where_it_is_heard():
    """NaN in a key and in a value: rows which admit them answer NaN, all others are untouched."""
    q, k, v, scale, bias = problem(40, 40, kv_heads=2)
    where = {"left": 7, "right": 0, "top_k": 8}
    clean = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))[0]
    k[:, 0, 30] = math.nan
    v[:, 1, 30] = math.nan
    out = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))[0]
    hears = torch.zeros(40, dtype=torch.bool)
    hears[30:38] = True
    assert out[:, :, hears].isnan().all()
    # Rows beside a NaN are summed once more, in another order.
    assert torch.allclose(out[:, :, ~hears], clean[:, :, ~hears], atol=1e-6)


@pytest.mark.parametrize("n", [1, 129])
def test_odd_lengths_and_strides(n):
    """One token, a length past two blocks; layout (batch, tokens, heads, dim), a head dimension that is padded."""
    where = {"left": 31, "right": 0, "top_k": 7}
    q, k, v, scale, bias = problem(n, n, d=20)
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v))
    out, z, _ = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    expected = dense(q, k, v, scale=scale, key_bias=bias, **where)
    assert torch.allclose(out.double(), expected[0], atol=5e-6)
    assert torch.allclose(z.double(), expected[1], atol=5e-6)


def test_half_precision():
    """Error against float64 on the selected set at most that of rounding inputs and weights to half precision."""
    q, k, v, scale, bias = problem(37, 37, dtype=torch.float16)
    where = {"left": 31, "right": 0, "top_k": 16}
    out, _, selected = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    chosen = launch.selected_mask(selected, 37, **launched(**where))
    expected = dense(q, k, v, scale=scale, key_bias=bias, chosen=chosen, **where)[0]
    assert (out.double() - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("ties", ["index", "keep"])
@pytest.mark.parametrize("top_k", [None, 9])
def test_decode(top_k, ties):
    q, k, v, scale, bias = problem(1, 45)
    k = k.round()
    q = q.round()
    bias[..., :3] = -math.inf
    k[:, :, :3] = math.nan
    scale = torch.tensor([[0.25, 0.5]])
    bias = (bias * 8).round() / 8
    rank = {"top_k": top_k or 0, "keep_ties": ties == "keep"}
    out, z = launch.decode(q, k, v, scale=scale, key_bias=bias, first=2, last=40, **rank)
    where = {"left": 39, "right": 0, "query_offset": 39}
    expected = dense(
        q, k[:, :, :40], v[:, :, :40], scale=scale, key_bias=bias[..., :40], top_k=top_k, ties=ties, **where
    )
    assert torch.allclose(out.double(), expected[0], atol=5e-6)
    assert torch.allclose(z.double(), expected[1], atol=5e-6)
