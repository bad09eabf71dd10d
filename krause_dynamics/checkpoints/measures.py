"""What is measured of a trained model, layer by layer: the table of all measures, and who takes them.

A measure is a name, its dimensions, its words and its formula (`measure.Measure`). `analyze` assembles its Dataset from
the measures' own dimensions and words, so a new measure is one more entry of the tables here or in one of the modules
`measures_of_...`, and nothing else; one of somebody's own is given to `analyze` as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.checkpoints import (
    allocator,
    measures_between_layers,
    measures_of_attention,
    measures_of_clusters,
    measures_of_states,
)
from krause_dynamics.checkpoints.attention_call import QUARTERS
from krause_dynamics.checkpoints.attention_statistics import DISTANCES, HeadStatistics, sink_rate
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
STATES = (*measures_of_states.MEASURES, *measures_between_layers.MEASURES, *measures_of_clusters.MEASURES)
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


def chosen(asked: str | Measure | Sequence[str | Measure], attention: bool = True) -> tuple[Measure, ...]:
    """The measures that are asked for.

    Args:
        asked: ``"default"``, ``"all"``, names, or measures of one's own, in any mixture; those of the corpus always
            are.
        attention: Whether attention is looked at.

    Raises:
        ValueError: No measure of that name, two of one, or one of attention that is not looked at.
        TypeError: Neither a name nor a measure.
    """
    given = [asked] if isinstance(asked, str | Measure) else list(asked)
    own = [measure for measure in given if isinstance(measure, Measure)]
    names = [name for name in given if not isinstance(name, Measure)]
    known = [measure.name for measure in MEASURES]
    for name in names:
        if not isinstance(name, str):
            raise TypeError(
                f"measures must be names or kd.checkpoints.Measure, received {type(name).__name__}; a function becomes "
                "one by Measure(name, dims, long_name, of, formula)"
            )
        if name not in ("default", "all", *known):
            raise ValueError(f"measures must be 'default', 'all' or names of {known}, received {name!r}")
    _check_names([measure.name for measure in own], known)
    wanted = [
        measure
        for measure in MEASURES
        if measure.name in names
        or measure.of == "corpus"
        or "all" in names
        or ("default" in names and not measure.extra)
    ]
    blind = [m.name for m in (*wanted, *own) if m.of == "attention" and (m in own or m.name in names)]
    if blind and not attention:
        raise ValueError(f"measures {blind} are of attention, which attention=None leaves out; leave one of both out")
    return (*wanted, *own)


def _check_names(own: list[str], known: list[str]) -> None:
    taken = [name for name in own if name in known or own.count(name) > 1]
    if taken:
        raise ValueError(
            f"measures of your own must have names of their own, but {taken[0]!r} is another measure's; give it another"
        )


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
        fixed = {"tokens": len(TOKENS), "radius": len(radii), "quarter": QUARTERS, "distance": len(DISTANCES)}
        self._sizes = {dim: (size, "the analysis") for dim, size in fixed.items()}

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
        number = len(given.tokens if isinstance(given, LayerState) else given.importance)
        for measure in self.measures:
            if measure.of == of:
                found = measure.told(given, number)
                self._check_sizes(measure, found)
                self._found.setdefault(measure.name, {})[place] = found

    def _check_sizes(self, measure: Measure, found: np.ndarray) -> None:
        """Seen at the first layer, not when all is measured: two measures share their further dimensions."""
        for dim, size in zip(measure.dims[2:], found.shape[1:], strict=True):
            known, whose = self._sizes.setdefault(dim, (size, measure.name))
            if known != size:
                raise ValueError(
                    f"dims of the measure {measure.name!r}: {dim!r} has {size} entries where that of {whose} has "
                    f"{known}; give a dimension of your own another name"
                )

    def arrays(self, last: int | None = None) -> dict[str, np.ndarray]:
        """(b, layers or blocks, ...) by name, up to layer or block ``last`` where one is given."""
        arrays = {}
        for name, layers in self._found.items():
            places = [place for place in sorted(layers) if last is None or place <= last]
            if places:
                arrays[name] = np.stack([layers[place] for place in places], axis=1)
        return arrays

    def forget(self) -> None:
        """The last layer is not needed any more."""
        self._previous = None

    def kept(self) -> dict[str, np.ndarray]:
        """All that was found, for a file: with the last state it is what `resume` needs to go on from."""
        return {f"{name}/{place}": x for name, layers in self._found.items() for place, x in layers.items()}

    def resume(self, kept: Mapping[str, np.ndarray], last: Tensor) -> None:
        """Go on after what another one had `kept`, and after its last state (b, T, d) in float32."""
        for key, x in kept.items():
            name, _, place = key.rpartition("/")
            self._found.setdefault(name, {})[int(place)] = x
        self._previous = last
