"""Clusters of a density or a run, and the records Cluster and Outcome."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

mf = kd.mean_field
LINE = mf.LineCells(100, 0.0, 10.0)
# Masses 1, 1 at 2.05 and 2.15, 2 at 2.45, 0.001 at 8.05: cells 20, 21, 24, 80 of width 0.1.
HUMPS = mf.Density(LINE, np.bincount([20, 21, 24, 80], [1.0, 1.0, 2.0, 0.001], 100))
TOTAL = 4.001


def found(state, **options):
    return [(c.position, c.mass, c.spread) for c in mf.clusters(state, **options)]


NEAR = mf.follow(kd.Dynamics(kd.bounded_confidence(1.0)), mf.uniform(mf.LineCells(50, 0.0, 1.0)), 1.0, count=11)


@row(
    "kd.mean_field.clusters",
    "state",
    HUMPS,
    NEAR,
    "position, mass and spread of the points that lie together, of a density or of particles",
)
def state(first, second):
    humps = found(first)
    np.testing.assert_allclose([h[0] for h in humps], [(2.05 + 2.15 + 2 * 2.45) / 4, 8.05], rtol=1e-13)
    np.testing.assert_allclose([h[1] for h in humps], [4 / TOTAL, 0.001 / TOTAL], rtol=1e-13)
    np.testing.assert_allclose(humps[0][2], np.std([2.05, 2.15, 2.45, 2.45]), rtol=1e-10)
    x = second.final[:, 0]
    np.testing.assert_allclose(found(second), [(x.mean(), 1.0, x.std())], rtol=1e-12)
    turned = mf.Density(mf.CircleCells(100), np.roll(first.mass, -23))  # across the seam
    np.testing.assert_allclose([h[1] for h in found(turned)], [0.001 / TOTAL, 4 / TOTAL], rtol=1e-12)


@row(
    "kd.mean_field.clusters",
    "index",
    -1,
    0,
    "which saved time: everyone hears everyone, so the spread is e^-t of the first",
)
def index(first, second):
    late, early = (found(NEAR, index=which)[0][2] for which in (first, second))
    assert early == pytest.approx(NEAR[0].std(), rel=1e-12)
    assert late == pytest.approx(np.exp(-1.0) * early, rel=1e-5)  # RK4 at dt = 0.05
    assert found(NEAR) == found(NEAR, index=first)


@row(
    "kd.mean_field.clusters",
    "gap",
    None,
    0.25,
    "neighbours at most so far apart are one; by default four cells, or the radius of a rule",
)
def gap(first, second):
    assert len(found(HUMPS, gap=first)) == 2
    np.testing.assert_allclose([h[0] for h in found(HUMPS, gap=second)], [2.1, 2.45, 8.05], rtol=1e-13)
    assert len(found(HUMPS, gap=0.35)) == 2
    assert len(found(HUMPS, gap=7.0)) == 1
    assert len(found(NEAR, gap=0.01)) == 11


@row("kd.mean_field.clusters", "floor", 1e-6, 0.01, "a share below which a cell, and then a cluster, counts as empty")
def floor(first, second):
    assert [h[1] for h in found(HUMPS, floor=first)] == pytest.approx([4 / TOTAL, 0.001 / TOTAL])
    assert [h[1] for h in found(HUMPS, floor=second)] == pytest.approx([4 / TOTAL])
    assert found(HUMPS) == found(HUMPS, floor=first)
    # A thin bridge of cells joins two humps, or is empty; a full cell far from a wide hump is a cluster of 0.5 %.
    bridged = mf.Density(LINE, np.bincount([20, 23, 26, 29], [1.0, 0.005, 0.005, 1.0], 100))
    assert [len(found(bridged, gap=0.4, floor=share)) for share in (first, second)] == [1, 2]
    wide = mf.Density(LINE, np.bincount([*range(50), 80], [0.0199] * 50 + [0.005], 100))
    assert [len(found(wide, floor=share)) for share in (first, second)] == [2, 1]


def field(name, first, second, states):
    """A row: the field of the two clusters found in two cells holds the known values."""

    def check(first, second):
        mass = np.bincount([20, 22, 70], [1.0, 3.0, 6.0], 100)
        clusters = mf.clusters(mf.Density(LINE, mass))
        assert [getattr(c, name) for c in clusters] == pytest.approx([first, second], abs=1e-12)
        assert getattr(mf.Cluster(**vars(clusters[0]) | {name: second}), name) == second

    row("kd.mean_field.Cluster", name, first, second, states)(check)


field("position", 2.2, 7.05, "mean coordinate: 1 at 2.05 and 3 at 2.25; 6 at 7.05")
field("mass", 0.4, 0.6, "share of the total mass, 4 and 6 of 10")
field("spread", 0.2 * np.sqrt(3) / 4, 0.0, "standard deviation: of weights 1 and 3 at a distance of 0.2; of one cell")


def outcome(name, first, second, states):
    """A row: the field of the outcome of five quantiles of [0, 5] at two radii or step counts."""

    def check(first, second):
        density = mf.uniform(mf.LineCells(5, 0.0, 5.0))
        # Quantiles 0.5, 1.5, ..., 4.5: radius 0.9 moves nobody, radius 9 joins all in one step.
        for radius, known in ((0.9, first), (9.0, second)):
            end = mf.settle(density, radius, count=5, max_steps=1)
            value = len(end.clusters) if name == "clusters" else getattr(end, name)
            assert value == known
            rebuilt = mf.Outcome(**vars(end) | {name: second})
            assert getattr(rebuilt, name) == second

    row("kd.mean_field.Outcome", name, first, second, states)(check)


outcome("clusters", 5, 1, "five far apart stay five; where all hear all there is one")
outcome("steps", 0, 1, "steps in which something moved: none, or one")
outcome("frozen", True, False, "whether nothing can move: at rest at once, or one step allowed and taken")
