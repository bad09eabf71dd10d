"""Softmax and Krause flows against the theory: closed forms, rates, spectra, energies, lifetimes, cluster counts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.special import i0, i1

import krause_dynamics as kd

SPHERE, CIRCLE = kd.Sphere(), kd.Circle()


def cosine(x, i=0, j=1):
    return float((x[..., i, :] * x[..., j, :]).sum(-1))


def equiangular(n, rho):
    """n unit vectors of R^n with pairwise inner product rho."""
    return np.linalg.cholesky((1 - rho) * np.eye(n) + rho)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize(("beta", "rho"), [(0.0, 0.0), (1.0, 0.0), (4.0, 0.2)])
def test_equiangular_tokens_follow_the_scalar_equation(normalised, beta, rho):
    """Section 3: rho' = 2 e^{b rho} (1 - rho)(1 + (n-1) rho) / (e^b + (n-1) e^{b rho}), or / n; quadrature."""
    n = 8

    def slope(r):
        divisor = np.exp(beta) + (n - 1) * np.exp(beta * r) if normalised else n
        return 2 * np.exp(beta * r) * (1 - r) * (1 + (n - 1) * r) / divisor

    time = quad(lambda r: 1 / slope(r), rho, 0.5, epsabs=1e-12)[0]
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), SPHERE)
    run = kd.simulate(dynamics, equiangular(n, rho), time, dt=0.01, save_at=[])
    assert abs(cosine(run.final) - 0.5) < 1e-6
    gram = run.final @ run.final.T
    np.testing.assert_allclose(gram, 0.5 + 0.5 * np.eye(n), atol=1e-6)


def test_without_temperature_the_similarity_is_rational():
    """Section 3, beta = 0: rho = (e^{2t} - 1) / (e^{2t} + n - 1), SA = USA."""
    n, t = 6, 1.5
    expected = (np.exp(2 * t) - 1) / (np.exp(2 * t) + n - 1)
    for normalised in (True, False):
        dynamics = kd.Dynamics(kd.softmax(0.0, normalised=normalised), SPHERE)
        run = kd.simulate(dynamics, np.eye(n), t, dt=0.01, save_at=[])
        assert abs(cosine(run.final) - expected) < 1e-8


def test_random_tokens_in_high_dimension_follow_the_same_curve():
    """Section 3: n = 32, d = 1024, mean inner product within 0.04 of the equiangular curve (2312.10794 section 6)."""
    n, beta = 32, 1.0
    x0 = SPHERE.sample(n, 1024, rng=1)
    times = np.array([1.0, 2.0, 3.0])
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), SPHERE), x0, 3.0, dt=0.05, save_at=times)

    def slope(t, r):
        return 2 * np.exp(beta * r) * (1 - r) * (1 + (n - 1) * r) / (np.exp(beta) + (n - 1) * np.exp(beta * r))

    curve = solve_ivp(slope, (0, 3), [0.0], t_eval=times, rtol=1e-9).y[0]
    gram = run.positions[1:] @ run.positions[1:].mT
    mean = (gram.sum((-1, -2)) - n) / (n * (n - 1))
    np.testing.assert_allclose(mean, curve, atol=0.04)


@pytest.mark.parametrize(("normalised", "beta"), [(True, 3.0), (False, 1.5)])
def test_local_rate_near_consensus(normalised, beta):
    """Section 3: 1 - rho ~ e^{-2t} (SA), e^{-2 e^b t} (USA)."""
    rate = 2.0 if normalised else 2 * np.exp(beta)
    x0 = SPHERE.retract(np.array([[1.0, 0, 0]]) + 1e-3 * np.random.default_rng(0).standard_normal((5, 3)))
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), SPHERE)
    t = 2 / rate
    run = kd.simulate(dynamics, x0, t, dt=t / 200, save_at=[])
    spread = [np.var(x, axis=0).sum() for x in (x0, run.final)]  # 1 - mean cosine, without its cancellation
    assert abs(np.log(spread[0] / spread[1]) / t / rate - 1) < 1e-3


