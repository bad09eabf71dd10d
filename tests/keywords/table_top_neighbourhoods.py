"""Neighbourhoods: Within, Window, Grid, Graph, TopK. Who is heard is read off the weights of a flat score."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

POINTS = np.random.default_rng(6).standard_normal((12, 2))


def heard(neighbourhood, x=POINTS, score=None):
    """Booleans (n, m): who hears whom."""
    return kd.weights(kd.Interaction(score or kd.Flat(), neighbourhood), x) > 0


def drift(neighbourhood, x=POINTS):
    return kd.Dynamics(kd.Interaction(kd.Flat(), neighbourhood)).drift(0.0, x)


def offsets(n):
    index = np.arange(n)
    return index[:, None] - index


@row("kd.Within", "radius", 0.7, float("inf"), "admits exactly the pairs at most so far apart; infinity admits all")
def within_radius(first, second):
    distance = np.linalg.norm(POINTS[:, None] - POINTS, axis=-1)
    np.testing.assert_array_equal(heard(kd.Within(first)), distance <= first)
    np.testing.assert_array_equal(heard(kd.Within(second)), heard(kd.Everyone()))
    own = np.where(np.arange(12) % 2, first, second)
    np.testing.assert_array_equal(heard(kd.Within(own)), distance <= own[:, None])
    with pytest.raises(ValueError, match="radius"):
        kd.Within(-first)


@row("kd.Within", "closed", True, False, "decides the pair exactly at the radius (3-4-5 triangle), and no other pair")
def within_closed(first, second):
    x = np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0 + 1e-12]])
    expected = np.array([[True, True, False], [True, True, True], [False, True, True]])
    np.testing.assert_array_equal(heard(kd.Within(5.0, closed=first), x), expected)
    np.testing.assert_array_equal(heard(kd.Within(5.0), x), expected)
    expected[[0, 1], [1, 0]] = False
    np.testing.assert_array_equal(heard(kd.Within(5.0, closed=second), x), expected)


@row("kd.Window", "size", 1, 4, "admits 0 <= i - j < size; a window of one hears itself alone and stands still")
def window_size(first, second):
    np.testing.assert_allclose(drift(kd.Window(first)), 0.0, atol=1e-15)
    away = offsets(12)
    for size in (first, second):
        np.testing.assert_array_equal(heard(kd.Window(size)), (away >= 0) & (away < size))


@row("kd.Window", "two_sided", False, True, "one-sided i - 4 <= j <= i; two-sided |i - j| <= 2, a symmetric relation")
def window_two_sided(first, second):
    away = offsets(12)
    np.testing.assert_array_equal(heard(kd.Window(5)), (away >= 0) & (away <= 4))
    np.testing.assert_array_equal(heard(kd.Window(5, two_sided=first)), (away >= 0) & (away <= 4))
    np.testing.assert_array_equal(heard(kd.Window(5, two_sided=second)), np.abs(away) <= 2)
    with pytest.raises(ValueError, match="odd"):
        kd.Window(4, two_sided=second)


@row(
    "kd.Window",
    "periodic",
    False,
    True,
    "on a ring everyone hears as many, and shifting the particles shifts the drift",
)
def window_periodic(first, second):
    assert heard(kd.Window(5, periodic=first)).sum(axis=1).tolist() == [1, 2, 3, 4] + [5] * 8
    for sided in (False, True):
        ring = kd.Window(5, two_sided=sided, periodic=second)
        assert (heard(ring).sum(axis=1) == 5).all()
        np.testing.assert_allclose(drift(ring, np.roll(POINTS, 3, 0)), np.roll(drift(ring), 3, 0), atol=1e-14)


def places(height, width):
    rows, columns = np.divmod(np.arange(height * width), width)
    return np.stack([rows, columns], axis=1)


def picture(height, width, radius, order):
    gaps = places(height, width)[:, None] - places(height, width)
    return np.linalg.norm(gaps, ord=order, axis=-1) <= radius


@row(
    "kd.Grid",
    "height",
    3,
    4,
    "hears cells of a height x width picture in raster order; 4 x 3 is the transpose of 3 x 4",
)
@row(
    "kd.Grid", "width", 4, 3, "hears cells of a height x width picture in raster order; 3 x 4 is the transpose of 4 x 3"
)
def grid_sides(first, second):
    shapes = ((first, 12 // first), (second, 12 // second))
    seen = [heard(kd.Grid(height, width)) for height, width in shapes]
    for (height, width), admitted in zip(shapes, seen, strict=True):
        np.testing.assert_array_equal(admitted, picture(height, width, 1, np.inf))
    order = np.arange(12).reshape(shapes[0]).T.ravel()  # a cell of the transposed picture by its old number
    np.testing.assert_array_equal(seen[1], seen[0][np.ix_(order, order)])


@row("kd.Grid", "radius", 1, 2, "patches of 3 x 3 and 5 x 5 cells about the middle, shrinking at the edges")
def grid_radius(first, second):
    x = np.random.default_rng(7).standard_normal((35, 2))
    for radius in (first, second):
        admitted = heard(kd.Grid(5, 7, radius), x)
        np.testing.assert_array_equal(admitted, picture(5, 7, radius, np.inf))
        assert admitted[17].sum() == (2 * radius + 1) ** 2
    np.testing.assert_array_equal(heard(kd.Grid(5, 7), x), heard(kd.Grid(5, 7, first), x))


@row("kd.Grid", "metric", "chebyshev", "manhattan", "squares of (2r + 1)^2 cells, or diamonds of 2 r (r + 1) + 1")
def grid_metric(first, second):
    x, radius = np.random.default_rng(7).standard_normal((35, 2)), 2
    square, diamond = (heard(kd.Grid(5, 7, radius, metric), x) for metric in (first, second))
    np.testing.assert_array_equal(square, picture(5, 7, radius, np.inf))
    np.testing.assert_array_equal(diamond, picture(5, 7, radius, 1))
    assert (square[17].sum(), diamond[17].sum()) == (25, 13)
    with pytest.raises(ValueError, match="metric"):
        kd.Grid(5, 7, radius, "euclidean")


@row(
    "kd.Grid",
    "prefix",
    0,
    2,
    "leading tokens hear all and are heard by all; the cells behind them see the picture without them",
)
def grid_prefix(first, second):
    x = np.random.default_rng(7).standard_normal((14, 2))
    np.testing.assert_array_equal(heard(kd.Grid(3, 4, prefix=first)), picture(3, 4, 1, np.inf))
    admitted = heard(kd.Grid(3, 4, prefix=second), x)
    assert admitted[:second].all()
    assert admitted[:, :second].all()
    np.testing.assert_array_equal(admitted[second:, second:], picture(3, 4, 1, np.inf))


CHAIN = np.eye(12, k=1, dtype=bool)
SPARSE = np.random.default_rng(8).random((12, 12)) < 0.3


@row(
    "kd.Graph",
    "adjacency",
    CHAIN,
    SPARSE,
    "query i hears source j exactly where adjacency[i, j]: rows listen, columns speak",
)
def graph(first, second):
    for adjacency in (first, second):
        np.testing.assert_array_equal(heard(kd.Graph(adjacency)), adjacency)
    mean = kd.aggregate(kd.Interaction(kd.Flat(), kd.Graph(first)), POINTS).mean
    np.testing.assert_allclose(mean[:-1], POINTS[1:], atol=1e-15)  # everyone hears the next one
    with pytest.raises(ValueError, match="square"):
        kd.Graph(first[:3])


@row("kd.TopK", "k", 1, 3, "the k largest scores of each row, by numpy's sort; more than there are means all")
def top_k(first, second):
    scores = POINTS @ POINTS.T
    for k in (first, second):
        rank = (-scores).argsort(axis=1).argsort(axis=1)
        np.testing.assert_array_equal(heard(kd.TopK(k), score=kd.DotProduct(1.0)), rank < k)
    np.testing.assert_array_equal(heard(kd.TopK(99), score=kd.DotProduct(1.0)), True)
    with pytest.raises(ValueError, match="k"):
        kd.TopK(0)


@row(
    "kd.TopK",
    "ties",
    "index",
    "keep",
    "equal scores: exactly k with the earlier winning, or all that tie, whatever the order of the particles",
)
def top_k_ties(first, second):
    line = np.array([[0.0], [1.0], [-1.0], [1.0], [5.0]])
    nearest = kd.Gaussian(1.0)
    np.testing.assert_array_equal(heard(kd.TopK(2, ties=first), line, nearest)[0], [1, 1, 0, 0, 0])
    np.testing.assert_array_equal(heard(kd.TopK(2), line, nearest)[0], [1, 1, 0, 0, 0])
    assert (heard(kd.TopK(2, ties=first), line, nearest).sum(axis=1) == 2).all()
    keep = heard(kd.TopK(2, ties=second), line, nearest)
    np.testing.assert_array_equal(keep[0], [1, 1, 1, 1, 0])
    turned = heard(kd.TopK(2, ties=second), line[::-1].copy(), nearest)
    np.testing.assert_array_equal(turned, keep[::-1, ::-1])


PACKED = np.array([0, 4, 4, 12])


@row(
    "kd.Segments",
    "cumulative",
    np.array([0, 12]),
    PACKED,
    "blocks on the diagonal: each sequence moves as it does alone",
)
def segments(first, second):
    np.testing.assert_array_equal(heard(kd.Segments(first)), heard(kd.Everyone()))
    np.testing.assert_array_equal(heard(kd.Segments(second)), (np.arange(12)[:, None] < 4) == (np.arange(12) < 4))
    together = drift(kd.Segments(second) & kd.Window(3))
    alone = [drift(kd.Window(3), POINTS[a:b]) for a, b in ((0, 4), (4, 12))]
    np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-14)
    with pytest.raises(ValueError, match="rise from 0"):
        kd.Segments(second[::-1].copy())
