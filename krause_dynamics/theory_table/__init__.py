"""The theory, reproduced: every check compares a number of ``kd.theory`` or a quadrature with a simulation or a solver.

``python -m krause_dynamics.theory_table`` (or ``make theory``) runs them all and writes ``figures/theory.md`` and
``figures/theory.png``; ``--fast`` leaves out the slow ones. A verdict that fails is shown like any other.
"""

from krause_dynamics.theory_table import (  # noqa: F401  (importing registers the checks)
    densities,
    energies,
    fragmented_consensus,
    gaussian_laws,
    instability,
    long_contexts,
    near_consensus,
    opinion_lattices,
    opinion_waves,
    report,
    sphere,
)
from krause_dynamics.theory_table._row import CHECKS, Check, Comparison, Row, run

__all__ = ["CHECKS", "Check", "Comparison", "Row", "report", "run"]
