"""What is measured of the attention of a block; `attention_statistics` defines the sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.measure import Measure


def _of(name: str, long_name: str, formula: Callable[[HeadStatistics], Any], *further: str, **rest: Any) -> Measure:
    return Measure(name, ("sequence", "block", "head", *further), long_name, "attention", formula, **rest)


def _head_diversity(found: HeadStatistics) -> Tensor:
    """Mean distance of two different heads, (b,); NaN with one head."""
    heads = found.head_distance.shape[-1]
    return found.head_distance.sum((-1, -2)) / (heads * (heads - 1) or torch.nan)


MEASURES: tuple[Measure, ...] = (
    _of(
        "importance_first",
        "attention that the first token receives, averaged over queries (alpha_0)",
        lambda found: found.importance[..., 0],
    ),
    _of(
        "published_importance_first",
        "the same with the divisor of full attention, whatever the window (as published)",
        lambda found: found.published_importance[..., 0],
    ),
    _of(
        "even_importance_first",
        "what it would receive from even attention within the same reach",
        lambda found: found.even_importance_first,
    ),
    _of(
        "first_token_score",
        "attention that the first token receives from the other queries (Krause authors' score)",
        lambda found: found.first_token_score,
    ),
    _of(
        "first_by_quarter",
        "attention that the first token receives from the queries of each quarter that see it",
        lambda found: found.first_by_quarter,
        "quarter",
    ),
    _of(
        "entropy",
        "entropy of attention in units of ln(visible keys)",
        lambda found: found.entropy,
    ),
    _of(
        "strongest_key",
        "token that receives most attention (0 = first, -1 = none with enough queries)",
        lambda found: found.strongest_key,
    ),
    _of(
        "strongest_importance",
        "attention that it receives (NaN = none with enough queries)",
        lambda found: found.importance.gather(-1, found.strongest_key.clamp_min(0)[..., None])[..., 0].masked_fill(
            found.strongest_key < 0, torch.nan
        ),
    ),
    _of("score_spread", "standard deviation of the scores of a row", lambda found: found.score_spread),
    _of("participation", "sum of the squared weights of a row", lambda found: found.participation),
    _of("self_weight", "attention of tokens to themselves", lambda found: found.self_weight),
    _of("mean_distance", "mean distance of attention (tokens)", lambda found: found.mean_distance),
    _of(
        "distance_profile",
        "share of attention by distance, from the bin's own distance to the next one's",
        lambda found: found.distance_profile,
        "distance",
    ),
    _of(
        "learned_sink",
        "share of attention that goes to a learned sink without a token",
        lambda found: found.learned_sink,
    ),
    Measure(
        "head_diversity",
        ("sequence", "block"),
        "mean distance of the maps of two heads, 0 (all alike) to 1",
        "attention",
        _head_diversity,
    ),
    Measure(
        "head_distance",
        ("sequence", "block", "head", "other_head"),
        "distance of the maps of two heads, 0 (alike) to 1",
        "attention",
        lambda found: found.head_distance,
        extra=True,
    ),
)
