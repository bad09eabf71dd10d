"""The page of all keys of TOML files, from the tables that read them and the docstrings of what they make."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from typing import Any

NAME = re.compile(r"^(\w+(?:, \w+)*)(?: \([^)]*\))?: (.*)$")
# What says what the keys of a table mean, and words for those that no call has.
WORDS = {
    "rule.type": "`softmax`, `krause`, `bounded_confidence`, or `Interaction` with any score below.",
    "rule.neighbourhood": "A list of tables, joined by \"and\"; see the neighbourhoods below.",
    "rule.score": "Of an `Interaction`: one of the scores below.",
    "space.type": "One of the spaces below, with its keys.",
    "initial.type": "`sample` (uniform in the space), `file`, or a function of `kd.initial`.",
    "initial.n": "Number of particles.",
    "initial.d": "Dimension (default: 3 on the sphere, 2 on the circle, else 1).",
    "initial.seed": "Seed of the initial state; the same seed gives the same run, bit for bit.",
    "initial.path": "Of type `file`: positions as `.npy`, `.npz`, `.nc`, `.csv` or `.txt`, beside the TOML file.",
    "integrator.type": "One of the integrators below, with its keys (default: what `kd.simulate` takes).",
    "run.seed": "Of the noise (default: that of the initial state).",
    "run.stop": "One of the stop rules below.",
    "sweep.parameters": "Lists of values by dotted key, at any depth: `\"rule.neighbourhood.radius\" = [0.3, 0.5]`.",
    "sweep.seeds": "How many initial states a point; point and seed decide it, not the order of the runs.",
    "sweep.statistics": "Names of `kd.observables`, `clusters` or `largest_cluster` (a share), of the last state.",
    "sweep.cluster_radius": "What counts as one cluster; unit: position.",
    "opinions.radius": "Confidence radius; unit: opinion.",
    "opinions.seed": "Of random schedules and noise (default: that of the initial state).",
    "opinions.truth": "Keys of `TruthSeeking` below.",
    "opinions.schedule": "One of the schedules below (default: all at once).",
    "opinions.noise": "One of the disturbances below.",
    "opinions.influence": "A score below: affinity within the radius (default: all alike).",
}  # fmt: skip


def page() -> str:
    """Markdown: a table of keys for each table of a file, then the values that keys may hold."""
    from krause_dynamics.training.configuration import SECTIONS

    lines = [
        "# All keys of a TOML file",
        "",
        "`krause init` writes commented files to begin with. Options of the command overrule a file, and",
        "`-s table.key=value` overrules both. An unknown key is answered with the nearest known one. Files that a key",
        "names lie beside the TOML file.",
        "",
        *_of_runs(),
        "## Values",
        "",
        "A table with a `type` makes one of these; its other keys are listed with their defaults.",
        "",
    ]
    for title, base in _bases().items():
        lines += [f"### {title}", "", *_kinds(base), ""]
    lines += [
        "## Training",
        "",
        "Of `krause train`; `[model]` holds `kind`, `size` and keys of that model's configuration.",
        "",
    ]
    for name, kind in SECTIONS.items():
        lines += [f"### [{name}]", "", *_rows(name, _fields(kind), _words(kind)), ""]
    return "\n".join(lines)


def _of_runs() -> list[str]:
    import krause_dynamics as kd
    from krause_dynamics.command import tables

    said = {
        "rule": _words(kd.softmax) | _words(kd.krause) | _words(kd.bounded_confidence) | _words(kd.Interaction),
        "dynamics": _words(kd.Dynamics),
        "run": _words(kd.simulate),
        "opinions": _words(kd.hegselmann_krause),
        "initial": _words(kd.initial.equally_spaced) | _words(kd.initial.gaussian) | _words(kd.initial.uniform),
    }
    lines = ["## Runs and sweeps", ""]
    for name in tables.DEFAULTS:
        if name != "files":  # written by the command itself
            lines += [f"### [{name}]", "", *_rows(name, _keys(tables, name), said.get(name, {})), ""]
    return lines


def _keys(tables: Any, name: str) -> dict[str, Any]:
    """The keys of a table with their defaults; those of a kind of rule or start too."""
    from krause_dynamics.command import kinds as of_kinds

    found = dict(tables.DEFAULTS[name])
    for kinds in [of_kinds.RULES] if name == "rule" else [of_kinds.INITIAL] if name == "initial" else []:
        for keys in kinds.values():
            found |= {key: default for key, default in keys.items() if key not in found}
    kinds = [name, *(of_kinds.RULES if name == "rule" else ())]
    further = [key for kind in kinds for key in of_kinds.FURTHER.get(kind, ()) if key not in found]
    return found | dict.fromkeys(further)


def _bases() -> dict[str, Any]:
    from krause_dynamics.integrators import Integrator
    from krause_dynamics.interaction import Neighbourhood
    from krause_dynamics.interaction.scores import Score
    from krause_dynamics.opinions import TruthSeeking
    from krause_dynamics.opinions.disturbances import Noise
    from krause_dynamics.opinions.schedules import Schedule
    from krause_dynamics.runs.stopping import StopRule
    from krause_dynamics.spaces import Space

    return {
        "Scores": Score, "Neighbourhoods": Neighbourhood, "Spaces": Space, "Integrators": Integrator,
        "Stop rules": StopRule, "Schedules of opinions": Schedule, "Disturbances of opinions": Noise,
        "Truth of opinions": TruthSeeking,
    }  # fmt: skip


def _kinds(base: Any) -> list[str]:
    from krause_dynamics._value import kinds_of

    lines = ["| type | what it is | keys |", "| --- | --- | --- |"]
    for name, kind in kinds_of(base).items():
        first = _cell((inspect.getdoc(kind) or "").partition("\n")[0])
        keys = ", ".join(
            f"`{key}`" + ("" if value is MISSING else f" ({_shown(value)})") for key, value in _fields(kind).items()
        )
        lines.append(f"| `{name}` | {first} | {keys or '-'} |")
    return lines


def _fields(kind: Any) -> dict[str, Any]:
    return {entry.name: entry.default for entry in fields(kind)}


def _rows(table: str, keys: dict[str, Any], said: dict[str, str]) -> list[str]:
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key, default in keys.items():
        words = WORDS.get(f"{table}.{key}") or said.get(key, "")
        lines.append(f"| `{key}` | {_shown(default)} | {_cell(words)} |")
    return lines


def _shown(value: Any) -> str:
    if value is None or value is MISSING:
        return "-"
    text = str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')
    return f"`{text}`" if type(value) in (bool, int, float, str, list, dict) else "-"


def _cell(words: str) -> str:
    """Words of a docstring in a cell of a table: code stays as it is."""
    parts = re.split(r"(`[^`]*`)", words.replace("``", "`"))
    return "".join(part if i % 2 else part.replace("|", "\\|").replace("<", "&lt;") for i, part in enumerate(parts))


def _words(thing: Any) -> dict[str, str]:
    """What a docstring says of each argument or attribute."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in (inspect.getdoc(thing) or "").splitlines():
        if line and not line.startswith(" "):
            names = []
        matched = NAME.match(line.strip()) if line.startswith("    ") and not line.startswith("     ") else None
        if matched:
            names = matched[1].split(", ")
            found |= dict.fromkeys(names, matched[2])
        elif line.startswith("     ") and names:
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
    return found
