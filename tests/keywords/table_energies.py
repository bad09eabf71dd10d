"""Rows of `kd.energies`: double sums over pairs, central differences, runs that are or are not the gradient flow."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import energies
from tests.keywords.against import against
from tests.keywords.row import row

X, Y = 0.7 * np.random.default_rng(16).normal(size=(2, 6, 2))
MASS = np.random.default_rng(17).normal(size=6)
SOFT, SMOOTH, CUT, FLAT = kd.softmax(1.5), kd.krause(0.8), kd.krause(0.8, kd.Within(0.9)), kd.bounded_confidence(0.9)


def double_sum(rule, x, log_mass=None):
    """The energies of the four rules used here, pair by pair."""
    m = np.full(len(x), 1 / len(x)) if log_mass is None else np.exp(log_mass)
    squared = ((x[:, None] - x) ** 2).sum(axis=-1)
    pair = {
        SOFT: np.exp(1.5 * x @ x.T) / 3,
        SMOOTH: np.exp(-squared / 1.28) / 2,
        CUT: np.maximum(np.exp(-squared / 1.28) - np.exp(-0.81 / 1.28), 0) / 2,
        FLAT: np.minimum(squared, 0.81),
    }[rule]
    return m @ pair @ m


@against(
    "kd.energies.energy",
    "the double sum over pairs",
    rule=(SMOOTH, FLAT), x=(X, Y), log_mass=(None, MASS),
)  # fmt: skip
def energy_of_pairs(rule, x, log_mass):
    assert energies.energy(CUT, x, log_mass=log_mass) == pytest.approx(double_sum(CUT, x, log_mass), rel=1e-12)
    return double_sum(rule, x, log_mass)


@against(
    "kd.energies.log_energy",
    "the logarithm of the double sum over pairs",
    rule=(SOFT, SMOOTH), x=(X, Y), log_mass=(None, MASS),
)  # fmt: skip
def log_of_pairs(rule, x, log_mass):
    return np.log(double_sum(rule, x, log_mass))


@against(
    "kd.energies.gradient",
    "central differences of the double sum over pairs",
    rtol=1e-6, atol=1e-9,  # square of the differences
    rule=(SOFT, FLAT), x=(X, Y), log_mass=(None, MASS),
)  # fmt: skip
def differences(rule, x, log_mass):
    units = 1e-5 * np.eye(x.size).reshape(-1, *x.shape)
    slopes = [double_sum(rule, x + e, log_mass) - double_sum(rule, x - e, log_mass) for e in units]
    return np.reshape(slopes, x.shape) / 2e-5


@row(
    "kd.energies.kappa",
    "rule",
    SMOOTH,
    FLAT,
    "the gradient per mass, partition and direction: 1/sigma^2 climbs, -4 falls",
)
def _(first, second):
    for rule, value in ((first, 1 / 0.64), (second, -4.0), (SOFT, 1.0)):
        assert energies.kappa(rule) == pytest.approx(value, rel=1e-15)
        found = kd.aggregate(rule, X, log_mass=np.full(6, -np.log(6)))
        direction = found.mean if rule is SOFT else found.mean - X
        expected = value * np.exp(found.log_partition)[:, None] / 6 * direction
        np.testing.assert_allclose(differences(rule, X, None), expected, rtol=1e-6, atol=1e-9)
    with pytest.raises(ValueError, match="Causal lets i hear j without being heard"):
        energies.kappa(kd.softmax(1.0, kd.Causal()))


RUN = kd.Trajectory(np.arange(2.0), np.stack([X, Y]), log_mass=MASS)


@against(
    "kd.energies.along",
    "the double sum over pairs of each state, with the masses of a run",
    rule=(SMOOTH, FLAT), run=(np.stack([X, Y]), RUN),
)  # fmt: skip
def energies_of_states(rule, run):
    masses = getattr(run, "log_mass", None)
    return [double_sum(rule, x, masses) for x in getattr(run, "positions", run)]


def climb(rule, space=None, t_end=0.5, dt=0.01):
    """A run of the rule, densely saved."""
    space = kd.Euclidean() if space is None else space
    return kd.simulate(kd.Dynamics(rule, space), space.retract(X.copy()), t_end, dt=dt)


@row(
    "kd.energies.gradient_flow", "rule", SMOOTH, kd.krause(0.4), "the flow of the rule that drove the run, of no other"
)
def _(first, second):
    run = climb(first)
    own, other = (energies.gradient_flow(rule, run) for rule in (first, second))
    assert own.is_gradient_flow
    assert own.velocity_error < 1e-3  # square of the time between states
    assert not other.is_gradient_flow


@row(
    "kd.energies.gradient_flow",
    "run",
    SMOOTH,
    FLAT,
    "rates are the dissipation of each run; its reverse is no gradient flow",
)
def _(first, second):
    for rule, climbs in ((first, True), (second, False)):
        run = climb(rule)
        flow = energies.gradient_flow(rule, run)
        np.testing.assert_allclose(flow.energy, [double_sum(rule, x) for x in run.positions], rtol=1e-12)
        assert flow.climbs is climbs
        assert flow.is_monotone
        assert flow.is_gradient_flow
        assert np.sign(flow.dissipation).tolist() == [1.0 if climbs else -1.0] * (len(run.times) - 1)
        back = energies.gradient_flow(rule, run.positions[::-1], run.times)
        assert not back.is_monotone
        assert back.velocity_error == pytest.approx(2, rel=0.1)  # every velocity is minus the gradient's


@row(
    "kd.energies.gradient_flow",
    "times",
    None,
    2.0,
    "those of the trajectory unless told; at half the pace no gradient flow",
)
def _(first, second):
    run = climb(SMOOTH)
    assert energies.gradient_flow(SMOOTH, run, first).is_gradient_flow
    slow = energies.gradient_flow(SMOOTH, run, second * run.times)
    np.testing.assert_allclose(slow.rate * second, energies.gradient_flow(SMOOTH, run).rate, rtol=1e-9)
    # |u - v|^2 over (|u|^2 + |v|^2)/2 of u = v/2 is 0.4.
    assert slow.velocity_error == pytest.approx(np.sqrt(0.4), rel=1e-2)
    with pytest.raises(ValueError, match="pass times= beside an array"):
        energies.gradient_flow(SMOOTH, run.positions, first)


@row(
    "kd.energies.gradient_flow",
    "space",
    None,
    kd.Sphere(),
    "on the sphere the gradient is projected, else its radial part misses",
)
def _(first, second):
    run = climb(SOFT, second)
    assert energies.gradient_flow(SOFT, run, space=second).is_gradient_flow
    assert energies.gradient_flow(SOFT, run).is_gradient_flow  # a run knows its space
    assert not energies.gradient_flow(SOFT, run.positions, run.times, space=first).is_gradient_flow
    assert energies.gradient_flow(SMOOTH, climb(SMOOTH), space=first).is_gradient_flow


@row(
    "kd.energies.gradient_flow", "tolerance", 0.05, 0.7, "the largest velocity error of what counts as a gradient flow"
)
def _(first, second):
    run = climb(SMOOTH)
    half = [energies.gradient_flow(SMOOTH, run, 2 * run.times, tolerance=tolerance) for tolerance in (first, second)]
    assert first < half[0].velocity_error < second
    assert [flow.is_gradient_flow for flow in half] == [False, True]


def made_flow(**changes):
    """Energies that climb at the rate of their dissipation."""
    given = {
        "times": np.array([0.0, 1.0, 3.0]), "energy": np.array([0.0, 2.0, 3.0]), "rate": np.array([2.0, 0.5]),
        "dissipation": np.array([2.0, 0.5]), "velocity_error": np.array(0.01), "tolerance": 0.05, "climbs": True,
    }  # fmt: skip
    return energies.GradientFlow(**{**given, **changes})


@row("kd.energies.GradientFlow", "times", np.array([0.0, 1.0, 3.0]), np.array([0.0, 1.0, 2.0]), "weigh the dissipation")
@row(
    "kd.energies.GradientFlow",
    "dissipation",
    np.array([2.0, 0.5]),
    np.array([2.0, 0.0]),
    "its integral is the energy gained",
)
def _(first, second):
    name = "times" if len(first) == 3 else "dissipation"
    for value, missed in ((first, 0.0), (second, 0.5 if name == "times" else 1.0)):
        flow = made_flow(**{name: value})
        total = np.sum(np.diff(flow.times) * flow.dissipation)
        assert flow.balance_error == pytest.approx(missed / total, abs=1e-15)


@row(
    "kd.energies.GradientFlow",
    "energy",
    np.array([0.0, 2.0, 3.0]),
    np.array([0.0, 2.0, 1.0]),
    "monotone where it never falls",
)
@row("kd.energies.GradientFlow", "climbs", True, False, "the way that the energy must not go against")
def _(first, second):
    name = "climbs" if first is True else "energy"
    assert made_flow(**{name: first}).is_monotone
    assert not made_flow(**{name: second}).is_monotone
    assert made_flow(energy=np.array([3.0, 2.0, 0.0]), climbs=False).is_monotone


@row(
    "kd.energies.GradientFlow",
    "velocity_error",
    np.array(0.05),
    np.array([0.01, 0.06]),
    "every run within the tolerance",
)
@row(
    "kd.energies.GradientFlow",
    "tolerance",
    0.01,
    0.005,
    "the largest velocity error of a gradient flow, itself allowed",
)
def _(first, second):
    name = "tolerance" if isinstance(first, float) else "velocity_error"
    assert made_flow(**{name: first}).is_gradient_flow
    assert not made_flow(**{name: second}).is_gradient_flow


@row(
    "kd.energies.GradientFlow", "rate", FLAT, SMOOTH, "differences of the energy over those of the times, in this field"
)
def _(first, second):
    for rule in (first, second):
        flow = energies.gradient_flow(rule, climb(rule))
        np.testing.assert_allclose(flow.rate, np.diff(flow.energy) / np.diff(flow.times), rtol=1e-12)
        again = energies.GradientFlow(**{**vars(flow), "rate": 2 * flow.rate})
        np.testing.assert_array_equal(again.rate, 2 * flow.rate)
