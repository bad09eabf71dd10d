"""Tables of a training configuration: their keys, domains and defaults."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from krause_dynamics._arguments import POSITIVE, Domain, Flag, Is, Maybe, Real, Whole, Word
from krause_dynamics.training.formats import FORMATS

TEXT = Is(str, "'folder'")
SHARE = Real(0.0, 1.0)
AMOUNT = Real(0.0)  # a share below 1, or a number


@dataclass(frozen=True)
class Seed(Whole):
    """A seed that every generator takes, with the number of an epoch and of a process."""

    least: int = 0

    def read(self, name: str, value: Any) -> int:
        """An int below 2^32."""
        number = super().read(name, value)
        if number >= 2**32:
            raise ValueError(f"{name} must be below 2**32, got {number}")
        return number


@dataclass(frozen=True)
class Channels(Whole):
    """1 of grey pictures, 3 of coloured ones."""

    def read(self, name: str, value: Any) -> int:
        """1 or 3."""
        number = super().read(name, value)
        if number not in (1, 3):
            raise ValueError(f"{name} must be 1 (grey) or 3 (colour), got {number}")
        return number


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
        limit: Use only this many training examples (documents of texts, characters of a single text), after the split.
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
    channels: int = _key(3, Channels())
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
        accumulation: Parts of a step's examples that pass one after the other, for memory; the gradient is that of all.
        precision: ``float32``, ``bfloat16`` (autocast), or ``auto``: bfloat16 on a GPU.
        seed: Of weights, order and augmentation.
        capture: Replay a captured step on a GPU (one process, and a model that can be captured).
        compile: Let `torch.compile` fuse the model: half a minute at the start, then half the time of a captured step
            of a ViT-Ti; the same random numbers, losses up to rounding.
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
    accumulation: int = _key(1, Whole())
    precision: str = _key("auto", Word(("auto", "float32", "bfloat16")))
    seed: int = _key(0, Seed())
    capture: bool = _key(True, Flag())
    compile: bool = _key(False, Flag())
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
