"""Where a Transformer normalises decides how fast tokens meet: equiangular tokens under seven schemes.

With x = r y, equal radii r and equal inner products rho = <y_i, y_j>, the scheme divides the speed of angles by s:

    rho' = (equiangular rate of SA at rho)/s,    A = a y_i + ...,  <y_i, A> = rho + (1 - rho) a,
    |A|^2 = rho + (1 - rho)(a^2 + (1 - a)^2/(n - 1)),   a the self weight,

with s and r' of `kd.layer_normed`. Source: arXiv 2510.22026; the equiangular reduction is derived.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from krause_dynamics._arguments import POSITIVE, ArrayLike, Real, Reals, Whole, Word, within
from krause_dynamics.theory._formula import formula
from krause_dynamics.theory._quadrature import at_times

Scheme = Literal["post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix"]
SCHEMES = Word(("post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix"))
RISING = Reals(0.0, ndim=1, rising=True)


@formula(
    times=RISING,
    start=Real(-1.0, 1.0, "()"),
    beta=Real(),
    tokens=Whole(2),
    scheme=SCHEMES,
    rate=POSITIVE,
    switch=POSITIVE,
    radius=POSITIVE,
)
def layer_norm_equiangular(
    *,
    times: ArrayLike,
    start: float,
    beta: float,
    tokens: int,
    scheme: Scheme,
    rate: float = 1.0,
    switch: float = 1.0,
    radius: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Inner product and radius of equiangular tokens under a normalisation scheme.

    Args:
        times: increasing times >= 0, shape (t,).
        start: initial inner product in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: number of tokens n.
        scheme: a word of `kd.layer_normed`.
        rate: alpha of nGPT.
        switch: when Mix-LN turns from Post to Pre.
        radius: initial norm of the tokens (not a radius of hearing), unit: position, where it matters: pre, peri,
            pre_scaled, mix.

    Returns:
        (rho, r), each of shape (t,), relative error about 1e-10.

    Source: arXiv 2510.22026; reduction derived.

    Examples:
        >>> import numpy as np
        >>> from krause_dynamics import theory
        >>> answer = theory.layer_norm_equiangular(times=[0.0, 2.0], start=0.1, beta=2.0, tokens=4, scheme="pre")
        >>> [np.round(part, 6).tolist() for part in answer]
        [[0.1, 0.5583], [1.0, 2.429528]]
    """
    n, t = tokens, times
    within("start", start, -1.0 / (n - 1), 1.0)
    initial = [np.log1p((n - 1) * start) - np.log1p(-start), radius, 0.0]
    if scheme == "mix":
        early = t[t < switch]
        first = at_times(_rates("post", n, beta, rate), np.append(early, switch), initial, atol=1e-12)
        late = np.concatenate([[0.0], t[t >= switch] - switch])
        second = at_times(_rates("pre", n, beta, rate), late, list(first[:, -1]), atol=1e-12)
        states = np.concatenate([first[:, :-1], second[:, 1:]], axis=1)
    else:
        states = at_times(_rates(scheme, n, beta, rate), t, initial, atol=1e-12)
    return 1.0 - n / (np.exp(states[0]) + (n - 1)), states[1]


def _rates(scheme: str, n: int, beta: float, rate: float) -> Callable[[float, Any], list[float]]:
    """Derivatives of (y, r, t); y = log((1 + (n-1) rho)/(1 - rho)) keeps the relative accuracy of 1 - rho."""

    def rates(_: float, state: np.ndarray) -> list[float]:
        rho, r, t = 1.0 - n / (np.exp(state[0]) + (n - 1)), state[1], state[2]
        others = (n - 1) * np.exp(-np.logaddexp(beta * (1.0 - rho), np.log(n - 1)))
        along = 1.0 - others * (1.0 - rho)
        length = np.sqrt(rho + (1.0 - rho) * ((1.0 - others) ** 2 + others**2 / (n - 1)))
        fading = np.sqrt(t + 1.0)
        slowness, growth = {
            "post": (1.0, 0.0),
            "pre": (r, along),
            "peri": (r * length, along / length),
            "ngpt": (length / rate, 0.0),
            "scaled": (fading, 0.0),
            "pre_scaled": (r * fading, along / fading),
        }[scheme]
        return [2.0 * n * others / (n - 1) / slowness, growth, 1.0]

    return rates


@formula(times=Reals(0.0, ends="()"), scheme=SCHEMES, rate=POSITIVE)
def layer_norm_late_gap(*, times: ArrayLike, scheme: Scheme, rate: float = 1.0) -> np.ndarray:
    r"""Leading term of log(1 - rho) at late times, up to a constant, near consensus and for any temperature.

    -2 t (post), -2 log t (pre, peri, mix), -4 sqrt(t) (scaled), -2 rate t (ngpt), -log t (pre_scaled).

    Args:
        times: t > 0, any shape.
        scheme: a word of `kd.layer_normed`.
        rate: alpha of nGPT.

    Source: arXiv 2510.22026 for the first six; pre_scaled (LN-scaling as it is used) is derived: r ~ 2 sqrt(t).

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.layer_norm_late_gap(times=[1.0, 4.0], scheme="post").round(6).tolist()
        [-2.0, -8.0]
    """
    laws = {"post": -2.0 * times, "scaled": -4.0 * np.sqrt(times), "ngpt": -2.0 * rate * times}
    return laws.get(scheme, (-1.0 if scheme == "pre_scaled" else -2.0) * np.log(times))


@formula(similarity=Real(-1.0, 1.0, "()"), beta=Real(), tokens=Whole(2), scheme=SCHEMES, rate=POSITIVE)
def layer_norm_early_gain(*, similarity: float, beta: float, tokens: int, scheme: Scheme, rate: float = 1.0) -> float:
    r"""How much faster than under Post-LN angles move at t = 0, r = 1: 1/|A| for peri, rate/|A| for ngpt, else 1.

    |A|^2 = rho + (1 - rho)(a^2 + (1-a)^2/(n-1)) is small for random tokens: orthogonal ones at beta = 0 gain sqrt(n).

    Args:
        similarity: initial inner product rho in (-1/(n-1), 1).
        beta: inverse temperature.
        tokens: n.
        scheme: a word of `kd.layer_normed`.
        rate: alpha of nGPT.

    Source: arXiv 2510.22026; the equiangular value is derived.

    Examples:
        >>> from krause_dynamics import theory
        >>> theory.layer_norm_early_gain(similarity=0.0, beta=0.0, tokens=64, scheme="peri")
        8.0
    """
    n, rho = tokens, within("similarity", similarity, -1.0 / (tokens - 1), 1.0)
    others = (n - 1) * np.exp(-np.logaddexp(beta * (1.0 - rho), np.log(n - 1)))
    length = np.sqrt(rho + (1.0 - rho) * ((1.0 - others) ** 2 + others**2 / (n - 1)))
    return float({"peri": 1.0 / length, "ngpt": rate / length}.get(scheme, 1.0))
