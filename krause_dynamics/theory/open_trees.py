"""Bounded confidence on sparse graphs: how many parts of a tree hear one another at the start."""

from __future__ import annotations

from krause_dynamics._arguments import Real, Whole
from krause_dynamics.theory._formula import formula


@formula(agents=Whole(), radius=Real(0.0, 1.0, "[]"))
def open_tree_parts(*, agents: int, radius: float) -> float:
    r"""Expected number of parts of any tree between which nobody hears, at t = 0: 1 + (n - 1)(1 - eps)^2.

    Opinions are independent and uniform on [0, 1]; an edge is closed where they differ by more than eps, with
    probability (1 - eps)^2, and each closed edge of a tree makes one part more. Edges open again as opinions draw
    together, so that parts may merge: this is where the rule starts, not where it ends.

    Args:
        agents: n, on the tree.
        radius: eps, in units of the interval of opinions.

    Source: derived; setting of arXiv 2507.14276 (uniform spanning trees).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.open_tree_parts(agents=101, radius=0.5)
        26.0
    """
    return 1.0 + (agents - 1) * (1.0 - radius) ** 2
