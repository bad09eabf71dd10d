"""Rows of `kd.clusters`: merges, splits and plateaus by hand, and the records in which answers come."""

from __future__ import annotations

import numpy as np
import pytest

from krause_dynamics import clusters
from tests.keywords.row import row

# Pairs 01 and 23 form, meet, and point 3 leaves.
LABELS = np.array([[0, 1, 2, 3], [0, 0, 1, 1], [0, 0, 0, 0], [0, 0, 0, 1]])
# Point 1 goes from one cluster to the other: a split and a merge in one step; point 4 is absent at first.
SWAP = np.array([[0, 0, 1, 1, -1], [0, 1, 1, 1, 1]])


def plain(found):
    return [(event.kind, event.time, event.parts, event.whole, event.sizes) for event in found]


MERGES = [("merge", 1.0, (0, 1), 0, (1, 1)), ("merge", 1.0, (2, 3), 1, (1, 1)), ("merge", 2.0, (0, 1), 0, (2, 2))]
BY_HAND = [*MERGES, ("split", 3.0, (0, 1), 0, (3, 1))]
SWAPPED = [("split", 1.0, (0, 1), 0, (1, 1)), ("merge", 1.0, (0, 1), 1, (1, 2))]


@row("kd.clusters.events", "labels", LABELS, SWAP, "merges and splits by hand; absent points take no part")
def _(first, second):
    assert plain(clusters.events(first)) == BY_HAND
    assert plain(clusters.events(second)) == SWAPPED
    with pytest.raises(ValueError, match=r"labels must have 2 axes"):
        clusters.events(first[0])


@row(
    "kd.clusters.events",
    "times",
    None,
    [0.0, 0.5, 2.5, 9.0],
    "events carry the time of the later state; layers unless told",
)
def _(first, second):
    assert [event.time for event in clusters.events(LABELS, first)] == [1.0, 1.0, 2.0, 3.0]
    assert [event.time for event in clusters.events(LABELS, second)] == [0.5, 0.5, 2.5, 9.0]
    assert [event.step for event in clusters.events(LABELS, second)] == [1, 1, 2, 3]


@row(
    "kd.clusters.merge_times",
    "found",
    LABELS,
    np.array([[0, 1, 2, 3], [0, 0, 0, 1]]),
    "as many times as K falls by, no splits",
)
def _(first, second):
    assert clusters.merge_times(clusters.events(first)).tolist() == [1.0, 1.0, 2.0]
    assert clusters.merge_times(clusters.events(second)).tolist() == [1.0, 1.0]  # three into one at once
    assert clusters.merge_times(()).tolist() == []


COUNT = [5, 5, 3, 3, 3, 1]


def stretches(*arguments, **options):
    return [(p.count, p.start, p.stop, p.ended) for p in clusters.plateaus(*arguments, **options)]


@row("kd.clusters.plateaus", "count", COUNT, [4, 2, 4, 4], "maximal constant stretches by hand, the last one open")
def _(first, second):
    assert stretches(first) == [(5, 0.0, 2.0, True), (3, 2.0, 5.0, True), (1, 5.0, 5.0, False)]
    assert stretches(second) == [(4, 0.0, 1.0, True), (2, 1.0, 2.0, True), (4, 2.0, 3.0, False)]


@row("kd.clusters.plateaus", "times", None, [0.0, 1.0, 4.0, 4.5, 5.0, 9.0], "starts and stops in these times")
def _(first, second):
    assert [p[1:3] for p in stretches(COUNT, first)] == [(0.0, 2.0), (2.0, 5.0), (5.0, 5.0)]
    assert [p[1:3] for p in stretches(COUNT, second)] == [(0.0, 4.0), (4.0, 9.0), (9.0, 9.0)]
    with pytest.raises(ValueError, match="times must increase"):
        clusters.plateaus(COUNT, second[::-1])


@row("kd.clusters.plateaus", "least", 2.0, 2.5, "shorter lives are left out, its own length is kept, the last always")
def _(first, second):
    assert [p[0] for p in stretches(COUNT, least=first)] == [5, 3, 1]
    assert [p[0] for p in stretches(COUNT, least=second)] == [3, 1]
    assert [p[0] for p in stretches(COUNT, least=99.0)] == [1]


