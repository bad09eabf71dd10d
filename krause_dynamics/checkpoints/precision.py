"""A model in half precision, for a while in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

HALF = (torch.bfloat16, torch.float16)


@contextmanager
def in_float32(model: nn.Module) -> Iterator[None]:
    """Inside, numbers that a model holds in half precision are float32; afterwards they are again what they were.

    Bit for bit, as every number of a half type is one of float32. Nothing is held twice: while it lasts, weights take
    twice the memory, one after the other is converted, and whoever shares a weight goes on sharing it.
    """
    held: list[tuple[Tensor, torch.dtype]] = [
        (x, x.dtype) for x in (*model.parameters(), *model.buffers()) if x.dtype in HALF
    ]
    try:
        for x, _ in held:
            x.data = x.data.float()
        yield
    finally:
        for x, dtype in held:
            x.data = x.data.to(dtype)
