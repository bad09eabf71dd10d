"""What an experiment is: arms that differ in their rule alone, seeds, and the contrasts between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Tables = Mapping[str, Mapping[str, Any]]
Weights = Mapping[str, float]

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "mean": {"read_out": "mean"},
    "post": {"norm": "post"},
    **{f"r{radius}": {"window": radius} for radius in (1, 2, 3)},
    **{f"k{k}": {"attention_top_k": k, "attention_top_k_last": k} for k in (2, 4, 8)},
    "gated": {"gate": True, "window": 32, "attention_top_k": 16},
    "lora": {"branch": False},
    "krause+lora": {"branch": True, "window": 32, "top_k": 16, "sigma": 5.5},
}


@dataclass(frozen=True)
class Arm:
    """A model of an experiment.

    Attributes:
        name: Score, support and variants, joined by points; of adapters, one variant alone.
        seeds: How many are reported: 0, 1, ...
    """

    name: str
    seeds: int = 3

    @property
    def model(self) -> dict[str, Any]:
        """Keys of the model's configuration in which this arm differs."""
        if "." not in self.name:
            return dict(VARIANTS[self.name])
        score, support, *variants = self.name.split(".")
        keys: dict[str, Any] = {"score": score, "support": support}
        for variant in variants:
            keys |= VARIANTS[variant]
        return keys


@dataclass(frozen=True)
class Experiment:
    """Arms that differ in nothing but their rule, and the contrasts between them.

    Attributes:
        name: Word of the command line.
        title: What is trained on what.
        tables: Tables of a training configuration that all arms share.
        arms: In the order in which they run, seed after seed.
        metric: Name of the measure.
        scale: Factor to the unit.
        unit: Of differences.
        larger_is_better: Of the metric.
        bound: Half width of the interval of no difference, in the unit.
        primary: Contrasts that are fixed beforehand and corrected by Holm.
        exploratory: Further contrasts.
        tuning_arms: Arms on which the learning rate is chosen.
        learning_rates: Out of which; the mean of the tuning arms on validation decides, for all arms alike.
        tuning_epochs: Length of the runs that choose it.
        kept: Arms whose weights of seed 0 are brought back, to be looked at.
        beside: Experiment of the same schedule, whose learning rate is taken and whose arms contrasts may name.
    """

    name: str
    title: str
    tables: Tables
    arms: tuple[Arm, ...]
    metric: str = "accuracy"
    scale: float = 100.0
    unit: str = "points"
    larger_is_better: bool = True
    bound: float = 0.5
    primary: Mapping[str, Weights] = field(default_factory=dict)
    exploratory: Mapping[str, Weights] = field(default_factory=dict)
    tuning_arms: tuple[str, ...] = ()
    learning_rates: tuple[float, ...] = ()
    tuning_epochs: int = 4
    kept: tuple[str, ...] = ()
    beside: str = ""


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        experiment: Name of the experiment.
        arm: Name of the arm.
        seed: Of weights, batches and augmentation, and of the random keys.
        learning_rate: Of a run that chooses it; else ``None``, the chosen one.
    """

    experiment: str
    arm: str
    seed: int
    learning_rate: float | None = None

    @property
    def name(self) -> str:
        """Folder of the run."""
        rate = "" if self.learning_rate is None else f"-{self.learning_rate:g}"
        return f"{self.experiment}-{self.arm}-{self.seed}{rate}"


def mean_difference(arms: tuple[str, str], others: tuple[str, str]) -> Weights:
    """Mean of two arms minus the mean of two others."""
    return dict.fromkeys(arms, 0.5) | dict.fromkeys(others, -0.5)


def difference(arm: str, other: str) -> Weights:
    """``arm`` minus ``other``."""
    return {arm: 1.0, other: -1.0}
