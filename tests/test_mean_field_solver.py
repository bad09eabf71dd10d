"""The finite-volume solver against closed forms: Gaussian laws, growth of modes, noise, and conservation."""

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field as mf
from krause_dynamics import theory
from krause_dynamics.mean_field.finite_volumes import Rates, Transport, largest_step


def mode(density, wave):
    """Amplitude of a cosine of the coordinate relative to the mean density, from cell averages."""
    cells = density.cells
    phase = 2 * np.pi * wave * cells.centres / (cells.bounds[1] - cells.bounds[0])
    return 2 * density.mass @ np.cos(phase) / density.total


def growth(dynamics, cells, wave, t_end=0.5, mass=1.0, **options):
    """Measured growth rate of a small cosine on the uniform density."""
    length = cells.bounds[1] - cells.bounds[0]
    start = mf.from_function(cells, lambda x: 1 + 1e-4 * np.cos(2 * np.pi * wave * x / length), mass=mass)
    run = mf.solve(dynamics, start, t_end, save_at=2, **options)
    return np.log(mode(mf.density_at(run), wave) / mode(start, wave)) / t_end


def gaussian_errors(rule, exact_variance, counts, t_end=1.0, width=7.0, **options):
    """L1 distance to the exact normal law for several numbers of cells."""
    errors = []
    for count in counts:
        cells = mf.LineCells(count, -width, width)
        run = mf.solve(kd.Dynamics(rule, **options), mf.gaussian(cells), t_end, save_at=2)
        expected = mf.gaussian(cells, deviation=float(np.sqrt(exact_variance)))
        errors.append(np.abs(mf.density_at(run).mass - expected.mass).sum())
    return np.array(errors)


def observed_order(errors):
    return np.log2(errors[:-1] / errors[1:])


def test_gaussian_rule_closed_form_with_order_two():
    errors = gaussian_errors(
        kd.krause(1.0), theory.gaussian_rule_variance(times=1.0, variance=1.0, sigma=1.0), (80, 160, 320)
    )
    assert (observed_order(errors) > 1.9).all()  # order 2, the limiter at the maximum included
    assert errors[-1] < 5e-4
    # Richardson's value of the two finest runs meets the tolerance of the closed form.
    assert abs(errors[-1] - errors[-2] / 4) < 1e-4


@pytest.mark.parametrize("relative", [False, True])
def test_dot_product_riccati_laws_with_order_two(relative):
    # beta l0 = 0.5: plain l grows to 1/(1 - 0.3), relative l shrinks.
    exact = theory.dot_product_variance(times=0.3, variance=1.0, beta=0.5, relative=relative)
    errors = gaussian_errors(kd.softmax(0.5), exact, (80, 160, 320), t_end=0.3, relative=relative)
    assert (observed_order(errors) > 1.9).all()
    assert errors[-1] < 5e-4


def test_gaussian_law_by_weighted_nodes_to_1e_9():
    x, log_mass = mf.gaussian_nodes(40)
    dynamics = kd.Dynamics(kd.krause(1.0))
    run = kd.simulate(dynamics, x, 1.0, dt=0.01, log_mass=log_mass)
    variance = np.exp(log_mass) @ run.final[:, 0] ** 2
    assert variance == pytest.approx(theory.gaussian_rule_variance(times=1.0, variance=1.0, sigma=1.0), abs=1e-9)
    layer = kd.simulate(dynamics, x, 0.5, dt=0.5, integrator=kd.Euler(), log_mass=log_mass)
    deviation = np.sqrt(np.exp(log_mass) @ layer.final[:, 0] ** 2)
    assert deviation == pytest.approx(theory.gaussian_rule_deviation_step(deviation=1.0, sigma=1.0, step=0.5), abs=1e-9)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("wave", [1, 3])
def test_modes_on_the_circle_grow_as_linear_theory_says(wave, normalised):
    dynamics = kd.Dynamics(kd.softmax(4.0, normalised=normalised), kd.Circle())
    rate = float(theory.mode_growth(degree=wave, beta=4.0, dimension=2, normalised=normalised))
    cells = mf.CircleCells(256 * wave)
    # Two midpoint rules cost (wave h)^2/12 = 5e-5 relative, steps of 0.1/rate 0.1^3/24 = 4e-5.
    assert growth(dynamics, cells, wave, t_end=0.5 / rate, max_dt=0.1 / rate) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize("normalised", [True, False])
