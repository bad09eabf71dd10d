"""How loops are compiled by numba: machine code is kept on disk where there is a place for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` with a cache on disk; without one where numba finds no place that it may write to.

    A package installed by another user, or a file system for reading only, then costs a compilation in every process.
    """

    def compiled(function: Callable[..., Any]) -> Any:
        kernel = numba.njit(**options)(function)
        cached(kernel.enable_caching)
        return kernel

    return compiled


def cached(enable: Callable[[], Any]) -> None:
    """Enable a cache, unless there is no place for it."""
    try:
        enable()
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
