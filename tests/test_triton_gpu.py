"""Kernels on a GPU against the dense definition: sets, outputs, log-partitions, gradients, memory."""

import math

import pytest
import torch

from tests.triton_oracle import dense

pytest.importorskip("triton")
if not torch.cuda.is_available():
    pytest.skip("needs a CUDA device", allow_module_level=True)

from krause_dynamics.fused.triton import launch  # noqa: E402

pytestmark = pytest.mark.gpu
WINDOW = {"left": 127, "right": 0, "top_k": 96}
SHORT = {"left": 31, "right": 0, "top_k": 16}


def tokens(kind, n, *, heads=2, d=64, dtype=torch.bfloat16, seed=0):
    g = torch.Generator(device="cuda").manual_seed(seed)
    q, k, v = (torch.randn(1, heads, n, d, device="cuda", generator=g).to(dtype) for _ in range(3))
    if kind == "far":
        k[:, :, ::9] *= 30
    if kind == "eight":
        k = torch.randint(-2, 3, (8, d), device="cuda", generator=g).to(dtype)[
            torch.randint(0, 8, (1, heads, n), device="cuda", generator=g)
        ]
        q = k.clone()
    if kind == "equal":
        q, k = torch.ones_like(q), torch.ones_like(k)
    return q, k, v, -k.float().square().sum(-1) / 32


@pytest.mark.parametrize("where", [WINDOW, SHORT])
@pytest.mark.parametrize("kind", ["normal", "far", "eight", "equal"])
@pytest.mark.parametrize("n", [1, 63, 129, 1000])
def test_sets_and_outputs(where, kind, n):
    """Rows whose k-th and next score agree to float32 rounding may differ; none on integers."""
    q, k, v, bias = tokens(kind, n)
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **where)
    ranked = dense(q, k, v, scale=1 / 16, key_bias=bias, **where)[2]
    # Nothing is saved where no row can hear more than k keys.
    mask = launch.selected_mask(selected, n, **where) if n > where["top_k"] else ranked
    different = (mask != ranked).any(-1).float().mean().item()
    assert different == 0 if kind in ("eight", "equal") else different < 2e-3
    expected, log_partition, _ = dense(q, k, v, scale=1 / 16, key_bias=bias, chosen=mask, **where)
    assert (out.double() - expected).norm() / expected.norm() < 4e-3
    assert torch.allclose(z.double(), log_partition, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 1e-2), (torch.float16, 2e-3), (torch.float32, 1e-5)])
def test_gradients(dtype, tolerance):
    q, k, v, bias = tokens("normal", 300, dtype=dtype)
    bias[..., 7] = -math.inf
    k[:, :, 7] = math.nan
    v[:, :, 7] = math.nan
    out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **SHORT)
    g = torch.randn_like(q)
    found = launch.backward(g, q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **SHORT)
    leaves = [x.clone().requires_grad_() for x in (q, k, v, bias)]
    mask = launch.selected_mask(selected, 300, **SHORT)
    expected = dense(*leaves[:3], scale=1 / 16, key_bias=leaves[3], chosen=mask, **SHORT)[0]
    for value, reference in zip(found[:4], torch.autograd.grad((expected * g).sum(), leaves), strict=True):
        assert (value.double() - reference).norm() / reference.norm() < tolerance
    again = launch.backward(g, q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **SHORT)
    assert all(torch.equal(a, b) for a, b in zip(found[:4], again[:4], strict=True))


def test_memory_is_linear():
    used = []
    for n in (8192, 16384):
        q, k, v, bias = tokens("normal", n)
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        out, z, selected = launch.forward(q, k, v, scale=1 / 16, key_bias=bias, **WINDOW)
        launch.backward(out, q, k, v, out, z, selected, scale=1 / 16, key_bias=bias, **WINDOW)
        used.append(torch.cuda.max_memory_allocated() - before)
        del out, z, selected
    assert used[1] <= 2.1 * used[0]
