"""Intervals and verdicts of contrasts of arms: error pooled over arm x seed, Holm, equivalence, error of a test set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, nan, sqrt

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
LEVEL = 1.0 - CONFIDENCE
ONE_SEED = "one seed"  # the verdict of a contrast one of whose arms ran once


@dataclass(frozen=True)
class Pooled:
    """Means of arms and the error that they share.

    Attributes:
        means: Of each arm.
        counts: Seeds of each arm.
        error: Standard deviation of a run, sqrt(sum of squares within arms / degrees); nan without degrees.
        degrees: Of freedom, sum over arms of seeds - 1.
    """

    means: Mapping[str, float]
    counts: Mapping[str, int]
    error: float
    degrees: int


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of means, with its t-interval.

    Attributes:
        estimate: The sum.
        error: Its standard error.
        low: Lower end of the interval; -inf where one of the arms has a single seed.
        high: Upper end.
        p: Two-sided p-value of 0.
        degrees: Of freedom.
    """

    estimate: float
    error: float
    low: float
    high: float
    p: float
    degrees: int


def pooled(values: Mapping[str, Sequence[float]]) -> Pooled:
    """Pool the error over arms, whose noise is taken to be equal.

    Args:
        values: Results of each arm's seeds; arms without any are left out.

    Raises:
        ValueError: A result that is not finite.
    """
    arms = {name: np.asarray(v, float) for name, v in values.items() if len(v)}
    for name, array in arms.items():
        if not np.isfinite(array).all():
            raise ValueError(
                f"results of {name} must be finite, got {array.tolist()}; report such a run, do not pool it"
            )
    degrees = sum(len(array) - 1 for array in arms.values())
    squares = sum(float(((array - array.mean()) ** 2).sum()) for array in arms.values())
    return Pooled(
        {name: float(array.mean()) for name, array in arms.items()},
        {name: len(array) for name, array in arms.items()},
        sqrt(squares / degrees) if degrees else nan,
        degrees,
    )


def contrast(found: Pooled, weights: Mapping[str, float], *, confidence: float = CONFIDENCE) -> Contrast:
    """A contrast of means ``sum c_a m_a``: standard error ``s sqrt(sum c_a^2 / n_a)``, Student's t, pooled degrees.

    An arm of one seed has no interval, as the protocol says: nothing shows that its noise is that of the others.

    Args:
        found: From `pooled`.
        weights: c_a of the arms.
        confidence: Of the interval.

    Raises:
        KeyError: An arm without results.
    """
    missing = sorted(set(weights) - set(found.means))
    if missing:
        raise KeyError(f"no results of {', '.join(missing)}")
    estimate = sum(c * found.means[name] for name, c in weights.items())
    error = found.error * sqrt(sum(c * c / found.counts[name] for name, c in weights.items()))
    if min(found.counts[name] for name in weights) < 2:
        return Contrast(estimate, nan, -inf, inf, nan, found.degrees)
    half = float(stats.t.ppf(0.5 + confidence / 2, found.degrees)) * error
    if error == 0.0:
        p = 1.0 if estimate == 0.0 else 0.0
    else:
        p = 2.0 * float(stats.t.sf(abs(estimate) / error, found.degrees))
    return Contrast(estimate, error, estimate - half, estimate + half, p, found.degrees)


def blocked(
    values: Mapping[str, Mapping[int, float]], weights: Mapping[str, float], *, confidence: float = CONFIDENCE
) -> Contrast:
    """The same contrast with the seed as a block: ``y = arm + seed + noise`` by least squares.

    Runs of one seed share the order of the pictures and their augmentation, and so a part of their noise, which this
    takes out; of two arms it is the paired t-test.

    Args:
        values: By arm and seed.
        weights: Of the arms.
        confidence: Of the interval.
    """
    cells = [(arm, seed, y) for arm, runs in values.items() for seed, y in runs.items()]
    arms, seeds = list(values), sorted({seed for _, seed, _ in cells})
    design = np.array([[a == arm for arm in arms] + [s == seed for seed in seeds[1:]] for a, s, _ in cells], float)
    y = np.array([y for _, _, y in cells])
    wanted = np.array([weights.get(arm, 0.0) for arm in arms] + [0.0] * (len(seeds) - 1))
    inverse = np.linalg.pinv(design)
    estimate, residual = float(wanted @ inverse @ y), y - design @ (inverse @ y)
    degrees = len(y) - int(np.linalg.matrix_rank(design))
    if not degrees:
        return Contrast(estimate, nan, -inf, inf, nan, 0)
    error = sqrt(float(residual @ residual) / degrees * float(((wanted @ inverse) ** 2).sum()))
    half = float(stats.t.ppf(0.5 + confidence / 2, degrees)) * error
    p = 2.0 * float(stats.t.sf(abs(estimate) / error, degrees)) if error else nan
    return Contrast(estimate, error, estimate - half, estimate + half, p, degrees)


def interval(found: Pooled, arm: str) -> Contrast:
    """Mean of one arm with its interval."""
    return contrast(found, {arm: 1.0})


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of a family: the i-th smallest of m times m - i + 1, never falling (Holm 1979).

    Args:
        p_values: By name; nan (no interval) stays nan and counts in m, as the family was fixed beforehand.
    """
    order = sorted(p_values, key=lambda name: (np.isnan(p_values[name]), p_values[name]))
    adjusted, largest = {}, 0.0
    for i, name in enumerate(order):
        if np.isnan(p_values[name]):
            adjusted[name] = nan
            continue
        largest = max(largest, min(1.0, (len(order) - i) * p_values[name]))
        adjusted[name] = largest
    return {name: adjusted[name] for name in p_values}


def verdict(found: Contrast, bound: float, p: float) -> str:
    """Word of a contrast.

    Args:
        found: Its interval.
        bound: Half width of the interval of no difference.
        p: Its p-value, corrected where it belongs to a family.
    """
    if not np.isfinite(found.low):
        return ONE_SEED
    inside = -bound < found.low and found.high < bound
    if p < LEVEL:
        return "differs, negligibly" if inside else "differs"
    return "no difference" if inside else "undecided"


def sampling_error(share: float, count: int) -> float:
    """Standard error of a share of right answers by the choice of the test set: ``sqrt(p (1 - p) / n)``."""
    return sqrt(share * (1.0 - share) / count)


def paired_sampling_error(answers: Mapping[str, np.ndarray], weights: Mapping[str, float]) -> float:
    """Standard error of a contrast by the choice of the test set, on which all arms are tested.

    Args:
        answers: Of each arm, (seeds, examples): 1 where right.
        weights: Of the arms.

    Returns:
        Standard deviation over examples of ``sum_a c_a (mean over seeds of right)``, over sqrt(examples).
    """
    total = sum(c * np.asarray(answers[name], float).mean(axis=0) for name, c in weights.items())
    return float(np.std(total, ddof=1) / sqrt(len(total)))
