"""One thing that is measured of a trained model; what a report says of it beyond ``long_name`` is in `_words`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from krause_dynamics._array import to_numpy

PLACES = {"state": ("sequence", "layer"), "attention": ("sequence", "block"), "corpus": ()}
NAMED = "join"  # dimension of what names groups of tokens: a mean of that, or a place between layers, says nothing


@dataclass(frozen=True)
class Measure:
    """One number, or one array of numbers, that is measured of a model.

    ``kd.analyze(model, inputs, measures=["default", Measure(...)])`` takes those of one's own: each is a variable of
    the Dataset, and so of CSV, netCDF, pages, ``kd.compare`` and ``kd.checkpoints.interval``.

    Args:
        name: Of the variable in the Dataset, such as ``"widest_gap"``.
        dims: Its dimensions; those of a state begin with sequence and layer, those of attention with sequence and
            block (then most often head). Further ones have one size whatever the sequence.
        long_name: What it is, in words.
        of: What the formula is given: ``"state"`` the hidden states of a layer (``tokens`` (b, T, d) in float32, and
            ``previous``, the same of the layer before, None at the embedding), ``"attention"`` the statistics of the
            attention of a block (`HeadStatistics`: ``importance`` (b, heads, T), ``entropy`` (b, heads), ...), both of
            b sequences of one length, answered by an array (b, ...); ``"corpus"`` what was measured of all sequences
            (``arrays`` by name, ``lengths``, ``eps``), answered by the whole array, or None where what it needs was
            not recorded.
        formula: The measure; its answer may be a torch tensor or a numpy array. NaN is what cannot be said, -1 of
            counts.
        extra: Whether ``measures="default"`` leaves it out (of the package's own): it costs much, or is for few.
        centred: Whether it needs the moments of the corpus, and so a second pass: then ``state.centred`` and
            ``state.standardised`` are there.

    Raises:
        ValueError: A name that is none, or dimensions of something else.
        TypeError: A formula that cannot be called.
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    of: Literal["state", "attention", "corpus"]
    formula: Callable[[Any], Any]
    extra: bool = False
    centred: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.isidentifier():
            raise ValueError(f"name must be one word of letters, digits and _, received {self.name!r}")
        if self.of not in PLACES:
            raise ValueError(f"of must be 'state', 'attention' or 'corpus', received {self.of!r}")
        object.__setattr__(self, "dims", (self.dims,) if isinstance(self.dims, str) else tuple(self.dims))
        first = PLACES[self.of]
        if self.dims[: len(first)] != first or len(set(self.dims)) < len(self.dims):
            raise ValueError(
                f"dims of the measure {self.name!r} must begin with {first}, and each be there once, received "
                f"{self.dims}"
            )
        if not callable(self.formula):
            raise TypeError(f"formula must be a function, received {type(self.formula).__name__}")

    def told(self, given: Any, number: int) -> np.ndarray:
        """What the formula says of one layer or block of ``number`` sequences, (number, ...).

        Raises:
            ValueError: Its answer has not the dimensions of the measure.
        """
        found = np.asarray(to_numpy(self.formula(given)))
        if found.dtype.kind == "b":
            found = found.astype(np.float32)
        if found.dtype.kind not in "fiu" or found.ndim != len(self.dims) - 1 or len(found) != number:
            kept = ", ".join(("sequence", *self.dims[2:]))
            raise ValueError(
                f"formula of the measure {self.name!r} must give numbers over ({kept}), {number} sequences here, gave "
                f"{found.dtype} of shape {found.shape}"
            )
        return found

    def mark(self) -> list[str]:
        """What tells it from another measure of its name, as far as a formula can be told from another."""
        code = getattr(self.formula, "__code__", None)
        written = b"" if code is None else code.co_code + repr((code.co_names, code.co_varnames)).encode()
        return [self.name, self.of, *self.dims, hashlib.sha256(written).hexdigest()[:16]]


def of_state(name: str, long_name: str, formula: Callable[[Any], Any], *further: str, **rest: Any) -> Measure:
    """A measure of states, over sequence, layer and ``further`` dimensions."""
    return Measure(name, ("sequence", "layer", *further), long_name, "state", formula, **rest)
