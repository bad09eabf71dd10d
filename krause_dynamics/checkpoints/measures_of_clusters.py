"""What is measured of the groups that tokens form: counts over radii, plateaus, lifetimes, the merge tree."""

from __future__ import annotations

import numpy as np

from krause_dynamics.analysis import clusters
from krause_dynamics.checkpoints.measure import Measure, of_state

LIVES = 8  # lifetimes that are listed
JOIN = ("one", "other", "chord", "size_of_one", "size_of_other")  # of a merge tree
MERGES = 63  # of the merge tree, the last ones: 64 groups fill the width of a picture


def _lives(curve: clusters.Curve) -> np.ndarray:
    """Absorption over formation of the components of at least two tokens, longest first; infinite for the last."""
    ratios = clusters.persistence(curve, members=2).ratio[:LIVES]
    return np.pad(ratios, (0, LIVES - len(ratios)), constant_values=np.nan)


def _merges(curve: clusters.Curve) -> np.ndarray:
    """The last `MERGES` joins of the tree: both groups, the chord, and how many tokens each has; NaN where fewer are.

    Groups are counted from 0 in the order of their first tokens, and those made by join i from g + i, with g groups.
    """
    rows, m = clusters.linkage(curve), len(curve.cloud.masses)
    kept = rows[-MERGES:] if m > 1 else rows
    before = len(rows) - len(kept)  # joins that are not shown: their groups are the leaves
    sizes = np.concatenate([np.ones(m), rows[:, 3]])
    first = np.arange(m + len(rows))
    for row, (one, other) in enumerate(rows[:, :2].astype(int)):
        first[m + row] = min(first[one], first[other])
    named = kept[:, :2].astype(int)
    leaves = np.sort(named[named < m + before])
    numbers = np.empty(m + len(rows), int)
    numbers[leaves[np.argsort(first[leaves])]] = np.arange(len(leaves))
    numbers[m + before :] = len(leaves) + np.arange(len(kept))
    named = np.take_along_axis(named, np.argsort(numbers[named], axis=1), axis=1)
    found = np.full((MERGES, len(JOIN)), np.nan)
    found[: len(kept)] = np.column_stack([numbers[named], kept[:, 2], sizes[named]])
    return found


MEASURES: tuple[Measure, ...] = (
    of_state(
        "clusters",
        "connected components at a chord of at most radius",
        lambda state: state.of_trees(lambda curve: curve.count, -1),
        "tokens",
        "radius",
    ),
    of_state(
        "effective_clusters",
        "1 / sum of squared shares of the clusters",
        lambda state: state.of_trees(lambda curve: curve.effective_number, np.nan).astype(np.float32),
        "tokens",
        "radius",
    ),
    of_state(
        "plateau_clusters",
        "clusters on the widest plateau of the curve, in log radius",
        lambda state: state.plateaus[..., 0],
        "tokens",
    ),
    of_state(
        "plateau_ratio",
        "largest over smallest radius of that plateau",
        lambda state: state.plateaus[..., 1],
        "tokens",
    ),
    of_state(
        "persistence",
        "radius of absorption over that of formation of the components of two tokens or more, longest first",
        lambda state: state.of_trees(_lives, np.nan),
        "tokens",
        "life",
        extra=True,
    ),
    of_state(
        "merge_tree",
        "last joins of the merge tree of a sequence, without the first token: both groups, the chord, their sizes",
        lambda state: state.of_trees(_merges, np.nan)[:, 1],
        "merge",
        "join",
        extra=True,
    ),
)
