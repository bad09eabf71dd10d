"""Energies against sums over pairs, automatic differentiation, and the theorems of gradient flows."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics import energies

NEVER = -math.inf
RADIUS, SIGMA, BETA = 0.9, 0.7, 1.5
PAIR_ENERGY = {
    "dot": (kd.softmax(beta=BETA), lambda gap, inner: np.exp(BETA * inner) / (2 * BETA)),
    "gaussian": (kd.krause(SIGMA), lambda gap, inner: np.exp(-(gap**2) / (2 * SIGMA**2)) / 2),
    "truncated": (
        kd.krause(SIGMA, kd.Within(RADIUS)),
        lambda gap, inner: np.maximum(np.exp(-(gap**2) / 2 / SIGMA**2) - np.exp(-(RADIUS**2) / 2 / SIGMA**2), 0) / 2,
    ),
    "bounded": (kd.bounded_confidence(RADIUS), lambda gap, inner: np.minimum(RADIUS**2, gap**2)),
    "flat": (kd.Interaction(kd.Flat()), lambda gap, inner: gap**2),
    "window": (
        kd.krause(SIGMA, kd.Window(5, two_sided=True)),
        lambda gap, inner: np.exp(-(gap**2) / (2 * SIGMA**2)) / 2 * (abs(np.subtract.outer(range(12), range(12))) <= 2),
    ),
    "others": (
        kd.bounded_confidence(RADIUS, kd.Others()),
        lambda gap, inner: np.minimum(RADIUS**2, gap**2) * (1 - np.eye(12)),
    ),
}


def by_pairs(name: str, x: np.ndarray, mass: np.ndarray) -> float:
    gap = np.linalg.norm(x[:, None] - x, axis=-1)
    return float(mass @ PAIR_ENERGY[name][1](gap, x @ x.T) @ mass)


def run(rule: kd.Interaction, x: np.ndarray, space=None, dt: float = 0.01, steps: int = 60) -> SimpleNamespace:
    """Classical RK4 written here: the oracle must not share the package's integrators."""
    space = space or kd.Euclidean()
    dynamics = kd.Dynamics(rule, space)
    states = [x]
    for _ in range(steps):
        k1 = dynamics.drift(0.0, x)
        k2 = dynamics.drift(0.0, x + dt / 2 * k1)
        k3 = dynamics.drift(0.0, x + dt / 2 * k2)
        k4 = dynamics.drift(0.0, x + dt * k3)
        x = space.retract(x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4))
        states.append(x)
    return SimpleNamespace(positions=np.stack(states), times=dt * np.arange(steps + 1), log_mass=None)


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((12, 3)) * 0.8


@pytest.mark.parametrize("name", PAIR_ENERGY)
def test_energy_is_the_sum_over_pairs(name: str, cloud: np.ndarray) -> None:
    rule = PAIR_ENERGY[name][0]
    assert energies.energy(rule, cloud) == pytest.approx(by_pairs(name, cloud, np.full(12, 1 / 12)), rel=1e-12)
    mass = np.random.default_rng(1).random(12)
    mass[3] = 0
    with np.errstate(divide="ignore"):
        log_mass = np.log(mass)
    padded = cloud.copy()
    expected = by_pairs(name, cloud, mass)
    padded[3] = np.nan
    assert energies.energy(rule, padded, log_mass=log_mass) == pytest.approx(expected, rel=1e-12)
    if name != "dot":  # translation invariance, at 1000 times the size of the cloud
        assert energies.energy(rule, cloud + 1e3) == pytest.approx(by_pairs(name, cloud, np.full(12, 1 / 12)), rel=1e-9)


