"""Kept logs: one CSV of results, of metrics and of answers for each experiment, in `evidence/logs`.

``python -m evidence.logs FOLDER ...`` joins what `evidence.run` wrote, loose or packed; a run that is there already is
left as it is, unless its configuration is another one, which is refused.
"""

from __future__ import annotations

import base64
import csv
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import replacing, write_bytes

FOLDER = Path(__file__).with_name("logs")
PACKED = "tables.zip"
KINDS = ("results", "metrics", "answers")
KEYS = {"results": ("run",), "metrics": ("run", "epoch", "split"), "answers": ("run",)}
Row = dict[str, Any]


def read(folder: Path, experiment: str, kind: str) -> list[Row]:
    """Rows of a kept table, numbers as numbers, what is empty left out; none where there is no file."""
    path = folder / f"{experiment}.{kind}.csv"
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as opened:
        return [{key: number(value) for key, value in row.items() if value} for row in csv.DictReader(opened)]


def number(text: str) -> Any:
    """A number where the text is one."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def write(folder: Path, experiment: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a table in one step; columns in the order in which rows name them first."""
    rows = list(rows)
    text = io.StringIO()
    columns = list(dict.fromkeys(key for row in rows for key in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: f"{v:.7g}" if isinstance(v, float) else v for key, v in row.items()} for row in rows)
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / f"{experiment}.{kind}.csv", text.getvalue().encode())


def joined(old: list[Row], new: list[Row], kind: str) -> list[Row]:
    """Old rows, then new ones of other runs.

    Raises:
        ValueError: A run that is there with another configuration.
    """
    known = {row["run"]: row for row in old}
    if kind == "results":
        for row in new:
            before = known.get(row["run"], row)
            if before.get("configuration") != row.get("configuration"):
                raise ValueError(
                    f"{row['run']} is in the logs with another configuration ({before.get('configuration')} there, "
                    f"{row.get('configuration')} now); note the change in PROTOCOL.md and remove the old rows first"
                )
    return [*old, *(row for row in new if row["run"] not in known)]


def keep(source: Path, target: Path = FOLDER) -> list[str]:
    """Join the tables of a folder into the kept ones; returns the names of their files."""
    written = []
    for path in sorted(source.glob("*.*.csv")):
        experiment, kind = path.name.removesuffix(".csv").rsplit(".", 1)
        if kind in KINDS:
            rows = joined(read(target, experiment, kind), read(source, experiment, kind), kind)
            write(target, experiment, kind, rows)
            written.append(path.name)
    return written


def pack(source: Path, target: Path) -> None:
    """All tables in one file, and the weights beside it: few files for a machine from which few come back."""
    target.mkdir(parents=True, exist_ok=True)
    with replacing(target / PACKED) as beside, zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as opened:
        for path in sorted(source.glob("*.csv")):
            opened.write(path, path.name)
    for path in sorted(source.glob("*.safetensors")):
        if not (target / path.name).exists():
            shutil.copyfile(path, target / path.name)


def keep_packed(source: Path, target: Path = FOLDER) -> list[str]:
    """`keep` of loose tables, and of those that `pack` packed."""
    written = keep(source, target)
    if (source / PACKED).exists():
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(source / PACKED) as opened:
                for name in opened.namelist():
                    (Path(folder) / Path(name).name).write_bytes(opened.read(name))
            written += keep(Path(folder), target)
    return written


def packed(right: np.ndarray) -> str:
    """Right or wrong of each example, as text."""
    return f"{len(right)}:{base64.b64encode(np.packbits(right)).decode()}"


def unpacked(text: str) -> np.ndarray:
    """What `packed` packed."""
    count, _, bits = text.partition(":")
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), np.uint8), count=int(count)).astype(bool)


if __name__ == "__main__":
    for given in sys.argv[1:]:
        sys.stdout.write("\n".join(keep_packed(Path(given))) + "\n")
