"""Section 1: discrete Hegselmann-Krause in one dimension, structure and freezing times."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory
from krause_dynamics.forms.near.line import SortedLine


def settle(start: np.ndarray, radius: float = 1.0) -> SortedLine:
    """The frozen state of a synchronous run."""
    x0 = np.asarray(start, dtype=float)
    line = SortedLine(x0, radius, 1e-12 * float(np.ptp(x0)))
    line.advance(10_000_000)
    return line


def equally_spaced(length: float, agents: int) -> SortedLine:
    """The frozen state from ``agents`` equally spaced opinions on [0, length], radius 1."""
    return settle(np.linspace(0.0, length, agents))


def step(x: np.ndarray, radius: float = 1.0) -> np.ndarray:
    """One synchronous step through the public operation."""
    return kd.aggregate(kd.bounded_confidence(radius), x[:, None]).mean[:, 0]


@check(1, source="1406.0819", setting="gap = radius, n = 2..60", tolerance=0.0)
def lattice_sizes() -> Comparison:
    """Equally spaced start: final cluster sizes."""
    agents = range(2, 61)
    predicted = [theory.equally_spaced_final_sizes(n) for n in agents]
    measured = [kd.hegselmann_krause(np.arange(float(n)), 1.0).meta["clusters"]["sizes"] for n in agents]
    return compare(np.concatenate(predicted), np.concatenate(measured))


@check(1, source="1406.0819", setting="gap = radius, n = 36", tolerance=0.0)
def lattice_splits() -> Comparison:
    """Equally spaced start: a triple leaves each end every 5 steps."""
    x, parts, splits = np.arange(36.0), 1, []
    for t in range(1, 32):
        x = step(x)
        now = 1 + int(np.sum(np.diff(x) > 1.0))
        if now > parts:
            splits.append(t)
        parts = now
    return compare(5 * np.arange(1, 7), splits)


@check(1, source="1406.0819, refined", setting="gap = radius, n = 2..120", tolerance=0.0)
def lattice_freezing() -> Comparison:
    """Equally spaced start: exact freezing time."""
    agents = range(2, 121)
    measured = [kd.hegselmann_krause(np.arange(float(n)), 1.0).steps for n in agents]
    return compare([theory.equally_spaced_freezing_time(n) for n in agents], measured)


@check(1, source="1406.0769", setting="3n + 1 agents, n = 2, 3, 4; ties decided in exact fractions", tolerance=0.0)
def dumbbell() -> Comparison:
    """Dumbbell start: freezing time."""
    measured = []
    for n in (2, 3, 4):
        x = [Fraction(-1, n)] * n + [Fraction(i) for i in range(n + 1)] + [n + Fraction(1, n)] * n
        steps = 0
        while (moved := _exact_step(x)) != x:
            x, steps = moved, steps + 1
        measured.append(steps)
    return compare([theory.DUMBBELL_FREEZING_TIMES[n] for n in (2, 3, 4)], measured)


@check(
    1,
    source="1406.0769 (Omega(n^2)); 1211.1909 (O(n^3))",
    setting="dumbbells with n = 160 and 640 in each bell and in the bar; slope of the log of the freezing time",
    tolerance=0.05,
)
def dumbbell_slope() -> Comparison:
    """Dumbbell start: the freezing time grows like n^2, the slowest known and below the proved n^3."""
    slow = [settle(np.repeat(*_dumbbell(n))).steps for n in (160, 640)]
    return compare(2.0, np.log(slow[1] / slow[0]) / np.log(4.0), f"{slow[0]} and {slow[1]} steps")


def _dumbbell(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Places and numbers of opinions."""
    places = np.concatenate([[-1.0 / n], np.arange(n + 1.0), [n + 1.0 / n]])
    return places, np.where((places < 0) | (places > n), n, 1)


