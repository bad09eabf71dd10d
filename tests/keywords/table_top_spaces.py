"""Spaces with parameters, and the linearisation: Interval, Torus, jacobian, spectrum."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

POINTS = np.random.default_rng(21).random((9, 1))
STATE = np.random.default_rng(22).standard_normal((4, 2))
ON_SPHERE = kd.Sphere().sample(4, 3, rng=23)
LOCAL = kd.krause(0.2, kd.Within(0.4))
MEAN = kd.Interaction(kd.Flat())  # drift: mean of all minus own, linear
# Central differences of step 1e-5 of smooth drifts are off by about h^2 = 1e-10 plus 1e-16/h = 1e-11.
BY_DIFFERENCES = {"rtol": 0, "atol": 1e-8}


def images_drift(x, images):
    """Drift of LOCAL where the images are heard as further sources."""
    sources = np.concatenate([x, *images])
    return kd.aggregate(LOCAL, x, sources, impl="reference").mean - x


@row("kd.Interval", "lower", 0.0, -0.5, "points beyond the left wall come back mirrored; samples fill [lower, upper]")
@row("kd.Interval", "upper", 1.0, 1.5, "points beyond the right wall come back mirrored; samples fill [lower, upper]")
def interval_ends(first, second):
    for end in (first, second):
        lower, upper = (end, 1.0) if end <= 0 else (0.0, end)
        box = kd.Interval(lower, upper)
        outside = np.array([[lower - 0.1], [upper + 0.2], [(lower + upper) / 2]])
        np.testing.assert_allclose(
            box.retract(outside)[:, 0], [lower + 0.1, upper - 0.2, (lower + upper) / 2], atol=1e-15
        )
        sample = box.sample(4000, 1, rng=0)  # the extremes of 4000 uniform points lie within 1e-2 but for e^-40
        assert lower <= sample.min() < lower + 1e-2
        assert upper - 1e-2 < sample.max() <= upper
    assert kd.Interval() == kd.Interval(0.0, 1.0)
    with pytest.raises(ValueError, match="lower"):
        kd.Interval(1.0, 1.0)


@row("kd.Interval", "mirror", False, True, "the images behind both walls are heard as further sources, or not")
def interval_mirror(first, second):
    drift = [kd.Dynamics(LOCAL, kd.Interval(0.0, 1.0, mirror)).drift(0.0, POINTS) for mirror in (first, second)]
    np.testing.assert_allclose(drift[0], images_drift(POINTS, []), atol=1e-14)
    np.testing.assert_allclose(drift[1], images_drift(POINTS, [-POINTS, 2.0 - POINTS]), atol=1e-14)
    assert kd.Interval() == kd.Interval(mirror=first)


@row(
    "kd.Torus",
    "length",
    1.0,
    1.7,
    "periodic images are heard, moving all by any amount moves nothing else, distances go the short way",
)
def torus_length(first, second):
    for length in (first, second):
        space, x = kd.Torus(length), POINTS * length
        dynamics = kd.Dynamics(LOCAL, space)
        drift = dynamics.drift(0.0, x)
        np.testing.assert_allclose(drift, images_drift(x, [x - length, x + length]), atol=1e-13)
        np.testing.assert_allclose(dynamics.drift(0.0, space.retract(x + 0.77)), drift, atol=1e-13)
        np.testing.assert_allclose(space.distance(np.array([[0.1]]), np.array([[length - 0.1]])), 0.2, atol=1e-14)
        np.testing.assert_allclose(space.retract(np.array([[length + 0.3]])), 0.3, atol=1e-14)


def differences(function, x, step=1e-5):
    """Jacobian of a function (n, d) -> (n, d) by central differences in float64."""
    columns = []
    for unit in np.eye(x.size):
        shift = step * unit.reshape(x.shape)
        columns.append((function(x + shift) - function(x - shift)).ravel() / (2 * step))
    return np.stack(columns, axis=1)


def drift_of(dynamics, t=0.0, log_mass=None):
    return lambda x: dynamics.drift(t, dynamics.space.retract(x), log_mass)


@row(
    "kd.jacobian",
    "dynamics",
    kd.Dynamics(MEAN),
    kd.Dynamics(kd.softmax(1.3), kd.Sphere()),
    "linear drift: the matrix 11'/n - 1; softmax on the sphere: central differences",
)
def jacobian_dynamics(first, second):
    linear = np.kron(np.full((4, 4), 0.25) - np.eye(4), np.eye(2))
    np.testing.assert_allclose(kd.jacobian(first, STATE), linear, atol=1e-14)
    np.testing.assert_allclose(
        kd.jacobian(second, ON_SPHERE), differences(drift_of(second), ON_SPHERE), **BY_DIFFERENCES
    )


SOFT = kd.Dynamics(kd.softmax(0.8))


@row("kd.jacobian", "x", STATE, STATE[::-1] * 0.3, "central differences at that state; (n,) is one coordinate each")
def jacobian_x(first, second):
    for x in (first, second):
        np.testing.assert_allclose(kd.jacobian(SOFT, x), differences(drift_of(SOFT), x), **BY_DIFFERENCES)
    line = first[:, 0]
    np.testing.assert_array_equal(kd.jacobian(SOFT, line), kd.jacobian(SOFT, line[:, None]))


@row("kd.jacobian", "t", 0.0, 2.0, "an annealed rule at time t has the Jacobian of the rule in force then")
def jacobian_t(first, second):
    annealed = kd.Dynamics(lambda t: kd.softmax(1.0 + t))
    for t in (first, second):
        still = kd.Dynamics(kd.softmax(1.0 + t))
        np.testing.assert_allclose(kd.jacobian(annealed, STATE, t=t), kd.jacobian(still, STATE), atol=1e-14)
    np.testing.assert_array_equal(kd.jacobian(annealed, STATE), kd.jacobian(annealed, STATE, t=first))


SHARES = np.array([0.1, 0.2, 0.3, 0.4])


@row(
    "kd.jacobian", "log_mass", None, np.log(SHARES), "linear drift: every row of 1m' - 1 holds the shares of the masses"
)
def jacobian_log_mass(first, second):
    for log_mass, share in ((first, np.full(4, 0.25)), (second, SHARES)):
        expected = np.kron(np.tile(share, (4, 1)) - np.eye(4), np.eye(2))
        np.testing.assert_allclose(kd.jacobian(kd.Dynamics(MEAN), STATE, log_mass=log_mass), expected, atol=1e-14)


@row("kd.jacobian", "integrator", None, kd.RK4(), "of a linear drift J: J itself, or the series of exp(J) to order 4")
def jacobian_integrator(first, second):
    rates, one = kd.jacobian(kd.Dynamics(MEAN), STATE, integrator=first), np.eye(8)
    np.testing.assert_allclose(rates, differences(drift_of(kd.Dynamics(MEAN)), STATE), **BY_DIFFERENCES)
    np.testing.assert_array_equal(kd.jacobian(kd.Dynamics(MEAN), STATE), rates)
    series = one + rates @ (one + rates / 2 @ (one + rates / 3 @ (one + rates / 4)))
    np.testing.assert_allclose(kd.jacobian(kd.Dynamics(MEAN), STATE, integrator=second), series, atol=1e-14)


@row("kd.jacobian", "dt", 1.0, 0.3, "of a linear drift J a step of Euler has the matrix 1 + dt J")
def jacobian_dt(first, second):
    dynamics, one = kd.Dynamics(MEAN), np.eye(8)
    for dt in (first, second):
        step = kd.jacobian(dynamics, STATE, integrator=kd.Euler(), dt=dt)
        np.testing.assert_allclose(step, one + dt * kd.jacobian(dynamics, STATE), atol=1e-14)
    default = kd.jacobian(dynamics, STATE, integrator=kd.Euler())
    np.testing.assert_array_equal(default, kd.jacobian(dynamics, STATE, integrator=kd.Euler(), dt=first))


@row(
    "kd.jacobian",
    "tangent",
    False,
    True,
    "tangent coordinates drop the n radial directions, whose derivative is 0, and keep the other eigenvalues",
)
def jacobian_tangent(first, second):
    dynamics = kd.Dynamics(kd.softmax(1.3), kd.Sphere())
    ambient, tangent = (kd.jacobian(dynamics, ON_SPHERE, tangent=flag) for flag in (first, second))
    assert ambient.shape == (12, 12)
    assert tangent.shape == (8, 8)
    np.testing.assert_array_equal(kd.jacobian(dynamics, ON_SPHERE), ambient)
    eigenvalues = np.linalg.eigvals(ambient)
    kept = eigenvalues[np.argsort(-abs(eigenvalues))][:8]
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(tangent).real), np.sort(kept.real), atol=1e-10)
    np.testing.assert_allclose(np.trace(tangent), np.trace(ambient), atol=1e-12)


def rates_by_differences(x):
    return np.sort(np.linalg.eigvals(differences(drift_of(SOFT), x)).real)[::-1]


@row(
    "kd.spectrum", "dynamics", kd.Dynamics(MEAN), SOFT, "linear: 0 for common shifts, -1 else; softmax: by differences"
)
def spectrum_dynamics(first, second):
    np.testing.assert_allclose(kd.spectrum(first, STATE), [0.0] * 2 + [-1.0] * 6, atol=1e-14)
    np.testing.assert_allclose(kd.spectrum(second, STATE).real, rates_by_differences(STATE), atol=1e-6)


@row(
    "kd.spectrum",
    "x",
    STATE,
    STATE[::-1] * 0.3,
    "eigenvalues of differences at that state, whatever the particles' order",
)
def spectrum_x(first, second):
    for x in (first, second):
        found = kd.spectrum(SOFT, x).real
        np.testing.assert_allclose(found, rates_by_differences(x), atol=1e-6)
        np.testing.assert_allclose(kd.spectrum(SOFT, x[[2, 0, 3, 1]]).real, found, atol=1e-9)


@row(
    "kd.spectrum",
    "rest",
    {},
    {"integrator": kd.Euler(), "dt": 0.3},
    "further arguments of jacobian: a step of Euler has the multipliers 1 + dt rate",
)
def spectrum_rest(first, second):
    rates = kd.spectrum(SOFT, STATE, **first)
    multipliers = kd.spectrum(SOFT, STATE, **second)
    np.testing.assert_allclose(multipliers.real, 1 + 0.3 * rates.real, atol=1e-12)
    weighted = kd.spectrum(kd.Dynamics(MEAN), STATE, log_mass=np.log(SHARES))
    np.testing.assert_allclose(weighted.real, [0.0] * 2 + [-1.0] * 6, atol=1e-12)
