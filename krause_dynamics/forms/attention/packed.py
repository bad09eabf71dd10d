"""What an operator of torch takes, tensors and numbers in a row, as a value whose fields are the operator's schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_type_hints

from torch import Tensor

from krause_dynamics.forms.attention.call import Call, parts
from krause_dynamics.interaction.reach import Reach

_WORDS = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    Sequence[int]: "SymInt[]",
    bool: "bool",
    int: "SymInt",
    float: "float",
}


def schema(fields: type[Any], results: int, **more: Any) -> str:
    """The schema of an operator that takes a row of these fields, and after it what else is named, by type.

    Args:
        fields: A NamedTuple.
        results: Number of tensors that it returns.
        **more: Types.
    """
    kinds: Mapping[str, Any] = {**get_type_hints(fields), **more}
    arguments = ", ".join(f"{_WORDS[kind]} {name}" for name, kind in kinds.items())
    return f"({arguments}) -> ({', '.join(['Tensor'] * results)})"


class Packed(NamedTuple):
    """A `Call` as a row: tokens apart or as one tensor, the reach as whole numbers, the scale spread to (b, h)."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None
    segments: Tensor | None
    seed: Tensor | None
    beside: Tensor | None
    numbers: Sequence[int]
    distance: bool
    offset: int
    kv_heads: int
    ranked: bool
    dropout: float

    @staticmethod
    def of(call: Call, seed: Tensor | None = None) -> Packed:
        """The row of a call."""
        return Packed(
            *call.tokens, call.coefficients(), call.log_mass, call.pair_bias, call.segments, seed, call.beside,
            call.reach.numbers, call.distance, call.offset, call.k.shape[1], call.ranked, call.dropout,
        )  # fmt: skip

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values."""
        return parts(self.q, self.k, self.v, self.kv_heads)

    def call(self) -> Call:
        """The call of a row."""
        drawn = 0 if self.seed is None else int(self.seed)
        return Call(
            *self.parts(), self.scale, self.distance, Reach.from_numbers(self.numbers), self.log_mass, self.pair_bias,
            self.segments, self.offset, self.dropout, drawn, ranked=self.ranked,
            beside=self.beside, joint=self.q if self.k is None else None,
        )  # fmt: skip
