"""One new token a batch element through a decoder on the host, by functions of rows that its modules become once.

Nothing is copied: the functions read the weights where they lie, and before every token it is asked whether modules,
hooks and weights are as they were. Where anything else is in the way, the modules are called.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn.modules import module as hooks_of_all

from krause_dynamics.models.blocks import Block, DropPath, residual
from krause_dynamics.models.branches import GatedAttention
from krause_dynamics.models.decoding import Caches
from krause_dynamics.nn.newest import Attends, attention_rows
from krause_dynamics.nn.rows import DTYPES, Read, called, rows_of

MOST = 16  # rows where torch has several threads: of more, its operators make better use of them than Python's are lost


def one_token(model: Any, x: Tensor, caches: Caches) -> Tensor | None:
    """Logits (batch, 1, levels) after embedded tokens x (batch, 1, d), which are appended to the caches.

    ``None``, and nothing appended, where the modules of the model have to be called.
    """
    if torch.compiler.is_compiling() or not _is_alone(x):
        return None
    step = caches.step
    if step is None or not step.continues(model, x):
        step = caches.step = Step(model, x)
    return step(x, caches)  # type: ignore[no-any-return]


class Step:
    """A model as functions of rows.

    Args:
        model: A decoder.
        x: Tokens like those that it will take.
    """

    def __init__(self, model: Any, x: Tensor) -> None:
        self.model, self.read = model, Read(len(x), x.dtype)
        self.layers = [_block(layer, self.read) for layer in model.layers]
        self.end = rows_of(model.norm, self.read), rows_of(model.head, self.read)
        self.parts = model.layers, model.norm, model.head
        self.read.note(model.layers)

    def continues(self, model: Any, x: Tensor) -> bool:
        """Whether all is as it was when this was prepared."""
        alike = self.model is model and (len(x), x.dtype) == (self.read.batch, self.read.dtype)
        return alike and self.parts == (model.layers, model.norm, model.head) and self.read.holds()

    def __call__(self, x: Tensor, caches: Caches) -> Tensor:
        """As `one_token`."""
        rows = x[:, 0].contiguous().numpy()
        for layer, cache in zip(self.layers, caches, strict=True):
            rows = layer(rows, cache)
        norm, head = self.end
        return torch.from_numpy(head(norm(rows)).copy())[:, None]


def _is_alone(x: Tensor) -> bool:
    """Whether one token of each batch element is given, on the host, and nobody looks on."""
    if x.shape[1] != 1 or type(x) is not Tensor or x.device.type != "cpu" or x.dtype not in DTYPES:
        return False
    if not 0 < len(x) <= (MOST if torch.get_num_threads() > 1 else len(x)):
        return False
    if hooks_of_all._global_forward_hooks or hooks_of_all._global_forward_pre_hooks:
        return False
    modes = torch._C._len_torch_dispatch_stack() + torch._C._len_torch_function_stack()
    traced = torch._C._get_tracing_state() is not None or torch._C._functorch.maybe_current_level() is not None
    return not (modes or traced or forward_ad._current_level >= 0 or torch.is_autocast_enabled("cpu"))


def _block(block: Any, read: Read) -> Attends:
    """A block as a function of rows and its cache."""
    if type(block) is not Block or type(block.drop_path) is not DropPath or not read.may(block, "pre"):
        return called(block)
    if not read.may(block.drop_path) or not read.may(block.dropout):
        return called(block)
    pre, attend = block.pre, _mixer(block.attention, read)
    norm1, norm2, feed = (rows_of(part, read) for part in (block.norm1, block.norm2, block.mlp))

    def run(x: np.ndarray, cache: Any) -> np.ndarray:
        mixed = attend(norm1(x) if pre else x, cache)
        result: np.ndarray = residual(x, mixed, pre, norm1, norm2, feed)
        return result

    return run


def _mixer(mixer: Any, read: Read) -> Attends:
    """The attention of a block likewise."""
    if type(mixer) is not GatedAttention or not read.may(mixer):
        return attention_rows(mixer, read)
    softmax, krause = attention_rows(mixer.softmax, read), attention_rows(mixer.krause, read)

    def run(x: np.ndarray, cache: Any) -> np.ndarray:
        first, second = softmax(x, cache[0]), krause(x, cache[1])
        return mixer.gate(torch.from_numpy(first), torch.from_numpy(second)).numpy()

    return run
