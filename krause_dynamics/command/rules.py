"""Options for the rule of a run: its numbers, whom a particle hears, and a word where a rule is softmax in disguise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# A rule named in the command without a neighbourhood gets one: on the sphere the Gaussian alone is softmax.
RADIUS = 0.5


def rule_options(
    tables: Mapping[str, Any],
    *,
    rule: str | None,
    beta: float | None,
    sigma: float | None,
    radius: float | None,
    window: int | None,
    top_k: int | None,
) -> dict[str, Any]:
    """The options as settings of tables; ``None`` leaves a key as it is.

    Args:
        tables: Of the file, to which the options are added.
        rule: ``--rule``.
        beta: Inverse temperature of softmax.
        sigma: Bandwidth of krause.
        radius: Of the ball that is heard; unit: position.
        window: Keys before and with a particle, by index.
        top_k: How many of them are heard.
    """
    written = tables.get("rule", {})
    kind = rule or written.get("type", "softmax")
    found: dict[str, Any] = {"rule.type": rule, "rule.beta": beta, "rule.sigma": sigma}
    if kind == "bounded_confidence":
        found["rule.radius"], radius = radius, None
    elif rule == "krause" and {radius, window, top_k} == {None} and "neighbourhood" not in written:
        radius = RADIUS
    parts = {"Within": ("radius", radius), "Window": ("size", window), "TopK": ("k", top_k)}
    near = [{"type": name, key: value} for name, (key, value) in parts.items() if value is not None]
    found["rule.neighbourhood"] = near or None
    return found


def disguised(described: Mapping[str, Any]) -> str | None:
    """A sentence where a Gaussian rule among all on unit vectors is softmax; ``None`` elsewhere."""
    rule, space = described.get("rule", {}), described.get("space", {})
    if rule.get("type") != "krause" or rule.get("neighbourhood") or space.get("type") not in ("Sphere", "Circle"):
        return None
    beta = rule["sigma"] ** -2 if isinstance(rule.get("sigma"), int | float) and rule["sigma"] else None
    same = f"softmax with beta = {beta:g}" if beta is not None else "softmax with beta = 1/sigma^2"
    return f"krause without a neighbourhood on unit vectors is {same}; a radius makes clusters survive (--radius 0.5)"
