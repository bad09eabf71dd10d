"""The forward pass of an attention layer, of tokens as they are heard: one call, its output, weights where asked."""

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
        """`KrauseAttention.forward`, of tokens in the order in which they are heard."""
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