def test_dispersion_of_bounded_confidence(normalised):
    length, wave = 10.0, 3
    q = 2 * np.pi * wave / length
    rule = kd.bounded_confidence(1.0, normalised=normalised)
    rate = float(theory.growth_rate(wavenumber=q, radius=1.0, density=1.0, normalised=normalised))
    measured = growth(kd.Dynamics(rule, kd.Torus(length)), mf.LineCells(500, 0.0, length), wave, mass=length)
    assert measured == pytest.approx(rate, rel=2e-3)


def test_radius_may_cut_cells_without_loss_of_order():
    length, wave, radius = 10.0, 3, 1.0123
    dynamics = kd.Dynamics(kd.bounded_confidence(radius), kd.Torus(length))
    rate = float(theory.growth_rate(wavenumber=2 * np.pi * wave / length, radius=radius, normalised=True))
    errors = [abs(growth(dynamics, mf.LineCells(n, 0.0, length), wave) - rate) for n in (100, 200, 400)]
    assert errors[2] < errors[0] / 12  # order 2 gives 16, whole cells only would give 4 and less
    assert errors[2] < 5e-4 * rate


def test_noisy_growth_rate():
    length, wave, noise = 8.0, 2, 0.3
    rule = kd.bounded_confidence(1.0, normalised=False)
    rate = float(theory.growth_rate(wavenumber=2 * np.pi * wave / length, radius=1.0, density=1 / length, noise=noise))
    dynamics = kd.Dynamics(rule, kd.Torus(length), noise=noise)
    errors = np.array([growth(dynamics, mf.LineCells(n, 0.0, length), wave) - rate for n in (200, 400)])
    assert abs(errors[1]) < 1e-4
    assert abs(errors[1]) < 0.3 * abs(errors[0])


def test_linear_threshold_of_noisy_attention():
    # K grad W*mu + sqrt2 dB has the time scale of USA with noise sqrt(2/K): the sign changes at K_lin.
    critical = theory.critical_attention_noise(beta=2.0, dimension=2)
    cells = mf.CircleCells(256)
    for factor, sign in ((0.98, 1), (1.02, -1)):
        dynamics = kd.Dynamics(kd.softmax(2.0, normalised=False), kd.Circle(), noise=factor * critical)
        assert np.sign(growth(dynamics, cells, 1)) == sign


def test_heat_alone_is_exact_for_the_discrete_laplacian():
    cells = mf.CircleCells(64)
    dynamics = kd.Dynamics(kd.softmax(0.0, normalised=False), kd.Circle(), noise=0.5)
    # beta = 0 pulls towards the mean, which mode 3 does not have: it decays by diffusion alone.
    rate = -(0.5**2 / 2) * (2 * np.sin(3 * cells.width / 2) / cells.width) ** 2
    assert growth(dynamics, cells, 3) == pytest.approx(rate, rel=1e-4)


