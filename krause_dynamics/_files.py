"""Files of results: never half written, and tried for before anything is computed."""

from __future__ import annotations

import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be made in a folder, or ``None``: known now rather than at the end of a long run."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or type(error).__name__


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside the target to write to, renamed at the end: a kill leaves the old file or the new one."""
    beside = path.with_name(path.name + ".part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_npz(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Arrays and a JSON header in one file without pickle."""
    content: dict[str, Any] = {"header": np.array(json.dumps(header)), **arrays}
    with replacing(path) as beside, beside.open("wb") as stream:
        np.savez(stream, **content)
        stream.flush()
        os.fsync(stream.fileno())


def read_npz(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `write_npz`.

    Raises:
        ValueError: The file is damaged, or none of ours.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return json.loads(str(arrays.pop("header"))), arrays
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or of another kind ({error})") from error


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a file of `write_npz`, its arrays left unread.

    Raises:
        ValueError: The file is damaged, or none of ours.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            return json.loads(str(stored["header"]))  # type: ignore[no-any-return]
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} is damaged or of another kind ({error})") from error


def write_netcdf(path: Path, dataset: xarray.Dataset) -> None:
    """A Dataset as netCDF, its arrays of numbers compressed without loss.

    Raises:
        ValueError: The Dataset holds what netCDF cannot, such as complex numbers.
    """
    encoding: dict[Any, dict[str, Any]] = {
        name: {"zlib": True, "complevel": 4}
        for name, x in dataset.variables.items()
        if x.ndim and x.size and x.dtype.kind in "fiub"
    }
    with replacing(path) as beside:
        try:
            dataset.to_netcdf(beside, engine="h5netcdf", encoding=encoding)
        except (TypeError, ValueError) as error:
            raise ValueError(f"netCDF cannot hold this result ({error}); let the path end in .npz") from error


def read_netcdf(path: Path) -> xarray.Dataset:
    """A Dataset in memory, its file closed.

    Raises:
        ValueError: The file is damaged, or no netCDF.
    """
    import xarray

    try:
        with xarray.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"{path} is damaged or of another kind ({error})") from error