@pytest.mark.parametrize(("d", "beta"), [(3, 0.5), (3, 4.0), (4, 2.0), (2, 1.0), (2, -0.1)])
def test_almost_every_start_ends_in_one_cluster(d, beta):
    """Section 3: d >= 3 for all beta >= 0 (Markdahl), the circle for beta >= -0.16 (2507.22857)."""
    x0 = SPHERE.sample(12, d, rng=3)
    reached = kd.Event(lambda t, x: float(np.linalg.norm(x.mean(0))) - (1 - 1e-7), terminal=True)
    run = kd.simulate(
        kd.Dynamics(kd.softmax(beta), SPHERE), x0, 1e5, dt=100.0, integrator=kd.Adaptive(), events=[reached]
    )
    assert run.meta["stopped"] == "event: event"


def test_negative_beta_and_three_clusters():
    """Section 3: three 120-degree clusters (USA) have the eigenvalue (1/2 + 3 b/4) e^{-b/2}: stable iff b < -2/3."""
    x = CIRCLE.from_angles(2 * np.pi * np.arange(3) / 3)
    for beta in (-2.0, -0.7, -0.6, 1.0):
        rates = kd.spectrum(kd.Dynamics(kd.softmax(beta, normalised=False), CIRCLE), x)
        expected = (0.5 + 0.75 * beta) * np.exp(-beta / 2)
        np.testing.assert_allclose(np.sort(rates.real), np.sort([0, expected, expected]), atol=1e-12)
    perturbed = CIRCLE.from_angles(2 * np.pi * np.arange(3) / 3 + np.array([0.1, 0, 0]))
    dynamics = kd.Dynamics(kd.softmax(-2.0, normalised=False), CIRCLE)
    run = kd.simulate(dynamics, perturbed, 40.0, dt=0.05, save_at=[])
    np.testing.assert_allclose((run.final @ run.final.T)[0, 1:], -0.5, atol=1e-5)


def test_kuramoto_limit():
    """Section 3: circle, beta = 0, Poisson-kernel start: r = r0 e^{t/2} / sqrt(1 - r0^2 + r0^2 e^t) (Ott-Antonsen)."""
    r0, n, t = 0.3, 400, 2.0
    uniform = 2 * np.pi * (np.arange(n) + 0.5) / n
    angles = 2 * np.arctan((1 - r0) / (1 + r0) * np.tan((uniform - np.pi) / 2))  # quantiles of the Poisson kernel
    run = kd.simulate(kd.Dynamics(kd.softmax(0.0), CIRCLE), CIRCLE.from_angles(angles), t, dt=0.02, save_at=[])
    start, end = (np.linalg.norm(x.mean(0)) for x in (run[0], run.final))
    assert abs(start - r0) < 1e-12  # the quantile rule is exact for trigonometric polynomials
    assert abs(end - r0 * np.exp(t / 2) / np.sqrt(1 - r0**2 + r0**2 * np.exp(t))) < 1e-7


def test_pre_norm_tokens_grow_linearly_and_align_quadratically():
    """Section 3: radius r ~ t, 1 - rho ~ t^-2 for x in R^d with normalised inputs (2510.22026); closed scalar pair."""
    n, beta = 4, 1.0
    dynamics = kd.Dynamics(kd.softmax(beta), relative=False, read=SPHERE.retract)
    times = [20.0, 40.0, 400.0, 800.0]
    method = kd.Adaptive(1e-9, 1e-9)
    run = kd.simulate(dynamics, equiangular(n, 0.2), 800.0, integrator=method, save_at=times)

    def pair(t, y):
        radius, rho = y
        own, other = np.exp(beta), np.exp(beta * rho)
        total = own + (n - 1) * other
        along = (own + (n - 1) * other * rho) / total
        return [along, 2 / radius * other * (1 - rho) * (1 + (n - 1) * rho) / total]

    exact = solve_ivp(pair, (0, 800), [1.0, 0.2], t_eval=times, rtol=1e-10, atol=1e-13).y
    radius = np.linalg.norm(run.positions[1:, 0], axis=-1)
    unit = SPHERE.retract(run.positions[1:])
    np.testing.assert_allclose(radius, exact[0], rtol=1e-5)
    np.testing.assert_allclose((unit[:, 0] * unit[:, 1]).sum(-1), exact[1], atol=1e-5)
    assert abs(np.log2((radius[3]) / (radius[2])) - 1) < 0.02
    assert abs(np.log2((1 - exact[1][2]) / (1 - exact[1][3])) - 2) < 0.02


