"""Runs described by tables, turned into the same values that a notebook builds, and run."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from operator import and_
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._arguments import COUNT
from krause_dynamics._array import as_generator
from krause_dynamics._value import value_from
from krause_dynamics.command.inputs import array_of
from krause_dynamics.command.tables import DEFAULTS, NO_OPINIONS, complete
from krause_dynamics.dynamics import Dynamics, initial
from krause_dynamics.integrators import Integrator
from krause_dynamics.interaction import Everyone, Interaction, Neighbourhood, bounded_confidence, krause, softmax
from krause_dynamics.interaction.scores import Score
from krause_dynamics.opinions import TruthSeeking, hegselmann_krause
from krause_dynamics.opinions.disturbances import Noise
from krause_dynamics.opinions.schedules import Schedule
from krause_dynamics.runs.arguments import check_affordable
from krause_dynamics.runs.stopping import StopRule
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Space, Sphere
from krause_dynamics.trajectory import Trajectory

_RULES: dict[str, Callable[..., Interaction]] = {f.__name__: f for f in (softmax, krause, bounded_confidence)}


PARTICLES = 1e9  # 8 GB a coordinate
_ARRAYS = ("graph", "weights", "fixed")  # keys of [opinions] that hold arrays, or the names of files


def build(configuration: Mapping[str, Any]) -> tuple[Dynamics, np.ndarray, dict[str, Any]]:
    """Dynamics, initial positions, and the remaining arguments of `kd.simulate`, from complete tables.

    Raises:
        ValueError: Unknown names or values that do not fit; the message says where.
    """
    tables = complete(configuration)
    space: Space = value_from(tables["space"], Space, "space")
    dynamics = Dynamics(_rule(tables["rule"]), space, **tables["dynamics"])
    options = _with_values(tables["run"], "run", stop=StopRule)
    seed = options.pop("seed")
    options["rng"] = tables["initial"]["seed"] if seed is None and dynamics.noise > 0 else seed
    if tables["integrator"] != DEFAULTS["integrator"]:
        options["integrator"] = value_from(tables["integrator"], Integrator, "integrator")
    return dynamics, _initial(tables["initial"], space, tables["files"]), options


def build_opinions(configuration: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Initial opinions and the arguments of `kd.hegselmann_krause`, from tables.

    Raises:
        ValueError: No radius, a table that this model does not read, unknown names or values that do not fit.
    """
    unused = [table for table in NO_OPINIONS if table in configuration]
    if unused:
        raise ValueError(f"[{unused[0]}] has no part in a run of [opinions]; take one of the two tables out")
    tables = complete(configuration)
    kinds = {"schedule": Schedule, "noise": Noise, "influence": Score, "stop": StopRule}
    options = _with_values(tables["opinions"], "opinions", **kinds)
    if options["radius"] is None:
        raise ValueError("opinions.radius must be given, for example radius = 0.2")
    seed, truth = options.pop("seed"), options.pop("truth")
    options["rng"] = tables["initial"]["seed"] if seed is None else seed
    options["external"] = truth and value_from({"type": "TruthSeeking", **truth}, TruthSeeking, "opinions.truth")
    named = {name: array_of(f"opinions.{name}", options[name], tables["files"]) for name in _ARRAYS if name in options}
    if (fixed := named.get("fixed")) is not None and fixed.dtype != bool and np.isin(fixed, (0, 1)).all():
        named["fixed"] = fixed.astype(bool)  # files of numbers know no truth values
    return _initial(tables["initial"], Euclidean(), tables["files"]), options | named


def check(configuration: Mapping[str, Any]) -> None:
    """Raise ValueError where the tables describe no run."""
    (build_opinions if "opinions" in configuration else build)(configuration)


def run(
    configuration: Mapping[str, Any],
    *,
    progress: bool = False,
    checkpoint: Path | None = None,
    final_only: bool = False,
    impl: str = "auto",
) -> Trajectory:
    """The run that tables describe: `kd.hegselmann_krause` where [opinions] is given, else `kd.simulate`.

    Args:
        configuration: Tables as of a TOML file.
        progress: Draw a bar with the time left (the end of an opinion run is not known in advance: no bar).
        checkpoint: File to resume from and to write.
        final_only: Keep the first and the last state only, where that can be asked for.
        impl: The form that computes particles where the tables leave it open.

    Raises:
        ValueError: As `build`.
    """
    if "opinions" in configuration:
        x0, options = build_opinions(configuration)
        return hegselmann_krause(x0, **options, checkpoint=checkpoint)
    dynamics, x0, options = build(configuration)
    options["impl"] = impl if options["impl"] == "auto" else options["impl"]
    only: dict[str, Any] = {"save_at": []} if final_only else {}
    return simulate(dynamics, x0, progress=progress, checkpoint=checkpoint, **options | only)


def _with_values(table: Mapping[str, Any], where: str, **kinds: Any) -> dict[str, Any]:
    """A table whose entries of the named keys, where they are given, became values of these kinds."""
    named = {key: kind for key, kind in kinds.items() if table.get(key)}
    return dict(table) | {key: value_from(table[key], kind, f"{where}.{key}") for key, kind in named.items()}


def _rule(table: Mapping[str, Any]) -> Interaction:
    """One of the three rules of the field by its parameter, or any `Interaction` by its score."""
    content = dict(table) | {"neighbourhood": _neighbourhood(table["neighbourhood"])}
    if content["type"] == "Interaction":
        content["neighbourhood"] = content["neighbourhood"] or Everyone()
        return value_from(content, Interaction, "rule")  # type: ignore[no-any-return]
    if isinstance(content.get("pair_bias"), list):
        content["pair_bias"] = np.asarray(content["pair_bias"])
    return _RULES[content.pop("type")](**content)


def _neighbourhood(listed: Any) -> Neighbourhood | None:
    """Tables joined with ``&``; ``None`` where there are none."""
    listed = [listed] if isinstance(listed, dict) else listed
    if not (isinstance(listed, list) and all(isinstance(part, dict) for part in listed)):
        raise ValueError(f'rule.neighbourhood must hold tables such as {{type = "Causal"}}, got {listed!r}')
    parts = [value_from(part, Neighbourhood, "rule.neighbourhood") for part in listed]
    return functools.reduce(and_, parts) if parts else None


def _initial(table: Mapping[str, Any], space: Space, files: Mapping[str, str]) -> np.ndarray:
    """Initial positions: the space's own sample, a file, or a function of `krause_dynamics.initial`."""
    kind, n = table["type"], table["n"]
    COUNT.read("initial.n", n)
    check_affordable("particles (initial.n)", n, PARTICLES)
    if kind == "file":
        if not isinstance(table["path"], str):
            raise ValueError(f"initial.path must name a file of positions, such as start.npy, got {table['path']!r}")
        return array_of("initial.path", table["path"], files)  # type: ignore[no-any-return]
    draw: Callable[..., np.ndarray] = space.sample if kind == "sample" else getattr(initial, kind)
    d = table["d"] if table["d"] is not None else _usual_dimension(space, kind)
    given = dict(table) | {"d": d, "rng": as_generator(table["seed"])}
    return draw(**{name: given[name] for name in inspect.signature(draw).parameters})


def _usual_dimension(space: Space, kind: str) -> int:
    """3 on the sphere, 2 on the circle, 1 for opinions."""
    if kind != "sample":
        return 1
    return 2 if isinstance(space, Circle) else 3 if isinstance(space, Sphere) else 1
