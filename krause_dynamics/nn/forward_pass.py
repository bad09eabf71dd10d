"""The forward pass of an attention layer: rows in the order in which they are heard, one call, weights where asked."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from krause_dynamics.interaction import Segments
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn import deprecated
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.attention import WATCHERS, answer, with_sink
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.first_tokens import beside_of
from krause_dynamics.nn.leading import order_of
from krause_dynamics.nn.parts import LogSigma, PerHead, is_untouched
from krause_dynamics.nn.projections import Projections
from krause_dynamics.nn.sparse import dense, weights_of
from krause_dynamics.nn.static_cache import StaticWindowCache, from_ring


class ForwardPass(Projections):
    """What `KrauseAttention`, which sets the attributes and says what they mean, does with tokens."""

    score: Literal["gaussian", "dot"]
    dropout: float
    impl: str
    log_sigma: LogSigma
    key_norm: PerHead | None
    sink: PerHead | None
    _reach: Reach
    _segments: Tensor | None

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

    def _attend(
        self,
        x: Tensor,
        key_valid: Tensor | None,
        key_bias: Tensor | None,
        pair_bias: Tensor | None,
        packed: Tensor | None,
        positions: Tensor | None,
        cache: WindowCache | StaticWindowCache | None,
        return_weights: bool | Literal["dense"],
    ) -> Tensor | tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """`forward`, of tokens in the order in which they are heard."""
        if self.rotary is not None and cache is not None and positions is None:
            positions = torch.arange(x.shape[1], device=x.device) + cache.seen
        q, k, v, joint = self.projected(x, positions)
        if isinstance(cache, StaticWindowCache) and not (
            return_weights or key_bias is not None or pair_bias is not None
        ):
            found = self._from_ring(cache, q, k, v, key_valid)
            if found is not None:
                return self._answered(*found)
        offset, reach = None, self._reach
        if cache is not None:
            k, v, key_valid, offset = cache.update(k, v, key_valid)
            joint = None
            if reach.exempt:  # of the rows of these keys, the first of which may be a later one of all
                reach = reach._replace(exempt=max(0, reach.exempt - int(cache.seen) + x.shape[1] + offset))
        call = call_of(
            q, k, v, reach, packed, **self._width, score=self.score,
            norm=None if self.key_norm is None else self.key_norm(), key_bias=key_bias, pair_bias=pair_bias,
            key_valid=key_valid, query_offset=offset, dropout=self.dropout if self.training else 0.0,
            mean_only=self.sink is None,
        )  # fmt: skip
        if packed is not None and reach.first:
            call = call._replace(beside=beside_of(reach, (x.shape[1], call.k.shape[2]), call.offset, None, packed))
        if joint is not None and joint.dtype == call.q.dtype:
            call = call._replace(joint=joint)
        out, log_partition = answer(call, self.impl)
        result = self._answered(out, log_partition)
        if not return_weights:
            return result
        weights = weights_of(call, log_partition, None if self.sink is None else self.sink())
        return result, dense(*weights, call.k.shape[2]) if return_weights == "dense" else weights

    def _answered(self, out: Tensor, log_partition: Tensor) -> Tensor:
        """Tokens (b, n, dim) of heads (b, h, n, d), the sink's share taken."""
        if self.sink is not None:
            out, _ = with_sink(out, log_partition, self.sink())
        return self.project_back(out)

    def _from_ring(
        self, cache: StaticWindowCache, q: Tensor, k: Tensor, v: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor] | None:
        """Output and log-partition of one token which a kernel answers where the keys lie; ``None`` if none does."""
        if q.shape[2] != 1 or self.impl not in ("auto", "triton") or WATCHERS:
            return None
        call = call_of(
            q, k, v, self._reach, **self._width, score=self.score, dropout=self.dropout if self.training else 0.0
        )
        return from_ring(cache, call, None if self.key_norm is None else self.key_norm()[None], valid)

    def _packed(self, segments: Segments | None, old: dict[str, Tensor | None]) -> Tensor | None:
        """Cumulative lengths of packed sequences: of this pass, or of the layer."""
        given = old.pop("cu_seqlens", None)
        if old:
            raise TypeError(f"KrauseAttention.forward has no argument {next(iter(old))!r}; see its signature")
        if given is not None:
            deprecated.warn("cu_seqlens", "segments=kd.Segments(cu_seqlens)")
            return given
        return self._segments if segments is None else torch.as_tensor(segments.cumulative)

    @property
    def _width(self) -> dict[str, Any]:
        """1 / sigma^2 as an argument of `call_of`, from the logarithm: half the steps of ``sigma ** -2``.

        Wrappers (peft) of the bandwidth are asked for sigma.
        """
        part = self.log_sigma
        plain = type(part) is LogSigma and is_untouched(part)
        return {"scale": (-2.0 * part.weight).exp()} if plain else {"sigma": part()}
