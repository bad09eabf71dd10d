"""The experiments of `PROTOCOL.md` as data: arms, seeds, schedules, contrasts.

``python -m evidence.experiments`` prints the tables of the protocol. An arm is named by the words in which it
differs, ``gaussian.window+top_k`` or ``gaussian.window.mean``: score, support, then what else.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from evidence.plan import Arm, Experiment, Run, Weights, difference, mean_difference
from evidence.recipes import CIFAR, FASHION, KEYS, MNIST, NOVELS, PAIR, REACH, SMOLLM2

TUNING_SEED = 100  # learning rates are chosen on this seed, which is not reported
T, G, N, S = "dot+temperature", "gaussian", "dot+temperature+key_norm", "dot"
PRIMARY: Mapping[str, Weights] = {
    "score: Gaussian - dot product": mean_difference((f"{G}.full", f"{G}.window"), (f"{T}.full", f"{T}.window")),
    "window - full": mean_difference((f"{T}.window", f"{G}.window"), (f"{T}.full", f"{G}.full")),
    "top-k inside the window - window": difference(f"{G}.window+top_k", f"{G}.window"),
    "score x window": {f"{G}.window": 1.0, f"{G}.full": -1.0, f"{T}.window": -1.0, f"{T}.full": 1.0},
}
PICTURES: Mapping[str, Weights] = {
    "the paper's comparison: full rule - softmax": difference(f"{G}.window+top_k", f"{S}.full"),
    "learned temperature - fixed": difference(f"{T}.full", f"{S}.full"),
    "random keys - window, equal degree": difference(f"{T}.random", f"{T}.window"),
    "CLS row exempt - full rule": difference(f"{G}.window+top_k+cls_exempt", f"{G}.window+top_k"),
    "CLS row exempt - window": difference(f"{G}.window+top_k+cls_exempt", f"{G}.window"),
}
CORNERS = (f"{T}.full", f"{T}.window", f"{G}.full", f"{G}.window", f"{G}.window+top_k")
# Widths of windows and numbers of keys; the narrowest window holds six keys with CLS, so that k = 8 is all of them.
REACHES = (
    *(f"{G}.window.r{r}" for r in (1, 2, 3)), f"{G}.full",
    *(f"{G}.window+top_k.r{r}.k{k}" for r in (1, 2, 3) for k in (2, 4, 8) if (r, k) != (1, 8)),
    *(f"{G}.top_k.k{k}" for k in (2, 4, 8)),
)  # fmt: skip
KEPT = (f"{G}.window.r1", f"{G}.window+top_k.r1.k4", f"{G}.window.r2", f"{G}.window+top_k.r2.k8")
EXPERIMENTS: dict[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        Experiment(
            "fashion", "Fashion-MNIST, ViT-Ti (d 192, 12 layers, 7 x 7 patches)", FASHION,
            (*(Arm(name, 5) for name in CORNERS), Arm(f"{S}.full"), Arm(f"{T}.random"), Arm(f"{N}.window"),
             Arm(f"{G}.window+top_k+cls_exempt")),
            primary=PRIMARY,
            exploratory={**PICTURES, "learned key norms - none, window": difference(f"{N}.window", f"{T}.window"),
                         "Gaussian - learned key norms, window": difference(f"{G}.window", f"{N}.window")},
            tuning_arms=(f"{S}.full", f"{G}.window", f"{G}.window+top_k"), learning_rates=(3e-4, 1e-3, 2e-3),
            kept=(f"{S}.full", f"{G}.window+top_k"),
        ),
        Experiment(
            "pair", "MNIST at 14 x 14, one value after the other, 0.2 million weights: the pair that ships", PAIR,
            (Arm(f"{S}.full", 1), Arm(f"{G}.window+top_k", 1)),
            metric="bits_per_dimension", scale=1.0, unit="bits a dimension", larger_is_better=False, bound=0.01,
            kept=(f"{S}.full", f"{G}.window+top_k"),
        ),
        Experiment(
            "cifar", "CIFAR-10 (lossy copy), ViT-S (d 384, 12 layers, 8 x 8 patches), mixup and cutmix", CIFAR,
            (*map(Arm, CORNERS), Arm(f"{S}.full"), Arm(f"{G}.window+top_k+cls_exempt"), Arm(f"{T}.random")),
            primary=PRIMARY, exploratory=PICTURES,
            tuning_arms=(f"{S}.full", f"{G}.window"), learning_rates=(3e-4, 6e-4, 1e-3), tuning_epochs=3,
        ),
        Experiment(
            "fashion-read_out", "Fashion-MNIST, ViT-Ti: mean read-out, and post-norm as published", FASHION,
            tuple(Arm(f"{name}.{variant}", 3) for variant in ("mean", "post") for name in CORNERS),
            exploratory={
                f"{label}, {words}": {f"{name}.{variant}": weight for name, weight in weights.items()}
                for variant, words in (("mean", "mean read-out"), ("post", "post-norm"))
                for label, weights in PRIMARY.items()
            },
            beside="fashion",
        ),
        Experiment(
            "fashion-more", "Fashion-MNIST, ViT-Ti: further cells of the factorial", FASHION,
            (Arm(f"{G}.top_k"), Arm(f"{G}.window+first_tokens"), Arm(f"{S}.window"), Arm(f"{N}.full"),
             Arm(f"{G}.random")),
            exploratory={
                "top-k without a window - full": difference(f"{G}.top_k", f"{G}.full"),
                "window + first tokens - window": difference(f"{G}.window+first_tokens", f"{G}.window"),
                "learned temperature - fixed, window": difference(f"{T}.window", f"{S}.window"),
                "learned key norms - none, full": difference(f"{N}.full", f"{T}.full"),
                "Gaussian - learned key norms, full": difference(f"{G}.full", f"{N}.full"),
                "random keys - window, Gaussian": difference(f"{G}.random", f"{G}.window"),
            },
            beside="fashion",
        ),
        Experiment(
            "fashion-reach", "Fashion-MNIST, ViT-Ti, five epochs: how wide a window, how many keys", REACH,
            tuple(Arm(name) for name in REACHES),
            exploratory={
                "radius 2 - 1": difference(f"{G}.window.r2", f"{G}.window.r1"),
                "radius 3 - 1": difference(f"{G}.window.r3", f"{G}.window.r1"),
                "all - radius 1": difference(f"{G}.full", f"{G}.window.r1"),
                "k 8 - 2, radius 3": difference(f"{G}.window+top_k.r3.k8", f"{G}.window+top_k.r3.k2"),
            },
        ),
        Experiment(
            "fashion-keys", "Fashion-MNIST, ViT-Ti, 15 epochs: more keys kept by top-k inside a window", KEYS,
            tuple(Arm(name, 4) for name in KEPT),
            primary={
                "k 4 - all, radius 1": difference(f"{G}.window+top_k.r1.k4", f"{G}.window.r1"),
                "k 8 - all, radius 2": difference(f"{G}.window+top_k.r2.k8", f"{G}.window.r2"),
            },
        ),
        Experiment(
            "novels", "English novels, decoder of 17 million weights, held-out authors", NOVELS,
            (Arm(f"{S}.full"), Arm(f"{T}.window"), Arm(f"{G}.window+top_k.gated"), Arm(f"{G}.window+first_tokens")),
            metric="bits_per_byte", scale=1.0, unit="bits a byte", larger_is_better=False, bound=0.005,
            exploratory={
                "window - full": difference(f"{T}.window", f"{S}.full"),
                "gated - softmax": difference(f"{G}.window+top_k.gated", f"{S}.full"),
                "Gaussian window + first tokens - window": difference(f"{G}.window+first_tokens", f"{T}.window"),
            },
            tuning_arms=(f"{S}.full",), learning_rates=(3e-4, 1e-3, 2e-3), tuning_epochs=1,
        ),
        Experiment(
            "smollm2", "SmolLM2-135M-Instruct (dequantised 4-bit weights), adapters on English novels", SMOLLM2,
            (Arm("lora", 2), Arm("krause+lora", 2)),
            metric="bits_per_byte", scale=1.0, unit="bits a byte", larger_is_better=False, bound=0.005,
            exploratory={"gated Krause branch + LoRA - LoRA": difference("krause+lora", "lora")},
        ),
        Experiment(
            "mnist", "MNIST, all 60 000 digits, one value after the other (d 256, 12 layers, W 128, k 96)", MNIST,
            (Arm(f"{S}.full"), Arm(f"{G}.window+top_k"), Arm(f"{G}.window"), Arm("linear.full", 1),
             Arm(f"{G}.full", 1)),
            metric="bits_per_dimension", scale=1.0, unit="bits a dimension", larger_is_better=False, bound=0.01,
            exploratory={
                "KARM - ARM": difference(f"{G}.window+top_k", f"{S}.full"),
                "KARM without top-k - KARM": difference(f"{G}.window", f"{G}.window+top_k"),
            },
            tuning_arms=(f"{S}.full",), learning_rates=(3e-4, 6e-4, 1e-3), tuning_epochs=1,
        ),
    )
}  # fmt: skip


def runs(experiment: Experiment) -> list[Run]:
    """Runs that are reported, in order: all arms with seed 0, then with seed 1, ..."""
    longest = max(arm.seeds for arm in experiment.arms)
    return [
        Run(experiment.name, arm.name, seed) for seed in range(longest) for arm in experiment.arms if seed < arm.seeds
    ]


def tuning_runs(experiment: Experiment) -> list[Run]:
    """Runs that choose the learning rate, on a seed that is not reported."""
    return [
        Run(experiment.name, arm, TUNING_SEED, rate)
        for rate in experiment.learning_rates
        for arm in experiment.tuning_arms
    ]


def configuration(run: Run, learning_rate: float, folder: str) -> dict[str, dict[str, Any]]:
    """Tables of a training configuration.

    Args:
        run: Which.
        learning_rate: The chosen one.
        folder: Where the data sets are.
    """
    experiment = EXPERIMENTS[run.experiment]
    tables = {name: dict(table) for name, table in experiment.tables.items()}
    tables["model"] |= Arm(run.arm).model
    if "random" in run.arm:
        tables["model"]["random_seed"] = run.seed
    tables["data"]["path"] = f"{folder}/{tables['data']['path']}"
    tables["training"] = {"seed": run.seed, "learning_rate": learning_rate} | tables["training"]
    if run.learning_rate is not None:
        tables["training"] |= {"learning_rate": run.learning_rate, "epochs": experiment.tuning_epochs}
    return tables


def table() -> Iterator[str]:
    """Lines of the tables of `PROTOCOL.md`."""
    yield from ("| experiment | arm | seeds |", "| --- | --- | --- |")
    for experiment in EXPERIMENTS.values():
        for arm in experiment.arms:
            yield f"| {experiment.name} | `{arm.name}` | {arm.seeds} |"
    yield from ("", "| experiment | contrast | weights | |", "| --- | --- | --- | --- |")
    for experiment in EXPERIMENTS.values():
        for kind in ("primary", "exploratory"):
            for label, weights in getattr(experiment, kind).items():
                words = " ".join(f"{weight:+g} `{name}`" for name, weight in weights.items())
                yield f"| {experiment.name} | {label} | {words} | {kind} |"


if __name__ == "__main__":
    sys.stdout.write("\n".join(table()) + "\n")
