"""The theory, reproduced: every check compares a number of ``kd.theory`` or a quadrature with a simulation or a solver.

``python -m krause_dynamics.theory_table`` (or ``make theory``) runs them all and writes ``figures/theory.md`` and
``figures/theory.png``, and ``figures/errata.md`` with the printed statements that fail; ``--fast`` leaves out the slow
ones. A verdict that fails is shown like any other.
"""

from evidence.theory_table import (  # noqa: F401  (importing registers the checks)
    antipodal,
    branch_points,
    causal,
    cluster_counts,
    densities,
    energies,
    entropy_collapse,
    errata,
    fragmented_consensus,
    gaussian_laws,
    hard_attention,
    heads_and_spectra,
    held_apart,
    instability,
    language_model,
    layer_norm,
    lifetimes,
    long_contexts,
    lost_in_the_middle,
    low_temperature,
    near_consensus,
    noisy_attention,
    opinion_dispersion,
    opinion_lattices,
    opinion_waves,
    oscillators,
    polygons,
    pre_norm,
    propagation_of_chaos,
    random_values,
    recent_results,
    recent_spectra,
    report,
    sinks,
    sparse_graphs,
    spectra,
    sphere,
    stacks,
)
from evidence.theory_table._row import CHECKS, Check, Comparison, Row, run

__all__ = ["CHECKS", "Check", "Comparison", "Row", "errata", "report", "run"]
