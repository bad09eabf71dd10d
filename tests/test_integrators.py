"""Integrators: claimed orders by regression, laws of noise, tolerances, stiffness, gradients."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import krause_dynamics as kd


def observed_order(dynamics, x0, integrator, steps, t_end=1.0):
    """Slope of log error against log dt; scipy's solver at 1e-12 is the witness."""
    shape = x0.shape

    def slope(t, y):
        return dynamics.drift(t, dynamics.space.retract(y.reshape(shape))).ravel()

    exact = solve_ivp(slope, (0, t_end), x0.ravel(), "DOP853", rtol=1e-12, atol=1e-13).y[:, -1].reshape(shape)
    errors = []
    for count in steps:
        flow, x = dynamics.bind(x0), x0
        for k in range(count):
            x = integrator.step(flow, k * t_end / count, x, t_end / count)
        errors.append(np.abs(x - exact).max())
    return -np.polyfit(np.log(steps), np.log(errors), 1)[0]


@pytest.mark.parametrize(
    ("integrator", "steps"),
    [
        (kd.Euler(), (64, 128, 256)),
        (kd.LayerStep(), (64, 128, 256)),
        (kd.EulerMaruyama(), (64, 128, 256)),
        (kd.RK4(), (16, 24, 36)),
        (kd.Adaptive(), (8, 12, 16)),
    ],
)
@pytest.mark.parametrize("space", [kd.Sphere(), kd.Euclidean()])
def test_claimed_order_on_smooth_rules(integrator, steps, space):
    rule = kd.softmax(3.0) if space == kd.Sphere() else kd.krause(0.8)
    order = observed_order(kd.Dynamics(rule, space), space.sample(7, 3, rng=2), integrator, steps)
    assert abs(order - integrator.order) < 0.25  # finite steps: the next power of dt still shows


@pytest.mark.parametrize(("integrator", "steps"), [(kd.RK4(), (16, 24, 36)), (kd.Adaptive(), (12, 18, 27))])
def test_order_with_rules_that_vary_in_time(integrator, steps):
    dynamics = kd.Dynamics(
        lambda t: kd.softmax(1.0 + 2.0 * t), kd.Sphere(), external=lambda t, x: np.cos(5 * t) + 0 * x
    )
    order = observed_order(dynamics, kd.Sphere().sample(5, 3, rng=3), integrator, steps)
    assert abs(order - integrator.order) < 0.25


def test_bounded_confidence_keeps_order_one_only():
    """The jump of `Within` costs RK4 its order: observed about 1, far below 4."""
    rng = np.random.default_rng(5)
    dynamics = kd.Dynamics(kd.bounded_confidence(0.3))
    errors = []
    x0 = rng.uniform(0, 1, (40, 1))
    fine = kd.simulate(dynamics, x0, 1.0, dt=1 / 4096, save_at=[]).final
    for count in (32, 64, 128, 256):  # 2^-5 to 2^-8
        errors.append(np.abs(kd.simulate(dynamics, x0, 1.0, dt=1 / count, save_at=[]).final - fine).max())
    order = -np.polyfit(np.log([32, 64, 128, 256]), np.log(errors), 1)[0]
    assert 0.3 < order < 2.5


def test_layer_step_differs_from_a_projected_step_at_second_order():
    sphere = kd.Sphere()
    x, dynamics = sphere.sample(6, 3, rng=1), kd.Dynamics(kd.softmax(2.0), sphere)
    gaps = [
        np.abs(kd.LayerStep().step(dynamics.bind(x), 0, x, dt) - kd.Euler().step(dynamics.bind(x), 0, x, dt)).max()
        for dt in (0.02, 0.01)
    ]
    assert abs(np.log2(gaps[0] / gaps[1]) - 2) < 0.1


@pytest.mark.parametrize("rtol", [1e-4, 1e-7, 1e-10])
def test_adaptive_error_follows_the_tolerance(rtol):
    sphere = kd.Sphere()
    dynamics, x0 = kd.Dynamics(kd.softmax(4.0), sphere), sphere.sample(8, 3, rng=4)
    exact = kd.simulate(dynamics, x0, 5.0, dt=0.01, save_at=[]).final  # RK4 at 0.01: 1e-9 here, halving confirms
    finer = kd.simulate(dynamics, x0, 5.0, dt=0.0025, save_at=[]).final
    run = kd.simulate(dynamics, x0, 5.0, dt=5.0, integrator=kd.Adaptive(rtol=rtol, atol=rtol))
    assert np.abs(exact - finer).max() < 1e-8
    assert np.abs(run.final - finer).max() < 300 * rtol  # local tolerances add up over the run
    assert run.steps < 40 * rtol**-0.2  # and the work follows the order


