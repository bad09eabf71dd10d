"""Rows of every ``space=``: on a torus a cloud cut by the border is the same cloud moved to where nothing is cut."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd
import krause_dynamics.mean_field as mf
from krause_dynamics import stopping
from tests.keywords.row import row

TORUS = kd.Torus(2.0)
RULE = kd.bounded_confidence(0.3)
WHOLE = 0.7 + 0.5 * np.random.default_rng(40).random((8, 2))  # nothing crosses a border
CUT = TORUS.retract(WHOLE + 1.1)
OTHERS = 0.7 + 0.5 * np.random.default_rng(41).random((5, 2))


def alike(function, first, second, *, differs=True):
    """Without a space the cut cloud is another one; on the torus it is the whole one."""
    assert (first, second) == (None, TORUS)
    whole = function(WHOLE, None)
    np.testing.assert_allclose(function(CUT, second), whole, atol=1e-12)
    np.testing.assert_allclose(function(WHOLE, second), whole, atol=1e-12)
    assert not np.allclose(function(CUT, first), whole)


@row("kd.operators.matrix", "space", None, TORUS, "a source across the border has its weight")
def matrix_space(first, second):
    alike(lambda x, space: kd.operators.matrix(kd.krause(0.2), x, space=space), first, second)
    alike(lambda x, space: kd.operators.matrix(RULE, x, sparse=True, space=space).toarray(), first, second)
    others = kd.operators.matrix(RULE, CUT, TORUS.retract(OTHERS + 1.1), log_mass=np.arange(5.0), space=second)
    np.testing.assert_allclose(others, kd.operators.matrix(RULE, WHOLE, OTHERS, log_mass=np.arange(5.0)), atol=1e-12)


@row("kd.operators.support", "space", None, TORUS, "who is near across the border is admitted")
def support_space(first, second):
    for sparse in (False, True):
        admitted = kd.operators.support(RULE, CUT, space=second, sparse=sparse)
        whole = kd.operators.support(RULE, WHOLE, sparse=sparse)
        assert (admitted != whole).sum() == 0
    alike(lambda x, space: kd.operators.support(RULE, x, space=space).astype(float), first, second)


@row("kd.graphs.interaction_graph", "space", None, TORUS, "edges cross the border")
def graph_space(first, second):
    edges = [sorted(kd.graphs.interaction_graph(RULE, x, space=s).edges) for x, s in ((WHOLE, first), (CUT, second))]
    assert edges[0] == edges[1] != sorted(kd.graphs.interaction_graph(RULE, CUT).edges)


@row("kd.graphs.components", "space", None, TORUS, "components reach over the border; a run knows its space")
def components_space(first, second):
    labels = kd.graphs.components(RULE, CUT[None], space=second)
    np.testing.assert_array_equal(labels, kd.graphs.components(RULE, WHOLE[None]))
    assert labels.max() < kd.graphs.components(RULE, CUT[None], space=first).max()
    run = kd.simulate(kd.Dynamics(RULE, TORUS), CUT, 0.05)
    np.testing.assert_array_equal(kd.graphs.components(RULE, run)[0], labels[0])


@row("kd.observables.diameter", "space", None, TORUS, "the short way round")
def diameter_space(first, second):
    alike(lambda x, space: kd.observables.diameter(x, space=space), first, second)
    masses = np.log([1.0, 1, 1, 0, 1, 1, 1, 1], where=np.arange(8) != 3, out=np.full(8, -np.inf))
    for x, space in ((WHOLE, None), (CUT, second)):
        kept = kd.observables.diameter(np.delete(WHOLE, 3, axis=0))
        np.testing.assert_allclose(kd.observables.diameter(x, log_mass=masses, space=space), kept)
    np.testing.assert_allclose(kd.observables.diameter(np.eye(2), space=kd.Circle()), np.pi / 2)


@row("kd.observables.dispersion", "space", None, TORUS, "half the mean squared distance of all pairs")
def dispersion_space(first, second):
    alike(lambda x, space: kd.observables.dispersion(x, space=space), first, second)
    masses = np.arange(8.0) / 4
    expected = kd.observables.dispersion(WHOLE, log_mass=masses)
    np.testing.assert_allclose(kd.observables.dispersion(CUT, log_mass=masses, space=second), expected)


@row("kd.observables.mean_step", "space", None, TORUS, "a step over the border is a short one")
def mean_step_space(first, second):
    x = np.array([[[1.99], [0.5]], [[0.01], [0.5]]])
    np.testing.assert_allclose(kd.observables.mean_step(x, space=second), 0.02 / 1.99 / 2)
    np.testing.assert_allclose(kd.observables.mean_step(x, space=first), 1.98 / 1.99 / 2)


@row("kd.mean_field.from_particles", "space", None, TORUS, "the last cell is beside the first")
def from_particles_space(first, second):
    cells = mf.LineCells(10, 0.0, 2.0)
    np.testing.assert_allclose(mf.from_particles(cells, [0.02], space=second).mass[[0, 9]], [0.6, 0.4])
    np.testing.assert_allclose(mf.from_particles(cells, [4.02], space=second).mass[[0, 9]], [0.6, 0.4])
    assert mf.from_particles(cells, [0.02], space=first).mass[0] == 1.0
    with pytest.raises(ValueError, match="cells must cover"):
        mf.from_particles(cells, [0.02], space=kd.Torus(3.0))


@row("kd.energies.energy", "space", None, TORUS, "pairs are as far apart as the nearest images")
@row("kd.energies.gradient", "space", None, TORUS, "forces act across the border")
@row("kd.energies.log_energy", "space", None, TORUS, "a kernel is the sum over all images")
@row("kd.energies.along", "space", None, TORUS, "those of every state; a run knows its space")
def energy_space(first, second):
    masses = np.arange(8.0) / 4
    for rule in (RULE, kd.krause(0.1), kd.krause(0.4, kd.Within(0.3))):
        alike(lambda x, space, rule=rule: kd.energies.energy(rule, x, log_mass=masses, space=space), first, second)
        alike(lambda x, space, rule=rule: kd.energies.gradient(rule, x, log_mass=masses, space=space), first, second)
        alike(lambda x, space, rule=rule: kd.energies.along(rule, np.stack([x, x]), space=space), first, second)
    alike(lambda x, space: kd.energies.log_energy(kd.krause(0.1), x, space=space), first, second)
    run = kd.simulate(kd.Dynamics(RULE, TORUS), CUT, 0.05)
    np.testing.assert_allclose(kd.energies.along(RULE, run)[0], kd.energies.energy(RULE, WHOLE), rtol=1e-12)
    with pytest.raises(ValueError, match="unbounded reach has no periodic form"):
        kd.energies.energy(kd.softmax(1.0), CUT, space=second)


@row("kd.stopping.ClustersSettled", "diameter", None, 0.01, "groups have met, not only found who belongs to them")
def settled_diameter(first, second):
    pair = np.array([[0.05], [1.95]])
    for width, reason in ((first, "clusters settled"), (second, None), (0.11, "clusters settled")):
        assert stopping.ClustersSettled(0.2, diameter=width, space=TORUS)(0.0, pair, pair) == reason
        plane = np.hstack([pair, pair])
        assert stopping.ClustersSettled(0.3, diameter=width, space=TORUS)(0.0, plane, plane) == (
            reason if width != 0.11 else None  # the diagonal is longer
        )
    run = kd.simulate(kd.Dynamics(RULE, TORUS), pair, 9.0, stop=stopping.ClustersSettled(0.3, diameter=second))
    assert run.times[-1] == pytest.approx(np.log(0.1 / second), abs=0.06)  # distance 0.1 exp(-t), asked every step
    with pytest.raises(ValueError, match="at most the radius"):
        stopping.ClustersSettled(0.2, diameter=0.3)


@row("kd.stopping.Consensus", "space", None, TORUS, "two in one place across the border agree")
def consensus_space(first, second):
    assert stopping.Consensus(0.6, space=second)(0.0, CUT, CUT) == "consensus"
    assert stopping.Consensus(0.6, space=first)(0.0, CUT, CUT) is None
    assert stopping.Consensus(0.3, space=second)(0.0, CUT, CUT) is None


@row("kd.stopping.ClustersSettled", "space", None, TORUS, "moving all by any amount changes no answer")
def settled_space(first, second):
    rng, answers, flat = np.random.default_rng(42), [], []
    for d in (1, 2) * 20:
        x = 0.1 + 0.5 * rng.random((3, d))
        moved = TORUS.retract(x - 0.4)
        answers.append(stopping.ClustersSettled(0.3)(0.0, x, x))
        assert stopping.ClustersSettled(0.3, space=second)(0.0, moved, moved) == answers[-1]
        flat.append(stopping.ClustersSettled(0.3, space=first)(0.0, moved, moved))
    assert 3 < sum(answer is None for answer in answers) < 37
    assert flat != answers


@row("kd.stopping.Frozen", "space", None, TORUS, "who crosses the border has hardly moved")
def frozen_space(first, second):
    x = np.array([[2.0 - 1e-14], [1.0]])
    over = np.array([[1e-14], [1.0]])
    assert stopping.Frozen(space=second)(0.0, over, x) == "frozen"
    assert stopping.Frozen(space=first)(0.0, over, x) is None


@row("kd.stopping.Frozen", "reach", None, 1.5, "an agent whom nobody can ever hear makes no motion look small")
def frozen_reach(first, second):
    x = np.arange(9.0)[:, None]
    far = np.concatenate([[[1e9]], x])
    for step, answer in ((7e-12, "frozen"), (9e-12, None)):
        moved = x + step * (np.arange(9) == 8)[:, None]
        assert stopping.Frozen(reach=second)(0.0, moved, x) == answer
        assert stopping.Frozen(reach=second)(0.0, np.concatenate([far[:1], moved]), far) == answer
        assert stopping.Frozen(reach=first)(0.0, np.concatenate([far[:1], moved]), far) == "frozen"
    ends = [kd.simulate(kd.Dynamics(kd.bounded_confidence(second)), y, 60.0, stop=stopping.Frozen()) for y in (x, far)]
    assert ends[0].times[-1] == ends[1].times[-1] < 60.0
    np.testing.assert_allclose(ends[1].final[1:], ends[0].final, rtol=1e-14)
    with pytest.raises(ValueError, match="reach must be positive"):
        stopping.Frozen(reach=0.0)
