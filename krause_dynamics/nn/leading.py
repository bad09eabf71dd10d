"""Rows that begin with padding, before rules that ask for a token's place: the first tokens are those of the text."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics._array import may_look, may_wait
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn.checks import check_valid

WAY_OUT = "pad on the right, or give rows of one length"


class Order(NamedTuple):
    """A permutation of the tokens of each row.

    Attributes:
        old: (batch, n): the token that comes to each place.
        new: (batch, n): the place to which each token goes.
    """

    old: Tensor
    new: Tensor

    def to_front(self, x: Tensor) -> Tensor:
        """Tokens (batch, n, ...), or booleans or positions (batch or 1, n), in their new places."""
        return _rows(x.expand(len(self.old), *x.shape[1:]), self.old)

    def positions(self, given: Tensor | None) -> Tensor:
        """Positions (batch, n) of the tokens in their new places, by default those of the old ones."""
        return self.old if given is None else self.to_front(given if given.ndim == 2 else given[None])

    def back(self, x: Tensor) -> Tensor:
        """Tokens (batch, n, ...) in their old places."""
        return _rows(x, self.new)

    def dense_back(self, weights: Tensor) -> Tensor:
        """Weights (batch, heads, n, n) of tokens in their old places."""
        weights = self.back(weights.transpose(1, 2))
        return self.back(weights.permute(0, 3, 2, 1)).permute(0, 2, 3, 1)

    def sparse_back(self, index: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """`sparse_weights` of tokens in their old places, ascending."""
        index, weight = (self.back(x.transpose(1, 2)).transpose(1, 2) for x in (index, weight))
        place = self.old[:, None, None].expand(*index.shape[:3], -1).gather(-1, index.clamp(min=0))
        place = torch.where(index < 0, self.old.shape[1], place)
        place, sorting = place.sort(-1)
        return torch.where(place == self.old.shape[1], -1, place), weight.gather(-1, sorting)


def order_of(
    valid: Tensor | None, x: Tensor, reach: Reach, segments: Tensor | None, cache: Any, has_bias: bool
) -> Order | None:
    """The order in which a layer hears padded rows as it would hear them alone; ``None``: as they stand.

    Args:
        valid: Boolean (batch or 1, n), false for padding; or ``None``.
        x: Tokens (batch, n, dim).
        reach: Of the layer.
        segments: Cumulative lengths of packed sequences; or ``None``.
        cache: What tokens are appended to; or ``None``.
        has_bias: Whether places have biases.

    Raises:
        ValueError: First tokens beside a bias; a row that goes on from the cache has fewer than
            the first tokens, or its keys are random.
    """
    if valid is None or segments is not None or not (reach.first or reach.random):
        return None
    check_valid(valid, *x.shape[:2])
    if (cache is not None and not cache.is_empty) or (may_look(valid) and bool(valid[:, :1].all())):
        return None
    if has_bias:
        raise ValueError("padding in front moves tokens, whose places key_bias and pair_bias know; pad behind")
    return _moved(valid.expand(x.shape[0], -1), reach, goes_on=cache is not None)


def _moved(valid: Tensor, reach: Reach, goes_on: bool) -> Order:
    """Padding in front goes to the end, unless later tokens go on from there, which count their window from the end.

    Then the first tokens alone go to the front, and the padding follows them: nobody is nearer or farther for it, since
    first tokens are heard from everywhere.
    """
    place = torch.arange(valid.shape[1], device=valid.device)
    start = valid.long().argmax(1, keepdim=True)  # 0 in a row of padding alone
    if not goes_on:
        group = (place < start).long()
    else:
        if may_wait(valid) and bool((start > 0).any()):
            _check_prefill(valid, reach)
        group = torch.where(place < start, 1, torch.where(place < start + reach.first, 0, 2))
    old = group.argsort(dim=1, stable=True)
    return Order(old, old.argsort(1))


def _check_prefill(valid: Tensor, reach: Reach) -> None:
    if reach.random:
        raise ValueError(f"random keys are those of a token's place, which padding in front moves; {WAY_OUT}")
    fewest = int(valid.sum(1).min())
    if fewest < reach.first:
        raise ValueError(
            f"rows with padding in front must begin with their {reach.first} first tokens in one call, got a row of "
            f"{fewest}; {WAY_OUT}"
        )


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """``x[b, index[b, i]]``, (batch, n, ...)."""
    return x.gather(1, index.view(*index.shape, *(1,) * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