POINTS, OTHERS = np.array([[0.0], [0.1], [1.0], [1.3]]), np.array([[0.0], [0.2], [0.3], [5.0]])


def same(one, two):
    return np.array_equal(np.asarray(one), np.asarray(two))


def check_field(base, place, name, follows):
    """A field stands in its place and under its name, moves no other, and what follows from it follows."""

    def check(first, second):
        fields = list(vars(base))
        assert fields[place] == name
        for value in (first, second):
            by_name = type(base)(**{**vars(base), name: value})
            by_place = type(base)(*[value if field == name else getattr(base, field) for field in fields])
            for record in (by_name, by_place):
                assert all(same(getattr(record, f), value if f == name else getattr(base, f)) for f in fields)
                follows(record)

    return check


def records(record, base, follows, states, /, **pairs):
    """A row for each field of a record."""
    for place, (name, pair) in enumerate(pairs.items()):
        row(f"kd.clusters.{record}", name, *pair, states)(check_field(base, place, name, follows))


def follows_from_clusters(found):
    assert found.count == len(found.sizes)
    assert found.groups == sum(size > 1 for size in found.sizes)
    assert found.effective_number == pytest.approx(1 / sum(mass**2 for mass in found.masses))
    alone = [mass for mass, size in zip(found.masses, found.sizes, strict=True) if size == 1]
    assert found.noise_share == pytest.approx(sum(alone))


FOUND = clusters.find(POINTS, 0.2)
records(
    "Clusters", FOUND, follows_from_clusters, "count and groups follow from sizes, effective number from masses",
    labels=(FOUND.labels, FOUND.labels[::-1]), sizes=(FOUND.sizes, np.array([1, 2, 1])),
    masses=(FOUND.masses, np.array([0.7, 0.2, 0.1])), positions=(FOUND.positions, FOUND.positions + 1),
    radius=(0.2, 0.25), metric=("euclidean", "chord"),
)  # fmt: skip


def follows_from_choice(choice):
    assert choice.ratio == choice.high / choice.low


CHOICE = clusters.choose_radius(clusters.curve(POINTS))
records(
    "Choice", CHOICE, follows_from_choice, "stands in its place; the ratio is high over low",
    radius=(CHOICE.radius, 0.4), count=(CHOICE.count, 9), low=(CHOICE.low, 0.2), high=(CHOICE.high, 0.9),
    reason=(CHOICE.reason, "a known unit"),
)  # fmt: skip


def follows_from_plateau(plateau):
    assert plateau.lifetime == plateau.stop - plateau.start


records(
    "Plateau", clusters.Plateau(3, 1.0, 4.0, True), follows_from_plateau, "stands in its place; life is stop - start",
    count=(3, 2), start=(1.0, 2.5), stop=(4.0, 7.0), ended=(True, False),
)  # fmt: skip


def follows_from_event(event):
    times = [event.time] * (len(event.parts) - 1) if event.kind == "merge" else []
    assert clusters.merge_times([event]).tolist() == times


records(
    "Event", clusters.events(LABELS)[2], follows_from_event, "stands in its place; k parts of a merge are k - 1 merges",
    kind=("merge", "split"), time=(2.0, 0.5), step=(2, 7), parts=((0, 1), (0, 1, 4)), whole=(0, 3),
    sizes=((2, 2), (1, 5)),
)  # fmt: skip


def follows_from_persistence(found):
    for radius in (0.05, 0.2, 0.35, 2.0):
        alive = [a <= radius < b for a, b in zip(found.formation, found.absorption, strict=True)]
        assert found.alive(radius) == sum(alive)
    assert found.ratio.tolist() == [b / a for a, b in zip(found.formation, found.absorption, strict=True)]


LIFE = clusters.persistence(clusters.curve(POINTS), 2)
records(
    "Persistence", LIFE, follows_from_persistence, "stands in its place; alive from formation to absorption",
    formation=(LIFE.formation, LIFE.formation / 2), absorption=(LIFE.absorption, np.array([np.inf, 0.4])),
    sizes=(LIFE.sizes, LIFE.sizes + 1), masses=(LIFE.masses, LIFE.masses / 2), members=(2, 3),
)  # fmt: skip

