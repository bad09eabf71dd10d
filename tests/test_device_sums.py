"""Which kernel gives output and log-partition where sums over weights are wanted on a GPU."""

import pytest
import torch

from krause_dynamics.forms.attention import definition, device_sums, sdpa
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.interaction.reach import Reach


def tensors():
    g = torch.Generator().manual_seed(0)
    return [torch.randn(2, heads, 40, 16, generator=g, dtype=torch.bfloat16) for heads in (4, 2, 2)]


@pytest.mark.parametrize("reach", [Reach(right=0), Reach()])
def test_heads_that_share_keys_are_repeated_for_the_flash_kernel(reach):
    q, k, v = tensors()
    mean, log_partition = device_sums.mean_and_log_partition(Call(q, k, v, 0.4, False, reach))
    expected = definition.attend(Call(q.double(), k.double(), v.double(), 0.4, False, reach))
    # torch's kernel of the CPU rounds weights to bfloat16; one of another head would be off by whole units.
    torch.testing.assert_close(log_partition.double(), expected[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(mean.double(), expected[0], atol=2e-2, rtol=0)


@pytest.mark.parametrize("reach", [Reach(right=0), Reach()])
def test_the_kernel_of_cudnn_is_taken_where_torch_would(reach, monkeypatch):
    """By its shapes: 3 is torch's number of that backend, and it takes heads that share keys as they are."""
    asked, kernel = [], sdpa.cudnn_kernel
    monkeypatch.setattr(torch, "_fused_sdp_choice", lambda *a, **named: (asked.append((a[3:], named)), 3)[1])
    monkeypatch.setattr(sdpa, "cudnn_kernel", lambda *a: (asked.append(a[3:]), kernel(*a))[1])
    q, k, v = (x.to("meta") for x in tensors())
    mean, log_partition = device_sums.mean_and_log_partition(Call(q, k, v, 0.4, False, reach))
    causal = reach.right == 0
    assert asked == [((None, 0.0, causal), {"scale": 0.4, "enable_gqa": True}), (0.4, causal)]
    assert (mean.shape, log_partition.shape) == (q.shape, q.shape[:3])
