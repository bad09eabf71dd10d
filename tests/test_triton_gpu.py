"""Kernels on a GPU against the dense float64 definition: sets, outputs, log-partitions, gradients, memory.

Inputs are multiples of 1/8 and scales powers of two, so that scores are exact in float32 whatever the order of sums:
selected sets must be equal, ties included. All memory that the kernels get is full of NaN beforehand.
"""

import math

import pytest
import torch

from tests.triton_oracle import dense, launched

pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from krause_dynamics.forms.attention.triton import launch  # noqa: E402

pytestmark = pytest.mark.gpu
WINDOW = {"left": 127, "right": 0, "top_k": 96}
SHORT = {"left": 31, "right": 0, "top_k": 16}
HALF, SINGLE, BRAIN = torch.float16, torch.float32, torch.bfloat16
# Relative errors: weights and their gradients are rounded to the inputs' type once before a product and once after,
# with units 2^-9, 2^-12 and 2^-24; the sums of many such errors stay within a few units.
TOLERANCE = {BRAIN: 8e-3, HALF: 1e-3, SINGLE: 5e-6}


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch):
    """torch.empty answers NaN (integers: all bits set), so that what a kernel fails to write is seen."""
    empty = torch.empty

    def poisoned(*shape, **options):
        x = empty(*shape, **options)
        return x.fill_(math.nan) if x.is_floating_point() else x.fill_(-1)

    monkeypatch.setattr(torch, "empty", poisoned)


