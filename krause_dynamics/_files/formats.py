"""Arrays with a JSON header as ``.npz``, and Datasets as netCDF: what the package writes and reads again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._files.marks import check_mark, mark
from krause_dynamics._files.reading import reading
from krause_dynamics._files.replacing import replacing, write_bytes

if TYPE_CHECKING:
    import xarray


def write_npz(path: Path, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Arrays and a JSON header in one file without pickle.

    Raises:
        TypeError: The header holds what JSON cannot.
        ValueError: An array of objects, which only a pickle could hold.
    """
    for name, x in arrays.items():
        if x.dtype.hasobject:
            raise ValueError(f"{name} must hold numbers or text to be written, got an array of objects ({x.dtype})")
    content: dict[str, Any] = {"header": np.array(json.dumps(header)), **arrays}
    with replacing(path) as beside, beside.open("wb") as stream:
        np.savez(stream, **content)


def read_npz(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The inverse of `write_npz`.

    Raises:
        ValueError: The file is damaged, or none of ours.
    """
    with reading(path), path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        check_entries(stored)
        arrays = {name: stored[name] for name in stored.files}
        for name, x in arrays.items():
            if not isinstance(x, np.ndarray):  # numpy answers an entry without the head of an array with its bytes
                raise ValueError(f"its entry {name!r} holds no array")
        return _header(arrays.pop("header")), arrays


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a file of `write_npz`, its arrays left unread.

    Raises:
        ValueError: The file is damaged, or none of ours.
    """
    with reading(path), path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
        check_entries(stored, "header.npy")
        return _header(stored["header"])


def check_entries(stored: Any, *names: str) -> None:
    """Compare entries of an open ``.npz`` with the lengths and checksums that it holds; all, or those named.

    numpy reads as many bytes as an array has, so that it need not meet the check at the end of an entry, and answers an
    entry without the head of an array with its bytes.

    Raises:
        ValueError: An entry is shorter than its table says.
        zipfile.BadZipFile: Its checksum differs.
    """
    for name in names or stored.zip.namelist():
        length = 0
        with stored.zip.open(name) as entry:
            while part := entry.read(1 << 20):
                length += len(part)
        if length != stored.zip.getinfo(name).file_size:
            raise ValueError(f"its entry {name!r} has {length} bytes instead of {stored.zip.getinfo(name).file_size}")


def _header(stored: np.ndarray) -> dict[str, Any]:
    header = json.loads(str(stored))
    if not isinstance(header, dict):
        raise ValueError(f"its header must be a table, got {type(header).__name__}")
    return header


def write_netcdf(path: Path, dataset: xarray.Dataset) -> None:
    """A Dataset as netCDF, its arrays of numbers compressed without loss.

    It is made in memory: the library ends the whole process when a disk is full. Behind its end lies a mark (`marks`).

    Raises:
        ValueError: The Dataset holds what netCDF cannot, such as complex numbers.
    """
    # Text among numbers has no kind of its own there.
    mixed = {name: x.astype(str) for name, x in dataset.coords.items() if x.dtype.hasobject}
    dataset = dataset.assign_coords(mixed) if mixed else dataset
    encoding: dict[Any, dict[str, Any]] = {
        name: {"zlib": True, "complevel": 4}
        for name, x in dataset.variables.items()
        if x.ndim and x.size and x.dtype.kind in "fiub"
    }
    try:
        content = dataset.to_netcdf(engine="h5netcdf", encoding=encoding)
    except (TypeError, ValueError) as error:
        raise ValueError(f"netCDF cannot hold this result ({error}); let the path end in .npz") from error
    write_bytes(path, content, mark(content))


def read_netcdf(path: Path) -> xarray.Dataset:
    """A Dataset in memory, its file closed.

    Raises:
        ValueError: The file is damaged, or no netCDF.
    """
    import xarray

    with reading(path):
        check_mark(path)
        with xarray.open_dataset(path, engine="h5netcdf") as dataset:
            return dataset.load()
