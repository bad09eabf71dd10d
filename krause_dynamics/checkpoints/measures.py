"""What is measured of a trained model, layer by layer: one value a measure, and the table of them all.

A measure is a name, its dimensions, its words and its formula. `analyze` assembles its Dataset from the measures' own
dimensions and words, so a new measure is one more entry of `MEASURES` and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from krause_dynamics._array import to_numpy
from krause_dynamics.analysis import clusters, observables
from krause_dynamics.analysis.observables._state import Weighted, weighted
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics, sink_rate

TOKENS = ("all", "without_first")


@dataclass(frozen=True)
class Measure:
    """One number, or one array of numbers, that is measured of a model.

    Attributes:
        name: Of the variable in the Dataset.
        dims: Its dimensions; those of a state begin with sequence and layer, those of attention with sequence, block.
        long_name: What it is, in words.
        of: What the formula is given: ``"state"`` a `LayerState`, ``"attention"`` the `HeadStatistics` of a block
            (both of b sequences of one length, answered by an array (b, ...)), ``"corpus"`` a `Corpus`, all sequences
            (answered by the whole array, or None where what it needs was not recorded).
        formula: The measure.
    """

    name: str
    dims: tuple[str, ...]
    long_name: str
    of: Literal["state", "attention", "corpus"]
    formula: Callable[[Any], Any]


class LayerState:
    """Hidden states of one layer, and what several measures ask of them, computed once.

    Attributes:
        tokens: (b, T, d) in float32.
        previous: The same of the layer before; None at the embedding.
        radii: Chords at which clusters are counted.
    """

    def __init__(self, tokens: Tensor, previous: Tensor | None, radii: np.ndarray) -> None:
        self.tokens = tokens
        self.previous = previous
        self.radii = radii

    @cached_property
    def parts(self) -> tuple[Weighted | None, ...]:
        """All tokens, and those without the first, which most often is the attention sink; ``None``: none is left.

        Checked once for all observables.
        """
        return weighted(self.tokens), weighted(self.tokens[:, 1:]) if self.tokens.shape[1] > 1 else None

    @cached_property
    def curves(self) -> tuple[np.ndarray, np.ndarray]:
        """Number and effective number of clusters, each (b, parts, radii); -1 and NaN where no token is left."""
        shape = (len(self.tokens), len(TOKENS), len(self.radii))
        count, effective = np.full(shape, -1), np.full(shape, np.nan, dtype=np.float32)
        for sequence, points in enumerate(to_numpy(self.tokens)):
            curve = clusters.curve(points, self.radii, metric="chord")
            for part, found in enumerate([curve, curve.without(0)] if len(points) > 1 else [curve]):
                count[sequence, part], effective[sequence, part] = found.count, found.effective_number
        return count, effective


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


def _of_parts(observable: Callable[[Any], Any]) -> Callable[[LayerState], Tensor]:
    """An observable of all tokens and of those without the first, (b, 2); NaN where no token is left."""

    def formula(state: LayerState) -> Tensor:
        whole, rest = state.parts
        found = observable(whole)
        return torch.stack([found, torch.full_like(found, torch.nan) if rest is None else observable(rest)], dim=-1)

    return formula


def _norm_ratio(state: LayerState) -> np.ndarray:
    norms = np.linalg.norm(to_numpy(state.tokens), axis=-1)
    ratio: np.ndarray = norms[..., 0] / np.median(norms, axis=-1)
    return ratio


def _sink_rate(corpus: Corpus) -> np.ndarray | None:
    if "importance_first" not in corpus.arrays:
        return None
    # float64 for the comparison: a threshold such as 0.3 has no exact float32.
    first = torch.from_numpy(corpus.arrays["importance_first"].astype(np.float64))
    rates: np.ndarray = sink_rate(first, torch.from_numpy(corpus.eps)).numpy()
    rates[np.isnan(first.numpy()).any(0)] = np.nan  # blocks without attention
    return rates


def _state(name: str, long_name: str, formula: Callable[[LayerState], Any], *further: str) -> Measure:
    return Measure(name, ("sequence", "layer", *further), long_name, "state", formula)


def _attention(name: str, long_name: str, formula: Callable[[HeadStatistics], Any]) -> Measure:
    return Measure(name, ("sequence", "block", "head"), long_name, "attention", formula)


MEASURES: tuple[Measure, ...] = (
    _attention(
        "importance_first",
        "attention that the first token receives, averaged over queries (alpha_0)",
        lambda found: found.importance[..., 0],
    ),
    _attention(
        "published_importance_first",
        "the same with the divisor of full attention, whatever the window (as published)",
        lambda found: found.published_importance[..., 0],
    ),
    _attention(
        "first_token_score",
        "attention that the first token receives from the other queries (Krause authors' score)",
        lambda found: found.first_token_score,
    ),
    _attention("entropy", "entropy of attention in units of ln(visible keys)", lambda found: found.entropy),
    _attention(
        "strongest_key",
        "token that receives most attention (0 = first, -1 = none with enough queries)",
        lambda found: found.strongest_key,
    ),
    _attention(
        "learned_sink",
        "share of attention that goes to a learned sink without a token",
        lambda found: found.learned_sink,
    ),
    _state("norm_ratio", "norm of the first token over the median norm", _norm_ratio),
    _state("mean_cosine", "mean cosine between different tokens", _of_parts(observables.mean_cosine), "tokens"),
    _state("order_parameter", "norm of the mean direction", _of_parts(observables.order_parameter), "tokens"),
    _state(
        "residual",
        "Frobenius norm of X minus its mean row, over that of X",
        _of_parts(observables.residual),
        "tokens",
    ),
    _state(
        "effective_rank",
        "exponential of the entropy of the normalised singular values",
        _of_parts(observables.effective_rank),
        "tokens",
    ),
    _state(
        "clusters",
        "connected components at a chord of at most radius",
        lambda state: state.curves[0],
        "tokens",
        "radius",
    ),
    _state(
        "effective_clusters",
        "1 / sum of squared shares of the clusters",
        lambda state: state.curves[1],
        "tokens",
        "radius",
    ),
    Measure("length", ("sequence",), "tokens of the sequence", "corpus", lambda corpus: corpus.lengths),
    Measure(
        "sink_rate",
        ("block", "head", "eps"),
        "sequences in which alpha_0 exceeds eps (per cent)",
        "corpus",
        _sink_rate,
    ),
)


class Measuring:
    """Takes the layers of one batch as they come, adds their measures and forgets them; one layer is kept for the next.

    Attributes:
        measures: What is measured.
        radii: Chords at which clusters are counted.
    """

    def __init__(self, measures: Sequence[Measure], radii: np.ndarray) -> None:
        self.measures = measures
        self.radii = radii
        self._previous: Tensor | None = None
        self._found: dict[str, dict[int, np.ndarray]] = {}

    def state(self, layer: int, tokens: Tensor) -> None:
        """Measure the tokens (b, T, d) after block ``layer`` (0: the embedding)."""
        self._add("state", layer, LayerState(tokens, self._previous, self.radii))
        self._previous = tokens

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
