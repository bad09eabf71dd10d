"""The one result type: positions (or hidden states) over times (or layers), with what is needed to reproduce them."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._array import Array, to_numpy
from krause_dynamics._files import attributes, check_target, read_netcdf, read_npz, with_ending, write_netcdf, write_npz
from krause_dynamics._html import facts
from krause_dynamics._value import value_from
from krause_dynamics.spaces import Euclidean, Space

if TYPE_CHECKING:
    import xarray

EVENT = "event_"  # begins the names of extras that are times of events: as many as were found, over no other axis


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """States over time. Arrays are whatever library the run used; `numpy` moves them.

    Attributes:
        times: (T,) increasing; layers of a checkpoint are times 0..L. ``meta["axis"]`` says which.
        positions: (T, *batch, n, d).
        log_mass: ``None`` (equal masses), (*batch, n), or (T, *batch, n) where masses move (mean field).
        steps: Number of steps in which something moved, where the producer counts them.
        extras: Further arrays by name. A slice of the trajectory slices those of length T, except times of events
            (``event_...``) and the names listed in ``meta["not_over_time"]``.
        meta: JSON-ready description: rule, parameters, seed, version, implementation, why it stopped.
    """

    times: Array
    positions: Array
    log_mass: Array | None = None
    steps: int | None = None
    extras: dict[str, Array] = field(default_factory=dict)
    meta: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("times", "positions"):
            if not hasattr(getattr(self, name), "ndim"):
                raise TypeError(
                    f"{name} must be an array, got {type(getattr(self, name)).__name__}; np.asarray makes one"
                )
        if self.positions.ndim < 3 or self.times.shape != self.positions.shape[:1]:
            raise ValueError(
                "positions must have shape (T, *batch, n, d) with T = len(times), got "
                f"{tuple(self.positions.shape)} for times {tuple(self.times.shape)}"
            )

    def __len__(self) -> int:
        return int(self.positions.shape[0])

    def __repr__(self) -> str:
        """One line: states, particles, space, times, rule, why it ended."""
        *batch, n, d = self.positions.shape[1:]
        runs = f"{' x '.join(map(str, batch))} runs of " if batch else ""
        axis, described = str(self.meta.get("axis", "time")), self.meta.get("dynamics") or {}
        units = "tokens" if axis == "layer" else "particles"
        where = (described.get("space") or {}).get("type", f"R^{d}") if described else f"R^{d}"
        parts = [
            f"{len(self)} states of {runs}{n} {units} in {f'R^{d}' if where == 'Euclidean' else where}",
            f"{axis} {float(self.times[0]):g} to {float(self.times[-1]):g}" if len(self) else f"no {axis}",
            _rule_in_words(described.get("rule") or self.meta),
            f"ended: {self.meta['stopped']}" if self.meta.get("stopped") else "",
        ]
        return "Trajectory: " + ", ".join(part for part in parts if part)

    def _repr_html_(self) -> str:
        """The same as a table, for notebooks."""
        described = self.meta.get("dynamics") or {}
        space = (described.get("space") or {}).get("type", "Euclidean")
        *batch, n, d = self.positions.shape[1:]
        axis = str(self.meta.get("axis", "time"))
        rows = [
            ("rule", _rule_in_words(described.get("rule") or self.meta)),
            ("tokens" if axis == "layer" else "particles", n),
            ("space", space if described else None),
            ("dimension", d),
            ("runs", " x ".join(map(str, batch))),
            (axis, f"{float(self.times[0]):g} to {float(self.times[-1]):g}, {len(self)} states" if len(self) else None),
            ("ended", self.meta.get("stopped")),
            ("steps", self.steps),
            ("masses", None if self.log_mass is None else "given"),
            ("also kept", ", ".join(self.extras)),
            *((name, self.meta.get(name)) for name in ("impl", "seed", "version")),
        ]
        return facts("Trajectory", rows)

    def __getitem__(self, index: int | slice) -> Any:
        """``run[i]``: the positions saved i-th; ``run[a:b]``: a shorter `Trajectory`."""
        if not isinstance(index, slice):
            return self.positions[index]
        log_mass = self.log_mass[index] if self._masses_move() else self.log_mass  # type: ignore[index]
        extras = {name: x[index] if self._is_over_time(name, x) else x for name, x in self.extras.items()}
        return replace(self, times=self.times[index], positions=self.positions[index], log_mass=log_mass, extras=extras)

    @property
    def final(self) -> Array:
        """Positions at the last saved time, (*batch, n, d)."""
        return self.positions[-1]

    @property
    def space(self) -> Space:
        """Where the positions live, by ``meta["dynamics"]``; `Euclidean` where the metadata name no space.

        Raises:
            ValueError: The space is of a class that is not defined here, or holds a function.
        """
        described = (self.meta.get("dynamics") or {}).get("space")
        return Euclidean() if described is None else value_from(described, Space)

    def log_mass_at(self, index: int) -> Array | None:
        """Log m at one saved time, (*batch, n), or ``None`` for equal masses.

        Raises:
            ValueError: No such time.
        """
        if not -len(self.times) <= index < len(self.times):
            raise ValueError(f"index must be one of {len(self.times)} saved times, got {index}")
        return self.log_mass[index] if self._masses_move() else self.log_mass  # type: ignore[index]

    def _is_over_time(self, name: str, x: Array) -> bool:
        return x.ndim > 0 and len(x) == len(self) and not self._has_own_axis(name)

    def _has_own_axis(self, name: str) -> bool:
        return name.startswith(EVENT) or name in self.meta.get("not_over_time", ())

    def _masses_move(self) -> bool:
        return self.log_mass is not None and self.log_mass.ndim == self.positions.ndim - 1

    def numpy(self) -> Trajectory:
        """The same trajectory with numpy arrays on the host."""
        return replace(
            self,
            times=to_numpy(self.times),
            positions=to_numpy(self.positions),
            log_mass=None if self.log_mass is None else to_numpy(self.log_mass),
            extras={name: to_numpy(x) for name, x in self.extras.items()},
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write an ``.npz`` file (no pickle) or netCDF; beside and renamed, so that a kill leaves no half file.

        Both hold the same and load to the same bits. ``.npz`` needs numpy alone; ``.nc`` is what `to_xarray` gives,
        with names for all axes, compressed, for other programs.

        Args:
            path: Target; the ending says which, ``.npz`` is added when it is neither.

        Returns:
            The path written.

        Raises:
            FileNotFoundError: The folder does not exist, or nothing can be written there (also a ``ValueError``).
            TypeError: ``meta`` holds something that JSON cannot.
            ValueError: An array that no file without pickle can hold, such as objects.
        """
        host, path = self.numpy(), check_target("path", _with_suffix(path))
        if path.suffix == ".nc":
            write_netcdf(path, self.to_xarray())
            return path
        arrays = {"times": host.times, "positions": host.positions}
        if host.log_mass is not None:
            arrays["log_mass"] = host.log_mass
        arrays |= {f"extra_{name}": x for name, x in host.extras.items()}
        write_npz(path, {"steps": self.steps, "meta": self.meta}, arrays)
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Trajectory:
        """Read a file written by `save`; numpy arrays.

        Raises:
            FileNotFoundError: No such file.
            ValueError: Not a trajectory file.
        """
        path = _with_suffix(path)
        if not path.exists():
            raise FileNotFoundError(f"path must be a trajectory file, but {path} does not exist")
        try:
            if path.suffix == ".nc":
                return _from_xarray(cls, read_netcdf(path))
            header, arrays = read_npz(path)
        except (ValueError, KeyError) as error:
            raise ValueError(f"path must be a file written by Trajectory.save, {path} is not: {error}") from error
        extras = {k.removeprefix("extra_"): arrays.pop(k) for k in list(arrays) if k.startswith("extra_")}
        parts: dict[str, Any] = {**arrays, **header}
        return cls(extras=extras, **parts)

    def to_xarray(self) -> xarray.Dataset:
        """A labelled Dataset: ``positions (time, [batch_0, ...], particle, dimension)``, ``log_mass``, extras.

        Attributes: the facts of `meta` by name, all of them as JSON under ``meta``; ``steps``, where these are counted.
        """
        import xarray

        host = self.numpy()
        axis = str(self.meta.get("axis", "time"))
        batch = [f"batch_{i}" for i in range(host.positions.ndim - 3)]
        variables: dict[str, Any] = {"positions": ([axis, *batch, "particle", "dimension"], host.positions)}
        if host.log_mass is not None:
            leading = [axis] if self._masses_move() else []
            own = batch[len(batch) - (host.log_mass.ndim - len(leading) - 1) :]
            variables["log_mass"] = ([*leading, *own, "particle"], host.log_mass)
        coordinates = {axis: host.times}
        if "saved_times" in host.extras:
            coordinates["saved_time"] = host.extras["saved_times"]
        for name, x in host.extras.items():
            if name != "saved_times":
                variables[name] = (_dimensions(name, x, {} if self._has_own_axis(name) else coordinates, axis), x)
        dataset = xarray.Dataset(variables, coords=coordinates)
        dataset.attrs.update(attributes(self.meta))
        if self.steps is not None:
            dataset.attrs["steps"] = self.steps
        return dataset


