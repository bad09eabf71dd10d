"""What an adapter hands over: pictures with classes, or texts, each in three parts, and what was read."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

PARTS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Pictures:
    """Labelled pictures.

    Attributes:
        pixels: (n, channels, height, width), uint8.
        labels: (n,), int64, counted from 0.
    """

    pixels: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, rows: np.ndarray | slice) -> Pictures:
        """Some of them."""
        return Pictures(self.pixels[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class Found:
    """What a folder holds.

    Attributes:
        train: Pictures, or the texts of documents.
        test: The same, or ``None``: a share of `train` is to be taken.
        validation: The same.
        classes: Names of the classes; empty for texts.
        checksums: SHA-256 of each file that was read, by its name in the folder.
    """

    train: Pictures | list[str]
    test: Pictures | list[str] | None
    validation: Pictures | list[str] | None = None
    classes: tuple[str, ...] = ()
    checksums: dict[str, str] = field(default_factory=dict)
