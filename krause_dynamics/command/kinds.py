"""Tables of several types, [rule] and [initial]: which keys belong to which type."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from krause_dynamics._value import check_names

RULES: dict[str, dict[str, Any]] = {
    "softmax": {"beta": 1.0},
    "krause": {"sigma": 1.0},
    "bounded_confidence": {"radius": 0.5, "closed": True},
    "Interaction": {},
}
INITIAL: dict[str, dict[str, Any]] = {
    "sample": {},
    "uniform": {"low": 0.0, "high": 1.0},
    "gaussian": {"mean": 0.0, "std": 1.0},
    "equally_spaced": {"low": 0.0, "high": 1.0},
    "dumbbell": {},
    "file": {"path": None},
}
# Keys without a default: a table that does not give them stays as it was written, and so do the files made from it.
FURTHER = {
    "softmax": ("pair_bias",),
    "krause": ("pair_bias",),
    "Interaction": ("score", "pair_bias"),
    "opinions": ("influence", "stop", "graph", "weights", "fixed"),
    "run": ("stop",),
}
KINDS = {"rule": RULES, "initial": INITIAL}


def check_kind(table: str, content: Mapping[str, Any], common: Collection[str]) -> None:
    """Every key is one of the table's type.

    Args:
        table: ``rule`` or ``initial``.
        content: Of the table, with its ``type``.
        common: Keys of all types.

    Raises:
        ValueError: A key of another type, which is named, or of none.
    """
    known = {*common, *_keys(table, content["type"])}
    for key in content:
        kinds = [] if key in known else [kind for kind in KINDS[table] if key in _keys(table, kind)]
        if kinds:
            raise ValueError(
                f"{table}.{key} belongs to {table}.type = {' or '.join(map(repr, kinds))}, and the type is "
                f"{content['type']!r}; give that type too (--set {table}.type={kinds[0]}), or leave the key out"
            )
    check_names(f"key of [{table}]", content, sorted(known))


def without_other_kinds(tables: Mapping[str, Any], given: Collection[str]) -> dict[str, Any]:
    """The tables, of which a type was given anew: keys of the type before go, unless they were given too.

    Args:
        tables: Of the file, with what was given put in.
        given: Dotted names of what was given beside the file.
    """
    result = dict(tables)
    for table, kinds in KINDS.items():
        content = result.get(table)
        if f"{table}.type" not in given or not isinstance(content, Mapping) or content.get("type") not in kinds:
            continue
        known = _keys(table, content["type"])
        others = {key for kind in kinds for key in _keys(table, kind)} - known
        result[table] = {key: x for key, x in content.items() if key not in others or f"{table}.{key}" in given}
    return result


def _keys(table: str, kind: str) -> set[str]:
    return {*KINDS[table][kind], *(FURTHER.get(kind, ()) if table == "rule" else ())}
