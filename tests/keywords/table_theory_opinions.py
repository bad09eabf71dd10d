"""Rows of `kd.theory`: waves and fronts of bounded confidence, freezing, edges; against quadratures and small runs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy.integrate import quad

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row


@against(
    "kd.theory.dispersion",
    "q times the mean of z sin(q z) over the neighbourhood, by quadrature",
    q=(0.7, 4.0),
)  # fmt: skip
def mean_of_neighbours(q):
    return q * quad(lambda z: z * np.sin(q * z), 0, 1)[0]


@against(
    "kd.theory.step_multiplier",
    "how much one step on a ring of 20 000 opinions amplifies the wave of their density",
    rtol=3e-3,  # harmonics of the amplitude, and the spacing over the amplitude
    wavenumber=(2.0, 5.0), radius=(0.5, 0.8),
)  # fmt: skip
def amplified_wave(wavenumber, radius):
    n, length = 20_000, 2 * np.pi
    place = length * np.arange(n) / n
    x = np.sort(place - 0.01 / wavenumber * np.sin(wavenumber * place))
    ring = np.concatenate([x - length, x, x + length])
    total = np.concatenate([[0.0], np.cumsum(ring)])
    low, high = np.searchsorted(ring, x - radius), np.searchsorted(ring, x + radius, side="right")
    moved = (total[high] - total[low]) / (high - low)
    return np.abs(np.exp(1j * wavenumber * moved).sum()) / np.abs(np.exp(1j * wavenumber * x).sum())


@against(
    "kd.theory.growth_rate",
    "minus the slope of the drift in a density 1 + eta cos(k x), by quadrature, minus diffusion",
    wavenumber=(1.7, 3.0), radius=(1.3, 0.6), density=(0.4, 1.1), normalised=(False, True), noise=(0.0, 0.5),
)  # fmt: skip
def slope_of_drift(wavenumber, radius, density, normalised=False, noise=0.0):
    # d/dx int z cos(k (x + z)) dz at the node k x = pi/2, where the mass of the neighbourhood does not vary.
    slope = quad(lambda z: z * density * np.sin(wavenumber * z), -radius, radius, epsabs=1e-15, epsrel=1e-12)[0]
    heard = 2 * radius * density if normalised else 1.0
    return wavenumber * slope / heard - noise**2 / 2 * wavenumber**2


@against(
    "kd.theory.frozen_graph_multiplier",
    "the mean of cos(k x) over the points of a lattice within the closed radius",
    wavenumber=(0.7, 2.0), spacing=(0.5, 1.0), radius=(1.45, 2.5),
)  # fmt: skip
def mean_over_lattice(wavenumber, spacing, radius):
    x = spacing * np.arange(-20, 21)
    return np.cos(wavenumber * x[np.abs(x) <= radius]).mean()


def exponent(q, time):
    """Growth of a wave exp(i q x) of complex wave number, radius 1, per unit of time."""
    g = np.sin(q) / q - np.cos(q)
    return {"discrete": np.log(1 + g), "normalised": g, "per_capita": 2 * g}[time]


def assert_saddle(front, time):
    """A pulled front: the comoving growth is stationary and neutral, and nodes are conserved through it."""
    q, h = front.wavenumber, 1e-6
    slope = (exponent(q + h, time) - exponent(q - h, time)) / (2 * h)
    comoving = exponent(q, time) + 1j * front.speed * q
    assert slope == pytest.approx(-1j * front.speed, abs=1e-8)  # h^2 of the differences
    assert comoving.real == pytest.approx(0.0, abs=1e-9)
    assert front.wavelength == pytest.approx(2 * np.pi * front.speed / abs(comoving.imag), rel=1e-9)


@row("kd.theory.selected_front", "time", "discrete", "per_capita", "a saddle of the growth of its own model of time")
def _(first, second):
    for time in (first, second):
        assert_saddle(theory.selected_front(time), time)
    # At density 1/R the per-capita model is the normalised one at twice the pace.
    slow, fast = theory.selected_front("normalised"), theory.selected_front(second)
    assert fast.speed == pytest.approx(2 * slow.speed, rel=1e-9)
    assert fast.wavelength == pytest.approx(slow.wavelength, rel=1e-9)


@row("kd.theory.selected_front", "guess", 3.0 + 2.0j, 9.3 + 2.1j, "the saddle next to the guess")
def _(first, second):
    for guess in (first, second):
        front = theory.selected_front(guess=guess)
        assert_saddle(front, "discrete")
        assert abs(front.wavenumber - guess) < 0.3


def field_of_front(place, name):
    """Check that a field stands in its place of three, and that the saddle it belongs to notices another value."""

    def check(first, second):
        true = theory.selected_front()
        assert_saddle(theory.Front(*true), "discrete")
        for value in (first, second):
            front = theory.Front(**{**true._asdict(), name: value})
            assert front[place] == getattr(front, name) == value
            assert front[:place] + front[place + 1 :] == true[:place] + true[place + 1 :]
            with pytest.raises(AssertionError):
                assert_saddle(front, "discrete")

    return check


FIELDS = {"wavenumber": (3.0 + 2.0j, 9.3 + 2.1j), "speed": (0.8, 0.4), "wavelength": (2.2, 0.7)}
for place, (name, pair) in enumerate(FIELDS.items()):
    row("kd.theory.Front", name, *pair, "stands in its place, and only its true value solves the saddle's equations")(
        field_of_front(place, name)
    )


@against(
    "kd.theory.critical_noise",
    "the noise whose diffusion stops the growth of a wave that fits the torus, by quadrature",
    radius=(0.5, 0.7), length=(5.0, 4.0), mode=(1, 2), normalised=(False, True),
)  # fmt: skip
def noise_that_stops(radius, length, mode, normalised):
    k = 2 * np.pi * mode / length
    return np.sqrt(2 * slope_of_drift(k, radius, 1 / length, normalised)) / k


@against(
    "kd.theory.long_wave_critical_noise",
    "the noise whose diffusion stops the growth of a wave 10 000 radii long, by quadrature",
    rtol=1e-6,  # of order (k R)^2
    radius=(0.5, 0.7), density=(0.4, 1.1), normalised=(False, True),
)  # fmt: skip
def noise_that_stops_long_waves(radius, density, normalised):
    k = 2 * np.pi / (1e4 * radius)
    return np.sqrt(2 * slope_of_drift(k, radius, density, normalised)) / k


def freeze(agents):
    """Steps until nothing moves from gaps of the radius, and the sizes of the clusters; exact fractions."""
    x, steps = [Fraction(i) for i in range(agents)], 0
    while True:
        near = [[b for b in x if abs(b - a) <= 1] for a in x]
        moved = [sum(group) / len(group) for group in near]
        if moved == x:
            return steps, [x.count(value) for value in sorted(set(x))]
        x, steps = moved, steps + 1


@against(
    "kd.theory.equally_spaced_freezing_time",
    "the steps of a run in exact fractions",
    agents=(7, 10),
)  # fmt: skip
def steps_of_run(agents):
    return freeze(agents)[0]


@against(
    "kd.theory.equally_spaced_final_sizes",
    "the clusters at the end of a run in exact fractions",
    agents=(7, 10),
)  # fmt: skip
def sizes_of_run(agents):
    return freeze(agents)[1]


@against(
    "kd.theory.two_cluster_stability_distance",
    "the largest distance of two clusters which a weightless agent between them can join",
    rtol=0.0, atol=2e-4,  # the step of the distances
    mass_a=(3.0, 1.0), mass_b=(2.0, 2.7),
)  # fmt: skip
def largest_joined_distance(mass_a, mass_b):
    distance = np.arange(0.0, 2.0, 1e-4)
    place = distance * mass_b / (mass_a + mass_b)  # where an agent that hears both goes
    return distance[(place <= 1) & (distance - place <= 1)].max()


@against(
    "kd.theory.full_range_variance",
    "the variance of three points that each relax towards the mean of all, by 4000 exact small steps",
    rtol=2e-3,  # t/4000
    times=([0.5, 1.0], [0.1, 2.0]), start=(1.0, 0.3),
)  # fmt: skip
def variance_of_points(times, start):
    def run(time):
        x = np.array([0.0, 0.3, 1.0])
        x *= np.sqrt(start / x.var())
        for _ in range(4000):
            x = x + time / 4000 * (x.mean() - x)
        return x.var()

    return [run(time) for time in times]


def half_line(radius, spacing=1e-4):
    """Opinions of density 1 on [0, 6 R], at the midpoints of cells; mean of the neighbours, and pull, of the first."""
    x = radius * spacing * (np.arange(round(6 / spacing)) + 0.5)
    near = x[x <= radius]
    return x, near.mean(), near.sum() * radius * spacing


@against(
    "kd.theory.edge_speed",
    "the pull of all neighbours on the first of many opinions of this density",
    radius=(1.4, 0.5), density=(0.5, 1.2),
)  # fmt: skip
def pull_on_edge(radius, density):
    return density * half_line(radius)[2]


@against(
    "kd.theory.edge_jump",
    "the mean of the neighbours of the first of many opinions",
    radius=(1.4, 0.5),
)  # fmt: skip
def move_of_edge(radius):
    return half_line(radius)[1]


@against(
    "kd.theory.density_after_one_step",
    "opinions counted near the position after one step of a half-line of them",
    rtol=0.0, atol=0.02,  # two opinions more or less in 200
    position=([0.47, 0.53, 0.97, 1.03], [1.03, 0.47, 0.53, 0.2]), radius=(1.0, 2.0),
)  # fmt: skip
def counted_after_step(position, radius):
    x = half_line(radius)[0]
    total = np.concatenate([[0.0], np.cumsum(x)])
    low, high = np.searchsorted(x, x - radius), np.searchsorted(x, x + radius, side="right")
    moved = (total[high] - total[low]) / (high - low)
    width = 0.02 * radius
    return [np.sum(np.abs(moved - place) < width / 2) * radius * 1e-4 / width for place in position]