@pytest.mark.parametrize(
    ("rule", "space", "density"),
    [
        (kd.bounded_confidence(1.0), kd.Euclidean(), mf.uniform(mf.LineCells(160, 0.0, 8.0), mass=3.0)),
        (kd.krause(0.5, kd.Within(1.0)), kd.Interval(0.0, 4.0), mf.uniform(mf.LineCells(100, 0.0, 4.0), (0.0, 1.5))),
        (kd.krause(0.3), kd.Interval(0.0, 3.0, mirror=True), mf.gaussian(mf.LineCells(90, 0.0, 3.0), 1.0, 0.3)),
        (kd.softmax(6.0), kd.Circle(), mf.von_mises(128, 0.4)),
        (kd.softmax(2.0, normalised=False), kd.Circle(), mf.from_particles(mf.CircleCells(128), np.eye(2))),
        (kd.krause(0.4), kd.Torus(3.0), mf.from_particles(mf.LineCells(90, 0.0, 3.0), np.array([0.1, 1.2, 2.9]))),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_mass_is_kept_and_never_negative(rule, space, density, noise):
    space = kd.Interval(0.0, 8.0) if noise and isinstance(space, kd.Euclidean) else space
    run = mf.solve(kd.Dynamics(rule, space, noise=noise), density, 3.0, save_at=7)
    masses = np.exp(run.log_mass)
    assert (masses >= 0).all()
    np.testing.assert_allclose(masses.sum(axis=-1), density.total, rtol=1e-12)  # roundings of some 1e3 stages
    assert np.isfinite(masses).all()


def test_per_capita_keeps_the_mean_and_shrinks_the_variance():
    rng = np.random.default_rng(2)
    cells = mf.LineCells(240, 0.0, 6.0)
    bumps = rng.uniform(0.2, 1.0, size=6)
    start = mf.from_function(cells, lambda x: bumps[np.clip(x.astype(int), 0, 5)])
    run = mf.solve(kd.Dynamics(kd.bounded_confidence(1.0, normalised=False)), start, 2.0, save_at=9)
    densities = [mf.density_at(run, i) for i in range(len(run))]
    means, variances = [d.mean for d in densities], [d.variance for d in densities]
    # The fluxes move mass by whole cells, so the mean is kept to the second order of the scheme.
    assert np.ptp(means) < 3e-4
    assert (np.diff(variances) < 0).all()


def test_full_range_contracts_at_rate_two():
    start = mf.gaussian(mf.LineCells(400, 0.0, 1.0), 0.5, 0.1)
    run = mf.solve(kd.Dynamics(kd.bounded_confidence(2.0)), start, 1.0, save_at=2)
    sheppard = start.cells.width**2 / 12
    expected = theory.full_range_variance(times=1.0, start=start.variance - sheppard)
    assert mf.density_at(run).variance - sheppard == pytest.approx(expected, rel=2e-3)


def test_edge_of_a_uniform_density_moves_at_half_the_radius_squared():
    start = mf.uniform(mf.LineCells(800, 0.0, 8.0), mass=8.0)
    run = mf.solve(kd.Dynamics(kd.bounded_confidence(1.0, normalised=False)), start, 0.2, save_at=2)
    # The first quantile of 1e-3 of the mass moves with the edge.
    moved = mf.density_at(run).quantiles(1000)[0, 0] - start.quantiles(1000)[0, 0]
    exact_start = theory.edge_speed(1.0) * 0.2
    assert moved == pytest.approx(exact_start, rel=0.05)


@pytest.mark.parametrize(("length", "expected"), [(3.0, 1), (7.5, 3), (12.0, 5)])
def test_number_of_clusters_of_a_uniform_density(length, expected):
    start = mf.uniform(mf.LineCells(int(30 * length), 0.0, length))
    run = mf.solve(kd.Dynamics(kd.bounded_confidence(1.0)), start, 20.0, save_at=2)
    found = mf.clusters(run)
    assert len(found) == expected
    assert sum(c.mass for c in found) == pytest.approx(1.0, abs=1e-5)
    positions = np.array([c.position for c in found])
    np.testing.assert_allclose(positions + positions[::-1], length, atol=1e-6)
    if expected > 1:
        assert min(np.diff(positions)) > 1.0  # further apart than the radius: they do not interact


def test_solver_and_quantiles_agree():
    dynamics = kd.Dynamics(kd.krause(0.5, kd.Within(1.0)))
    start = mf.uniform(mf.LineCells(400, 0.0, 4.0))
    eulerian = mf.density_at(mf.solve(dynamics, start, 1.0, save_at=2)).quantiles(401)
    lagrangian = mf.follow(dynamics, start, 1.0, count=401, dt=0.05).final
    # One particle at the radius weighs 1/401; both errors are of the order of a cell, 0.01.
    assert np.abs(eulerian - lagrangian).mean() < 2e-3


def test_particles_converge_to_the_mean_field():
    # dx_i = mean - x_i: E W2^2 = (1 + e^{-2t})/(12 N), here against the solver's density.
    n, runs, t = 50, 200, 0.5
    x = np.random.default_rng(11).uniform(size=(runs, n, 1))
    final = np.sort(kd.simulate(kd.Dynamics(kd.bounded_confidence(2.0)), x, t, dt=0.1).final[..., 0], axis=-1)
    start = mf.uniform(mf.LineCells(200, 0.0, 1.0))
    law = mf.density_at(mf.solve(kd.Dynamics(kd.bounded_confidence(2.0)), start, t, save_at=2))
    fine = law.quantiles(n * 40)[:, 0].reshape(n, 40)
    squared = ((final[..., None] - fine) ** 2).mean(axis=(-1, -2))
    expected = float(theory.linear_model_error(times=t, particles=n))
    assert squared.mean() == pytest.approx(expected, abs=3 * squared.std() / np.sqrt(runs))


def test_a_cluster_across_the_seam_of_the_circle():
    run = mf.solve(kd.Dynamics(kd.softmax(1.0), kd.Circle()), mf.von_mises(128, 1.0, mean=0.0), 15.0, save_at=2)
    (cluster,) = mf.clusters(run)
    assert cluster.mass == pytest.approx(1.0, abs=1e-5)
    assert min(cluster.position, 2 * np.pi - cluster.position) < 1e-6  # across the seam of the angle


def test_annealed_rules_are_followed():
    cells = mf.LineCells(120, -6.0, 6.0)
    dynamics = kd.Dynamics(lambda t: kd.krause(1.0 + t))
    run = mf.solve(dynamics, mf.gaussian(cells), 0.5, save_at=2)
    # du/dt from THEORY 11.8 with sigma(t): v' = -v sigma^2/(v^2 + sigma^2), by many small exact steps.
    deviation, steps = 1.0, 20_000
    for k in range(steps):
        sigma2 = (1 + (k + 0.5) * 0.5 / steps) ** 2
        deviation *= 1 - 0.5 / steps * sigma2 / (deviation**2 + sigma2)
    variance = mf.density_at(run).variance - cells.width**2 / 12
    assert variance == pytest.approx(deviation**2, rel=5e-3)


def test_a_velocity_that_varies_in_time_is_followed_with_order_three():
    """With the velocity a(t) v(x) the masses are those of v at time int a: another clock, the same cells."""
    cells = mf.LineCells(24, -1.0, 1.0)
    faces, start = cells.edges[1:-1], mf.gaussian(mf.LineCells(24, -1.0, 1.0), 0.0, 0.5).mass

    def moved(rate, t_end, count):
        transport = Transport(cells, False, lambda t, mass, slopes: -rate(t) * faces)
        mass, dt = start, t_end / count
        for k in range(count):
            mass = transport.step(k * dt, mass, dt, transport.rates(k * dt, mass))
        return mass

    exact = moved(lambda t: 1.0, 0.5 + 0.25 * np.sin(4.0) / 4, 400)
    errors = [np.abs(moved(lambda t: 0.5 + 0.25 * np.cos(4 * t), 1.0, n) - exact).max() for n in (32, 64, 128)]
    # A limiter with kinks costs some of the order 3; a stage at a wrong time leaves order 1.
    assert np.log2(errors[0] / errors[2]) / 2 > 2.5


def test_the_bound_of_a_step_does_not_depend_on_the_unit_of_mass():
    mass, flux = np.array([1.0, 1e-14, 1.0]), np.array([0.1, 0.1])
    for unit in (1e-6, 1.0, 1e6):  # the middle cell is a tail: it does not bind
        assert largest_step(unit * mass, Rates(unit * flux, 0 * flux, False)) == pytest.approx(10.0)


def test_saved_times_metadata_and_storage(tmp_path):
    start = mf.von_mises(64, 1.0)
    seen = []
    run = mf.solve(
        kd.Dynamics(kd.softmax(2.0), kd.Circle()),
        start,
        1.0,
        save_at=[0.25, 0.5],
        on_save=lambda t, density: seen.append((t, density.total)),
    )
    np.testing.assert_array_equal(run.times, [0.0, 0.25, 0.5, 1.0])
    assert [t for t, _ in seen] == [0.25, 0.5, 1.0]
    loaded = kd.Trajectory.load(run.save(tmp_path / "density"))
    np.testing.assert_array_equal(mf.density_at(loaded).mass, mf.density_at(run).mass)
    assert mf.density_at(loaded).cells == start.cells


def test_stop_is_recorded():
    run = mf.solve(
        kd.Dynamics(kd.softmax(2.0), kd.Circle()),
        mf.von_mises(64, 1.0),
        50.0,
        stop=lambda t, density, previous: "narrow" if density.mass.max() > 0.2 else None,
    )
    assert run.meta["stopped"] == "narrow"
    assert run.times[-1] < 50.0


def test_forced_step_within_and_over_the_bound():
    dynamics, start = kd.Dynamics(kd.krause(1.0)), mf.gaussian(mf.LineCells(80, -6.0, 6.0))
    free = mf.density_at(mf.solve(dynamics, start, 0.5, save_at=2)).mass
    forced = mf.density_at(mf.solve(dynamics, start, 0.5, dt=0.01, save_at=2)).mass
    assert np.abs(free - forced).sum() < 1e-3  # errors in time are small beside those of the cells
    with pytest.raises(ValueError, match="dt must be at most"):
        mf.solve(dynamics, start, 0.5, dt=0.5)


def test_blow_up_carries_the_trajectory():
    # The plain dot product blows up at 1/(2 beta l0) = 0.5; the box is left before.
    with pytest.raises(kd.SimulationDiverged, match="edge of the cells") as caught:
        mf.solve(kd.Dynamics(kd.softmax(1.0), relative=False), mf.gaussian(mf.LineCells(240, -7.0, 7.0)), 1.0)
    assert 0 < len(caught.value.trajectory) < 101


@pytest.mark.parametrize("rule", [kd.bounded_confidence(1.0), kd.krause(0.5, kd.Within(1.0))])
def test_groups_further_apart_than_the_radius_do_not_interact(rule):
    cells, dynamics = mf.LineCells(200, 0.0, 5.0), kd.Dynamics(rule)
    left, right = mf.uniform(cells, (0.5, 1.6), mass=0.3), mf.uniform(cells, (2.9, 4.2), mass=0.7)
    both = mf.Density(cells, left.mass + right.mass)
    alone = [mf.density_at(mf.solve(dynamics, part, 2.0, dt=0.01, save_at=2)).mass for part in (left, right)]
    together = mf.density_at(mf.solve(dynamics, both, 2.0, dt=0.01, save_at=2)).mass
    np.testing.assert_allclose(together, alone[0] + alone[1], atol=1e-12)


@pytest.mark.parametrize("rule", [kd.bounded_confidence(0.517), kd.krause(0.3), kd.krause(0.4, kd.Within(0.5))])
def test_mirror_images_are_half_of_a_torus(rule):
    half = mf.gaussian(mf.LineCells(90, 0.0, 3.0), 0.4, 0.5)
    whole = mf.Density(mf.LineCells(180, 0.0, 6.0), np.concatenate([half.mass, half.mass[::-1]]))
    for noise in (0.0, 0.3):
        inside = mf.solve(kd.Dynamics(rule, kd.Interval(0.0, 3.0, mirror=True), noise=noise), half, 1.5, save_at=2)
        around = mf.solve(kd.Dynamics(rule, kd.Torus(6.0), noise=noise), whole, 1.5, save_at=2)
        np.testing.assert_allclose(np.exp(inside.log_mass[-1]), np.exp(around.log_mass[-1])[:90], atol=1e-10)


LINE = mf.uniform(mf.LineCells(100, 0.0, 5.0))


@pytest.mark.parametrize(
    ("dynamics", "words"),
    [
        (kd.Dynamics(kd.krause(1.0, kd.Causal())), "Causal looks at indices"),
        (kd.Dynamics(kd.krause(1.0, kd.TopK(3))), "TopK looks at indices or ranks"),
        (kd.Dynamics(kd.bounded_confidence(np.linspace(1, 2, 100))), "radius differs"),
        (kd.Dynamics(kd.krause(np.linspace(1, 2, 100))), "one parameter for all"),
        (kd.Dynamics(kd.krause(1.0, pair_bias=np.zeros((100, 100)))), "pair_bias"),
        (kd.Dynamics(kd.krause(1.0), fixed=np.zeros(100, bool)), "fixed"),
        (kd.Dynamics(kd.krause(1.0), value=np.ones((2, 1, 1))), "one head"),
        (kd.Dynamics(kd.krause(1.0), kd.Circle()), "CircleCells"),
        (kd.Dynamics(kd.krause(1.0), kd.Torus(6.0)), "must cover"),
        (kd.Dynamics(kd.bounded_confidence(0.15)), "cells must be at least 134 "),
        (kd.Dynamics(kd.krause(0.1)), "cells must be at least 200 "),
    ],
)
def test_refusals_name_the_reason(dynamics, words):
    with pytest.raises(ValueError, match=words):
        mf.solve(dynamics, LINE, 1.0)


def test_wrong_types_are_named():
    with pytest.raises(TypeError, match="from_particles"):
        mf.solve(kd.Dynamics(kd.krause(1.0)), np.ones(10), 1.0)
    with pytest.raises(TypeError, match="Dynamics"):
        mf.solve(kd.krause(1.0), LINE, 1.0)


def test_the_number_of_cells_asked_for_is_enough():
    start = mf.uniform(mf.LineCells(134, 0.0, 5.0))
    run = mf.solve(kd.Dynamics(kd.bounded_confidence(0.15)), start, 0.1, save_at=2)
    assert np.exp(run.log_mass[-1]).sum() == pytest.approx(1.0, abs=1e-13)


def test_value_matrix_reverses_the_flow():
    start = mf.von_mises(128, 1.0)
    spread = mf.solve(kd.Dynamics(kd.softmax(1.0), kd.Circle(), value=-np.eye(2)), start, 1.0, save_at=2)
    assert mf.density_at(spread).mass.max() < start.mass.max()
