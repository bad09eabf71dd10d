"""Persistence, plateaus, merges, the choice of a radius, and agreement with scikit-learn."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from krause_dynamics import clusters


def blobs(seed: int = 0, sizes: tuple[int, ...] = (30, 20, 10), spread: float = 0.02, d: int = 2):
    rng = np.random.default_rng(seed)
    centres = np.zeros((len(sizes), d))
    centres[:, 0] = np.cumsum(np.arange(len(sizes)) + 1.0)  # gaps 2, 3, ...
    truth = np.repeat(np.arange(len(sizes)), sizes)
    return centres[truth] + spread * rng.standard_normal((len(truth), d)), truth


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    return len(set(zip(a.tolist(), b.tolist(), strict=True))) == len(set(a.tolist())) == len(set(b.tolist()))


def test_persistence_by_hand() -> None:
    """Points 0, 1 | 4, 5.5 | 10 on a line: pairs form at 1 and 1.5, meet at 3; the stray point joins at 4.5."""
    curve = clusters.curve(np.array([0.0, 1.0, 4.0, 5.5, 10.0]))
    pairs = clusters.persistence(curve, members=2)
    assert pairs.formation.tolist() == [1.0, 1.5]
    assert pairs.absorption.tolist() == [math.inf, 3.0]
    assert pairs.sizes.tolist() == [5, 2]
    np.testing.assert_allclose(pairs.masses, [1.0, 0.4])
    assert pairs.ratio.tolist() == [math.inf, 2.0]
    points = clusters.persistence(curve)
    assert sorted(points.absorption.tolist()) == [1.0, 1.5, 3.0, 4.5, math.inf]
    assert np.all(points.formation == 0)
    assert clusters.persistence(curve, members=6).formation.size == 0


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("points", "lives"),
    [
        ([0.0, 2.0, 5.0, 5.1], [(0.1, math.inf, 4), (2.0, 3.0, 2)]),  # the pair at 2 is the younger
        ([0.0, 1.0, 9.0, 10.0, 11.0], [(1.0, math.inf, 5), (1.0, 8.0, 2)]),  # of one age the smaller ends
    ],
)
def test_the_elder_component_lives_on_wherever_its_points_stand(points, lives, order) -> None:
    pairs = clusters.persistence(clusters.curve(np.array(points)[::order]), members=2)
    found = zip(pairs.formation, pairs.absorption, pairs.sizes, strict=True)
    # The gap 5.1 - 5.0 is rounded at 1e-15.
    assert [tuple(life) for life in found] == [pytest.approx(life, abs=1e-14) for life in lives]


@pytest.mark.parametrize("members", [1, 2, 4])
def test_persistence_counts_the_components(members: int) -> None:
    points = np.random.default_rng(1).standard_normal((40, 2))
    curve = clusters.curve(points)
    lives = clusters.persistence(curve, members)
    for radius in curve.radii:
        assert lives.alive(radius) == int(np.sum(curve.at(radius).sizes >= members))


def test_choice_of_radius() -> None:
    points, truth = blobs()
    curve = clusters.curve(points)
    choice = clusters.choose_radius(curve)
    assert choice.count == 3
    assert same_partition(curve.at(choice.radius).labels, truth)
    assert "3 clusters" in choice.reason
    assert choice.low < choice.radius < choice.high
    assert choice.low in curve.lengths
    assert choice.high in curve.lengths


def test_choice_can_be_one_cluster_where_the_metric_is_bounded() -> None:
    rng = np.random.default_rng(2)
    near_consensus = np.array([1.0, 0, 0]) + 1e-4 * rng.standard_normal((50, 3))
    assert clusters.choose_radius(clusters.curve(near_consensus, metric="chord")).count == 1
    assert clusters.choose_radius(clusters.curve(near_consensus), ceiling=1.0).count == 1
    equal = np.ones((5, 3))
    assert clusters.choose_radius(clusters.curve(equal)).count == 1
    assert clusters.choose_radius(clusters.curve(equal, metric="cosine")).count == 1
    origin = clusters.choose_radius(clusters.curve(np.zeros((5, 3))))  # no extent: the unit takes its place
    assert (origin.count, origin.radius) == (1, clusters.choose_radius(clusters.curve(equal)).radius)
    lattice = clusters.choose_radius(clusters.curve(np.arange(5.0)))
    assert (lattice.count, lattice.high) == (5, 1.0)
    assert "no gap" in lattice.reason
    with pytest.raises(ValueError, match="ceiling must be above floor"):
        clusters.choose_radius(clusters.curve(equal), floor=1.0, ceiling=0.5)


def test_counts_over_time_and_radius() -> None:
    start = np.array([0.0, 0.1, 1.0, 1.1])[:, None]
    shrinking = np.stack([start, start / 2, start / 20])
    run = SimpleNamespace(positions=shrinking, log_mass=None)
    history = clusters.over_time(run, [0.06, 0.2, 2.0])
    assert history.count.tolist() == [[4, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert history.effective_number.tolist() == [[4, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert history.groups.tolist() == [[0, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert history.noise_share[:, 0].tolist() == [1, 0, 0]
    padded = clusters.over_time(shrinking, [0.2], log_mass=np.array([0.0, 0.0, 0.0, -np.inf]))
    assert padded.count[:, 0].tolist() == [2, 2, 1]
    batch = clusters.over_time(np.stack([shrinking, shrinking], axis=1), [0.2])
    assert batch.count[:, :, 0].tolist() == [[2, 2], [2, 2], [1, 1]]


def test_plateaus_and_lifetimes() -> None:
    found = clusters.plateaus([5, 3, 3, 3, 2, 2], [0.0, 1.0, 2.0, 3.0, 4.0, 6.0])
    assert [(p.count, p.start, p.stop, p.ended) for p in found] == [
        (5, 0.0, 1.0, True),
        (3, 1.0, 4.0, True),
        (2, 4.0, 6.0, False),
    ]
    assert [p.lifetime for p in found] == [1.0, 3.0, 2.0]
    assert [p.count for p in clusters.plateaus([5, 3, 3, 3, 2, 2], least=3.0)] == [3, 2]
    with pytest.raises(ValueError, match="increase"):
        clusters.plateaus([1, 2], [1.0, 1.0])


def test_merges_and_splits() -> None:
    """Points at 0, 1, 2, 3: the outer pairs close first (t = 1), then all meet (t = 2), then one leaves (t = 3)."""
    positions = np.array([[0.0, 1, 2, 3], [0.4, 0.6, 2.4, 2.6], [1.4, 1.5, 1.6, 1.7], [1.4, 1.5, 1.6, 9.0]])[..., None]
    found = clusters.events(clusters.labels(positions, 0.5), times=[0.0, 0.5, 1.0, 1.5])
    assert [(e.kind, e.time, e.step, sorted(e.sizes)) for e in found] == [
        ("merge", 0.5, 1, [1, 1]),
        ("merge", 0.5, 1, [1, 1]),
        ("merge", 1.0, 2, [2, 2]),
        ("split", 1.5, 3, [1, 3]),
    ]
    assert clusters.merge_times(found).tolist() == [0.5, 0.5, 1.0]


def test_a_point_that_changes_sides_is_a_split_and_a_merge() -> None:
    found = clusters.events([[0, 0, 1], [0, 1, 1]])
    assert [(e.kind, e.parts, e.whole) for e in found] == [("split", (0, 1), 0), ("merge", (0, 1), 1)]


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_dbscan_with_one_sample_is_the_same_partition(metric: str) -> None:
    """DBSCAN(min_samples=1) has no noise: its clusters are the components at eps, boundary included."""
    from sklearn.cluster import DBSCAN

    points = np.random.default_rng(4).standard_normal((150, 3))
    for radius in np.quantile(clusters.curve(points, metric=metric).lengths, [0.3, 0.7, 0.95]) * (1 + 1e-9):
        theirs = DBSCAN(eps=radius, min_samples=1, metric=metric, algorithm="brute").fit_predict(points)
        assert same_partition(clusters.find(points, radius, metric=metric).labels, theirs)


def test_separated_blobs_look_alike_to_hdbscan_and_mean_shift() -> None:
    """Where groups are dense and far apart all methods answer the same question."""
    from sklearn.cluster import HDBSCAN, MeanShift

    points, truth = blobs(seed=5)
    ours = clusters.curve(points)
    found = ours.at(clusters.choose_radius(ours).radius).labels
    assert same_partition(found, truth)
    assert same_partition(HDBSCAN(min_cluster_size=8, min_samples=1, copy=True).fit_predict(points), found)
    assert same_partition(MeanShift(bandwidth=0.5).fit_predict(points), found)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="members"):
        clusters.persistence(clusters.curve(np.zeros((3, 1))), members=0)
    with pytest.raises(ValueError, match="labels"):
        clusters.events([0, 1])
    with pytest.raises(ValueError, match="one shape"):
        clusters.plateaus([1, 2], [1.0])