def test_one_dimension_gives_a_boolean_matrix():
    """Section 3, d = 1: x' = sum a x without normalisation: attention turns into a 0/1 matrix of rank at most 2."""
    x0 = np.array([[-1.0], [-0.4], [0.2], [0.5], [1.3]])
    away = kd.Event(lambda t, x: float(np.abs(x).max()) - 200.0, terminal=True)
    dynamics = kd.Dynamics(kd.softmax(1.0), relative=False)
    run = kd.simulate(dynamics, x0, 50.0, dt=0.01, events=[away])
    weights = np.round(kd.weights(kd.softmax(1.0), run.final), 6)
    assert set(np.unique(weights)) <= {0.0, 1.0}
    assert np.linalg.matrix_rank(weights) == 2
    positive = kd.simulate(dynamics, np.abs(x0), 50.0, dt=0.01, events=[away]).final
    assert np.linalg.matrix_rank(np.round(kd.weights(kd.softmax(1.0), positive), 6)) == 1


# --- energies (section 2)


@pytest.mark.parametrize("normalised", [True, False])
def test_sphere_energy_rises_by_its_dissipation(normalised, rng):
    """E = sum exp(b <x_i, x_j>) / (2 b n^2): dE/dt = (1/n) sum Z_i |x_i'|^2 (SA), (1/n) sum |x_i'|^2 (USA)."""
    beta, n = 2.0, 10
    x0 = SPHERE.sample(n, 3, rng=4)
    dynamics = kd.Dynamics(kd.softmax(beta, normalised=normalised), SPHERE)

    def energy(x):
        return np.exp(beta * x @ x.T).sum() / (2 * beta * n**2)

    def dissipation(x):
        z = np.exp(beta * x @ x.T).mean(1) if normalised else 1.0
        return (z * (dynamics.drift(0, x) ** 2).sum(-1)).mean()

    run = kd.simulate(dynamics, x0, 2.0, dt=0.005)
    gained = np.trapezoid([dissipation(x) for x in run], run.times)
    assert abs(energy(run.final) - energy(x0) - gained) < 1e-4 * gained
    assert (np.diff([energy(x) for x in run]) > 0).all()


def test_gaussian_energy_identity():
    """F = sum exp(-|z_i - z_j|^2 / 2 s^2) / 2: dF/dt = s^-2 sum Z_i |z_i'|^2, by central differences."""
    sigma, x = 0.7, np.random.default_rng(2).standard_normal((9, 2))
    dynamics = kd.Dynamics(kd.krause(sigma))

    def energy(z):
        return np.exp(-((z[:, None] - z[None]) ** 2).sum(-1) / (2 * sigma**2)).sum() / 2

    velocity = dynamics.drift(0, x)
    z = np.exp(kd.aggregate(kd.krause(sigma), x).log_partition)
    h = 1e-5
    slope = (energy(x + h * velocity) - energy(x - h * velocity)) / (2 * h)
    assert abs(slope - (z * (velocity**2).sum(-1)).sum() / sigma**2) < 1e-8


