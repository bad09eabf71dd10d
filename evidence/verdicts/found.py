"""The kept logs of an experiment: values of its arms, and its contrasts with their intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import nan
from pathlib import Path
from typing import Any

import numpy as np

from evidence import logs, statistics
from evidence.experiments import EXPERIMENTS
from evidence.plan import Experiment, Weights
from evidence.statistics import Contrast


@dataclass(frozen=True)
class Judged:
    """A contrast and what may be said of it.

    Attributes:
        label: Its name in the protocol.
        missing: Arms without a result; then there is nothing else.
        found: Its interval, in the unit of the experiment.
        p: Corrected by Holm where it is primary.
        verdict: Word of `statistics.verdict`.
        test_error: Standard error by the choice of the test set; nan where answers are not kept.
        seeds: Fewest seeds of its arms.
        blocked: The same with the seed as a block, a check that was not planned; ``None`` with one seed.
    """

    label: str
    missing: tuple[str, ...] = ()
    found: Contrast | None = None
    p: float = nan
    verdict: str = "not run"
    test_error: float = nan
    seeds: int = 0
    blocked: Contrast | None = None


@dataclass(frozen=True)
class Found:
    """What is known of an experiment.

    Attributes:
        experiment: Which.
        folder: Of the logs.
        measure: Column of the results that is compared; runs without it are left out.
    """

    experiment: Experiment
    folder: Path = logs.FOLDER
    measure: str = "test"

    @cached_property
    def rows(self) -> list[logs.Row]:
        """Results, those of the experiment beside it first."""
        names = [name for name in (self.experiment.beside, self.experiment.name) if name]
        return [row for name in names for row in logs.read(self.folder, name, "results")]

    @cached_property
    def reported(self) -> dict[str, list[logs.Row]]:
        """Results of each arm that has any."""
        arms: dict[str, list[logs.Row]] = {}
        for row in self.rows:
            if row["part"] == "reported" and self.measure in row:
                arms.setdefault(row["arm"], []).append(row)
        return arms

    @cached_property
    def failed(self) -> list[logs.Row]:
        """Runs whose loss was not finite."""
        return [row for row in self.rows if "failed" in row]

    @cached_property
    def pooled(self) -> statistics.Pooled:
        """Means in the unit of the experiment, and their common error."""
        scale = self.experiment.scale
        return statistics.pooled(
            {name: [scale * row[self.measure] for row in rows] for name, rows in self.reported.items()}
        )

    @cached_property
    def answers(self) -> dict[str, np.ndarray]:
        """Right or wrong, (seeds, examples), of the arms whose answers are kept."""
        names = [name for name in (self.experiment.beside, self.experiment.name) if name]
        kept = {row["run"]: row["right"] for name in names for row in logs.read(self.folder, name, "answers")}
        return {
            arm: np.stack([logs.unpacked(kept[row["run"]]) for row in rows])
            for arm, rows in self.reported.items()
            if all(row["run"] in kept for row in rows)
        }

    def contrasts(self, kind: str) -> list[Judged]:
        """All contrasts of a kind, ``primary`` or ``exploratory``."""
        wanted: Mapping[str, Weights] = getattr(self.experiment, kind)
        there = {label: w for label, w in wanted.items() if set(w) <= set(self.reported)}
        found = {label: statistics.contrast(self.pooled, w) for label, w in there.items()}
        p_values = {label: found[label].p if label in found else nan for label in wanted}
        if kind == "primary":
            p_values = statistics.holm(p_values)
        return [
            self.judged(label, w, found[label], p_values[label])
            if label in found
            else Judged(label, tuple(sorted(set(w) - set(self.reported))))
            for label, w in wanted.items()
        ]

    def judged(self, label: str, weights: Weights, found: Contrast, p: float) -> Judged:
        """A contrast with its verdict."""
        error = nan
        if self.measure == "test" and set(weights) <= set(self.answers):  # the answers are those of the test
            error = self.experiment.scale * statistics.paired_sampling_error(self.answers, weights)
        seeds = min(self.pooled.counts[arm] for arm in weights)
        scale = self.experiment.scale
        values = {arm: {row["seed"]: scale * row[self.measure] for row in rows} for arm, rows in self.reported.items()}
        blocked = statistics.blocked(values, weights) if seeds > 1 else None
        return Judged(label, (), found, p, statistics.verdict(found, self.experiment.bound, p), error, seeds, blocked)

    def of(self, label: str, weights: Weights) -> Judged:
        """A contrast of one's own."""
        missing = tuple(sorted(set(weights) - set(self.reported)))
        if missing:
            return Judged(label, missing)
        found = statistics.contrast(self.pooled, weights)
        return self.judged(label, weights, found, found.p)

    @cached_property
    def alone(self) -> dict[str, logs.Row]:
        """Rows of `evidence.costs` by arm: steps timed with nothing beside them."""
        rows = logs.read(self.folder, "costs", "results")
        return {row["arm"]: row for row in rows if row["experiment"] == self.experiment.name}

    def more_weights(self, weights: Weights) -> float:
        """By which share the arms that are added have more weights that learn than those that are taken away."""
        sides = [
            [self.reported[arm][0].get("trained_parameters", 0) for arm, c in weights.items() if c * sign > 0]
            for sign in (1, -1)
        ]
        added, taken = (sum(side) / len(side) for side in sides)
        return added / taken - 1.0 if taken else 0.0

    @property
    def counts(self) -> tuple[int, int]:
        """Runs of this experiment that are kept, and that were planned."""
        own = {arm.name: arm.seeds for arm in self.experiment.arms}
        there = {(row["arm"], row["seed"]) for rows in self.reported.values() for row in rows}
        return sum((arm, seed) in there for arm, n in own.items() for seed in range(n)), sum(own.values())


def all_found(folder: Path = logs.FOLDER) -> dict[str, Found]:
    """Every experiment."""
    return {name: Found(experiment, folder) for name, experiment in EXPERIMENTS.items()}


def shown(x: float, unit: str, *, signed: bool = True) -> str:
    """A number with the digits of its unit."""
    if not np.isfinite(x):
        return "-"
    digits = 2 if unit == "points" else 4
    return f"{x:+.{digits}f}" if signed else f"{x:.{digits}f}"


def interval(found: Any, unit: str, *, signed: bool = True) -> str:
    """``low to high``."""
    if found is None or not np.isfinite(found.low):
        return "no interval"
    return f"{shown(found.low, unit, signed=signed)} to {shown(found.high, unit, signed=signed)}"
