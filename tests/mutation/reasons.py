"""Faults that no test can notice, each with the reason: no answer depends on what stands there."""

from __future__ import annotations

from typing import Any, NamedTuple


class Reason(NamedTuple):
    """Why a fault of this kind in a line that holds this text changes no answer.

    Attributes:
        path: End of the file's path.
        line: Part of the line.
        kind: How the name of the fault begins: ``constant``, ``keyword axis``.
        words: Why.
    """

    path: str
    line: str
    kind: str
    words: str


REASONS = (
    Reason("opinions/sequential.py", "self._bounds, self._heard =", "constant", "room that nobody reads"),
    Reason("runs/stopping.py", "rounding = 4 *", "constant", "a few roundings, however many"),
    Reason("near/cell_lists.py", "limit + 3", "constant", "from where cells are too many for memory"),
    Reason("clusters/_spanning.py", "both = 2 * len(rows)", "", "both ways find the same edges"),
    Reason(
        "attention/tile_weights.py",
        "tile.q.masked_fill(lame",
        "constant",
        "any finite number: what is put there is not used",
    ),
    Reason("opinions/sequential.py", "<= self._tolerance", "comparison", "at equality with a tolerance both are right"),
    Reason("mean_field/runs.py", "meta(np.empty(0)", "constant", "its dtype alone is read"),
    Reason(
        "spaces/bordered.py",
        "namespace(x=x, near=near)",
        "keyword near",
        "arrays are told apart; both are of one library there",
    ),
    Reason("near/fixed_point.py", "return 61 - math", "constant", "one bit of the two that are spare"),
    Reason("nn/cache.py", "self._begin = self._end = 0", "constant", "a place that stays empty"),
    Reason("aggregate/border.py", "steepest = 0.0", "constant", "below 1 it counts as 1"),
    Reason("attention/by_tiles.py", "if call.dropout > 0", "comparison", "without dropout all factors are 1"),
    Reason("dynamics/initial.py", "np.asarray(std, dtype=float)", "keyword dtype", "whole numbers deviate as well"),
    Reason("command/demo.py", "circle.sample(n=PARTICLES, d=2", "keyword d", "the circle's own default"),
    Reason("energies/along_run.py", "total = np.sum(length", "keyword axis", "of one run, which is what it takes"),
    Reason("near/pencils.py", "WIDER = ", "constant", "wider cells give the same pairs, more slowly"),
    Reason("_files/formats.py", 'engine="h5netcdf") as', "keyword engine", "the one engine that there is"),
    Reason("near/cell_lists.py", "limits = [", "arithmetic", "six spare cells keep apart what the numbers keep apart"),
    Reason("near/cell_lists.py", "extent = float(", "arithmetic", "a few roundings, however many"),
    Reason("near/cell_lists.py", "side = radius * (1", "constant", "wider cells give the same pairs, more slowly"),
    Reason(
        "operators/classes.py", "_, blocks = connected", "constant", "weak components of a directed graph are the same"
    ),
    Reason("_files/formats.py", "allow_pickle=False", "keyword allow_pickle", "numpy's own default says the same"),
    Reason("integrators/derivatives.py", "vectorize=True", "", "one pass or one a column: the same derivatives"),
    Reason("observables/_state.py", "itemsize < 4", "constant", "float32 converted to float32 is itself"),
    Reason("theory/causal.py", "t**3 / 18.0", "constant", "below 1e-3 the term is below 1e-10, its change as well"),
    Reason("theory/ordered_circle.py", "for _ in range(200)", "constant", "one step more towards the same point"),
    Reason("sweeps/evaluation.py", 'method = "fork"', "", "here both choices are fork"),
    Reason(
        "aggregate/weight_blocks.py", "width = left + right + 1", "constant", "rows a block, which changes speed alone"
    ),
    Reason(
        "mean_field/finite_volumes.py",
        "np.where(rising, left + right, 1.0)",
        "constant",
        "what is divided there is left out",
    ),
    Reason("spaces/spheres.py", "if not off < max(1e-3", "comparison", "at equality with a tolerance both are right"),
    Reason("observables/rank.py", "share = ratio(", "constant", "of a zero matrix the rank is 0 whatever the shares"),
    Reason(
        "clusters/history.py", "width = int(after.max(", "constant", "any width above the labels numbers pairs apart"
    ),
    Reason("integrators/base.py", "self._tiny", "comparison", "at equality with a tolerance both are right"),
    Reason("near/pencils.py", "grid = np.resize(", "comparison", "of one axis both give that axis twice"),
    Reason("cpu/chunks.py", "number == 1 or number *", "", "any number of tiles a chunk computes the same"),
    Reason("cpu/chunks.py", "held.numel()", "comparison", "memory of the right size may be kept or taken anew"),
    Reason("forms/blocked.py", "if end - i > 1 and (low", "and, or", "masks a tile whose columns are all in reach"),
    Reason("forms/blocked.py", "if end - i > 1 and (low", "comparison", "masks a tile whose columns are all in reach"),
    Reason("lattice/convolution.py", "row, inner = ", "constant", "the slope may be that of any clear row behind"),
    Reason(
        "attention/tile_weights.py",
        "tile.log_mass > NEVER",
        "comparison",
        "weights of no mass are left out by the sum as well",
    ),
    Reason(
        "interaction/scores.py", "return 1.0", "constant", "unknown: a guess of the first implicit step, judged later"
    ),
    Reason("integrators/stiff.py", "order: ClassVar", "constant", "a label: implicit methods choose their own steps"),
    Reason("runs/fingerprints.py", "depth: int = 0", "constant", "from which nesting on a mark is given up: one level"),
    Reason("runs/stopping.py", "points.reshape(-1", "constant", "numpy takes any negative length for the rest"),
    Reason("near/pencils.py", "SLACK = ", "constant", "more candidates, which the exact judge turns away"),
    Reason(
        "lattice/convolution.py", "row not in tried", "constant", "another border, or the plain sum, serves that row"
    ),
    Reason("checkpoints/capture.py", "keep_weights: bool", "constant", "every caller says it"),
    Reason(
        "sweeps/final_clusters.py", "1e-12 * length", "constant", "steps are counted otherwise, opinions move alike"
    ),
)


def reason_of(about: dict[str, Any], line: str) -> str | None:
    """The words for a fault of `mutants.Mutant`'s fields in this line, or ``None``."""
    for reason in REASONS:
        here = str(about["path"]).endswith(reason.path) and reason.line in line
        if here and str(about["kind"]).startswith(reason.kind):
            return reason.words
    return None
