"""One run of one process: data, model, optimiser and how far it is; epochs, files, and the end."""

from __future__ import annotations

import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from krause_dynamics._progress import Progress
from krause_dynamics.errors import TrainingDiverged
from krause_dynamics.training import evaluation, loop, records, state
from krause_dynamics.training.adapted import can_be_captured
from krause_dynamics.training.configuration import TrainingConfiguration
from krause_dynamics.training.kinds import KINDS, build
from krause_dynamics.training.split import found_in, task_of
from krause_dynamics.training.step import TrainingStep, learning_rates
from krause_dynamics.training.tasks import Classes, Task, Tokens


class Session:
    """One run of one process."""

    def __init__(self, configuration: TrainingConfiguration, folder: Path, device: str, told: Progress) -> None:
        self.began = time.perf_counter()
        self.configuration, self.folder, self.told = configuration, folder, told
        self.settings = settings = configuration.training
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        if settings.batch_size % self.world:
            raise ValueError(f"training.batch_size must divide by {self.world} processes, got {settings.batch_size}")
        self.batch_size = settings.batch_size // self.world
        if self.batch_size % settings.accumulation:
            raise ValueError(
                f"training.accumulation must divide the {self.batch_size} examples of a process, got "
                f"{settings.accumulation}"
            )
        self.arguments = loop.arguments(folder, settings.epochs, self.batch_size, settings.seed, device)
        self.device = torch.device(self.arguments.device)
        self.rank = self.arguments.process_index
        cuda = self.device.type == "cuda"
        self.bfloat16 = settings.precision == "bfloat16" or (settings.precision == "auto" and cuda)
        self.found = found_in(configuration.data)
        self.task: Task = task_of(configuration, self.found, self.device)
        torch.manual_seed(settings.seed)
        self.model = build(configuration.model, settings.drop_path, self.task.follows()).to(self.device)
        ours = bool(KINDS[configuration.model["kind"]].model)
        self.captures = settings.capture and cuda and self.world == 1 and (ours or can_be_captured(self.model))
        self.optimizer = self._optimizer()
        self.origin = state.Origin(configuration.digest(), self.found.checksums, self.world)
        self.done = state.read(folder, self.origin, self.model, self.optimizer)
        self.saved = time.monotonic()
        self.snapshot: state.Snapshot | None = None
        self.startup: float | None = None
        given, classes = configuration.evaluation.batch_size, isinstance(self.task, Classes)
        self.measured_at_once = given or (1000 if classes else self.batch_size)

    def _optimizer(self) -> Any:
        from krause_dynamics.models import parameter_groups

        groups = parameter_groups(self.model, self.settings.weight_decay)
        return loop.optimizer_of([g for g in groups if g["params"]], self.settings.learning_rate, self.device)

    def run(self, *, end: bool = False) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Train the epochs that are left, then measure the test part: the result, and the rows of the table.

        Args:
            end: Leave them, and measure what there is.
        """
        if end:
            if self.done.best is None:
                raise ValueError(f"resume='end' needs a run with a finished epoch, {self.folder} has none: train it")
            return self._end()
        before = self.done.processes
        if before not in (None, self.world):
            raise ValueError(
                f"{self.folder} holds a run of {before} processes, which {self.world} would take to other "
                f"numbers; it was left as it is: start {before}, or choose another folder"
            )
        settings, examples = self.settings, self.task.sizes["train"]
        batches = loop.Batches(
            examples, self.batch_size, seed=settings.seed, begin=self.done.epoch, rank=self.rank, world=self.world,
            device=self.device,
        )  # fmt: skip
        if not len(batches):
            raise ValueError(f"training.batch_size must be at most the {examples} examples, got {settings.batch_size}")
        steps = len(batches)
        self.rates = learning_rates(
            settings.learning_rate, settings.epochs * steps, round(settings.warmup_epochs * steps)
        )
        if self.done.epoch < settings.epochs:
            try:
                self._train(batches)
            except TrainingDiverged:
                if self.rank == 0 and self.done.best_weights:
                    state.put(self.model, self.done.best_weights)
                    self._export("best")
                raise
            finally:  # a signal, or a loss that became NaN: the last finished epoch is kept
                self._keep()
        return self._end()

    def _train(self, batches: loop.Batches) -> None:
        self.steps = len(batches)
        self.arguments.num_train_epochs = self.settings.epochs - self.done.epoch
        done = self.done.epoch * self.steps
        epochs = loop.Epochs(
            self.done.epoch, self.settings.seed, self.told, self._epoch, self.folder / state.NAME,
            total=self.settings.epochs * self.steps,
        )  # fmt: skip
        uses_cache = getattr(self.model.config, "use_cache", None)
        trainer = loop.Loop(
            lambda model: self._step(model, done), batches, model=self.model, args=self.arguments,
            optimizers=(self.optimizer, loop.Rates(self.rates, done)), callbacks=[epochs],
        )  # fmt: skip
        epochs.loop = trainer
        if uses_cache is None:
            del self.model.config.use_cache  # which the Trainer sets, and which no configuration of pictures knows
        else:
            self.model.config.use_cache = uses_cache
        try:
            trainer.train()
        except ValueError as error:  # of a layer that is asked to compute with weights beyond all bounds
            epochs.check_weights(self.model, error)
            raise
        finally:
            if trainer.stepped is not None:
                self.startup = trainer.stepped - self.began

    def _step(self, model: Any, done: int) -> TrainingStep:
        if self.settings.compile:  # drop path draws the numbers that it would draw uncompiled
            model = torch.compile(model, dynamic=False, options={"fallback_random": True})
        return TrainingStep(
            model, self.task, self.optimizer, self.rates, done=done, batch_size=self.batch_size,
            clip=self.settings.clip, bfloat16=self.bfloat16, capture=self.captures, parts=self.settings.accumulation,
        )  # fmt: skip

    def _measured(self, part: str, limit: int | None = None) -> dict[str, float]:
        return evaluation.measured(
            self.model, self.task, part, batch_size=self.measured_at_once, limit=limit,
            bfloat16=self.bfloat16, rank=self.rank, world=self.world,
        )  # fmt: skip

    def _epoch(self, epoch: int, loss: float, seconds: float) -> None:
        """Measure, note and keep a finished epoch."""
        begin = time.perf_counter()
        found = self._measured("validation", self.configuration.evaluation.limit)
        done, step = self.done, epoch * self.steps
        done.epoch, done.seconds = epoch, done.seconds + seconds
        rate = self.rates[step - 1]
        done.rows.append(
            {"epoch": epoch, "step": step, "split": "train", "loss": loss, "seconds": seconds, "learning_rate": rate}
        )
        took = time.perf_counter() - begin
        row: dict[str, Any] = {"epoch": epoch, "step": step, "split": "validation", **found, "seconds": took}
        done.rows.append(row)
        metric = self.task.metric
        if self.task.better(row[metric], None if done.best is None else done.best[metric]):
            done.best = row
            done.best_weights = {name: x.clone() for name, x in state.learned(self.model).items()}
        self.snapshot = state.snapshot(self.origin, self.model, self.optimizer, done)
        if time.monotonic() - self.saved >= self.settings.save_seconds:
            self._keep()

    def _keep(self) -> None:
        """Write the last finished epoch, if it is not yet written."""
        if self.rank == 0 and self.snapshot is not None:
            self.snapshot.write(self.folder)
            records.write_metrics(self.folder, self.done.rows)
        self.saved, self.snapshot = time.monotonic(), None

    def _end(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Measure the test part by the best weights; write what a reader wants."""
        done = self.done
        assert done.best is not None
        if self.rank == 0:
            self._export("last")
        state.put(self.model, done.best_weights)
        test = {k: done.best[k] for k in ("epoch", "step")} | {"split": "test", **self._measured("test")}
        rows = [*done.rows, test]
        if self.rank == 0:
            self._export("best")
            answers = evaluation.predicted(
                self.model, self.task, "test", batch_size=self.measured_at_once, bfloat16=self.bfloat16
            )
            if answers is not None:
                records.write_predictions(self.folder, answers)
            records.write_metrics(self.folder, rows)
        result = self._summary(test)
        if self.rank == 0:
            records.write_json(self.folder / "result.json", result)
        return result, rows

    def _export(self, name: str) -> None:
        records.export(self.model, self.folder / name)
        if isinstance(self.task, Tokens) and self.task.corpus.tokenizer is not None:
            records.export(self.task.corpus.tokenizer, self.folder / name)

    def _summary(self, test: dict[str, Any]) -> dict[str, Any]:
        done, cuda = self.done, self.device.type == "cuda"
        assert done.best is not None
        counted = evaluation.costs(self.model, self.task) if self.configuration.evaluation.cost else {}
        measures = [name for name in test if name not in ("epoch", "step", "split")]
        return {
            "chosen_by": f"validation {self.task.metric}", "best_epoch": done.best["epoch"], "epochs": done.epoch,
            **{f"validation_{name}": done.best[name] for name in measures},
            **{f"test_{name}": test[name] for name in measures},
            **evaluation.weights(self.model), **counted, "seconds": done.seconds,
            "seconds_per_step": evaluation.seconds_a_step(done.rows), "startup_seconds": self.startup,
            "memory_mib": torch.cuda.max_memory_reserved(self.device) / 2**20 if cuda else None,
            "device": evaluation.machine(self.device), "captured": self.captures, "compiled": self.settings.compile,
            "bfloat16": self.bfloat16,
            "processes": self.world, "examples": self.task.sizes, "classes": list(self.found.classes),
            "versions": evaluation.versions(), **asdict(self.origin),
        }  # fmt: skip
