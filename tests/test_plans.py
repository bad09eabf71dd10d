"""A plan: the form chosen once, prepared once for each rule, and never with a learnable parameter frozen in it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate import FORMS, choose, form, plan_request
from krause_dynamics.aggregate.registry import AUTO
from krause_dynamics.dynamics import target, velocity
from krause_dynamics.forms.attention.lowering import Lowered
from krause_dynamics.forms.near.ball import is_worth
from krause_dynamics.interaction import Aggregate, Request
from krause_dynamics.interaction.reach import Reach


@pytest.fixture
def prepared(monkeypatch):
    """Rules for which the blocked form was prepared, in order."""
    blocked, rules = form("blocked"), []
    prepare = blocked.prepare

    def counting(interaction, request):
        rules.append(interaction)
        return prepare(interaction, request)

    monkeypatch.setattr(blocked, "prepare", counting)
    return rules


def test_every_form_is_a_form():
    for name in FORMS:
        assert all(callable(getattr(form(name), function)) for function in ("supports", "pays", "prepare"))


def test_auto_asks_forms_that_take_the_arrays_and_pay_for_one_call():
    """In the order of the table, the reference last of all and so not among them."""
    assert AUTO == {
        "numpy": ["network", "sorted1d", "neighbours", "blocked"],
        "torch": ["network", "cells", "triton", "sdpa", "banded", "recomputed", "blocked"],
    }


def test_a_loop_counts_the_pairs_of_a_run_and_a_single_call_those_of_all_runs():
    once = Request.of(np.zeros((3, 10, 1)), np.zeros((3, 20, 1)))
    assert is_worth(once, 10**9, 600)
    assert not is_worth(once, 0, 601)
    loop = replace(once, repeated=True)
    assert is_worth(loop, 200, 10**9)
    assert not is_worth(loop, 201, 0)


def test_a_constant_rule_is_prepared_once(rng, prepared):
    kd.simulate(kd.Dynamics(kd.softmax(2.0)), rng.standard_normal((6, 2)), 0.5, dt=0.1, impl="blocked")
    assert len(prepared) == 1


def test_a_rule_that_changes_is_prepared_once_per_change(rng, prepared):
    layers = kd.PerLayer((kd.softmax(2.0), kd.softmax(1.0), kd.softmax(1.0)))  # the last two are equal, not identical
    kd.simulate(kd.Dynamics(layers), rng.standard_normal((6, 2)), 3.0, dt=0.25, integrator=kd.Euler(), impl="blocked")
    assert [rule.score.beta for rule in prepared] == [2.0, 1.0]


def test_a_window_becomes_numbers_once_in_a_run(monkeypatch):
    """Five RK4 steps meet twenty times; the joined reach is found once, and lowering is over before the first step."""
    joined, lowered = [], []
    for owner, name, calls in ((Reach, "of", joined), (Lowered, "of", lowered)):
        original = getattr(owner, name)
        monkeypatch.setattr(owner, name, staticmethod(lambda given, f=original, c=calls: (c.append(1), f(given))[1]))
    x = torch.randn(256, 8, generator=torch.Generator().manual_seed(0))
    counts = []
    for t_end in (0.1, 0.5):
        joined.clear(), lowered.clear()
        rule = kd.krause(1.0, kd.Window(32) & kd.TopK(8))
        run = kd.simulate(kd.Dynamics(rule), x, t_end, dt=0.1, integrator=kd.RK4())
        assert run.meta["impl"] == "banded"
        assert len(joined) == 1
        counts.append(len(lowered))
    assert counts[0] == counts[1]


def test_a_changed_rule_keeps_the_form_or_finds_another(rng):
    x = rng.standard_normal((6, 2))
    request = Request.of(x)
    chosen = plan_request(kd.softmax(1.0), request, "auto")
    sharp = chosen.under(kd.softmax(3.0), request)
    assert (chosen.impl, sharp.impl) == ("blocked", "blocked")
    np.testing.assert_allclose(sharp(x).mean, kd.aggregate(kd.softmax(3.0), x, impl="reference").mean, atol=1e-14)
    own = kd.softmax(np.linspace(1.0, 2.0, 6))  # one beta per listener: blocked cannot
    other = chosen.under(own, request)
    assert other.impl == "reference"
    np.testing.assert_array_equal(other(x).mean, kd.aggregate(own, x, impl="reference").mean)
    with pytest.raises(kd.UnsupportedImplementation, match="per query"):
        plan_request(kd.softmax(1.0), request, "blocked").under(own, request)


@pytest.mark.parametrize("impl", ["reference", "blocked", "recomputed", "banded"])
def test_a_learnable_parameter_is_never_frozen(impl):
    x = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)[:, None]
    sigma = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    rule = kd.krause(sigma)
    chosen = kd.plan(rule, x, impl=impl)
    before = chosen(x)
    (slope,) = torch.autograd.grad(before.log_partition.sum(), sigma)
    h = 1e-5
    with torch.no_grad():
        sigma += h
    after = chosen(x).log_partition.sum() - before.log_partition.sum()
    assert float(after.detach() / h) == pytest.approx(float(slope), rel=1e-3)  # one-sided: error O(h)
    np.testing.assert_allclose(
        chosen(x).mean.detach(), kd.aggregate(kd.krause(0.5 + h), x, impl="reference").mean, atol=1e-12
    )


def test_equal_learnable_parameters_are_different_rules():
    x = torch.linspace(0.0, 1.0, 8, dtype=torch.float64)[:, None]
    one, other = (torch.tensor(0.5, dtype=torch.float64, requires_grad=True) for _ in range(2))
    chosen = kd.plan(kd.krause(one), x, impl="reference").under(kd.krause(other), Request.of(x))
    chosen(x).mean.square().sum().backward()
    assert one.grad is None
    assert other.grad is not None


def test_velocity_and_target():
    """Towards the mean or along it, per capita times Z, and 0 where nobody is heard."""
    x = np.array([[1.0], [2.0], [3.0]])
    heard = Aggregate(np.array([[2.0], [4.0], [0.0]]), np.log([0.5, 0.25, 1.0]) - [0.0, 0.0, np.inf])
    mean, per_capita = kd.softmax(1.0), kd.softmax(1.0, normalised=False)
    np.testing.assert_array_equal(velocity(mean, heard, x, np), [[1.0], [2.0], [0.0]])
    np.testing.assert_array_equal(velocity(mean, heard, None, np), heard.mean)
    np.testing.assert_allclose(velocity(per_capita, heard, x, np), [[0.5], [0.5], [0.0]], rtol=1e-15)
    np.testing.assert_array_equal(target(mean, heard, x, np), [[2.0], [4.0], [3.0]])
    np.testing.assert_allclose(target(per_capita, heard, x, np), [[1.5], [2.5], [3.0]], rtol=1e-15)


def test_former_names_of_the_drift_warn(rng):
    x = rng.standard_normal((4, 2))
    dynamics = kd.Dynamics(kd.krause(1.0))
    with pytest.warns(DeprecationWarning, match="bind"):
        drift = dynamics.flow(x)
    with pytest.warns(DeprecationWarning, match="now drift"):
        old = drift.drift(0.0, x)
    np.testing.assert_array_equal(old, dynamics.bind(x)(0.0, x))


def test_a_loop_takes_compiled_forms_sooner_than_a_single_call(rng):
    """benchmarks/choice.py: at n = 1000 on a line sorting is some thirty times faster, and loading costs a second."""
    x, rule = rng.random((900, 1)), kd.bounded_confidence(0.1)
    assert kd.plan(rule, x).impl == kd.Dynamics(rule).bind(x).impl == "sorted1d"
    assert choose(rule, Request.of(x), "auto").impl == "reference"
    many = rng.random((50, 20, 1))  # runs are met one by one: each is too small, however many there are
    assert kd.plan(rule, many).impl == "reference"


def test_a_small_aggregate_loads_no_compiled_code():
    script = (
        "import sys, numpy as np, krause_dynamics as kd; x = np.ones((4, 1)); kd.aggregate(kd.softmax(1.0), x);"
        "kd.aggregate(kd.bounded_confidence(1.0), x);"
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_auto_goes_on_where_cells_cannot_be_numbered():
    x = torch.rand(1000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rule = kd.bounded_confidence(0.01)
    assert kd.plan(rule, x).impl == "cells"
    x[0] = 1e12
    assert kd.plan(rule, x).impl != "cells"
    assert "extent" in kd.supported(rule, x)["cells"]
    torch.testing.assert_close(kd.aggregate(rule, x).mean[0], x[0])