PAST = clusters.over_time(np.stack([POINTS, OTHERS]), [0.2, 1.0])
records(
    "History", PAST, lambda past: None, "stands in its place and under its name, whatever the others are",
    radii=(PAST.radii, PAST.radii * 2), count=(PAST.count, PAST.count + 1),
    effective_number=(PAST.effective_number, PAST.effective_number + 1), groups=(PAST.groups, PAST.groups + 1),
    noise_share=(PAST.noise_share, PAST.noise_share / 2),
)  # fmt: skip


def follows_from_curve(curve):
    """Partitions follow from the tree alone: as many clusters as points less edges up to the radius."""
    for radius in (0.1, 0.2, 0.5, 2.0):
        found, joins = curve.at(radius), np.sum(np.asarray(curve.lengths) <= radius)
        assert found.count == len(curve.cloud.masses) - joins
        assert sorted(found.masses.tolist()) == pytest.approx(sorted(shares_of_tree(curve, joins)))


def shares_of_tree(curve, joins):
    """Masses of the components of the first edges of the tree, joined one by one."""
    groups = [{i} for i in range(len(curve.cloud.masses))]
    for i, j in np.asarray(curve.edges)[:joins].tolist():
        one, two = (next(group for group in groups if k in group) for k in (i, j))
        groups = [group for group in groups if group not in (one, two)] + [one | two]
    return [float(sum(curve.cloud.masses[i] for i in group)) for group in groups]


CURVE, HEAVY = clusters.curve(POINTS), clusters.curve(POINTS, log_mass=np.array([0.0, 1.0, 2.0, 3.0]))
records(
    "Curve", CURVE, follows_from_curve, "stands in its place; `at` follows from edges, lengths and masses",
    radii=(CURVE.radii, CURVE.radii * 2), count=(CURVE.count, CURVE.count + 1),
    effective_number=(CURVE.effective_number, CURVE.effective_number + 1), groups=(CURVE.groups, CURVE.groups + 1),
    noise_share=(CURVE.noise_share, CURVE.noise_share / 2), lengths=(CURVE.lengths, CURVE.lengths * 1.5),
    edges=(CURVE.edges, np.array([[0, 2], [1, 3], [0, 1]])), cloud=(CURVE.cloud, HEAVY.cloud),
)  # fmt: skip


def follows_from_cloud(cloud):
    """Lengths of the metric; labels of all n points; places of the given points, of the wrapped ones on a torus."""
    assert cloud.length(np.array([9.0])) == (4.5 if cloud.metric == "cosine" else 3.0)
    assert cloud.length(np.array([cloud.limit(0.3)])) <= 0.3 < cloud.length(np.array([cloud.limit(0.3) * (1 + 1e-15)]))
    curve = clusters.Curve(**{**vars(CURVE), "cloud": cloud})
    found = curve.at(0.2)
    assert np.flatnonzero(found.labels >= 0).tolist() == cloud.index.tolist()
    assert (len(found.labels), found.metric) == (cloud.n, cloud.metric)
    places = cloud.given if cloud.period is None else cloud.points
    for label, place in enumerate(found.positions):
        here = found.labels[cloud.index] == label
        assert place == pytest.approx(cloud.masses[here] @ places[here] / cloud.masses[here].sum())
    # Equal points are one cluster from the radius of rounding on, four units in the last place of the largest.
    flat = clusters.Curve(**{**vars(curve), "lengths": np.zeros(3)})
    rounding = 4 * np.finfo(float).eps * np.abs(cloud.points).max()
    assert clusters.choose_radius(flat).low == (rounding**2 if cloud.metric == "cosine" else rounding)


INDEX, MASSES = np.array([0, 1, 2, 4]), np.array([0.1, 0.2, 0.3, 0.4])
records(
    "Cloud", clusters.Cloud(POINTS, POINTS, INDEX, MASSES, 6, "euclidean"), follows_from_cloud,
    "stands in its place; lengths, labels, places and rounding follow",
    points=(POINTS, POINTS + 1), given=(POINTS, POINTS * 2), index=(INDEX, np.array([0, 2, 3, 5])),
    masses=(MASSES, MASSES[::-1]), n=(6, 9), metric=("euclidean", "cosine"), period=(None, 3.0),
)  # fmt: skip
