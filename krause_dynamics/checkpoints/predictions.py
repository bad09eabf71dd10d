"""What theory says of a trained model before its attention is looked at, beside what was measured.

Attention with independent scores is a random energy model: of T keys with scores of standard deviation s it rests on
finitely many from s = sqrt(2 ln T) on, and the sum of squared weights follows from s and T alone. Attention that does
not look at the tokens is an average over the past, whose first token receives H_T/T (H_W/W in a window of W). What a
trained head does beyond either is what it has learned.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics import theory
from krause_dynamics.checkpoints.sampled_rows import HEARD, sampled_rows

if TYPE_CHECKING:
    import xarray

BETAS = np.concatenate([[0.01], np.linspace(0.1, 4.0, 40), [5.0, 7.0, 10.0, 20.0]])
ROUNDING = 2e-6  # of shares that were kept in float32
ROWS = 6  # lengths of rows, of those sampled, at which the prediction is computed


def predictions(dataset: xarray.Dataset, *, causal: bool | None = None) -> xarray.Dataset:
    """Predicted beside measured, for every sequence, block and head of an analysis.

    The predictions read ``score_spread``, ``length`` and ``even_importance_first``, which tells who is within reach.

    Args:
        dataset: Of `analyze`.
        causal: Whether row i hears i + 1 keys (True) or every row all (False: encoders, pictures), in all blocks. None
            (default): as the Dataset tells of each block, windows among them; of one that does not tell, True.

    Returns:
        Dataset with ``freezing_ratio`` (score spread over sqrt(2 ln T), T the most keys that a row hears: above 1
        independent scores would be frozen), ``participation`` and ``importance_first`` over a first dimension ``side``
        (predicted, measured); the prediction of the second is that of attention that does not look at the tokens. NaN
        where the reach is neither the past, nor a window of it (chunks count as such), nor all.

    Raises:
        ValueError: No attention in the Dataset.
    """
    import xarray

    if "score_spread" not in dataset:
        raise ValueError("dataset must hold score_spread and participation; analyze it with attention='statistics'")
    spread, lengths = dataset["score_spread"], dataset["length"].values
    participation, freezing = np.full(spread.shape, np.nan), np.full(spread.shape, np.nan)
    first = _even(dataset, causal)
    for i, length in enumerate(lengths):
        for even in np.unique(first[i][~np.isnan(first[i])]):
            heard, there = _heard(float(even), int(length)), first[i] == even
            if len(heard):
                scores = spread.values[i][there]
                participation[i][there] = _participation(scores, heard)
                freezing[i][there] = scores / np.sqrt(2 * np.log(max(2, heard.max())))
    dims = ("side", *spread.dims)
    side = lambda name, predicted: (dims, np.stack([predicted, dataset[name].values]))  # noqa: E731
    return xarray.Dataset(
        {
            "freezing_ratio": (spread.dims, freezing, {"long_name": "spread of scores over sqrt(2 ln T)"}),
            "participation": side("participation", participation),
            "importance_first": side("importance_first", first),
        },
        coords={"side": ["predicted", "measured"], **{dim: dataset[dim] for dim in spread.dims}},
    )


def _even(dataset: xarray.Dataset, causal: bool | None) -> np.ndarray:
    """What attention that does not look at the tokens gives the first one, (sequence, block, head)."""
    if causal is None and "even_importance_first" in dataset:
        told: np.ndarray = dataset["even_importance_first"].values.astype(float)
        return told
    each = np.array([1 / n if causal is False else _harmonic(int(n))[-1] for n in dataset["length"].values])
    return np.broadcast_to(each[:, None, None], dataset["score_spread"].shape)


def _harmonic(tokens: int) -> np.ndarray:
    """H_W / W for W = 1, ..., T: the even share of the first key in a causal window of W."""
    place = np.arange(1, tokens + 1)
    return np.cumsum(1 / place) / place


def _heard(even: float, length: int) -> np.ndarray:
    """How many keys the sampled rows hear, where even attention gives the first key that; none: another reach."""
    if math.isclose(even, 1 / length, rel_tol=ROUNDING):
        return np.array([length])
    shares = _harmonic(length)
    window = int(np.argmin(np.abs(shares - even)))
    if not math.isclose(even, shares[window], rel_tol=ROUNDING):
        return np.array([], dtype=int)
    return np.minimum(sampled_rows(length).numpy(), window) + 1


def _participation(spread: np.ndarray, heard: np.ndarray) -> np.ndarray:
    """Of independent Gaussian scores of these standard deviations, averaged over rows that hear so many keys."""
    heard = heard[heard >= HEARD]
    if not len(heard):
        return np.full(spread.shape, np.nan)
    some = np.unique(np.geomspace(heard[0], heard[-1], ROWS).round())
    logs = np.stack([np.interp(spread, *_table(float(tokens))) for tokens in some]).reshape(len(some), -1)
    every = np.exp([np.interp(np.log(heard), np.log(some), column) for column in logs.T])
    return np.where(np.isnan(spread), np.nan, every.mean(-1).reshape(spread.shape))


@lru_cache(maxsize=256)
def _table(tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Spreads, and the logarithm of the participation that theory gives at them."""
    scale = math.sqrt(math.log(tokens))
    found = [theory.expected_participation(tokens=tokens, beta=beta) for beta in BETAS]
    return BETAS * scale, np.log(found)
