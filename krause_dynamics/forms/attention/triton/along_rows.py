"""What is asked of rows of weights that were written out: their largest entries and the moments of their logarithms."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .arguments import on_device

LARGEST = 8192  # entries of a row that one program holds; a longer row is divided
ORDER = tl.constexpr(0x7FFFFFFF)


@triton.jit(do_not_specialize=["n"])
def along_rows(weights, largest, moments, n, CHUNK: tl.constexpr, TOP: tl.constexpr, MOMENTS: tl.constexpr):
    """Of a stretch of a row: its TOP largest entries, bits and place in one number, and its moments.

    Bits of a float that is not negative order as the floats do; of equal entries the first is larger.
    """
    row, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    t = chunk * CHUNK + tl.arange(0, CHUNK)
    found = tl.load(weights + row * n + t, mask=t < n, other=0.0)
    into = row * tl.num_programs(1) + chunk
    packed = (found.to(tl.int32, bitcast=True).to(tl.int64) << 32) | (t ^ ORDER).to(tl.int64)
    packed = tl.where(t < n, packed, -1)
    for r in range(TOP):
        best = tl.max(packed, 0)
        tl.store(largest + into * TOP + r, best)
        packed = tl.where(packed == best, -1, packed)
    if MOMENTS:
        heard = found > 0
        number = tl.sum(heard.to(tl.int32), 0)
        logs = tl.where(heard, tl.log(tl.where(heard, found, 1.0)), 0.0)
        mean = tl.sum(logs, 0) / tl.maximum(number, 1)
        away = tl.where(heard, logs - mean, 0.0)
        tl.store(moments + into * 4, number.to(tl.float32))
        tl.store(moments + into * 4 + 1, mean)
        tl.store(moments + into * 4 + 2, tl.sum(away * away, 0))
        tl.store(moments + into * 4 + 3, tl.sum(found * found, 0))


def largest(values: torch.Tensor, number: int) -> torch.Tensor:
    """Places of the largest entries of rows of float32, none negative, the largest first: (..., m) to (..., number)."""
    return _places(_run(values, number, moments=False)[0])


def describe(weights: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Largest entries and moments of rows of weights.

    Args:
        weights: (..., m) in float32, none negative.
        number: Of entries that are listed.

    Returns:
        Places of the largest entries (..., number), -1 beyond those above 0; how many are above 0; the standard
        deviation of their logarithms, NaN where none is; and the sum of all squares, (...).
    """
    packed, moments = _run(weights, number, moments=True)
    counts, means, away, squares = moments.double().unbind(-1)  # (..., stretches)
    heard = counts.sum(-1)
    mean = (counts * means).sum(-1, keepdim=True) / heard[..., None]
    # Chan, Golub and LeVeque (1983), equation 2.1b: squares about means of parts, and of these means about the whole's.
    spread = ((away.sum(-1) + (counts * (means - mean).square()).sum(-1)) / heard).sqrt()
    return torch.where(packed >> 32 > 0, _places(packed), -1), heard, spread.float(), squares.sum(-1).float()


def _run(values: torch.Tensor, number: int, *, moments: bool) -> tuple[torch.Tensor, torch.Tensor]:
    values = values.contiguous()
    *lead, m = values.shape
    chunk = min(LARGEST, triton.next_power_of_2(m))
    stretches, count = triton.cdiv(m, chunk), values.numel() // m
    packed = torch.empty(*lead, stretches * number, dtype=torch.int64, device=values.device)
    sums = torch.empty(*lead, stretches, 4 if moments else 0, dtype=torch.float32, device=values.device)
    with on_device(values):
        along_rows[(count, stretches)](values, packed, sums, m, CHUNK=chunk, TOP=number, MOMENTS=moments, num_warps=8)
    return packed if stretches == 1 else packed.topk(number, -1).values, sums


def _places(packed: torch.Tensor) -> torch.Tensor:
    return ORDER.value - (packed & ORDER.value)
