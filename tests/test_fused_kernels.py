"""The operator around the Triton kernels, run by Triton's interpreter in a process of its own (chosen at import)."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

PROGRAM = """
import torch
from krause_dynamics.forms.attention import banded_operators, kernels
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn.arguments import call_of

torch.manual_seed(0)
q, k, v = (torch.randn(1, heads, 42, 16, requires_grad=True) for heads in (2, 1, 1))
sigma = torch.tensor([1.0, 3.0], requires_grad=True)
valid = torch.arange(42)[None] >= 5
cases = [
    (Reach(15, 0, (), 5), {}),
    (Reach(15, 0), {"score": "dot"}),
    (Reach(15, 0, (), 5), {"key_valid": valid}),
    (Reach(-1, -1, (6, 7, 1, 0, 0), 4), {}),
]
for reach, options in cases:
    results = []
    for run in (kernels.attend, banded_operators.banded):
        shift = 0 if "score" in options else 3  # products would grow with it
        out, log_partition = run(call_of(q + shift, k + shift, v, reach, sigma=sigma, **options))
        finite = torch.where(log_partition > -1e9, log_partition, 0.0)
        loss = out.square().sum() + finite.sum()
        results.append((out, log_partition, *torch.autograd.grad(loss, [q, k, v, sigma])))
    for mine, theirs in zip(*results):
        # float32, a few hundred terms: 1e-5 of the largest entry.
        scale = float(torch.where(theirs.isfinite(), theirs, 0.0).detach().abs().max())
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=2e-5 * scale)

# From the third call of a signature on its allocations and launches are repeated, on other numbers; one tensor given as
# all three is another signature than three tensors.
from krause_dynamics.forms.attention.triton import replay

for shared in (False, True):
    for seed in range(3):
        x, y, z = (torch.randn(1, 2, 19, 16, requires_grad=True) for _ in range(3))
        y, z = (x, x) if shared else (y, z)
        call = call_of(x, y, z, Reach(7, 0, (), 3), scale=0.5, score="dot", key_bias=torch.zeros(19))
        mine, theirs = (run(call) for run in (kernels.attend, banded_operators.banded))
        for a, b in zip(mine, theirs):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        gradients = [torch.autograd.grad(pair[0].square().sum() + pair[1].sum(), [x, y, z]) for pair in (mine, theirs)]
        for a, b in zip(*gradients):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
repeated = [key[0].__name__ for key, found in replay._RECORDINGS.items() if isinstance(found, replay._Recording)]
assert repeated.count("forward") >= 2 and repeated.count("backward") >= 2, repeated

from torch._dynamo.testing import CompileCounterWithBackend

counter, compiled = CompileCounterWithBackend("aot_eager"), []


@torch.compile(fullgraph=True, backend=counter, dynamic=True)
def attend(q, k, v, log_sigma):
    return kernels.attend(call_of(q, k, v, Reach(15, 0, (), 5), sigma=log_sigma.exp()))[0]


for n in (20, 45):
    q, k, v = (torch.randn(1, heads, n, 16, requires_grad=True) for heads in (2, 1, 1))
    attend(q, k, v, torch.zeros(2, requires_grad=True)).sum().backward()
    compiled.append(counter.frame_count)
assert compiled[0] == compiled[1], compiled
print("equal")
"""


def test_the_operator_equals_banded_with_all_gradients_and_compiles_once():
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert result.stdout.strip().endswith("equal"), result.stderr[-3000:]
