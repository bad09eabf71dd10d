"""The few exceptions of our own; everything else is a ``ValueError`` or ``TypeError`` raised at the public border."""

from __future__ import annotations

from typing import Any


class UnsupportedImplementation(ValueError):
    """An implementation was asked for by name and cannot compute this interaction; the message carries the reason."""


class UnsupportedModel(ValueError):
    """A trained model whose attention cannot be recorded faithfully; the message says why and what would work."""


class SimulationDiverged(RuntimeError):
    """A state became infinite or NaN.

    Attributes:
        message: Time or step, and what to do.
        trajectory: A `Trajectory` up to the last finite state, so that nothing computed is lost.
    """

    def __init__(self, message: str, trajectory: Any) -> None:
        super().__init__(message)
        self.trajectory = trajectory


class TrainingDiverged(RuntimeError):
    """A loss became infinite or NaN; the message says at which step and learning rate, and what goes on from where."""


def printable(text: str) -> str:
    """Text from elsewhere for a terminal: control characters, which could move the cursor or hide words, as escapes."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