def _exact_step(x: list[Fraction]) -> list[Fraction]:
    near = [[b for b in x if abs(b - a) <= 1] for a in x]
    return [sum(group, Fraction(0)) / len(group) for group in near]


@check(
    1,
    source="1211.1909",
    setting="40 random starts, n = 12..200; freezing time against n^3",
    tolerance=0.0,
    kind="at most",
)
def cubic_bound() -> Comparison:
    """Freezing time is O(n^3)."""
    rng = np.random.default_rng(0)
    agents = rng.integers(12, 200, 40)
    steps = [settle(rng.uniform(0, rng.uniform(1, 12), n)).steps for n in agents]
    return compare(agents.astype(float) ** 3, steps, f"largest steps/n: {np.max(steps / agents):.2f}")


@check(1, source="classical", setting="20 random starts, n = 60, L = 8; largest violation", tolerance=1e-9)
def structure() -> Comparison:
    """Order is kept, the hull shrinks, gaps above the radius stay, frozen gaps exceed it."""
    rng, violations = np.random.default_rng(1), np.zeros(4)
    for _ in range(20):
        x = np.sort(rng.uniform(0, 8, 60))
        for _ in range(80):
            moved = step(x)
            open_gaps = np.diff(x) > 1.0
            now = (
                np.max(-np.diff(moved)),
                max(x[0] - moved[0], moved[-1] - x[-1]),
                np.max(np.where(open_gaps, np.diff(x) - np.diff(moved), 0.0)),
            )
            violations[:3] = np.maximum(violations[:3], now)
            x = moved
        gaps = np.diff(x)
        violations[3] = max(violations[3], np.max(np.where(gaps > 1e-9, 1.0 - gaps, 0.0), initial=0.0))
    return compare(np.zeros(4), np.maximum(violations, 0.0))


@check(1, source="0807.2028", setting="weights (1, 1), (3, 2), (5, 1); a third opinion of mass 1e-7", tolerance=1e-3)
def cluster_stability() -> Comparison:
    """Two clusters are stable from a distance of 1 + min/max of their weights."""
    from scipy.optimize import bisect

    pairs = [(1.0, 1.0), (3.0, 2.0), (5.0, 1.0)]
    rule, between = kd.bounded_confidence(1.0), np.linspace(0.01, 0.99, 491)

    def bridged(distance: float, weights: tuple[float, float]) -> float:
        log_mass = np.log([weights[0], 1e-7, weights[1]])
        x = np.stack([np.zeros(491), between * distance, np.full(491, distance)], axis=-1)[..., None]
        moved = kd.aggregate(rule, x, log_mass=np.broadcast_to(log_mass, (491, 3))).mean[..., 0]
        # After one step the light one sits at the mean of those it heard; hearing both again, it pulls both together.
        both = (np.abs(moved[:, 1] - moved[:, 0]) <= 1.0) & (np.abs(moved[:, 2] - moved[:, 1]) <= 1.0)
        return 1.0 if both.any() else -1.0

    measured = [bisect(bridged, 1.01, 2.2, args=(w,), xtol=1e-5) for w in pairs]
    return compare([theory.two_cluster_stability_distance(mass_a=a, mass_b=b) for a, b in pairs], measured)


@check(
    1,
    source="2507.14276 (slow-down near eps = 1/N); 1406.0819",
    setting="equally spaced, n = 60, 120, 240, radius 1 to 20 gaps; radius of the longest freezing time, and that time",
    tolerance=0.0,
)
def slowest_radius() -> Comparison:
    """Slow-down near a radius of 1/N: no radius freezes an equally spaced start later than one gap does."""
    predicted, measured = [], []
    for n in (60, 120, 240):
        steps = [kd.hegselmann_krause(np.arange(float(n)), float(gaps)).steps for gaps in range(1, 21)]
        predicted += [1, theory.equally_spaced_freezing_time(n)]
        measured += [1 + int(np.argmax(steps)), max(steps)]
    return compare(predicted, measured)
