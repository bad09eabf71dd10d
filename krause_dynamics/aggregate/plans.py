"""A choice made once, for use in a loop: the rule, the form, and the form prepared for the rule."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

from krause_dynamics._array import Array, is_torch
from krause_dynamics.aggregate.registry import ASKED, Choice, bound, choose, form
from krause_dynamics.interaction import Aggregate, Interaction, Prepared, Request
from krause_dynamics.interaction.request import as_floats
from krause_dynamics.interaction.rules import check_rule
from krause_dynamics.interaction.steps import ManySteps, Steps

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """A choice made once, for use in a loop.

    Attributes:
        interaction: The rule.
        impl: Name of the form that runs.
        reason: Why this one, in words.
        prepared: The form, ready for requests of the planned kind.
        xp: Array namespace of the planned kind.
    """

    interaction: Interaction
    impl: str
    reason: str
    prepared: Prepared
    xp: Any

    def __call__(
        self,
        queries: Array,
        sources: Array | None = None,
        values: Array | None = None,
        *,
        log_mass: Array | None = None,
        query_index: Array | None = None,
        source_index: Array | None = None,
    ) -> Aggregate:
        """`aggregate` with fresh arrays of the planned kind; arguments as there, without the search and its checks."""
        sources = queries if sources is None else sources
        values = sources if values is None else values
        queries, sources, values, log_mass = as_floats(queries, sources, values, log_mass)
        default = query_index is None and source_index is None
        return self.prepared(Request(self.xp, queries, sources, values, log_mass, query_index, source_index, default))

    def under(self, interaction: Interaction, request: Request) -> Plan:
        """The plan for a rule that may have changed; itself where it has not.

        The form is kept where it computes the new rule as well; else another is chosen.

        Raises:
            UnsupportedImplementation: The form was asked for by name and cannot compute the new rule.
        """
        if interaction is self.interaction or is_same_rule(interaction, self.interaction):
            return self
        request = replace(request, repeated=True)
        if form(self.impl).supports(interaction, request) is None:
            prepared = bound(interaction, request, Choice(self.impl, self.reason))
            return Plan(interaction, self.impl, self.reason, prepared, self.xp)
        return plan_request(interaction, request, self.impl if self.reason == ASKED else "auto")

    def many_steps(self, steps: Steps) -> ManySteps | None:
        """Many steps of particles under the rule in one call, where the form offers that; else ``None``."""
        offer = getattr(form(self.impl), "many_steps", None)
        return None if offer is None else offer(self.interaction, steps)


def plan(interaction: Interaction, queries: Array, *arrays: Array | None, impl: str = "auto", **rest: Any) -> Plan:
    """Choose the implementation once for arrays of this kind.

    Args:
        interaction: The rule.
        queries: (..., n, d) positions, of which shape, type and device are looked at.
        arrays: Sources and values, as in `aggregate`.
        impl: Name of a form, or ``"auto"``: the first that computes this and pays.
        rest: Keywords of `aggregate`.
    """
    check_rule(interaction)
    return plan_request(interaction, Request.of(queries, *arrays, **rest), impl)


def plan_request(interaction: Interaction, request: Request, impl: str) -> Plan:
    """The plan for requests like this one, for callers that hold one; see `choose` for what it raises."""
    request = replace(request, repeated=True)
    choice = choose(interaction, request, impl)
    logger.debug("aggregate: %s (%s)", *choice)
    return Plan(interaction, *choice, bound(interaction, request, choice), request.xp)


def is_same_rule(one: Interaction, other: Interaction) -> bool:
    """Whether two rules are equal and hold no tensors: equal tensors may still have gradients of their own."""
    if any(_holds_tensors(part) for rule in (one, other) for part in (rule, rule.score, *rule.parts)):
        return False
    return one == other


def _holds_tensors(part: Any) -> bool:
    return any(is_torch(value) for value in vars(part).values())
