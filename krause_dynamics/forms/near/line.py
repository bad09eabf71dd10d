"""A classical Hegselmann-Krause run on a line as a plan: sorted atoms which merge when they meet, advanced many steps
at once.
"""

from __future__ import annotations

import numpy as np

from krause_dynamics.forms.near import line_kernels


class SortedLine:
    """Opinions on a line under the synchronous rule ``x_i <- mean of {x_j : |x_j - x_i| <= radius}``, own opinion
    counted.

    Equal opinions stay equal, so they become one atom of larger mass: late steps are nearly free. A start that is
    symmetric up to rounding stays so: its left half is computed and reflected.

    Attributes:
        steps: Steps so far in which some opinion moved by more than the tolerance.
        frozen: Whether the last call met a state in which nothing moves.
        mirrored: Whether the start was symmetric.
    """

    def __init__(self, x0: np.ndarray, radius: float, tolerance: float, *, masses: np.ndarray | None = None) -> None:
        """Sort and merge the start.

        Args:
            x0: Opinions (n,), finite.
            radius: Closed confidence bound (`krause_dynamics.forms.near.ball.effective_radius` for an open one).
            tolerance: Less than this is no motion.
            masses: Weights (n,), positive; by default 1.
        """
        order = np.argsort(x0, kind="stable")
        self._rank = np.empty(order.size, np.int64)
        self._rank[order] = np.arange(order.size)
        position = x0[order]
        mass = np.ones(x0.size) if masses is None else masses[order]
        self.mirrored, self._ends = symmetry(position, mass)
        self._position = position.copy()
        self._mass, self._count = mass.copy(), np.ones(order.size, np.int64)
        self._weighted = bool((mass != np.round(mass)).any() or mass.sum() > 2.0**53)
        self._radius, self._tolerance = float(radius), float(tolerance)
        self._atoms = line_kernels.merge(self._position, self._mass, self._count, order.size, self.mirrored)
        self.steps, self.frozen = 0, False

    def advance(self, steps: int) -> int:
        """Take at most ``steps`` steps and return how many moved something; fewer means frozen."""
        self._atoms, done, self.frozen = line_kernels.advance(
            self._position,
            self._mass,
            self._count,
            self._atoms,
            self._radius,
            self._weighted,
            self.mirrored,
            self._ends,
            self._tolerance,
            steps,
        )
        self.steps += done
        return int(done)

    def arrays(self) -> dict[str, np.ndarray]:
        """The state for a checkpoint file; `restore` is the inverse for a plan of the same start."""
        k = self._atoms
        return {"atoms": self._position[:k], "atom_masses": self._mass[:k], "atom_counts": self._count[:k]}

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        """Continue from `arrays` after ``steps`` steps."""
        self._atoms, self.steps, self.frozen = arrays["atoms"].size, steps, False
        self._position, self._mass = arrays["atoms"].copy(), arrays["atom_masses"].copy()
        self._count = arrays["atom_counts"].copy()

    @property
    def atoms(self) -> np.ndarray:
        """Positions of the atoms, increasing: (k,)."""
        return self._position[: self._atoms].copy()

    @property
    def masses(self) -> np.ndarray:
        """Masses of the atoms: (k,)."""
        return self._mass[: self._atoms].copy()

    @property
    def owner(self) -> np.ndarray:
        """Which atom each opinion belongs to, in the order of ``x0``: (n,)."""
        return np.repeat(np.arange(self._atoms), self._count[: self._atoms])[self._rank]

    @property
    def positions(self) -> np.ndarray:
        """All opinions in the order of ``x0``: (n,)."""
        return np.repeat(self.atoms, self._count[: self._atoms])[self._rank]


def symmetry(position: np.ndarray, mass: np.ndarray) -> tuple[bool, float]:
    """Whether sorted positions and masses are symmetric up to rounding, and the sum of two mirrored positions.

    The median of the sums is exact where most are, as on lattices of exact numbers whose ends are none.
    """
    sums = position + position[::-1]
    ends = float(np.partition(sums, sums.size // 2)[sums.size // 2])
    rounding = 8 * np.finfo(float).eps * float(np.abs(position).max())
    same = position[1:] == position[:-1]
    mirrored = np.abs(sums - ends).max() <= rounding and (mass == mass[::-1]).all() and (same == same[::-1]).all()
    return bool(mirrored), ends
