"""Tables: what a TOML file, the options of the command and the header of a run file say, checked and completed."""

from __future__ import annotations

import copy
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from krause_dynamics._files import regular
from krause_dynamics._value import Value, check_names, fields_of, kinds_of
from krause_dynamics.command.inputs import digests, located
from krause_dynamics.command.kinds import FURTHER, INITIAL, RULES, check_kind
from krause_dynamics.trajectory import Trajectory

# Every table, its keys and their defaults; None: not given. A table that describes a value ([space], [integrator], ...)
# has the keys of its class, and [rule] and [initial] further ones that depend on their type.
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
    "files": {},  # written into run files: the digests of the files that the other tables name
}
NO_OPINIONS = ("rule", "space", "dynamics", "integrator", "run")  # what a run of [opinions] does not read


def load(path: str | Path) -> dict[str, Any]:
    """The tables of a TOML file, or the configuration that a run file (.npz or .nc) holds.

    Names of files in a TOML file are looked up from its own folder.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not TOML, or a run file without a configuration.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"the configuration {path} does not exist; krause init writes one to begin with")
    if path.suffix in (".npz", ".nc"):
        content = Trajectory.load(path).meta.get("configuration")
        if not isinstance(content, Mapping):
            raise ValueError(f"{path} holds a run that was not made from a configuration")
        return dict(content)
    try:
        return located(tomllib.loads(regular(path).read_text(encoding="utf-8-sig")), path.parent)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML: {error}") from error


def form_of(path: Path | None) -> str:
    """The form that computed a run file, so that repeating it gives the same numbers; else ``"auto"``."""
    if path is None or path.suffix not in (".npz", ".nc"):
        return "auto"
    return str(Trajectory.load(path).meta.get("impl", "auto"))


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
    check_names("rule.type", [rule["type"]], list(RULES))
    check_names("initial.type", [start["type"]], list(INITIAL))
    result["rule"] = RULES[rule["type"]] | rule
    result["initial"] = INITIAL[start["type"]] | start
    result["sweep"] = _gathered(result["sweep"])
    for table in ("dynamics", "opinions", "run", "sweep"):
        check_names(f"key of [{table}]", result[table], [*DEFAULTS[table], *FURTHER.get(table, ())])
    check_kind("rule", rule, DEFAULTS["rule"])
    check_kind("initial", start, DEFAULTS["initial"])
    return result


def described(given: Mapping[str, Any]) -> dict[str, Any]:
    """`complete` without the tables that the run does not read: what reproduces it."""
    tables = complete(given)
    unread = NO_OPINIONS if "opinions" in given else ("opinions",)
    files = tables.pop("files") | digests(given)
    kept = {name: content for name, content in tables.items() if name in given or name not in unread}
    return kept | ({"files": files} if files else {})


def _gathered(sweep: Mapping[str, Any]) -> dict[str, Any]:
    """[sweep] with all that varies under ``parameters``: written there or beside it, in quotes or as nested tables."""
    beside = {name: content for name, content in sweep.items() if "." in name or isinstance(content, Mapping)}
    parameters = beside.pop("parameters", sweep["parameters"])
    if not isinstance(parameters, Mapping):
        raise ValueError(f"[sweep.parameters] must be a table of lists, got {parameters!r}")
    rest = {name: content for name, content in sweep.items() if name not in beside}
    return rest | {"parameters": _flat(parameters) | _flat(beside)}


def _flat(tables: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested tables as dotted names."""
    result: dict[str, Any] = {}
    for name, content in tables.items():
        result |= _flat(content, f"{above}{name}.") if isinstance(content, Mapping) else {f"{above}{name}": content}
    return result


def assign(configuration: Mapping[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    """A copy with ``table.key`` set, at any depth: for sweeps and for options of the command line.

    In a list of tables a name means the one entry whose type has that key (``rule.neighbourhood.radius``), and a number
    the entry at that place (``rule.neighbourhood.0.radius``).

    Raises:
        ValueError: The name has no dot, leads through something that is no table, or means no entry of a list, or two.
    """
    keys = dotted.split(".")
    if len(keys) < 2 or not all(keys):
        raise ValueError(f"a parameter is named table.key, such as rule.beta, got {dotted!r}")
    return dict(_assigned(configuration, keys, value, ""))


def _assigned(node: Any, keys: list[str], value: Any, where: str) -> Any:
    """The node with what lies at the end of the keys replaced; tables that are not there yet begin empty."""
    if not keys:
        return value
    key, rest = keys[0], keys[1:]
    if isinstance(node, Mapping):
        return {**node, key: _assigned(node.get(key, {}), rest, value, f"{where}.{key}".lstrip("."))}
    if not (isinstance(node, list) and all(isinstance(entry, Mapping) for entry in node)):
        raise ValueError(f"{where} must be a table for {where}.{key} to be set, got {node!r}")
    place, rest = (int(key), rest) if key.isdigit() else (_place(node, key, where), keys)
    if place >= len(node):
        raise ValueError(f"{where} has {len(node)} entries, numbered from 0, got {place}")
    return [*node[:place], _assigned(node[place], rest, value, f"{where}.{place}"), *node[place + 1 :]]


def _place(tables: list[Mapping[str, Any]], key: str, where: str) -> int:
    """Which entry of a list of tables a key belongs to, by the fields of its class."""
    kinds = kinds_of(Value)
    keys = [{f.name for f in fields_of(kinds[t["type"]])} if t.get("type") in kinds else {"type"} for t in tables]
    found = [place for place, known in enumerate(keys) if key in known]
    if not found and not tables and key != "type":
        has = [name for name, kind in sorted(kinds.items()) if key in {f.name for f in fields_of(kind)}]
        said = f", such as {where} = [{{type = {has[-1]!r}, {key} = ...}}]" if has else ""
        raise ValueError(
            f"{where} is empty, so that nothing in it has a {key!r}; write what it holds in the file{said}"
        )
    if not found:
        check_names(f"key of [{where}]", [key], sorted({"type"}.union(*keys)))
    if len(found) > 1:
        raise ValueError(
            f"{len(found)} entries of {where} have a {key}; name one by its place: {where}.{found[0]}.{key}"
        )
    return found[0]
