"""Bounded confidence: freezing in exact arithmetic, dispersion by quadrature, fronts by their double-root condition."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

from krause_dynamics import theory


def freeze(start):
    """Steps until nothing moves, and the final state; exact fractions, closed ball of radius 1."""
    x, steps = sorted(start), 0
    while True:
        moved = []
        for a in x:
            near = [b for b in x if abs(b - a) <= 1]
            moved.append(sum(near) / len(near))
        if moved == x:
            return steps, x
        x, steps = moved, steps + 1


@pytest.mark.parametrize("agents", list(range(2, 20)))
def test_equally_spaced_freezing_time_and_sizes(agents):
    steps, final = freeze([Fraction(i) for i in range(agents)])
    assert steps == theory.equally_spaced_freezing_time(agents)
    sizes = [final.count(value) for value in sorted(set(final))]
    assert sizes == theory.equally_spaced_final_sizes(agents)


@pytest.mark.parametrize("n", sorted(theory.DUMBBELL_FREEZING_TIMES))
def test_dumbbell_freezing_time(n):
    start = [Fraction(-1, n)] * n + [Fraction(i) for i in range(n + 1)] + [n + Fraction(1, n)] * n
    assert freeze(start)[0] == theory.DUMBBELL_FREEZING_TIMES[n]


def test_two_cluster_stability_by_a_light_third_agent():
    weight_a, weight_b, light = 3.0, 2.0, 1e-7
    critical = theory.two_cluster_stability_distance(mass_a=weight_a, mass_b=weight_b)

    def merges(distance):
        # A light agent anywhere in reach of both, moved to its weighted mean, either joins one or pulls both together.
        for start in np.linspace(0.05, 0.95, 400) * distance:
            x = np.array([0.0, start, distance])
            w = np.array([weight_a, light, weight_b])
            near = np.abs(x[:, None] - x) <= 1.0
            x = near @ (w * x) / (near @ w)
            if abs(x[1] - x[0]) <= 1.0 and abs(x[2] - x[1]) <= 1.0:
                return True
        return False

    assert merges(critical - 1e-3)
    assert not merges(critical + 1e-3)


def test_dispersion_is_the_integral_of_the_neighbour_mean():
    for q in (0.3, 2.0, 5.0):
        moment = quad(lambda z, q=q: z * np.sin(q * z), -1, 1, epsabs=1e-14)[0] / 2
        assert float(theory.dispersion(q)) == pytest.approx(q * moment, rel=1e-11)
    assert float(theory.dispersion(0.0)) == 0.0
    for q in (0.9e-3, 1.1e-3):
        with mpmath.workdps(40):
            exact = float(mpmath.sin(q) / q - mpmath.cos(q))
        # The closed form loses 1e-16/q^2 to cancellation just above the switch to the series.
        assert float(theory.dispersion(q)) == pytest.approx(exact, rel=1e-9)


def test_fastest_wave_maximises_the_dispersion():
    q = theory.fastest_wave()
    assert np.tan(q) == pytest.approx(q / (1 - q * q), rel=1e-10)
    grid = np.linspace(0.1, 4.4, 20_001)
    assert grid[np.argmax(theory.dispersion(grid))] == pytest.approx(q, abs=3e-4)
    assert 2 * np.pi / q == pytest.approx(2.290, abs=1e-3)


@pytest.mark.parametrize(
    ("time", "wavelength"), [("discrete", 2.18256), ("per_capita", 2.23690), ("normalised", 2.23690)]
)
def test_selected_wavelength(time, wavelength):
    assert theory.selected_front(time).wavelength == pytest.approx(wavelength, abs=1e-5)


def test_selected_front_is_the_double_root_of_least_speed():
    # Linear spreading: c = min over Im q of max-growth; check with mpmath's own saddle search.
    def exponent(q):
        return mpmath.log(1 + mpmath.sin(q) / q - mpmath.cos(q))

    saddle = mpmath.findroot(
        lambda a, b: (
            mpmath.re(mpmath.diff(exponent, mpmath.mpc(a, b))),
            mpmath.re(exponent(mpmath.mpc(a, b)) - mpmath.mpc(a, b) * mpmath.diff(exponent, mpmath.mpc(a, b))),
        ),
        (3.1, 2.1),
    )
    q = mpmath.mpc(saddle[0], saddle[1])
    front = theory.selected_front("discrete")
    assert complex(q) == pytest.approx(front.wavenumber, rel=1e-9)
    assert float(-mpmath.im(mpmath.diff(exponent, q))) == pytest.approx(front.speed, rel=1e-9)


def test_second_saddle_and_bad_guess():
    second = theory.selected_front("discrete", guess=9.3 + 2.1j)
    assert second.wavenumber == pytest.approx(9.34 + 2.12j, abs=5e-3)
    assert second.speed == pytest.approx(0.773, abs=1e-3)
    assert second.wavelength == pytest.approx(0.674, abs=1e-3)
    with pytest.raises(ValueError, match="time must be"):
        theory.selected_front("hourly")


@pytest.mark.parametrize("ratio", [3.0, 3.5])
def test_frozen_graph_multiplier_is_the_eigenvalue_of_the_lattice_average(ratio):
    n, mode = 60, 7
    index = np.arange(n)
    gap = np.minimum(np.abs(index[:, None] - index), n - np.abs(index[:, None] - index))
    average = (gap <= ratio) / np.sum(gap <= ratio, axis=1, keepdims=True)
    wave = np.cos(2 * np.pi * mode * index / n)
    factor = (average @ wave)[0] / wave[0]
    predicted = theory.frozen_graph_multiplier(wavenumber=2 * np.pi * mode / n, spacing=1.0, radius=ratio)
    assert float(predicted) == pytest.approx(factor, rel=1e-12)


def test_growth_rate_against_quadrature_of_the_drift():
    # v(x) = int phi (y - x) rho(y) dy for rho = rho0 (1 + eta cos k y); growth = -rho0 v'(x)/(rho0 eta cos k x).
    k, radius, density, eta = 1.7, 1.3, 0.4, 1e-3

    def velocity(x):
        return quad(lambda z: z * density * (1 + eta * np.cos(k * (x + z))), -radius, radius, epsabs=1e-15)[0]

    slope = velocity(np.pi / 2 / k) / (-eta) * k
    predicted = float(theory.growth_rate(wavenumber=k, radius=radius, density=density))
    assert slope == pytest.approx(predicted, rel=1e-9)
    noisy = float(theory.growth_rate(wavenumber=k, radius=radius, density=density, noise=0.5))
    assert predicted - noisy == pytest.approx(0.125 * k * k)
    assert float(theory.growth_rate(wavenumber=k, radius=radius, normalised=True)) == pytest.approx(
        predicted / (2 * density * radius)
    )
    assert float(theory.step_multiplier(wavenumber=k, radius=radius)) == pytest.approx(
        1 + predicted / (2 * density * radius)
    )


@pytest.mark.parametrize("normalised", [True, False])
def test_critical_noise_makes_the_growth_rate_vanish(normalised):
    radius, length = 0.7, 5.0
    sigma = theory.critical_noise(radius=radius, length=length, normalised=normalised)
    rate = theory.growth_rate(
        wavenumber=2 * np.pi / length, radius=radius, density=1 / length, normalised=normalised, noise=sigma
    )
    assert float(rate) == pytest.approx(0.0, abs=1e-14)
    if not normalised:
        q = 2 * np.pi * radius / length
        assert sigma**2 == pytest.approx(4 * radius**3 / length * (np.sin(q) - q * np.cos(q)) / q**3, rel=1e-12)
    long_wave = theory.long_wave_critical_noise(radius, density=1 / 5000.0, normalised=normalised)
    assert theory.critical_noise(radius=radius, length=5000.0, normalised=normalised) == pytest.approx(
        long_wave, rel=1e-5
    )


def test_critical_noise_refuses_a_short_torus():
    with pytest.raises(ValueError, match="length must be at least"):
        theory.critical_noise(radius=1.0, length=1.5)


def test_first_step_of_a_half_line():
    # Push quantiles of density 1 on [0, 6] once; the far edge is out of sight of [0, 4].
    n, radius = 6000, 1.0
    x = (np.arange(n) + 0.5) * 6.0 / n
    low, high = np.maximum(x - radius, 0.0), x + radius
    moved = 0.5 * (low + high)
    assert moved[0] == pytest.approx(theory.edge_jump(radius), abs=1e-3)
    for left, right in ((0.0, 0.45), (0.55, 0.95), (1.05, 2.0)):
        density = np.sum((moved > left) & (moved < right)) * 6.0 / n / (right - left)
        assert density == pytest.approx(float(theory.density_after_one_step(0.5 * (left + right))), abs=5e-3)


def test_edge_speed_is_the_first_moment():
    assert theory.edge_speed(radius=1.4, density=0.5) == pytest.approx(0.5 * quad(lambda z: z, 0, 1.4)[0])


def test_full_range_variance_of_particles():
    x = np.array([0.0, 0.3, 1.0])
    rate = -2 * np.mean((x - x.mean()) ** 2)
    h = 1e-6
    slope = (
        theory.full_range_variance(times=h, start=x.var()) - theory.full_range_variance(times=-h, start=x.var())
    ) / (2 * h)
    assert float(slope) == pytest.approx(rate, rel=1e-9)
