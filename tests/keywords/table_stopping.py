"""Rows of `kd.stopping`: the step at which a run ends, by closed forms and by what can still change."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import stopping
from tests.keywords.row import row

PAIR = np.array([[0.0], [1.0]])


def shrinking(stop, dt=0.05):
    """Two opinions that all hear, so that their difference is (1 - dt)^k after k Euler steps, ended by a rule."""
    run = kd.simulate(kd.Dynamics(kd.bounded_confidence(5.0)), PAIR, 20.0, dt=dt, integrator=kd.Euler(), stop=stop)
    return run.times[-1], np.ptp(run.final), run.meta["stopped"]


@row("kd.stopping.AtTime", "time", 0.5, 1.7, "the run ends at the first step at this time, not one before or after")
def _(first, second):
    for time in (first, second):
        end, _, reason = shrinking(stopping.AtTime(time))
        assert end == pytest.approx(time, rel=1e-12)
        assert reason == "time"
    assert shrinking(stopping.AtTime(0.52))[0] == pytest.approx(0.55, rel=1e-12)
    for time in (0.0, "soon"):
        with pytest.raises((ValueError, TypeError), match="time must be"):
            stopping.AtTime(time)


@row("kd.stopping.Consensus", "tolerance", 0.1, 1e-3, "the run ends at the first step whose difference is at most this")
def _(first, second):
    for tolerance in (first, second):
        end, difference, reason = shrinking(stopping.Consensus(tolerance))
        steps = int(np.ceil(np.log(tolerance) / np.log(0.95)))
        assert end == pytest.approx(0.05 * steps)
        assert difference == pytest.approx(0.95**steps, rel=1e-9)
        assert reason == "consensus"
        x = np.array([[[0.0], [0.0]], [[2.0], [2.0 + tolerance]]])  # a batch: the worst run decides
        assert stopping.Consensus(tolerance * (1 + 1e-9))(0.0, x, x) == "consensus"
        assert stopping.Consensus(tolerance * (1 - 1e-9))(0.0, x, x) is None


@row(
    "kd.stopping.Frozen",
    "tolerance",
    1e-12,
    0.01,
    "nobody moved by more than this share of the extent, and not a run that drifts on",
)
def _(first, second):
    cloud = np.random.default_rng(14).uniform(0, 30, size=(6, 2))
    extent = np.ptp(cloud, axis=0).max()
    for tolerance in (first, second):
        rule = stopping.Frozen(tolerance)
        for share, answer in ((0.97, "frozen"), (1.03, None)):
            moved = cloud.copy()
            moved[2, 1] += share * tolerance * extent
            assert rule(1.0, moved, cloud) == answer
    # A difference that shrinks by 5 % a step moves each end by 2.5 % of it: never frozen at 1 %, at once at 3 %.
    assert shrinking(stopping.Frozen(0.03))[0] == pytest.approx(0.05)
    assert shrinking(stopping.Frozen(second) | stopping.AtTime(3.0))[2] == "time"


def next_step(x, radius):
    near = (np.linalg.norm(x[:, None] - x, axis=-1) <= radius).astype(float)
    return near @ x / near.sum(axis=1, keepdims=True)


@row("kd.stopping.ClustersSettled", "radius", 1.0, 0.6, "what is settled one step freezes; on a line that is all of it")
def _(first, second):
    rng = np.random.default_rng(15)
    for radius in (first, second):
        rule, answers = stopping.ClustersSettled(radius), []
        for d in (1, 2) * 40:
            x = rng.uniform(0, 2.5, size=(5, d))
            near = np.linalg.norm(x[:, None] - x, axis=-1) <= radius
            complete = bool((((near.astype(int) @ near) > 0) == near).all())  # who is near a neighbour is a neighbour
            answers.append(rule(0.0, x, x) == "clusters settled")
            assert complete == answers[-1] if d == 1 else complete >= answers[-1]
            if answers[-1]:
                frozen = next_step(x, radius)
                np.testing.assert_allclose(next_step(frozen, radius), frozen, rtol=1e-12)
        assert 5 < sum(answers) < 75
    assert stopping.ClustersSettled(1.0)(0.0, PAIR, PAIR) == "clusters settled"  # the radius itself is near
    chain = np.array([[0.0], [1.0], [2.0]])
    assert stopping.ClustersSettled(first)(0.0, chain, chain) is None
    assert stopping.ClustersSettled(second)(0.0, chain, chain) == "clusters settled"


EARLY, LATE = stopping.AtTime(0.5), stopping.Consensus(1e-3)


@row(
    "kd.stopping.FirstOf",
    "rules",
    (EARLY, LATE),
    (LATE, stopping.AtTime(50.0)),
    "the run ends with the first rule to speak",
)
def _(first, second):
    for rules, alone in ((first, EARLY), (second, LATE)):
        assert shrinking(stopping.FirstOf(rules)) == shrinking(alone) == shrinking(rules[0] | rules[1])
    both = stopping.FirstOf((lambda t, x, previous: "one", lambda t, x, previous: "two"))
    assert both(0.0, PAIR, PAIR) == "one"
    assert stopping.FirstOf(())(0.0, PAIR, PAIR) is None