def _dimensions(name: str, x: np.ndarray, coordinates: dict[str, np.ndarray], axis: str) -> list[str]:
    """Extras run over the saved times of statistics, over the times of the run, or over an axis of their own."""
    labels = [f"{name}_{i}" for i in range(x.ndim)]
    for label in ("saved_time", axis):
        if x.ndim and label in coordinates and len(x) == len(coordinates[label]):
            return [label, *labels[1:]]
    return labels


def _from_xarray(cls: type[Trajectory], dataset: xarray.Dataset) -> Trajectory:
    """The inverse of `Trajectory.to_xarray`.

    Raises:
        KeyError: It is no trajectory.
    """
    meta, steps = json.loads(dataset.attrs["meta"]), dataset.attrs.get("steps")
    extras = {str(name): x.values for name, x in dataset.data_vars.items()}
    times, positions, log_mass = (
        dataset[meta.get("axis", "time")].values,
        extras.pop("positions"),
        extras.get("log_mass"),
    )
    extras.pop("log_mass", None)
    if "saved_time" in dataset.coords:
        extras["saved_times"] = dataset["saved_time"].values
    return cls(times, positions, log_mass, None if steps is None else int(steps), extras, meta)


def _with_suffix(path: str | os.PathLike[str]) -> Path:
    return with_ending(path, ".npz", (".npz", ".nc"))


def _rule_in_words(described: dict[str, Any]) -> str:
    """Score and neighbourhood of a described rule with their numbers; the model's name where that is all there is."""
    score, near = described.get("score"), described.get("neighbourhood") or []
    if not isinstance(score, dict):
        return str(described.get("model", ""))
    named = [part for part in [score, *(near if isinstance(near, list) else [near])] if isinstance(part, dict)]
    words = []
    for part in named:
        numbers = [
            f"{key}={value:g}" for key, value in part.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value
        ]  # fmt: skip
        words.append(f"{part.get('type')}({', '.join(numbers)})" if numbers else str(part.get("type")))
    return " & ".join(word for word in words if word != "Everyone")
