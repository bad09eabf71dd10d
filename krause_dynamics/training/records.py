"""What a run leaves for readers: a table of metrics, its result, and the weights as transformers loads them."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import check_target, reading, regular, write_bytes
from krause_dynamics.training.configuration import TrainingConfiguration

WHOLE = ("folders", "text", "jsonl")  # formats that read what they find in a folder, a run's own files too
FIRST = ("epoch", "step", "split", "loss")


def write_metrics(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """``metrics.csv``: a line for each epoch and part; what a part is not measured by stays empty."""
    columns = [*FIRST, *sorted({name for row in rows for name in row} - set(FIRST))]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(folder / "metrics.csv", text.getvalue().encode())


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of ``metrics.csv``, without what is empty."""
    with regular(folder / "metrics.csv").open(newline="", encoding="utf-8") as opened:
        return [{k: _value(v) for k, v in row.items() if v} for row in csv.DictReader(opened)]


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(text)
    return text


def write_json(path: Path, content: dict[str, Any]) -> None:
    """A readable JSON file."""
    write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())


def write_predictions(folder: Path, predictions: np.ndarray) -> None:
    """``predictions.npz``: the class of each test example by the best weights, in the order of the files."""
    raw = io.BytesIO()
    np.savez_compressed(raw, predictions=predictions.astype(np.min_scalar_type(int(predictions.max()))))
    write_bytes(folder / "predictions.npz", raw.getvalue())


def draw_curves(folder: Path, rows: Sequence[dict[str, Any]], about: dict[str, Any], ending: str) -> None:
    """``curves.png`` (or of another ending): the loss, and what chose the best epoch, over the epochs."""
    from krause_dynamics import plots

    metric = about["chosen_by"].removeprefix("validation ")
    with plots.style():
        plots.save_figure(plots.training_figure(rows, metric), folder / f"curves.{ending}", about)


def export(model: Any, folder: Path) -> None:
    """``save_pretrained`` (safetensors and configuration), each file replaced in one step."""
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=folder) as beside:
        model.save_pretrained(beside)
        for written in sorted(Path(beside).iterdir()):
            os.replace(written, folder / written.name)


def forget(out: Path) -> None:
    """Take the configuration out of a folder that holds nothing else: of a run that could not begin, to be mended."""
    if [entry.name for entry in out.iterdir()] == ["configuration.toml"]:
        (out / "configuration.toml").unlink(missing_ok=True)


def prepared(out: Path, configuration: TrainingConfiguration) -> Path:
    """The folder of a run, made where it is not there, with its configuration.

    Raises:
        ValueError: It holds the run of another configuration, which is left as it is, is no folder to write to, or lies
            among the data.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"out must be a folder, got the file {out}")
    data = Path(configuration.data.path).resolve()
    if configuration.data.format in WHOLE and data.is_dir() and out.resolve().is_relative_to(data):
        raise ValueError(
            f"out must not lie in data.path, all of which is read as data; got {out} in {data}: choose another folder"
        )
    out.mkdir(parents=True, exist_ok=True)
    path = check_target("out", out / "configuration.toml")
    if path.exists():
        with reading(path):
            before = TrainingConfiguration.read(path)
        if words := before.difference(configuration):
            raise ValueError(
                f"{out} holds a run of another configuration ({words}); it was left as it is: choose another folder"
            )
    elif (out / "metrics.csv").exists():
        raise ValueError(f"{out} holds a table of metrics but no configuration; choose another folder")
    else:
        write_bytes(path, configuration.toml().encode())
    for left in out.glob("*/.part-*"):  # of a process that was killed
        with contextlib.suppress(OSError):
            shutil.rmtree(left)
    return out
