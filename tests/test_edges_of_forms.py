"""Forms at the edges of what they take: a place too few, two of a kind, the largest exponent, nobody at all."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate import weight_blocks
from krause_dynamics.forms.attention import banded_operators, engine
from krause_dynamics.forms.near import cell_lists, network
from krause_dynamics.interaction import Aggregate, Request
from krause_dynamics.nn.arguments import call_of

LINKS = np.array([[1, 1, 0, 1], [0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 1, 1]], dtype=bool)


def same(found, exact):
    np.testing.assert_allclose(found.mean, exact.mean, atol=1e-13)
    np.testing.assert_allclose(found.log_partition, exact.log_partition, atol=1e-13)


def test_networks_take_one_graph_and_one_radius():
    request = Request.of(np.zeros((4, 1)))
    one, near = kd.Graph(LINKS), kd.Within(1.0)
    for heard in (one, one & near, one & kd.Others(), one & near & kd.Others()):
        assert network.supports(kd.bounded_confidence(1.0, heard) if heard is one else _flat(heard), request) is None
    for heard in (near, one & kd.Graph(LINKS.T), one & near & kd.Within(0.5), one & kd.Causal(), one & kd.TopK(2)):
        assert "exactly one Graph" in network.supports(_flat(heard), request)


def _flat(heard):
    return kd.Interaction(kd.Flat(), heard)


@pytest.mark.parametrize("sources", [2, 3, 4])
@pytest.mark.parametrize("rule", [kd.krause(1.0, kd.Graph(LINKS)), _flat(kd.Graph(LINKS))])
def test_of_a_network_only_the_sources_that_are_there_are_heard(rule, sources, rng):
    x = rng.normal(size=(4, 2))
    arrays = {"query_index": np.arange(4), "source_index": np.arange(sources)}
    found, exact = (kd.aggregate(rule, x, x[:sources], impl=impl, **arrays) for impl in ("network", "reference"))
    same(found, exact)


def test_a_planned_network_means_values_of_their_own_and_absent_sources(rng):
    """Compiled means serve positions alone; what else is asked goes along the links."""
    rule, x = _flat(kd.Graph(LINKS)), rng.normal(size=(4, 2))
    chosen, values = kd.plan(rule, x, impl="network"), rng.normal(size=(4, 3))
    masses = rng.normal(size=4), np.array([0.0, -np.inf, 1.0, 0.0])
    for arrays in ((x,), (x, x, values), (x, x + 1.0)):
        for log_mass in (None, *masses):
            same(chosen(*arrays, log_mass=log_mass), kd.aggregate(rule, *arrays, log_mass=log_mass, impl="reference"))


@pytest.mark.parametrize(("exponent", "taken"), [(59.0, True), (61.0, False)])
def test_cells_take_a_gaussian_that_falls_to_e_to_the_minus_60_at_the_radius(exponent, taken):
    request = Request.of(torch.zeros(4, 2, dtype=torch.float64))
    for radius in (0.5, 2.0):
        rule = kd.krause(radius / (2 * exponent) ** 0.5, kd.Within(radius))
        reason = cell_lists.supports(rule, request)
        assert (reason is None) if taken else (f"e^-{exponent:.0f} at the radius" in reason)


def test_results_over_parts_of_the_sources_join_where_nobody_is_in_a_part(rng):
    x, y = rng.normal(size=(3, 2)), rng.normal(size=(6, 2))
    log_mass = np.array([0.0, 1.0, -np.inf, -np.inf, -np.inf, 0.5])
    for masses in (log_mass, np.full(6, -np.inf)):
        cuts = (slice(2), slice(2, 4), slice(4, 6))
        parts = [kd.aggregate(kd.softmax(1.0), x, y[cut], log_mass=masses[cut]) for cut in cuts]
        same(Aggregate.joined(parts), kd.aggregate(kd.softmax(1.0), x, y, log_mass=masses))


def test_statistics_of_scores_that_no_exponential_holds(rng):
    """Scores of 1e4: shifted by the largest they are those of the nearest alone."""
    x = 100.0 * kd.Sphere().sample(5, 3, 0)
    found = kd.statistics(kd.softmax(1.0), x)
    np.testing.assert_allclose(found.own, 1.0)
    np.testing.assert_allclose(found.received, 1.0)
    np.testing.assert_allclose(found.entropy, 0.0, atol=1e-12)


def test_the_reference_of_statistics_is_one_block_of_all_pairs(monkeypatch, rng):
    x, counted = rng.normal(size=(9, 2)), []
    given = weight_blocks._normalised
    monkeypatch.setattr(weight_blocks, "_rows_a_block", lambda *_: 2)
    monkeypatch.setattr(weight_blocks, "_normalised", lambda xp, logs: counted.append(logs.shape) or given(xp, logs))
    blocks = kd.statistics(kd.krause(1.0), x)
    assert counted == [(2, 9)] * 4 + [(1, 9)]
    counted.clear()
    whole = kd.statistics(kd.krause(1.0), x, impl="reference")
    assert counted == [(9, 9)]
    for mine, theirs in zip(blocks, whole, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-13)


def test_away_from_the_cpu_no_selection_is_kept():
    """Seen on the meta device, which has shapes and no numbers."""
    q = torch.zeros(1, 2, 6, 4, device="meta")
    rule = kd.Window(3) & kd.TopK(2)
    call = call_of(q, q, q, rule.reach, sigma=2.0)
    out, log_partition = banded_operators.banded(call)
    assert (out.shape, log_partition.shape, out.device.type) == ((1, 2, 6, 4), (1, 2, 6), "meta")
    selection = engine.forward(call._replace(scale=torch.ones(1, 2, device="meta")), save=False)[2]
    assert (selection.shape, selection.dtype, selection.device.type) == ((0,), torch.uint8, "meta")


def test_a_pair_bias_is_lowered_for_the_default_indices():
    q = torch.zeros(1, 1, 5, 3, dtype=torch.float64)
    rule = kd.softmax(1.0, kd.Causal(), pair_bias=torch.zeros(5, 5, dtype=torch.float64))
    assert kd.supported(rule, q)["banded"] is None
    index = torch.arange(5)
    given = kd.supported(rule, q, query_index=index, source_index=index)["banded"]
    assert "default indices only" in given


@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_everything_is_decided_where_two_particles_coincide(library):
    """Ties of positions, radii and ranks at once: the definition and every form that takes the case agree."""
    x = np.repeat([[0.0], [1.0], [2.0]], 3, axis=0)
    x = x if library == "numpy" else torch.as_tensor(x)
    for heard in (kd.Within(1.0), kd.Within(1.0, closed=False), kd.TopK(3), kd.TopK(3, ties="keep"), kd.Others()):
        for rule in (kd.krause(1.0, heard), _flat(heard)):
            exact = kd.aggregate(rule, x, impl="reference")
            for form, reason in kd.supported(rule, x).items():
                if reason is None:
                    same(kd.aggregate(rule, x, impl=form), exact)
