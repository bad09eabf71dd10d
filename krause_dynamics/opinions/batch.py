"""Many runs on a line at once: the curve of the largest cluster over the confidence bound (Lorenz 2007, fig. 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import COUNT, FLAG, reads
from krause_dynamics._array import as_floating, is_torch
from krause_dynamics.forms.near.merging import merging_ends
from krause_dynamics.interaction import Within
from krause_dynamics.opinions.arguments import FAR, MOVED
from krause_dynamics.opinions.run import MAX_STEPS

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True)
class Batch:
    """Ends of many runs. Arrays over (radius, sample).

    Attributes:
        radii: (R,) confidence bounds; unit: opinion.
        largest: (R, S) share of the agents in the largest cluster.
        clusters: (R, S) number of clusters.
        steps: (R, S) steps in which something moved.
        frozen: (R, S) whether the run froze within ``max_steps``.
    """

    radii: np.ndarray
    largest: np.ndarray
    clusters: np.ndarray
    steps: np.ndarray
    frozen: np.ndarray

    @property
    def mean_largest(self) -> np.ndarray:
        """Mean share of the largest cluster, (R,)."""
        return self.largest.mean(axis=1)

    @property
    def consensus(self) -> np.ndarray:
        """Part of the samples that end in one cluster, (R,)."""
        return (self.clusters == 1).mean(axis=1)

    def to_xarray(self) -> xarray.Dataset:
        """The arrays with labelled axes ``radius`` and ``sample``."""
        import xarray

        names = ("largest", "clusters", "steps", "frozen")
        variables = {name: (["radius", "sample"], getattr(self, name)) for name in names}
        return xarray.Dataset(variables, coords={"radius": self.radii, "sample": np.arange(self.largest.shape[1])})


@reads(closed=FLAG, max_steps=COUNT)
def hegselmann_krause_batch(samples: Any, radii: Any, *, closed: bool = True, max_steps: int = MAX_STEPS) -> Batch:
    """Run the classical Hegselmann-Krause model from every sample with every radius until nothing moves.

    Args:
        samples: Initial opinions, (S, n), or (n,) for one sample; computed in float64.
        radii: Confidence bounds (R,), or one number; unit: opinion.
        closed: Whether those exactly at the radius are heard.
        max_steps: Steps at most; runs that reach it have ``frozen`` False.

    Returns:
        Largest cluster, number of clusters and steps of every run, as `hegselmann_krause` would give them.

    Raises:
        TypeError: torch samples.
        ValueError: NaN, empty samples, a radius that is not positive.

    Examples:
        >>> import numpy as np, krause_dynamics as kd
        >>> samples = np.random.default_rng(0).random((20, 256))
        >>> kd.hegselmann_krause_batch(samples, [0.05, 0.5]).mean_largest.round(1).tolist()
        [0.2, 1.0]
    """
    if is_torch(samples):
        raise TypeError("samples must be numpy, got a torch tensor; pass samples.numpy(force=True)")
    states = np.atleast_2d(as_floating("samples", samples)).astype(np.float64)
    if states.ndim != 2 or states.size == 0:
        raise ValueError(f"samples must have shape (S, n) or (n,), got {np.shape(samples)}")
    if not np.isfinite(states).all():
        raise ValueError("samples must be finite, got NaN or infinity")
    bounds = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    if bounds.ndim != 1:
        raise ValueError(f"radii must have shape (R,), got {bounds.shape}")
    states = np.sort(states, axis=1)
    tolerances = MOVED * np.minimum(np.ptp(states, axis=1), FAR * bounds[:, None])
    ends = merging_ends(states, Within(bounds, closed=closed), tolerances, max_steps)
    return Batch(bounds, ends.largest / states.shape[1], ends.clusters, ends.steps, ends.frozen)
