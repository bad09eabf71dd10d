"""Section 4: instability of the uniform law, counts of modes, two-cluster lifetimes, noisy attention."""

from __future__ import annotations

import numpy as np

import krause_dynamics as kd
from krause_dynamics import theory
from krause_dynamics.theory_table._row import Comparison, check, compare


def measured_growth(degree: int, beta: float, *, normalised: bool = True, cells: int = 512) -> float:
    """Growth rate of a cosine on the uniform law of the circle, from the drift of a grid of weighted tokens.

    The drift is linear in the perturbation up to eta^2; sums over a uniform grid are exact for smooth fields.
    """
    eta = 1e-5
    angle = 2 * np.pi * np.arange(cells) / cells
    x = kd.Circle().from_angles(angle)
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), kd.Circle())
    amplitude = []
    for sign in (1.0, -1.0):
        v = dynamics.drift(0.0, x, np.log((1 + sign * eta * np.cos(degree * angle)) / cells))
        speed = x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]
        amplitude.append(2 * np.mean(speed * np.sin(degree * angle)))
    return -degree * (amplitude[0] - amplitude[1]) / (2 * eta)


def measured_zonal_growth(degree: int, beta: float) -> float:
    """Growth rate of a Legendre mode on the uniform law of S^2: Gauss latitudes, 48 equal longitudes per ring."""
    from numpy.polynomial import legendre

    eta, rings = 1e-5, 48
    height, weight = legendre.leggauss(40)
    longitude = 2 * np.pi * np.arange(rings) / rings
    mode = legendre.Legendre.basis(degree)
    ring = np.sqrt(1 - height**2)
    sources = np.stack(
        [np.outer(ring, np.cos(longitude)), np.outer(ring, np.sin(longitude)), np.outer(height, np.ones(rings))], -1
    ).reshape(-1, 3)
    queries = np.stack([ring, np.zeros_like(ring), height], -1)
    amplitude = []
    for sign in (1.0, -1.0):
        mass = np.repeat(weight * (1 + sign * eta * mode(height)) / (2 * rings), rings)
        pull = kd.aggregate(kd.softmax(beta), queries, sources, log_mass=np.log(mass)).mean
        # The velocity along the meridian, times sin(colatitude): d(height)/dt.
        climb = pull[:, 2] - (pull * queries).sum(-1) * height
        amplitude.append(np.sum(weight * climb * mode.deriv()(height)) * (2 * degree + 1) / 2)
    return float((amplitude[0] - amplitude[1]) / (2 * eta))


@check(
    4,
    source="derived; 2410.23228",
    setting="SA, USA; beta = 4; l = 1..6",
    tolerance=1e-4,
    kind="relative",
)
def growth_circle() -> Comparison:
    """Growth of degree l, circle."""
    degrees = np.arange(1, 7)
    predicted = [theory.mode_growth(degrees, 4.0, 2, normalised=kind) for kind in (True, False)]
    measured = [[measured_growth(int(l), 4.0, normalised=kind) for l in degrees] for kind in (True, False)]
    return compare(np.stack(predicted), measured)


@check(
    4,
    source="derived; 2410.23228",
    setting="SA; d = 3, beta = 3; l = 1..4",
    tolerance=1e-4,
    kind="relative",
)
def growth_sphere() -> Comparison:
    """Growth of degree l, sphere."""
    degrees = np.arange(1, 5)
    return compare(theory.mode_growth(degrees, 3.0, 3), [measured_zonal_growth(int(l), 3.0) for l in degrees])


@check(4, source="2410.23228", setting="circle; beta = 1, 2, 5, 10, 20, 50", tolerance=0.0)
def winning_mode() -> Comparison:
    """Winning mode."""
    betas = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0)
    measured = []
    for beta in betas:
        rates = [measured_growth(l, beta, cells=256) for l in range(1, 16)]
        measured.append(1 + int(np.argmax(rates)))
    return compare([theory.winning_mode(beta) for beta in betas], measured)


@check(4, source="derived", setting="circle, l = 1, 2, 3; sphere, l = 1", tolerance=1e-6)
def switching() -> Comparison:
    """Switching values of beta."""
    from scipy.optimize import brentq

    def balance(growth, degree: int, guess: float) -> float:  # type: ignore[no-untyped-def]
        return brentq(lambda b: growth(degree + 1, b) / growth(degree, b) - 1, 0.9 * guess, 1.1 * guess, xtol=1e-9)

    def circle(degree: int, beta: float) -> float:
        return measured_growth(degree, beta, cells=128)

    predicted = [theory.switching_beta(l) for l in (1, 2, 3)] + [theory.switching_beta(1, 3)]
    measured = [balance(circle, l, p) for l, p in zip((1, 2, 3), predicted, strict=False)]
    return compare(predicted, [*measured, balance(measured_zonal_growth, 1, predicted[3])])


