"""Final clusters of bounded confidence over the length of an interval, and the lengths at which their number changes.

Lengths are in units of the radius: a longer interval is a smaller confidence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np

from krause_dynamics import mean_field
from krause_dynamics._arguments import POSITIVE, Maybe, Real, Reals, Whole, Word, reads
from krause_dynamics._progress import Progress, counted
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.forms.near.merging import merging_run
from krause_dynamics.interaction import Within, bounded_confidence
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Euclidean

if TYPE_CHECKING:
    import xarray

Model = Literal["discrete", "density", "normalised", "per_capita"]
MODELS = ("discrete", "density", "normalised", "per_capita")
MODEL = Word(MODELS)
QUANTILES = Whole(2, 10**7)  # 80 MB; a branch point known to 1e-6 takes a hundredth of them
LONGEST = 1e4  # radii of an interval of which all is kept in cells: two million of them


@reads(lengths=Reals(0.0, ends="()", ndim=1), model=MODEL, count=QUANTILES)
def clusters_over_length(
    lengths: Sequence[float], model: Model = "discrete", *, count: int = 2001, progress: bool | Progress = False
) -> xarray.Dataset:
    """The bifurcation diagram of Hegselmann-Krause: final clusters of a uniform density over interval length / radius.

    Args:
        lengths: interval lengths in units of the radius.
        model: ``"discrete"`` time (the map of quantiles, run until frozen), ``"density"`` (the same map on 200 cells a
            radius, 60 steps; blind to middle groups below 1e-3 of the mass), or continuous time, ``"normalised"`` or
            ``"per_capita"`` with density 1 (until t = 40 and 20, when groups are out of reach of one another or bound
            to merge).
        count: number of quantiles; odd, and 1e5 or more to resolve the branch points of the discrete map.
        progress: ``True`` draws a bar over lengths; or a function ``progress(done, total)``.

    Returns:
        ``position`` (relative to the centre, in radii) and ``mass`` (share), both (length, cluster), NaN where there
        are fewer; ``clusters`` (length).

    Raises:
        ValueError: No lengths, one that is not positive, or an unknown model.
    """
    import xarray

    if len(lengths) == 0:
        raise ValueError("lengths must hold at least one interval length, got none")
    rising = counted(lengths, progress, "clusters_over_length")
    found = [final_clusters(float(length), model, count=count) for length in rising]
    most = max(len(clusters) for clusters in found)
    position, mass = np.full((2, len(found), most), np.nan)
    for row, clusters in enumerate(found):
        position[row, : len(clusters)] = [c.position for c in clusters]
        mass[row, : len(clusters)] = [c.mass for c in clusters]
    data = {
        "position": (("length", "cluster"), position),
        "mass": (("length", "cluster"), mass),
        "clusters": ("length", [len(clusters) for clusters in found]),
    }
    return xarray.Dataset(data, coords={"length": list(lengths)}, attrs={"model": model, "count": count})


@reads(length=POSITIVE, model=MODEL, count=QUANTILES)
def final_clusters(length: float, model: Model = "discrete", *, count: int = 2001) -> list[mean_field.Cluster]:
    """Clusters of a uniform density on an interval about 0, radius 1.

    Args:
        length: Of the interval; unit: radius.
        model: As in `clusters_over_length`.
        count: Quantiles of the uniform density, that is particles; without effect on ``"density"``.

    Raises:
        ValueError: unknown model, a length that is not positive, or with ``"density"`` beyond 10^4 radii.
    """
    if model == "density":
        Real(0.0, LONGEST, "(]").read("length of a density", length)
        cells = mean_field.LineCells(max(round(200 * length), 8), -length / 2, length / 2)
        rule = Dynamics(bounded_confidence(1.0))
        run = mean_field.iterate(rule, mean_field.uniform(cells), 60, save_every=60)
        return mean_field.clusters(run, gap=1.0)
    density = mean_field.uniform(mean_field.LineCells(64, -length / 2, length / 2), mass=length)
    x = density.quantiles(count)
    if model == "discrete":
        line = merging_run(x, Within(1.0), 1e-12 * length)
        line.advance(1_000_000)
        x = line.positions
    else:
        x = _settled_flow(x, length, model)
    # Gaps above the radius never close; what is joined by a chain within reach merges, if slowly.
    groups = np.split(x, 1 + np.flatnonzero(np.diff(x) > 1.0))
    return [mean_field.Cluster(float(g.mean()), len(g) / count, float(g.std())) for g in groups]


def _settled_flow(x: np.ndarray, length: float, model: Model) -> np.ndarray:
    """Quantiles (n, 1) of density 1 after the continuous-time transients: (n,)."""
    dynamics = Dynamics(bounded_confidence(1.0, normalised=model == "normalised"), Euclidean())
    log_mass = np.full(len(x), np.log(length / len(x)))
    for _ in range(40 if model == "normalised" else 20):
        x = simulate(dynamics, x, 1.0, dt=0.1, save_every=10, log_mass=log_mass, impl="sorted1d").final
        # The law is even. Rounding grows where the middle group is torn both ways, so parity is restored in time.
        x = 0.5 * (x - x[::-1])
    return x[:, 0]


@reads(lower=POSITIVE, upper=POSITIVE, model=MODEL, count=Maybe(QUANTILES), width=POSITIVE)
def branch_point(
    lower: float,
    upper: float,
    model: Model = "discrete",
    *,
    count: int | None = None,
    width: float = 1e-3,
    progress: bool | Progress = False,
) -> float:
    """The length (in radii) between two at which consensus is lost or found, by bisection.

    Args:
        lower: length of one fate.
        upper: length of the other.
        model: as in `clusters_over_length`.
        count: number of quantiles, odd; by default 100 001 for the discrete map, whose outcome hangs on a middle group
            of mass 1e-5, and 2001 in continuous time, where every length is a run of seconds.
        width: of the final bracket, at least the spacing of floats there.
        progress: ``True`` draws a bar over the halvings; or a function ``progress(done, total)``.

    Raises:
        ValueError: ``lower`` is above ``upper``, ``width`` is below the spacing of floats, or both ends have the
            same fate.
    """
    if lower > upper:
        raise ValueError(f"lower must not be above upper, got {lower:g} and {upper:g}")
    if width < np.spacing(upper):
        raise ValueError(f"width must be at least {np.spacing(upper):.2g}, the spacing of floats there, got {width:g}")
    count = (100_001 if model == "discrete" else 2001) if count is None else count
    fates = [len(final_clusters(end, model, count=count)) == 1 for end in (lower, upper)]
    if fates[0] == fates[1]:
        fate = "consensus" if fates[0] else "several clusters"
        raise ValueError(f"lower and upper must end differently, got {fate} at both {lower:g} and {upper:g}")
    halvings = range(max(0, math.ceil(math.log2((upper - lower) / width))))
    for _ in counted(halvings, progress, "branch_point"):
        middle = 0.5 * (lower + upper)
        if (len(final_clusters(middle, model, count=count)) == 1) == fates[0]:
            lower = middle
        else:
            upper = middle
    return 0.5 * (lower + upper)
