"""What advances a model, and what a checkpoint file says of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np

from krause_dynamics.interaction import Edges
from krause_dynamics.opinions.merging import Merging
from krause_dynamics.opinions.model import Model
from krause_dynamics.opinions.schedules import Deffuant, Sequential
from krause_dynamics.opinions.sequential import OneByOne, Pairwise
from krause_dynamics.opinions.stepwise import Stepwise
from krause_dynamics.runs.fingerprints import fingerprint
from krause_dynamics.runs.resuming import Translate, random_state

ROWS_TOGETHER = 1 << 24  # entries of a network's matrix in memory at once


def stepper_of(
    model: Model, x: np.ndarray, tolerance: float, rng: Any, *, watched: bool
) -> Callable[[str], Merging | Stepwise]:
    """How to make the stepper for a given ``impl``: the name of a form goes step by step through that form.

    Args:
        model: Who hears whom.
        x: Initial opinions (n, d).
        tolerance: Less than this is no motion.
        rng: What is drawn from, or ``None``.
        watched: Whether somebody looks at every unit of time.
    """

    def bind(impl: str) -> Merging | Stepwise:
        if model.is_classical and impl in ("auto", Merging.impl):
            return Merging(model, x, tolerance, watched=watched)
        kind = {Sequential: OneByOne, Deffuant: Pairwise}.get(type(model.schedule), Stepwise)
        return kind(model, x, tolerance, rng, impl)

    return bind


def identity(model: Model, impl: str, x: np.ndarray, rng: Any) -> dict[str, Any]:
    """What makes a run this one; JSON-ready. Files of 0.1.0 hold no ``impl``."""
    started = {"x0": fingerprint(x), "random": random_state(rng), "impl": impl}
    held = {"weights": fingerprint(model.masses), "graph": None if model.edges is None else _mark(model.edges)}
    if model.rule.pair_bias is not None:
        held["weights of the network"] = fingerprint(model.rule.pair_bias)
    return {**started, **held, **model.describe()}


def translator(stepper: Merging | Stepwise) -> Translate:
    """Reads the files of 0.1.0, which called things by other names and did not say which form they are of."""

    def translate(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        if "stepper" in header:
            return
        if ("atoms" in arrays) != isinstance(stepper, Merging):
            raise ValueError("checkpoint belongs to a run of another impl; choose another path, or give that impl")
        header |= {"t": float(header.pop("time")), "stepper": {"taken": header.pop("steps")}, "memories": []}
        header["record"] = {"stride": header.pop("stride")}
        arrays["positions"] = arrays.pop("states")
        if isinstance(stepper, Merging):
            stepper.restore(header["stepper"], arrays)
            arrays["x"] = stepper.positions

    return translate


def _mark(edges: Edges) -> str:
    """`fingerprint` of the network's matrix, as in files of earlier releases, a few rows at a time."""
    digest, rows = hashlib.sha256(), max(1, ROWS_TOGETHER // max(edges.nodes, 1))
    for start in range(0, edges.nodes, rows):
        index = np.arange(start, min(start + rows, edges.nodes))
        part = np.zeros((len(index), edges.nodes), bool)
        part[edges.heard_by(index)] = True
        digest.update(part.tobytes())
    digest.update(repr((edges.shape, np.dtype(bool).str)).encode())
    return digest.hexdigest()[:16]
