"""kd.checkpoints.twin: against the simulator on the same embeddings, and what the theory says of causal attention."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

TWIN = "kd.checkpoints.twin"
SOFTMAX = kd.softmax(beta=1.0)
CAUSAL = kd.softmax(beta=1.0, neighbourhood=kd.Causal())


@cache
def recorded():
    pytest.importorskip("transformers")
    from tests import checkpoint_models

    return kd.checkpoints.record(checkpoint_models.llama(), [[3, 14, 15, 9, 26], [5, 35, 8, 9]], attention=None)


def directions(run, sequence, layer=0):
    x = run.positions[layer, sequence, : int(run.extras["lengths"][sequence])].astype(float)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@row(TWIN, "run", 0, 1, "starts from the directions of the embeddings and has as many states as the model")
def run(first, second):
    whole = recorded()
    for layers in (whole, whole[: 3 - second]):
        found = kd.checkpoints.twin(layers, SOFTMAX, sequence=first)
        assert len(found.positions) == len(layers.positions)
        np.testing.assert_allclose(found.positions[0], directions(whole, 0), atol=1e-12)
        np.testing.assert_allclose(np.linalg.norm(found.positions, axis=-1), 1.0, atol=1e-12)


@row(
    TWIN,
    "rule",
    SOFTMAX,
    CAUSAL,
    "tokens that hear all draw together; the first of a causal rule hears itself: it stays",
)
def rule(first, second):
    whole, causal = (kd.checkpoints.twin(recorded(), one, step=0.5) for one in (first, second))
    cosines = [float(kd.observables.mean_cosine(x)) for x in whole.positions]
    assert np.all(np.diff(cosines) > 0)
    np.testing.assert_allclose(causal.positions[:, 0], causal.positions[0, 0][None].repeat(4, 0), atol=1e-12)
    assert not np.allclose(causal.positions[-1, 1], causal.positions[0, 1])


@row(TWIN, "sequence", 0, 1, "that one, as long as it is")
def sequence(first, second):
    for number in (first, second):
        found = kd.checkpoints.twin(recorded(), SOFTMAX, sequence=number)
        np.testing.assert_allclose(found.positions[0], directions(recorded(), number), atol=1e-12)
    with pytest.raises(ValueError, match="sequence must be one of the 2"):
        kd.checkpoints.twin(recorded(), SOFTMAX, sequence=2)


@row(TWIN, "step", None, 0.25, "time of a layer: the simulator's states at those times; None: the model's mean angle")
def step(first, second):
    start = directions(recorded(), 0)
    given = kd.checkpoints.twin(recorded(), SOFTMAX, step=second)
    dynamics = kd.Dynamics(SOFTMAX, kd.Sphere())
    exact = kd.simulate(dynamics, start, 3 * second, dt=0.01, save_at=[second * layer for layer in range(4)])
    np.testing.assert_allclose(given.positions, exact.positions, atol=1e-6)
    own = kd.checkpoints.twin(recorded(), SOFTMAX, step=first)
    turns = [
        np.arccos(np.clip((directions(recorded(), 0, at + 1) * directions(recorded(), 0, at)).sum(-1), -1, 1))
        for at in range(3)
    ]
    assert own.meta["time_of_a_layer"] == pytest.approx(np.mean(turns), rel=1e-6)