@pytest.mark.parametrize("name", ["dot", "gaussian", "truncated", "bounded", "window"])
def test_gradient_is_the_derivative(name: str, cloud: np.ndarray) -> None:
    """Central differences with step 1e-5 are right to 1e-10 where no pair crosses the radius."""
    rule, step = PAIR_ENERGY[name][0], 1e-5
    slopes = energies.gradient(rule, cloud)
    for i, k in itertools.product((0, 5, 11), range(3)):
        shift = np.zeros_like(cloud)
        shift[i, k] = step
        numeric = (energies.energy(rule, cloud + shift) - energies.energy(rule, cloud - shift)) / (2 * step)
        assert slopes[i, k] == pytest.approx(float(numeric), abs=1e-8)


def test_log_energy_without_overflow(cloud: np.ndarray) -> None:
    for name in ("dot", "gaussian"):
        rule = PAIR_ENERGY[name][0]
        assert energies.log_energy(rule, cloud) == pytest.approx(math.log(energies.energy(rule, cloud)), abs=1e-12)
    consensus = np.tile([1.0, 0.0], (4, 1))
    assert energies.log_energy(kd.softmax(beta=2000.0), consensus) == pytest.approx(2000 - math.log(4000))


def test_torch_and_batches(cloud: np.ndarray) -> None:
    batch = np.stack([cloud, 2 * cloud])
    rule = kd.bounded_confidence(1.0)
    ours = energies.energy(rule, torch.from_numpy(batch))
    assert isinstance(ours, torch.Tensor)
    np.testing.assert_allclose(ours.numpy(), [energies.energy(rule, x) for x in batch], rtol=1e-13)


@pytest.mark.parametrize("d", [1, 2, 3])
def test_discrete_hegselmann_krause_decrease(d: int) -> None:
    """V_t - V_{t+1} >= 4 sum |dx|^2 with unit masses, V = n^2 E, and = sum A_ij |dx_i + dx_j|^2 on a constant graph."""
    x, rule = 4 * np.random.default_rng(d).random((40, d)), kd.bounded_confidence(1.0)
    for _ in range(8):
        y = kd.aggregate(rule, x).mean
        fall = 40**2 * (energies.energy(rule, x) - energies.energy(rule, y))
        assert fall >= 4 * np.sum((y - x) ** 2) - 1e-9
        before, after = (np.linalg.norm(z[:, None] - z, axis=-1) <= 1.0 for z in (x, y))
        if np.array_equal(before, after):
            pairs = np.sum((y - x)[:, None] + (y - x), axis=-1) ** 2 if d == 1 else None
            exact = np.sum(before * (np.sum(((y - x)[:, None] + (y - x)) ** 2, axis=-1) if pairs is None else pairs))
            assert fall == pytest.approx(exact, abs=1e-9)
        x = y


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("name", ["sphere", "gaussian", "truncated", "bounded"])
def test_gradient_flows_dissipate_their_energy(name: str, normalised: bool) -> None:
    """dE/dt = kappa sum g_i |x_i'|^2: SA and USA on the sphere, RBF, bounded confidence."""
    x = np.random.default_rng(2).standard_normal((14, 3))
    rule, space = {
        "sphere": (kd.softmax(beta=2.0, normalised=normalised), kd.Sphere()),
        "gaussian": (kd.krause(0.8, normalised=normalised), None),
        "truncated": (kd.krause(0.8, kd.Within(1.1), normalised=normalised), None),
        "bounded": (kd.bounded_confidence(1.5, normalised=normalised), None),
    }[name]
    x = x / np.linalg.norm(x, axis=1, keepdims=True) if name == "sphere" else x
    flow = energies.gradient_flow(rule, run(rule, x, space), space=space)
    assert flow.climbs == (name != "bounded")
    assert flow.is_monotone
    # the middle's error is (rate dt)^2 ~ 1e-4; a jump of the truncated forces inside a step adds sqrt(dt) of the jump
    assert np.all(flow.velocity_error < (1e-3 if name in ("sphere", "gaussian") else 4e-2))
    assert flow.is_gradient_flow
    assert np.all(flow.balance_error < (1e-4 if name in ("sphere", "gaussian") else 5e-3))
    if name in ("sphere", "gaussian"):
        np.testing.assert_allclose(flow.rate, flow.dissipation, rtol=5e-3)


