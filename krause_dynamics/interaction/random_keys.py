"""Fixed random keys: every query hears as many places as the others, drawn once and for all from a seed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from krause_dynamics._arguments import COUNT, COUNT_OR_ZERO
from krause_dynamics._array import Array, device, to_numpy
from krause_dynamics.interaction.neighbourhoods import Neighbourhood, Pairs
from krause_dynamics.interaction.reach import Reach

PAIRS_A_BLOCK = 1 << 22
NOBODY = np.iinfo(np.uint64).max


@dataclass(frozen=True, eq=False)
class RandomKeys(Neighbourhood):
    """Each query's own place and ``degree - 1`` others, the same at every call: the control of a window or a rank.

    Who hears whom follows from the numbers below alone, on every machine.

    Attributes:
        degree: Number of places that a query hears, its own counted, at least 1 (all where there are fewer).
        seed: Whole number from 0 to 2^63 - 1.
        tokens: Number of places among which is drawn; ``None`` draws from a query's own past (causal, at any length).
        prefix: Leading tokens (CLS, registers) which hear all and are heard by all; they do not count in the degree.
    """

    degree: int
    seed: int = 0
    tokens: int | None = None
    prefix: int = 0
    hears_itself = True

    def __post_init__(self) -> None:
        COUNT.read("RandomKeys degree", self.degree)
        COUNT_OR_ZERO.read("RandomKeys seed", self.seed)
        COUNT_OR_ZERO.read("RandomKeys prefix", self.prefix)
        if self.tokens is not None:
            COUNT.read("RandomKeys tokens", self.tokens)

    def admits(self, pairs: Pairs) -> Array:
        queries, sources = to_numpy(pairs.query_index), to_numpy(pairs.source_index)
        places = int(max(queries.max(), sources.max())) + 1
        if places > (self.tokens or places):
            raise ValueError(
                f"RandomKeys has {self.tokens} tokens, but place {places - 1} takes part; give one a token"
            )
        inside = (queries >= 0)[..., :, None] & (sources >= 0)[..., None, :]
        chosen = admitted(self.reach, places)[queries[..., :, None], sources[..., None, :]] & inside
        return pairs.xp.asarray(chosen, device=device(pairs.queries))

    @property
    def reach(self) -> Reach:
        numbers = (int(self.degree), int(self.seed), self.tokens or 0, int(self.prefix))
        return Reach(right=0, random=numbers) if self.tokens is None else Reach(random=numbers)


def admitted(reach: Reach, places: int) -> np.ndarray:
    """Which of the first places hear which, (places, places) booleans; windows joined to the reach left aside."""
    degree, seed, tokens, prefix = reach.random
    chosen = np.zeros((places, places), bool)
    heard = table(degree, seed, tokens, prefix, places)
    row, column = np.nonzero(heard >= 0)
    chosen[row, heard[row, column]] = True
    chosen[:prefix] = True
    return chosen if tokens else np.tril(chosen)


@lru_cache(maxsize=16)
def table(degree: int, seed: int, tokens: int, prefix: int, rows: int) -> np.ndarray:
    """Who is heard by each of the first ``rows`` places: (rows, prefix + degree) rising, padded with -1 in front.

    Row i holds the prefix, i itself and the ``degree - 1`` other places of smallest hash of (seed, i, j). Rows of the
    prefix, which hear all, are -1.

    Args:
        degree: As in `RandomKeys`.
        seed: Likewise.
        tokens: Likewise; 0 draws from the past of each row.
        prefix: Likewise.
        rows: Number of rows.
    """
    found = np.full((rows, prefix + degree), -1, np.int32)
    size = max(1, PAIRS_A_BLOCK // max(1, tokens or rows))
    for begin in range(prefix, rows, size):
        own = np.arange(begin, min(begin + size, rows))[:, None]
        found[own[:, 0], prefix : prefix + 1] = own
        others = np.arange(prefix, tokens or own[-1, 0])
        number = min(degree - 1, len(others))
        if number:
            hashed = np.where((others == own) | (others > (tokens or own)), NOBODY, _mixed(seed, own, others))
            best = np.argpartition(hashed, number - 1, axis=1)[:, :number]
            there = np.take_along_axis(hashed, best, axis=1) != NOBODY
            found[own, prefix + 1 + np.arange(number)] = np.where(there, others[best], -1)
        found[own, np.arange(prefix)] = np.arange(prefix)
    found.sort(axis=1)
    found.flags.writeable = False
    return found


def _mixed(seed: int, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """A 64-bit hash of (seed, i, j): the finaliser of splitmix64 (Steele, Lea & Flood 2014), twice."""
    x = _finalised(i.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed))
    return _finalised(x + (j.astype(np.uint64) + np.uint64(1)) * np.uint64(0xD1B54A32D192ED03))


def _finalised(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