def tokens(kind, n, *, heads=2, kv_heads=None, d=64, dtype=BRAIN, keys=None, seed=0):
    """q, k, v in the layout (batch, tokens, heads, dim) of projections, and the Gaussian bias for scale 1 / 16."""
    g = torch.Generator(device="cuda").manual_seed(seed)
    heard = (kv_heads or heads, keys or n)

    def rows(heads, n):
        return (torch.randn(1, n, heads, d, device="cuda", generator=g) * 8).round().div(8).to(dtype).transpose(1, 2)

    q, k, v = rows(heads, n), rows(*heard), rows(*heard)
    if kind == "far":
        k[:, :, ::9] *= 16
    if kind == "eight":
        few = torch.randint(-2, 3, (8, d), device="cuda", generator=g).to(dtype)
        k = few[torch.randint(0, 8, (1, *heard), device="cuda", generator=g)]
        q = k.repeat_interleave(heads // heard[0], 1)[:, :, -n:].clone()
    if kind == "equal":
        q, k = torch.ones_like(q), torch.ones_like(k)
    norms = k.float().square().sum(-1).repeat_interleave(heads // heard[0], 1)
    return q, k, v, -norms / 32


@pytest.mark.parametrize("where", [WINDOW, SHORT])
@pytest.mark.parametrize("kind", ["normal", "far", "eight", "equal"])
@pytest.mark.parametrize("n", [1, 63, 129, 1000])
def test_sets_and_outputs(where, kind, n):
    q, k, v, bias = tokens(kind, n)
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    expected, log_partition, ranked = dense(q, k, v, scale=1 / 16, key_bias=bias, **where)
    # Nothing is saved where no row can hear more than k keys.
    if n > where["top_k"]:
        assert torch.equal(launch.selected_mask(selected, n, **launched(**where)), ranked)
    assert (out.double() - expected).norm() / expected.norm() < TOLERANCE[BRAIN]
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)


# Neighbourhood, then shapes: every kernel of the backward pass (one walk or blocks; bit words, saved thresholds, none),
# every type, grouped heads, more keys than queries.
CASES = {
    "short window, grouped heads": (SHORT, {"n": 300, "dtype": BRAIN, "heads": 4, "kv_heads": 2}),
    "short window": (SHORT, {"n": 1000, "dtype": BRAIN}),
    "later queries": ({**SHORT, "query_offset": 100}, {"n": 45, "keys": 145, "dtype": BRAIN}),
    "float32": ({"left": 10, "right": 5, "top_k": 7}, {"n": 129, "dtype": SINGLE, "d": 16}),
    "centred, half precision": ({"left": 64, "right": 63, "top_k": 40}, {"n": 300, "dtype": HALF, "d": 128}),
    "window only": ({"left": 127, "right": 0}, {"n": 300, "dtype": BRAIN}),
    "first tokens": ({"left": 63, "right": 0, "first": 4}, {"n": 300, "dtype": BRAIN, "heads": 4, "kv_heads": 2}),
    "all keys": ({"right": 0, "top_k": 30}, {"n": 600, "dtype": BRAIN}),
    "all of few keys": ({"top_k": 4}, {"n": 50, "dtype": BRAIN}),
    "all of very few keys": ({"top_k": 3}, {"n": 20, "dtype": HALF}),
    "grid with token": ({"grid": (14, 14, 2, "chebyshev"), "prefix": 1, "top_k": 8}, {"n": 197, "dtype": BRAIN}),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients(name):
    """Of q, k, v, bias and scale, through output and log-partition; an invalid key holds NaN and infinity."""
    where, shape = CASES[name]
    q, k, v, bias = tokens("normal", **shape)
    bias[..., 7] = -math.inf
    k[:, :, 7] = math.nan
    v[:, :, 7] = math.inf
    scale = torch.tensor([[1 / 16, 1 / 8, 1 / 16, 1 / 32]], device="cuda")[:, : q.shape[1]]
    leaves = [x.double().requires_grad_() for x in (q, k, v, bias, scale)]
    expected, log_partition, _ = dense(*leaves[:3], scale=leaves[4], key_bias=leaves[3], **where)
    out, z, selected = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    tolerance = TOLERANCE[q.dtype]
    assert (out.double() - expected).norm() / expected.norm() < tolerance
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)
    g, h = torch.randn_like(q), torch.randn_like(z)
    given = {"scale": scale, "key_bias": bias, "grad_log_partition": h, **launched(**where)}
    *found, rows = launch.backward(g, q, k, v, out, z, selected, **given)
    total = (expected * g).sum() + (torch.where(log_partition.isfinite(), log_partition, 0.0) * h).sum()
    *gradients, of_scale = torch.autograd.grad(total, leaves)
    for what, value, reference in zip(("q", "k", "v", "bias"), found, gradients, strict=True):
        assert (value.double() - reference).norm() / reference.norm() < tolerance, what
    assert ((rows.sum(-1) - of_scale).abs() < tolerance * rows.abs().sum(-1)).all()
    again = launch.backward(g, q, k, v, out, z, selected, **given)
    assert all(torch.equal(a, b) for a, b in zip((*found, rows), again, strict=True))


def test_empty_rows_and_what_they_hold():
    """Left padding full of NaN and infinity: output 0, log-partition -inf, gradients 0, nothing leaks."""
    q, k, v, bias = tokens("normal", 1000)
    clean = [x.clone() for x in (q, k, v)]
    bias[..., :40] = -math.inf
    for x, y in zip((q, k, v), clean, strict=True):
        x[:, :, :40] = math.nan
        x[:, :, 3] = math.inf
        y[:, :, :40] = 0
    g = torch.randn_like(q)
    answers = []
    for arguments in ((q, k, v), clean):
        out, z, selected = launch.forward(*arguments, scale=1 / 16, key_bias=bias, **launched(**SHORT))
        assert not out[:, :, :40].any()
        assert torch.isneginf(z[:, :, :40]).all()
        g[:, :, :40] = math.nan if arguments is not clean else 0.0
        answers.append(
            launch.backward(g, *arguments, out, z, selected, scale=1 / 16, key_bias=bias, **launched(**SHORT))
        )
    # What had to be done again with care is summed in other tiles.
    for poisoned, expected in zip(*answers, strict=True):
        assert (poisoned.double() - expected.double()).norm() / expected.double().norm() < TOLERANCE[BRAIN]
    assert not any(x[:, :, :40].any() for x in answers[0])


def test_nan_reaches_those_who_hear_it():
    """A NaN in the incoming gradient, in a key and in a value: NaN exactly where the definition has it."""
    where = {**SHORT, "top_k": 32}
    q, k, v, bias = tokens("normal", 400)
    clean = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**SHORT))
    g = torch.randn_like(q)
    found = launch.backward(g, q, k, v, *clean, scale=1 / 16, key_bias=bias, **launched(**SHORT))
    g[:, :, 200] = math.nan
    touched = launch.backward(g, q, k, v, *clean, scale=1 / 16, key_bias=bias, **launched(**SHORT))
    heard = launch.selected_mask(clean[2], 400, **launched(**SHORT))[:, :, 200]
    row = torch.zeros_like(heard)
    row[..., 200] = True
    for value, before, there in zip(touched[:4], found[:4], (row, heard, heard, heard), strict=True):
        assert (value.isnan() if value.dim() == 3 else value.isnan().all(-1)).equal(there)
        # What had to be done again with care is summed in other tiles.
        kept = before[~there].double()
        assert (value[~there].double() - kept).norm() / kept.norm() < TOLERANCE[BRAIN]
    v[:, :, 100] = math.nan
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    dq = launch.backward(
        torch.ones_like(q), q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **launched(**where)
    )[0]
    assert dq.isnan().all(-1).nonzero()[:, 2].unique().tolist() == list(range(100, 132))


@pytest.mark.parametrize("dtype", [BRAIN, HALF, SINGLE])
def test_one_token(dtype):
    """Decoding from a ring of which some slots are unused."""
    q, k, v, bias = tokens("normal", 1, heads=4, kv_heads=2, keys=130, dtype=dtype)
    bias[..., :5] = -math.inf
    k[:, :, :5] = math.nan
    out, z = launch.decode(q, k, v, scale=1 / 16, key_bias=bias, first=2, last=129, top_k=60)
    where = {"left": 126, "right": 0, "query_offset": 128, "top_k": 60}
    expected, log_partition, _ = dense(q, k, v, scale=1 / 16, key_bias=bias, **where)
    assert (out.double() - expected).norm() / expected.norm() < TOLERANCE[dtype]
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)


def test_memory_is_linear():
    used = []
    for n in (8192, 16384):
        q, k, v, bias = tokens("normal", n)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**SHORT))
        launch.backward(out, q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **launched(**SHORT))
        used.append(torch.cuda.max_memory_allocated() - before)
        del out, z, selected
    assert used[1] <= 2.1 * used[0]