def test_gradient_flow_matrices_make_energy_rise():
    """V = Q^T K symmetric: n times the per-capita drift is the gradient of the energy; otherwise refused."""
    d, n, rng = 3, 7, np.random.default_rng(0)
    q = kd.matrices.gaussian(d, rng)
    v = kd.matrices.gradient_flow(q, q)
    x = SPHERE.sample(n, d, rng=1)
    dynamics = kd.Dynamics(kd.softmax(1.0, normalised=False), SPHERE, query=q, key=q, value=v)

    def energy(y):
        return np.exp((y @ q.T) @ (y @ q.T).T).sum() / (2 * n**2)

    drift, h = dynamics.drift(0, x), 1e-6
    for i in range(n):
        kick = np.zeros_like(x)
        kick[i] = np.cross(x[i], [0.3, -0.2, 0.9])
        slope = (energy(x + h * kick) - energy(x - h * kick)) / (2 * h)
        assert abs(slope - (drift[i] * kick[i]).sum() / n) < 1e-9
    with pytest.raises(ValueError, match="must be symmetric"):
        kd.matrices.gradient_flow(q, kd.matrices.gaussian(d, rng))


def test_matrices_of_the_literature():
    goe = kd.matrices.goe(400, 0)
    np.testing.assert_array_equal(goe, goe.T)
    assert abs(np.linalg.eigvalsh(goe)[-1] - 2) < 0.1  # edge of the semicircle, fluctuations n^(-2/3)
    heads = kd.matrices.orthogonal(5, 1, leading=(2, 3))
    np.testing.assert_allclose(heads @ heads.mT, np.broadcast_to(np.eye(5), (2, 3, 5, 5)), atol=1e-14)
    assert abs(np.abs(np.linalg.eigvals(kd.matrices.gaussian(400, 2))).max() - 1) < 0.1


# --- layers


def test_layers_with_their_own_rules_and_matrices(library):
    """A post-norm stack by hand: x <- normalise(x + sum_heads a V x), one rule and one set of heads per layer."""
    layers, heads, d = 3, 2, 4
    rng = np.random.default_rng(0)
    q, k, v = (kd.matrices.gaussian(d, rng, leading=(layers, heads)) for _ in range(3))
    rules = tuple(kd.softmax(b) for b in (1.0, 2.0, 3.0))
    x = x0 = SPHERE.sample(6, d, rng=1)
    for layer in range(layers):
        heard = 0.0
        for h in range(heads):
            scores = (layer + 1.0) * (x @ q[layer, h].T) @ (x @ k[layer, h].T).T
            a = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
            heard = heard + a @ x @ v[layer, h].T
        x = SPHERE.retract(x + 0.5 * heard)
    dynamics = kd.Dynamics(
        kd.PerLayer(rules), SPHERE, query=kd.PerLayer(q), key=kd.PerLayer(k), value=kd.PerLayer(v), relative=False
    )
    # A residual step tau = 1/2 on layers of time 1/2: the schedule is read at times 0, 1/2, 1.
    halves = kd.Dynamics(
        lambda t: rules[round(2 * t)],
        SPHERE,
        query=lambda t: q[round(2 * t)],
        key=lambda t: k[round(2 * t)],
        value=lambda t: v[round(2 * t)],
    )
    run = kd.simulate(halves, library(x0), 1.5, dt=0.5, integrator=kd.LayerStep())
    np.testing.assert_allclose(run.final, x, atol=1e-12)
    whole = kd.simulate(dynamics, library(x0), 3.0, dt=1.0, integrator=kd.LayerStep())
    assert whole.meta["dynamics"]["rule"]["type"] == "PerLayer"
    assert kd.from_dict(whole.meta["dynamics"]["rule"])(9) == rules[2]
    with pytest.raises(ValueError, match="at least one layer"):
        kd.PerLayer(())


def test_pure_attention_replaces_the_state():
    x = np.random.default_rng(0).standard_normal((5, 2))
    run = kd.simulate(kd.Dynamics(kd.krause(0.8)), x, 1.0, dt=1.0, integrator=kd.LayerStep(skip=False))
    np.testing.assert_allclose(run.final, kd.weights(kd.krause(0.8), x) @ x, atol=1e-14)


