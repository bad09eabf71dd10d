"""One sequence of a recorded run, without padding."""

from __future__ import annotations

import numpy as np

from krause_dynamics.trajectory import Trajectory


def states_of(run: Trajectory, sequence: int) -> np.ndarray:
    """Its tokens in every layer, (layers, tokens, dim), float64.

    Args:
        run: Of `record`.
        sequence: Which one.

    Raises:
        ValueError: No such sequence.
    """
    positions = run.positions
    if positions.ndim != 4 or not 0 <= sequence < positions.shape[1]:
        raise ValueError(
            f"sequence must be one of the {positions.shape[1] if positions.ndim == 4 else 0} of a recorded run, "
            f"got {sequence}"
        )
    length = int(run.extras["lengths"][sequence]) if "lengths" in run.extras else positions.shape[2]
    return positions[:, sequence, :length].astype(np.float64)
