"""Grid kernels on a GPU against the dense definition: sets, outputs, log-partitions, gradients."""

import math

import pytest
import torch

from tests.triton_oracle import dense, launched

pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from krause_dynamics.forms.attention.triton import launch  # noqa: E402

pytestmark = pytest.mark.gpu
KVIT = {"grid": (14, 14, 2, "chebyshev"), "prefix": 1, "top_k": 8}
# Two words a query; prefix rows longer than those of one warp, two of them without a rank.
WIDE = {"grid": (19, 31, 3, "manhattan"), "prefix": 5, "top_k": 9, "exempt": 2}
NEAR = {"grid": (9, 13, 1, "chebyshev"), "top_k": 3}
FAR = {"grid": (12, 11, 4, "chebyshev"), "prefix": 2, "top_k": 30}
ALL = {"grid": (10, 9, 2, "manhattan"), "prefix": 1}
DTYPES = {torch.bfloat16: 4e-3, torch.float16: 1e-3, torch.float32: 1e-6}


def length(where):
    return where["grid"][0] * where["grid"][1] + where.get("prefix", 0)


def tokens(kind, n, *, heads=2, kv_heads=2, d=64, dtype=torch.bfloat16, seed=0):
    """q, k, v laid out (batch, tokens, heads, d) and a key bias that belongs to distances."""
    g = torch.Generator(device="cuda").manual_seed(seed)
    q, k, v = (
        torch.randn(2, n, h, d, device="cuda", generator=g).to(dtype).transpose(1, 2)
        for h in (heads, kv_heads, kv_heads)
    )
    if kind == "far":
        k[:, :, ::9] *= 30
    if kind == "eight":
        few = torch.randint(-2, 3, (8, d), device="cuda", generator=g).to(dtype)
        k = few[torch.randint(0, 8, (2, kv_heads, n), device="cuda", generator=g)]
        q = few[torch.randint(0, 8, (2, heads, n), device="cuda", generator=g)]
    if kind == "equal":
        q, k = torch.ones_like(q), torch.ones_like(k)
    bias = -k.float().square().sum(-1) / 32
    return q, k, v, bias.repeat_interleave(heads // kv_heads, 1)


def compare(x, where, tolerance, different=0.0, **rule):
    """Share of rows with another set at most `different`; error of output and log-partition on the set selected."""
    q, k, v, bias = x
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where, **rule))
    ranked = dense(q, k, v, scale=1 / 16, key_bias=bias, **where, **rule)[2]
    rule.pop("ties", None)
    mask = launch.selected_mask(selected, k.shape[2], **launched(**where, **rule)) if where.get("top_k") else ranked
    assert (mask != ranked).any(-1).float().mean().item() <= different
    expected, log_partition, _ = dense(q, k, v, scale=1 / 16, key_bias=bias, chosen=mask, **where, **rule)
    assert (out.double() - expected).norm() <= tolerance * expected.norm()
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("where", "ties"), [(KVIT, "index"), (WIDE, "index"), (FAR, "keep"), (ALL, "index")])
@pytest.mark.parametrize("kind", ["normal", "far", "eight", "equal"])
def test_sets_and_outputs(where, ties, kind):
    """Rows whose k-th and next score agree to float32 rounding may differ; none on integers."""
    compare(tokens(kind, length(where)), where, 4e-3, 0.0 if kind in ("eight", "equal") else 2e-3, ties=ties)


@pytest.mark.parametrize(
    ("d", "dtype"), [(16, torch.float32), (40, torch.float16), (128, torch.bfloat16), (256, torch.bfloat16)]
)
def test_head_dimensions(d, dtype):
    """Also grouped heads; at 128 without a key bias."""
    q, k, v, bias = tokens("eight", length(NEAR), heads=4, d=d, dtype=dtype)
    compare((q, k, v, None if d == 128 else bias), NEAR, DTYPES[dtype])


@pytest.mark.parametrize(
    ("where", "dtype", "d", "heads"),
    [
        (KVIT, torch.bfloat16, 64, 2),
        (WIDE, torch.bfloat16, 64, 2),
        (NEAR, torch.float32, 128, 4),
        (ALL, torch.float16, 64, 4),
    ],
)
def test_gradients(where, dtype, d, heads):
    """An invalid key holds NaN; grouped heads have a scale each; weights and gradients of scores round once each."""
    n = length(where)
    q, k, v, bias = tokens("normal", n, heads=heads, d=d, dtype=dtype)
    bias[..., 7] = -math.inf
    k[:, :, 7] = math.nan
    v[:, :, 7] = math.nan
    scale = torch.tensor([[0.03, 0.05, 0.06, 0.07]], device="cuda").expand(2, 4) if heads == 4 else 1 / 16
    saved = launch.forward(q, k, v, scale=scale, key_bias=bias, **launched(**where))
    g, h = torch.randn_like(saved[0]), torch.randn_like(saved[1])
    rule = {"scale": scale, "key_bias": bias, **launched(**where)}
    *found, rows = launch.backward(g, q, k, v, *saved, grad_log_partition=h, **rule)
    leaves = [
        x.clone().requires_grad_() for x in (q, k, v, bias, torch.as_tensor(scale, device="cuda").expand(2, heads))
    ]
    mask = launch.selected_mask(saved[2], n, **launched(**where)) if where.get("top_k") else None
    out, z, _ = dense(*leaves[:3], scale=leaves[4], key_bias=leaves[3], chosen=mask, **where)
    expected = torch.autograd.grad((out * g).sum() + (z * h).sum(), leaves)
    for value, reference in zip((*found, rows.sum(-1)), expected, strict=True):
        assert (value.double() - reference).norm() <= 3 * DTYPES[dtype] * reference.norm()
    again = launch.backward(g, q, k, v, *saved, grad_log_partition=h, **rule)
    assert all(torch.equal(a, b) for a, b in zip(found, again[:4], strict=True))


@pytest.mark.parametrize("where", [KVIT, ALL, WIDE])
def test_nan_stays_where_it_is_heard(where):
    """A NaN value poisons the rows that select it, a NaN key those that hear it; prefix rows hear every key."""
    n = length(where)
    q, k, v, bias = tokens("normal", n)
    clean, _, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    hears = dense(q, k, v, scale=1 / 16, key_bias=bias, **{**where, "top_k": None})[2][..., 40]
    takes = launch.selected_mask(selected, n, **launched(**where))[..., 40] if where.get("top_k") else hears
    k[:, 0, 40] = math.nan
    v[:, 1, 40] = math.nan
    out = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))[0]
    for head, rows in ((0, hears[:, 0]), (1, takes[:, 1])):
        assert out[:, head][rows].isnan().all()
        assert torch.equal(out[:, head][~rows], clean[:, head][~rows])


def test_empty_rows_and_later_queries():
    """Keys of the left half invalid: rows that hear none answer 0 and -inf; queries may start in the middle."""
    where = {"grid": (8, 20, 2, "chebyshev"), "top_k": 6}
    q, k, v, bias = tokens("eight", 160)
    bias.unflatten(-1, (8, 20))[..., :10] = -math.inf
    compare((q, k, v, bias), where, 4e-3)
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **launched(**where))
    lost = torch.arange(160, device="cuda") % 20 < 8
    assert not out[:, :, lost].any()
    assert torch.isneginf(z[:, :, lost]).all()
    dq, *_ = launch.backward(out, q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **launched(**where))
    assert not dq[:, :, lost].any()
    compare((q[:, :, 50:130], k, v, bias), where, 4e-3, query_offset=50)
