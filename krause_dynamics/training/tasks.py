"""What is learned from what: examples by their numbers -> inputs of a model; sums of a split -> numbers.

All examples lie on the device; a batch is a few numbers of rows, so that a step asks nothing of the host.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from krause_dynamics.training.augmentation import Mixer, shifted
from krause_dynamics.training.corpora import Corpus
from krause_dynamics.training.formats import Pictures

BITS = math.log(2.0)


class Task(ABC):
    """A task on data in parts.

    Attributes:
        metric: Which number chooses the best weights.
        larger: Whether more of it is better.
    """

    metric: ClassVar[str]
    larger: ClassVar[bool]
    sizes: dict[str, int]

    @abstractmethod
    def follows(self) -> dict[str, Any]:
        """Keys of the model's configuration that the data decide."""

    @abstractmethod
    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        """Keywords of the model for training examples; its output has a loss."""

    @abstractmethod
    def sums(self, model: Any, part: str, rows: Tensor) -> Tensor:
        """What a split is measured by, summed over some of its examples (float64)."""

    def answers(self, model: Any, part: str, rows: Tensor) -> Tensor | None:
        """What the model says about each example, where that is one small number."""
        return None

    @abstractmethod
    def numbers(self, sums: Tensor) -> dict[str, float]:
        """Measures, the loss among them, from the sums over a split."""

    def better(self, new: float, old: float | None) -> bool:
        """Whether a value of the metric is better than another; the earlier of two equal ones stays."""
        return old is None or (new > old if self.larger else new < old)


class Classes(Task):
    """Classes of pictures.

    Args:
        parts: Pictures by part.
        classes: How many classes.
        settings: The table ``[training]``.
        device: Where the pictures are kept.
    """

    metric, larger = "accuracy", True

    def __init__(self, parts: dict[str, Pictures], classes: int, settings: Any, device: torch.device) -> None:
        self.sizes = {part: len(pictures) for part, pictures in parts.items()}
        self.classes, self.pad, self.flip = classes, settings.crop, settings.flip
        if self.pad and self.pad >= (side := min(parts["train"].pixels.shape[2:])):
            raise ValueError(f"training.crop must be below the {side} pixels of a side, got {self.pad}")
        smoothing = settings.label_smoothing
        self.shares = torch.eye(classes, device=device) * (1.0 - smoothing) + smoothing / classes
        self.pixels = {part: torch.tensor(x.pixels, device=device) for part, x in parts.items()}
        self.labels = {part: torch.tensor(x.labels, device=device) for part, x in parts.items()}
        self.mean, self.deviation = statistics(self.pixels["train"])
        self.padded = functional.pad(self.pixels["train"], (self.pad,) * 4)
        self.mixer = Mixer(settings.mixup, settings.cutmix, device)

    def follows(self) -> dict[str, Any]:
        channels, height, width = self.pixels["train"].shape[1:]
        size = height if height == width else [height, width]
        return {"image_size": size, "num_channels": channels, "num_labels": self.classes}

    def _normalised(self, pixels: Tensor) -> Tensor:
        return (pixels.float() - self.mean) / self.deviation

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        x = self._normalised(shifted(self.padded, rows, self.pad, self.flip))
        x, shares = self.mixer(x, self.shares[self.labels["train"][rows]])
        return {"pixel_values": x, "labels": shares}

    def logits(self, model: Any, part: str, rows: Tensor) -> Tensor:
        """Logits of pictures as they are, without augmentation."""
        logits: Tensor = model(pixel_values=self._normalised(self.pixels[part][rows])).logits.float()
        return logits

    def answers(self, model: Any, part: str, rows: Tensor) -> Tensor:
        return self.logits(model, part, rows).argmax(-1)

    def sums(self, model: Any, part: str, rows: Tensor) -> Tensor:
        labels, logits = self.labels[part][rows], self.logits(model, part, rows)
        nats = functional.cross_entropy(logits, labels, reduction="sum")
        right = (logits.argmax(-1) == labels).sum()
        return torch.stack([nats.double(), right.double(), right.new_tensor(len(rows)).double()])

    def numbers(self, sums: Tensor) -> dict[str, float]:
        nats, right, count = sums.tolist()
        return {"loss": nats / count, "accuracy": right / count}


