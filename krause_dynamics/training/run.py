"""`train`: one run from its configuration to its result."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from krause_dynamics._arguments import FILE, Maybe, Word, reads
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.checkpoints.sources import place_of
from krause_dynamics.training import records
from krause_dynamics.training.configuration import TrainingConfiguration
from krause_dynamics.training.session import Session


@dataclass(frozen=True)
class TrainingResult:
    """What a run found.

    Attributes:
        folder: Where its files are: ``best/``, ``last/``, ``metrics.csv``, the curves, ``result.json``.
        best: The row of the epoch that was best by validation.
        last: The row of the last one.
        test: Measures of the test part by the best weights, taken once.
        metrics: All rows: epoch, step, split, loss, measures, seconds.
        result: Everything that ``result.json`` holds.
    """

    folder: Path
    best: dict[str, Any]
    last: dict[str, Any]
    test: dict[str, Any]
    metrics: tuple[dict[str, Any], ...]
    result: dict[str, Any]


@reads(
    out=FILE,
    resume=Word(("auto", "never", "end")),
    device=Maybe(Word(("cpu", "cuda"))),
    ending=Word(("png", "pdf", "svg")),
)
def train(
    configuration: Any,
    *,
    out: str | os.PathLike[str],
    resume: str = "auto",
    device: str | None = None,
    progress: bool | Progress = False,
    ending: str = "png",
) -> TrainingResult:
    """Train a model as a configuration says; what is in the folder already is not computed again.

    The best weights are those of the epoch that is best on the validation part; the test part is measured once, by
    them, after the last epoch. Started by torchrun or accelerate, the processes share each batch.

    Args:
        configuration: A `TrainingConfiguration`, its tables, or the path of a TOML file.
        out: Folder of the run; made where it is not there.
        resume: ``"auto"`` goes on where the folder's run ended, bit for bit; ``"never"`` refuses a folder with a run;
            ``"end"`` trains no further and measures the best weights so far, of a run that diverged or took too long.
        device: ``"cpu"`` or ``"cuda"``; by default a GPU where there is one.
        progress: ``True`` draws a bar; or a function ``progress(steps, all steps)``.
        ending: Of the figure ``curves``: ``"png"``, which every viewer shows; ``"pdf"`` or ``"svg"`` for print. Of a
            run that has ended the figure is drawn where that one is not there.

    Returns:
        The result; `TrainingResult.result` is also in ``result.json``.

    Raises:
        ValueError, FileNotFoundError: Bad tables or data, a folder of another run or of another number of processes,
            or one in which another process trains.
        TrainingDiverged: A loss became infinite or NaN.
    """
    chosen, folder = TrainingConfiguration.read(configuration), Path(out)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    place_of(device)
    with _alone(folder):
        if resume == "never" and (folder / "configuration.toml").exists():
            raise ValueError(f"out must be a folder without a run where resume='never', got {folder}")
        is_new = not (folder / "configuration.toml").exists()
        records.prepared(folder, chosen)
        if (folder / "result.json").exists():
            return _finished(folder, ending)
        try:
            with drawn(progress, "train") as told:
                return _trained(chosen, folder, device, told, end=resume == "end", ending=ending)
        except BaseException:
            if is_new:
                records.forget(folder)
            raise


def _trained(
    chosen: TrainingConfiguration, folder: Path, device: str, told: Progress, *, end: bool, ending: str
) -> TrainingResult:
    """Train, or go on, and draw the curves; random numbers of the caller are as they were."""
    mine = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(mine), _quiet():
        session = Session(chosen, folder, device, told)
        result, rows = session.run(end=end)
        if session.rank == 0:
            records.draw_curves(folder, rows, result, ending)
        return _result(folder, result, rows)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Workers that outlived their launcher, or a second start, would write the same files: one run at a time.

    The lock is no file of the run's folder, so that a folder holds what it is read for.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout

    owner = getattr(os, "getuid", int)()
    name = hashlib.sha256(f"{owner} {folder.resolve()}".encode()).hexdigest()[:32]
    lock = FileLock(Path(tempfile.gettempdir()) / f"krause_dynamics-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"out must be a folder in which no other process trains, one does in {folder}: wait for it, end it, or "
            "choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _quiet() -> Iterator[None]:
    """The Trainer and files of weights speak; afterwards transformers says what it said before."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _result(folder: Path, result: dict[str, Any], rows: list[dict[str, Any]]) -> TrainingResult:
    measured = [row for row in rows if row["split"] == "validation"]
    best = next(row for row in measured if row["epoch"] == result["best_epoch"])
    return TrainingResult(folder, best, measured[-1], rows[-1], tuple(rows), result)


def _finished(folder: Path, ending: str) -> TrainingResult:
    """The result of a run that ended before."""
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    rows = records.read_metrics(folder)
    if os.environ.get("RANK", "0") == "0" and not (folder / f"curves.{ending}").exists():
        records.draw_curves(folder, rows, result, ending)
    return _result(folder, result, rows)
