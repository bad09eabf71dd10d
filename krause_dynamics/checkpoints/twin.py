"""The theory's particles, started where a trained model starts: its own embeddings, one layer a unit of time."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from krause_dynamics._arguments import POSITIVE, Is, Maybe, Whole, reads
from krause_dynamics.checkpoints.one_sequence import states_of
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.dynamics.initial import from_states
from krause_dynamics.interaction import Interaction
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Sphere
from krause_dynamics.trajectory import Trajectory

LONGEST = 0.1  # of the integrator's steps


@reads(
    run=Is(Trajectory, "checkpoints.record(model, inputs)"),
    rule=Is(Interaction, "kd.softmax(beta=1.0)"),
    sequence=Whole(0),
    step=Maybe(POSITIVE),
)
def twin(run: Trajectory, rule: Interaction, *, sequence: int = 0, step: float | None = None) -> Trajectory:
    """Particles on the sphere under a rule, from the directions of a model's embeddings, over as many layers.

    They have neither the model's matrices nor its feed-forward layers: what the model shares with them is attention's
    own doing. Every plot and measure of a recorded run takes the result, so that it stands beside the model.

    Args:
        run: Of `record`.
        rule: Such as ``kd.softmax(beta=1.0, neighbourhood=kd.Causal())`` or ``kd.krause(sigma=1.0, ...)``; no attention
            of the model is looked at.
        sequence: Which one.
        step: Time of a layer; None (default): the mean angle by which a block of the model turns its tokens, in
            radians, the one number that is taken from the model's motion.

    Returns:
        Trajectory with ``times`` 0..L and ``positions`` (L + 1, T, d) of unit vectors.

    Raises:
        ValueError: No such sequence, or an embedding at 0.
    """
    states = states_of(run, sequence)
    start, layers = from_states(states, normalise=True), len(states) - 1
    time = _mean_angle(states) if step is None else step
    dt = time / math.ceil(time / LONGEST)
    found = simulate(Dynamics(rule, Sphere()), start, time * layers, dt=dt, save_every=round(time / dt))
    meta = found.meta | {"axis": "layer", "time_of_a_layer": time, "twin_of": run.meta.get("model", "")}
    return replace(found, times=np.arange(layers + 1, dtype=float), meta=meta)


def _mean_angle(states: np.ndarray) -> float:
    """Mean over layers and tokens of the angle between a token's directions before and after a block."""
    norms = np.linalg.norm(states, axis=-1, keepdims=True)
    units = states / np.where(norms > 0, norms, 1.0)
    return float(np.arccos(np.clip(np.sum(units[1:] * units[:-1], axis=-1), -1.0, 1.0)).mean()) or LONGEST
