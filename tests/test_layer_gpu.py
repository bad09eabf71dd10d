"""On a GPU: a layer as one step of autograd against its parts."""

from __future__ import annotations

import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import KrauseAttention, one_step

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize(
    "rule", [kd.Grid(8, 8, prefix=1) & kd.TopK(8), kd.Window(20), kd.RandomKeys(9, tokens=65, prefix=1)], ids=str
)
def test_a_layer_in_one_step_is_its_parts(rule, autocast, monkeypatch):
    """Same products and kernels: what differs is how sums of biases' gradients are rounded."""
    torch.manual_seed(0)
    layer = KrauseAttention(128, 2, rule).cuda().to(torch.float32 if autocast else torch.bfloat16)
    x, weights = torch.randn(4, 65, 128, device="cuda"), torch.randn(4, 65, 128, device="cuda").bfloat16()
    x = x if autocast else x.bfloat16()
    found = []
    for _ in range(2):
        leaf = x.clone().requires_grad_()
        for _ in range(3):  # from the third on launches are repeated
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
                out = layer(leaf)
            found_now = out, *torch.autograd.grad(out, [leaf, *layer.parameters()], weights)
        found.append(found_now)
        assert ("_Step" in str(out.grad_fn)) == (len(found) == 1)
        monkeypatch.setattr(one_step, "attend", lambda *_: None)
    for mine, theirs in zip(*found, strict=True):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
        assert float((mine - theirs).norm()) <= 8e-3 * float(theirs.norm())
