"""Section 1: clusters of a uniform density, branch points, random starts."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.opinion_lattices import equally_spaced, settle
from krause_dynamics import theory
from krause_dynamics.sweeps import phase_diagrams


@check(1, source="computed", setting="uniform on [0, L], n = 20 001; L = 3, 7.5, 8, 12, 16", tolerance=0.0)
def cluster_numbers() -> Comparison:
    """Number of clusters of a uniform density."""
    lengths = list(theory.UNIFORM_DENSITY_CLUSTERS)
    measured = [len(equally_spaced(length, 20_001).atoms) for length in lengths]
    return compare(list(theory.UNIFORM_DENSITY_CLUSTERS.values()), measured)


def _density_clusters(length: float, per_radius: int = 400) -> list[kd.mean_field.Cluster]:
    """Clusters of the map of a uniform density on cells (Eulerian), radius 1."""
    cells = kd.mean_field.LineCells(round(per_radius * length), 0.0, length)
    rule = kd.Dynamics(kd.bounded_confidence(1.0))
    run = kd.mean_field.iterate(rule, kd.mean_field.uniform(cells), 40, save_every=40)
    return kd.mean_field.clusters(run, gap=0.5)


@check(
    1,
    source="computed",
    setting="L = 8, 12; map of a density on 400 cells per R against 20 001 opinions",
    tolerance=0.01,
)
def cluster_list() -> Comparison:
    """Positions and masses of the clusters of a uniform density."""
    solved, simulated = [], []
    for length in (8.0, 12.0):
        density, frozen = _density_clusters(length), equally_spaced(length, 20_001)
        solved += [c.position for c in density] + [c.mass for c in density]
        simulated += [*frozen.atoms, *(frozen.masses / 20_001)]
    found = ", ".join(f"{c.position:.3f} ({c.mass:.4f})" for c in _density_clusters(12.0)[:3])
    return compare(solved, simulated, f"L = 12, position (mass): {found}, mirrored")


@check(
    1,
    source="computed",
    setting="density 1, R = 1: map of a density on L = 24 against 1024 opinions per R on L = 60",
    tolerance=0.01,
)
def edge_clusters() -> Comparison:
    """First two clusters from an edge: position and mass."""
    density, frozen = _density_clusters(24.0)[:2], settle(np.arange(60 * 1024 + 1) / 1024)
    heavy = frozen.masses > 0.05 * frozen.masses.max()
    simulated = [*frozen.atoms[heavy][:2], *(frozen.masses[heavy][:2] / 1024)]
    return compare([*(c.position for c in density), *(24.0 * c.mass for c in density)], simulated)


def branch_point(lower: float, upper: float, agents: int, *, width: float = 1e-3) -> float:
    """Length at which consensus is lost or found between two lengths of different fate, by bisection."""
    fate = len(equally_spaced(lower, agents).atoms) == 1
    while upper - lower > width:
        middle = 0.5 * (lower + upper)
        if (len(equally_spaced(middle, agents).atoms) == 1) == fate:
            lower = middle
        else:
            upper = middle
    return 0.5 * (lower + upper)


@check(1, source="Lorenz 2006; 2107.12906", setting="equally spaced, n = 100 001 and 1 000 001", tolerance=0.01)
def first_branch_point() -> Comparison:
    """Consensus is first lost at L1 (odd n)."""
    measured = [branch_point(5.1, 5.4, n) for n in (100_001, 1_000_001)]
    middle = equally_spaced(5.3, 100_001)
    return compare([theory.CONSENSUS_BRANCH_POINTS[0]] * 2, measured, f"{len(middle.atoms)} clusters at L = 5.3")


@check(1, source="2107.12906 (consensus strikes back)", setting="equally spaced, n = 1 000 001", tolerance=0.02)
def second_branch_point() -> Comparison:
    """Consensus is found again at L2 (odd n)."""
    return compare(theory.CONSENSUS_BRANCH_POINTS[1], branch_point(5.6, 5.69, 1_000_001))


@check(
    1,
    source="computed here",
    setting="n = 1001 quantiles against the value extrapolated from n up to 32 001",
    tolerance=0.02,
    slow=True,
)
def continuous_branch_points() -> Comparison:
    """Continuous time: consensus is lost at (normalised, per capita)."""
    models: tuple[phase_diagrams.Model, ...] = ("normalised", "per_capita")
    measured = [phase_diagrams.branch_point(4.4, 4.9, model, count=1001) for model in models]
    return compare([theory.CONTINUOUS_BRANCH_POINTS[model] for model in models], measured)


@check(
    1,
    source="2107.12906",
    setting="L = 5.7: n = 10 001, 100 001; steps of the latter in tens of thousands",
    tolerance=0.0,
)
def finite_size_holes() -> Comparison:
    """Finite populations have holes: three clusters, then one."""
    small, large = equally_spaced(5.7, 10_001), equally_spaced(5.7, 100_001)
    return compare([3, 1], [len(small.atoms), len(large.atoms)], f"{large.steps} steps at n = 100 001")


def first_split(agents: int, lower: float) -> float:
    """Smallest length, in steps of 0.01 from ``lower``, at which equally spaced opinions end in two clusters."""
    lengths = np.arange(lower, 5.4, 0.01)
    return float(next((length for length in lengths if len(equally_spaced(length, agents).atoms) == 2), np.nan))


@check(1, source="Deffuant 2024; computed", setting="first split for n = 10 000, 100 000", tolerance=0.05)
def parity() -> Comparison:
    """Even n splits in two earlier, at a length that grows slowly with n."""
    return compare([5.1, 5.2], [first_split(10_000, 4.9), first_split(100_000, 5.0)])


@check(
    1,
    source="Deffuant 2024; computed",
    setting="first split for n = 100",
    tolerance=0.05,
    disputed="exact fractions split in two at L = 4.32 and from 4.40 on (consensus between), so 4.6 is not the first",
)
def parity_small() -> Comparison:
    """Even n splits in two earlier: n = 100."""
    return compare(4.6, first_split(100, 4.1))


def consensus_probability(radius: float, agents: int, draws: int, seed: int) -> int:
    """How many of ``draws`` i.i.d. uniform starts on [0, 1] end in consensus."""
    rng = np.random.default_rng(seed)
    return sum(len(settle(rng.uniform(size=agents), radius).atoms) == 1 for _ in range(draws))


@check(
    1,
    source="computed; conjecture 0.2 for N -> infinity in cond-mat/0408648",
    setting="N = 1000, 600 draws at each of 7 radii, probit fit",
    tolerance=0.006,
    slow=True,
)
def random_start() -> Comparison:
    """Random uniform start: P(consensus) = 1/2 at a radius of."""
    from scipy.optimize import minimize
    from scipy.stats import norm

    radii, draws = np.linspace(0.200, 0.224, 7), 600
    hits = np.array([consensus_probability(r, 1000, draws, seed) for seed, r in enumerate(radii)])

    def loss(parameters: np.ndarray) -> float:
        z = (radii - parameters[0]) / np.exp(parameters[1])
        return -float(np.sum(hits * norm.logcdf(z) + (draws - hits) * norm.logcdf(-z)))

    best = minimize(loss, [0.2125, np.log(0.01)], method="BFGS")
    half_width = 1.96 * float(np.sqrt(best.hess_inv[0, 0]))
    return compare(theory.RANDOM_START_THRESHOLD[0], best.x[0], f"95 % interval +- {half_width:.4f}")
