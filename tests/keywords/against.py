"""Rows of a function that has an independent twin: a quadrature, matrices or a small run written beside the table."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import Any

import numpy as np

import krause_dynamics as kd
from tests.keywords.row import row


def public(path: str) -> Any:
    """The thing that a user reaches by ``kd.theory.gap_rate``."""
    return attrgetter(path.removeprefix("kd."))(kd)


def against(
    path: str,
    states: str,
    *,
    rtol: float = 1e-9,
    atol: float = 0.0,
    read: Callable[[Any], Any] = np.asarray,
    **pairs: tuple[Any, Any],
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put one row per parameter into the table: the public function equals the decorated twin at both values.

    Args:
        path: As a user types it.
        states: What the twin computes, in words.
        rtol: Of the comparison; what is given where the twin is an approximation.
        atol: Likewise.
        read: What of the public answer the twin computes.
        pairs: First and second value of every parameter; while one takes its second, the others keep their first.
    """

    def register(twin: Callable[..., Any]) -> Callable[..., Any]:
        base = {name: first for name, (first, _) in pairs.items()}
        for name, (first, second) in pairs.items():
            row(path, name, first, second, states)(_check(path, name, twin, base, (rtol, atol), read))
        return twin

    return register


def _check(
    path: str, name: str, twin: Callable[..., Any], base: dict[str, Any], tolerance: tuple[float, float], read: Any
) -> Callable[[Any, Any], None]:
    rtol, atol = tolerance

    def check(first: Any, second: Any) -> None:
        one, two = ({**base, name: value} for value in (first, second))
        expected = [np.asarray(twin(**arguments), dtype=float) for arguments in (one, two)]
        # A twin blind to the parameter could not tell a function that ignores it.
        assert not equal(*expected, 3 * rtol, 3 * atol), f"the twin of {path} gives the same at both {name}"
        for arguments, number in zip((one, two), expected, strict=True):
            np.testing.assert_allclose(read(public(path)(**arguments)), number, rtol=rtol, atol=atol)

    return check


def equal(one: np.ndarray, two: np.ndarray, rtol: float, atol: float) -> bool:
    """Whether two answers have one shape and cannot be told apart at the tolerance."""
    return one.shape == two.shape and bool(np.allclose(one, two, rtol=rtol, atol=atol))
