"""Section 3: where a Transformer normalises decides how fast tokens meet."""

from __future__ import annotations

from typing import Any

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.sphere import equiangular
from krause_dynamics import theory

SCHEMES = ("post", "pre", "peri", "ngpt", "scaled", "pre_scaled")
LATE = {"post": (4.0, 8.0), "ngpt": (4.0, 8.0), "scaled": (20.0, 60.0)}  # before 1 - rho reaches rounding
LATEST = {"pre_scaled": (1e4, 4e4)}  # its law has a correction of t^(-1/2)


def _directions(scheme: str, times: list[float], **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors and norms (times, tokens, d) of four tokens at cosine 0.2, beta = 2."""
    dynamics = kd.layer_normed(kd.softmax(2.0), scheme, **options)
    # Runge-Kutta of order 4, whose stages must not look across the switch of Mix-LN; adaptive where speeds fade.
    grid = 0.01 if scheme == "mix" and times[-1] < 10.0 else 0.05 if times[-1] <= 20.0 else 0.25
    method = {"dt": grid} if times[-1] < 1e3 else {"dt": times[0], "integrator": kd.Adaptive()}
    x = kd.simulate(dynamics, equiangular(4, 0.2), times[-1], save_at=times, **method).positions[1:]
    radius = np.linalg.norm(x, axis=-1)
    return x / radius[..., None], radius


@check(
    3,
    source="2510.22026; derived",
    setting="n = 4, beta = 2, t = 0.5, 2, 6; six schemes, nGPT at rate 0.7",
    tolerance=1e-5,
    kind="relative",
)
def layer_norm_curves() -> Comparison:
    """Inner product and radius under Post-LN, Pre-LN, Peri-LN, nGPT and LN-scaling (two readings)."""
    return _curves(SCHEMES)


@check(
    3,
    source="2510.22026; derived",
    setting="n = 4, beta = 2, t = 0.5, 2, 6; from Post to Pre at t = 1; a Runge-Kutta step of 0.01 meets the switch",
    tolerance=1e-3,
    kind="relative",
)
def layer_norm_mix() -> Comparison:
    """Inner product and radius under Mix-LN."""
    return _curves(("mix",))


def _curves(schemes: tuple[str, ...]) -> Comparison:
    predicted, measured, times = [], [], [0.5, 2.0, 6.0]
    for scheme in schemes:
        y, radius = _directions(scheme, times, rate=0.7)
        measured += [np.sum(y[:, 0] * y[:, 1], axis=-1), radius[:, 0]]
        predicted += theory.layer_norm_equiangular(times=times, start=0.2, beta=2.0, tokens=4, scheme=scheme, rate=0.7)
    return compare(np.concatenate(predicted), np.concatenate(measured))


def _late_times(scheme: str) -> tuple[float, float]:
    return (LATE | LATEST).get(scheme, (100.0, 400.0))


def _late_slopes(scheme: str) -> Comparison:
    """Change of log(1 - rho) between two late times."""
    times = _late_times(scheme)
    y, _ = _directions(scheme, list(times))
    log_gap = np.log(np.sum((y[:, 0] - y[:, 1]) ** 2, axis=-1))
    law = theory.layer_norm_late_gap(times=times, scheme=scheme)
    return compare(law[1] - law[0], log_gap[1] - log_gap[0])


def _late(scheme: str, words: str, source: str = "2510.22026") -> None:
    early, late = _late_times(scheme)
    setting = f"n = 4, beta = 2; change of log(1 - rho) from t = {early:g} to {late:g}"

    def late_gap() -> Comparison:
        return _late_slopes(scheme)

    late_gap.__name__, late_gap.__doc__ = f"late_gap_{scheme}", f"Late variance: {words}."
    check(3, source=source, setting=setting, tolerance=0.03, kind="relative")(late_gap)


_late("post", "e^{-2t} under Post-LN")
_late("pre", "t^{-2} under Pre-LN")
_late("peri", "t^{-2} under Peri-LN")
_late("ngpt", "e^{-2 alpha t} under nGPT")
_late("scaled", "e^{-4 sqrt t} under LN-scaling on the sphere")
_late("mix", "t^{-2} under Mix-LN")
_late("pre_scaled", "t^{-1} under LN-scaling as it is used, in a pre-norm Transformer", "derived; rule of 2502.05795")


@check(
    3,
    source="2510.22026",
    setting="n = 64 orthogonal tokens, beta = 1; gain of peri, ngpt, pre",
    tolerance=1e-9,
    kind="relative",
)
def layer_norm_early() -> Comparison:
    """Early speed: Peri-LN and nGPT are faster than Post-LN by 1/|A|, which is small for random tokens."""
    x = np.eye(64)

    def speed(scheme: str) -> float:
        v = kd.Sphere().project(x, kd.layer_normed(kd.softmax(1.0), scheme).drift(0.0, x))
        return float(np.linalg.norm(v, axis=1).mean())

    gains = [
        theory.layer_norm_early_gain(similarity=0.0, beta=1.0, tokens=64, scheme=scheme)
        for scheme in ("peri", "ngpt", "pre")
    ]
    measured = [speed(scheme) / speed("post") for scheme in ("peri", "ngpt", "pre")]
    return compare(gains, measured, f"{gains[0]:.2f} times")
