"""Sums over weights by the kernels, in Triton's interpreter; test_triton_interpreter.py runs this apart."""

import pytest
import torch

from krause_dynamics.forms.attention.triton.primitives import INTERPRETED
from krause_dynamics.forms.attention.triton.sums import sums

assert INTERPRETED.value, "run with TRITON_INTERPRET=1"


@pytest.mark.parametrize(
    ("left", "right", "dtype"),
    [(-1, 0, torch.float32), (-1, -1, torch.float16), (7, 7, torch.float16), (50, 0, torch.float32)],
)
def test_sums_are_those_of_the_dense_weights(left, right, dtype):
    g = torch.Generator().manual_seed(0)
    n, scale = 70, 0.4  # tiles of 16: one lies in a bin of distances by itself, on either side
    q, k = (torch.randn(1, n, heads, 12, generator=g).to(dtype).transpose(1, 2) for heads in (2, 1))
    i, j = torch.arange(n)[:, None], torch.arange(n)
    admitted = ((i - j <= left) | (left < 0)) & ((j - i <= right) | (right < 0))
    scores = scale * q.double() @ k.double().repeat_interleave(2, 1).mT
    z = scores.masked_fill(~admitted, -torch.inf).logsumexp(-1)
    a = (scores - z[..., None]).exp() * admitted
    found = sums(q, k, z.float(), scale, left, right, groups=4)
    members = torch.nn.functional.one_hot(4 * torch.arange(n) // n, 4).double()
    away = (i - j).abs()
    bins = [
        (a * ((away >= low) & (away < high))).sum((-1, -2))
        for low, high in [(0, 1)] + [(1 << p, 2 << p) for p in range(31)]
    ]
    expected = (
        members.mT @ a, torch.special.entr(a).sum(-1), a.diagonal(dim1=-2, dim2=-1), (a * away).sum(-1),
        torch.stack(bins, -1),
    )  # fmt: skip
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours.double(), truth, rtol=1e-5, atol=1e-5)
