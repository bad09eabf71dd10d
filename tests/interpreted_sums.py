"""Sums over weights by the kernels, in Triton's interpreter; test_triton_interpreter.py runs this apart."""

import pytest
import torch

from krause_dynamics.checkpoints import device_pass
from krause_dynamics.checkpoints.sampled_rows import largest_keys, moments, sampled_rows
from krause_dynamics.forms.attention import definition
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.triton import along_rows
from krause_dynamics.forms.attention.triton.primitives import INTERPRETED
from krause_dynamics.forms.attention.triton.sums import sums
from krause_dynamics.interaction.reach import Reach

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


@pytest.mark.parametrize("reach", [Reach(right=0), Reach(left=9, right=0), Reach()])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_few_keys_have_the_weights_of_the_whole_map(reach, dtype):
    """The sink tier of a GPU: columns, own weights and sampled rows, against whole maps of float64."""
    torch.manual_seed(0)
    n = 42  # rows are sampled, tiles lie across quarters
    q, k, v = (torch.randn(2, n, heads, 12).to(dtype).transpose(1, 2) for heads in (4, 2, 2))
    exact = Call(q.double(), k.double(), v.double(), 0.4, False, reach)
    _, log_partition = definition.attend(exact)
    found = device_pass.some_keys(Call(q, k, v, 0.4, False, reach), log_partition.float())
    _, _, maps = definition.attend_capped(exact, 0.0, weights=True)
    close = {"rtol": 1e-5, "atol": 1e-6}  # scores of a few units in float32
    torch.testing.assert_close(found.own.double(), maps.diagonal(dim1=-2, dim2=-1), **close)
    torch.testing.assert_close(found.sampled.double(), maps[:, :, sampled_rows(n)], **close)
    quarter = 4 * torch.arange(n) // n
    by_quarter = torch.stack([maps[:, :, quarter == g].sum(-2) for g in range(4)], -2)
    known = ~found.received.isnan()
    assert known[..., :4].all()
    assert (known.sum(-1) == 8).all()
    torch.testing.assert_close(found.received[known].double(), by_quarter[known], **close)
    # The others are those that sampled rows hear most.
    heard = maps[:, :, sampled_rows(n)].mean(-2)
    heard[..., :4] = torch.inf
    eighth = heard.topk(8).values[..., -1:]
    assert (heard[known.any(-2)].view(2, 4, 8) >= eighth * (1 - 1e-5)).all()


@pytest.mark.parametrize("longest", [8192, 16])
def test_rows_are_described_as_on_the_host(longest, monkeypatch):
    """Whole rows and rows in stretches, some with fewer keys than are listed, against the form of the host."""
    monkeypatch.setattr(along_rows, "LARGEST", longest)
    g = torch.Generator().manual_seed(1)
    weights = (4 * torch.randn(2, 3, 50, generator=g)).softmax(-1)
    weights[0, 1, 5:] = 0
    weights[1, 1] = 0
    keys, number, spread, squares = along_rows.describe(weights, 8)
    assert torch.equal(keys, largest_keys(weights))
    expected = moments(weights.double())
    assert torch.equal(number.long(), expected[0])
    torch.testing.assert_close(spread.double(), expected[1], rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(squares.double(), expected[2], rtol=1e-5, atol=1e-6)
    assert torch.equal(along_rows.largest(weights[:, 0], 3), weights[:, 0].topk(3).indices)
