"""The forms of the one operation, in one table, and the choice among them.

A form is a module, a guest that must equal the reference. It is imported when it is asked, and not before its library
is at hand. Whatever depends on the rule alone it does once, in ``prepare``; parameters that are tensors (a learnable
sigma) it reads from the rule at every call.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Literal, NamedTuple, Protocol, cast

from krause_dynamics._array import is_torch
from krause_dynamics.aggregate.border import check_parameters
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request


class Form(Protocol):
    """What the module of a form offers."""

    def supports(self, interaction: Interaction, request: Request) -> str | None:
        """``None`` if it computes this, else the reason why not."""

    def pays(self, interaction: Interaction, request: Request) -> bool:
        """Whether it is expected to beat the forms that are asked after it; asked before ``supports``."""

    def prepare(self, interaction: Interaction, request: Request) -> Prepared:
        """The operation for requests like this one; called only where ``supports`` has no objection.

        A form that finds out only when it computes sets ``may_refuse`` and raises `UnsupportedImplementation` then.
        """


class Entry(NamedTuple):
    """A row of the table.

    Attributes:
        module: Where the form lives, below ``krause_dynamics``.
        library: Whose arrays it takes.
        auto: Whether ``impl="auto"`` may take it. The others pay only for a caller who knows more: that the grid is
            uniform (`convolution`), that the loop is long (`compiled`), or that a compilation is (`flex`).
    """

    module: str
    library: Literal["any", "numpy", "torch"] = "any"
    auto: bool = True


# Asked in this order; the reference is what remains.
FORMS = {
    "network": Entry("forms.near.network"),
    "sorted1d": Entry("forms.near.sorted1d", "numpy"),
    "neighbours": Entry("forms.near.neighbours", "numpy"),
    "convolution": Entry("forms.lattice.convolution", "numpy", auto=False),
    "compiled": Entry("forms.attention.compiled", "numpy", auto=False),
    "cells": Entry("forms.near.cell_lists", "torch"),
    "triton": Entry("forms.attention.kernels", "torch"),
    "flex": Entry("forms.attention.flex", "torch", auto=False),
    "sdpa": Entry("forms.attention.sdpa", "torch"),
    "banded": Entry("forms.attention.banded", "torch"),
    "recomputed": Entry("forms.recomputed", "torch"),
    "blocked": Entry("forms.blocked"),
    "reference": Entry("interaction.reference"),
}
AUTO = {
    library: [name for name, entry in FORMS.items() if entry.auto and entry.library in ("any", library)][:-1]
    for library in ("numpy", "torch")
}
ASKED = "asked for"


class Choice(NamedTuple):
    """A form, and why this one, in words."""

    impl: str
    reason: str


@cache
def form(name: str) -> Form:
    """The form of a name of `FORMS`."""
    return cast(Form, importlib.import_module(f"krause_dynamics.{FORMS[name].module}"))


def refusal(name: str, interaction: Interaction, request: Request) -> str | None:
    """Why a form cannot compute this, or ``None``."""
    if FORMS[name].library == "torch" and not is_torch(request.queries):
        return "it takes torch tensors"  # known without importing torch
    return form(name).supports(interaction, request)


def bound(interaction: Interaction, request: Request, choice: Choice) -> Prepared:
    """The chosen form, prepared; one that nobody asked for goes on to the next where it refuses at a call."""
    prepared = form(choice.impl).prepare(interaction, request)
    if choice.reason == ASKED or not getattr(form(choice.impl), "may_refuse", False):
        return prepared

    def go_on(request: Request) -> Aggregate:
        try:
            return prepared(request)
        except UnsupportedImplementation:
            other = choose(interaction, request, "auto", after=choice.impl)
            return bound(interaction, request, other)(request)

    return go_on


def _after(impl: str, request: Request) -> list[str]:
    names = AUTO["torch" if is_torch(request.queries) else "numpy"]
    return names[names.index(impl) + 1 :]


def choose(interaction: Interaction, request: Request, impl: str, *, after: str | None = None) -> Choice:
    """The form that computes this; of those that stand after another in the table, where one has refused.

    Raises:
        ValueError: Parameters of the rule that do not fit the arrays.
        UnsupportedImplementation: ``impl`` is no form, or cannot compute this; the message says why.
    """
    check_parameters(interaction, request)
    if impl == "auto":
        names = AUTO["torch" if is_torch(request.queries) else "numpy"] if after is None else _after(after, request)
        for name in names:
            candidate = form(name)
            if candidate.pays(interaction, request) and candidate.supports(interaction, request) is None:
                return Choice(name, "fastest known for this rule and size")
        return Choice("reference", "small, or no faster form supports this rule")
    if impl not in FORMS:
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {sorted(FORMS)}, got {impl!r}")
    reason = refusal(impl, interaction, request)
    if reason is not None:
        raise UnsupportedImplementation(f"impl={impl!r} cannot compute this interaction: {reason}; use impl='auto'")
    return Choice(impl, ASKED)
