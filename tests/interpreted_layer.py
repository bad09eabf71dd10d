"""A layer in Triton's interpreter, as one step of autograd and by its parts; test_triton_interpreter.py runs this."""

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate import calls
from krause_dynamics.forms.attention.triton.primitives import INTERPRETED
from krause_dynamics.nn import KrauseAttention, one_step

assert INTERPRETED.value, "run with TRITON_INTERPRET=1"

LAYERS = {
    "picture, sigma a head": {"neighbourhood": kd.Grid(3, 4, 1, prefix=1) & kd.TopK(4), "sigma_per_head": True},
    "window, grouped, no bias": {"neighbourhood": kd.Window(5) & kd.TopK(3), "kv_heads": 1, "bias": False},
    "random, products": {"neighbourhood": kd.RandomKeys(4, tokens=13, prefix=1), "score": "dot"},
}


@pytest.fixture
def by_kernel(monkeypatch):
    """The kernels answer tokens of the CPU too."""
    monkeypatch.setitem(calls._SERVES, "triton", lambda call: None)
    one_step._served.cache_clear()
    yield
    one_step._served.cache_clear()


def passed(layer, x, weights):
    """Output and gradients of the tokens and of all parameters."""
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.float16, enabled=x.dtype == torch.float32):
        out = layer(x)
    return out, *torch.autograd.grad(out, [x, *layer.parameters()], weights.to(out.dtype))


@pytest.mark.parametrize("name", LAYERS)
def test_one_step_is_its_parts_and_the_definition(name, by_kernel, monkeypatch):
    """float16: by its parts a layer rounds alike, but for sums of biases; the definition in float64 is 2^-11 away."""
    torch.manual_seed(0)
    layer = KrauseAttention(32, 2, **LAYERS[name], impl="triton")
    x, weights = torch.randn(1, 13, 32), torch.randn(1, 13, 32)
    one = passed(layer, x, weights)
    assert "_Step" in str(one[0].grad_fn)
    monkeypatch.setattr(one_step, "attend", lambda *_: None)
    parts = passed(layer, x, weights)
    assert "_Step" not in str(parts[0].grad_fn)
    layer.double().impl = "reference"
    exact = passed(layer, x.double(), weights.double())
    for mine, theirs, true in zip(one, parts, exact, strict=True):
        assert (mine.dtype, mine.shape, mine.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
        # Biases of keys have no gradient where scores are products: what is left is rounding.
        assert (mine - theirs).norm() <= 1e-3 * true.norm() + 1e-3
        assert (mine - true).norm() < 1e-2 * true.norm() + 2e-3


def test_frozen_parts_get_no_gradient(by_kernel):
    layer = KrauseAttention(32, 2, window=4, impl="triton").half()
    for part in (layer.q_proj, layer.log_sigma):
        part.requires_grad_(False)
    x = torch.randn(1, 9, 32).half()
    out = layer(x)
    assert "_Step" in str(out.grad_fn)
    out.sum().backward()
    got = {name for name, p in layer.named_parameters() if p.grad is not None}
    assert got == {f"{part}_proj.{what}" for part in ("k", "v", "out") for what in ("weight", "bias")}
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


def test_a_grid_of_another_size_is_refused(by_kernel):
    layer = KrauseAttention(32, 2, kd.Grid(3, 3), impl="triton").half()
    with pytest.raises(ValueError, match="Grid of 3 x 3"):
        layer(torch.randn(1, 10, 32).half())
