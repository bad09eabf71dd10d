"""Runs described by plain tables (TOML, or the header of a run file), turned into the same values a notebook builds."""

from __future__ import annotations

import copy
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._array import as_generator
from krause_dynamics._value import check_count
from krause_dynamics.dynamics import Dynamics
from krause_dynamics.dynamics import initial as initial_states
from krause_dynamics.integrators import RK4, Adaptive, Euler, EulerMaruyama, Integrator, LayerStep, Stiff
from krause_dynamics.interaction import Interaction, bounded_confidence, krause, softmax
from krause_dynamics.interaction.neighbourhoods import (
    Causal,
    Everyone,
    Grid,
    Neighbourhood,
    Others,
    TopK,
    Window,
    Within,
)
from krause_dynamics.opinions import (
    Deffuant,
    RandomRelocation,
    Sequential,
    StepNoise,
    Synchronous,
    TruthSeeking,
    hegselmann_krause,
)
from krause_dynamics.simulate import simulate
from krause_dynamics.spaces import Circle, Euclidean, Interval, Space, Sphere, Torus
from krause_dynamics.trajectory import Trajectory

# Every table, every key that it may hold, and its default; None: not given. [rule] depends on its type.
DEFAULTS: dict[str, dict[str, Any]] = {
    "rule": {"type": "softmax", "normalised": True, "neighbourhood": []},
    "space": {"type": "Sphere"},
    "initial": {"type": "sample", "n": 64, "d": None, "seed": 0},
    "dynamics": {"noise": 0.0, "relative": None},
    "integrator": {"type": None},
    "opinions": {
        "radius": None,
        "closed": True,
        "include_self": True,
        "normalised": True,
        "max_steps": None,
        "seed": None,
    }
    | dict.fromkeys(("schedule", "noise", "truth")),
    "run": {"t_end": 20.0, "dt": 0.05, "save_every": 1, "seed": None, "impl": "auto"},
    "sweep": {"parameters": {}, "seeds": 1, "statistics": ["order_parameter"], "cluster_radius": 0.1},
}
RULES: dict[str, tuple[Any, dict[str, Any]]] = {
    "softmax": (softmax, {"beta": 1.0}),
    "krause": (krause, {"sigma": 1.0}),
    "bounded_confidence": (bounded_confidence, {"radius": 0.5, "closed": True}),
}
NEIGHBOURHOODS = {kind.__name__: kind for kind in (Causal, Everyone, Grid, Others, TopK, Window, Within)}
SPACES = {kind.__name__: kind for kind in (Circle, Euclidean, Interval, Sphere, Torus)}
INTEGRATORS = {kind.__name__: kind for kind in (Adaptive, Euler, EulerMaruyama, LayerStep, RK4, Stiff)}
SCHEDULES = {kind.__name__: kind for kind in (Deffuant, Sequential, Synchronous)}
DISTURBANCES = {kind.__name__: kind for kind in (RandomRelocation, StepNoise)}
_TRUTH = {"TruthSeeking": TruthSeeking}
INITIAL: dict[str, dict[str, Any]] = {
    "sample": {},
    "uniform": {"low": 0.0, "high": 1.0},
    "gaussian": {"mean": 0.0, "std": 1.0},
    "equally_spaced": {"low": 0.0, "high": 1.0},
    "dumbbell": {},
    "file": {"path": None},
}


