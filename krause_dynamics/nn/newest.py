"""A layer on the newest token of each batch element: its cache is read and written where it lies, by one kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from krause_dynamics.interaction.reach import UNBOUNDED
from krause_dynamics.nn.attention import WATCHERS
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.layer import KrauseAttention
from krause_dynamics.nn.parts import LogSigma
from krause_dynamics.nn.rows import Read, called, rows_of

Attends = Callable[[np.ndarray, Any], np.ndarray]
"""Rows (batch, dim) and a cache -> rows (batch, dim); the token is appended to the cache."""


READ = ("_reach", "_segments", "score", "impl", "project_scale", "heads", "kv_heads", "head_dim", "dim")


@lru_cache(maxsize=1)
def _kernel() -> Any:
    return import_module("krause_dynamics.forms.attention.cpu.newest")


class Held:
    """The buffers of a cache as rows of memory, looked up again where it has others."""

    def __init__(self) -> None:
        self._of: Tensor | None = None

    def rows(self, k: Tensor, v: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Keys and values (batch kv_heads capacity, d)."""
        if self._of is not k:
            self._of, self._rows = k, (k.view(-1, k.shape[3]).numpy(), v.view(-1, v.shape[3]).numpy())
        return self._rows


def attention_rows(layer: Any, read: Read) -> Attends:
    """A layer as a function of rows and its cache; one that the kernel does not know is called."""
    whole: Attends = called(layer)
    if not _is_known(layer) or not read.may(layer, *READ) or not read.may(layer.log_sigma, any_dtype=True):
        return whole
    reach, heads, kv_heads = layer._reach, layer.heads, layer.kv_heads
    window = None if reach.left == UNBOUNDED else reach.left + 1
    numbers = int(layer.score == "gaussian"), reach.top_k, int(reach.keep_ties), reach.exempt
    query, key, value, back = (rows_of(x, read) for x in (layer.q_proj, layer.k_proj, layer.v_proj, layer.out_proj))
    log_sigma, out = layer.log_sigma.weight.detach().numpy(), read.room(layer.dim)
    like = torch.empty(read.batch, kv_heads, 1, layer.head_dim, dtype=read.dtype)
    kernel, place_of, held = _kernel().attend, _kernel().Place, Held()

    def run(x: np.ndarray, cache: Any) -> np.ndarray:
        if type(cache) is not WindowCache or (cache.window, cache.prefix_tokens) != (window, reach.first):
            return whole(x, cache)
        if WATCHERS or not cache.may_place(read.dtype):
            return whole(x, cache)
        projected, position = (query(x), key(x), value(x)), cache.seen
        k, v, begin, own = cache.place(like, like)
        place = place_of(heads, kv_heads, k.shape[2], begin, own + 1, position, *numbers)
        kernel(*projected, *held.rows(k, v), log_sigma, place, out)
        return back(out)

    return run


def _is_known(layer: Any) -> bool:
    """Whether the kernel computes what a layer does."""
    return (
        type(layer) is KrauseAttention
        and layer.impl in ("auto", "banded")
        and (layer.rotary, layer.key_norm, layer.sink, layer._segments) == (None, None, None, None)
        and layer.project_scale == 1.0
        and not layer._reach.random
        and not layer._reach.grid
        and layer._reach.right == 0
        and type(layer.log_sigma) is LogSigma
        and bool(((-2.0 * layer.log_sigma.weight).exp() > 0).all())
    )
