"""Rows of weights that are looked at one by one: which they are, their strongest keys, and how their scores spread."""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.forms.attention import device_sums

SAMPLED, TOP = 32, 8  # rows that are looked at one by one, and keys that are listed of each
HEARD = 8  # keys of a row from which the spread of its scores means something


def sampled_rows(length: int, device: torch.device | None = None) -> Tensor:
    """Queries that are looked at one by one: all of a short sequence, else evenly spaced ones, the last among them."""
    number = min(length, SAMPLED)
    steps = max(1, number - 1)
    # Whole numbers, rounded to the nearest, are made on the device itself: a copy would make the host wait for it.
    return (2 * torch.arange(number, device=device) * (length - 1) + steps) // (2 * steps)


def of_rows(sampled: Tensor, visible: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """The keys with most weight, and what the theory of independent scores asks of rows: spread and participation.

    Args:
        sampled: Rows of weights, (b, heads, S, T).
        visible: How many keys each of them hears, (..., S); None: as many as have weight.
    """
    if device_sums.describes(sampled):
        keys, number, spread, squares = device_sums.describe(sampled, TOP)
    else:
        keys, (number, spread, squares) = largest_keys(sampled), moments(sampled)
    heard = number if visible is None else visible.expand_as(number)
    spread = spread.masked_fill(number < heard, torch.nan)  # weights that underflow have lost their scores
    enough = heard >= HEARD
    rows = enough.sum(-1)
    one, other = (torch.where(enough, x, 0.0).sum(-1) / rows for x in (spread, squares))
    return keys, one.float(), other.float()


def moments(sampled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of each row how many keys it hears, the standard deviation of their log weights, and the sum of all squares."""
    heard = sampled > 0
    number = heard.sum(-1)
    logs = torch.where(heard, sampled, 1.0).log()
    mean = logs.sum(-1, keepdim=True) / number[..., None]
    spread = (torch.where(heard, logs - mean, 0.0).square().sum(-1) / number).sqrt()
    return number, spread, sampled.square().sum(-1)


def largest_keys(sampled: Tensor) -> Tensor:
    """Keys with most weight in each row (..., T), largest first, (..., 8); -1 beyond those that have any."""
    found = sampled.topk(min(TOP, sampled.shape[-1]), dim=-1)
    keys = torch.where(found.values > 0, found.indices, -1)
    return torch.nn.functional.pad(keys, (0, TOP - keys.shape[-1]), value=-1)