class Levels(Task):
    """Pictures one value after the other; the first value, which has no past, counts as uniform (8 bits of 256).

    Args:
        parts: Pictures by part.
        device: Where the pictures are kept.
    """

    metric, larger = "bits_per_dimension", False

    def __init__(self, parts: dict[str, Pictures], device: torch.device) -> None:
        self.sizes = {part: len(pictures) for part, pictures in parts.items()}
        self.shape = parts["train"].pixels.shape[1:]
        rows = {part: x.pixels.transpose(0, 2, 3, 1).reshape(len(x), -1) for part, x in parts.items()}
        self.values = {part: torch.tensor(x, device=device) for part, x in rows.items()}

    def follows(self) -> dict[str, Any]:
        channels, height, width = self.shape
        return {"image_size": height if height == width else [height, width], "num_channels": channels}

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        x = self.values["train"][rows].long()
        return {"input_ids": x, "labels": x}

    def sums(self, model: Any, part: str, rows: Tensor) -> Tensor:
        x = self.values[part][rows].long()
        nats = model(input_ids=x, labels=x).loss.double() * (x.shape[1] - 1)
        return torch.stack([nats * len(rows), nats.new_tensor(len(rows))])

    def numbers(self, sums: Tensor) -> dict[str, float]:
        nats, count = sums.tolist()
        length = math.prod(self.shape)
        whole = nats / count + math.log(256.0)
        return {"loss": nats / count / (length - 1), "bits_per_dimension": whole / length / BITS}


class Tokens(Task):
    """The next token of texts, in rows of ``length`` tokens.

    A training row begins at a random place within its own stretch of the text, so that epochs differ. Rows of the other
    parts overlap by one token: each token but the first is predicted once, from at most ``length - 1`` before it.

    Args:
        corpus: Tokens by part, and how many bytes they are.
        length: Tokens of a row.
        device: Where the tokens are kept.
    """

    metric, larger = "bits_per_byte", False

    def __init__(self, corpus: Corpus, length: int, device: torch.device) -> None:
        self.corpus, self.length = corpus, length
        self.tokens = {part: torch.tensor(x, device=device) for part, x in corpus.tokens.items()}
        self.sizes = {part: (len(x) - 1) // (length - 1) for part, x in self.tokens.items()}
        self.sizes["train"] = len(self.tokens["train"]) // length
        self.within = torch.arange(length, device=device)

    def follows(self) -> dict[str, Any]:
        return {"vocab_size": self.corpus.vocabulary, "max_position_embeddings": self.length}

    def inputs(self, rows: Tensor) -> dict[str, Tensor]:
        shift = (torch.rand(len(rows), device=rows.device) * self.length).long()
        begin = (rows * self.length + shift).clamp_max(len(self.tokens["train"]) - self.length)
        x = self.tokens["train"][begin[:, None] + self.within].long()
        return {"input_ids": x, "labels": x}

    def sums(self, model: Any, part: str, rows: Tensor) -> Tensor:
        x = self.tokens[part][rows[:, None] * (self.length - 1) + self.within].long()
        nats = model(input_ids=x, labels=x).loss.double() * (self.length - 1)
        count = nats.new_tensor(len(rows) * (self.length - 1))
        return torch.stack([nats * len(rows), count, count * self.corpus.bytes_a_token[part]])

    def numbers(self, sums: Tensor) -> dict[str, float]:
        nats, count, size = sums.tolist()
        return {"loss": nats / count, "bits_per_byte": nats / size / BITS}


def statistics(pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of bytes (n, c, h, w), as (c, 1, 1); exact sums, in float32."""
    x = pixels.transpose(0, 1).flatten(1).long()
    count = x.shape[1]
    mean = x.sum(1).double() / count
    variance = (x * x).sum(1).double() / count - mean**2
    deviation = variance.clamp_min(1.0).sqrt()
    return mean.float()[:, None, None], deviation.float()[:, None, None]
