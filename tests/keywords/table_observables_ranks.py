"""Ranks of a cloud from numpy's singular values, and its intrinsic dimension."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.stats import entropy

import krause_dynamics as kd
from tests.keywords.row import row

ob = kd.observables
CLOUD = np.random.default_rng(101).standard_normal((9, 4)) * np.array([3.0, 1.0, 0.5, 0.1]) + np.array([2.0, 0, 1, 0])
BATCH = np.random.default_rng(102).standard_normal((3, 5, 7)) + 0.5
COUNTS = np.array([1, 2, 1, 3, 1, 1, 2, 1, 1])


def values(x, share=None, centred=False):
    """Singular values of the rows sqrt(p_i) x_i."""
    share = np.full(len(x), 1 / len(x)) if share is None else share
    x = x - share @ x if centred else x
    return np.linalg.svd(np.sqrt(share)[:, None] * x, compute_uv=False)


RANKS = {
    "singular_values": lambda s: s,
    "effective_rank": lambda s: np.exp(entropy(s)),
    "matrix_entropy": lambda s: entropy(s**2),
    "stable_rank": lambda s: (s**2).sum() / s[0] ** 2,
    "participation_ratio": lambda s: (s**2).sum() ** 2 / (s**4).sum(),
    "numerical_rank": lambda s: (s > 0.05 * s[0]).sum(),
}
OPTIONS = {"numerical_rank": {"tolerance": 0.05}}
CENTRED = {"participation_ratio": True}
# Singular values that centring makes 0 are set to 0 by the package and are rounding in numpy.
CLOSE = {"rtol": 1e-9, "atol": 1e-13}


def points(name, first, second):
    measure, middle = partial(getattr(ob, name), **OPTIONS.get(name, {})), CENTRED.get(name, False)
    np.testing.assert_allclose(measure(first), RANKS[name](values(first, centred=middle)), **CLOSE)
    expected = [RANKS[name](values(one, centred=middle)) for one in second]
    np.testing.assert_allclose(measure(second), expected, **CLOSE)


def log_mass(name, first, second):
    measure, centred = partial(getattr(ob, name), **OPTIONS.get(name, {})), CENTRED.get(name, False)
    share = COUNTS / COUNTS.sum()
    np.testing.assert_allclose(measure(CLOUD, log_mass=first), RANKS[name](values(CLOUD, centred=centred)), **CLOSE)
    np.testing.assert_allclose(measure(CLOUD, log_mass=second), RANKS[name](values(CLOUD, share, centred)), **CLOSE)
    copies = measure(np.repeat(CLOUD, COUNTS, axis=0))
    np.testing.assert_allclose(measure(CLOUD, log_mass=second), copies, **CLOSE)


def centred(name, first, second):
    measure = partial(getattr(ob, name), **OPTIONS.get(name, {}))
    for flag in (first, second):
        np.testing.assert_allclose(measure(CLOUD, centred=flag), RANKS[name](values(CLOUD, centred=flag)), **CLOSE)
    moved = CLOUD + np.array([5.0, -3.0, 0.0, 1.0])  # a shift is seen by the matrix itself, not by the centred one
    np.testing.assert_allclose(measure(moved, centred=True), measure(CLOUD, centred=True), rtol=1e-9)
    np.testing.assert_array_equal(measure(CLOUD), measure(CLOUD, centred=CENTRED.get(name, False)))


for name in RANKS:
    path = f"kd.observables.{name}"
    row(path, "points", CLOUD, BATCH, "its formula from numpy's singular values, for one state or many")(
        partial(points, name)
    )
    row(path, "log_mass", None, np.log(COUNTS), "rows weigh sqrt(p): a mass of 3 is three copies")(
        partial(log_mass, name)
    )
    row(path, "centred", False, True, "singular values of the points, or of the points less their mean")(
        partial(centred, name)
    )


LADDER = np.diag([1.0, 1e-3, 1e-9, 1e-17])


@row(
    "kd.observables.numerical_rank",
    "tolerance",
    None,
    1e-6,
    "counts singular values above tolerance * s_1; by default above rounding",
)
def tolerance(first, second):
    assert ob.numerical_rank(LADDER, tolerance=first) == 3
    assert ob.numerical_rank(LADDER, tolerance=second) == 2
    assert ob.numerical_rank(LADDER, tolerance=1e-2) == 1
    assert ob.numerical_rank(LADDER.astype(np.float32), tolerance=first) == 2


SHEET = np.random.default_rng(103).random((1500, 2)) @ np.array([[1.0, 0.0, 2.0, 1.0], [0.0, 1.0, -1.0, 3.0]])
LINE = np.outer(np.random.default_rng(104).random(1500), [1.0, 2.0, 3.0])


@row("kd.observables.two_nn", "points", SHEET, LINE, "a sheet in four dimensions has two, a line in three has one")
def two_nn(first, second):
    # The slope of 1500 ratios has a standard error of d / sqrt(n) = 3 %; boundaries add as much.
    assert ob.two_nn(first) == pytest.approx(2.0, rel=0.15)
    assert ob.two_nn(second) == pytest.approx(1.0, rel=0.15)
    with pytest.raises(ValueError, match="one state"):
        ob.two_nn(BATCH)


ABSENT = np.where(np.arange(1500) % 2, -np.inf, 0.3)


@row("kd.observables.two_nn", "log_mass", None, ABSENT, "-inf is absence; other masses do not matter")
def two_nn_log_mass(first, second):
    assert ob.two_nn(SHEET, log_mass=second) == ob.two_nn(SHEET[::2])
    assert ob.two_nn(SHEET, log_mass=first) == ob.two_nn(SHEET, log_mass=np.linspace(-1.0, 1.0, 1500))


def fitted(x, discarded):
    """Facco et al.: the slope of -ln(1 - i/n) over ln(r_2 / r_1), without the largest ratios."""
    distance = np.sort(np.linalg.norm(x[:, None] - x, axis=-1), axis=1)
    ratios = np.sort(np.log(distance[:, 2] / distance[:, 1]))
    n = len(x)
    kept = min(n - 1, int(n * (1 - discarded)))
    y = -np.log(1 - np.arange(1, kept + 1) / n)
    return ratios[:kept] @ y / (ratios[:kept] @ ratios[:kept])


@row(
    "kd.observables.two_nn",
    "discarded",
    0.1,
    0.5,
    "that share of the largest ratios is left out of the fit, by the published formula",
)
def discarded(first, second):
    x = SHEET[:300]
    for share in (first, second, 0.0):
        assert ob.two_nn(x, discarded=share) == pytest.approx(fitted(x, share), rel=1e-9)
    assert ob.two_nn(x) == ob.two_nn(x, discarded=first)
    with pytest.raises(ValueError, match="discarded"):
        ob.two_nn(x, discarded=1.0)
