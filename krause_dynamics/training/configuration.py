"""What a training is: four tables, of a TOML file or as dictionaries, checked before anything is read or built."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from krause_dynamics._arguments import POSITIVE, Domain, Flag, Is, Maybe, Real, Whole, Word
from krause_dynamics._value import check_names
from krause_dynamics.training.formats import FORMATS
from krause_dynamics.training.kinds import KINDS

TEXT = Is(str, "'folder'")
SHARE = Real(0.0, 1.0)
AMOUNT = Real(0.0)  # a share below 1, or a number


def _key(default: Any, domain: Domain) -> Any:
    return field(default=default, metadata={"domain": domain})


class _Table:
    """A table whose keys are read by their domains."""

    where = ""

    def __post_init__(self) -> None:
        for entry in fields(self):  # type: ignore[arg-type]  # the dataclass is each subclass
            domain: Domain = entry.metadata["domain"]
            value = domain.read(f"{self.where}.{entry.name}", getattr(self, entry.name))
            object.__setattr__(self, entry.name, value)


@dataclass(frozen=True)
class Data(_Table):
    """Which data, from where.

    Args:
        format: ``idx`` (MNIST, Fashion-MNIST), ``cifar`` (binary or Python batches), ``pickle`` (``mnist.pkl.gz``),
            ``folders`` (of pictures), ``text``, ``jsonl``.
        path: Folder (or file of text); relative to the configuration's file.
        validation: How many examples of the training part are held out, or which share (below 1). Of text that has a
            validation file of its own, that.
        test: Likewise, where the data have no test part.
        split_seed: Which examples are held out.
        limit: Use only this many training examples (or characters of text), after the split.
        size: Side of pictures from folders, in pixels.
        channels: Of pictures from folders, 1 or 3.
        field: Key of JSON lines that holds the text.
        tokenizer: ``bytes``, ``bpe`` (learned from the training text), or the folder of a tokenizer.
        vocabulary: Size of a learned vocabulary.
        length: Tokens of a training sequence.
        sha256: Checksums of files by name; others are recorded and not checked.
    """

    where = "data"
    format: str = _key("idx", Word(FORMATS))
    path: str = _key("", TEXT)
    validation: float = _key(0.1, AMOUNT)
    test: float = _key(0.1, AMOUNT)
    split_seed: int = _key(0, Whole(0))
    limit: int | None = _key(None, Maybe(Whole()))
    size: int | None = _key(None, Maybe(Whole()))
    channels: int = _key(3, Whole(1, 3))
    field: str = _key("text", TEXT)
    tokenizer: str = _key("bytes", TEXT)
    vocabulary: int = _key(8192, Whole(258))
    length: int = _key(256, Whole(2))
    sha256: Mapping[str, str] | None = _key(None, Maybe(Is(dict, "{'file': 'digest'}")))


@dataclass(frozen=True)
class Training(_Table):
    """How: epochs, steps, regularisation.

    Args:
        epochs: Passes over the training part.
        batch_size: Examples a step, over all processes.
        learning_rate: Largest rate, reached after the warm-up.
        weight_decay: Of matrices; biases, norms, log sigma never decay.
        warmup_epochs: Linear rise from 0; a cosine falls to 0 afterwards.
        label_smoothing: Share of a label that is spread over all classes.
        mixup: Parameter of the Beta distribution of mixtures of pictures; 0: none (published: 0.8).
        cutmix: The same for boxes of another picture (published: 1); where both are on, each picture takes one of them.
        crop: Pixels by which a picture is padded and cut again at random.
        flip: Mirror half of the pictures.
        drop_path: Probability to skip a branch of the last layer, rising linearly with the layers.
        clip: Largest norm of the gradient; 0: no limit.
        precision: ``float32``, ``bfloat16`` (autocast), or ``auto``: bfloat16 on a GPU.
        seed: Of weights, order and augmentation.
        capture: Replay a captured step on a GPU (one process, and a model that can be captured).
        save_seconds: Least time between two files to go on from.
    """

    where = "training"
    epochs: int = _key(15, Whole())
    batch_size: int = _key(256, Whole())
    learning_rate: float = _key(1e-3, POSITIVE)
    weight_decay: float = _key(0.05, Real(0.0))
    warmup_epochs: float = _key(1.0, Real(0.0))
    label_smoothing: float = _key(0.0, SHARE)
    mixup: float = _key(0.0, Real(0.0))
    cutmix: float = _key(0.0, Real(0.0))
    crop: int = _key(0, Whole(0))
    flip: bool = _key(False, Flag())
    drop_path: float = _key(0.0, SHARE)
    clip: float = _key(1.0, Real(0.0))
    precision: str = _key("auto", Word(("auto", "float32", "bfloat16")))
    seed: int = _key(0, Whole(0))
    capture: bool = _key(True, Flag())
    save_seconds: float = _key(60.0, Real(0.0))


@dataclass(frozen=True)
class Evaluation(_Table):
    """What is measured after each epoch (validation) and once at the end (test, by the best weights).

    Args:
        batch_size: Examples at a time; by default 1000 pictures with classes, of others as many as in training.
        limit: Only so many examples of the validation part; the test part is always whole.
        cost: Count multiply-adds and measure passes at the end.
    """

    where = "evaluation"
    batch_size: int | None = _key(None, Maybe(Whole()))
    limit: int | None = _key(None, Maybe(Whole()))
    cost: bool = _key(True, Flag())


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
        object.__setattr__(self, "model", dict(self.model))
        check_names("model.kind", [self.model.get("kind")], list(KINDS))

    @classmethod
    def read(cls, source: Any) -> TrainingConfiguration:
        """From itself, a mapping of tables, or the path of a TOML file, to whose folder its paths are relative.

        Raises:
            ValueError: No TOML, unknown tables or keys, values that do not fit.
            FileNotFoundError: No such file.
        """
        if isinstance(source, cls):
            return source
        if isinstance(source, Mapping):
            check_names("table", source, ["model", *SECTIONS])
            return cls(**source)
        return cls.read(tables_of(Path(source)))

    def tables(self) -> dict[str, dict[str, Any]]:
        """All tables with all keys; keys that are not set are left out, as TOML knows no nothing."""
        whole = {"model": dict(self.model), **{name: asdict(getattr(self, name)) for name in SECTIONS}}
        return {name: {k: v for k, v in table.items() if v is not None} for name, table in whole.items()}

    def digest(self) -> str:
        """SHA-256 of all keys but those on which no number depends."""
        tables = self.tables()
        for table, key in (("training", "save_seconds"), ("evaluation", "cost"), ("data", "path")):
            tables[table].pop(key, None)
        return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()

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
