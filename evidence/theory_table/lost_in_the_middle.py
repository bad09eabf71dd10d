"""Section 9: lost in the middle, kinetic form."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

import krause_dynamics as kd
from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

BETA, DECAY, RING = 1.0, 1.0, 8  # eight tokens at a place are a uniform law up to I_6(1) = 2e-5 in degree 2


@lru_cache(maxsize=8)
def generator(places: int, degree: int) -> np.ndarray:
    """How the displacement of tokens at each place moves those at each other, degree ``degree``: (places, places).

    A place holds a ring of tokens; it hears the rings up to its own, by a bias of pairs, with masses e^{l s}.
    """
    angle = np.tile(2.0 * np.pi * np.arange(RING) / RING, places)
    place = np.repeat(np.arange(places), RING)
    bias = np.where(place[:, None] >= place, 0.0, -np.inf)
    rule = kd.softmax(BETA, pair_bias=bias)
    wave, eta = np.sin(degree * angle), 1e-6
    moved = np.where(np.arange(places)[:, None] == place, eta * wave, 0.0)
    x = np.stack([kd.Circle().from_angles(angle + sign * moved) for sign in (1.0, -1.0)])
    log_mass = DECAY * (place + 1.0) / places
    v = kd.Dynamics(rule, kd.Circle()).drift(0.0, x, log_mass)
    speed = x[..., 0] * v[..., 1] - x[..., 1] * v[..., 0]
    odd = (speed[0] - speed[1]) / (2.0 * eta)  # (moved place, token)
    return 2.0 * np.mean((odd * wave).reshape(places, places, RING), axis=-1).T


def measured_response(places: int, degree: int, time: float) -> np.ndarray:
    """Response of the last place to each, per length, without its own."""
    from scipy.linalg import expm

    response = places * expm(time * generator(places, degree))[-1]
    response[-1] = np.nan
    return response


@check(
    9,
    source="2605.09213; derived",
    setting="SA, circle, beta = 1, lambda = 1, t = 2; degrees 1, 2; s = 1/4, 1/2, 3/4; 12 and 24 places, Richardson",
    tolerance=5e-3,
    kind="relative",
)
def causal_response() -> Comparison:
    """Lost in the middle: response of the last token is the Bessel kernel of the causal graphon."""
    predicted, measured = [], []
    for degree in (1, 2):
        rate = float(theory.mode_growth(degree=degree, beta=BETA, dimension=2))
        s = np.array([0.25, 0.5, 0.75])
        predicted.append(theory.causal_response(positions=s, time=2.0, rate=rate, decay=DECAY))
        coarse, fine = (measured_response(n, degree, 2.0)[(s * n).astype(int) - 1] for n in (12, 24))
        measured.append(2.0 * fine - coarse)
    return compare(np.concatenate(predicted), np.concatenate(measured))


@check(
    9,
    source="2605.09213; derived",
    setting="as above, M = 2; sign of the slope at the last token 20 % before and after the time, 24 places",
    tolerance=0.0,
)
def recency_lost() -> Comparison:
    """Lost in the middle: recency is lost after 2 (1 - e^{-lambda}) sum w a/sum w a^2, primacy stays."""
    time = theory.recency_time(beta=BETA, decay=DECAY, resolution=2.0)
    shares = np.exp(-((np.pi * np.arange(1, 4) / 2.0) ** 2) / 2.0)
    signs = []
    for share in (0.8, 1.2):
        parts = [w * measured_response(24, n, share * time) for n, w in zip((1, 2, 3), shares, strict=True)]
        profile = np.sum(parts, axis=0)
        signs += [np.sign(profile[-2] - profile[-4]), np.sign(profile[0] - profile[-2])]
    return compare([1, 1, -1, 1], signs, f"after t = {time:.2f}")


def _profiles(time: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source positions and retrieval profiles over them, predicted and measured with 24 places and three degrees."""
    s = np.arange(1, 24) / 24.0
    shares = np.exp(-((np.pi * np.arange(1, 4) / 2.0) ** 2) / 2.0)
    measured = sum(w * measured_response(24, n, time)[:-1] for n, w in zip((1, 2, 3), shares, strict=True))
    predicted = theory.retrieval_profile(positions=s, time=time, beta=BETA, decay=DECAY, resolution=2.0)
    return s, predicted, np.asarray(measured)


@check(
    9,
    source="2605.09213",
    setting="as above, half of the proved time, M = 2; minima, their place, both ends higher",
    tolerance=0.05,  # the spacing of 24 places
)
def lost_in_the_middle() -> Comparison:
    """Lost in the middle: the retrieval profile is a U with one minimum."""
    s, predicted, measured = _profiles(0.5 * theory.retrieval_time_bound(beta=BETA, decay=DECAY))

    def shape(profile: np.ndarray) -> list[float]:
        slopes = np.sign(np.diff(profile))
        ends = profile[[0, -1]] > profile.min()
        return [np.count_nonzero(np.diff(slopes) > 0), s[np.argmin(profile)], *ends]

    return compare(shape(predicted), shape(measured), f"minimum at {s[np.argmin(predicted)]:.2f} of the context")
