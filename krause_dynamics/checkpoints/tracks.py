"""Clusters of tokens followed through the layers of a model, with the tokens' text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from krause_dynamics._arguments import Is, Real, Whole, reads
from krause_dynamics.analysis import clusters
from krause_dynamics.checkpoints.one_sequence import states_of
from krause_dynamics.trajectory import Trajectory

if TYPE_CHECKING:
    import xarray

WORDS = 8  # texts that are listed of a track


@reads(
    run=Is(Trajectory, "checkpoints.record(model, inputs)"),
    radius=Real(0.0, 2.0, "(]"),
    sequence=Whole(0),
    members=Whole(1),
)
def tracks(
    run: Trajectory, *, radius: float = 0.7, sequence: int = 0, tokenizer: Any = None, members: int = 2
) -> xarray.Dataset:
    """Which tokens of a sequence stay together through which layers.

    Clusters are connected components of token directions, followed by the tokens that they share
    (``kd.clusters.track``): the largest part of a cluster keeps its number.

    Args:
        run: Of `record`, with or without attention.
        radius: Chord within which directions are joined; 0.7 is an angle of 41 degrees. ``plots.cluster_map`` of an
            analysis shows what others would give.
        sequence: Which one.
        tokenizer: Gives the tokens' text: that of the model (anything with ``decode``), or a list of texts, one a
            token. None: the ids of the run, or where it has none (pictures) the places.
        members: Clusters of fewer tokens have no track.

    Returns:
        Dataset over layer, token and track: ``number`` (layer, token) of the track, -1 for none, with ``text`` along
        tokens; ``size`` (layer, track); ``first_layer`` and ``last_layer`` (track); ``parent`` it began in and ``heir``
        it ended in, -1 for none; ``words`` (track): its texts in the layer where it is largest, most frequent first,
        with their number where it is above one.

    Raises:
        ValueError: No such sequence, or as many texts as there are not tokens.
    """
    import xarray

    states = states_of(run, sequence)
    length = states.shape[1]
    texts = _texts(run, sequence, length, tokenizer)
    labels = clusters.labels(states, radius, metric="chord")
    found = clusters.track(labels, members=members)
    largest = found.sizes.argmax(0)
    words = [_listed([texts[i] for i in np.flatnonzero(found.numbers[at] == k)]) for k, at in enumerate(largest)]
    variables = {
        "number": (("layer", "token"), found.numbers, {"long_name": "track of the token's cluster (-1 = none)"}),
        "size": (("layer", "track"), found.sizes, {"long_name": "tokens of the track"}),
        "first_layer": ("track", found.first, {"long_name": "layer in which it begins"}),
        "last_layer": ("track", found.last, {"long_name": "layer in which it is seen last"}),
        "parent": ("track", found.parent, {"long_name": "track that most of its first tokens came from (-1 = none)"}),
        "heir": ("track", found.heir, {"long_name": "track that most of its last tokens went to (-1 = none)"}),
        "words": ("track", np.array(words, dtype=str), {"long_name": "its texts where it is largest"}),
    }
    coords = {"layer": run.times.astype(int), "track": np.arange(len(found)), "text": ("token", np.array(texts))}
    about = {"radius": radius, "distance": "chord", "sequence": sequence, "model": str(run.meta.get("model", ""))}
    return xarray.Dataset(variables, coords=coords, attrs=about)


def _texts(run: Trajectory, sequence: int, length: int, tokenizer: Any) -> list[str]:
    ids = run.extras["token_ids"][sequence, :length].tolist() if "token_ids" in run.extras else list(range(length))
    if tokenizer is None:
        return [str(i) for i in ids]
    if isinstance(tokenizer, Sequence) and not isinstance(tokenizer, str):
        if len(tokenizer) != length:
            raise ValueError(f"tokenizer must be texts of the {length} tokens, got {len(tokenizer)} texts")
        return [str(text) for text in tokenizer]
    if "token_ids" not in run.extras:
        raise ValueError("tokenizer must be None or a list of texts: the run holds no token ids")
    return [str(tokenizer.decode([i])) for i in ids]


def _listed(texts: list[str]) -> str:
    """The most frequent texts, in the order of the sequence where they are as frequent."""
    counts = Counter(texts).most_common()
    named = [repr(text)[1:-1] + (f" x{number}" if number > 1 else "") for text, number in counts[:WORDS]]
    return " | ".join(named + ([f"+{len(counts) - WORDS} more"] if len(counts) > WORDS else []))
