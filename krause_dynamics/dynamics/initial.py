"""Initial opinions: drawn by numpy in float64, so that one seed gives the same particles in every array library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from krause_dynamics._arguments import LARGEST, Entries, Flag, Real, Whole, affordable, reads
from krause_dynamics._array import Array, all_finite, as_generator
from krause_dynamics.aggregate import as_points

__all__ = ["dumbbell", "equally_spaced", "from_states", "gaussian", "mixture", "uniform"]

COUNT = Whole(1, LARGEST)


@reads(n=COUNT, d=COUNT, low=Real(), high=Real())
def uniform(n: int, d: int = 1, *, low: float = 0.0, high: float = 1.0, rng: int | np.random.Generator) -> np.ndarray:
    """Independent uniform opinions in a box, (n, d).

    Args:
        n: Number of opinions.
        d: Dimension.
        low: Lower end of every coordinate.
        high: Upper end.
        rng: Seed or generator.

    Raises:
        ValueError: n or d not positive, or ``high`` not above ``low``.
    """
    _check_interval(low, high)
    affordable("n * d", n * d)
    return as_generator(rng).uniform(low, high, size=(n, d))


@reads(n=COUNT, low=Real(), high=Real())
def equally_spaced(n: int, *, low: float = 0.0, high: float = 1.0) -> np.ndarray:
    """``low, ..., high`` in equal steps, symmetric about the middle to the last bit where a float allows it: (n, 1).

    For decisions at the radius to be exact let the step be a number that floats hold: ``equally_spaced(n, high=n - 1)``
    with radius 1 is the lattice of Hegarty & Wedin (1406.0819); 0.1 i with radius 0.1 is decided by rounding.

    Args:
        n: Number of opinions.
        low: First.
        high: Last.

    Raises:
        ValueError: n not positive, or ``high`` not above ``low``.
    """
    _check_interval(low, high)
    return np.linspace(low, high, n)[:, None]


@reads(n=COUNT, d=COUNT, mean=Entries((0, 1)), std=Entries((0, 1)))
def gaussian(n: int, d: int = 1, *, mean: Any = 0.0, std: Any = 1.0, rng: int | np.random.Generator) -> np.ndarray:
    """Independent normal opinions, (n, d).

    Args:
        n: Number of opinions.
        d: Dimension.
        mean: A number or (d,).
        std: Standard deviation per coordinate, a number or (d,), not negative.
        rng: Seed or generator.

    Raises:
        ValueError: n or d not positive, or a negative ``std``.
    """
    if not (np.asarray(std) >= 0).all():
        raise ValueError(f"std must not be negative, got {std!r}")
    for name, value in (("mean", mean), ("std", std)):
        if np.shape(value) not in ((), (1,), (d,)):
            raise ValueError(f"{name} must be a number or one for each of {d} coordinates, got shape {np.shape(value)}")
    affordable("n * d", n * d)
    return as_generator(rng).normal(mean, np.abs(std), size=(n, d))  # numpy refuses -0.0


@reads(n=COUNT)
def dumbbell(n: int) -> np.ndarray:
    """Dumbbell: n opinions at -1/n, one at each of 0, 1, ..., n, and n at n + 1/n: (3 n + 1, 1).

    With radius 1 it freezes after a time of order n^2 (Wedin & Hegarty 1406.0769): 8, 9, 12 steps for n = 2, 3, 4.

    Args:
        n: Size of each weight, and length of the bar.

    Raises:
        ValueError: n not positive.
    """
    affordable("3 n + 1", 3 * n + 1)
    return np.concatenate([np.full(n, -1 / n), np.arange(n + 1.0), np.full(n, n + 1 / n)])[:, None]


@reads(n=COUNT, centres=Entries((1, 2)), std=Entries((0, 2)))
def mixture(
    n: int,
    centres: Any,
    std: Any,
    *,
    weights: Sequence[float] | None = None,
    rng: int | np.random.Generator,
) -> np.ndarray:
    """Opinions around several centres, each chosen with its weight: (n, d).

    Args:
        n: Number of opinions.
        centres: (k, d), or (k,) on a line.
        std: Standard deviation around a centre: a number, or one per centre (k,).
        weights: Probability of each centre; equal by default.
        rng: Seed or generator.

    Raises:
        ValueError: n not positive, or weights that are no probabilities of the k centres.
    """
    places = as_points("centres", centres)
    k = places.shape[0]
    chances = np.full(k, 1 / k) if weights is None else np.asarray(weights, dtype=float)
    if chances.shape != (k,) or (chances < 0).any() or abs(chances.sum() - 1) > 1e-9:
        raise ValueError(f"weights must be {k} probabilities that sum to 1, got {weights!r}")
    if np.shape(std) not in ((), (1,), (k,)) or not (np.asarray(std) >= 0).all():
        raise ValueError(f"std must be a number or one for each of {k} centres, not negative, got {std!r}")
    affordable("n * d", n * places.shape[1])
    generator = as_generator(rng)
    chosen = generator.choice(k, size=n, p=chances / chances.sum())
    spread = np.broadcast_to(np.asarray(std, dtype=float), (k,))[chosen, None]
    return places[chosen] + spread * generator.normal(size=(n, places.shape[1]))


@reads(layer=Whole(-(10**9)), normalise=Flag())
def from_states(states: Array, *, layer: int = 0, normalise: bool = False) -> Array:
    """Initial particles from hidden states (layers, tokens, dim), a `Trajectory`, or any array (n, d) or (n,).

    Args:
        states: Hidden states, or a trajectory (its saved times are the layers).
        layer: Which layer to start from.
        normalise: Divide every token by its norm, for the sphere.

    Raises:
        ValueError: Not finite points, or a token at 0 that cannot be normalised.
    """
    states = getattr(states, "positions", states)
    if getattr(states, "ndim", 0) > 2 and not -len(states) <= layer < len(states):
        raise ValueError(f"layer must be one of {len(states)} layers, got {layer}")
    states = states[layer] if getattr(states, "ndim", 0) > 2 else states
    points = as_points("states", states)
    if not all_finite(points):
        raise ValueError("states must be finite, got NaN or infinity; leave those tokens out")
    if not normalise:
        return points
    norms = (points * points).sum(-1)[..., None] ** 0.5
    if bool((norms == 0).any()):
        raise ValueError("states must have no token at 0 when normalise=True")
    return points / norms


def _check_interval(low: float, high: float) -> None:
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"low and high must be finite with low < high, got {low!r} and {high!r}")
