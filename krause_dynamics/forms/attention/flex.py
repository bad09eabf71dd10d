"""The form "flex": FlexAttention, a score and a mask function of a call, compiled by torch; no selection.

It knows no top-k, and on the CPU it has no backward pass; it serves comparisons on GPUs.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.kept import kept
from krause_dynamics.forms.attention.lowering import prepared, refusal
from krause_dynamics.interaction import Interaction, Prepared, Request, random_keys
from krause_dynamics.interaction.reach import Reach


def serves(call: Call) -> str | None:
    """``None`` if FlexAttention computes a call, else the reason."""
    q = call.q
    if call.reach.top_k:
        return "FlexAttention has no top-k; impl='banded' and impl='triton' do"
    if call.beside is not None:
        return "first tokens of rows that begin at different keys are not lowered to FlexAttention; impl='banded' is"
    if call.dropout or call.segments is not None or call.pair_bias is not None:
        return "dropout, packed sequences and pair biases are not lowered to FlexAttention; impl='banded' takes them"
    if q.dtype == torch.float64:
        return "FlexAttention is not exact in float64; impl='reference' and impl='banded' are"
    if q.device.type != "cuda":
        return f"FlexAttention is lowered for CUDA tensors, got {q.device}; impl='banded' serves every device"
    return None


SHAPES = 256  # for which a process compiles FlexAttention
SMALLEST_HEAD = 16  # FlexAttention takes no smaller ones; what is added is 0 and adds nothing to products


def _padded(x: Tensor) -> Tensor:
    """Head dimension as FlexAttention wants it: the next power of two, at least `SMALLEST_HEAD`."""
    size = 1 << (max(SMALLEST_HEAD, x.shape[-1]) - 1).bit_length()
    return x if size == x.shape[-1] else functional.pad(x, (0, size - x.shape[-1]))


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    compiled: Callable[..., Any] = torch.compile(flex_attention)
    return compiled


def _mask_function(reach: Reach, offset: int, keys: int, listed: Tensor | None = None) -> Callable[..., Tensor]:
    def admits(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        first, last = reach.interval(i + offset, keys)
        allowed = ((j >= first) | (j < reach.first)) & (j < last)
        if listed is not None:
            return allowed & listed[(i + offset).clip(0), j]
        return allowed & reach.near(i + offset, j) if reach.grid else allowed

    return admits


@kept(32)
def _block_mask(reach: Reach, offset: int, n: int, m: int, device: str) -> BlockMask:
    listed = None
    if reach.random:
        listed = torch.tensor(random_keys.admitted(reach, max(offset + n, m)), device=device)
    return create_block_mask(_mask_function(reach, offset, m, listed), None, None, n, m, device=device)


def _there(call: Call) -> tuple[Tensor, Tensor]:
    """Keys and values with 0 where nobody is: padding may hold NaN, which no weight of 0 takes away."""
    if call.log_mass is None:
        return call.k, call.v
    absent = (call.log_mass == -float("inf")).all(1, keepdim=True)[..., None]
    return call.k.masked_fill(absent, 0.0), call.v.masked_fill(absent, 0.0)


def attend(call: Call) -> tuple[Tensor, Tensor]:
    """Output (b, h, n, d_v) and log-partition (b, h, n) of a call."""
    k, v = _there(call)
    q, k, v, scale, bias = _padded(call.q), _padded(k), _padded(v), call.coefficients(), call.key_bias()

    def score(s: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return s * scale[b, h] if bias is None else s * scale[b, h] + bias[b, h, j]

    mask = _block_mask(call.reach, call.offset, q.shape[2], k.shape[2], str(q.device))
    arguments: dict[str, Any] = {
        "score_mod": score, "block_mask": mask, "scale": 1.0, "enable_gqa": q.shape[1] != k.shape[1],
        "return_aux": torch.nn.attention.flex_attention.AuxRequest(lse=True),
    }  # fmt: skip
    out, auxiliary = _run(q, k, v, arguments)
    log_partition = auxiliary.lse if call.mean_only else auxiliary.lse + call.query_term()
    return out[..., : call.v.shape[-1]], log_partition


def _run(q: Tensor, k: Tensor, v: Tensor, arguments: dict[str, Any]) -> Any:
    """FlexAttention compiled: after a few shapes torch would go on without compiling, slow and without gradients."""
    if torch.compiler.is_compiling():
        return flex_attention(q, k, v, **arguments)
    compiler: Any = importlib.import_module("torch._dynamo.config")  # of 150 MB: on first use
    with warnings.catch_warnings(), compiler.patch(recompile_limit=SHAPES):
        # torch looks at the gradients of tensors that are no leaves, and says so.
        warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
        return _compiled()(q, k, v, **arguments)


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None`` if FlexAttention computes this interaction on these arrays, else the reason."""
    return refusal(interaction, request, serves)


def pays(interaction: Interaction, request: Request) -> bool:
    """Never by itself: the Triton kernels serve what it serves, and it compiles anew for every shape."""
    return False


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """The interaction lowered once, to be met by arrays like those of the request."""
    return prepared(interaction, attend, "flex")
