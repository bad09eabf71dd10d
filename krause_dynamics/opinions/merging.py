"""The classical rule in compiled runs whose equal opinions merge."""

from __future__ import annotations

import numpy as np

from krause_dynamics._array import Array
from krause_dynamics.forms.near.merging import merging_run
from krause_dynamics.opinions.model import Model
from krause_dynamics.runs.loop import Stepper

PER_CALL = 1 << 20  # agents times steps in one call: progress, Ctrl-C and the checkpoint file are never far


class Merging(Stepper):
    """The classical rule through `merging_run`. Units of time in which nothing moves are not counted: they end it.

    Attributes:
        impl: ``"merging"``.
        form: Name of the form whose means it computes.
    """

    impl = "merging"

    def __init__(self, model: Model, x: np.ndarray, tolerance: float, *, watched: bool) -> None:
        """Sort and merge the start; ``watched`` is whether somebody looks at every unit of time."""
        self.form = "sorted1d" if x.shape[1] == 1 else "neighbours"
        self._run = merging_run(x, model.within, tolerance, masses=model.masses)
        self._most = 1 if watched else max(1, PER_CALL // x.shape[0])

    @property
    def mirrored(self) -> bool:
        """Whether the start was symmetric and is kept so."""
        return bool(getattr(self._run, "mirrored", False))

    @property
    def positions(self) -> np.ndarray:
        """All opinions: (n, d)."""
        return self._run.positions.reshape(self._run.owner.size, -1)

    def step(self, t: float, x: Array, limit: float) -> tuple[float, Array]:
        moved = self._run.advance(min(int(limit - t), self._most))
        self.taken += moved
        self.ended = "frozen" if self._run.frozen else None
        return t + moved, self.positions

    def arrays(self) -> dict[str, np.ndarray]:
        return self._run.arrays()

    def restore(self, state: dict[str, int], arrays: dict[str, np.ndarray]) -> None:
        super().restore(state, arrays)
        self._run.restore(arrays, self.taken)
