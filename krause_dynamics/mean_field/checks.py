"""What a mean field can be made of: rules of positions alone, one kind of space, and cells fine enough."""

from __future__ import annotations

from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics.dynamics import Dynamics, check_dynamics
from krause_dynamics.interaction import Interaction, Within
from krause_dynamics.mean_field.cells import Cells, LatitudeCells
from krause_dynamics.mean_field.density import Density

CELLS_PER_LENGTH = 4  # fewest cells per radius or bandwidth that show a drift at all


def check_resolution(rule: Interaction, cells: Cells) -> None:
    """Refuse cells that cannot show the rule.

    Raises:
        ValueError: Fewer than `CELLS_PER_LENGTH` cells per radius or bandwidth; the message says how many are needed.
    """
    length = rule.length
    needed = int(np.ceil(CELLS_PER_LENGTH * (cells.bounds[1] - cells.bounds[0]) / length - 1e-9))
    if cells.count < needed:
        raise ValueError(
            f"cells must be at least {needed} ({CELLS_PER_LENGTH} per length {length:.4g} of the rule), "
            f"got {cells.count}; use more cells"
        )


def check_types(dynamics: Any, density: Any) -> None:
    """Raise TypeError unless the arguments are a `Dynamics` and a `Density`."""
    check_dynamics(dynamics)
    if not isinstance(density, Density):
        raise TypeError(
            f"density must be a Density, got {type(density).__name__}; take mean_field.from_particles or from_function"
        )


def check_rule(dynamics: Dynamics, cells: Cells) -> None:
    """Refuse what is no function of the measure, or not of this kind of measure.

    Raises:
        ValueError: With the reason.
    """
    rule = dynamics.rule_at(0.0)
    if not rule.is_exchangeable:
        raise ValueError(f"a mean field needs a rule of positions alone, but {_unfit(rule)}; use kd.simulate")
    if any(np.ndim(to_numpy(p)) for p in rule.score.parameters if not callable(p)):
        raise ValueError("a mean field needs one parameter for all, but the score has an array; use kd.simulate")
    for name in ("fixed", "read"):
        if getattr(dynamics, name) is not None:
            raise ValueError(
                f"a mean field has no particles to single out, but dynamics.{name} is set; use kd.simulate"
            )
    matrices = {name: getattr(dynamics, name) for name in ("query", "key", "value")}
    for name, matrix in matrices.items():
        if np.ndim(matrix(0.0) if callable(matrix) else matrix) >= 3:
            raise ValueError(f"a mean field knows one head, but dynamics.{name} has several; use kd.simulate")
        if name != "value" and callable(matrix):
            raise ValueError(f"dynamics.{name} must not vary in time in a mean field; only the value matrix may")
        if matrix is not None and isinstance(cells, LatitudeCells):
            raise ValueError(f"dynamics.{name} breaks the symmetry of a zonal density; use kd.simulate")
    more = dynamics.external is not None or dynamics.response is not None
    if isinstance(cells, LatitudeCells) and (rule.find(Within) or more):
        raise ValueError(
            "zonal densities need a smooth score, no external drift and no response: rings of nodes know the part "
            "along the meridian alone, and cannot follow the jump of Within; use kd.simulate"
        )


def _unfit(rule: Interaction) -> str:
    if rule.pair_bias is not None:
        return "pair_bias names pairs of particles"
    names = [type(part).__name__ for part in rule.parts if not part.is_exchangeable]
    return f"{' and '.join(names)} looks at indices or ranks" if names else "the radius differs between particles"
