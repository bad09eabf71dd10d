"""Rules and spaces as values: equality, round trips, refusals; geometry of the spaces."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given

import krause_dynamics as kd
from tests import strategies


@given(rule=strategies.rules)
def test_round_trip_through_json(rule):
    again = kd.from_dict(json.loads(json.dumps(rule.to_dict())))
    assert again == rule
    assert hash(again) == hash(rule)


def test_round_trip_of_arrays_and_spaces(rng):
    rule = kd.krause(np.array([[0.5], [1.0]]), kd.Graph(rng.integers(0, 2, (4, 4)).astype(bool)))
    assert kd.from_dict(json.loads(json.dumps(rule.to_dict()))) == rule
    packed = kd.softmax(1.0, kd.Segments(np.array([0, 2, 4])) & kd.Causal())
    assert kd.from_dict(json.loads(json.dumps(packed.to_dict()))) == packed
    for space in (kd.Euclidean(), kd.Sphere(), kd.Circle(), kd.Torus(2.0), kd.Interval(0.0, 2.0, mirror=True)):
        assert kd.from_dict(space.to_dict()) == space
    assert kd.softmax(1.0) != kd.softmax(2.0)
    with pytest.raises(ValueError, match="stored by name only"):
        kd.from_dict(kd.Interaction(kd.Radial(np.exp)).to_dict())
    with pytest.raises(ValueError, match="unknown type 'Nonsense'"):
        kd.from_dict({"type": "Nonsense"})


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kd.krause(0.0), "sigma must be positive"),
        (lambda: kd.krause(float("nan")), "sigma must be positive, got nan"),
        (lambda: kd.krause("wide"), "sigma must be a number or an array"),
        (lambda: kd.bounded_confidence(-1.0), "radius must be positive"),
        (lambda: kd.softmax(float("inf")), "beta must be finite"),
        (lambda: kd.softmax(float("nan")), "beta must be finite, got nan"),
        (lambda: kd.krause(np.array([])), "sigma must hold at least one number"),
        (lambda: kd.krause(np.array([1.0, np.nan])), "sigma must be positive, got nan"),
        (lambda: kd.TopK(0), "TopK k must be at least 1, got 0"),
        (lambda: kd.TopK(1.5), "TopK k must be an integer, got 1.5"),
        (lambda: kd.TopK(2**70), "TopK k must be at most"),
        (lambda: kd.TopK(2, ties="coin"), "TopK ties must be"),
        (lambda: kd.Window(0), "Window size must be at least 1, got 0"),
        (lambda: kd.Window(4, two_sided=True), "must be odd when two_sided=True, got 4; use 5"),
        (lambda: kd.Grid(2, 2, metric="euclid"), "Grid metric must be"),
        (lambda: kd.TopK(2) & kd.TopK(3), "at most one TopK"),
        (lambda: kd.Segments(np.array([0, 3, 2])), "rise from 0"),
        (lambda: kd.Segments(np.array([], dtype=np.int64)), "rise from 0"),
        (lambda: kd.Window(3) & 3, "joined with another by &, such as"),
        (lambda: kd.Interaction("dot"), "score must be a Score"),
        (lambda: kd.Interaction(kd.Flat(), "near"), "neighbourhood must be one"),
        (lambda: kd.Dynamics("softmax"), "rule must be an Interaction"),
        (lambda: kd.Dynamics(kd.softmax(), noise=-1.0), "noise must be at least 0"),
        (lambda: kd.Interval(1.0, 0.0), "lower must be less than upper"),
        (lambda: kd.Graph(np.ones((2, 3))), "adjacency must be a square"),
        (lambda: kd.Circle().sample(3, 3, rng=0), "d must be 2 on the circle"),
        (lambda: kd.Sphere().sample(3, 3, rng=None), "rng must be an int seed"),
    ],
)
def test_refusals_name_argument_expectation_and_value(build, message):
    with pytest.raises((ValueError, TypeError), match=message):
        build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros((3, 2)), np.zeros((3, 2), np.float32)), "must have one dtype, got float64 and float32"),
        ((np.zeros(3),), r"queries must have shape \(..., n, d\)"),
        ((np.zeros((0, 2)),), "at least one particle"),
        ((np.zeros((3, 2)), np.zeros((3, 1))), "must have one dimension d"),
        ((np.full((3, 2), np.nan),), "queries must be finite"),
        (([[1.0]],), "must be a numpy array or a torch tensor, got list"),
        ((np.zeros((3, 2)), np.full((3, 2), np.inf)), "sources must be finite"),
        ((np.zeros((3, 2)), np.zeros((3, 2)), np.full((3, 2), np.nan)), "values must be finite"),
        ((np.zeros((3, 2)), None, np.full((3, 1), np.nan)), "values must be finite"),
        ((np.zeros((3, 2)), [[1.0, 2.0]]), "sources must be a numpy array or a torch tensor, got list"),
    ],
)
def test_aggregate_refuses_bad_arrays(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        kd.aggregate(kd.softmax(), *arguments)


def test_aggregate_refuses_mixed_libraries():
    import torch

    with pytest.raises(TypeError, match="one array library, got numpy.ndarray and torch.Tensor"):
        kd.aggregate(kd.softmax(), np.zeros((3, 2)), torch.zeros((3, 2), dtype=torch.float64))
    with pytest.raises(TypeError, match="one device"):
        kd.aggregate(kd.softmax(), torch.zeros((3, 2)), torch.zeros((3, 2), device="meta"))


def test_exchangeability_says_whether_a_measure_is_enough():
    assert kd.krause(1.0, kd.Within(2.0)).is_exchangeable
    assert not kd.krause(1.0, kd.Within(2.0) & kd.TopK(3)).is_exchangeable
    assert not kd.softmax(1.0, kd.Causal()).is_exchangeable
    assert not kd.softmax(1.0, pair_bias=np.zeros((2, 2))).is_exchangeable
    assert not kd.bounded_confidence(np.array([1.0, 2.0])).is_exchangeable


def test_graph_from_networkx():
    networkx = pytest.importorskip("networkx")
    graph = networkx.path_graph(["a", "b", "c"])
    x = np.array([[0.0], [1.0], [5.0]])
    mean = kd.aggregate(kd.bounded_confidence(np.inf, kd.Graph.from_networkx(graph)), x).mean[:, 0]
    np.testing.assert_allclose(mean, [0.5, 2.0, 3.0])
    alone = kd.Graph.from_networkx(graph, ["c", "b", "a"], include_self=False)
    np.testing.assert_allclose(kd.aggregate(kd.bounded_confidence(np.inf, alone), x).mean[:, 0], [1.0, 2.5, 1.0])
    with pytest.raises(ValueError, match=r"unknown: \['z'\]"):
        kd.Graph.from_networkx(graph, ["a", "z"])
    with pytest.raises(ValueError, match="Graph has 3 nodes, but particle 4"):
        kd.aggregate(kd.bounded_confidence(1.0, kd.Graph.from_networkx(graph)), np.zeros((5, 1)))


@pytest.mark.parametrize("space", [kd.Sphere(), kd.Circle()])
def test_sphere_geometry(space, library):
    x = library(space.sample(20, 2, rng=0))
    v = library(np.random.default_rng(1).normal(size=(20, 2)))
    tangent = space.project(x, v)
    np.testing.assert_allclose((tangent * x).sum(-1), 0, atol=1e-14)
    np.testing.assert_allclose(space.project(x, tangent), tangent, atol=1e-14)
    np.testing.assert_allclose((space.retract(x + v) ** 2).sum(-1), 1, atol=1e-14)
    np.testing.assert_allclose(space.distance(x, -x), np.pi, atol=1e-7)  # asin near 1 loses half the digits


def test_circle_angles_and_arc_length(library):
    circle, angles = kd.Circle(), np.array([-3.0, 0.0, 1e-9, 2.0])
    x = circle.from_angles(library(angles))
    np.testing.assert_allclose(circle.to_angles(x), angles, atol=1e-15)
    np.testing.assert_allclose(circle.distance(x[1:2], x[2:3]), 1e-9, rtol=1e-6)
    np.testing.assert_allclose(circle.distance(x[1:2], x[3:4]), 2.0, atol=1e-14)


def test_torus_and_interval_return_inside(library):
    x = library(np.array([[-0.25], [1.0], [1.5], [-1e-300]]))
    np.testing.assert_allclose(kd.Torus(1.0).retract(x)[:, 0], [0.75, 0.0, 0.5, 0.0])
    np.testing.assert_allclose(kd.Interval(0.0, 1.0).retract(x)[:, 0], [0.25, 1.0, 0.5, 0.0])
    np.testing.assert_allclose(kd.Torus(1.0).distance(x[0:1] * 0 + 0.1, x[0:1] * 0 + 0.9), 0.2)


def test_images_at_the_end_of_the_reach_are_heard_on_both_sides(library):
    """Reflecting the interval reflects the images; 0.5 is exactly one radius from either wall's image of it."""
    space = kd.Interval(0.0, 1.0, mirror=True)
    images, owners = space.ghosts(library(np.array([[0.0], [0.5], [1.0]])), 0.5)
    assert sorted(images[:, 0].tolist()) == [-0.5, 0.0, 0.0, 0.5, 1.0, 1.0, 1.5]
    assert sorted(owners.tolist()) == [0, 0, 1, 1, 1, 2, 2]


def test_one_seed_serves_every_dimension_of_the_law():
    x = kd.Sphere().sample(20000, 3, rng=0)
    assert np.abs(x.mean(0)).max() < 5 / np.sqrt(3 * 20000)  # five standard errors of a coordinate of variance 1/3
    np.testing.assert_allclose(x.T @ x / 20000, np.eye(3) / 3, atol=0.01)
