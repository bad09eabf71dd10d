"""Section 3: pre-norm attention, and attention in one dimension without normalisation."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.sphere import equiangular, mean_cosine
from krause_dynamics import theory


def _pre_norm(times: list[float]) -> tuple[np.ndarray, np.ndarray]:
    dynamics = kd.Dynamics(kd.softmax(2.0), kd.Euclidean(), relative=False, read=kd.Sphere().retract)
    x = kd.simulate(dynamics, equiangular(4, 0.2), times[-1], dt=0.05, save_at=times).positions[1:]
    radius = np.linalg.norm(x, axis=-1)
    return mean_cosine(x / radius[..., None]), radius.mean(-1)


@check(
    3,
    source="2510.22026; derived",
    setting="n = 4, beta = 2, t = 2, 10",
    tolerance=1e-5,
    kind="relative",
)
def pre_norm_curve() -> Comparison:
    """Pre-norm: inner product and radius."""
    return compare(
        np.stack(theory.pre_norm_equiangular(times=[2.0, 10.0], start=0.2, beta=2.0, tokens=4)),
        np.stack(_pre_norm([2.0, 10.0])),
    )


@check(3, source="2510.22026", setting="between t = 200 and 400", tolerance=0.02)
def pre_norm_exponents() -> Comparison:
    """Pre-norm: exponents of r and 1 - rho."""
    dynamics = kd.Dynamics(kd.softmax(2.0), kd.Euclidean(), relative=False, read=kd.Sphere().retract)
    x = kd.simulate(dynamics, equiangular(4, 0.2), 400.0, dt=0.25, save_at=[200.0, 400.0]).positions[1:]
    radius = np.linalg.norm(x, axis=-1)
    gap = np.sum((x[:, 0] / radius[:, :1] - x[:, 1] / radius[:, 1:2]) ** 2, axis=-1)
    return compare(theory.pre_norm_exponents(), np.log2([radius[1, 0] / radius[0, 0], gap[1] / gap[0]]))


@check(
    3,
    source="2305.05465 thm 2.1",
    setting="n = 12; one sign, both signs",
    tolerance=0.0,
)
def boolean_limit() -> Comparison:
    """Boolean limit in one dimension: rank."""
    rng, predicted, measured = np.random.default_rng(4), [], []
    for x0 in (rng.uniform(0.2, 1.0, 12), rng.normal(size=12)):
        dynamics = kd.Dynamics(kd.softmax(1.0), kd.Euclidean(), relative=False)
        final = kd.simulate(dynamics, x0, 7.0, dt=0.02, save_every=1000).final
        attention = kd.weights(kd.softmax(1.0), final)
        if np.max(np.abs(attention - np.round(attention))) > 1e-6:
            return compare(theory.boolean_limit_rank(x0), np.nan, "attention is not yet 0/1")
        predicted.append(theory.boolean_limit_rank(x0))
        measured.append(np.linalg.matrix_rank(np.round(attention)))
    return compare(predicted, measured)
