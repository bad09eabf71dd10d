"""Transport distances against the linear programme of Kantorovich (scipy) and a plain Sinkhorn iteration."""

from __future__ import annotations

import contextlib
import io
from functools import partial

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.spatial.distance import cdist
from scipy.special import logsumexp

import krause_dynamics as kd
from tests.keywords.row import row

ms = kd.measures
RNG = np.random.default_rng(111)
LINE = {"x": RNG.standard_normal(6), "y": RNG.standard_normal(5) + 0.5}
PLANE = {"x": RNG.standard_normal((6, 2)), "y": RNG.standard_normal((5, 2)) + 0.5}
MASS = {"x": np.log(RNG.random(6)), "y": np.log(RNG.random(5))}


def shares(log_mass, n):
    return np.full(n, 1 / n) if log_mass is None else np.exp(log_mass - logsumexp(log_mass))


def kantorovich(costs, a, b):
    """Cheapest plan with marginals a and b: its cost."""
    n, m = costs.shape
    rows, columns = np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))
    return linprog(costs.ravel(), A_eq=np.vstack([rows, columns])[:-1], b_eq=np.concatenate([a, b])[:-1]).fun


def sinkhorn(costs, a, b, epsilon):
    """Cost of the entropic plan, by 2000 alternations of its factors."""
    kernel = np.exp(-(costs - costs.min()) / epsilon)
    v = np.ones(len(b))
    for _ in range(2000):
        u = a / (kernel @ v)
        v = b / (kernel.T @ u)
    return (u[:, None] * kernel * v * costs).sum()


def apart(x, y):
    return cdist(np.reshape(x, (len(x), -1)), np.reshape(y, (len(y), -1)))


def arcs(x, y, period=2 * np.pi):
    gap = np.abs(np.subtract.outer(x, y)) % period
    return np.minimum(gap, period - gap)


# How each distance is called, what the length of a pair is, and which p is the default. On a line every direction of
# `sliced` is the line itself.
KINDS = {
    "wasserstein": (LINE, apart, 1),
    "wasserstein_circle": (LINE, arcs, 1),
    "exact": (PLANE, apart, 2),
    "sliced": ({name: x[:, None] for name, x in LINE.items()}, apart, 2),
    "entropic": (PLANE, apart, 2),
}


def agrees(kind, **changed):
    """The distance with some arguments changed, by the linear programme or by Sinkhorn."""
    points, length, p = KINDS[kind]
    given = {**points, **changed}
    a, b = (shares(given.get(f"{name}_log_mass"), len(given[name])) for name in ("x", "y"))
    p = given.get("p", p)
    costs = length(given["x"], given["y"]) ** p
    if kind == "entropic":
        given, expected = {**given, "epsilon": 0.5}, sinkhorn(costs, a, b, 0.5)
        tolerance = 1e-6  # where POT stops
    else:
        expected, tolerance = kantorovich(costs, a, b), 1e-9
    assert getattr(ms, kind)(**given) == pytest.approx(expected ** (1 / p), rel=tolerance)


def check(kind, name, first, second):
    if kind in ("exact", "entropic"):
        pytest.importorskip("ot")
    for value in (first, second):
        agrees(kind, **{name: value})
    agrees(kind)


for kind, (points, _, p) in KINDS.items():
    path, by = f"kd.measures.{kind}", "Sinkhorn" if kind == "entropic" else "the linear programme"
    for name in ("x", "y"):
        row(path, name, points[name], points[name] ** 2, f"the distance from other points, by {by}")(
            partial(check, kind, name)
        )
        row(path, f"{name}_log_mass", None, MASS[name], f"equal shares, or those of the masses, by {by}")(
            partial(check, kind, f"{name}_log_mass")
        )
    row(path, "p", p, 3 - p, f"exponent of the lengths, {p} by default, by {by}")(partial(check, kind, "p"))


