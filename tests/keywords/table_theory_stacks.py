"""Rows of `kd.theory`: what a stack of causal layers hears, against products of matrices in float64."""

from __future__ import annotations

import numpy as np
import pytest

from krause_dynamics import theory
from tests.keywords.against import against
from tests.keywords.row import row


def stack(tokens, window, layers, residual):
    """Last row of the product of relaxed layers that weigh the last ``window`` tokens alike."""
    place = np.arange(tokens)
    lag = place[:, None] - place
    admitted = (lag >= 0) & (lag < window)
    layer = residual * np.eye(tokens) + (1 - residual) * admitted / admitted.sum(axis=1, keepdims=True)
    return np.linalg.matrix_power(layer, layers)[-1]


@against(
    "kd.theory.stack_influence",
    "the last row of a power of the banded matrix, its lags upwards, far from the start",
    atol=1e-15,
    layers=(3, 5), window=(4, 7), residual=(0.5, 0.0),
)  # fmt: skip
def lags_of_power(layers, window, residual):
    return stack(layers * (window - 1) + window, window, layers, residual)[::-1][: layers * (window - 1) + 1]


@against(
    "kd.theory.stack_reach",
    "mean, deviation and end of the last row of a power of the banded matrix",
    layers=(3, 5), window=(4, 7), residual=(0.5, 0.2),
)  # fmt: skip
def moments_of_power(layers, window, residual):
    law = lags_of_power(layers, window, residual)
    lags = np.arange(len(law))
    return law @ lags, np.sqrt(law @ lags**2 - (law @ lags) ** 2), np.flatnonzero(law)[-1]


@against(
    "kd.theory.causal_influence",
    "the last row of a power of the matrix of causal means of 1500 tokens, per length",
    rtol=1e-2,  # 1/n at x = 0.2
    read=lambda answer: [*answer[0], answer[1]],
    positions=([0.2, 0.5], [0.3, 0.7]), layers=(3, 4), residual=(0.5, 0.3),
)  # fmt: skip
def density_of_power(positions, layers, residual, tokens=1500):
    law = stack(tokens, tokens, layers, residual)
    return [*(tokens * law[(np.asarray(positions) * tokens).astype(int)]), law[-1]]


for place, (name, other) in enumerate((("mean", 1.0), ("deviation", 2.0), ("horizon", 3))):

    @row("kd.theory.StackReach", name, 0, other, "stands in its place, and is the moment of the power")
    def field(first, second, place=place, name=name):
        answer = theory.stack_reach(layers=3, window=4, residual=0.5)
        for value in (first, second):
            changed = answer._replace(**{name: value})
            assert (changed[place], getattr(changed, name)) == (value, value)
        assert answer[place] == getattr(answer, name) == pytest.approx(moments_of_power(3, 4, 0.5)[place])