# --- near consensus (section 8)


@pytest.mark.parametrize(
    ("neighbourhood", "eigenvalue"),
    [
        (kd.Everyone(), 0.0),
        (kd.Window(7, two_sided=True, periodic=True), (1 + 2 * np.cos(2 * np.pi * np.arange(1, 4) / 24).sum()) / 7),
        (kd.Causal(), 0.5),
        (kd.Window(4), 0.5),
    ],
)
def test_contraction_per_layer_near_consensus(neighbourhood, eigenvalue):
    """Section 8: the slowest factor of x + tau (A - x) is 1 - tau (1 - lambda); simulated on tiny deviations."""
    n, tau = 24, 0.6
    rule = kd.krause(1.0, neighbourhood)
    x0 = 1e-4 * np.random.default_rng(1).standard_normal((n, 1))
    x0 -= x0[0] if eigenvalue == 0.5 else x0.mean()  # consensus at 0 (the leader, the mean): decay meets no floor
    run = kd.simulate(kd.Dynamics(rule), x0, 400 * tau, dt=tau, integrator=kd.LayerStep(), save_at=[399 * tau])
    spread = np.ptp(run.positions[1:], axis=(1, 2))
    factor = 1 - tau * (1 - eigenvalue)
    multipliers = kd.spectrum(kd.Dynamics(rule), np.zeros((n, 1)), integrator=kd.LayerStep(), dt=tau)
    assert abs(multipliers[0] - 1) < 1e-12
    assert abs(multipliers[1].real - factor) < 1e-9
    if eigenvalue > 0:  # the dense rule is at rounding long before
        assert abs(spread[1] / spread[0] - factor) < 1e-3


def test_band_window_has_the_spectrum_of_its_matrix():
    """Section 8: second eigenvalue of the row-normalised band, n = 24, w = 3."""
    offset = np.abs(np.arange(24)[:, None] - np.arange(24))
    band = (offset <= 3) / (offset <= 3).sum(1, keepdims=True)
    expected = np.sort(np.linalg.eigvals(band).real)[-2]
    rule = kd.krause(0.5, kd.Window(7, two_sided=True))
    multipliers = kd.spectrum(kd.Dynamics(rule), np.zeros((24, 1)), integrator=kd.LayerStep(skip=False))
    assert abs(multipliers[1].real - expected) < 1e-9


def test_separated_clusters_are_independent():
    """Section 8: clusters further apart than the truncation radius do not interact: bit for bit but rounding."""
    rng = np.random.default_rng(0)
    left, right = 0.2 * rng.standard_normal((8, 2)), 5 + 0.2 * rng.standard_normal((6, 2))
    dynamics = kd.Dynamics(kd.krause(0.5, kd.Within(1.5)))
    together = kd.simulate(dynamics, np.concatenate([left, right]), 5.0, save_at=[]).final
    apart = [kd.simulate(dynamics, x, 5.0, save_at=[]).final for x in (left, right)]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-13)


# --- causal attention (section 9)


def test_everyone_follows_the_causal_leader():
    """Section 9: x_1 stays, all converge to it, the slowest as 1 - <x_i, x_1> ~ e^{-t} (rates 1 - 1/i)."""
    x0 = SPHERE.sample(8, 3, rng=2)
    dynamics = kd.Dynamics(kd.softmax(1.0, kd.Causal()), SPHERE)
    run = kd.simulate(dynamics, x0, 60.0, dt=0.05, save_at=[24.0, 26.0])
    np.testing.assert_allclose(run.final[0], x0[0], atol=1e-12)
    np.testing.assert_allclose(run.final, np.broadcast_to(x0[0], (8, 3)), atol=1e-10)
    late = ((run.positions[1:3, 1] - x0[0]) ** 2).sum(-1) / 2  # 1 - cosine of the second token, without cancellation
    assert abs(np.log(late[0] / late[1]) / 2 - 1) < 2e-3
    rates = kd.spectrum(dynamics, np.repeat(x0[:1], 5, axis=0))
    expected = -np.repeat(1 - 1 / np.arange(1, 6), 2)
    np.testing.assert_allclose(rates.real, expected, atol=1e-10)


