"""Section 11: value matrices drawn anew at every layer (stochastic depth, homogenised Transformers)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from evidence.theory_table.sphere import equiangular
from krause_dynamics import theory

STEP = 1e-4  # of time: far below the inverse of every rate here


def one_layer(x: np.ndarray, rule: kd.Interaction, draws: int, seed: int) -> np.ndarray:
    """Tokens (2 draws, n, d) after one layer with each matrix and its negative, which cancels the odd moments."""
    d = x.shape[-1]
    half = np.sqrt(STEP) * np.random.default_rng(seed).standard_normal((draws, 1, d, d))
    dynamics = kd.Dynamics(rule, kd.Sphere(), value=np.concatenate([half, -half]))
    start = np.broadcast_to(x, (2 * draws, *x.shape))
    return kd.simulate(dynamics, start, 1.0, dt=1.0, integrator=kd.LayerStep()).final


def measured_exponent(rule: kd.Interaction, dimension: int, sign: float, draws: int = 10_000) -> float:
    """Mean growth of log(1 - sign R) of two tokens with 1 - sign R = 1e-6, per unit of time."""
    x = np.zeros((2, dimension))
    x[0, 0] = 1.0
    x[1, :2] = sign * (1.0 - 1e-6), np.sqrt(1.0 - (1.0 - 1e-6) ** 2)
    gap = lambda y: np.sum((y[..., 0, :] - sign * y[..., 1, :]) ** 2, axis=-1)  # noqa: E731
    return float(np.mean(np.log(gap(one_layer(x, rule, draws, 5)) / gap(x))) / STEP)


@check(
    11,
    source="2601.21942; derived",
    setting="(d, beta) = (3, 1), (4, 0.5), (4, 1), (8, 1), (8, 2); 20 000 layers of time 1e-4",
    tolerance=0.15,  # five deviations of the mean at d = 8
)
def stochastic_depth_antipodal() -> Comparison:
    """Random values: Lyapunov exponent (d - 3) - (d - 1) tanh^2 beta of a nearly antipodal pair."""
    cases = ((3, 1.0), (4, 0.5), (4, 1.0), (8, 1.0), (8, 2.0))
    predicted = [theory.random_value_exponents(beta=b, dimension=d)[0] for d, b in cases]
    return compare(predicted, [measured_exponent(kd.softmax(b), d, -1.0) for d, b in cases])


@check(
    11,
    source="derived; setting of 2601.21942",
    setting="(d, beta) = (3, 1), (3, 4), (8, 1); 20 000 layers of time 1e-4",
    tolerance=0.15,  # five deviations of the mean at d = 8
)
def stochastic_depth_consensus() -> Comparison:
    """Random values: Lyapunov exponent -(d - 1) of a nearly equal pair, whatever the temperature."""
    cases = ((3, 1.0), (3, 4.0), (8, 1.0))
    predicted = [theory.random_value_exponents(beta=b, dimension=d)[1] for d, b in cases]
    return compare(predicted, [measured_exponent(kd.softmax(b), d, 1.0) for d, b in cases])


@check(11, source="2601.21942", setting="d = 4, 8; signs 20 % below and above arccosh(d - 2)/2", tolerance=0.0)
def stochastic_depth_threshold() -> Comparison:
    """Random values: antipodal pairs attract iff cosh 2 beta > d - 2."""
    cases = [(d, share * theory.antipodal_threshold(d)) for d in (4, 8) for share in (0.8, 1.2)]
    return compare([1, -1, 1, -1], [np.sign(measured_exponent(kd.softmax(b), d, -1.0)) for d, b in cases])


CASES = ((2, 2, 0.0, 0.0, 20_000), (8, 4, 0.3, 1.0, 5000), (64, 16, 0.3, 1.0, 400), (512, 16, 0.3, 1.0, 16))


@lru_cache(maxsize=1)
def measured_rates() -> list[float]:
    """Mean speed of inner products of equiangular tokens, in the time in which entries have variance 1/d."""
    rates = []
    for d, n, rho, beta, draws in CASES:
        x = np.zeros((n, d))
        x[:, :n] = equiangular(n, rho)
        y = one_layer(x, kd.softmax(beta), draws, 6)
        pairs = (np.sum(np.sum(y, axis=1) ** 2, axis=-1) - n) / (n * (n - 1))  # of unit vectors
        rates.append(float(np.mean(pairs - rho) / STEP / d))
    return rates


@check(
    11,
    source="derived; corrects 2604.01978",
    setting="(d, n, rho, beta) = (2, 2, 0, 0), (8, 4, 0.3, 1), (64, 16, 0.3, 1), (512, 16, 0.3, 1)",
    tolerance=0.01,
)
def homogenised_rate() -> Comparison:
    """Random values: mean speed of inner products in finite dimension."""
    predicted = [theory.random_value_rate(similarity=r, beta=b, tokens=n, dimension=d) for d, n, r, b, _ in CASES]
    return compare(predicted, measured_rates())


@check(
    11,
    source="2604.01978",
    setting="as above",
    tolerance=0.01,
    disputed="the closure leaves out (rho P - (2 - rho^2) S)/d: two orthogonal tokens in the plane stay where they are",
)
def homogenised_closure() -> Comparison:
    """Random values: the simplex closure gamma + (1 - gamma) g - gamma (gamma + (1 - gamma) f) in every dimension."""
    predicted = [theory.random_value_closure(similarity=r, beta=b, tokens=n) for _, n, r, b, _ in CASES]
    return compare(predicted, measured_rates())


def _away_from_the_closure(
    dimension: int, draws: int, time: float = 0.25, start: float = 0.3, beta: float = 1.0, tokens: int = 4
) -> float:
    """Root mean square deviation of a pair from the closure, entries of variance 1/d, layers of time 1/100 or 1/50."""
    from scipy.integrate import solve_ivp

    rate = lambda _, rho: theory.random_value_closure(similarity=float(rho[0]), beta=beta, tokens=tokens)  # noqa: E731
    expected = solve_ivp(rate, (0.0, time), [start], rtol=1e-9).y[0, -1]
    rng, x = np.random.default_rng(13), np.zeros((draws, tokens, dimension))
    x[:, :, :tokens] = equiangular(tokens, start)
    layers = round(100 * time) if time < 1.0 else round(50 * time)
    for _ in range(layers):
        value = np.sqrt(time / layers / dimension) * rng.standard_normal((draws, 1, dimension, dimension))
        layer = kd.Dynamics(kd.softmax(beta), kd.Sphere(), value=value)
        x = kd.simulate(layer, x, 1.0, dt=1.0, integrator=kd.LayerStep()).final
    pairs = (x @ x.mT)[:, *np.triu_indices(tokens, 1)]
    return float(np.sqrt(np.mean((pairs - expected) ** 2)))


@check(
    11,
    source="2604.01978 (bound e^{C T} sqrt(8 T/d log(2 n^2/delta)), C not given)",
    setting="n = 4, rho = 0.3, beta = 1, T = 1/4 in 25 layers, d = 32, 256 (48, 8 draws); slope of its log",
    tolerance=0.15,  # three deviations of the mean square of 48 dependent pairs
)
def closure_order() -> Comparison:
    """Random values: inner products stay within d^{-1/2} of the simplex closure."""
    near, far = _away_from_the_closure(256, 8), _away_from_the_closure(32, 48)
    return compare(-0.5, np.log(near / far) / np.log(8.0), f"deviation {near:.3f} at d = 256")


STRAY = ((0.25, 0.3, 1.0, 4, 32, 1000), (0.25, 0.3, 1.0, 2, 32, 1500), (1.0, 0.0, 2.0, 8, 64, 100))  # ..., d, draws


@check(
    11,
    source="derived (linear noise); setting of 2604.01978",
    setting="(T, rho, beta, n) = (1/4, 0.3, 1, 4), (1/4, 0.3, 1, 2), (1, 0, 2, 8); d = 32, 32, 64; 100 to 1500 draws",
    tolerance=0.06,  # three standard errors, and O(1/d)
    kind="relative",
    slow=True,
)
def closure_constant() -> Comparison:
    """Random values: the constant of that order, sqrt(d) times the deviation of a pair."""
    predicted = [theory.random_value_deviation(time=t, start=r, beta=b, tokens=n) for t, r, b, n, _, _ in STRAY]
    measured = [np.sqrt(d) * _away_from_the_closure(d, draws, t, r, b, n) for t, r, b, n, d, draws in STRAY]
    return compare(predicted, measured)