@row(
    "kd.measures.wasserstein_circle",
    "period",
    2 * np.pi,
    1.0,
    "arcs are counted modulo the period, by the linear programme",
)
def period(first, second):
    for length in (first, second):
        x, y = LINE["x"], LINE["y"]
        costs = arcs(x, y, length)
        expected = kantorovich(costs, shares(None, 6), shares(None, 5))
        assert ms.wasserstein_circle(x, y, period=length) == pytest.approx(expected, rel=1e-9)
        turned = ms.wasserstein_circle(x + 3 * length, y, period=length)
        assert turned == pytest.approx(expected, rel=1e-9)
    assert ms.wasserstein_circle(x, y) == ms.wasserstein_circle(x, y, period=first)


@row(
    "kd.measures.entropic",
    "epsilon",
    1e-2,
    1e4,
    "towards 0 the exact distance, towards infinity that of the product measure",
)
def epsilon(first, second):
    pytest.importorskip("ot")
    costs = apart(**PLANE) ** 2
    assert ms.entropic(**PLANE, epsilon=first) == pytest.approx(ms.exact(**PLANE), rel=1e-2)
    # The plan differs from the product by cost/epsilon = 1e-3.
    assert ms.entropic(**PLANE, epsilon=second) == pytest.approx(np.sqrt(costs.mean()), rel=1e-3)
    with pytest.raises(ValueError, match="epsilon"):
        ms.entropic(**PLANE, epsilon=0.0)


def shifted(directions, seed):
    """Sliced distance of a cloud in the plane to itself moved by 1: the root of the mean of cos^2, 1/sqrt(2)."""
    x = PLANE["x"]
    return ms.sliced(x, x + np.array([0.6, 0.8]), directions=directions, rng=seed)


def standard_error(directions):
    """cos^2 has mean 1/2 and standard deviation 1/sqrt(8); the root halves the relative error."""
    return np.sqrt(0.5) * np.sqrt(0.5) / np.sqrt(directions) / 2


@row(
    "kd.measures.sliced",
    "directions",
    50,
    1000,
    "a shift by 1 is 1/sqrt(2) apart, to five standard errors of so many directions",
)
def directions(first, second):
    for count in (first, second):
        values = np.array([shifted(count, seed) for seed in range(30)])
        assert abs(values.mean() - np.sqrt(0.5)) < 5 * standard_error(count) / np.sqrt(30)
        # The standard deviation of 30 values is known to 13 %; three of those.
        assert values.std() == pytest.approx(standard_error(count), rel=0.4)
    x = PLANE["x"]
    assert ms.sliced(x, x + 1.0) == ms.sliced(x, x + 1.0, directions=first)


@row(
    "kd.measures.sliced",
    "rng",
    0,
    5,
    "one seed one distance, as its generator gives; another seed another sample of directions",
)
def rng(first, second):
    for seed in (first, second):
        assert shifted(50, np.random.default_rng(seed)) == shifted(50, seed)
        assert abs(shifted(50, seed) - np.sqrt(0.5)) < 5 * standard_error(50)
    assert shifted(50, first) != shifted(50, second)
    x = PLANE["x"]
    assert ms.sliced(x, x + 1.0) == ms.sliced(x, x + 1.0, rng=first)


MEAN = kd.Dynamics(kd.Interaction(kd.Flat()))
RUN = kd.simulate(MEAN, LINE["x"], 1.0, dt=0.25)
FAR = kd.simulate(MEAN, LINE["x"] + 3.0, 1.0, dt=0.25)


@row(
    "kd.measures.along",
    "first",
    RUN,
    RUN.positions,
    "a run, or its positions: the same run 3 away is 3 away at each time",
)
def along_first(first, second):
    for run in (first, second):
        np.testing.assert_allclose(ms.along(run, FAR), np.full(5, 3.0), rtol=1e-12)


