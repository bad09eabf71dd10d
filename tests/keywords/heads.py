"""Attention of several heads written out densely with numpy in float64: what the rows of attention compare with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def draw(*shape: int, seed: int) -> torch.Tensor:
    """Independent standard normal numbers in float64."""
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def same(found: Any, expected: Any, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Equal but for float64 sums in another order."""
    found, expected = (x.detach().numpy() if isinstance(x, torch.Tensor) else x for x in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol)


def allowed_of(n: int, window: int | None = None, causal: bool = False, two_sided: bool = False) -> np.ndarray:
    """Boolean (n, n): who hears whom by index, pair by pair."""
    left, right = (n, n) if window is None else (window - 1, 0)
    if two_sided:
        left = right = (window or 1) // 2
    heard = np.zeros((n, n), dtype=bool)
    for i in range(n):
        for j in range(n):
            heard[i, j] = -right <= i - j <= left and (not causal or j <= i)
    return heard


def cells(height: int, width: int, radius: int, manhattan: bool = False) -> np.ndarray:
    """Boolean (n, n): cells of a picture in raster order that lie within `radius` rows and columns, or steps."""
    place = np.array([(row, column) for row in range(height) for column in range(width)])
    apart = np.abs(place[:, None] - place)
    return (apart.sum(-1) if manhattan else apart.max(-1)) <= radius  # type: ignore[no-any-return]


def attention(
    q: Any,
    k: Any,
    v: Any,
    a: Any = None,
    *,
    score: str = "gaussian",
    heard: Any = True,
    top_k: int | None = None,
    key_bias: Any = 0.0,
    pair_bias: Any = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean (b, h, n, d_v), log-partition (b, h, n) and weights (b, h, n, m), one row at a time.

    Args:
        q: Queries (b, h, n, d).
        k: Keys (b, h_kv, m, d), each head of keys serving h / h_kv consecutive heads.
        v: Values (b, h_kv, m, d_v).
        a: Coefficient, one or one per head; 1 / sqrt(d) unless given.
        score: ``"gaussian"``: -a |q - k|^2 / 2; ``"dot"``: a <q, k>.
        heard: Boolean, broadcast to (b, h, n, m).
        top_k: The highest of those heard, the earlier winning a tie.
        key_bias: Added after the ranking, broadcast to (b, h, n, m).
        pair_bias: Added before it.
    """
    q, k, v = (np.asarray(x, dtype=float) for x in (q, k, v))
    k, v = (np.repeat(x, q.shape[1] // x.shape[1], axis=1) for x in (k, v))
    a = np.broadcast_to(q.shape[3] ** -0.5 if a is None else a, q.shape[1])[:, None, None]
    products = np.einsum("bhid,bhjd->bhij", q, k)
    gaps = ((q[:, :, :, None] - k[:, :, None]) ** 2).sum(-1)
    scores = (a * products if score == "dot" else -0.5 * a * gaps) + pair_bias
    heard = np.broadcast_to(heard, scores.shape) & (scores > -np.inf) & (np.zeros(scores.shape) + key_bias > -np.inf)
    scores = np.where(heard, scores, -np.inf)
    if top_k is not None:
        places = np.argsort(-scores, axis=-1, kind="stable")
        ranks = np.argsort(places, axis=-1, kind="stable")
        scores = np.where(ranks < top_k, scores, -np.inf)
    weights = np.exp(scores + np.where(heard, key_bias, 0.0))
    total = weights.sum(-1, keepdims=True)
    weights = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    with np.errstate(divide="ignore"):
        return weights @ v, np.log(total[..., 0]), weights


def turned(x: Any, positions: Any, base: float) -> np.ndarray:
    """Pairs (c, c + d/2) of x (..., n, d) as complex numbers, turned by ``position * base^(-2c/d)``."""
    x = np.asarray(x, dtype=float)
    half = x.shape[-1] // 2
    angle = np.asarray(positions)[:, None] * base ** (-np.arange(half) / half)
    pairs = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([pairs.real, pairs.imag], -1)
