"""A training step of each arm timed alone, one arm after the other on one device: ``python -m evidence.costs``.

``python -m evidence.costs fashion cifar --limit-seconds 90 --out OUT``

Runs share a card, so that their own times say nothing of cost. Here each arm's step (augmentation, clipping and AdamW
included; captured on a GPU, not compiled) is made alone, on examples drawn at random of the shapes of its experiment:
a step takes as long whatever the pictures show. ``python -m evidence.logs OUT`` joins the table into the logs.
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from evidence import logs
from evidence.experiments import EXPERIMENTS, configuration
from evidence.plan import Run
from evidence.pool import say
from evidence.worker import shrunk
from krause_dynamics.training import loop
from krause_dynamics.training.configuration import TrainingConfiguration
from krause_dynamics.training.corpora import Corpus
from krause_dynamics.training.evaluation import machine
from krause_dynamics.training.formats import PARTS, Pictures
from krause_dynamics.training.kinds import KINDS, build
from krause_dynamics.training.step import TrainingStep
from krause_dynamics.training.tasks import Classes, Levels, Task, Tokens

SHAPES = {"fashion": (1, 28), "mnist": (1, 28), "mnist-14": (1, 14), "cifar-10": (3, 32)}  # channels and side, by data
BATCHES = 4  # of examples, through which the steps go
ROUNDS = 5  # after one that is not counted


def drawn(chosen: TrainingConfiguration, device: torch.device) -> Task:
    """The task of a configuration on random examples."""
    rng, data, count = np.random.default_rng(0), chosen.data, BATCHES * chosen.training.batch_size
    kind = KINDS[chosen.model["kind"]].task
    if kind == "tokens":
        vocabulary = data.vocabulary if data.tokenizer == "bpe" else 256
        tokens = rng.integers(0, vocabulary, count * data.length).astype(np.int32)
        found = Corpus(dict.fromkeys(PARTS, tokens), dict.fromkeys(PARTS, 1.0), vocabulary)
        return Tokens(found, data.length, device)
    channels, side = SHAPES[Path(data.path).name]
    levels = chosen.model.get("levels", 256)
    pixels = rng.integers(0, levels, (count, channels, side, side)).astype(np.uint8)
    parts = dict.fromkeys(PARTS, Pictures(pixels, rng.integers(0, 10, count)))
    return Levels(parts, device) if kind == "levels" else Classes(parts, 10, chosen.training, device)


def timed(step: Callable[[int], object], steps: int) -> float:
    """Milliseconds a call: median of the rounds, wall time until the device is done."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    rounds = []
    for _ in range(ROUNDS + 1):
        wait()
        begin = time.perf_counter()
        for i in range(steps):
            step(i)
        wait()
        rounds.append(1e3 * (time.perf_counter() - begin) / steps)
    return median(rounds[1:])


def measured(run: Run, *, steps: int = 20, small: bool = False) -> dict[str, Any]:
    """The row of an arm.

    Args:
        run: Which arm, of which experiment.
        steps: Of a round.
        small: Tiny models, to try the machinery.
    """
    from krause_dynamics.models import parameter_groups

    cuda = torch.cuda.is_available()
    device = torch.device("cuda" if cuda else "cpu")
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    tables = configuration(run, 1e-4, "nowhere")
    chosen = TrainingConfiguration.read(shrunk(tables) if small else tables)
    settings, task = chosen.training, drawn(chosen, device)
    torch.manual_seed(run.seed)
    model = build(chosen.model, settings.drop_path, task.follows()).to(device).train()
    groups = [group for group in parameter_groups(model, settings.weight_decay) if group["params"]]
    step = TrainingStep(
        model, task, loop.optimizer_of(groups, settings.learning_rate, device), [1e-5] * steps * (ROUNDS + 1), done=0,
        batch_size=settings.batch_size, clip=settings.clip, bfloat16=cuda, capture=cuda,
    )  # fmt: skip
    rows = torch.arange(task.sizes["train"], device=device).split(settings.batch_size)[:BATCHES]
    took = timed(lambda i: step(rows[i % BATCHES]), steps)
    return {
        "run": run.name, "experiment": run.experiment, "arm": run.arm, "milliseconds": took,
        "memory_mib": torch.cuda.max_memory_reserved() / 2**20 if cuda else "", "batch_size": settings.batch_size,
        "device": machine(device), "captured": cuda, "torch": torch.__version__,
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """The command; rows are written as they are found."""
    parser = argparse.ArgumentParser(prog="python -m evidence.costs", description=__doc__)
    parser.add_argument("experiments", nargs="+", choices=list(EXPERIMENTS), metavar="experiment")
    parser.add_argument("--out", type=Path, required=True, help="folder of the table")
    parser.add_argument("--steps", type=int, default=20, help="of each of the rounds")
    parser.add_argument("--limit-seconds", type=float, default=3e7, help="no arm begins after it")
    parser.add_argument("--small", action="store_true", help="tiny models, to try the machinery")
    options = parser.parse_args(arguments)
    end, rows = time.time() + options.limit_seconds, logs.read(options.out, "costs", "results")
    known = {row["run"] for row in rows}
    wanted = [Run(name, arm.name, 0) for name in options.experiments for arm in EXPERIMENTS[name].arms]
    for run in wanted:
        if run.name in known or time.time() >= end:
            continue
        rows.append(measured(run, steps=options.steps, small=options.small))
        logs.write(options.out, "costs", "results", rows)
        say(f"{run.name}: {rows[-1]['milliseconds']:.2f} ms a step")
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
