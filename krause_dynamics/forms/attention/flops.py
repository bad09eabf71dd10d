"""Multiply-adds of the attention operators, for the flop counters of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from krause_dynamics._when_loaded import when_loaded
from krause_dynamics.interaction.reach import Reach


def register(forward: Any, backward: Any, place: int, place_backward: int) -> None:
    """Flops of an operator and its gradient, whose numbers stand at these places after q, k and v.

    A gradient takes the scores again, and the four products of dq, dk, dv and dL/dp: two and a half forward passes.
    """

    def count(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
        return _pair_flops(*_shapes(q, k, v, rest[place + 3 :]), rest[place])

    def count_backward(q: Any, k: Any, v: Any, *rest: Any, **_: Any) -> int:
        return 5 * _pair_flops(*_shapes(q, k, v, rest[place_backward + 3 :]), rest[place_backward]) // 2

    def tell(counter: Any) -> None:
        counter.register_flop_formula(forward)(count)
        counter.register_flop_formula(backward)(count_backward)

    when_loaded("torch.utils.flop_counter", tell)  # which loads triton where it is


def _pair_flops(q: Any, k: Any, v: Any, numbers: Sequence[int]) -> int:
    """Multiply-adds (counted as two) of one product with q and one with v over the pairs that rows have room for."""
    batch, heads, n, dim = q
    reach, keys = Reach.from_numbers(numbers), k[2]
    leading = min(reach.prefix, n) if n == keys else 0  # rows that hear all (CLS, registers)
    pairs = leading * keys + (n - leading) * reach.row_length(keys)
    return int(2 * batch * heads * pairs * (dim + v[3]))


def _shapes(q: Any, k: Any, v: Any, rest: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Shapes of queries, keys and values, which may be parts of one tensor; `rest` begins with the heads of keys."""
    if k is not None:
        return q, k, v
    batch, n, heads, d = q
    each = (batch, rest[0], n, d)
    return (batch, heads - 2 * rest[0], n, d), each, each
