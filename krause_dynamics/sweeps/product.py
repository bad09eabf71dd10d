"""The points of a sweep, a product of parameters and seeds, and their results as a labelled Dataset."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray

Point = tuple[dict[str, Any], int]  # arguments by name, and the number of the seed
Results = dict[int, dict[str, np.ndarray]]  # by the index of the point, by the name of the result
MOST = 10_000_000  # points: all are listed in memory before the first
FINISHED = "finished_points"  # a variable of files of sweeps that still lack some


@dataclass(frozen=True)
class Product:
    """Every combination of parameters with every seed.

    Attributes:
        parameters: Values by argument name; each is a dimension.
        seeds: Number of repetitions, the last dimension.

    Raises:
        ValueError: No parameters or values, a parameter named as the seed, or ``seeds`` below 1.
    """

    parameters: Mapping[str, Sequence[Any]]
    seeds: int

    def __post_init__(self) -> None:
        given = self.parameters
        single = [name for name, values in given.items() if isinstance(values, str) or not hasattr(values, "__len__")]
        if single:
            raise ValueError(f"parameters must hold a list of values each, got {single[0]}={given[single[0]]!r}")
        if not given or any(len(values) == 0 for values in given.values()):
            raise ValueError(f"parameters must name at least one argument with at least one value each, got {given!r}")
        if "seed" in given or "rng" in given:
            raise ValueError("parameters must not be named 'seed' or 'rng'; use seeds= and rng=")
        if isinstance(self.seeds, bool) or not isinstance(self.seeds, int | np.integer) or self.seeds < 1:
            raise ValueError(f"seeds must be a whole number of at least 1, got {self.seeds!r}")
        if (count := math.prod(map(len, given.values())) * int(self.seeds)) > MOST:
            raise ValueError(f"parameters and seeds must make at most {MOST:_} points, got {count:_}; split the sweep")

    @property
    def points(self) -> list[Point]:
        """All points, the seed varying fastest."""
        combinations = itertools.product(*self.parameters.values())
        return [
            (dict(zip(self.parameters, values, strict=True)), seed)
            for values in combinations
            for seed in range(self.seeds)
        ]

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of the dimensions."""
        return (*self.parameters, "seed")

    @property
    def labels(self) -> dict[str, list[Any]]:
        """Coordinates by parameter, JSON-ready: numbers and strings as they are, everything else by its words."""
        return {name: [_label(value) for value in values] for name, values in self.parameters.items()}

    def dataset(self, results: Results, attributes: Mapping[str, str]) -> xarray.Dataset:
        """Results over (*parameters, seed, ...); where points are missing, NaN or 0 and a variable that says which."""
        import xarray

        shape = (*(len(values) for values in self.parameters.values()), self.seeds)
        indices = sorted(results)
        variables: dict[str, Any] = {}
        for name, first in results[indices[0]].items():
            values = np.zeros((int(np.prod(shape)), *first.shape), np.result_type(*(results[i][name] for i in indices)))
            if values.dtype.kind in "fc":
                values[:] = np.nan
            values[indices] = np.stack([results[index][name] for index in indices])
            inner = [f"{name}_{axis}" for axis in range(first.ndim)]
            variables[name] = ([*self.dims, *inner], values.reshape(*shape, *first.shape))
        if len(indices) < np.prod(shape):
            finished = np.isin(np.arange(np.prod(shape)), indices)
            variables[FINISHED] = (self.dims, finished.reshape(shape))
        coordinates = {
            name: _coordinate(labels, given)
            for (name, labels), given in zip(self.labels.items(), self.parameters.values(), strict=True)
        }
        coordinates["seed"] = np.arange(self.seeds)
        return xarray.Dataset(variables, coords=coordinates, attrs=dict(attributes))


def is_label(value: Any) -> bool:
    """Whether a value is its own coordinate."""
    return isinstance(value, bool | int | float | str | np.bool_ | np.integer | np.floating | np.str_)


def _label(value: Any) -> Any:
    if not is_label(value):
        return repr(value)
    return value.item() if isinstance(value, np.generic) else value


def _coordinate(labels: list[Any], given: Sequence[Any]) -> Any:
    """``None`` among numbers is NaN, so that 1.0 is found as 1.0; text among numbers leaves every value what it is."""
    if any(value is None for value in given) and all(value is None or _is_number(value) for value in given):
        return [np.nan if value is None else value for value in given]
    mixed = len({isinstance(label, str) for label in labels}) > 1
    return np.array(labels, dtype=object) if mixed else labels


def _is_number(value: Any) -> bool:
    return is_label(value) and not isinstance(value, str | bool | np.bool_)