def load(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file, or the configuration that a run file (.npz) holds.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not TOML, or a run file without a configuration.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"the configuration {path} does not exist")
    if path.suffix == ".npz":
        content = Trajectory.load(path).meta.get("configuration")
        if content is None:
            raise ValueError(f"{path} holds a run that was not made from a configuration")
        return dict(content)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """All tables with their defaults filled in, every name checked.

    Raises:
        ValueError: An unknown table or key; the message names the nearest known one.
    """
    result = copy.deepcopy(DEFAULTS)
    check_names("table", given, DEFAULTS)
    for table, content in given.items():
        if not isinstance(content, Mapping):
            raise ValueError(f"{table} must be a table [{table}], got {content!r}")
        result[table] |= copy.deepcopy(dict(content))
    rule, start = result["rule"], result["initial"]
    if "opinions" in given and "type" not in given.get("initial", {}):
        start["type"] = "uniform"
    check_names("rule.type", [rule["type"]], RULES)
    check_names("initial.type", [start["type"]], INITIAL)
    result["rule"] = RULES[rule["type"]][1] | rule
    result["initial"] = INITIAL[start["type"]] | start
    for table in ("dynamics", "opinions", "run", "sweep"):
        check_names(f"key of [{table}]", result[table], DEFAULTS[table])
    check_names("key of [rule]", rule, DEFAULTS["rule"] | RULES[rule["type"]][1])
    check_names("key of [initial]", start, DEFAULTS["initial"] | INITIAL[start["type"]])
    return result


def described(given: Mapping[str, Any]) -> dict[str, Any]:
    """`complete` without the tables that the run does not read: what reproduces it."""
    tables = complete(given)
    unread = ("rule", "space", "dynamics", "integrator", "run") if "opinions" in given else ("opinions",)
    return {name: content for name, content in tables.items() if name in given or name not in unread}


def check(configuration: Mapping[str, Any]) -> None:
    """Raise ValueError where the tables describe no run."""
    (build_opinions if "opinions" in configuration else build)(configuration)


def check_names(what: str, given: Any, known: Any) -> None:
    """Raise ValueError for the first unknown name, with the nearest known one."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.0)
            raise ValueError(f"unknown {what} {name!r}; did you mean {near[0]!r}? Known: {', '.join(map(str, known))}")


def assign(configuration: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy with ``table.key`` set; for sweeps and for options of the command line.

    Raises:
        ValueError: The name has no dot.
    """
    table, dot, key = dotted.partition(".")
    if not dot or not key:
        raise ValueError(f"a parameter is named table.key, such as rule.beta, got {dotted!r}")
    result = copy.deepcopy(dict(configuration))
    result.setdefault(table, {})
    result[table] = dict(result[table]) | {key: value}
    return result


def build(configuration: Mapping[str, Any]) -> tuple[Dynamics, np.ndarray, dict[str, Any]]:
    """Dynamics, initial positions, and the remaining arguments of `kd.simulate`, from complete tables.

    Raises:
        ValueError: Unknown names or values that do not fit; the message says where.
    """
    tables = complete(configuration)
    space = _value("space", tables["space"], SPACES)
    dynamics = Dynamics(_rule(tables["rule"]), space, **tables["dynamics"])
    run = dict(tables["run"])
    seed = run.pop("seed")
    run["rng"] = tables["initial"]["seed"] if seed is None and dynamics.noise > 0 else seed
    if tables["integrator"] != DEFAULTS["integrator"]:
        run["integrator"] = _integrator(tables["integrator"])
    return dynamics, _initial(tables["initial"], space), run


def run(
    configuration: Mapping[str, Any],
    *,
    progress: bool = False,
    checkpoint: Path | None = None,
    final_only: bool = False,
) -> Trajectory:
    """The run that tables describe: `kd.hegselmann_krause` where [opinions] is given, else `kd.simulate`.

    Args:
        configuration: Tables as of a TOML file.
        progress: Draw a bar with the time left (the end of an opinion run is not known in advance: no bar).
        checkpoint: File to resume from and to write.
        final_only: Keep the first and the last state only, where that can be asked for.

    Raises:
        ValueError: As `build`.
    """
    if "opinions" in configuration:
        x0, options = build_opinions(configuration)
        return hegselmann_krause(x0, **options, checkpoint=checkpoint)
    dynamics, x0, options = build(configuration)
    only: dict[str, Any] = {"save_at": []} if final_only else {}
    return simulate(dynamics, x0, progress=progress, checkpoint=checkpoint, **options | only)


