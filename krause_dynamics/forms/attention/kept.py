"""Tensors that are made once and kept, also for as long as a captured CUDA graph may read them.

A graph holds addresses, not tensors: a table made before the capture that a cache drops later would be read after it
was freed. Whatever is asked for during a capture is therefore never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import lru_cache, wraps
from typing import Any, TypeVar

import torch

from krause_dynamics._array import is_captured

Made = TypeVar("Made")
_read_by_graphs: dict[tuple[Hashable, ...], Any] = {}  # for the life of the process: nobody says when a graph dies


def kept(most: int) -> Callable[[Callable[..., Made]], Callable[..., Made]]:
    """Cache of a function of hashable positional arguments that makes tensors.

    Args:
        most: How many results are kept that no capture asked for.
    """

    def keep(make: Callable[..., Made]) -> Callable[..., Made]:
        recent = lru_cache(maxsize=most)(make)

        @wraps(make)
        def made(*key: Hashable) -> Made:
            if torch.compiler.is_compiling():  # the compiler keeps what it folds
                return make(*key)
            found = _read_by_graphs.get((make, *key))
            if found is None:
                found = recent(*key)
                if is_captured():
                    _read_by_graphs[make, *key] = found
            return found  # type: ignore[no-any-return]

        return made

    return keep
