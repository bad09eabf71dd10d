"""Krause attention as a layer: its arguments, parameters and rule, and the order in which it hears padded rows."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from krause_dynamics._arguments import FLAG
from krause_dynamics.aggregate.calls import IMPLEMENTATIONS
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import DotProduct, Gaussian, Grid, Interaction, Segments
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.nn import deprecated
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.forward_pass import ForwardPass
from krause_dynamics.nn.hearing import hearing, within
from krause_dynamics.nn.leading import order_of
from krause_dynamics.nn.parts import LogSigma, PerHead
from krause_dynamics.nn.rule import arguments_of, cache_of
from krause_dynamics.nn.static_cache import StaticWindowCache


def _check_words(score: str, norm: float | None, impl: str, dropout: float) -> None:
    """What a forward pass would refuse, refused when the layer is built."""
    if score not in ("gaussian", "dot"):
        raise ValueError(f"score must be 'gaussian' or 'dot', got {score!r}")
    if norm is not None and score != "dot":
        raise ValueError(f"norm belongs to score='dot', got {norm=} beside {score=}")
    if impl not in ("auto", *IMPLEMENTATIONS):
        raise UnsupportedImplementation(f"impl must be 'auto' or one of {IMPLEMENTATIONS}, got {impl!r}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"dropout must be a probability in [0, 1), got {dropout!r}")


class KrauseAttention(ForwardPass):
    """Multi-head Krause attention with projections: x (batch, tokens, dim) -> (batch, tokens, dim).

    Args:
        dim: Width of the tokens.
        heads: Number of heads; divides dim.
        neighbourhood: Who is heard by index and rank, such as ``kd.Window(128) & kd.TopK(96)``; by default everyone.
            The four keywords that follow are short forms, which join it.
        window: ``Window(window)``: W keys, the query's own counted.
        top_k: ``TopK(top_k)``: keys that stay.
        causal: ``Causal()``: no later keys.
        grid: ``Grid(height, width, radius=2)`` of a picture, or a `Grid`.
        sigma: Initial bandwidth; default head_dim^(1/4), which keeps the scale of dot products over sqrt(d).
        learn_sigma: Whether log sigma is trained.
        sigma_per_head: One bandwidth per head rather than one per layer.
        bias: Whether projections have biases.
        kv_heads: Heads of keys and values (grouped queries); divides heads.
        rotary: Base of rotary positions (10000 is common); ``None``: none.
        score: ``"gaussian"``, or ``"dot"`` for softmax attention on the same keys, at temperature sigma^2.
        norm: Beside ``"dot"``, where learned coefficients c_h of a term ``-c_h |k|^2`` start, one a head: 0 is the dot
            product, 1/(2 sigma^2) the Gaussian; ``None``: no such term.
        sink: Whether each head learns a logit of a key that nobody is, which joins the denominator (gpt-oss); from 0.
        project_scale: Factor of queries and keys before the distance; KSwin takes head_dim^(-1/2).
        dropout: Probability to drop a weight in training.
        impl: As in `krause_attention`.
        **old: ``side, ties, radius, metric, prefix_tokens`` of the last release, deprecated; the warning shows what to
            write instead.

    Attributes:
        log_sigma: `LogSigma`.
        key_norm: `PerHead` coefficients c_h, or ``None``.
        sink: `PerHead` logits, or ``None``.
        neighbourhood: Who is heard, as one value.

    Raises:
        ValueError: Sizes that do not divide, or a neighbourhood that is not one of indices and ranks.

    Source: Krause Synchronization Transformers, 2602.11534.

    Examples:
        >>> from krause_dynamics import TopK, Window
        >>> layer = KrauseAttention(256, 8, Window(128) & TopK(16))
        >>> layer(torch.randn(2, 1000, 256)).shape
        torch.Size([2, 1000, 256])
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        neighbourhood: Neighbourhood | None = None,
        *,
        window: int | None = None,
        top_k: int | None = None,
        causal: bool = False,
        grid: tuple[int, int] | Grid | None = None,
        sigma: float | None = None,
        learn_sigma: bool = True,
        sigma_per_head: bool = False,
        bias: bool = True,
        kv_heads: int | None = None,
        rotary: float | None = None,
        score: Literal["gaussian", "dot"] = "gaussian",
        norm: float | None = None,
        sink: bool = False,
        project_scale: float = 1.0,
        dropout: float = 0.0,
        impl: str = "auto",
        **old: Any,
    ) -> None:
        super().__init__(dim, heads, heads if kv_heads is None else kv_heads, bias, rotary, project_scale)
        for name, flag in (("sink", sink), ("sigma_per_head", sigma_per_head)):
            FLAG.read(name, flag)
        _check_words(score, norm, impl, dropout)
        self.neighbourhood = hearing(neighbourhood, window, top_k, causal, grid, old)
        self._reach, self._segments = within(self.neighbourhood)
        self.score, self.dropout, self.impl = score, dropout, impl
        initial = self.head_dim**0.25 if sigma is None else sigma
        self.log_sigma = LogSigma(initial, heads if sigma_per_head else 1, learn=FLAG.read("learn_sigma", learn_sigma))
        self.key_norm = None if norm is None else PerHead(norm, heads)
        self.sink = PerHead(0.0, heads) if sink else None

    @property
    def sigma(self) -> Tensor:
        """The bandwidth, (1,) or (heads,)."""
        return self.log_sigma()

    @property
    def interaction(self) -> Interaction:
        """The rule of the layer with its present bandwidth, live in sigma; ``to_dict()`` is what a configuration holds.

        It meets projected queries and keys (batch, heads, n, head_dim); a `project_scale` has scaled them before. It
        knows no sink.
        """
        sigma = self.sigma[0] if len(self.sigma) == 1 else self.sigma[:, None]
        if self.score == "gaussian":
            return Interaction(Gaussian(sigma), self.neighbourhood)
        norm = 0.0 if self.key_norm is None else self.key_norm()[:, None]
        return Interaction(DotProduct(sigma**-2, norm), self.neighbourhood)

    @classmethod
    def from_interaction(cls, dim: int, heads: int, interaction: Interaction, **rest: Any) -> KrauseAttention:
        """A layer with this rule, such as ``kd.from_dict(config.krause)``.

        Args:
            dim: Width of the tokens.
            heads: Number of heads.
            interaction: A Gaussian or a dot product with a positive coefficient, one number or (heads, 1), without a
                pair bias, on a neighbourhood of indices and ranks.
            **rest: Further arguments of the layer.

        Raises:
            TypeError: Another score, or a pair bias (which a forward pass takes).
        """
        arguments, sigma, norm = arguments_of(interaction)
        layer = cls(dim, heads, interaction.neighbourhood, **arguments, **rest)
        with torch.no_grad():
            layer.log_sigma.weight.copy_(sigma.log())
            if layer.key_norm is not None and norm is not None:
                layer.key_norm.weight.copy_(norm)
        return layer

    def new_cache(self, *, static: bool = False) -> WindowCache | StaticWindowCache:
        """An empty cache to decode with, one per layer and batch.

        Args:
            static: Keep everything in the same memory on the device, for a step that is captured in a CUDA graph.

        Raises:
            ValueError: The layer hears later keys, so that earlier outputs would change as tokens arrive; or a static
                cache without a window, or of a layer with exempt rows.
        """
        return cache_of(self._reach, self._segments, static=static)

    def project(self, x: Tensor, positions: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (b, h, n, d), keys and values (b, h_kv, n, d) of tokens x (b, n, dim), rotated where asked.

        Args:
            x: Tokens.
            positions: (n,) or (b, n) integers for rotary positions; default 0, 1, ...
        """
        return self.projected(x, positions)[:3]

    def forward(
        self,
        x: Tensor,
        *,
        key_valid: Tensor | None = None,
        key_bias: Tensor | None = None,
        pair_bias: Tensor | None = None,
        segments: Segments | None = None,
        positions: Tensor | None = None,
        cache: WindowCache | StaticWindowCache | None = None,
        return_weights: bool | Literal["dense"] = False,
        **old: Tensor | None,
    ) -> Tensor | tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Attend.

        Args:
            x: Tokens (batch, tokens, dim).
            key_valid: Boolean (batch, tokens), false for padding. A row that begins with padding has the first tokens
                and random keys that it has without it.
            key_bias: As in `krause_attention`.
            pair_bias: As in `krause_attention`; a relative position bias or the -100 between shifted regions of Swin.
            segments: Packed sequences of this pass, which join the layer's neighbourhood; each has first tokens of its
                own.
            positions: For rotary positions; by default they go on where the cache ends.
            cache: From `new_cache`: tokens are appended to it and hear what it holds.
            return_weights: Return ``(index, weight)`` of the admitted keys as well, see `sparse_weights`; ``"dense"``:
                matrices (batch, heads, tokens, keys), the keys those that the cache holds.
            **old: ``cu_seqlens`` of the last release, deprecated.

        Returns:
            (batch, tokens, dim), or that and the weights before dropout.

        Raises:
            TypeError, ValueError: A shape or mask that does not fit; see `krause_attention`. First tokens beside a
                window where rows begin with padding and there is a bias.
        """
        if x.ndim != 3 or x.shape[2] != self.dim:
            raise ValueError(f"x must be (batch, tokens, {self.dim}), got {tuple(x.shape)}")
        if return_weights not in (False, True, "dense"):
            raise ValueError(f"return_weights must be False, True or 'dense', got {return_weights!r}")
        packed = self._packed(segments, old)
        order = order_of(key_valid, x, self._reach, packed, cache, key_bias is not None or pair_bias is not None)
        if order is None or key_valid is None:
            return self._attend(x, key_valid, key_bias, pair_bias, packed, positions, cache, return_weights)
        x, key_valid, positions = order.to_front(x), order.to_front(key_valid), order.positions(positions)
        found = self._attend(x, key_valid, None, None, packed, positions, cache, return_weights)
        if not isinstance(found, tuple):
            return order.back(found)
        out, weights = found
        put_back = order.sparse_back(*weights) if isinstance(weights, tuple) else order.dense_back(weights)
        return order.back(out), put_back

    def extra_repr(self) -> str:
        """Heads and neighbourhood."""
        return f"heads={self.heads}, kv_heads={self.kv_heads}, {deprecated.spelled(self.neighbourhood)}"
