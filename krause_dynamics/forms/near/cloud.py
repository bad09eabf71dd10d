"""A classical Hegselmann-Krause run in several dimensions as a plan: atoms which merge when they meet."""

from __future__ import annotations

import numpy as np

from krause_dynamics._compiled import njit
from krause_dynamics.forms.near.ball import Ball
from krause_dynamics.forms.near.near_means import Entry, flat_means

POLISHING_STEPS = 64  # as on a line: uncounted steps below the tolerance that let the last roundings merge


class Cloud:
    """Opinions in d dimensions under the synchronous rule, own opinion counted; equal ones become one heavier atom.

    Means come from integer sums, so all who hear the same set meet in one point exactly, and late steps are nearly
    free.

    Attributes:
        steps: Steps so far in which some coordinate moved by more than the tolerance.
        frozen: Whether nothing moves any more.
    """

    def __init__(self, x0: np.ndarray, ball: Ball, tolerance: float, *, masses: np.ndarray | None = None) -> None:
        """Merge equal opinions of the start.

        Args:
            x0: (n, d), finite.
            ball: Whom everybody hears.
            tolerance: Less than this is no motion.
            masses: Weights (n,), positive; by default 1.
        """
        self._position, self._ball, self._tolerance = np.array(x0), ball, tolerance
        self._mass = np.ones(x0.shape[0]) if masses is None else np.array(masses)
        self._owner = np.arange(x0.shape[0])
        self.steps, self.frozen = 0, False
        self._merge()

    def advance(self, steps: int) -> int:
        """Take at most ``steps`` steps and return how many moved something; fewer means frozen."""
        done, polished = 0, 0
        while done < steps and not self.frozen:
            x = self._position
            entry = Entry(x, x, x, self._mass, self._ball, np.full(x.shape[0], -1))
            self._position, _ = flat_means(entry, self._mass)
            largest = float(np.abs(self._position - x).max())
            if largest > self._tolerance:
                done, polished = done + 1, 0
            else:
                polished += 1
            merged = self._merge()
            self.frozen = largest <= self._tolerance and (polished > POLISHING_STEPS or (largest == 0.0 and not merged))
        self.steps += done
        return done

    def arrays(self) -> dict[str, np.ndarray]:
        """The state for a checkpoint file; `restore` is the inverse for a plan of the same start."""
        return {"atoms": self._position, "atom_masses": self._mass, "owner": self._owner}

    def restore(self, arrays: dict[str, np.ndarray], steps: int) -> None:
        """Continue from `arrays` after ``steps`` steps."""
        self._position, self._mass, self._owner = arrays["atoms"], arrays["atom_masses"], arrays["owner"]
        self.steps, self.frozen = steps, False

    def _merge(self) -> bool:
        """Join atoms at one position, their masses added; whether there were any."""
        x = self._position + 0.0  # -0 and 0 are one position
        atom, count = _same(x.view(np.int64))
        if count == x.shape[0]:
            return False
        first = np.empty(count, np.int64)
        first[atom[::-1]] = np.arange(x.shape[0])[::-1]
        self._position, self._mass = x[first], np.bincount(atom, weights=self._mass)
        self._owner = atom[self._owner]
        return True

    @property
    def atoms(self) -> np.ndarray:
        """Positions of the atoms: (k, d)."""
        return self._position

    @property
    def masses(self) -> np.ndarray:
        """Masses of the atoms: (k,)."""
        return self._mass

    @property
    def owner(self) -> np.ndarray:
        """Which atom each opinion belongs to: (n,)."""
        return self._owner

    @property
    def positions(self) -> np.ndarray:
        """All opinions in the order of ``x0``: (n, d)."""
        return self._position[self._owner]


@njit()
def _same(bits):
    """Number the distinct rows of ``bits`` (n, d) by first appearance: (number of each row, how many)."""
    n, d = bits.shape
    size = 16
    while size < 2 * n:
        size *= 2
    table, number, count = np.full(size, -1), np.empty(n, np.int64), 0
    for i in range(n):
        key = np.uint64(0)
        for k in range(d):
            key = (key ^ np.uint64(bits[i, k])) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(29)
        slot = np.int64(key & np.uint64(size - 1))
        while True:
            j = table[slot]
            if j < 0:
                table[slot], number[i] = i, count
                count += 1
                break
            same = True
            for k in range(d):
                same &= bits[i, k] == bits[j, k]
            if same:
                number[i] = number[j]
                break
            slot = (slot + 1) & (size - 1)
    return number, count
