"""Every form of the one operation against its definition in long doubles, on random small cases.

Positions are whole eighths, far from the origin or not, and parameters powers of two: scores and ties are exact in
float32, so that a form which admits or ranks otherwise is wrong, whatever the rounding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

import krause_dynamics as kd
from tests.campaigns.frame import Campaign, main

SCORES = {
    "gaussian": kd.Gaussian,
    "dot": lambda s: kd.DotProduct(s / 8),
    "dot with norm": lambda s: kd.DotProduct(s / 8, s / 16),
    "flat": lambda s: kd.Flat(),
}
NEIGHBOURHOODS = {
    "everyone": lambda n, k: kd.Everyone(),
    "within": lambda n, k: kd.Within(k / 2),
    "window": lambda n, k: kd.Window(k),
    "first tokens": lambda n, k: kd.Window(k, prefix_tokens=2),
    "random keys": lambda n, k: kd.RandomKeys(k, seed=k, tokens=n, prefix=1),
    "rank": lambda n, k: kd.TopK(k, "keep"),
    "rank in a window": lambda n, k: kd.Window(2 * k) & kd.TopK(k, exempt=1),
    "rank in the past": lambda n, k: kd.Causal() & kd.TopK(k),
}
# Sums of up to 40 terms, after exponentials of scores whose size multiplies a rounding.
TOLERANCES = {"float64": 1e-11, "float32": 2e-4}


def kind(rng: np.random.Generator) -> str:
    return f"{rng.choice(list(SCORES))}, {rng.choice(list(NEIGHBOURHOODS))}"


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    score, neighbourhood = (words := kind(rng)).split(", ")
    n, d, k = (int(rng.integers(*span)) for span in ((2, 41), (1, 17), (1, 7)))
    dtype, library = str(rng.choice(list(TOLERANCES))), str(rng.choice(["numpy", "torch"]))
    rule = kd.Interaction(SCORES[score](2.0 ** rng.integers(-1, 3)), NEIGHBOURHOODS[neighbourhood](n, k))
    offset = rng.choice([0, 16]) if score in ("gaussian", "flat") else 0
    x, values = rng.integers(-8, 9, (n, d)) / 8 + offset, rng.integers(-8, 9, (n, 2)) / 16
    mass = np.where(rng.random(n) < 0.2, -np.inf, -rng.integers(0, 9, n) / 8) if rng.random() < 0.5 else None
    exact = _call(rule, x, values, mass, "reference", lambda a: a.astype(np.longdouble))
    convert = (lambda a: a.astype(dtype)) if library == "numpy" else (lambda a: torch.tensor(a.astype(dtype)))
    arrays = convert(x), None, convert(values)
    said = kd.supported(rule, *arrays, log_mass=None if mass is None else convert(mass))
    worst = {
        form: _error(_call(rule, x, values, mass, form, convert), exact)
        for form in [name for name, reason in said.items() if reason is None] + ["auto"]
    }
    wrong = {form: error for form, error in worst.items() if not error <= TOLERANCES[dtype]}
    line = {"kind": words, "outcome": "differs" if wrong else "same", "forms": len(worst), "worst": max(worst.values())}
    return line | ({"wrong": wrong, "case": f"{rule!r} n={n} d={d} {dtype} {library}"} if wrong else {})


def _call(rule: kd.Interaction, x: Any, values: Any, mass: Any, form: str, convert: Any) -> tuple[np.ndarray, ...]:
    masses = None if mass is None else convert(mass)
    found = kd.aggregate(rule, convert(x), None, convert(values), log_mass=masses, impl=form)
    return tuple(np.asarray(part) for part in found)


def _error(found: tuple[np.ndarray, ...], exact: tuple[np.ndarray, ...]) -> float:
    """Largest error of means, and of log-partitions for their size; infinite where other rows are empty."""
    mean, log_partition = (np.asarray(part, np.longdouble) for part in found)
    some = exact[1] > -np.inf
    if (some != (log_partition > -np.inf)).any():
        return float("inf")
    logs = abs(log_partition[some] - exact[1][some]) / (1 + abs(exact[1][some]))
    return float(max(abs(mean - exact[0]).max(), logs.max(initial=0.0)))


CAMPAIGN = Campaign("forms", trial, kind, limit=120.0)  # the first call of a form compiles it

if __name__ == "__main__":
    main(CAMPAIGN)