def test_two_causal_tokens():
    """Section 9: phi' = -sin(phi) e / (1 + e), e = exp(b (cos phi - 1)), b = 3."""
    beta, start, stop = 3.0, 2.5, 0.5

    def slow(phi):
        e = np.exp(beta * (np.cos(phi) - 1))
        return (1 + e) / (np.sin(phi) * e)

    time = quad(slow, stop, start, epsabs=1e-12)[0]
    dynamics = kd.Dynamics(kd.softmax(beta, kd.Causal()), CIRCLE)
    run = kd.simulate(dynamics, CIRCLE.from_angles(np.array([0.0, start])), time, dt=0.02, save_at=[])
    assert abs(np.arccos(cosine(run.final)) - stop) < 1e-6


def test_renyi_centres_of_a_causal_sequence():
    """Section 9: greedy centres at separation delta of i.i.d. tokens: 0.7475979 x 2 pi / delta (parking constant)."""
    rng, delta, counts = np.random.default_rng(0), 0.05, []
    for _ in range(20):
        centres: list[float] = []
        for angle in rng.uniform(0, 2 * np.pi, 4000):
            gaps = np.abs((np.array(centres) - angle + np.pi) % (2 * np.pi) - np.pi)
            if not (gaps < delta).any():
                centres.append(angle)
        counts.append(len(centres))
    assert abs(np.mean(counts) / (0.7475979202 * 2 * np.pi / delta) - 1) < 0.05


def test_renyi_centres_capture_the_tokens_of_a_causal_flow():
    """Section 9 in the simulator: with large beta, tokens sit near earlier strong centres long before all merge."""
    beta, n = 200.0, 60
    x0 = CIRCLE.sample(n, 2, rng=5)
    delta = 4 / np.sqrt(beta)
    angles = CIRCLE.to_angles(x0)
    centres = [0]
    for i in range(1, n):
        gaps = np.abs((angles[centres] - angles[i] + np.pi) % (2 * np.pi) - np.pi)
        if (gaps > delta).all():
            centres.append(i)
    run = kd.simulate(kd.Dynamics(kd.softmax(beta, kd.Causal()), CIRCLE), x0, 30.0, dt=0.05, save_at=[])
    moved = CIRCLE.distance(run.final[centres], x0[centres])
    # Centres hardly move: the weight of a neighbouring centre is e^{-beta delta^2/2} = e^{-8}.
    assert (moved < delta / 4).mean() > 0.8
    nearest = np.stack([CIRCLE.distance(run.final, np.broadcast_to(run.final[c], (n, 2))) for c in centres]).min(0)
    assert (nearest < 0.05).mean() > 0.8


# --- lifetimes (section 4)


@pytest.mark.parametrize("mass", [0.5, 0.25])
def test_two_cluster_lifetime_on_the_sphere(mass):
    """phi' = -sin(phi) [(1-p) e/(p + (1-p) e) + p e/(1-p + p e)]; weighted tokens in two points."""
    beta, start, stop = 4.0, 2.2, 1.0

    def slow(phi):
        e = np.exp(beta * (np.cos(phi) - 1))
        return 1 / (np.sin(phi) * ((1 - mass) * e / (mass + (1 - mass) * e) + mass * e / (1 - mass + mass * e)))

    expected = quad(slow, stop, start)[0]
    closer = kd.Event(lambda t, x: float(np.arccos(cosine(x))) - stop, terminal=True)
    run = kd.simulate(
        kd.Dynamics(kd.softmax(beta), CIRCLE),
        CIRCLE.from_angles(np.array([0.0, start])),
        10 * expected,
        integrator=kd.Adaptive(1e-9, 1e-11),
        dt=expected,
        log_mass=np.log([mass, 1 - mass]),
        events=[closer],
    )
    assert abs(run.times[-1] / expected - 1) < 1e-4