def test_long_metastable_runs_take_few_steps_and_keep_few_states():
    """Two far clusters: for about e^(1.9 beta) time units nothing seems to happen, then they merge (event at angle 1).

    Expected time: quadrature of the two-cluster angle, theory section 4.
    """
    from krause_dynamics.theory import lifetimes

    beta, angle = 6.5, np.pi - 0.3
    circle = kd.Circle()
    x0 = circle.from_angles(np.array([0.0, 0.0, angle, angle]))
    merging = kd.Event(lambda t, x: float((x[0] * x[2]).sum()) - np.cos(1.0), name="merging", terminal=True)
    dynamics = kd.Dynamics(kd.softmax(beta), circle)
    method = kd.Adaptive(1e-8, 1e-11)
    run = kd.simulate(dynamics, x0, 1e6, dt=1e4, integrator=method, events=[merging])
    expected = lifetimes.cluster_lifetime(beta=beta, angle=angle, stop=1.0)
    assert run.meta["stopped"] == "event: merging"
    assert 1e5 < expected < 2e5
    np.testing.assert_allclose(
        run.extras["event_merging"], [expected], rtol=1e-5
    )  # rtol 1e-8 a step, e^(1.9 beta) later
    assert run.steps < 20_000
    np.testing.assert_array_equal(run.times[:2], [0, 1e4])
    compiled = kd.simulate(
        dynamics, x0, 1.3e5, dt=1.0, save_at=[expected], impl="compiled"
    )  # four compiled drifts a step
    assert compiled.steps >= 130_000
    assert len(compiled) == 3
    assert abs((compiled[1][0] * compiled[1][2]).sum() - np.cos(1.0)) < 0.05
    np.testing.assert_allclose(np.linalg.norm(compiled.final.mean(0)), 1.0, atol=1e-12)


def test_adaptive_breaks_off_with_what_it_has():
    dynamics = kd.Dynamics(kd.softmax(1.0), relative=False)  # x' = sum a x in R^d blows up doubly exponentially
    with pytest.raises(kd.SimulationDiverged, match="step fell|were taken") as caught:
        kd.simulate(dynamics, np.ones((3, 2)), 1e3, dt=1.0, integrator=kd.Adaptive(max_steps=2000))
    assert len(caught.value.trajectory) > 1
    assert np.isfinite(caught.value.trajectory.positions).all()


@pytest.mark.parametrize("method", ["Radau", "BDF"])
def test_stiff_per_capita_rule(method, library):
    """Equiangular USA at beta = 12 relaxes at e^12; the solver follows the closed scalar equation."""
    beta, n = 12.0, 5
    gram = np.full((n, n), 0.5) + 0.5 * np.eye(n)
    x0 = np.linalg.cholesky(gram)

    def rate(t, rho):
        return 2 / n * np.exp(beta * rho) * (1 - rho) * (1 + (n - 1) * rho)

    t_end = 3.3e-4
    exact = solve_ivp(rate, (0, t_end), [0.5], "Radau", rtol=1e-10, atol=1e-12).y[0, -1]
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Sphere())
    run = kd.simulate(dynamics, library(x0), t_end, dt=t_end / 2, integrator=kd.Stiff(method))
    final = np.asarray(run.final)
    assert abs(final[0] @ final[1] - exact) < 1e-5
    assert 0.55 < exact < 0.999


def test_stiff_rules_are_refused_with_an_estimate():
    dynamics = kd.Dynamics(kd.softmax(10.0, normalised=False), kd.Sphere())
    x0 = kd.Sphere().sample(4, 3, rng=0)
    with pytest.raises(ValueError, match=r"about 2\.2e\+04 per unit of time, and RK4 is unstable for dt > 0\.000126"):
        kd.simulate(dynamics, x0, 1.0)
    with pytest.raises(ValueError, match="more than max_steps"):
        kd.simulate(dynamics, x0, 1e4, integrator=kd.Adaptive())
    with pytest.raises(ValueError, match="at most 4096 unknowns"):
        kd.simulate(dynamics, kd.Sphere().sample(2000, 3, rng=0), 1.0, integrator=kd.Stiff())
    with pytest.raises(ValueError, match="method must be"):
        kd.Stiff(method="LSODA")


