"""Random keys as tables on a device: the keys of every row, which of all keys they are, and that as bits.

Each is made once and kept (`kept`), so that a CUDA graph captures no copy from the host and reads what is still there.
"""

from __future__ import annotations

import torch
from torch import Tensor

from krause_dynamics.forms.attention.kept import kept
from krause_dynamics.interaction import random_keys


@kept(128)
def drawn(random: tuple[int, ...], rows: int, device: torch.device) -> Tensor:
    """`random_keys.table` on a device, (rows, prefix + degree)."""
    with torch.inference_mode(False):  # whoever asks first: it serves passes with gradients too
        return torch.tensor(random_keys.table(*random, rows), device=device).long()


@kept(128)
def chosen(random: tuple[int, ...], rows: int, columns: int, device: torch.device) -> Tensor:
    """Which of the first keys each place hears, (rows, columns) on a device; rows of the prefix hear all."""
    with torch.inference_mode(False):
        keys = drawn(random, rows, device)
        heard = torch.zeros(rows, columns + 1, dtype=torch.bool, device=device)  # one more: where nothing is heard
        heard.scatter_(1, torch.where((keys >= 0) & (keys < columns), keys, columns), True)
        heard[: random[3]] = True
        return heard[:, :columns].contiguous()


@kept(1024)  # 32 KB each at most (512 tokens)
def bits(random: tuple[int, ...], offset: int, rows: int, columns: int, device: torch.device) -> Tensor:
    """`chosen` of the places from ``offset`` on as bits, int32 (words, rows): bit c of word w is key 32 w + c.

    As the kernels save what a row selects where a row may hear all keys (`triton.words`).
    """
    with torch.inference_mode(False):
        heard = chosen(random, offset + rows, columns, device)[offset:]
        heard = torch.nn.functional.pad(heard, (0, -columns % 32)).unflatten(1, (-1, 32)).long()
        words = (heard << torch.arange(32, device=device)).sum(-1).to(torch.int32)  # the 32nd bit is the sign
        return words.T.contiguous()