def build_opinions(configuration: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Initial opinions and the arguments of `kd.hegselmann_krause`, from tables.

    Raises:
        ValueError: No radius, a table that this model does not read, unknown names or values that do not fit.
    """
    unused = [t for t in ("rule", "space", "dynamics", "integrator", "run") if t in configuration]
    if unused:
        raise ValueError(f"[{unused[0]}] has no part in a run of [opinions]; take one of the two tables out")
    tables = complete(configuration)
    options = dict(tables["opinions"])
    if options["radius"] is None:
        raise ValueError("opinions.radius must be given, for example radius = 0.2")
    options["rng"] = tables["initial"]["seed"] if options["seed"] is None else options["seed"]
    del options["seed"]
    truth = options.pop("truth")
    options["external"] = truth and _value("opinions.truth", {"type": "TruthSeeking", **truth}, _TRUTH)
    for name, kinds in (("schedule", SCHEDULES), ("noise", DISTURBANCES)):
        options[name] = options[name] and _value(f"opinions.{name}", options[name], kinds)
    return _initial(tables["initial"], Euclidean()), options


def _rule(table: dict[str, Any]) -> Interaction:
    content = dict(table)
    factory, _ = RULES[content.pop("type")]
    listed = content.pop("neighbourhood")
    listed = [listed] if isinstance(listed, dict) else listed
    if not (isinstance(listed, list) and all(isinstance(part, dict) for part in listed)):
        raise ValueError(f'rule.neighbourhood must hold tables such as {{type = "Causal"}}, got {listed!r}')
    parts = [_value("rule.neighbourhood", part, NEIGHBOURHOODS) for part in listed]
    joined: Neighbourhood | None = None
    for part in parts:
        joined = part if joined is None else joined & part
    parameter = next(name for name in ("beta", "sigma", "radius") if name in content)
    return factory(content.pop(parameter), joined, **content)  # type: ignore[no-any-return]


def _integrator(table: dict[str, Any]) -> Integrator:
    return _value("integrator", table, INTEGRATORS)  # type: ignore[no-any-return]


def _value(where: str, table: Mapping[str, Any], kinds: Mapping[str, Any]) -> Any:
    """A value of one of the kinds from a table with its name under ``type``."""
    from dataclasses import fields

    content = dict(table)
    name = content.pop("type", None)
    if name is None:
        raise ValueError(f"[{where}] must name its type, one of {', '.join(kinds)}, got {dict(table)!r}")
    check_names(f"{where}.type", [name], kinds)
    check_names(f"key of [{where}]", content, ["type", *(field.name for field in fields(kinds[name]))])
    try:
        return kinds[name](**content)
    except TypeError as error:
        raise ValueError(f"[{where}] {name}: {error}") from error


def _initial(table: Mapping[str, Any], space: Space) -> np.ndarray:
    kind, n = table["type"], table["n"]
    check_count("initial.n", n)
    d = table["d"] if table["d"] is not None else _usual_dimension(space, kind)
    rng = as_generator(table["seed"])
    if kind == "file":
        if table["path"] is None:
            raise ValueError("initial.path must name a .npy file")
        return np.load(table["path"], allow_pickle=False)  # type: ignore[no-any-return]
    if kind == "sample":
        return space.sample(n, d, rng)
    if kind == "uniform":
        return initial_states.uniform(n, d, low=table["low"], high=table["high"], rng=rng)
    if kind == "gaussian":
        return initial_states.gaussian(n, d, mean=table["mean"], std=table["std"], rng=rng)
    if kind == "equally_spaced":
        return initial_states.equally_spaced(n, low=table["low"], high=table["high"])
    return initial_states.dumbbell(n)


def _usual_dimension(space: Space, kind: str) -> int:
    """3 on the sphere, 2 on the circle, 1 for opinions."""
    if kind != "sample":
        return 1
    return 2 if isinstance(space, Circle) else 3 if isinstance(space, Sphere) else 1
