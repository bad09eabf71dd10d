"""Phase diagrams: particles, solver and linear theory agree where they must, and the plots show the data."""

import matplotlib as mpl
import numpy as np
import pytest

from krause_dynamics import phase_diagrams, theory

mpl.use("Agg")


@pytest.fixture(scope="module")
def over_beta():
    return phase_diagrams.order_over_beta([1.0, 5.0], [0.5, 1.0, 16.0], tokens=60, cells=64, seed=1)


def test_particles_and_solver_agree_on_the_order_parameter(over_beta):
    smooth, collapsed = over_beta.isel(time=slice(2)), over_beta.isel(time=2)
    # 60 quantiles and 64 cells are of second order; clusters narrower than a cell (0.1 radians) are not resolved.
    np.testing.assert_allclose(smooth.particles, smooth.density, atol=1e-3)
    np.testing.assert_allclose(collapsed.particles, collapsed.density, atol=0.05)


def test_order_parameter_starts_at_the_rate_of_linear_theory(over_beta):
    rates = np.log(over_beta.density[:, 1] / over_beta.density[:, 0]) / 0.5
    # The start has r = 0.05; the correction is of order r^2 and of the next modes.
    np.testing.assert_allclose(
        rates, [float(theory.mode_growth(degree=1, beta=beta, dimension=2)) for beta in (1.0, 5.0)], rtol=0.05
    )


def test_clusters_of_a_lattice_are_the_winning_mode(over_beta):
    assert over_beta.winning_mode.values.tolist() == [1, 3]
    assert over_beta.clusters.values[1, -1] == 3


@pytest.mark.parametrize("model", ["discrete", "normalised", "per_capita"])
def test_bifurcation_diagram_conserves_mass_and_symmetry(model):
    count = 2001 if model == "discrete" else 201
    data = phase_diagrams.clusters_over_length([3.0, 8.0], model, count=count)
    assert data.clusters.values.tolist() == [1, 3]
    np.testing.assert_allclose(np.nansum(data.mass, axis=1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(data.position[1], -data.position[1, ::-1], atol=1e-6)


def test_branch_points_of_the_discrete_map():
    found = [phase_diagrams.branch_point(*ends) for ends in ((5.1, 5.3), (5.6, 5.69))]
    np.testing.assert_allclose(found, theory.CONSENSUS_BRANCH_POINTS, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["normalised", "per_capita"])
def test_branch_points_of_continuous_models(model):
    found = phase_diagrams.branch_point(4.4, 4.9, model, count=4001)
    assert found == pytest.approx(theory.CONTINUOUS_BRANCH_POINTS[model], abs=0.02)


def test_branch_point_needs_two_fates():
    with pytest.raises(ValueError, match="consensus at both 2 and 3"):
        phase_diagrams.branch_point(2.0, 3.0, count=1001)


def test_density_and_quantiles_end_alike():
    quantiles, density = (
        phase_diagrams.clusters_over_length([8.0, 12.0], m, count=20_001) for m in ("discrete", "density")
    )
    # 200 cells a radius: atoms are smeared over a few cells.
    np.testing.assert_allclose(density.position, quantiles.position, atol=0.01)
    np.testing.assert_allclose(density.mass, quantiles.mass, atol=0.01)


def test_unknown_model_is_named():
    with pytest.raises(ValueError, match="model must be"):
        phase_diagrams.final_clusters(3.0, "hourly")


def test_lengths_must_be_positive():
    with pytest.raises(ValueError, match="at least one"):
        phase_diagrams.clusters_over_length([])
    with pytest.raises(ValueError, match="must be positive"):
        phase_diagrams.clusters_over_length([3.0, -1.0])


@pytest.fixture(scope="module")
def over_noise():
    return phase_diagrams.order_over_noise([0.05, 0.2], [0.3], t_end=12.0, cells=32, particles=100)


def test_order_survives_below_the_critical_noise_only(over_noise):
    assert over_noise.critical_noise.values[0] == pytest.approx(theory.critical_noise(radius=0.3, length=1.0))
    start = 0.05
    assert over_noise.density[0, 0] > 4 * start
    assert over_noise.density[0, 1] < 0.1 * start
    # 100 particles fluctuate by N^{-1/2} = 0.1.
    assert float(over_noise.particles[0, 0]) == pytest.approx(float(over_noise.density[0, 0]), abs=0.4)


def test_plots_show_the_data(over_beta, over_noise):
    import matplotlib.pyplot as plt

    from krause_dynamics import plots

    ax = plots.order_over_beta(over_beta)
    np.testing.assert_allclose(ax.collections[0].get_array().reshape(3, 2), over_beta.particles.T)
    line = ax.lines[0]
    np.testing.assert_allclose(line.get_ydata(), over_beta.linear_time)
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["r = 1/2, linear theory", "r = 1/2, mean field"]
    counts = plots.clusters_over_beta(over_beta)
    np.testing.assert_allclose(counts.lines[-1].get_ydata(), [1, 3])
    lengths = phase_diagrams.clusters_over_length([3.0, 8.0], count=2001)
    branches = plots.clusters_over_length(lengths)
    assert len(branches.collections[0].get_offsets()) == 4
    assert [line.get_xdata()[0] for line in branches.lines] == [5.23, 5.67, 6.84]
    numbers = plots.cluster_numbers_over_length(lengths)
    plots.cluster_numbers_over_length(lengths, ax=numbers, label="again")
    assert [line.get_label() for line in numbers.lines] == ["discrete time", "front, discrete time", "again"]
    np.testing.assert_allclose(numbers.lines[0].get_ydata(), [1, 3])
    slope = np.diff(numbers.lines[1].get_ydata()) / 5.0
    np.testing.assert_allclose(slope, 1 / theory.selected_front("discrete").wavelength)
    noise = plots.order_over_noise(over_noise)
    np.testing.assert_allclose(noise.collections[1].get_array(), over_noise.particles.values.ravel())
    for drawn in (ax, counts, branches, numbers, noise):
        plt.close(drawn.figure)


def test_the_discrete_map_runs_until_nothing_moves():
    """Clusters are points then; a run that is stopped earlier leaves them wide."""
    for cluster in phase_diagrams.final_clusters(7.0, "discrete", count=501):
        assert cluster.spread < 1e-9


def test_linear_time_is_that_of_the_first_mode():
    """The order parameter doubles in log(2)/rate of degree 1: log(0.5 / r_0) over it takes r_0 to a half."""
    found = phase_diagrams.order_over_beta([1.0, 3.0], [0.5], tokens=20, cells=48, kappa=0.2)
    rates = [theory.mode_growth(degree=1, beta=beta, dimension=2) for beta in (1.0, 3.0)]
    start = np.exp(-np.asarray(found.linear_time) * rates) * 0.5
    np.testing.assert_allclose(start, start[0], rtol=1e-12)
    assert 0.05 < start[0] < 0.2
