"""What a training is: four tables, of a TOML file or as dictionaries, checked before anything is read or built."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from krause_dynamics._arguments import FILE
from krause_dynamics._files import regular
from krause_dynamics._value import check_names
from krause_dynamics.training.kinds import KINDS
from krause_dynamics.training.tables import Data, Evaluation, Training

NO_NUMBER = (("training", "save_seconds"), ("evaluation", "cost"), ("data", "path"))  # keys that change no result
YOUNGER = {"compile": False, "accumulation": 1}  # keys that came after the first runs, which go on
SECTIONS: dict[str, Any] = {"data": Data, "training": Training, "evaluation": Evaluation}


@dataclass(frozen=True)
class TrainingConfiguration:
    """A model, data, and how the one learns from the other.

    Args:
        model: ``kind`` (``kvit``, ``kswin``, ``karm``, ``lm``, ``gated``), ``size``, and keys of the model's own
            configuration (``score``, ``support``, ``window``, ``read_out``, ...). What follows from the data (size of
            pictures, classes, vocabulary) is left out.
        data: Keys of `Data`.
        training: Keys of `Training`.
        evaluation: Keys of `Evaluation`.

    Raises:
        ValueError, TypeError: Unknown keys (with the nearest known one) and values that do not fit.

    Examples:
        >>> TrainingConfiguration(data={"format": "idx", "path": "fashion"}).training.batch_size
        256
    """

    model: Mapping[str, Any] = field(default_factory=lambda: {"kind": "kvit"})
    data: Any = field(default_factory=dict)
    training: Any = field(default_factory=dict)
    evaluation: Any = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, kind in SECTIONS.items():
            table = getattr(self, name)
            if not isinstance(table, kind):
                if not isinstance(table, Mapping):
                    raise TypeError(f"[{name}] must be a table, got {table!r}")
                check_names(f"key of [{name}]", table, [entry.name for entry in fields(kind)])
                object.__setattr__(self, name, kind(**table))
        if not self.data.path:
            raise ValueError("data.path must be given: the folder of the data, for example path = 'fashion'")
        if not isinstance(self.model, Mapping):
            raise TypeError(f"[model] must be a table, got {self.model!r}")
        if "kind" not in self.model:
            raise ValueError(f"model.kind must be given, one of {', '.join(KINDS)}; got {dict(self.model)}")
        object.__setattr__(self, "model", dict(self.model))
        check_names("model.kind", [self.model["kind"]], list(KINDS))

    @classmethod
    def read(cls, source: Any) -> TrainingConfiguration:
        """From itself, a mapping of tables, or the path of a TOML file, to whose folder its paths are relative.

        Raises:
            TypeError: None of these.
            ValueError: No TOML, unknown tables or keys, values that do not fit.
            FileNotFoundError: No such file.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Mapping):
            check_names("table", source, ["model", *SECTIONS])
            return cls(**source)
        return cls.read(tables_of(regular(FILE.read("configuration", source))))

    def tables(self) -> dict[str, dict[str, Any]]:
        """All tables with all keys; keys that are not set are left out, as TOML knows no nothing."""
        whole = {"model": dict(self.model), **{name: asdict(getattr(self, name)) for name in SECTIONS}}
        return {name: {k: v for k, v in table.items() if v is not None} for name, table in whole.items()}

    def digest(self) -> str:
        """SHA-256 of all keys but those on which no number depends."""
        tables = self.tables()
        for table, key in NO_NUMBER:
            tables[table].pop(key, None)
        for key, default in YOUNGER.items():
            if tables["training"][key] == default:
                del tables["training"][key]
        return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()

    def difference(self, other: TrainingConfiguration) -> str | None:
        """The first key in which two configurations of other numbers differ, in words."""
        mine, theirs = self.tables(), other.tables()
        keys = [(table, key) for table in mine for key in {**mine[table], **theirs[table]}]
        for table, key in keys if self.digest() != other.digest() else []:
            a, b = mine[table].get(key), theirs[table].get(key)
            if a != b and (table, key) not in NO_NUMBER:
                return f"{table}.{key} is {a!r}, got {b!r}"
        return None

    def toml(self) -> str:
        """As a file that `read` reads."""
        lines = []
        for name, table in self.tables().items():
            lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in table.items()), ""]
        return "\n".join(lines)


def tables_of(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; what exists relative to the file is named from there, the rest from where one works.

    Raises:
        ValueError: No TOML.
        FileNotFoundError: No such file.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} must be TOML: {error}") from error
    for table, key in (("data", "path"), ("data", "tokenizer"), ("model", "base")):
        given = tables[table].get(key) if isinstance(tables.get(table), dict) else None
        if isinstance(given, str) and given and (path.parent / given).exists():
            tables[table][key] = str((path.parent / given).resolve())
    return tables


def _toml(value: Any) -> str:
    """A value in TOML's notation, whose strings are those of JSON."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {_toml(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str | bool) else repr(value)
