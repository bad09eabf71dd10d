"""Modules on the newest token of each batch element, as rows (batch, d) of numpy: read instead of called.

One token through a layer is twenty calls of modules and operators, each a few microseconds of Python for a microsecond
of arithmetic. Here a module becomes a function of rows once, which does what the module's ``forward`` does, with its
weights as they lie in memory. That holds as long as nobody looks on: `Read` knows what was read, and says whether it is
still as it was. A module of another type, or with hooks, adapters, another dtype or in training, is called as ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from itertools import chain
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics.nn.parts import is_untouched

Rows = Callable[[np.ndarray], np.ndarray]
DTYPES = (torch.float32, torch.float64)
FEW = 16  # rows, of one thread, up to which our loop was the faster one: it reads each weight once
_HOOKS, _PRE_HOOKS, _TRAINING = map(itemgetter, ("_forward_hooks", "_forward_pre_hooks", "training"))


class Read:
    """What functions of rows have read.

    Args:
        batch: Number of rows.
        dtype: Of tokens and weights.
    """

    def __init__(self, batch: int, dtype: torch.dtype) -> None:
        self.batch, self.dtype = batch, dtype
        self._own: list[dict[str, Any]] = []  # attributes of each module, and how many they were
        self._sizes: list[int] = []
        self._attributes: list[tuple[dict[str, Any], str]] = []  # those that were read, and what they were
        self._values: list[Any] = []
        self._tables: list[dict[str, Any]] = []  # its weights and children, and which they were
        self._members: list[int] = []
        self._weights: list[Tensor] = []
        self._places: list[int] = []

    def may(self, module: nn.Module, *attributes: str, any_dtype: bool = False) -> bool:
        """Whether a module may be read, in evaluation mode and with plain weights in order; then it is noted.

        Args:
            module: The module.
            *attributes: Names of those that are read.
            any_dtype: Whether its weights may be of another dtype than the tokens.
        """
        given = [x for x in module._parameters.values() if x is not None]
        if module.training or not is_untouched(module) or not all(map(_is_plain, given)):
            return False
        if not any_dtype and any(x.dtype != self.dtype for x in given):
            return False
        self.note(module)
        self._attributes += [(module.__dict__, name) for name in attributes]
        self._values += [module.__dict__[name] for name in attributes]
        self._weights += given
        self._places += [x.data_ptr() for x in given]
        return True

    def note(self, module: nn.Module) -> None:
        """Remember that a module is one of these, and what its children are."""
        self._own.append(module.__dict__)
        self._sizes.append(len(module.__dict__))
        for table in (module._parameters, module._modules):
            self._tables.append(table)  # type: ignore[arg-type]
            self._members += map(id, table.values())

    def holds(self) -> bool:
        """Whether all that was read is as it was: attributes, children, hooks, and where the weights lie.

        Asked before every token, of two hundred modules: loops of the interpreter's own, and no object that is not
        needed, since the weights of a token leave nothing of it in the caches. Another ``forward`` on an object is one
        attribute more.
        """
        own = self._own
        if any(map(_HOOKS, own)) or any(map(_PRE_HOOKS, own)) or any(map(_TRAINING, own)):
            return False
        if list(map(len, own)) != self._sizes or [x[name] for x, name in self._attributes] != self._values:
            return False
        if list(map(id, chain.from_iterable(map(dict.values, self._tables)))) != self._members:
            return False
        return list(map(Tensor.data_ptr, self._weights)) == self._places

    def room(self, width: int) -> np.ndarray:
        """Empty rows (batch, width), used again by every token."""
        return np.empty((self.batch, width), np.float32 if self.dtype == torch.float32 else np.float64)


def rows_of(module: nn.Module, read: Read) -> Rows:
    """A module as a function of rows; the rows that it returns are its own until it is called again."""
    make = _MAKERS.get(type(module))
    found = None if make is None else make(module, read)
    return called(module) if found is None else found


def called(module: Any) -> Any:
    """A module that is called as ever, rows (batch, d) as tokens (batch, 1, d); a cache is handed on to it."""

    def run(x: np.ndarray, cache: Any = None) -> np.ndarray:
        tokens = torch.from_numpy(x)[:, None]
        result: Tensor = module(tokens) if cache is None else module(tokens, cache=cache)
        return result[:, 0].contiguous().numpy()

    return run


@lru_cache(maxsize=1)
def kernels() -> Any:
    """The compiled loops; importing numba takes a second, hence on first use."""
    return import_module("krause_dynamics.nn.row_kernels")


def _linear(module: nn.Linear, read: Read) -> Rows | None:
    if not read.may(module):
        return None
    weight, out = module.weight.detach(), read.room(module.out_features)
    bias = weight.new_zeros(module.out_features) if module.bias is None else module.bias.detach()
    if read.batch <= FEW and torch.get_num_threads() == 1:
        product, matrix, shift = kernels().product, weight.numpy(), bias.numpy()

        def few(x: np.ndarray) -> np.ndarray:
            product(x, matrix, shift, out)
            return out

        return few
    transposed, result = weight.t(), torch.from_numpy(out)

    def many(x: np.ndarray) -> np.ndarray:
        torch.addmm(bias, torch.from_numpy(x), transposed, out=result)
        return out

    return many


def _layer_norm(module: nn.LayerNorm, read: Read) -> Rows | None:
    if module.weight is None or module.bias is None or module.weight.ndim != 1 or not read.may(module, "eps"):
        return None
    normalise, out = kernels().normalise, read.room(len(module.weight))
    weight, bias, epsilon = module.weight.detach().numpy(), module.bias.detach().numpy(), module.eps

    def run(x: np.ndarray) -> np.ndarray:
        normalise(x, weight, bias, epsilon, out)
        return out

    return run


def _gelu(module: nn.GELU, read: Read) -> Rows | None:
    if module.approximate != "none" or not read.may(module, "approximate"):
        return None
    gelu = kernels().gelu

    def run(x: np.ndarray) -> np.ndarray:
        out = np.empty_like(x)
        gelu(x, out)
        return out

    return run


def _dropout(module: nn.Dropout, read: Read) -> Rows | None:
    return _same if read.may(module) else None


def _sequential(module: nn.Sequential, read: Read) -> Rows | None:
    if not read.may(module):
        return None
    parts = [part for part in (rows_of(child, read) for child in module) if part is not _same]

    def run(x: np.ndarray) -> np.ndarray:
        for part in parts:
            x = part(x)
        return x

    return run


def _same(x: np.ndarray) -> np.ndarray:
    return x


_MAKERS: dict[type[nn.Module], Callable[[Any, Read], Rows | None]] = {
    nn.Linear: _linear,
    nn.LayerNorm: _layer_norm,
    nn.GELU: _gelu,
    nn.Dropout: _dropout,
    nn.Sequential: _sequential,
}


def _is_plain(x: Tensor) -> bool:
    """Whether a weight is what it seems: no subclass, on the host, in order."""
    return type(x) in (Tensor, nn.Parameter) and x.device.type == "cpu" and x.dtype in DTYPES and x.is_contiguous()