@check(
    4,
    source="derived",
    setting="circle; Richardson from beta = 400, 800",
    tolerance=1e-4,
    kind="relative",
)
def large_beta() -> Comparison:
    """Large beta: best rate of SA tends to 2/e."""
    best = []
    for beta in (400.0, 800.0):
        # The winner is searched over real degrees: the maximum of a parabola through the three rates around it.
        l = int(round(float(theory.large_beta_mode(beta))))
        rates = np.array([measured_growth(k, beta, cells=1024) for k in (l - 1, l, l + 1)])
        curvature, slope = rates[0] - 2 * rates[1] + rates[2], (rates[2] - rates[0]) / 2
        best.append(rates[1] - slope**2 / (2 * curvature))
    # The correction is O(1/beta).
    return compare(
        2.0 / np.e, 2 * best[1] - best[0], f"winner {l} against sqrt(2 beta) = {theory.large_beta_mode(800.0):.1f}"
    )


@check(
    4,
    source="2410.23228",
    setting="circle SA, n = 400, noise 1e-3, beta = 10, 20",
    tolerance=1.0,
)
def lattice_clusters() -> Comparison:
    """Clusters from a nearly uniform lattice."""
    predicted, measured = [], []
    for beta in (10.0, 20.0):
        angle = 2 * np.pi * np.arange(400) / 400 + 1e-3 * np.random.default_rng(1).normal(size=400)
        run = kd.simulate(
            kd.Dynamics(kd.softmax(beta), kd.Circle()), kd.Circle().from_angles(angle), 30.0, dt=0.1, save_every=300
        )
        settled = np.sort(kd.Circle().to_angles(run.final) % (2 * np.pi))
        gaps = np.diff(np.append(settled, settled[0] + 2 * np.pi))
        measured.append(np.sum(gaps > 0.5 / np.sqrt(beta)))
        predicted.append(theory.winning_mode(beta))
    return compare(predicted, measured)


@check(
    4,
    source="Rice; derived",
    setting="uniform tokens, n = 500, beta = 30, 1000 draws",
    tolerance=0.03,
    kind="relative",
)
def initial_modes() -> Comparison:
    """Modes of the initial field, circle."""
    rng, beta, trials = np.random.default_rng(0), 30.0, 1000
    grid = kd.Circle().from_angles(2 * np.pi * np.arange(128) / 128)
    counts = []
    for _ in range(trials):
        tokens = kd.Circle().from_angles(rng.uniform(0, 2 * np.pi, 500))
        field = kd.aggregate(kd.softmax(beta), grid, tokens).log_partition
        counts.append(np.sum((field > np.roll(field, 1)) & (field >= np.roll(field, -1))))
    return compare(theory.expected_initial_modes(beta, tokens=500), np.mean(counts))


@check(
    4,
    source="2412.09080 (scaling; constant measured)",
    setting="N(0,1) data, beta = n = 3000, 10000; mean of 60, 20 draws",
    tolerance=0.04,
    kind="relative",
    slow=True,
)
def line_modes() -> Comparison:
    """Modes of a Gaussian KDE on the line / sqrt(beta log beta)."""
    rng, ratios = np.random.default_rng(0), []
    for n, trials in ((3000, 60), (10_000, 20)):
        counts = [_count_line_modes(rng.normal(size=n), float(n)) for _ in range(trials)]
        ratios.append(np.mean(counts) / np.sqrt(n * np.log(n)))
    leading = theory.expected_density_modes_on_line(10_000, 1e4) / np.sqrt(1e4 * np.log(1e4))
    return compare([0.44, 0.44], ratios, f"leading-order formula gives {leading:.2f}")


