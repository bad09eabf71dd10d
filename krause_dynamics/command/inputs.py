"""Files that tables name: found beside the TOML file, read without pickle, and known again by their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import check_entries, reading

# Keys whose text is the name of a file.
INPUTS = (("initial", "path"), ("opinions", "graph"), ("opinions", "weights"), ("opinions", "fixed"))
ENDINGS = (".npy", ".npz", ".nc", ".csv", ".txt")
EDGES = ".edgelist"  # networks only


def located(tables: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The tables with names of files made whole: relative ones lie in the folder."""
    result = dict(tables)
    for table, key in INPUTS:
        if isinstance(name := _given(result, table, key), str):
            result[table] = {**result[table], key: str(folder.absolute() / Path(name).expanduser())}
    return result


def digests(tables: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of every file that the tables name, by its name; `array_of` refuses those that are not there."""
    names = [name for table, key in INPUTS if isinstance(name := _given(tables, table, key), str)]
    return {name: _digest(Path(name)) for name in names if Path(name).is_file()}


def forget(tables: Mapping[str, Any], dotted: str) -> dict[str, Any]:
    """The tables, of which one key is given anew: the file that it named before is no longer asked for."""
    table, _, key = dotted.partition(".")
    if (table, key) not in INPUTS or "files" not in tables:
        return dict(tables)
    before = _given(tables, table, key)
    return {**tables, "files": {name: mark for name, mark in tables["files"].items() if name != before}}


def array_of(what: str, given: Any, files: Mapping[str, str]) -> Any:
    """Numbers from a file, where a key names one; what stands in the table itself becomes an array.

    Args:
        what: The key, for messages.
        given: Its content.
        files: Digests that files must have, by name.

    Raises:
        ValueError: No such file, another content than the digest says, or nothing that can be read as numbers.
    """
    if not isinstance(given, str):
        return None if given is None else np.asarray(given)
    path = Path(given)
    if not path.is_file():
        raise ValueError(f"{what} must name a file that exists, got {given!r} (looked up beside the TOML file)")
    if path.suffix not in (*ENDINGS, EDGES):
        raise ValueError(f"{what} must name a file that ends in {', '.join(ENDINGS)}, got {given!r}")
    if given in files and _digest(path) != files[given]:
        raise ValueError(
            f"{what}: {given} has changed since the run that this file describes; put the old one back, or give it "
            f"anew with --set {what}={given}"
        )
    return _read(path)


def _given(tables: Mapping[str, Any], table: str, key: str) -> Any:
    content = tables.get(table)
    return content.get(key) if isinstance(content, Mapping) else None


def _digest(path: Path) -> str:
    with reading(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read(path: Path) -> Any:
    if path.suffix == EDGES:
        import networkx

        with reading(path):
            return networkx.read_edgelist(path, nodetype=int, encoding="utf-8-sig")
    if path.suffix == ".npz":
        return _one_of(path)
    if path.suffix == ".nc":
        from krause_dynamics.trajectory import Trajectory

        return Trajectory.load(path).final
    with reading(path):
        return np.load(path, allow_pickle=False) if path.suffix == ".npy" else _numbers(path)


def _one_of(path: Path) -> Any:
    """The one array of an ``.npz``; of a run the last state; of scipy.sparse the matrix."""
    with reading(path), np.load(path, allow_pickle=False) as stored:
        check_entries(stored)
        names = set(stored.files)
        if len(names) == 1:
            return stored[names.pop()]
    if "header" in names:
        from krause_dynamics.trajectory import Trajectory

        return Trajectory.load(path).final
    if {"format", "shape", "data"} <= names:
        from scipy.sparse import load_npz

        with reading(path):
            return load_npz(path)
    raise ValueError(f"{path} must hold one array, got {', '.join(sorted(names))}; save one alone, as .npy")


def _numbers(path: Path) -> np.ndarray:
    """Columns of numbers, separated by commas, semicolons, tabs or blanks; a first line of names is passed over."""
    lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip() and line[0] != "#"]
    mark = next((mark for mark in (";", ",", "\t") if lines and mark in lines[0]), None)
    rows = [[cell.strip().strip('"') for cell in line.split(mark)] for line in lines]
    if rows and not all(map(_is_number, rows[0])):
        if rows[0][0] == "":
            raise ValueError("its first column has no name, as an index has none; write the values without the index")
        rows = rows[1:]
    for row in rows:
        if len(row) != len(rows[0]) or not all(map(_is_number, row)):
            raise ValueError(f"every line must hold {len(rows[0])} numbers, got {' '.join(row)[:80]!r}")
    if not rows:
        raise ValueError("it holds no numbers")
    array = np.array(rows, dtype=np.float64)
    return array[:, 0] if array.shape[1] == 1 else array


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
