"""Finished points of a sweep, and the file that keeps them: ``.npz``, or netCDF where the path ends in ``.nc``."""

from __future__ import annotations

import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._files import check_target, read_netcdf, read_npz, write_netcdf, write_npz
from krause_dynamics.runs.fingerprints import differences
from krause_dynamics.runs.resuming import FUNCTIONS
from krause_dynamics.sweeps.product import FINISHED, Product, Results

WRITE_EVERY = 10.0  # seconds between two writings of the file
# Functions of this package that a file may name by the module in which they lay when it was written.
SHOWN = 5  # names of what differs in the code that a message holds
_MOVED = {"krause_dynamics.cli_simulate.evaluate_point": "krause_dynamics.command.sweep.evaluate_point"}


class Store:
    """Finished points by index.

    Args:
        path: A file that is read now, where it exists, and written from time to time; ``None`` keeps none.
        product: The points.
        attributes: What describes the sweep; ``attributes["sweep"]``, as JSON, is what makes it another one.

    Raises:
        ValueError: The file is no sweep's, or another one's (it is left as it is), or there is no place for one.
    """

    def __init__(self, path: str | os.PathLike[str] | None, product: Product, attributes: dict[str, str]) -> None:
        self._path = None if path is None else check_target("path", path)
        self._product, self._attributes = product, attributes
        self._last = time.monotonic()
        self.results: Results = {}
        if self._path is not None and self._path.exists():
            self._read(self._path)

    def add(self, index: int, result: dict[str, np.ndarray]) -> None:
        """Keep one point, and write where it is time to.

        Raises:
            ValueError: Other names, or another shape or kind, than the points before it.
        """
        if self.results:
            _check_alike(result, next(iter(self.results.values())))
        self.results[index] = result
        if time.monotonic() - self._last > WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Replace the file in one step; a full disk is a warning, as the results are worth more than the file."""
        if self._path is None or not self.results:
            return
        self._last = time.monotonic()
        try:
            if self._path.suffix == ".nc":
                write_netcdf(self._path, self._product.dataset(self.results, self._attributes))
            else:
                _write_npz(self._path, json.loads(self._attributes["sweep"]), self.results)
        except OSError as error:
            warnings.warn(
                f"path {self._path} could not be written ({error}); the sweep goes on, and tries again",
                RuntimeWarning,
                stacklevel=3,
            )

    def _read(self, path: Path) -> None:
        read: Callable[[Path, Product], tuple[dict[str, Any], Results]]
        read = _read_netcdf if path.suffix == ".nc" else _read_npz
        try:
            theirs, results = read(path, self._product)
        except Exception as error:  # whatever a damaged file leads to
            told = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise ValueError(f"path must be a file written by a sweep, {path} is not: {told}") from error
        ours = json.loads(self._attributes["sweep"])
        function = str(theirs.get("function")).partition("(")[0]
        if function in _MOVED:
            theirs["function"] = theirs["function"].replace(function, _MOVED[function], 1)
        if FUNCTIONS not in theirs:
            theirs[FUNCTIONS] = ours[FUNCTIONS]
            warnings.warn(
                f"path {path} is of a release that did not record the code of functions: whether its results are those "
                "of this function cannot be known; the sweep goes on with it: delete the file where they may differ",
                RuntimeWarning,
                stacklevel=5,
            )
        marks = differences(ours[FUNCTIONS], theirs[FUNCTIONS])
        words = [name for name in ours if name != FUNCTIONS and _text(theirs.get(name)) != _text(ours[name])]
        told = ", ".join(words) + ("; " if words and marks else "") + ", ".join(marks[:SHOWN])
        if told:
            raise ValueError(
                f"path {path} belongs to another sweep (different: {told}); "
                "it was left as it is: choose another path, or delete it"
            )
        self.results = results


def _check_alike(result: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> None:
    """All points have results of the same names, shapes and kinds.

    Raises:
        ValueError: They have not.
    """
    if set(result) != set(first):
        raise ValueError(f"results must have the same names at every point, got {sorted(result)} after {sorted(first)}")
    for name, x in result.items():
        if x.shape != first[name].shape:
            raise ValueError(
                f"results must have the same shape at every point, got {x.shape} after {first[name].shape} ({name})"
            )
        if (x.dtype.kind in "US") != (first[name].dtype.kind in "US"):
            raise ValueError(f"results must be text everywhere or nowhere, got {x.dtype} ({name})")


def _text(x: Any) -> str:
    return json.dumps(x, sort_keys=True)  # in which NaN equals itself


def _write_npz(path: Path, identity: dict[str, Any], results: Results) -> None:
    indices = sorted(results)
    names = list(results[indices[0]])
    arrays = {f"result_{name}": np.stack([results[i][name] for i in indices]) for name in names}
    write_npz(path, {"sweep": identity, "results": names}, {"indices": np.asarray(indices), **arrays})


def _read_npz(path: Path, product: Product) -> tuple[dict[str, Any], Results]:
    header, arrays = read_npz(path)
    indices = arrays.pop("indices")
    named = {name.removeprefix("result_"): values for name, values in arrays.items()}
    if sorted(header.get("results", named)) != sorted(named) or not named:
        raise ValueError(f"it must hold the results {header.get('results')}, got {sorted(named)}")
    return header["sweep"], {int(i): {name: x[row] for name, x in named.items()} for row, i in enumerate(indices)}


def _read_netcdf(path: Path, product: Product) -> tuple[dict[str, Any], Results]:
    dataset = read_netcdf(path)
    identity = json.loads(dataset.attrs["sweep"])
    if set(product.dims) - set(dataset.dims):
        return identity, {}  # another sweep, as its identity says
    flat = {name: x.values.reshape(-1, *x.shape[len(product.dims) :]) for name, x in dataset.data_vars.items()}
    finished = flat.pop(FINISHED, np.ones(len(product.points), dtype=bool))
    return identity, {int(i): {str(name): x[i] for name, x in flat.items()} for i in np.flatnonzero(finished)}
