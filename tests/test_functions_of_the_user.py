"""What functions and arrays of the user may hold: another shape is refused by name, not broadcast against the cloud."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd

LINE, PLANE = np.arange(4.0)[:, None], np.arange(10.0).reshape(5, 2)
RULE = kd.krause(1.0)


@pytest.mark.parametrize(
    ("given", "x", "words"),
    [
        ({"external": lambda t, x: 0.1 * x[:, 0]}, LINE, r"external must .* shape \(4, 1\) .* got \(4,\)"),
        ({"external": lambda t, x: None}, PLANE, "external must return an array .* got NoneType"),
        ({"external": lambda t, x: torch.zeros(5, 2)}, PLANE, "external must return an array .* got Tensor"),
        ({"response": lambda t, x, v: v[:1]}, PLANE, r"response must .* shape \(5, 2\) .* got \(1, 2\)"),
        ({"read": lambda x: x[:, :1]}, PLANE, r"read must .* shape \(5, 2\) .* got \(5, 1\)"),
        ({"value": np.ones((1, 2))}, PLANE, r"value must have shape \(d, d\) .* d = 2, got 1 rows"),
        ({"value": lambda t: np.ones((3, 3, 2))}, PLANE, "value must .* got 3 rows"),
        ({"rule": lambda t: 3}, PLANE, "the rule must be an Interaction .* got 3"),
    ],
)
def test_one_value_for_each_particle(given, x, words):
    """One row, or n numbers, broadcast against positions (n, d): all particles were moved alike, or by each other's."""
    with pytest.raises((TypeError, ValueError), match=words):
        kd.simulate(kd.Dynamics(**{"rule": RULE, **given}), x, 0.1)


def test_more_may_be_read_of_a_position_than_it_has_coordinates_where_v_leads_back():
    """Query, key and value see parts of what is read: the drift of the turned positions, written out."""
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    both = kd.Dynamics(
        RULE, query=np.eye(2, 4), key=np.eye(2, 4), value=np.eye(2, 4, k=2), relative=False,
        read=lambda x: np.concatenate([x @ turn.T, x], axis=-1),
    )  # fmt: skip
    turned = kd.Dynamics(RULE, query=turn, key=turn, relative=False)
    np.testing.assert_allclose(both.drift(0.0, PLANE), turned.drift(0.0, PLANE), rtol=1e-12)
    with pytest.raises(ValueError, match=r"value must have shape .* d = 2, got 4 rows"):
        kd.Dynamics(RULE, value=np.eye(4), read=lambda x: np.concatenate([x, x], axis=-1)).drift(0.0, PLANE)


def test_a_wind_blows_on_all_alike_in_the_precision_of_the_run():
    still = kd.Dynamics(RULE).drift(0.0, PLANE)
    for wind in (0.5, [0.5, 0.5], np.full((5, 2), 0.5)):
        moved = kd.Dynamics(RULE, external=lambda t, x, wind=wind: wind)
        np.testing.assert_array_equal(moved.drift(0.0, PLANE), still + 0.5)
        assert moved.drift(0.0, torch.tensor(PLANE, dtype=torch.float32)).dtype == torch.float32


def test_mean_fields_and_opinions_ask_the_same():
    density = kd.mean_field.von_mises(cells=128, kappa=0.1)
    for given, words in (
        ({"response": lambda t, x, v: v[:1]}, "response must return one value for each particle"),
        ({"external": lambda t, x: x[:, 0]}, "external must return one value for each particle"),
        ({"value": np.ones((1, 2))}, "value must have shape"),
    ):
        with pytest.raises(ValueError, match=words):
            kd.mean_field.solve(kd.Dynamics(kd.krause(0.3), kd.Circle(), **given), density, 0.1)
    with pytest.raises(ValueError, match="external must return one value for each particle"):
        kd.hegselmann_krause([0.0, 0.2, 3.0], 0.5, external=lambda t, x: 0.01 * x[:, 0], max_steps=2)


@pytest.mark.parametrize("library", [np.asarray, torch.tensor])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pair_bias_is_numbers_or_no_hearing(library, bad):
    with pytest.raises(ValueError, match="pair_bias must hold numbers or -inf"):
        kd.krause(1.0, pair_bias=library([[0.0, bad], [-np.inf, 0.0]]))


@pytest.mark.parametrize("impl", ["reference", "blocked", "neighbours", "network"])
def test_an_infinite_affinity_is_refused_where_it_is_heard(impl):
    """1/r of the own position: the mean was NaN, without a word."""
    singular, ball, ring = kd.Radial(lambda r: 1 / np.maximum(r, 0)), kd.Within(4.0), kd.Graph(np.ones((5, 5)))
    ball = ball & ring if impl == "network" else ball
    with np.errstate(divide="ignore"):
        with pytest.raises(ValueError, match="affinities must be finite .* kd.Others"):
            kd.aggregate(kd.Interaction(singular, ball), PLANE, impl=impl)
        found = kd.aggregate(kd.Interaction(singular, ball & kd.Others()), PLANE, impl=impl).mean
    np.testing.assert_allclose(found[0], PLANE[1], rtol=1e-12)  # the one other within 4


def test_phi_gives_an_affinity_for_each_distance():
    with pytest.raises(ValueError, match=r"phi must .* shape \(5, 5\), got 1.0; .* kd.Flat"):
        kd.aggregate(kd.Interaction(kd.Radial(lambda r: 1.0)), PLANE)


@pytest.mark.parametrize("batch", [np.zeros((0, 4, 2)), torch.zeros((0, 4, 2))])
def test_a_batch_of_no_runs_is_refused(batch):
    for call in (lambda: kd.aggregate(RULE, batch), lambda: kd.simulate(kd.Dynamics(RULE), batch, 1.0)):
        with pytest.raises(ValueError, match=r"at least one run .* \(0, 4, 2\)"):
            call()


def test_sizes_at_the_end_of_floats():
    """The square of a radius may leave the floats: all are within, without a warning. Sums of opinions may not."""
    np.testing.assert_allclose(kd.aggregate(kd.bounded_confidence(1e308), PLANE).mean, [[4.0, 5.0]] * 5)
    with pytest.raises(ValueError, match="sums of two opinions"):
        kd.hegselmann_krause([1e308, 0.9e308], 1e308)
