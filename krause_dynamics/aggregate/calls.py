"""The same choice among the same forms for a caller who holds a `Call` of attention: a layer, or tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, cast

from krause_dynamics.aggregate.registry import ASKED, Choice, form
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.forms.attention import definition
from krause_dynamics.forms.attention.call import Call


class CallForm(Protocol):
    """What a form offers that takes calls as they are."""

    def serves(self, call: Call) -> str | None:
        """``None`` if it computes the call, else the reason why not."""

    def attend(self, call: Call) -> tuple[Any, Any]:
        """Output (b, h, n, d_v) and log-partition (b, h, n)."""


IMPLEMENTATIONS = ("reference", "banded", "flex", "triton")
# Bound here, because a compiler that traces a call may not import.
_FORMS = {name: cast(CallForm, form(name)) for name in IMPLEMENTATIONS[1:]}
_SERVES = {name: found.serves for name, found in _FORMS.items()}


def refusal(name: str, call: Call) -> str | None:
    """Why a form cannot compute a call, or ``None``."""
    if name == "reference":
        return "dropout is not part of the definition" if call.dropout else None
    if name == "flex" and call.is_transformed:
        return "FlexAttention is compiled for tensors as they are; impl='banded' runs under torch.func.vmap"
    return call.beyond_operators or _SERVES[name](call)


def choose(call: Call, impl: str) -> Choice:
    """The form that computes a call, and why.

    Raises:
        UnsupportedImplementation: ``impl`` is no form, or cannot compute this; the message says why.
    """
    if impl == "auto":
        kernels = refusal("triton", call) if call.q.device.type == "cuda" else ""
        if kernels is None:
            return Choice("triton", "one kernel, exact")
        reason = refusal("banded", call)
        if reason is not None:
            return Choice("reference", reason)
        return Choice("banded", "exact in O(N W) on any device" + (kernels and f"; not triton: {kernels}"))
    if impl not in IMPLEMENTATIONS:
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {IMPLEMENTATIONS}, got {impl!r}")
    reason = refusal(impl, call)
    if reason is not None:
        raise UnsupportedImplementation(f"impl={impl!r} cannot compute this: {reason}; use impl='auto'")
    return Choice(impl, ASKED)


ATTEND: dict[str, Callable[[Call], tuple[Any, Any]]] = {
    "reference": definition.attend,
    **{name: found.attend for name, found in _FORMS.items()},
}
"""What computes a call, by the name that `choose` gives: output (b, h, n, d_v) and log-partition (b, h, n)."""
