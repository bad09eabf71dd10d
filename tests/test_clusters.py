"""Components and the curve K(radius) against scipy's graph components and single linkage, and against themselves."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.cluster.hierarchy import linkage
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import pdist, squareform

import krause_dynamics as kd
from krause_dynamics import clusters
from krause_dynamics.analysis.clusters import _points, partition

METRICS = ("euclidean", "chord", "cosine")


def distances(points: np.ndarray, metric: str) -> np.ndarray:
    """All distances by scipy, in float64."""
    points = points.astype(np.float64)
    if metric == "euclidean":
        return squareform(pdist(points))
    cosine = squareform(pdist(points, "cosine"))
    return cosine if metric == "cosine" else np.sqrt(2 * np.maximum(cosine, 0))


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def blobs(n: int, d: int, dtype: str = "float64", seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((5, d))
    return (centres[rng.integers(0, 5, n)] + 0.05 * rng.standard_normal((n, d))).astype(dtype)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("d", "dtype"), [(1, "float64"), (3, "float32"), (200, "float32")])
def test_components_and_curve_against_scipy(metric: str, d: int, dtype: str) -> None:
    points = blobs(120, d, dtype) + 0.1
    exact = distances(points, metric)
    # Radii in the middle of the gaps between tree edges, where rounding cannot decide.
    edges = np.sort(linkage(squareform(exact, checks=False), "single")[:, 2])
    curve = clusters.curve(points, metric=metric)
    # pdist and the unit vectors (kept in the dtype of the points) round differently; sqrt doubles it near 0
    tolerance = {"float32": 1e-3, "float64": 1e-7}[dtype] if metric == "chord" else 1e-6
    np.testing.assert_allclose(curve.lengths, edges, rtol=1e-5, atol=tolerance)
    wide = np.flatnonzero(np.diff(edges) > 4 * tolerance)[:: max(1, len(edges) // 12)]
    for radius in [*(edges[wide] + edges[wide + 1]) / 2, 2 * edges[-1]]:
        count, labels = connected_components(exact <= radius)
        found = clusters.find(points, radius, metric=metric)
        assert found.count == count
        assert same_partition(found.labels, labels)


def test_two_blobs_and_one_stray_point() -> None:
    points = np.array([[0.0, 0], [0, 1], [5, 5], [5, 6], [5, 7], [20, 20]])
    found = clusters.find(points, 1.0)
    assert found.sizes.tolist() == [3, 2, 1]
    assert found.labels.tolist() == [1, 1, 0, 0, 0, 2]
    np.testing.assert_allclose(found.masses, [1 / 2, 1 / 3, 1 / 6])
    np.testing.assert_allclose(found.positions, [[5, 6], [0, 0.5], [20, 20]])
    assert (found.count, found.groups) == (3, 2)
    assert found.effective_number == pytest.approx(1 / (1 / 4 + 1 / 9 + 1 / 36))
    assert found.noise_share == pytest.approx(1 / 6)


def test_a_chain_is_one_component() -> None:
    angle = np.linspace(0, 2 * math.pi, 50, endpoint=False)
    ring = np.column_stack([np.cos(angle), np.sin(angle)])
    step = 2 * math.sin(math.pi / 50)
    assert clusters.find(ring, 1.0001 * step).count == 1
    assert clusters.find(ring, 0.9999 * step).count == 50


@pytest.mark.parametrize("dimension", [1, 2, 40])
def test_closed_and_open_ball_on_a_lattice(dimension: int) -> None:
    """Gaps equal to the radius: the expanded form of the distance would decide by rounding, direct differences not."""
    points = np.zeros((30, dimension), np.float32)
    points[:, -1] = 1000 + 3 * np.arange(30)
    assert clusters.find(points, 3.0).count == 1
    assert clusters.find(points, 3.0, closed=False).count == 30
    curve = clusters.curve(points, [2.9, 3.0])
    assert curve.count.tolist() == [30, 1]
    assert curve.at(3.0, closed=False).count == 30


def test_radius_zero_joins_equal_points() -> None:
    points = np.repeat(blobs(10, 6), 3, axis=0)
    assert clusters.find(points, 0.0).count == 10
    assert clusters.find(points, 0.0, closed=False).count == 30
    assert clusters.curve(points).count[0] == 10


@given(
    npst.arrays(np.float64, npst.array_shapes(min_dims=2, max_dims=2, max_side=12), elements=st.integers(-6, 6)).map(
        lambda x: np.tile(x, 4) if x.shape[1] > 2 else x  # above 8 dimensions the two may go different ways
    ),
    st.sampled_from(METRICS),
    st.sampled_from([0, _points.SMALL]),
)
def test_curve_and_find_agree_at_every_edge(points: np.ndarray, metric: str, small: int) -> None:
    """Also exactly at the merge radii, both balls: the two forms round alike."""
    with mock.patch.object(_points, "SMALL", small):
        check_every_edge(points, metric)


def check_every_edge(points: np.ndarray, metric: str) -> None:
    curve = clusters.curve(points, metric=metric)
    for position, radius in enumerate(curve.radii):
        found = clusters.find(points, radius, metric=metric)
        assert curve.count[position] == found.count
        assert np.array_equal(curve.at(radius).labels, found.labels)
        assert curve.effective_number[position] == pytest.approx(found.effective_number, rel=1e-12)
        assert curve.noise_share[position] == pytest.approx(found.noise_share, abs=1e-12)
        assert curve.groups[position] == found.groups
        assert curve.at(radius, closed=False).count == clusters.find(points, radius, metric=metric, closed=False).count


@pytest.mark.parametrize("spread", [1e-1, 1e-4, 1e-6])
def test_tight_clusters_far_apart(spread: float) -> None:
    """float32 inner products cannot see inside these clusters; the partition must equal the float64 tree's."""
    rng = np.random.default_rng(3)
    points = (rng.standard_normal((2, 70))[rng.integers(0, 2, 700)] + spread * rng.standard_normal((700, 70))).astype(
        np.float32
    )
    curve = clusters.curve(points)
    for radius in np.quantile(curve.lengths, [0.0, 0.2, 0.7, 0.99]):
        assert np.array_equal(clusters.find(points, radius).labels, curve.at(radius).labels)
    exact = np.sort(linkage(pdist(points.astype(np.float64)), "single")[:, 2])
    np.testing.assert_allclose(curve.lengths, exact, rtol=1e-12)  # both in float64


