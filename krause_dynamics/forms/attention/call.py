"""One call of banded attention, between the operator and the engines that compute it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from krause_dynamics.forms.attention.lowering import Rule


class Call(NamedTuple):
    """The tensors of one call, (b, h, n, d), (b, h_kv, m, d), (b, h_kv, m, d_v), with scale (b, h)."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None
    segments: Tensor | None


class Options(NamedTuple):
    """The numbers of one call."""

    rule: Rule
    distance: bool
    offset: int
    dropout: float
    seed: int


class Gradients(NamedTuple):
    """Gradients in the shapes of the inputs; masses per head (b, h, m), biases per pair (b, h, n, m); or ``None``."""

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None


def selection_bytes(rule: Rule, n: int, m: int, offset: int) -> tuple[int, int, int]:
    """Packed selection: number of rows that may hear all keys, their bytes, and the bytes of the other rows."""
    wide = min(n, max(rule.prefix - offset, 0)) if rule.grid else 0
    return wide, (m + 7) // 8, (rule.row_length(m) + 7) // 8
