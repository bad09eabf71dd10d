"""Rows of `kd.theory`: instability of the uniform law, counts of modes, noisy attention; against quadratures."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq, minimize_scalar
from scipy.special import eval_chebyt, eval_gegenbauer, iv, ive

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row

# Nodes and weights of Gauss over angles from 0 to pi.
ARC = np.pi / 2 * (1 + np.polynomial.legendre.leggauss(80)[0]), np.pi / 2 * np.polynomial.legendre.leggauss(80)[1]


@against(
    "kd.theory.kernel_coefficient",
    "the mean of exp(beta <x, y>) times a zonal harmonic over the sphere, by quadrature",
    degree=(2, 5), beta=(3.0, 0.8), dimension=(3, 2), scaled=(False, True),
)  # fmt: skip
def mean_over_sphere(degree, beta, dimension, scaled=False):
    order = dimension / 2 - 1

    def zonal(t):
        if dimension == 2:
            return eval_chebyt(degree, t)
        return eval_gegenbauer(degree, order, t) / eval_gegenbauer(degree, order, 1.0)

    angle, weight = ARC
    area = weight * np.sin(angle) ** (dimension - 2)
    return area @ (np.exp(beta * (np.cos(angle) - scaled)) * zonal(np.cos(angle))) / area.sum()


@against(
    "kd.theory.mode_growth",
    "minus the divergence of the drift that a harmonic of the density causes, its potential by quadrature",
    degree=(2, 5), beta=(3.0, 0.8), dimension=(3, 2), normalised=(True, False),
)  # fmt: skip
def growth(degree, beta, dimension, normalised=False):
    field = mean_over_sphere(degree, beta, dimension) / beta
    heard = mean_over_sphere(0, beta, dimension) if normalised else 1.0
    return degree * (degree + dimension - 2) * field / heard  # the Laplacian of a harmonic


@against(
    "kd.theory.winning_mode",
    "the degree of largest growth, by quadrature",
    beta=(3.0, 12.0), dimension=(2, 6),
)  # fmt: skip
def fastest_degree(beta, dimension):
    return max(range(1, 12), key=lambda degree: growth(degree, beta, dimension))


@against(
    "kd.theory.switching_beta",
    "where two successive degrees grow equally fast, by quadrature",
    degree=(1, 2), dimension=(2, 4),
)  # fmt: skip
def equal_growth(degree, dimension):
    return brentq(lambda b: growth(degree, b, dimension) / growth(degree + 1, b, dimension) - 1, 0.5, 40.0, rtol=1e-12)


@against(
    "kd.theory.large_beta_mode",
    "the real degree that maximises l^2 I_l(beta)",
    rtol=2e-3,  # of order 1/beta
    beta=(400.0, 1600.0),
)  # fmt: skip
def fastest_real_degree(beta):
    return minimize_scalar(lambda l: -(l**2) * ive(l, beta), bounds=(1, 100), options={"xatol": 1e-6}).x


@against(
    "kd.theory.expected_initial_modes",
    "Rice's count from the derivatives at 0 of the covariance I_0(2 beta cos(x/2)) of the field",
    beta=(16.0, 3.0),
)  # fmt: skip
def rice_count(beta):
    z = 2 * beta
    second = z * iv(1, z) / 4
    fourth = z * iv(1, z) / 16 + 3 * z**2 * (iv(0, z) + iv(2, z)) / 32
    return np.sqrt(fourth / second)


@row(
    "kd.theory.expected_initial_modes",
    "tokens",
    40,
    39,
    "10 sqrt(beta) tokens have the count of many, fewer none",
)
def _(first, second):
    assert theory.expected_initial_modes(16.0, tokens=first) == theory.expected_initial_modes(16.0)
    with pytest.raises(ValueError, match="tokens must be at least 10 sqrt"):
        theory.expected_initial_modes(16.0, tokens=second)


@against(
    "kd.theory.expected_density_modes_on_line",
    "the mean number of maxima of kernel density estimates of 40 samples from a seed",
    rtol=0.06,  # two standard errors of the counts, and the 3 % that the formula is low
    samples=(50, 200), beta=(1500.0, 60.0),
)  # fmt: skip
def counted_modes(samples, beta):
    rng, t = np.random.default_rng(0), np.linspace(-5, 5, 1001)
    counts = []
    for _ in range(40):
        field = np.exp(-beta * (t[:, None] - rng.normal(size=samples)) ** 2 / 2).sum(axis=1)
        counts.append(np.sum((field[1:-1] > field[:-2]) & (field[1:-1] >= field[2:]) & (field[1:-1] > 0)))
    return np.mean(counts)


@against(
    "kd.theory.density_modes_leading_order",
    "the modes of a dense sample per bandwidth, times the two stretches between noise and the last samples",
    samples=(1000, 10_000), beta=(20.0, 1000.0),
)  # fmt: skip
def modes_in_stretches(samples, beta):
    def distance(log_ratio):  # where the normal density is exp(-log_ratio), up to its constant
        return np.sqrt(2 * max(0.0, log_ratio))

    stretch = distance(np.log(samples) - np.log(beta) / 2) - distance(np.log(samples) - 1.5 * np.log(beta))
    return 2 * stretch * np.sqrt(beta) * np.sqrt(1.5) / (2 * np.pi)


@against(
    "kd.theory.linear_threshold",
    "where growth by attention times K is the decay by diffusion of the harmonic",
    beta=(3.0, 0.8), dimension=(3, 5), degree=(1, 2),
)  # fmt: skip
def coupling_against_diffusion(beta, dimension, degree):
    return degree * (degree + dimension - 2) / growth(degree, beta, dimension)


@against(
    "kd.theory.critical_attention_noise",
    "the noise whose diffusion sigma^2/2 stops the growth of the first harmonic",
    beta=(3.0, 0.8), dimension=(3, 5),
)  # fmt: skip
def noise_against_growth(beta, dimension):
    return np.sqrt(2 * growth(1, beta, dimension) / (dimension - 1))


def second_over_first(beta, dimension):
    """Ratio of two coefficients, by quadrature: the transition is continuous where it is at most 1/d."""
    return mean_over_sphere(2, beta, dimension) / mean_over_sphere(1, beta, dimension)


@against(
    "kd.theory.transition_order_threshold",
    "where the second coefficient is 1/d of the first, by quadrature",
    dimension=(2, 4),
)  # fmt: skip
def threshold_of_order(dimension):
    return brentq(lambda beta: second_over_first(beta, dimension) - 1 / dimension, 0.1, 20.0, rtol=1e-12)


@against(
    "kd.theory.is_transition_continuous",
    "whether the second coefficient is at most 1/d of the first, by quadrature, near the threshold",
    beta=(2.4468, 2.5), dimension=(2, 3),
)  # fmt: skip
def is_continuous(beta, dimension):
    return second_over_first(beta, dimension) <= 1 / dimension


@against(
    "kd.theory.landau_quartic",
    "the free energy of 1 + a cos t + c cos 2t over a^4, least over c, extrapolated to a = 0",
    rtol=1e-4,  # of order a^4
    beta=(1.0, 3.0),
)  # fmt: skip
def free_energy_over_fourth_power(beta):
    t = 2 * np.pi * np.arange(64) / 64
    first, second = iv(1, beta) / beta, iv(2, beta) / beta

    def energy(c, a):
        density = 1 + a * np.cos(t) + c * np.cos(2 * t)
        return np.mean(density * np.log(density)) - (a**2 + c**2 * second / first) / 4  # K_lin = 1/first

    def quartic(a):
        best = minimize_scalar(energy, bounds=(-(a**2), 3 * a**2), args=(a,), method="bounded", options={"xatol": 1e-9})
        return best.fun / a**4

    return (4 * quartic(0.05) - quartic(0.1)) / 3


ORDERED = {"beta": (2.0, 3.0), "coupling": (1.5, 4.0)}


@against(
    "kd.theory.circle_order_parameter",
    "the resultant of exp(K W * f), the convolution on a grid, iterated from a concentrated law",
    **ORDERED,
)
def resultant_on_grid(beta, coupling):
    return np.cos(2 * np.pi * np.arange(128) / 128) @ law_on_grid(beta, coupling)


def law_on_grid(beta, coupling):
    t = 2 * np.pi * np.arange(128) / 128
    kernel = np.exp(beta * np.cos(t[:, None] - t)) / beta
    law = np.exp(20 * (np.cos(t) - 1))
    for _ in range(1000):
        law = law / law.sum()
        field = coupling * kernel @ law
        law = np.exp(field - field.max())
    return law / law.sum()


@against(
    "kd.theory.ordered_state",
    "the first moments of exp(K W * f), the convolution on a grid, iterated from a concentrated law",
    read=lambda moments: moments[:3],
    **ORDERED,
)
def moments_on_grid(beta, coupling):
    t = 2 * np.pi * np.arange(128) / 128
    law = law_on_grid(beta, coupling)
    return [np.cos(degree * t) @ law for degree in (1, 2, 3)]


@row("kd.theory.ordered_state", "modes", 24, 48, "as many moments as asked for, and the first do not depend on it")
def _(first, second):
    few, many = (theory.ordered_state(beta=2.0, coupling=1.5, modes=modes) for modes in (first, second))
    assert (len(few), len(many)) == (first, second)
    np.testing.assert_allclose(few, many[:first], atol=1e-12)


@against(
    "kd.theory.attention_free_energy",
    "entropy and interaction of the density on a grid, the convolution as a double sum",
    moments=([0.4, 0.1], [0.2, 0.3]), beta=(2.0, 3.0), coupling=(1.5, 4.0),
)  # fmt: skip
def energy_on_grid(moments, beta, coupling):
    t = 2 * np.pi * np.arange(256) / 256
    law = 1 + 2 * sum(r * np.cos((degree + 1) * t) for degree, r in enumerate(moments))
    kernel = np.exp(beta * np.cos(t[:, None] - t)) / beta
    return np.mean(law * np.log(law)) - coupling / 2 * law @ kernel @ law / 256**2


@row("kd.theory.circle_order_parameter", "modes", 16, 1, "many modes are the whole kernel, one is Kuramoto's equation")
def _(first, second):
    beta, coupling = (pair[0] for pair in ORDERED.values())
    whole = resultant_on_grid(beta, coupling)
    assert theory.circle_order_parameter(beta=beta, coupling=coupling, modes=first) == pytest.approx(whole, rel=1e-9)
    pull = 2 * coupling * iv(1, beta) / beta
    kuramoto = brentq(lambda r: iv(1, pull * r) / iv(0, pull * r) - r, 0.05, 1.0, rtol=1e-12)
    assert abs(kuramoto - whole) > 0.01
    # Eight points a period for one mode: the sums of the density alias its eighth coefficient.
    assert theory.circle_order_parameter(beta=beta, coupling=coupling, modes=second) == pytest.approx(
        kuramoto, rel=1e-4
    )
