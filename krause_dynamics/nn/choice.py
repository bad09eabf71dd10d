"""Which implementation serves a lowered call, and why."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd import forward_ad

from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.forms.attention import banded, flex, kernels
from krause_dynamics.forms.attention.lowering import Lowered
from krause_dynamics.nn.checks import transformed

IMPLEMENTATIONS = ("reference", "banded", "flex", "triton")


def _has_tangent(given: tuple[Any, ...]) -> bool:
    """Whether forward-mode differentiation looks on: an operator would silently return no tangent."""
    if forward_ad._current_level < 0:
        return False
    return any(isinstance(x, Tensor) and forward_ad.unpack_dual(x).tangent is not None for x in given)


def unsupported(name: str, q: Tensor, k: Tensor, v: Tensor, lowered: Lowered) -> str | None:
    """``None`` if an implementation can compute this, else the reason why not."""
    if name == "reference":
        return "dropout is not part of the definition" if lowered.dropout else None
    given = (q, k, v, lowered.scale, lowered.log_mass, lowered.pair_bias)
    if not torch.compiler.is_compiling() and (transformed() or _has_tangent(given)):
        return "forward-mode differentiation and function transforms run on the reference"
    if name == "banded":
        return banded.supports_tensors(q, lowered)
    module = flex if name == "flex" else kernels
    return module.supports_tensors(q, k, v, lowered)


def choose(
    q: Tensor, k: Tensor, v: Tensor, lowered: Lowered, impl: str
) -> tuple[Literal["reference", "banded", "flex", "triton"], str]:
    """Name of the implementation to run and the reason.

    Raises:
        UnsupportedImplementation: An explicit ``impl`` cannot compute this.
    """
    if impl == "auto":
        kernels_refuse = unsupported("triton", q, k, v, lowered) if q.device.type == "cuda" else ""
        if kernels_refuse is None:
            return "triton", "one kernel, exact"
        reason = unsupported("banded", q, k, v, lowered)
        if reason is not None:
            return "reference", reason
        return "banded", "exact in O(N W) on any device" + (kernels_refuse and f"; not triton: {kernels_refuse}")
    if impl not in IMPLEMENTATIONS:
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {IMPLEMENTATIONS}, got {impl!r}")
    reason = unsupported(impl, q, k, v, lowered)
    if reason is not None:
        raise UnsupportedImplementation(f"impl={impl!r} cannot compute this: {reason}; use impl='auto'")
    return impl, "asked for"  # type: ignore[return-value]
