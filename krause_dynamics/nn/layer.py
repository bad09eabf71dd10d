"""Krause attention as a layer: projections, a learned bandwidth, rotary positions and a cache."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.nn.attention import krause_attention
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.choice import IMPLEMENTATIONS
from krause_dynamics.nn.parts import LogSigma, Rotary
from krause_dynamics.nn.pattern import Pattern
from krause_dynamics.nn.sparse import sparse_weights
from krause_dynamics.nn.static_cache import StaticWindowCache


def _check_words(score: str, impl: str, dropout: float, project_scale: float) -> None:
    """What a forward pass would refuse, refused when the layer is built."""
    if score not in ("gaussian", "dot"):
        raise ValueError(f"score must be 'gaussian' or 'dot', got {score!r}")
    if impl not in ("auto", *IMPLEMENTATIONS):
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {IMPLEMENTATIONS}, got {impl!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")
    if not 0.0 < project_scale < math.inf:
        raise ValueError(f"project_scale must be positive, got {project_scale!r}")


class KrauseAttention(nn.Module):
    """Multi-head Krause attention with projections: x (batch, tokens, dim) -> (batch, tokens, dim).

    Args:
        dim: Width of the tokens.
        heads: Number of heads; divides dim.
        window: W keys, the query's own counted; ``None``: no window.
        top_k: Keys that stay; ``None``: all.
        causal: No later keys.
        grid: (height, width) of a picture.
        sigma: Initial bandwidth; default head_dim^(1/4), which keeps the scale of dot products over sqrt(d).
        learn_sigma: Whether log sigma is trained.
        sigma_per_head: One bandwidth per head rather than one per layer.
        bias: Whether projections have biases.
        kv_heads: Heads of keys and values (grouped queries); divides heads.
        rotary: Base of rotary positions (10000 is common); ``None``: none.
        score: ``"gaussian"``, or ``"dot"`` for softmax attention with the same pattern.
        project_scale: Factor of queries and keys before the distance; KSwin takes head_dim^(-1/2).
        side, ties, radius, metric, prefix_tokens: As in `krause_attention`.
        dropout: Probability to drop a weight in training.
        impl: As in `krause_attention`.

    Attributes:
        log_sigma: `LogSigma`.
        pattern: The index rules.

    Raises:
        ValueError: Sizes that do not divide, or an impossible pattern.

    Source: Krause Synchronization Transformers, 2602.11534.

    Example:
        >>> layer = KrauseAttention(256, 8, window=128, top_k=16, causal=True)
        >>> layer(torch.randn(2, 1000, 256)).shape
        torch.Size([2, 1000, 256])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        window: int | None = None,
        top_k: int | None = None,
        causal: bool = False,
        grid: tuple[int, int] | None = None,
        sigma: float | None = None,
        learn_sigma: bool = True,
        sigma_per_head: bool = False,
        bias: bool = True,
        kv_heads: int | None = None,
        rotary: float | None = None,
        score: Literal["gaussian", "dot"] = "gaussian",
        project_scale: float = 1.0,
        side: Literal["past", "both"] = "past",
        ties: Literal["index", "keep"] = "index",
        radius: int = 2,
        metric: Literal["chebyshev", "manhattan"] = "chebyshev",
        prefix_tokens: int = 0,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        kv_heads = heads if kv_heads is None else kv_heads
        if min(dim, heads, kv_heads) < 1 or dim % heads or heads % kv_heads:
            raise ValueError(f"heads must divide dim and kv_heads must divide heads, got {dim=}, {heads=}, {kv_heads=}")
        _check_words(score, impl, dropout, project_scale)
        self.pattern = Pattern(window, side, top_k, ties, causal, grid, radius, metric, prefix_tokens)
        self.dim, self.heads, self.kv_heads, self.head_dim = dim, heads, kv_heads, dim // heads
        self.score, self.project_scale, self.dropout, self.impl = score, project_scale, dropout, impl
        self.q_proj = nn.Linear(dim, dim, bias)
        self.k_proj = nn.Linear(dim, kv_heads * self.head_dim, bias)
        self.v_proj = nn.Linear(dim, kv_heads * self.head_dim, bias)
        self.out_proj = nn.Linear(dim, dim, bias)
        initial = self.head_dim**0.25 if sigma is None else sigma
        self.log_sigma = LogSigma(initial, heads if sigma_per_head else 1, learn=learn_sigma)
        self.rotary = None if rotary is None else Rotary(self.head_dim, rotary)

    @property
    def sigma(self) -> Tensor:
        """The bandwidth, (1,) or (heads,)."""
        return self.log_sigma()

    def new_cache(self, *, static: bool = False) -> WindowCache | StaticWindowCache:
        """An empty cache to decode with, one per layer and batch.

        Args:
            static: Keep everything in the same memory on the device, for a step that is captured in a CUDA graph.

        Raises:
            ValueError: The pattern hears later keys, so that earlier outputs would change as tokens arrive; or a static
                cache without a window.
        """
        if not self.pattern.looks_back:
            raise ValueError("decoding needs causal=True or a window of the past; this layer hears later tokens")
        if not static:
            return WindowCache(self.pattern.window)
        if self.pattern.window is None:
            raise ValueError("a static cache needs a window, got window=None; use static=False, which grows")
        return StaticWindowCache(self.pattern.window)

    def project(self, x: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, h, n, d), keys and values (b, h_kv, n, d) of tokens x (b, n, dim), rotated where asked.

        Args:
            x: Tokens.
            positions: (n,) or (b, n) integers for rotary positions; default 0, 1, ...
        """
        q, k, v = (
            projection(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.rotary is not None:
            positions = torch.arange(x.shape[1], device=x.device) if positions is None else positions
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        if self.project_scale != 1.0:
            q, k = q * self.project_scale, k * self.project_scale
        return q, k, v

    def forward(
        self,
        x: Tensor,
        *,
        key_valid: Tensor | None = None,
        key_bias: Tensor | None = None,
        pair_bias: Tensor | None = None,
        cu_seqlens: Tensor | None = None,
        positions: Tensor | None = None,
        cache: WindowCache | StaticWindowCache | None = None,
        return_weights: bool = False,
    ) -> Tensor | tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend.

        Args:
            x: Tokens (batch, tokens, dim).
            key_valid: Boolean (batch, tokens), false for padding.
            key_bias: As in `krause_attention`.
            pair_bias: As in `krause_attention`; a relative position bias or the -100 between shifted regions of Swin.
            cu_seqlens: As in `krause_attention`.
            positions: For rotary positions; by default they go on where the cache ends.
            cache: From `new_cache`: tokens are appended to it and hear what it holds.
            return_weights: Return ``(index, weight)`` of the admitted keys as well; see `sparse_weights`.

        Returns:
            (batch, tokens, dim), or that and the weights before dropout.

        Raises:
            TypeError, ValueError: A shape or mask that does not fit; see `krause_attention`.
        """
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x must be (batch, tokens, {self.dim}), got {tuple(x.shape)}")
        if self.rotary is not None and cache is not None and positions is None:
            positions = torch.arange(x.shape[1], device=x.device) + cache.seen
        q, k, v = self.project(x, positions)
        options: dict[str, Any] = {
            **{name: getattr(self.pattern, name) for name in Pattern.__dataclass_fields__},
            "sigma": self.sigma, "score": self.score, "key_bias": key_bias, "pair_bias": pair_bias,
            "key_valid": key_valid, "cu_seqlens": cu_seqlens,
        }  # fmt: skip
        if cache is not None:
            k, v, options["key_valid"], options["query_offset"] = cache.update(k, v, key_valid)
        out = krause_attention(q, k, v, dropout=self.dropout if self.training else 0.0, impl=self.impl, **options)
        assert isinstance(out, Tensor)
        result = self.out_proj(out.transpose(1, 2).flatten(2))
        if not return_weights:
            return result
        return result, sparse_weights(q, k, **options)

    def extra_repr(self) -> str:
        """Heads and pattern."""
        return f"heads={self.heads}, kv_heads={self.kv_heads}, {self.pattern}"
