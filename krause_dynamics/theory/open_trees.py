"""Bounded confidence on sparse graphs: how many parts of a tree hear one another at the start."""

from __future__ import annotations

import math

from krause_dynamics._arguments import Real, Whole
from krause_dynamics.theory._angles import versine
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory.dispersion import dispersion


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


@formula(radius=Real(0.5, 1.0))
def open_tree_part_size(radius: float) -> float:
    r"""Expected size of the part that an agent hears along open edges of a large uniform spanning tree, at t = 0.

    A uniform spanning tree of the complete graph has k + 1 agents at distance k of one, on average, and a path of k
    edges is open with probability <1, K^k 1>, K the operator of the kernel 1(|u - v| <= eps) on [0, 1]: the size is
    sum_k (k + 1) <1, K^k 1> = |h|^2 with h = (1 - K)^{-1} 1. For eps >= 1/2, w = 1 - eps:

        h(u) = A cos u + B sin u up to w, B from w to eps, mirrored;  B = A cos w/(1 - sin w),  A = 1/(2 (1 - eps B/A)),

    so that it grows like w^{-4}: parts stay finite in an infinite tree up to eps = 1.

    Args:
        radius: eps in [1/2, 1), in units of the interval of opinions.

    Returns:
        The mean size, of a tree of many more agents.

    Source: derived (trees: Grimmett 1980; Aldous 1990); setting of arXiv 2507.14276.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.open_tree_part_size(0.5), 6)
        19.457851
    """
    w = 1.0 - radius
    # 1 - eps cos w/(1 - sin w); its numerator is 1 - cos w - (sin w - w cos w), without cancellation at small w.
    left = (float(versine(w)) - w * float(dispersion(w))) / (1.0 - math.sin(w))
    first = 0.5 / left
    level = first * math.cos(w) / (1.0 - math.sin(w))
    squares = first**2 + level**2
    mixed = 0.25 * math.sin(2.0 * w) * (first**2 - level**2) + first * level * math.sin(w) ** 2
    return w * squares + 2.0 * mixed + (2.0 * radius - 1.0) * level**2
