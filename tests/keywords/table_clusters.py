"""Rows of `kd.clusters`: partitions against connected components of all distances by scipy, radii by known gaps."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.cluster import hierarchy
from scipy.sparse.csgraph import connected_components

import krause_dynamics as kd
from krause_dynamics import clusters
from tests.keywords.against import against
from tests.keywords.row import row

RNG = np.random.default_rng(11)
PLANE, OTHER = RNG.normal(size=(2, 24, 2))
SPACE = 0.15 * RNG.normal(size=(30, 12))  # many coordinates take another way through the package
ABSENT = np.where(np.arange(24) % 3 == 0, -np.inf, np.linspace(-1, 1, 24))


def distances(points, metric, period):
    """All distances of one state, (n, n)."""
    x = points if metric == "euclidean" else points / np.linalg.norm(points, axis=1, keepdims=True)
    if metric == "cosine":
        return 1 - x @ x.T
    gap = x[:, None] - x
    gap = gap if period is None else (gap + period / 2) % period - period / 2
    return np.linalg.norm(gap, axis=-1)


def components(points, radius, metric="euclidean", log_mass=None, closed=True, period=None):
    """Labels by size, then by first member; -1 without mass."""
    points = np.asarray(points)
    there = np.ones(len(points), bool) if log_mass is None else np.asarray(log_mass) > -np.inf
    gaps = distances(points[there], metric, period)
    _, found = connected_components(gaps <= radius if closed else gaps < radius)
    first = [np.flatnonzero(found == label)[0] for label in range(found.max() + 1)]
    order = sorted(range(found.max() + 1), key=lambda label: (-np.sum(found == label), first[label]))
    labels = np.full(len(points), -1)
    labels[there] = np.argsort(order)[found]
    return labels


LATTICE = np.array([[0.0, 0], [0.5, 0], [0.5, 0.5], [2, 0], [2, 0.75], [4, 4], [4.25, 4]])  # exact in floats

FIND = {
    "points": (PLANE, SPACE), "radius": (0.6, 0.3), "metric": ("euclidean", "chord"), "period": (None, 2.7),
}  # fmt: skip


@against(
    "kd.clusters.find",
    "connected components of the graph of all distances by scipy, largest first",
    read=lambda found: found.labels,
    **FIND,
)
def labels_by_scipy(points, radius, metric, period):
    return components(points, radius, metric, period=period)


@row("kd.clusters.find", "closed", True, False, "the pairs exactly at the radius are joined, or not")
def _(first, second):
    for closed, count in ((first, 4), (second, 6)):
        for points in (LATTICE, np.pad(LATTICE, ((0, 0), (0, 10)))):  # few and many coordinates
            found = clusters.find(points, 0.5, closed=closed)
            assert found.labels.tolist() == components(LATTICE, 0.5, closed=closed).tolist()
            assert found.count == count


@row("kd.clusters.find", "log_mass", None, ABSENT, "shares are sums of masses, places their means; none, none")
def _(first, second):
    doubled = np.log([2.0] + [1.0] * 23)
    twice = clusters.find(np.vstack([PLANE, PLANE[:1]]), 0.6, log_mass=first)
    heavy = clusters.find(PLANE, 0.6, log_mass=doubled)
    np.testing.assert_allclose(np.sort(heavy.masses), np.sort(twice.masses), rtol=1e-13)
    np.testing.assert_allclose(np.sort(heavy.positions, axis=0), np.sort(twice.positions, axis=0), rtol=1e-12)
    found = clusters.find(PLANE, 0.6, log_mass=second)
    assert found.labels.tolist() == components(PLANE, 0.6, log_mass=second).tolist()
    mass = np.exp(second) / np.exp(second).sum()
    for label, (share, place) in enumerate(zip(found.masses, found.positions, strict=True)):
        here = found.labels == label
        assert share == pytest.approx(mass[here].sum(), rel=1e-13)
        np.testing.assert_allclose(place, mass[here] @ PLANE[here] / mass[here].sum(), rtol=1e-12)


def statistics(points, radius, metric, log_mass, period):
    """Number of clusters, 1 / sum of squared shares, groups, share of single points, at one radius by scipy."""
    labels = components(points, radius, metric, log_mass, period=period)
    mass = np.ones(len(labels)) if log_mass is None else np.exp(log_mass)
    share = np.bincount(labels[labels >= 0], mass[labels >= 0]) / mass.sum()
    sizes = np.bincount(labels[labels >= 0])
    return [len(sizes), 1 / np.sum(share**2), np.sum(sizes >= 2), share[sizes == 1].sum()]


def columns(found):
    return np.stack([found.count, found.effective_number, found.groups, found.noise_share], axis=-1)


@against(
    "kd.clusters.curve",
    "numbers and shares of the components at each radius by scipy",
    atol=1e-14,  # a share of single points may be zero
    read=columns,
    points=(PLANE, SPACE), radii=([0.2, 0.6], [0.4, 0.0, 5.0]), metric=("euclidean", "cosine"), period=(None, 3.0),
)  # fmt: skip
def curve_by_scipy(points, radii, metric, period):
    return [statistics(points, radius, metric, None, period) for radius in radii]


@row(
    "kd.clusters.curve", "log_mass", None, ABSENT, "shares of the mass at each radius by scipy; absent points are none"
)
def _(first, second):
    for log_mass in (first, second):
        expected = [statistics(PLANE, radius, "euclidean", log_mass, None) for radius in (0.2, 0.6)]
        np.testing.assert_allclose(columns(clusters.curve(PLANE, [0.2, 0.6], log_mass=log_mass)), expected, rtol=1e-12)
    whole = clusters.curve(PLANE)  # all radii at which something merges
    assert whole.count.tolist() == [24, *range(23, 0, -1)]
    for radius, count in zip(whole.radii, whole.count, strict=True):
        assert components(PLANE, radius * (1 + 1e-12)).max() + 1 == count


RUN = np.stack([PLANE, OTHER])


@against(
    "kd.clusters.over_time",
    "numbers and shares of the components of each state at each radius by scipy",
    atol=1e-14,
    read=columns,
    positions=(RUN, RUN[::-1]), radii=([0.2, 0.6], [0.4]), metric=("euclidean", "chord"),
    log_mass=(None, ABSENT), period=(None, 3.0),
)  # fmt: skip
def history_by_scipy(positions, radii, metric, log_mass, period):
    return [[statistics(x, radius, metric, log_mass, period) for radius in radii] for x in positions]


@against(
    "kd.clusters.labels",
    "components of each state by scipy, largest first",
    positions=(RUN, kd.Trajectory(np.arange(2.0), RUN, log_mass=ABSENT)), radius=(0.6, 0.3),
    metric=("euclidean", "chord"), log_mass=(None, np.stack([ABSENT, 0 * OTHER[:, 0]])), period=(None, 3.0),
)  # fmt: skip
def labels_of_states(positions, radius, metric, log_mass, period):
    if isinstance(positions, kd.Trajectory):
        positions, log_mass = positions.positions, positions.log_mass
    masses = [None, None] if log_mass is None else np.broadcast_to(log_mass, positions.shape[:2])
    return [components(x, radius, metric, mass, period=period) for x, mass in zip(positions, masses, strict=True)]


GAPS = np.array([0.0, 1.0, 2.5, 40.0, 41.2, 90.0])  # merges at 1, 1.2, 1.5, 37.5, 48.8


@row(
    "kd.clusters.choose_radius",
    "curve",
    GAPS,
    np.array([0.0, 1.0, 2.0, 30.0]),
    "between the radii of the largest ratio",
)
def _(first, second):
    for points, low, high, count in ((first, 1.5, 37.5, 3), (second, 1.0, 28.0, 2)):
        choice = clusters.choose_radius(clusters.curve(points))
        assert (choice.low, choice.high, choice.count) == (low, high, count)
        assert choice.radius == pytest.approx(np.sqrt(low * high))
        assert clusters.find(points, choice.radius).count == count


@row("kd.clusters.choose_radius", "floor", None, 1e-3, "gaps below it count for nothing: near pairs are equal points")
def _(first, second):
    curve = clusters.curve(np.concatenate([GAPS, GAPS[:1] + 1e-9]))
    assert clusters.choose_radius(curve, floor=first).low == pytest.approx(1e-9)
    choice = clusters.choose_radius(curve, floor=second)
    assert (choice.low, choice.high, choice.count) == (1e-3, pytest.approx(1.0, rel=1e-8), 6)
    assert clusters.choose_radius(curve, floor=0.5).low == 1.5
    with pytest.raises(ValueError, match="ceiling must be above floor"):
        clusters.choose_radius(curve, floor=second, ceiling=second)


@row("kd.clusters.choose_radius", "ceiling", None, 5000.0, "the search ends there: one cluster can win, or gaps be cut")
def _(first, second):
    curve = clusters.curve(GAPS)
    assert clusters.choose_radius(curve, ceiling=first).count == 3
    one = clusters.choose_radius(curve, ceiling=second)
    assert (one.count, one.low, one.high) == (1, 48.8, 5000.0)
    cut = clusters.choose_radius(curve, ceiling=2.0)
    assert (cut.low, cut.high, cut.count) == (1.5, 2.0, 3)


def lives(curve, members):
    """Sorted (formation, absorption, size) of the components of so many points."""
    found = clusters.persistence(curve, members)
    return sorted(zip(found.formation.tolist(), found.absorption.tolist(), found.sizes.tolist(), strict=True))


# Gaps that floats hold exactly: pairs form at 1 and 2, meet at 7, and the point on its own joins at 80.
PAIRS = np.array([0.0, 1.0, 8.0, 10.0, 90.0])


@row(
    "kd.clusters.linkage", "curve", 0, 1, "the matrix that scipy makes of all distances; its cophenetic ones with ties"
)
def _(first, second):
    for seed in (first, second):
        points = np.random.default_rng(seed).normal(size=(40, 3))
        ours = clusters.linkage(clusters.curve(points))
        np.testing.assert_allclose(ours, hierarchy.linkage(points, "single"), rtol=1e-12)
    ours, known = clusters.linkage(clusters.curve(PAIRS[:4])), hierarchy.linkage(PAIRS[:4, None], "single")
    np.testing.assert_array_equal(hierarchy.cophenet(ours), hierarchy.cophenet(known))
    assert clusters.linkage(clusters.curve(PAIRS[:1])).shape == (0, 4)


@row(
    "kd.clusters.persistence", "curve", PAIRS, PAIRS[:4] * 2, "the younger pair ends where it meets the elder, by hand"
)
def _(first, second):
    assert lives(clusters.curve(first), 2) == [(1.0, np.inf, 5), (2.0, 7.0, 2)]
    assert lives(clusters.curve(second), 2) == [(2.0, np.inf, 4), (4.0, 14.0, 2)]


@row(
    "kd.clusters.persistence",
    "members",
    1,
    2,
    "components of at least so many points, by hand; as many live as clusters",
)
def _(first, second):
    curve = clusters.curve(PAIRS)
    points = [(0.0, 1.0, 1), (0.0, 2.0, 1), (0.0, 7.0, 2), (0.0, 80.0, 1), (0.0, np.inf, 5)]
    assert lives(curve, first) == points
    assert lives(curve, second) == [(1.0, np.inf, 5), (2.0, 7.0, 2)]
    assert lives(curve, 5) == [(80.0, np.inf, 5)]
    for radius in (0.5, 1.0, 5.0, 7.0, 100.0):
        found = clusters.find(PAIRS, radius)
        assert clusters.persistence(curve, first).alive(radius) == found.count
        assert clusters.persistence(curve, second).alive(radius) == found.groups
