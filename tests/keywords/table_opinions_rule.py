"""Bounded confidence, one step: the discrete model and a step of Euler of the flow against loops in float64."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

HK, FLOW = "kd.hegselmann_krause", "kd.hegselmann_krause_flow"
X0 = np.random.default_rng(61).random(9)
PLANE = np.random.default_rng(62).random((9, 2))
LATTICE = np.arange(6.0)
CLOSE = {"rtol": 1e-13, "atol": 1e-14}


def loops(x, radius, *, closed=True, own=True, normalised=True, weights=None, phi=None, links=None):
    """Positions (n, d) after one step of length 1."""
    x, new = np.reshape(x, (len(x), -1)), []
    masses = np.ones(len(x)) if weights is None else weights
    bounds = np.broadcast_to(radius, len(x))
    for i, here in enumerate(x):
        distance = np.array([np.linalg.norm(here - there) for there in x])
        heard = distance <= bounds[i] if closed else distance < bounds[i]
        heard = heard if links is None else heard & (links[i] | (np.arange(len(x)) == i))
        heard = heard if own else heard & (np.arange(len(x)) != i)
        share = masses * heard if phi is None else masses * heard * phi(distance)
        total = (share.sum() or 1.0) if normalised else masses.sum()
        new.append(here + share @ (x - here) / total)
    return np.array(new)


def one_step(x, radius, **options):
    """Ends of one step of the discrete model, and of one of Euler of the flow."""
    discrete = kd.hegselmann_krause(x, radius, max_steps=1, **options)
    flow = kd.hegselmann_krause_flow(x, radius, 1.0, dt=1.0, integrator=kd.Euler(), **options)
    return discrete.final, flow.final


def agree(x, radius, options, **words):
    for end in one_step(x, radius, **options):
        np.testing.assert_allclose(end, loops(x, radius, **words), **CLOSE)


@row(HK, "x0", X0, PLANE, "each goes to the mean of those within the radius, on a line and in the plane, by loops")
@row(FLOW, "x0", X0, PLANE, "each goes to the mean of those within the radius, on a line and in the plane, by loops")
def x0(first, second):
    for start in (first, second, -first[::-1] + 3.0):
        agree(start, 0.3, {})
    turned = [end[::-1] for end in one_step(second[::-1].copy(), 0.3)]
    np.testing.assert_allclose(turned[0], loops(second, 0.3), **CLOSE)


OWN = np.linspace(0.05, 0.6, 9)


@row(HK, "radius", 0.2, OWN, "those at most so far away are heard, by loops; an array gives each listener its own")
@row(FLOW, "radius", 0.2, OWN, "those at most so far away are heard, by loops; an array gives each listener its own")
def radius(first, second):
    for bound in (first, second):
        agree(X0, bound, {})
        agree(PLANE, bound, {})
    with pytest.raises(ValueError, match="radius"):
        kd.hegselmann_krause(X0, -first)


@row(
    HK,
    "closed",
    True,
    False,
    "on a lattice of spacing 1 and radius 1 neighbours are heard, or nobody and all stand still",
)
@row(
    FLOW,
    "closed",
    True,
    False,
    "on a lattice of spacing 1 and radius 1 neighbours are heard, or nobody and all stand still",
)
def closed(first, second):
    agree(LATTICE, 1.0, {}, closed=True)
    agree(LATTICE, 1.0, {"closed": first}, closed=True)
    for end in one_step(LATTICE, 1.0, closed=second):
        np.testing.assert_array_equal(end[:, 0], LATTICE)


@row(HK, "include_self", True, False, "the own opinion counts, or not: then two agents swap places for ever")
@row(FLOW, "include_self", True, False, "the own opinion counts, or not: then a step of Euler swaps two agents")
def include_self(first, second):
    agree(X0, 0.3, {"include_self": first})
    agree(X0, 0.3, {})
    agree(X0, 0.3, {"include_self": second}, own=False)
    for end in one_step([0.0, 1.0], 2.0, include_self=second):
        np.testing.assert_array_equal(end[:, 0], [1.0, 0.0])
    assert kd.hegselmann_krause([0.0, 1.0], 2.0, include_self=second).meta["stopped"] == "period of two"


@row(
    HK,
    "normalised",
    True,
    False,
    "the mean of those heard; or x_i + sum_j (x_j - x_i)/n over them, which conserves the mean",
)
@row(
    FLOW,
    "normalised",
    True,
    False,
    "the mean of those heard; or sum_j (x_j - x_i)/n over them, which conserves the mean",
)
def normalised(first, second):
    agree(X0, 0.3, {"normalised": first})
    agree(X0, 0.3, {"normalised": second}, normalised=False)
    for end in one_step(X0, 0.3, normalised=second):
        assert end.mean() == pytest.approx(X0.mean(), rel=1e-14)


COUNTS = np.array([1.0, 2, 1, 3, 1, 1, 2, 1, 1])


@row(HK, "weights", None, COUNTS, "weight 3 is heard as three agents of that opinion; a common factor changes nothing")
@row(
    FLOW, "weights", None, COUNTS, "weight 3 is heard as three agents of that opinion; a common factor changes nothing"
)
def weights(first, second):
    agree(X0, 0.3, {"weights": first})
    for flag in (True, False):
        agree(X0, 0.3, {"weights": second, "normalised": flag}, weights=COUNTS, normalised=flag)
        agree(X0, 0.3, {"weights": 7 * second, "normalised": flag}, weights=COUNTS, normalised=flag)
    copies = np.repeat(X0, COUNTS.astype(int))
    expected = [np.repeat(end, COUNTS.astype(int), axis=0) for end in one_step(X0, 0.3, weights=second)]
    for end, copied in zip(one_step(copies, 0.3), expected, strict=True):
        np.testing.assert_allclose(end, copied, **CLOSE)


STUBBORN = np.arange(9) % 3 == 0


@row(HK, "fixed", None, STUBBORN, "they keep their opinion and are heard as before, by loops")
@row(FLOW, "fixed", None, STUBBORN, "they keep their opinion and are heard as before, by loops")
def fixed(first, second):
    agree(X0, 0.3, {"fixed": first})
    free = loops(X0, 0.3)
    for end in one_step(X0, 0.3, fixed=second):
        np.testing.assert_array_equal(end[second, 0], X0[second])
        np.testing.assert_allclose(end[~second], free[~second], **CLOSE)


def wind(t, x):
    return 0.1 + 0 * x


@row(
    HK,
    "external",
    wind,
    kd.TruthSeeking(0.7, 0.25),
    "a drift is added to the step; truth seekers go a quarter of the way from what they heard",
)
@row(
    FLOW,
    "external",
    wind,
    kd.TruthSeeking(0.7, 0.25),
    "a drift is added; truth seekers are pulled by a quarter of their distance",
)
def external(first, second):
    heard = loops(X0, 0.3)
    for end in one_step(X0, 0.3, external=first):
        np.testing.assert_allclose(end, heard + 0.1, **CLOSE)
    discrete, flow = one_step(X0, 0.3, external=second)
    np.testing.assert_allclose(discrete, 0.75 * heard + 0.25 * 0.7, **CLOSE)
    np.testing.assert_allclose(flow, heard + 0.25 * (0.7 - X0[:, None]), **CLOSE)


def bell(r):
    return np.exp(-((r / 0.1) ** 2))


@row(HK, "influence", None, kd.Radial(bell), "means weighted by phi of the distance, still cut at the radius, by loops")
@row(
    FLOW, "influence", None, kd.Radial(bell), "means weighted by phi of the distance, still cut at the radius, by loops"
)
def influence(first, second):
    agree(X0, 0.3, {"influence": first})
    agree(X0, 0.15, {"influence": second}, phi=bell)
    agree(X0, np.inf, {"influence": second}, phi=bell)
    with pytest.raises(TypeError, match="influence"):
        kd.hegselmann_krause(X0, 0.3, influence=bell)


CHAIN = np.eye(9, k=1, dtype=bool) | np.eye(9, k=-1, dtype=bool)


@row(
    HK,
    "graph",
    None,
    CHAIN,
    "only those linked and within the radius are heard, and oneself, by loops; any form of network",
)
@row(
    FLOW,
    "graph",
    None,
    CHAIN,
    "only those linked and within the radius are heard, and oneself, by loops; any form of network",
)
def graph(first, second):
    networkx = pytest.importorskip("networkx")
    agree(X0, 0.5, {"graph": first})
    for network in (second, kd.Graph(second), networkx.from_numpy_array(second.astype(int))):
        agree(X0, 0.5, {"graph": network}, links=CHAIN)


@row(FLOW, "t_end", 0.5, 2.0, "beyond the diameter all hear all: x(t) = mean + e^-t (x0 - mean)")
def t_end(first, second):
    for end in (first, second):
        run = kd.hegselmann_krause_flow(X0, 2.0, end)
        assert run.times[-1] == end
        # RK4 at dt = 0.05: (dt)^4 / 120 a unit of time
        np.testing.assert_allclose(run.final[:, 0], X0.mean() + np.exp(-end) * (X0 - X0.mean()), atol=1e-6)


@row(
    FLOW,
    "options",
    {},
    {"dt": 0.5, "integrator": kd.Euler(), "save_at": []},
    "reach simulate: two steps of Euler halve the distances twice; noise diffuses",
)
def options(first, second):
    default = kd.hegselmann_krause_flow(X0, 2.0, 1.0, **first)
    euler = kd.hegselmann_krause_flow(X0, 2.0, 1.0, **second)
    assert (len(default), len(euler)) == (21, 2)
    np.testing.assert_allclose(euler.final[:, 0], X0.mean() + 0.25 * (X0 - X0.mean()), **CLOSE)
    far = 100.0 * np.arange(2000)
    noisy = kd.hegselmann_krause_flow(far, 1.0, 1.0, dt=0.5, noise=0.3, rng=0).final[:, 0] - far
    assert noisy.var() == pytest.approx(0.09, rel=5 * np.sqrt(2 / 2000))  # five standard errors
