"""What theory says of a trained model before its attention is looked at, beside what was measured.

Attention with independent scores is a random energy model: of T keys with scores of standard deviation s it rests on
finitely many from s = sqrt(2 ln T) on, and the sum of squared weights follows from s and T alone. Attention that does
not look at the tokens is an average over the past, whose first token receives H_T/T. What a trained head does beyond
either is what it has learned.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from krause_dynamics import theory
from krause_dynamics.checkpoints.attention_statistics import HEARD, sampled_rows

if TYPE_CHECKING:
    import xarray

BETAS = np.concatenate([[0.01], np.linspace(0.1, 4.0, 40), [5.0, 7.0, 10.0, 20.0]])
ROWS = 6  # lengths of rows, of those sampled, at which the prediction is computed


def predictions(dataset: xarray.Dataset, *, causal: bool = True) -> xarray.Dataset:
    """Predicted beside measured, for every sequence, block and head of an analysis.

    The predictions read ``score_spread`` and ``length`` of the Dataset, and nothing else.

    Args:
        dataset: Of `analyze`.
        causal: Whether row i hears i + 1 keys; False: every row hears all (encoders, pictures).

    Returns:
        Dataset with ``freezing_ratio`` (score spread over sqrt(2 ln T): above 1 independent scores would be frozen),
        ``participation`` and ``importance_first`` over a first dimension ``side`` (predicted, measured); the prediction
        of the second is that of attention that does not look at the tokens.

    Raises:
        ValueError: No attention in the Dataset.
    """
    import xarray

    if "score_spread" not in dataset:
        raise ValueError("dataset must hold score_spread and participation; analyze it with attention='statistics'")
    spread, lengths = dataset["score_spread"], dataset["length"].values
    participation = np.stack(
        [_participation(spread.values[i], int(length), causal) for i, length in enumerate(lengths)]
    )
    uniform = np.array([np.sum(1 / np.arange(1, n + 1)) / n if causal else 1 / n for n in lengths])
    first = np.broadcast_to(uniform[:, None, None], spread.shape)
    dims = ("side", *spread.dims)
    side = lambda name, predicted: (dims, np.stack([predicted, dataset[name].values]))  # noqa: E731
    freezing = spread / np.sqrt(2 * np.log(np.maximum(lengths, 2)))[:, None, None]
    return xarray.Dataset(
        {
            "freezing_ratio": freezing.assign_attrs(long_name="spread of scores over sqrt(2 ln T)"),
            "participation": side("participation", participation),
            "importance_first": side("importance_first", first),
        },
        coords={"side": ["predicted", "measured"], **{dim: dataset[dim] for dim in spread.dims}},
    )


def _participation(spread: np.ndarray, length: int, causal: bool) -> np.ndarray:
    """Of independent Gaussian scores of these standard deviations, averaged over the rows that are sampled."""
    heard = sampled_rows(length).numpy() + 1 if causal else np.array([length])
    heard = heard[heard >= HEARD]
    if not len(heard):
        return np.full(spread.shape, np.nan)
    some = np.unique(np.geomspace(heard[0], heard[-1], ROWS).round())
    logs = np.stack([np.interp(spread, *_table(float(tokens))) for tokens in some]).reshape(len(some), -1)
    every = np.exp([np.interp(np.log(heard), np.log(some), column) for column in logs.T])
    return np.where(np.isnan(spread), np.nan, every.mean(-1).reshape(spread.shape))


def _table(tokens: float) -> tuple[np.ndarray, np.ndarray]:
    """Spreads, and the logarithm of the participation that theory gives at them."""
    scale = math.sqrt(math.log(tokens))
    found = [theory.expected_participation(tokens=tokens, beta=beta) for beta in BETAS]
    return BETAS * scale, np.log(found)
