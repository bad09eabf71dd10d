"""The form "banded": index windows, pictures, packed sequences and top-k on any torch device; see `engine`."""

from __future__ import annotations

from krause_dynamics.forms.attention.banded_operators import banded
from krause_dynamics.forms.attention.call import DTYPES, Call
from krause_dynamics.forms.attention.lowering import Lowered, prepared, refusal
from krause_dynamics.interaction import Interaction, Prepared, Request


def serves(call: Call) -> str | None:
    """``None`` if banded computes a call, else the reason."""
    if call.q.dtype not in DTYPES:
        return f"dtype {call.q.dtype} is not one of float64, float32, bfloat16, float16"
    return None


attend = banded


def supports(interaction: Interaction, request: Request) -> str | None:
    """``None`` if banded computes this interaction on these arrays, else the reason."""
    return refusal(interaction, request, serves)


def pays(interaction: Interaction, request: Request) -> bool:
    """Whether banded is expected to beat the dense reference: a rule that leaves most pairs out."""
    lowered, m = Lowered.of(interaction), request.sources.shape[-2]
    return not isinstance(lowered, str) and m >= 64 and 2 * lowered.reach.row_length(m) <= m


def prepare(interaction: Interaction, request: Request) -> Prepared:
    """The interaction lowered once, to be met by arrays like those of the request."""
    return prepared(interaction, attend, "banded")
