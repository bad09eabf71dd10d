"""One run in a process of its own: train, read off its result, keep what is wanted and remove the rest."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evidence import logs
from evidence.experiments import EXPERIMENTS, configuration
from evidence.plan import Run
from evidence.weights import keep_weights, sigmas

LOOKED = 10  # seconds between two files to go on from
SMALL: dict[str, dict[str, Any]] = {
    "model": {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    "training": {"epochs": 2, "batch_size": 16},
    "data": {"limit": 64, "validation": 32},
}
SMALL_TEXT = {"limit": 4000, "length": 32}  # characters, tokens


def shrunk(tables: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The same configuration of a tiny model on few examples."""
    tables = {name: dict(table) for name, table in tables.items()}
    adapters = tables["model"]["kind"] == "gated"  # the size is that of their base
    for name, keys in SMALL.items():
        tables[name] |= {} if adapters and name == "model" else keys
    if tables["data"]["format"] == "text":
        tables["data"] |= SMALL_TEXT | ({"vocabulary": 300} if tables["data"]["tokenizer"] == "bpe" else {})
    return tables


class OutOfTime(Exception):
    """The deadline came; the run goes on from its file the next time."""


@dataclass(frozen=True)
class Order:
    """What a worker is told.

    Attributes:
        run: Which.
        learning_rate: The chosen one.
        data: Folder of the data sets.
        work: Folder for the runs' own files.
        out: Folder for weights that are kept.
        deadline: Of `time.time`.
        small: Tiny models and few examples, to try the machinery.
        threads: Of torch on the CPU.
        workers: Runs that share the machine: times of a step say something only of one alone.
        compiled: Let `torch.compile` fuse the models, where it can.
    """

    run: Run
    learning_rate: float
    data: str
    work: Path
    out: Path
    deadline: float
    small: bool = False
    threads: int = 1
    workers: int = 1
    compiled: bool = False

    def tables(self) -> dict[str, dict[str, Any]]:
        """The configuration."""
        tables = configuration(self.run, self.learning_rate, self.data)
        tables["training"]["save_seconds"] = LOOKED
        tables["evaluation"] = {"cost": self.run.seed == 0}
        return shrunk(tables) if self.small else tables


def carry_out(order: Order) -> dict[str, list[dict[str, Any]]] | None:
    """Rows of the tables `results`, `metrics` and `answers`; ``None`` where the time did not reach."""
    if time.time() >= order.deadline:
        return None
    import torch

    from krause_dynamics.errors import TrainingDiverged

    torch.set_num_threads(order.threads)
    if torch.cuda.is_available():  # what the run before held is neither kept nor counted
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    folder = order.work / order.run.name
    folder.mkdir(parents=True, exist_ok=True)
    begin = time.time()
    try:
        result, failed = _trained(order, folder)
    except OutOfTime:
        return None
    except TrainingDiverged as error:  # before an epoch was finished
        return {"results": [{**_named(order), "failed": str(error)}]}
    rows = {
        "results": [{**_named(order), **_summary(order, result), **failed, "wall_seconds": time.time() - begin}],
        "metrics": [{"run": order.run.name, **row} for row in result.metrics],
    }
    rows["results"][0] |= _asked(order, result.folder)
    right = _answers(order, result.folder)
    if right is not None:
        rows["answers"] = [{"run": order.run.name, "right": logs.packed(right)}]
    experiment = EXPERIMENTS[order.run.experiment]
    if order.run.arm in experiment.kept and order.run.seed == 0:
        keep_weights(result.folder / "best", order.out / f"{order.run.name}.safetensors".replace("+", "_"))
    shutil.rmtree(folder)
    return rows


def _trained(order: Order, folder: Path) -> tuple[Any, dict[str, str]]:
    """Train; a step that does not compile, or that a CUDA graph does not take, is made without, and the row says so.

    A run that diverges counts as its best weights before, as the protocol has it, with its reason beside.
    """
    import torch

    from krause_dynamics.errors import TrainingDiverged
    from krause_dynamics.training import train

    def told(done: float, total: float) -> None:
        if time.time() >= order.deadline:
            raise OutOfTime

    tables = order.tables()

    def made(way: str, keys: dict[str, Any]) -> tuple[Any, dict[str, str]]:
        given = {**tables, "training": tables["training"] | keys}
        try:
            return train(given, out=folder / way, progress=told), {}
        except TrainingDiverged as error:
            if not (folder / way / "best").exists():
                raise
            return train(given, out=folder / way, resume="end"), {"failed": str(error)}

    *ways, last = ways_of(order, torch.cuda.is_available())
    for way, keys in ways:
        try:
            return made(way, keys)
        except (OutOfTime, TrainingDiverged):
            raise
        except (RuntimeError, AssertionError):  # the latter of compiled code, where a tensor is not as expected
            sys.stderr.write(f"{order.run.name}: not {way}\n{traceback.format_exc()}")
    return made(*last)


def ways_of(order: Order, cuda: bool) -> list[tuple[str, dict[str, Any]]]:
    """Ways to make a run, the next where one fails: a name, which is its folder's, and keys of the training."""
    compiled = [("compiled", {"compile": True})] if order.compiled else []
    return [*compiled, *([("captured", {})] if cuda else []), ("eager", {"capture": False} if cuda else {})]


def _named(order: Order) -> dict[str, Any]:
    run, training = order.run, order.tables()["training"]
    return {
        "run": run.name, "experiment": run.experiment, "arm": run.arm, "seed": run.seed,
        "part": "tuning" if run.learning_rate is not None else "reported",
        "learning_rate": training["learning_rate"], "epochs": training["epochs"], "workers": order.workers,
    }  # fmt: skip


def _summary(order: Order, result: Any) -> dict[str, Any]:
    metric, found = EXPERIMENTS[order.run.experiment].metric, result.result
    names = (
        "parameters", "trained_parameters", "multiply_adds_executed", "multiply_adds_useful", "seconds_per_step",
        "startup_seconds", "seconds", "memory_mib", "device", "captured", "compiled", "bfloat16", "configuration",
    )  # fmt: skip
    fixed = order.run.arm.startswith("dot.")  # at 1/sqrt(d_h)
    learned = [] if fixed else sigmas(next((result.folder / "best").glob("*.safetensors")))
    return {
        "best_epoch": result.best["epoch"], "validation": result.best[metric], "last_validation": result.last[metric],
        "test": result.test[metric], "test_loss": result.test["loss"],
        **{name: found[name] for name in names if found.get(name) is not None},
        "torch": found["versions"]["torch"], "sigma": json.dumps(learned),
    }  # fmt: skip


def _asked(order: Order, folder: Path) -> dict[str, float]:
    """Scores of language of the best weights, where the questions are there; none of pictures."""
    from evidence import language

    if order.tables()["data"]["format"] != "text":
        return {}
    if not (Path(order.data) / "evaluations").is_dir():
        sys.stderr.write(f"{order.run.name}: no folder evaluations in {order.data}, so no scores of language\n")
        return {}
    return language.asked(folder / "best", Path(order.data), small=order.small)


def _answers(order: Order, folder: Path) -> np.ndarray | None:
    """Which pictures of the test part the best weights classify rightly; ``None`` of other data."""
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training.formats import Pictures
    from krause_dynamics.training.split import found_in

    path = folder / "predictions.npz"
    if not path.exists():
        return None
    test = found_in(TrainingConfiguration.read(order.tables()).data).test
    assert isinstance(test, Pictures)
    with np.load(path, allow_pickle=False) as opened:
        return opened["predictions"] == test.labels
