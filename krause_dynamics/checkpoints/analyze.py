"""A trained model and some text in, a labelled Dataset over layer and head out."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from krause_dynamics.analysis import clusters, observables
from krause_dynamics.checkpoints.attention_statistics import sink_rate
from krause_dynamics.checkpoints.forward import Batch, forward_passes, model_tokens
from krause_dynamics.checkpoints.inputs import Tokens
from krause_dynamics.checkpoints.load import load
from krause_dynamics.checkpoints.record import describe

if TYPE_CHECKING:
    import xarray

# Chords between directions: 0.1 joins tokens 6 degrees apart, 1.4 those up to 89 degrees; independent directions in a
# high dimension lie sqrt(2) = 1.41 apart, so beyond 1.4 everything is one cluster whatever the model does.
RADII = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4)
# 0.3 is the threshold of Gu et al. (arXiv:2410.10781); the others show how far the percentage depends on it.
EPS = (0.1, 0.2, 0.3, 0.5)
TOKENS = ("all", "without_first")
_STATES = ("mean_cosine", "order_parameter", "residual", "effective_rank")


def analyze(
    model: Any,
    inputs: Any,
    *,
    tokenizer: Any = None,
    sequence_length: int | None = None,
    max_sequences: int | None = None,
    truncate: bool = False,
    pad_token: int | None = None,
    eps: Sequence[float] = EPS,
    radii: Sequence[float] = RADII,
    min_queries: int = 8,
    attention: str | None = "statistics",
    batch_size: int = 8,
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    progress: bool | Callable[[int, int], None] = False,
) -> xarray.Dataset:
    """How the tokens of a trained model synchronize, into how many clusters, and where attention sinks form.

    Batches are reduced one after the other, so that a corpus needs the memory of one batch. All statistics are float32
    or better whatever the dtype of the model.

    Args:
        model: A loaded ``transformers`` model, a folder, or a name; see :func:`~krause_dynamics.checkpoints.load`.
        inputs: Text, a ``pathlib.Path``, or token ids; see :func:`~krause_dynamics.checkpoints.prepare`.
        tokenizer: Instead of the checkpoint's own.
        sequence_length: Cut text into consecutive sequences of this many tokens. Sink rates fall as sequences get
            longer: compare them at one length only (published ones use 64).
        max_sequences: Keep only the first ones.
        truncate: Cut what is longer than the model's context, which otherwise is an error.
        pad_token: Id that is padding wherever it stands at either end of a row of ids.
        eps: Thresholds of the sink rate.
        radii: Chords |u_i - u_j| between directions u = x/|x| at which clusters are counted.
        min_queries: A key needs that many queries to be a strongest key.
        attention: ``"statistics"``, ``"eager"`` (what the model returns itself) or None (states only).
        batch_size: Sequences per forward pass.
        device: Where a model that is loaded here runs, such as ``"cuda"``; a loaded model stays where it is.
        trust_remote_code: Only True runs Python files of a checkpoint.
        progress: ``True`` draws a progress bar; or a function ``progress(sequences done, all sequences)``.

    Returns:
        Dataset with dimensions ``layer`` (0 = embedding, i = residual stream after block i, before any final norm),
        ``block`` (1..L), ``head``, ``sequence``, ``eps``, ``radius`` and ``tokens`` (all, without_first).

        Over (sequence, block, head): ``importance_first`` = alpha of the first token, ``first_token_score``,
        ``entropy``, ``strongest_key`` (-1 where none), see ``attention_statistics``; over (block, head, eps):
        ``sink_rate`` in per cent of sequences. Over (sequence, layer, tokens): ``mean_cosine``, ``order_parameter``,
        ``residual``, ``effective_rank``; over (sequence, layer): ``norm_ratio`` = |x_first| / median |x|; over
        (sequence, layer, tokens, radius): ``clusters`` (connected components) and ``effective_clusters``. NaN (-1 for
        counts) where a sequence of one token leaves nothing. ``length`` holds the tokens of each sequence;
        ``attrs["meta"]`` is JSON: ``json.loads(ds.attrs["meta"])``.

    Raises:
        ValueError: Bad arguments or inputs, before the model runs.
        UnsupportedModel: If the attention cannot be recorded faithfully.
    """
    eps_values, radius_values = _increasing("eps", eps, 1.0), _increasing("radii", radii, 2.0)
    if attention == "weights":
        raise ValueError("attention='weights' is for record(); analyze reduces attention to statistics")
    checkpoint = load(model, tokenizer=tokenizer, device=device, trust_remote_code=trust_remote_code)
    tokens = model_tokens(
        checkpoint,
        inputs,
        tokenizer=tokenizer,
        sequence_length=sequence_length,
        max_sequences=max_sequences,
        truncate=truncate,
        pad_token=pad_token,
    )
    batches = forward_passes(
        checkpoint, tokens, attention=attention, batch_size=batch_size, min_queries=min_queries, progress=progress
    )
    arrays: dict[str, np.ndarray] = {}
    path = "none"
    for batch in batches:
        path = batch.path
        found = {**_attention_variables(batch), **_state_variables(batch.states, radius_values)}
        for name, values in found.items():
            target = arrays.setdefault(name, np.empty((len(tokens), *values.shape[1:]), dtype=values.dtype))
            target[batch.sequences] = values
    meta = describe(checkpoint, tokens, path) | {"min_queries": min_queries, "distance": "chord"}
    return _dataset(arrays, tokens, eps_values, radius_values, meta)


def _increasing(name: str, values: Sequence[float], largest: float) -> np.ndarray:
    array = np.asarray(values, dtype=float).reshape(-1)
    if not array.size or not np.all(np.isfinite(array)) or np.any(array <= 0) or np.any(array > largest):
        raise ValueError(f"{name} must be numbers above 0 and at most {largest:g}, received {list(values)}")
    return np.unique(array)


def _attention_variables(batch: Batch) -> dict[str, np.ndarray]:
    """Arrays (sequences of the batch, blocks, heads)."""
    if not batch.attention:
        return {}
    stack = {
        "importance_first": [statistics.importance[..., 0] for statistics in batch.attention],
        "first_token_score": [statistics.first_token_score for statistics in batch.attention],
        "entropy": [statistics.entropy for statistics in batch.attention],
        "strongest_key": [statistics.strongest_key for statistics in batch.attention],
    }
    return {name: torch.stack(blocks, dim=1).cpu().numpy() for name, blocks in stack.items()}


def _state_variables(states: np.ndarray, radii: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays (sequences of the batch, layers, ...) from hidden states (layers, sequences, T, d)."""
    states = states.swapaxes(0, 1)
    norms = np.linalg.norm(states, axis=-1)
    found: dict[str, Any] = {"norm_ratio": norms[..., 0] / np.median(norms, axis=-1)}
    parts = (states, states[:, :, 1:])
    for name in _STATES:
        measure = getattr(observables, name)
        found[name] = np.stack([_or_nan(measure, part) for part in parts], axis=-1)
    counts = [_cluster_curves(part, radii) for part in parts]
    found["clusters"] = np.stack([count for count, _ in counts], axis=2)
    found["effective_clusters"] = np.stack([effective for _, effective in counts], axis=2)
    return found


