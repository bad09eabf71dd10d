"""What is measured of a trained model, layer by layer: the table of all measures, and who takes them.

A measure is a name, its dimensions, its words and its formula (`measure.Measure`). `analyze` assembles its Dataset from
the measures' own dimensions and words, so a new measure is one more entry of the tables here, in `measures_of_states`
or in `measures_of_attention`, and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import to_numpy
from krause_dynamics.checkpoints import allocator, measures_of_attention, measures_of_states
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, sink_rate
from krause_dynamics.checkpoints.layer_state import TOKENS, LayerState
from krause_dynamics.checkpoints.measure import Measure
from krause_dynamics.checkpoints.moments import Moments

__all__ = ["MEASURES", "TOKENS", "Corpus", "Measure", "Measuring", "chosen"]


class Corpus(NamedTuple):
    """What is known of all sequences when they are done.

    Attributes:
        arrays: The measures of states and attention by name, (sequences, ...).
        lengths: Tokens of each sequence.
        eps: Thresholds of the sink rate.
    """

    arrays: Mapping[str, np.ndarray]
    lengths: np.ndarray
    eps: np.ndarray


def _sink_rate(corpus: Corpus) -> np.ndarray | None:
    if "importance_first" not in corpus.arrays:
        return None
    # float64 for the comparison: a threshold such as 0.3 has no exact float32.
    first = torch.from_numpy(corpus.arrays["importance_first"].astype(np.float64))
    rates: np.ndarray = sink_rate(first, torch.from_numpy(corpus.eps)).numpy()
    rates[np.isnan(first.numpy()).any(0)] = np.nan  # blocks without attention
    return rates


ATTENTION = measures_of_attention.MEASURES
STATES = measures_of_states.MEASURES
CORPUS = (
    Measure("length", ("sequence",), "tokens of the sequence", "corpus", lambda corpus: corpus.lengths),
    Measure(
        "sink_rate",
        ("block", "head", "eps"),
        "sequences in which alpha_0 exceeds eps (per cent)",
        "corpus",
        _sink_rate,
    ),
)
MEASURES: tuple[Measure, ...] = (*ATTENTION, *STATES, *CORPUS)


def chosen(names: str | Sequence[str]) -> tuple[Measure, ...]:
    """The measures that are asked for.

    Args:
        names: ``"default"``, ``"all"``, or names, ``"default"`` possibly among them; those of the corpus always are.

    Raises:
        ValueError: No measure of that name.
    """
    if names == "all":
        return MEASURES
    wanted = [names] if isinstance(names, str) else list(names)
    if "default" in wanted:
        wanted.remove("default")
        wanted += [measure.name for measure in MEASURES if not measure.extra]
    known = [measure.name for measure in MEASURES]
    for name in wanted:
        if name not in known:
            raise ValueError(f"measures must be 'default', 'all' or names of {known}, received {name!r}")
    return tuple(measure for measure in MEASURES if measure.name in wanted or measure.of == "corpus")


class Measuring:
    """Takes the layers of one batch as they come, adds their measures and forgets them; one layer is kept for the next.

    Attributes:
        measures: What is measured.
        radii: Chords at which clusters are counted.
        moments: Of the corpus, where a measure needs them.
    """

    def __init__(self, measures: Sequence[Measure], radii: np.ndarray, moments: Moments | None = None) -> None:
        self.measures = measures
        self.radii = radii
        self.moments = moments
        self._previous: Tensor | None = None
        self._found: dict[str, dict[int, np.ndarray]] = {}

    def state(self, layer: int, tokens: Tensor) -> None:
        """Measure the tokens (b, T, d) after block ``layer`` (0: the embedding)."""
        moments = None if self.moments is None else self.moments.of(layer)
        # Of a model on several devices, or after a resumption, the last layer may lie elsewhere.
        previous = None if self._previous is None else self._previous.to(tokens.device)
        self._add("state", layer, LayerState(tokens, previous, self.radii, moments))
        self._previous = tokens
        allocator.give_back(layer)

    def attention(self, block: int, found: HeadStatistics) -> None:
        """Measure the attention of a block."""
        self._add("attention", block, found)

    def _add(self, of: str, place: int, given: LayerState | HeadStatistics) -> None:
        for measure in self.measures:
            if measure.of == of:
                self._found.setdefault(measure.name, {})[place] = to_numpy(measure.formula(given))

    def arrays(self, last: int | None = None) -> dict[str, np.ndarray]:
        """(b, layers or blocks, ...) by name, up to layer or block ``last`` where one is given."""
        arrays = {}
        for name, layers in self._found.items():
            places = [place for place in sorted(layers) if last is None or place <= last]
            if places:
                arrays[name] = np.stack([layers[place] for place in places], axis=1)
        return arrays

    def kept(self) -> dict[str, np.ndarray]:
        """All that was found, for a file: with the last state it is what `resume` needs to go on from."""
        return {f"{name}/{place}": x for name, layers in self._found.items() for place, x in layers.items()}

    def resume(self, kept: Mapping[str, np.ndarray], last: Tensor) -> None:
        """Go on after what another one had `kept`, and after its last state (b, T, d) in float32."""
        for key, x in kept.items():
            name, _, place = key.rpartition("/")
            self._found.setdefault(name, {})[int(place)] = x
        self._previous = last
