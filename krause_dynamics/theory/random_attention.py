"""Spectrum of attention with independent Gaussian scores: one direction stands above a bulk of width n^{-1/2}."""

from __future__ import annotations

import math

from krause_dynamics._arguments import Real
from krause_dynamics.theory._formula import formula


@formula(tokens=Real(2.0), deviation=Real(0.0, 20.0, "[]"))
def random_attention_bulk(*, tokens: float, deviation: float) -> float:
    r"""Second singular value of softmax attention of n x n scores s g: 2 sqrt((e^{s^2} - 1)/n); the first is near 1.

    Weights are e^{s g}/(n e^{s^2/2}) up to fluctuations of the row sums; their noise has standard deviation
    sqrt(e^{s^2} - 1)/n, and a noise matrix has norm 2 sqrt(n) times that. A layer keeps the mean token and shrinks all
    else by this factor: rank collapses in width.

    Args:
        tokens: n, large.
        deviation: s of the scores; corrections grow with the fourth moment, e^{6 s^2}/n.

    Source: arXiv 2410.07799 (spectral gap); Bai-Yin law.

    Examples:
        >>> from krause_dynamics import theory
        >>> round(theory.random_attention_bulk(tokens=300, deviation=0.6), 6)
        0.076011
    """
    return 2.0 * math.sqrt(math.expm1(deviation**2) / tokens)
