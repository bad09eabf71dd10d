"""Affinities of a rule on a grid, by difference of places: read from the rule itself, never written anew."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from scipy.fft import next_fast_len, rfft

from krause_dynamics.forms.lattice.lattices import Lattice
from krause_dynamics.interaction import Interaction, Request, reference


@dataclass(frozen=True)
class Table:
    """Log-affinities by difference of places.

    Attributes:
        logs: Log-affinity of query i and source j at ``logs[(i - j) + (m - 1)]``; length n + m - 1, or m on a circle
            where the difference is taken modulo m and stored from 0.
        cyclic: On the circle.
        places: (n, m).
        first: Index of the first source (negative where a circle was unrolled).
    """

    logs: np.ndarray
    cyclic: bool
    places: tuple[int, int]
    first: int = 0

    @cached_property
    def heard(self) -> np.ndarray:
        """Places in the table that are admitted."""
        return np.flatnonzero(self.logs > -np.inf)

    @cached_property
    def is_window(self) -> bool:
        """Whether all that are admitted count alike and are consecutive."""
        heard = self.heard
        if self.cyclic or not len(heard):
            return False
        return bool(self.logs[heard].min() == self.top and heard[-1] - heard[0] + 1 == len(heard))

    @cached_property
    def top(self) -> float:
        """Largest log-affinity, 0 where nobody is admitted."""
        return float(self.logs.max()) if len(self.heard) else 0.0

    @cached_property
    def norm(self) -> float:
        """Euclidean norm of the affinities divided by their maximum."""
        return float(np.linalg.norm(np.exp(self.logs - self.top)))

    @property
    def length(self) -> int:
        """Length of the transform."""
        return len(self.logs) if self.cyclic else next_fast_len(len(self.logs), real=True)

    @cached_property
    def spectrum(self) -> np.ndarray:
        """Transform of the affinities divided by their maximum, difference 0 first."""
        scaled = np.exp(self.logs - self.top)
        if self.cyclic:
            return rfft(scaled)
        m = self.places[1]
        return rfft(np.concatenate([scaled[m - 1 :], np.zeros(self.length - len(scaled)), scaled[: m - 1]]))

    def tilted(self, tilt: float) -> Table:
        """Affinities times ``exp(tilt * difference)``."""
        return replace(self, logs=self.logs + tilt * (np.arange(len(self.logs)) - (self.places[1] - 1)))

    def unrolled(self) -> Table:
        """A circle as a line: every source within half a turn of a query, once."""
        m = self.places[1]
        half = m // 2
        logs = np.full(m + 3 * m - 1, -np.inf)
        zero = 3 * m - 1 - m  # query 0 and source 0, which is the m-th of three copies
        differences = np.arange(-half, m - half)
        logs[zero + differences] = self.logs[differences % m]
        return Table(logs, False, (m, 3 * m), -m)


class _Points:
    """Carries an array past a cache whose key says all that matters about it."""

    def __init__(self, x: np.ndarray) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Points)

    def __hash__(self) -> int:
        return 0


def table_of(interaction: Interaction, lattice: Lattice, request: Request) -> Table:
    """The table of a rule on a lattice; the last ones are remembered."""
    # Rules compare functions by name, so the function itself joins the key.
    function = getattr(interaction.score, "phi", None)
    return _cached_table(interaction, function, lattice, _Points(request.queries), _Points(request.sources))


@lru_cache(maxsize=16)
def _cached_table(
    interaction: Interaction, function: Any, lattice: Lattice, queries: _Points, sources: _Points
) -> Table:
    """Read the affinities from the rule: one column gives the differences from 0 up, one row those below."""
    column = reference.log_weights(interaction, Request.of(queries.x, sources.x[:1]))[:, 0]
    if lattice.cyclic:
        return Table(column, True, lattice.places)
    row = reference.log_weights(interaction, Request.of(queries.x[:1], sources.x))[0]
    return Table(np.concatenate([row[:0:-1], column]), False, lattice.places)
