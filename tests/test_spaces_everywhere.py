"""Whatever looks at positions asks the space: a run on a torus is the run that nothing cuts, seen elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics import stopping

T = kd.Torus(1.0)
RULE = kd.bounded_confidence(0.2)
D = kd.Dynamics(RULE, T)
PAIR = np.array([[0.05], [0.95]])  # 0.1 apart


@pytest.mark.parametrize("rule", [RULE, kd.krause(0.1), kd.krause(0.2, kd.Within(0.3), normalised=False)])
@pytest.mark.parametrize("space", [T, kd.Torus((1.0, 2.5))])
def test_whole_periods_change_nothing(rule, space, rng):
    d = 1 if space is T else 2
    x = space.sample(12, d, rng)
    shifted = x + rng.integers(-5, 6, x.shape) * np.asarray(space.length)
    dynamics = kd.Dynamics(rule, space)
    np.testing.assert_allclose(dynamics.drift(0.0, shifted), dynamics.drift(0.0, x), atol=1e-13)
    for integrator in (kd.RK4(), kd.Adaptive(), kd.Stiff()):
        ends = [kd.simulate(dynamics, y, 0.3, integrator=integrator).final for y in (x, shifted)]
        assert (ends[1] >= 0).all()
        assert (ends[1] < np.asarray(space.length)).all()
        np.testing.assert_allclose(space.difference(ends[1], ends[0]), 0.0, atol=1e-5)  # tolerances of the methods
    np.testing.assert_allclose(D.drift(0.0, np.array([[5.05], [0.95]])), [[-0.05], [0.05]], atol=1e-14)


@pytest.mark.parametrize("space", [kd.Torus(2.0), kd.Interval(0.0, 2.0, mirror=True)])
@pytest.mark.parametrize("window", [kd.Window(3, two_sided=True, periodic=True), kd.Window(4, periodic=True)])
@pytest.mark.parametrize("library", [np.asarray, torch.from_numpy])
def test_a_ring_of_agents_has_as_many_places_as_agents(space, window, library, rng):
    """The ring is the network of the same links, however many images the border shows."""
    x, offset = rng.uniform(0, 2, (9, 1)), np.subtract.outer(np.arange(9), np.arange(9)) % 9
    ring = kd.Graph((offset <= 1) | (offset == 8) if window.two_sided else offset < 4)
    ball, x = kd.Within(0.9), library(x)
    ours, expected = (kd.krause(0.5, ball & part) for part in (window, ring))
    drifts = [kd.Dynamics(rule, space).drift(0.0, x) for rule in (ours, expected)]
    np.testing.assert_allclose(*drifts, atol=1e-14)
    matrices = [kd.operators.matrix(rule, x, space=space) for rule in (ours, expected)]
    np.testing.assert_allclose(*matrices, atol=1e-14)


def test_a_rectangular_box_is_its_periods(rng):
    box, x = kd.Torus((2.0, 1.0)), np.array([[1.9, 0.05], [0.05, 0.95]])
    np.testing.assert_allclose(box.distance(x[0], x[1]), np.hypot(0.15, 0.1))
    np.testing.assert_allclose(
        kd.Dynamics(kd.bounded_confidence(0.3), box).drift(0.0, x)[0], [0.075, -0.05], atol=1e-14
    )
    np.testing.assert_allclose(box.extent(x), [0.15, 0.1], atol=1e-14)
    assert kd.from_dict(box.to_dict()) == box
    assert kd.clusters.find(x, 0.2, period=box.period).count == 1 < kd.clusters.find(x, 0.2).count
    for points in (rng.random((3, 1)), rng.random((3, 3))):
        with pytest.raises(ValueError, match="2 sides"):
            kd.Dynamics(kd.krause(0.1), box).drift(0.0, points)
        with pytest.raises(ValueError, match="2 sides"):
            kd.simulate(kd.Dynamics(kd.krause(0.1), box), points, 1.0)
    for length in ((2.0, 0.0), ((1.0,), (2.0,)), (1.0, np.inf)):
        with pytest.raises(ValueError, match="length must be"):
            kd.Torus(length)


def test_a_ball_meets_nobody_twice():
    """Radius over half the box: each would be heard on both sides, and the two would move apart."""
    for dynamics in (kd.Dynamics(kd.bounded_confidence(0.6), T), kd.Dynamics(lambda t: kd.bounded_confidence(0.6), T)):
        with pytest.raises(ValueError, match="at most half the length on a torus, 0.5, got 0.6"):
            dynamics.drift(0.0, np.array([[0.0], [0.45]]))
    np.testing.assert_allclose(
        kd.Dynamics(kd.bounded_confidence(0.5), T).drift(0.0, np.array([[0.0], [0.45]])), [[0.225], [-0.225]]
    )
    with pytest.raises(ValueError, match="images within the reach"):
        kd.Dynamics(kd.krause(0.5), kd.Torus(1e-6)).drift(0.0, PAIR)


def test_points_off_the_space_are_refused(rng):
    for mirror in (False, True):
        dynamics = kd.Dynamics(RULE, kd.Interval(0, 1, mirror=mirror))
        with pytest.raises(ValueError, match=r"interval \[0, 1\], got 1.5"):
            kd.simulate(dynamics, np.array([[1.5], [0.5]]), 0.05)
    with pytest.raises(ValueError, match="got 1.5"):
        dynamics.drift(0.0, np.array([[1.5], [0.5]]))
    solid = rng.normal(size=(4, 3))
    solid /= np.linalg.norm(solid, axis=1, keepdims=True)
    for call in (kd.Circle().check, kd.Circle().to_angles, lambda x: kd.Dynamics(kd.softmax(1.0), kd.Circle()).bind(x)):
        with pytest.raises(ValueError, match="2 on the circle, got 3"):
            call(solid)
    padded = np.concatenate([kd.Sphere().sample(3, 3, rng), [[0.0, 0.0, 0.0]]])
    masses = np.array([0.0, 0.0, 0.0, -np.inf])
    kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), padded, 0.1, log_mass=masses)
    with pytest.raises(ValueError, match="unit vectors"):
        kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), padded * 2, 0.1, log_mass=masses)


def test_stop_rules_see_across_the_border():
    run = kd.simulate(D, PAIR, 50.0, stop=stopping.Consensus(1e-3))
    assert run.meta["stopped"] == "consensus"
    assert run.times[-1] == pytest.approx(np.log(100), abs=0.05)  # distance 0.1 exp(-t), asked every 0.05
    one, two = np.array([[0.05], [0.95], [0.8]]), np.array([[0.25], [0.15], [0.0]])  # the same, moved by 0.2
    ends = [kd.simulate(D, x, 9.0, stop=stopping.ClustersSettled(0.2) | stopping.AtTime(8.0)) for x in (one, two)]
    assert ends[0].times[-1] == ends[1].times[-1]
    flat = kd.simulate(kd.Dynamics(RULE), np.array([[0.25], [0.15], [0.0]]), 9.0, stop=stopping.ClustersSettled(0.2))
    assert flat.times[-1] == ends[0].times[-1] > 0.05


def test_events_are_located_on_the_short_way():
    """Drifting at unit speed over the border: the distance to 0.3 is 0.2 at t = 0.2, from 0.9."""
    moving = kd.Dynamics(RULE, T, external=lambda t, x: np.ones_like(x))
    event = kd.Event(lambda t, x: float(T.distance(x[0], np.array([0.3]))) - 0.2, terminal=True)
    run = kd.simulate(moving, np.array([[0.9]]), 1.0, dt=0.25, events=[event])
    assert run.times[-1] == pytest.approx(0.2, abs=1e-12)
    np.testing.assert_allclose(T.difference(run.final, np.array([[0.1]])), 0.0, atol=1e-12)


def test_a_run_knows_its_space(tmp_path):
    run = kd.simulate(D, PAIR, 0.1)
    for again in (run, run.numpy(), run[1:], kd.Trajectory.load(run.save(tmp_path / "run.npz"))):
        assert again.space == T
        assert (kd.clusters.labels(again, 0.15) == 0).all()
        np.testing.assert_array_equal(kd.clusters.over_time(again, [0.15]).count, 1)
    assert kd.hegselmann_krause([0.0, 1.0], 0.2).space == kd.Euclidean()


def test_pairs_of_the_tree_are_those_of_all_pairs(rng):
    """The k-d tree decides nothing: at radii that are distances both count the same clusters."""
    x = np.round(rng.uniform(size=(2100, 2)), 2)  # many distances at the radius itself
    for period in (None, 1.0, (1.0, 2.0)):
        curve = kd.clusters.curve(x, [0.01], period=period)
        for radius in (0.01, np.hypot(0.01, 0.01), 0.005):
            for closed in (True, False):
                found = kd.clusters.find(x, radius, closed=closed, period=period)
                np.testing.assert_array_equal(found.labels, curve.at(radius, closed=closed).labels)


def test_statistics_of_the_command_line_ask_the_space():
    """Ten opinions across the cut of a torus: one cluster, whose diameter is what it is elsewhere."""
    from krause_dynamics.command.sweep import _statistic

    x = 0.4 + 0.02 * np.arange(10.0)[:, None]
    cut = T.retract(x - 0.5)
    for name in ("clusters", "largest_cluster", "diameter", "dispersion"):
        assert _statistic(name, cut, 0.05, T) == pytest.approx(float(_statistic(name, x, 0.05, kd.Euclidean())))
        assert _statistic(name, cut, 0.05, kd.Euclidean()) != pytest.approx(float(_statistic(name, cut, 0.05, T)))


def test_lines_of_a_figure_take_the_short_way():
    run = kd.simulate(D, PAIR, 0.6, dt=0.2)
    moving = kd.simulate(kd.Dynamics(RULE, T, external=lambda t, x: np.ones_like(x)), PAIR, 0.6, dt=0.1)
    for trajectory in (run, moving):
        (lines,) = kd.plots.opinions(trajectory).collections
        ends = np.array([line[:, 1] for line in lines.get_segments()])
        assert np.abs(np.diff(ends, axis=1)).max() < 0.2
    assert len(lines.get_segments()) > 2 * 6  # those that cross are drawn twice
    flat = kd.simulate(kd.Dynamics(kd.bounded_confidence(0.2), kd.Torus((1.0, 1.0))), np.hstack([PAIR, PAIR]), 0.6)
    assert np.isfinite(kd.plots.overview(flat).lines[0].get_ydata()).all()


@pytest.mark.parametrize(
    ("rule", "pair"),
    [
        (kd.bounded_confidence(0.3), lambda squared: np.minimum(squared, 0.09)),
        (kd.krause(0.2, kd.Within(0.4)), lambda squared: np.maximum(np.exp(-squared / 0.08) - np.exp(-2.0), 0) / 2),
    ],
    ids=["flat", "cut"],
)
def test_energies_count_the_nearest_images_and_a_run_across_the_border_descends_them(rule, pair):
    x = np.random.default_rng(3).random((9, 2)) * 1.2
    masses = np.random.default_rng(4).normal(size=9)
    gap = T.difference(x[:, None], x)
    expected = np.exp(masses) @ pair((gap**2).sum(-1)) @ np.exp(masses)
    assert kd.energies.energy(rule, x, log_mass=masses, space=T) == pytest.approx(expected, rel=1e-12)
    tensor = kd.energies.energy(rule, torch.tensor(x), log_mass=torch.tensor(masses), space=T)
    assert float(tensor) == pytest.approx(expected, rel=1e-12)
    run = kd.simulate(kd.Dynamics(rule, T), x - x[0], 0.5, dt=0.005)  # one begins on the border and crosses it
    assert (np.abs(np.diff(run.positions, axis=0)) > 0.5).any()
    flow = kd.energies.gradient_flow(rule, run)
    assert flow.is_gradient_flow
    assert flow.is_monotone
    # On a line those beside the border do not hear one another.
    assert flow.velocity_error < 0.1 * kd.energies.gradient_flow(rule, run, space=kd.Euclidean()).velocity_error