def _or_nan(measure: Callable[[Any], Any], states: np.ndarray) -> np.ndarray:
    """(sequences, layers), NaN where no token is left; one layer at a time, which bounds the memory of copies."""
    if states.shape[2] == 0:
        return np.full(states.shape[:2], np.nan, dtype=states.dtype)
    # As tensors: torch's linear algebra takes a fifth of numpy's time on matrices of some hundred tokens.
    layers = [measure(torch.from_numpy(states[:, layer])) for layer in range(states.shape[1])]
    return torch.stack(layers, dim=1).numpy()


def _cluster_curves(states: np.ndarray, radii: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Number and effective number of clusters, each (sequences, layers, radii)."""
    shape = (*states.shape[:2], len(radii))
    count, effective = np.full(shape, -1), np.full(shape, np.nan, dtype=np.float32)
    if states.shape[2] > 0:
        for where in np.ndindex(states.shape[:2]):
            curve = clusters.curve(states[where], radii, metric="chord")
            count[where], effective[where] = curve.count, curve.effective_number
    return count, effective


_DIMENSIONS = {
    "importance_first": ("sequence", "block", "head"),
    "first_token_score": ("sequence", "block", "head"),
    "entropy": ("sequence", "block", "head"),
    "strongest_key": ("sequence", "block", "head"),
    "sink_rate": ("block", "head", "eps"),
    "norm_ratio": ("sequence", "layer"),
    **dict.fromkeys(_STATES, ("sequence", "layer", "tokens")),
    **dict.fromkeys(("clusters", "effective_clusters"), ("sequence", "layer", "tokens", "radius")),
    "length": ("sequence",),
}
_LONG_NAMES = {
    "importance_first": "attention that the first token receives, averaged over queries (alpha_0)",
    "first_token_score": "attention that the first token receives from the other queries (Krause authors' score)",
    "entropy": "entropy of attention in units of ln(visible keys)",
    "strongest_key": "token that receives most attention (0 = first, -1 = none with enough queries)",
    "sink_rate": "sequences in which alpha_0 exceeds eps (per cent)",
    "norm_ratio": "norm of the first token over the median norm",
    "mean_cosine": "mean cosine between different tokens",
    "order_parameter": "norm of the mean direction",
    "residual": "Frobenius norm of X minus its mean row, over that of X",
    "effective_rank": "exponential of the entropy of the normalised singular values",
    "clusters": "connected components at a chord of at most radius",
    "effective_clusters": "1 / sum of squared shares of the clusters",
    "length": "tokens of the sequence",
}


def _dataset(
    arrays: dict[str, np.ndarray], tokens: Tokens, eps: np.ndarray, radii: np.ndarray, meta: dict[str, Any]
) -> xarray.Dataset:
    import xarray

    arrays["length"] = tokens.lengths
    layers = arrays["norm_ratio"].shape[1]
    coords: dict[str, Any] = {
        "sequence": np.arange(len(tokens)),
        "layer": np.arange(layers),
        "tokens": list(TOKENS),
        "radius": radii,
    }
    if "importance_first" in arrays:
        first = arrays["importance_first"]
        # float64 for the comparison: a threshold such as 0.3 has no exact float32.
        rates = sink_rate(torch.from_numpy(first.astype(np.float64)), torch.from_numpy(eps))
        arrays["sink_rate"] = rates.numpy()
        coords |= {"block": np.arange(1, first.shape[1] + 1), "head": np.arange(first.shape[2]), "eps": eps}
    variables = {name: (_DIMENSIONS[name], values, {"long_name": _LONG_NAMES[name]}) for name, values in arrays.items()}
    return xarray.Dataset(variables, coords=coords, attrs={"meta": json.dumps(meta, sort_keys=True)})