def _count_line_modes(samples: np.ndarray, beta: float) -> int:
    """Sign changes of x -> A(x) - x, the mean-shift vector, a positive multiple of the slope of the density."""
    x, width = np.sort(samples), 1.0 / np.sqrt(beta)
    rule, signs = kd.krause(sigma=width), []
    grid = np.arange(x[0] - width, x[-1] + width, width / 12)
    for block in np.array_split(grid, max(1, len(grid) // 400)):
        # 12 bandwidths: beyond them a sample counts only where none is nearer; those enter through the nearest one.
        low, high = np.searchsorted(x, [block[0] - 12 * width, block[-1] + 12 * width])
        near = x[max(low - 1, 0) : high + 1, None]
        signs.append(np.sign(kd.aggregate(rule, block[:, None], near).mean[:, 0] - block))
    sign = np.concatenate(signs)
    return int(np.sum((sign[:-1] > 0) & (sign[1:] <= 0)))


def _closing_time(positions: np.ndarray, times: np.ndarray, gap: np.ndarray, stop: float) -> float:
    from scipy.interpolate import CubicSpline
    from scipy.optimize import brentq

    return float(brentq(CubicSpline(times, gap - stop), times[0], times[-1]))


@check(
    4,
    source="2410.06833; derived",
    setting="SA; beta = 4, phi0 = 2, masses 1/2 and 0.3",
    tolerance=1e-3,
    kind="relative",
)
def sphere_lifetime() -> Comparison:
    """Two-cluster lifetime, sphere."""
    beta, angle, predicted, measured = 4.0, 2.0, [], []
    for mass in (0.5, 0.3):
        predicted.append(theory.cluster_lifetime(beta, angle, mass=mass))
        x0 = kd.Circle().from_angles(np.array([0.0, angle]))
        run = kd.simulate(
            kd.Dynamics(kd.softmax(beta), kd.Circle()),
            x0,
            1.05 * predicted[-1],
            dt=0.05,
            log_mass=np.log([mass, 1 - mass]),
        )
        gap = kd.Circle().distance(run.positions[:, 0], run.positions[:, 1])
        measured.append(_closing_time(run.positions, run.times, gap, angle / 2))
    return compare(predicted, measured)


@check(
    4,
    source="2410.06833; derived",
    setting="beta = 16, 32 at 90 degrees, against the quadrature",
    tolerance=0.02,
    kind="relative",
)
def sphere_lifetime_asymptotic() -> Comparison:
    """Two-cluster lifetime, asymptotic form."""
    angle = np.pi / 2
    predicted = [theory.cluster_lifetime_asymptotic(beta, angle) for beta in (16.0, 32.0)]
    return compare(predicted, [theory.cluster_lifetime(beta, angle) for beta in (16.0, 32.0)])


@check(
    4,
    source="derived",
    setting="D0 = 3 sigma, masses 1/2 and 0.3",
    tolerance=1e-3,
    kind="relative",
)
def gaussian_lifetime() -> Comparison:
    """Two-cluster lifetime, dense Gaussian rule."""
    predicted, measured = [], []
    for mass in (0.5, 0.3):
        predicted.append(theory.gaussian_lifetime(3.0, mass=mass))
        x0 = np.array([[0.0], [3.0]])
        run = kd.simulate(
            kd.Dynamics(kd.krause(sigma=1.0)), x0, 1.05 * predicted[-1], dt=0.02, log_mass=np.log([mass, 1 - mass])
        )
        gap = run.positions[:, 1, 0] - run.positions[:, 0, 0]
        measured.append(_closing_time(run.positions, run.times, gap, 1.5))
    return compare(predicted, measured)


@check(
    4,
    source="2606.05140; derived",
    setting="circle, beta = 1, 3",
    tolerance=1e-8,
    kind="relative",
)
def linear_threshold() -> Comparison:
    """Noisy USA: linear threshold K_lin."""
    measured = []
    for beta in (1.0, 3.0):
        # Diffusion (sqrt(2) dB) damps degree 1 of the circle at rate 1.
        measured.append(1.0 / _growth_at_uniform(beta))
    return compare([theory.linear_threshold(beta, 2) for beta in (1.0, 3.0)], measured)


def _growth_at_uniform(beta: float, cells: int = 128) -> float:
    """Growth rate of degree 1 under USA; its drift is linear in the masses, so that one evaluation is exact."""
    angle = 2 * np.pi * np.arange(cells) / cells
    x = kd.Circle().from_angles(angle)
    log_mass = np.log((1 + 0.5 * np.cos(angle)) / cells)
    v = kd.Dynamics(kd.softmax(beta, normalised=False), kd.Circle()).drift(0.0, x, log_mass)
    return float(-2 * np.mean((x[:, 0] * v[:, 1] - x[:, 1] * v[:, 0]) * np.sin(angle)) / 0.5)


def _coupling_of_branch(order: float, beta: float, cells: int = 64) -> float:
    """K at which noisy USA on the circle has a stationary law with given order parameter, by fixed-point iteration."""
    angle = 2 * np.pi * np.arange(cells) / cells
    x, rule = kd.Circle().from_angles(angle), kd.softmax(beta, normalised=False)
    mass, coupling = (1 + 2 * order * np.cos(angle)) / cells, theory.linear_threshold(beta, 2)
    for _ in range(200):
        potential = np.exp(kd.aggregate(rule, x, log_mass=np.log(mass)).log_partition) / beta
        updated = np.exp(coupling * (potential - potential.mean()))
        updated /= updated.sum()
        found = updated @ np.cos(angle)
        coupling *= 1 + 0.5 * (order / found - 1)
        # Hold the order parameter, let the higher moments relax.
        mass = updated * (1 + 2 * (order - found) * np.cos(angle))
        mass /= mass.sum()
        if abs(found / order - 1) < 1e-13:
            break
    return coupling


@check(
    4,
    source="2604.16288; 2606.05140",
    setting="circle; curvature of the stationary branch K(r) at r -> 0",
    tolerance=1e-6,
    kind="relative",
)
def transition_order() -> Comparison:
    """Noisy USA: the transition is continuous up to beta*."""
    from scipy.optimize import brentq

    def curvature(beta: float) -> float:
        # K(r) = K_lin (1 + c r^2 + e r^4): c from three couplings, r = 0 included.
        small, large = 0.02, 0.04
        ratio = [_coupling_of_branch(r, beta) / theory.linear_threshold(beta, 2) - 1 for r in (small, large)]
        return (4 * ratio[0] / small**2 - ratio[1] / large**2) / 3

    return compare(theory.transition_order_threshold(2), brentq(curvature, 2.2, 2.7, xtol=1e-8))