def test_tiles_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    points = blobs(90, 20)
    small = clusters.curve(points)
    monkeypatch.setattr(_points, "SMALL", 0)
    np.testing.assert_allclose(clusters.curve(points).lengths, small.lengths, rtol=1e-13)  # sums in another order
    radius = float(np.median(clusters.curve(points).lengths))
    whole = clusters.find(points, radius)
    tree = clusters.curve(points)
    for module in ("partition", "_spanning"):
        monkeypatch.setattr(f"krause_dynamics.analysis.clusters.{module}.ROWS", 7)
        monkeypatch.setattr(f"krause_dynamics.analysis.clusters.{module}.COLUMNS", 11)
    assert np.array_equal(clusters.find(points, radius).labels, whole.labels)
    np.testing.assert_array_equal(clusters.curve(points).lengths, tree.lengths)


@pytest.mark.parametrize(("d", "period"), [(2, 3.0), (3, None), (5, None), (8, 4.0)])
def test_parts_of_a_k_d_tree_meet(d: int, period: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.random.default_rng(d).random((300, d)) * 3
    lengths = clusters.curve(points, period=period).lengths
    for radius in np.quantile(lengths, [0.2, 0.5, 0.9]) + 1e-9:
        tree = clusters.find(points, radius, period=period)  # of so few points by the spanning tree
        for name, value in {"MANY": 1, "PART": 70, "PAIRS": 300}.items():
            monkeypatch.setattr(partition, name, value)
        found = clusters.find(points, radius, period=period)
        monkeypatch.undo()
        assert 1 < found.count < 300
        np.testing.assert_array_equal(found.labels, tree.labels)
    monkeypatch.setattr(partition, "MANY", 1)
    monkeypatch.setattr(partition, "PAIRS", 1)  # too many pairs to list: tiles again
    np.testing.assert_array_equal(clusters.find(points, radius, period=period).labels, tree.labels)


def test_tiles_of_few_rows_meet_every_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large cluster waits, while groups of three, in any order, look for its point that is nearest to them."""
    monkeypatch.setattr(_points, "SMALL", 0)  # as many points have it
    monkeypatch.setattr("krause_dynamics.analysis.clusters._spanning.ROWS", 3)
    monkeypatch.setattr("krause_dynamics.analysis.clusters._spanning.COLUMNS", 16)
    rng = np.random.default_rng(8)
    # On a line with shrinking steps every point joins the next: one component of more than half after the first round.
    large = np.outer(np.cumsum(0.1 * 0.98 ** np.arange(50)), np.eye(12)[0])
    groups = np.repeat(rng.standard_normal((12, 12)), 3, axis=0) + 0.01 * rng.standard_normal((36, 12))
    for _ in range(4):
        points = rng.permutation(np.concatenate([large, groups]))
        exact = np.sort(linkage(pdist(points), "single")[:, 2])
        np.testing.assert_allclose(clusters.curve(points).lengths, exact, rtol=1e-12)  # both in float64


@pytest.mark.parametrize("d", [1, 2, 5])
def test_torus_against_its_distances(d: int) -> None:
    rng = np.random.default_rng(6)
    points, space = rng.uniform(-3, 9, (60, d)), kd.Torus(4.0)
    exact = np.array([[float(space.distance(x, y)) for y in points] for x in points])
    np.fill_diagonal(exact, 0)
    edges = np.sort(linkage(squareform(exact, checks=False), "single")[:, 2])
    curve = clusters.curve(points, period=4.0)
    np.testing.assert_allclose(curve.lengths, edges, rtol=1e-12, atol=1e-13)
    radius = float(np.median(edges)) * (1 + 1e-9)
    found = clusters.find(points, radius, period=4.0)
    count, labels = connected_components(exact <= radius)
    assert found.count == count
    assert same_partition(found.labels, labels)
    for label in range(found.count):
        ring = np.exp(2j * np.pi * points[found.labels == label] / 4.0).mean(axis=0)
        if found.sizes[label] <= 2:  # of two points the mean angle is the middle
            around = np.exp(2j * np.pi * found.positions[label] / 4.0)
            np.testing.assert_allclose(around, ring / np.abs(ring), atol=1e-9)


def test_a_cluster_across_the_border_of_a_torus() -> None:
    found = clusters.find(np.array([0.1, 3.9, 2.0]), 0.3, period=4.0)
    assert found.labels.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.positions[:, 0] % 4.0, [0.0, 2.0], atol=1e-12)
    history = clusters.over_time(np.array([[[0.1], [3.9]], [[1.0], [3.0]]]), [0.3], period=4.0)
    assert history.count[:, 0].tolist() == [1, 2]


def test_masses_and_absent_points() -> None:
    points = np.array([[0.0, 0.0], [1.0, 0.0], [np.nan, 0.0], [9.0, 0.0]])
    log_mass = np.log([1.0, 3.0, 1.0, 4.0])
    log_mass[2] = -np.inf
    found = clusters.find(points, 1.0, log_mass=log_mass)
    assert found.labels.tolist() == [0, 0, -1, 1]
    np.testing.assert_allclose(found.masses, [0.5, 0.5])
    np.testing.assert_allclose(found.positions, [[0.75, 0], [9, 0]])
    curve = clusters.curve(points, [1.0, 100.0], log_mass=log_mass)
    assert curve.count.tolist() == [2, 1]
    np.testing.assert_allclose(curve.effective_number, [2.0, 1.0])
    assert curve.at(1.0).labels.tolist() == [0, 0, -1, 1]


def test_torch_gives_the_same_partition() -> None:
    points = blobs(40, 9, "float32")
    found = clusters.find(torch.from_numpy(points), 0.5)
    assert np.array_equal(found.labels, clusters.find(points, 0.5).labels)
    assert clusters.find(torch.from_numpy(points).bfloat16(), 5.0).count >= 1


def test_scale_does_not_matter() -> None:
    """Squares of 1e25 overflow float32; a power of two as unit keeps the partition the same."""
    points, unit = blobs(60, 20, "float32"), np.float32(2.0**80)
    assert np.array_equal(clusters.find(points * unit, 0.4 * 2.0**80).labels, clusters.find(points, 0.4).labels)


def test_curve_needs_memory_linear_in_n() -> None:
    points = blobs(1500, 3)
    clusters.curve(points[:10])  # compiled code and imports are not the curve's memory
    tracemalloc.start()
    try:
        clusters.curve(points)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 500 * len(points)  # one float64 matrix would be 12 000 bytes a point


def test_analysis_loads_heavy_libraries_only_when_used() -> None:
    names = ("clusters", "energies", "graphs", "measures", "observables", "operators")
    imports = ", ".join(f"krause_dynamics.{name}" for name in names)
    code = f"import sys, {imports}; print({{'scipy', 'numba', 'networkx', 'torch', 'ot'}} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"


def test_bad_input() -> None:
    points = blobs(6, 2)
    with pytest.raises(ValueError, match="radius must be at least 0, got -1"):
        clusters.find(points, -1.0)
    with pytest.raises(ValueError, match="radius must be at least 0, got nan"):
        clusters.find(points, math.nan)
    with pytest.raises(TypeError, match="radius must be a number"):
        clusters.find(points, "wide")
    with pytest.raises(ValueError, match="metric must be one of"):
        clusters.find(points, 1.0, metric="manhattan")
    with pytest.raises(ValueError, match="over_time"):
        clusters.find(np.zeros((2, 3, 4)), 1.0)
    with pytest.raises(ValueError, match="finite"):
        clusters.find(np.full((3, 2), np.nan), 1.0)
    with pytest.raises(ValueError, match="period must be positive"):
        clusters.find(points, 1.0, period=-1.0)
    with pytest.raises(ValueError, match="period needs"):
        clusters.find(points, 1.0, period=1.0, metric="chord")
    with pytest.raises(ValueError, match="radii"):
        clusters.curve(points, [-0.1])


@pytest.mark.parametrize("metric", ["euclidean", "chord", "cosine"])
@pytest.mark.parametrize("shape", [(1300, 24), (40, 3), (30, 1)])
def test_a_curve_without_a_point_is_the_curve_of_the_others(metric, shape):
    """Whether the point is a leaf of the tree or holds it together, in the middle of a star."""
    if shape[1] == 1 and metric != "euclidean":
        return
    points = np.random.default_rng(3).normal(size=shape)
    points[7] *= 0.01 if metric == "euclidean" else 1.0
    whole = clusters.curve(points, [0.3, 1.0, 2.0], metric=metric)
    for point in (0, 7, shape[0] - 1):
        found, expected = (
            whole.without(point),
            clusters.curve(np.delete(points, point, 0), [0.3, 1.0, 2.0], metric=metric),
        )
        np.testing.assert_allclose(found.lengths, expected.lengths, rtol=1e-12)
        for name in ("count", "effective_number", "groups", "noise_share"):
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), err_msg=name)
    with pytest.raises(ValueError, match="point must be one of"):
        whole.without(shape[0])