def test_dense_gaussian_rate_formula() -> None:
    """dF/dt = s^-2 sum Z_i |z_i'|^2 with F = n^2 E and unit masses (THEORY section 2), from drift alone."""
    z, s = np.random.default_rng(3).standard_normal((9, 2)), 0.6
    rule, step = kd.krause(s), 1e-5
    drift = kd.Dynamics(rule).drift(0.0, z)
    partition = np.exp(kd.aggregate(rule, z).log_partition)
    energy = [81 * energies.energy(rule, z + sign * step * drift) for sign in (1, -1)]
    assert (energy[0] - energy[1]) / (2 * step) == pytest.approx(
        np.sum(partition * np.sum(drift**2, axis=1)) / s**2, rel=1e-8
    )


def test_other_motion_is_no_gradient_flow() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((10, 3))
    times = np.linspace(0, 1, 20)
    angle = times[:, None, None]
    turned = np.concatenate(
        [np.cos(angle) * x[:, :1] - np.sin(angle) * x[:, 1:2], np.sin(angle) * x[:, :1] + np.cos(angle) * x[:, 1:2]],
        axis=-1,
    )
    flow = energies.gradient_flow(kd.krause(1.0), turned, times)
    assert not flow.is_gradient_flow
    assert np.all(flow.velocity_error > 0.5)
    # the energy of a rotating cloud does not change although it moves
    assert np.all(np.abs(flow.rate) < 1e-12)
    reverse = SimpleNamespace(**vars(run(kd.krause(1.0), x)))
    reverse.positions = reverse.positions[::-1]
    backwards = energies.gradient_flow(kd.krause(1.0), reverse)
    assert not backwards.is_monotone
    assert not backwards.is_gradient_flow


def test_rest_is_a_gradient_flow() -> None:
    still = np.zeros((3, 4, 2))
    flow = energies.gradient_flow(kd.krause(1.0), still, np.arange(3.0))
    assert flow.is_gradient_flow
    assert flow.balance_error == 0


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (kd.softmax(neighbourhood=kd.Causal()), "Causal"),
        (kd.krause(1.0, kd.TopK(2)), "TopK"),
        (kd.krause(1.0, kd.Window(3)), "Window"),
        (kd.krause(np.ones(3)), "plain numbers"),
        (kd.softmax(beta=0.0), "beta = 0"),
        (kd.softmax(neighbourhood=kd.Within(1.0)), "jumps"),
        (kd.softmax(pair_bias=np.zeros((3, 3))), "pair bias"),
        (kd.Interaction(kd.Radial(lambda r: 1 / (1 + r))), "Radial"),
        (kd.krause(1.0, kd.Graph(np.triu(np.ones((3, 3), bool)))), "Graph"),
    ],
)
def test_rules_without_energy_say_why(rule: kd.Interaction, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        energies.energy(rule, np.zeros((3, 2)))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="times"):
        energies.gradient_flow(kd.krause(1.0), np.zeros((3, 4, 2)))
    with pytest.raises(ValueError, match="increase"):
        energies.gradient_flow(kd.krause(1.0), np.zeros((3, 4, 2)), [0.0, 0.0, 1.0])
    moving_mass = SimpleNamespace(
        positions=np.zeros((2, 4, 2)), times=np.arange(2.0), log_mass=np.log([[0.25] * 4, [0.1, 0.2, 0.3, 0.4]])
    )
    with pytest.raises(ValueError, match="not masses"):
        energies.gradient_flow(kd.krause(1.0), moving_mass)
    with pytest.raises(ValueError, match="use energy"):
        energies.log_energy(kd.bounded_confidence(1.0), np.zeros((3, 2)))
    with pytest.raises(ValueError, match="positions"):
        energies.along(kd.krause(1.0), np.zeros((3, 2)))
