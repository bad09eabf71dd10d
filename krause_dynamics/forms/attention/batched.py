"""Operators under `torch.func.vmap`: the mapped axis is folded into the batch, so that seeds train side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


def rule(operator: Any, shared: Sequence[int] = ()) -> Callable[..., Any]:
    """The vmap rule of an operator whose tensors and results lead with the batch; an empty tensor stands for none.

    Args:
        operator: The operator.
        shared: Places of tensors without a batch, which must not be mapped.
    """

    def fold(info: Any, in_dims: Any, *arguments: Any) -> Any:
        for place in shared:
            if in_dims[place] is not None:
                raise NotImplementedError(
                    "packed sequences must be the same along an axis of vmap; loop over that axis"
                )
        pairs = enumerate(zip(arguments, in_dims, strict=True))
        given = [x if place in shared else _folded(x, axis, info.batch_size) for place, (x, axis) in pairs]
        found = operator(*given)
        if isinstance(found, Tensor):
            return _unfolded(found, info.batch_size)
        parts = [_unfolded(x, info.batch_size) for x in found]
        return tuple(x for x, _ in parts), tuple(axis for _, axis in parts)

    return fold


def _folded(x: Any, axis: int | None, size: int) -> Any:
    """(size, batch, ...) -> (size batch, ...), spread where nothing is mapped."""
    if not isinstance(x, Tensor) or x.shape == (0,):
        return x
    x = x.expand(size, *x.shape) if axis is None else x.movedim(axis, 0)
    return x.flatten(0, 1)


def _unfolded(x: Tensor, size: int) -> tuple[Tensor, int | None]:
    return (x, None) if x.shape == (0,) else (x.unflatten(0, (size, -1)), 0)