def test_brownian_motion_on_the_sphere_has_the_law_of_the_heat_kernel(library):
    """E <x_t, x_0> = exp(-noise^2 (d - 1) t / 2): first eigenvalue of the Laplacian, with Monte-Carlo error 4 sigma."""
    sphere, n, d, noise, t = kd.Sphere(), 4000, 3, 0.7, 1.0
    x0 = sphere.sample(n, d, rng=1)
    alone = kd.Dynamics(kd.bounded_confidence(1e-9), sphere, noise=noise)
    run = kd.simulate(alone, library(x0)[:, None, :], t, dt=0.02, rng=5, save_at=[])
    cosine = (np.asarray(run.final)[:, 0] * x0).sum(-1)
    expected = np.exp(-(noise**2) * (d - 1) * t / 2)
    assert abs(cosine.mean() - expected) < 4 * cosine.std() / np.sqrt(n) + 0.003  # weak order 1: O(dt) bias


def test_noise_in_flat_space_is_a_random_walk_plus_drift():
    """One Ornstein-Uhlenbeck particle: variance noise^2 (1 - e^{-2t}) / 2."""
    n, noise, t = 20_000, 0.5, 1.0
    dynamics = kd.Dynamics(kd.bounded_confidence(1.0), external=lambda t, x: -x, noise=noise)
    run = kd.simulate(dynamics, np.zeros((n, 1, 1)), t, dt=0.01, rng=3, save_at=[])
    expected = noise**2 * (1 - np.exp(-2 * t)) / 2
    assert abs(run.final.var() / expected - 1) < 4 * np.sqrt(2 / n) + 0.01


class _Given(np.random.Generator):
    """A generator that hands out given increments."""

    def __init__(self, normals):
        super().__init__(np.random.PCG64(0))
        self.normals = iter(normals)

    def standard_normal(self, size=None, **rest):
        return next(self.normals)


