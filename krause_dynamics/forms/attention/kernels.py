"""The Triton kernels behind a lowered call: whether they serve it, and the way through them.

The kernels compute ``scale <q, k> + key_bias``; the key bias ``-scale |k|^2 / 2`` of a distance is computed beside
them, the query's term joins the log-partition afterwards, where it is asked for.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from krause_dynamics.forms.attention import kernel_operators as operators
from krause_dynamics.forms.attention import kernel_steps as steps
from krause_dynamics.forms.attention.lowering import UNBOUNDED, Lowered, Rule

LARGEST_HEAD = 256


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _refusal(device: int | None, dtype: torch.dtype) -> str | None:
    """Why this machine has no kernel for such tensors; a constant while compiling, where nothing can be imported."""
    return _refusal_of(device, dtype)


@lru_cache(maxsize=64)
def _refusal_of(device: int | None, dtype: torch.dtype) -> str | None:
    try:
        launch = steps.launch()
    except ImportError as error:
        return f"triton cannot be imported here ({error}); impl='banded' serves every device"
    example = torch.empty(1, 1, 1, 64, dtype=dtype, device=torch.device("cuda", device or 0))
    reason: str | None = launch.supports(example, example)
    return reason


def supports_tensors(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> str | None:
    """``None`` if the kernels compute a lowered call, else the reason."""
    rule = lowered.rule
    if q.device.type != "cuda":
        return f"the kernels need CUDA tensors, got {q.device}; impl='banded' serves every device"
    if lowered.pair_bias is not None or lowered.segments is not None or lowered.dropout:
        return "the kernels take no pair bias, packed sequences or dropout; impl='banded' does"
    if rule.grid and (rule.left, rule.right) != (UNBOUNDED, UNBOUNDED):
        return "the kernels take a grid or a window, not both; impl='banded' does"
    if rule.top_k and lowered.log_mass is not None and not lowered.mask_only:
        return "the kernels would rank by mass as well; impl='banded' ranks by the score alone"
    if v.shape[-1] != q.shape[-1]:
        return f"the kernels need values of the keys' dimension, got {v.shape[-1]} and {q.shape[-1]}"
    if q.shape[-1] > LARGEST_HEAD:
        return f"the kernels take head dimensions up to {LARGEST_HEAD}, got {q.shape[-1]}; impl='banded' takes any"
    reason: str | None = _refusal(q.device.index, q.dtype)
    return reason


def _numbers(rule: Rule) -> tuple[int, ...]:
    return (rule.left, rule.right, rule.top_k, int(rule.keep_ties), *rule.grid)


def kernels(q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d) and log-partition (b, h, n) of a lowered call on a GPU."""
    batch, heads, n, _ = q.shape
    scale, mass = lowered.scale, lowered.log_mass
    tensor = scale.expand(batch, heads) if isinstance(scale, Tensor) else None
    if mass is not None:
        mass = mass.expand(batch, heads, k.shape[2])
    alone, offset = steps.alone((q, k, v, tensor, mass)), lowered.query_offset
    tracked = torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in (q, k, v, tensor, mass))
    if alone and n == 1 and not tracked and not lowered.rule.grid:
        k, v, mass, offset = _within_reach(k, v, mass, lowered.rule, offset)
    if lowered.distance and q.dtype == torch.float32:
        q, k = _centred(q, k, mass, alone)
    numbers = _numbers(lowered.rule)
    if not alone:
        squares = operators.squared_norms
        out, log_partition, *_ = operators.attend(
            q, k, v, lowered.coefficients(q), mass, lowered.distance, numbers, offset
        )
    else:
        tensors = (q, k, v, tensor, mass)
        squares = operators.squared_norms if tracked else steps.terms().squared_norms
        options = steps.Options(lowered.distance, numbers, offset, 1.0 if isinstance(scale, Tensor) else float(scale))
        if n == 1 and not tracked and _fits_decode(q, k, lowered.rule):
            out, log_partition = steps.attend_once(tensors, options)
        else:
            out, log_partition = steps.attend(tensors, options, tracked=tracked)
    return out, log_partition if lowered.mean_only else log_partition + lowered.query_term(q, squares)


def _centred(q: Tensor, k: Tensor, mass: Tensor | None, alone: bool) -> tuple[Tensor, Tensor]:
    """float32 tokens moved near the keys that are there and finite: distances do not see it, rounding does.

    Half types stay as they are: rounding them again would change who is admitted.
    """
    find = steps.terms().centre if alone else operators.centre
    centre = find(k.detach(), None if mass is None else mass.detach(), q.shape[1])
    group = q.shape[1] // k.shape[1]
    return q - (centre if group == 1 else centre.repeat_interleave(group, 1)), k - centre


def _within_reach(
    k: Tensor, v: Tensor, mass: Tensor | None, rule: Rule, position: int
) -> tuple[Tensor, Tensor, Tensor | None, int]:
    """What one token hears of a cache of any length, as views, and the token's position there."""
    m = k.shape[2]
    first = 0 if rule.left == UNBOUNDED else min(m, max(0, position - rule.left))
    last = m if rule.right == UNBOUNDED else min(m, max(first, position + rule.right + 1))
    if last - first < m:
        k, v = k[:, :, first:last], v[:, :, first:last]
        mass = None if mass is None else mass[..., first:last]
    return k, v, mass, position - first


def _fits_decode(q: Tensor, k: Tensor, rule: Rule) -> bool:
    """Whether one program reads all keys; powers of two as the kernel pads them."""
    padded = [1 << (max(16, size) - 1).bit_length() for size in (q.shape[3], k.shape[2])]
    return not rule.grid and k.shape[2] > 0 and padded[0] * padded[1] <= steps.launch().LARGEST_CACHE