def test_two_cluster_lifetime_of_the_dense_gaussian_rule():
    """D' = -2 D e / (1 + e), e = exp(-D^2 / 2 s^2), relative form, equal masses."""
    sigma, start, stop = 0.5, 2.0, 1.0
    expected = quad(lambda s: (1 + np.exp(s**2 / (2 * sigma**2))) / (2 * s), stop, start)[0]
    closer = kd.Event(lambda t, x: float(x[1, 0] - x[0, 0]) - stop, terminal=True)
    method = kd.Adaptive(1e-9, 1e-11)
    run = kd.simulate(
        kd.Dynamics(kd.krause(sigma)), np.array([0.0, start]), 1e5, dt=1e3, integrator=method, events=[closer]
    )
    assert abs(run.times[-1] / expected - 1) < 1e-4


def test_two_particles_on_the_circle_reduce_to_one_gap():
    """d(gap)/dt = -2 w(gap) sin(gap) with w the weight of the other one: 1/(1 + e^{b (1 - cos gap)})."""
    beta, start = 2.0, 1.5
    exact = solve_ivp(
        lambda t, g: -2 * np.sin(g) / (1 + np.exp(beta * (1 - np.cos(g)))), (0, 3), [start], rtol=1e-10, atol=1e-12
    ).y[0, -1]
    x0 = CIRCLE.from_angles(np.array([0.0, start]))
    run = kd.simulate(kd.Dynamics(kd.softmax(beta), CIRCLE), x0, 3.0, dt=0.02, save_at=[])
    assert abs(np.arccos(cosine(run.final)) - exact) < 1e-7


def test_gaussian_and_dot_product_agree_on_the_sphere():
    """Architecture, fact 1: on unit vectors Gaussian(sigma) and DotProduct(1/sigma^2) give one and the same flow."""
    x0 = SPHERE.sample(9, 4, rng=6)
    a, b = (
        kd.simulate(kd.Dynamics(rule, SPHERE), x0, 3.0, save_at=[]).final
        for rule in (kd.krause(0.6), kd.softmax(1 / 0.36))
    )
    np.testing.assert_allclose(a, b, atol=1e-12)


def test_annealed_beta_equals_piecewise_runs():
    """beta(t) as a function of time: two constant halves are two runs."""
    x0 = SPHERE.sample(7, 3, rng=8)
    annealed = kd.Dynamics(lambda t: kd.softmax(1.0 if t < 1 - 1e-9 else 6.0), SPHERE)
    run = kd.simulate(annealed, x0, 2.0, dt=0.1, integrator=kd.Euler())
    first = kd.simulate(kd.Dynamics(kd.softmax(1.0), SPHERE), x0, 1.0, dt=0.1, integrator=kd.Euler()).final
    second = kd.simulate(kd.Dynamics(kd.softmax(6.0), SPHERE), first, 1.0, dt=0.1, integrator=kd.Euler()).final
    np.testing.assert_allclose(run.final, second, atol=1e-13)


def test_unstable_modes_of_the_uniform_circle():
    """Section 4: lattice of n tokens on the circle: mode l grows at l^2 I_l(b) / (b I_0(b)) under SA; here l = 1."""
    n, beta = 64, 2.0
    lattice = CIRCLE.from_angles(2 * np.pi * np.arange(n) / n)
    rates = kd.spectrum(kd.Dynamics(kd.softmax(beta), CIRCLE), lattice)
    first = i1(beta) / (beta * i0(beta))
    assert np.isclose(rates.real, first, atol=1e-9).sum() == 2  # a pair: cosine and sine