def test_strong_order_one_for_additive_noise():
    """Paths on coarse grids driven by the summed increments of a fine one."""
    fine, t_end = 2048, 1.0
    increments = np.random.default_rng(0).standard_normal((fine, 200, 4, 2))
    dynamics = kd.Dynamics(kd.krause(0.7), noise=0.4)
    x0 = np.broadcast_to(np.random.default_rng(1).standard_normal((4, 2)), (200, 4, 2)).copy()

    def final(steps):
        grouped = increments.reshape(steps, fine // steps, 200, 4, 2).sum(1) / np.sqrt(fine // steps)
        return kd.simulate(dynamics, x0, t_end, dt=t_end / steps, rng=_Given(grouped), save_at=[]).final

    exact, steps = final(fine), np.array([16, 32, 64])
    errors = [np.sqrt(((final(s) - exact) ** 2).mean()) for s in steps]
    order = -np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert abs(order - 1) < 0.15


def test_noise_needs_randomness_and_a_method_that_knows_it():
    dynamics = kd.Dynamics(kd.krause(1.0), noise=0.1)
    with pytest.raises(TypeError, match="rng must be"):
        kd.simulate(dynamics, np.zeros((3, 1)), 1.0)
    with pytest.raises(ValueError, match="RK4 knows no noise"):
        kd.simulate(dynamics, np.zeros((3, 1)), 1.0, integrator=kd.RK4(), rng=0)
    fixed = kd.Dynamics(kd.krause(1.0), noise=0.1, fixed=[True, False])
    assert kd.simulate(fixed, np.zeros((2, 1)), 1.0, rng=0).final[0, 0] == 0.0


def test_torch_generator_drives_noise_and_gradients_flow_through_a_run():
    import torch

    x0 = torch.from_numpy(kd.Sphere().sample(5, 3, rng=0)).requires_grad_()
    beta = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), kd.Sphere()), x0, 1.0, dt=0.1, save_at=[])
    run.final[0, 0].backward()

    def end(b, y):
        return kd.simulate(kd.Dynamics(kd.softmax(b), kd.Sphere()), y, 1.0, dt=0.1, save_at=[]).final[0, 0]

    y, h = x0.detach().numpy(), 1e-5
    assert abs((end(1.5 + h, y) - end(1.5 - h, y)) / (2 * h) - beta.grad.item()) < 1e-8  # central differences: h^2
    kick = np.zeros_like(y)
    kick[2] = np.cross(y[2], [0, 0, 1.0])  # a tangent direction: x0 must stay on the sphere
    forward, backward = (end(1.5, kd.Sphere().retract(y + s * h * kick)) for s in (1, -1))
    assert abs((forward - backward) / (2 * h) - (x0.grad.numpy() * kick).sum()) < 1e-8
    noisy = kd.Dynamics(kd.krause(1.0), noise=0.2)
    runs = [
        kd.simulate(noisy, torch.zeros(4, 1, dtype=torch.float64), 1.0, rng=torch.Generator().manual_seed(seed)).final
        for seed in (1, 1, 2)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_jacobian_equals_differences_and_spectrum_knows_consensus():
    sphere = kd.Sphere()
    x = sphere.sample(4, 3, rng=7)
    dynamics = kd.Dynamics(kd.softmax(2.0), sphere)
    jacobian, h = kd.jacobian(dynamics, x), 1e-6
    for k in range(12):
        kick = np.zeros(12)
        kick[k] = h
        plus, minus = (dynamics.drift(0, sphere.retract(x + s * kick.reshape(4, 3))) for s in (1, -1))
        np.testing.assert_allclose((plus - minus).ravel() / (2 * h), jacobian[:, k], atol=1e-8)
    together = np.repeat(x[:1], 4, axis=0)
    for normalised, rate in ((True, 1.0), (False, np.exp(2.0))):
        rates = kd.spectrum(kd.Dynamics(kd.softmax(2.0, normalised=normalised), sphere), together)
        np.testing.assert_allclose(rates, [0, 0] + [-rate] * 6, atol=1e-12)
    with pytest.raises(ValueError, match="one run of a batch"):
        kd.jacobian(dynamics, x[None])


@pytest.mark.parametrize("method", [kd.Euler(), kd.EulerMaruyama(), kd.LayerStep(), kd.RK4(), kd.Adaptive()])
def test_stability_is_the_reach_on_the_negative_real_axis(method):
    """x' = -x is damped by a step of that size, and grows by one that is a percent longer."""
    flow = kd.Dynamics(kd.krause(1.0), external=lambda t, x: -x).bind(np.ones((1, 1)))

    def factor(dt):
        return abs(float(method.step(flow, 0.0, np.ones((1, 1)), dt)[0, 0]))

    assert factor(method.stability) <= 1 + 1e-12
    assert factor(1.01 * method.stability) > 1


def test_a_step_cut_short_by_a_saved_time_leaves_the_next_one_as_long():
    x = kd.Sphere().sample(5, 3, rng=3)
    steps = kd.Adaptive().start(kd.Dynamics(kd.softmax(2.0), kd.Sphere()).bind(x), 0.01, None)
    t = 0.0
    for _ in range(5):
        t, x = steps.step(t, x, 9.0)
    size = steps.size
    t, x = steps.step(t, x, t + 1e-3 * size)
    assert steps.size == size


def test_a_layer_of_ones_own_is_asked_for_every_step():
    """Only `LayerStep` itself may be taken many steps at a time by a compiled form."""

    class Twice(kd.LayerStep):
        def step(self, flow, t, x, dt, rng=None):
            return super().step(flow, t, super().step(flow, t, x, dt), dt)

    dynamics, x = kd.Dynamics(kd.softmax(2.0), kd.Sphere()), kd.Sphere().sample(6, 3, rng=3)
    once, twice = (
        kd.simulate(dynamics, x, t_end, dt=0.5, integrator=method, impl="compiled", save_at=[]).final
        for t_end, method in ((4.0, kd.LayerStep()), (2.0, Twice()))
    )
    np.testing.assert_allclose(once, twice, atol=1e-13)
    assert kd.LayerStep().scheme() is not None


def test_the_former_name_of_the_drift_warns_and_means_the_drift(rng):
    x = rng.normal(size=(5, 2))
    drift = kd.Dynamics(kd.krause(1.0)).bind(x)
    for method in (kd.Euler(), kd.RK4(), kd.Stiff()):
        with pytest.warns(DeprecationWarning, match="flow of step is now drift"):
            before = method.step(flow=drift, t=0.0, x=x, dt=0.1)
        np.testing.assert_array_equal(before, method.step(drift, 0.0, x, 0.1))

    class _Own(kd.Euler):
        def step(self, flow, t, x, dt, rng=None):
            return super().step(flow, t, x, dt, rng)

    np.testing.assert_array_equal(_Own().step(flow=drift, t=0.0, x=x, dt=0.1), kd.Euler().step(drift, 0.0, x, 0.1))