@row("kd.measures.along", "second", FAR, FAR[0], "a run 3 away at each time, or one state to which all are compared")
def along_second(first, second):
    np.testing.assert_allclose(ms.along(RUN, first), np.full(5, 3.0), rtol=1e-12)
    np.testing.assert_allclose(ms.along(RUN, first.positions), np.full(5, 3.0), rtol=1e-12)
    expected = [np.abs(np.sort(x[:, 0]) - np.sort(second[:, 0])).mean() for x in RUN.positions]
    np.testing.assert_allclose(ms.along(RUN, second), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="times"):
        ms.along(RUN, kd.simulate(MEAN, LINE["x"], 1.0, dt=0.2))


@row("kd.measures.along", "distance", ms.wasserstein, ms.sliced, "that distance at each time")
def along_distance(first, second):
    other = FAR.positions * np.array([1.0, 2.0, 1.5, 1.0, 0.5])[:, None, None]
    for distance in (first, second):
        expected = [distance(x, y) for x, y in zip(RUN.positions, other, strict=True)]
        np.testing.assert_allclose(ms.along(RUN, other, distance), expected, rtol=1e-14)
    np.testing.assert_array_equal(ms.along(RUN, other), ms.along(RUN, other, first))


@row(
    "kd.measures.along",
    "options",
    {},
    {"p": 2},
    "reach the distance: p = 2 of a contraction is the root of mean squares, by sorting",
)
def along_options(first, second):
    other = 2 * RUN.positions
    for options, p in ((first, 1), (second, 2)):
        expected = (np.abs(RUN.positions[..., 0]) ** p).mean(axis=1) ** (1 / p)
        np.testing.assert_allclose(ms.along(RUN, other, **options), expected, rtol=1e-12)


def contraction(p):
    """Distance between successive states mean + f_k (x - mean) on a line: |f_k - f_(k+1)| times a moment."""
    x = RUN.positions[..., 0]
    return (np.abs(np.diff(x, axis=0)) ** p).mean(axis=1) ** (1 / p)


@row(
    "kd.measures.between_layers",
    "run",
    RUN,
    RUN.positions,
    "a run, or its positions: order is kept on a line, so each moves to its next place",
)
def layers_run(first, second):
    for run in (first, second):
        np.testing.assert_allclose(ms.between_layers(run), contraction(2), rtol=1e-12)


@row(
    "kd.measures.between_layers",
    "distance",
    ms.sliced,
    ms.wasserstein,
    "that distance: sliced of exponent 2 by default, or of exponent 1",
)
def layers_distance(first, second):
    np.testing.assert_allclose(ms.between_layers(RUN, first), contraction(2), rtol=1e-12)
    np.testing.assert_allclose(ms.between_layers(RUN, second), contraction(1), rtol=1e-12)
    np.testing.assert_array_equal(ms.between_layers(RUN), ms.between_layers(RUN, first))


@row(
    "kd.measures.between_layers",
    "options",
    {},
    {"p": 1},
    "reach the distance: mean moves instead of their mean squares",
)
def layers_options(first, second):
    np.testing.assert_allclose(ms.between_layers(RUN, **first), contraction(2), rtol=1e-12)
    np.testing.assert_allclose(ms.between_layers(RUN, **second), contraction(1), rtol=1e-12)


@row("kd.measures.entropic", "progress", False, True, "told of iterations, of which the answer knows nothing")
def entropic_progress(first, second):
    pytest.importorskip("ot")
    told = []
    alone = ms.entropic(**PLANE, epsilon=1e-2, progress=first)
    assert ms.entropic(**PLANE, epsilon=1e-2, progress=lambda *done: told.append(done)) == alone
    assert told[0] == (0, 20_000)
    assert told[-1] == (20_000, 20_000)
    with contextlib.redirect_stderr(io.StringIO()) as drawn:
        assert ms.entropic(**PLANE, epsilon=1e-2, progress=second) == alone
    assert "100%" in drawn.getvalue()
