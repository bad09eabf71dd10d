"""One call of attention: the value that every attention form is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from krause_dynamics.interaction.reach import Reach

NEVER = -float("inf")
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


class Call(NamedTuple):
    """Tensors and the rule that they meet, in whole numbers and coefficients.

    Attributes:
        q: Queries (b, h, n, d).
        k: Keys (b, h_kv, m, d); h_kv divides h.
        v: Values (b, h_kv, m, d_v).
        scale: Coefficient a of the score, a number, or (b or 1, h or 1) in the dtype of the scores; differentiable, so
            that gradients of sigma or beta come from autograd.
        distance: ``True``: score ``-a/2 |q - k|^2``; ``False``: ``a <q, k>``.
        reach: Index rules and rank.
        log_mass: (b or 1, h or 1, m) log masses joining after the ranking, -inf for absent keys; or ``None``.
        pair_bias: Broadcastable to (b, h, n, m), joins before the ranking; or ``None``.
        segments: (s + 1,) cumulative lengths of packed sequences; or ``None``.
        offset: Position of the first query among the keys.
        dropout: Probability to drop a weight.
        seed: Of dropout.
        mask_only: Whether the masses are 0 and -inf only, so that they may join before the ranking too.
        mean_only: Whether the log-partition is not asked for, so that its last terms may be left out.
        ranked: Whether the masses are part of the score: then they join before the ranking.
        beside: (b or 1, 2, n) whole numbers, first source and one past the last that each query hears beside its
            window: the first tokens of its own sequence, at most ``reach.first``, none before their time. Unless there
            are ``segments``, the sequence of a row begins at one source for all of its queries. ``None``: the first
            ``reach.first`` sources of the row.
        joint: Tensor (b, n, h + 2 h_kv, d) of which q, k and v are the parts (`split_heads`), where they were projected
            together; a form that knows it gives one gradient instead of three. ``None``: they stand alone.
    """

    q: Tensor
    k: Tensor
    v: Tensor
    scale: Tensor | float
    distance: bool
    reach: Reach
    log_mass: Tensor | None = None
    pair_bias: Tensor | None = None
    segments: Tensor | None = None
    offset: int = 0
    dropout: float = 0.0
    seed: int = 0
    mask_only: bool = False
    mean_only: bool = False
    ranked: bool = False
    beside: Tensor | None = None
    joint: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """All that may carry a gradient."""
        scale = self.scale if isinstance(self.scale, Tensor) else None
        return self.q, self.k, self.v, scale, self.log_mass, self.pair_bias

    @property
    def tokens(self) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Queries, keys and values as the kernels take them: one by one, or the tensor of which they are parts."""
        return (self.q, self.k, self.v) if self.joint is None else (self.joint, None, None)

    @property
    def is_tracked(self) -> bool:
        """Whether autograd records the call."""
        if not torch.is_grad_enabled():
            return False
        # A generator would cost a step a tensor, at every call.
        for x in (self.q, self.k, self.v, self.scale, self.log_mass, self.pair_bias):  # noqa: SIM110
            if isinstance(x, Tensor) and x.requires_grad:
                return True
        return False

    @property
    def is_transformed(self) -> bool:
        """Whether a function transform of `torch.func` looks on."""
        return not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None

    @property
    def is_differentiated_by_transform(self) -> bool:
        """Whether one of these transforms takes gradients."""
        return self.is_transformed and any(kind != _KINDS.Vmap for kind in _transforms())

    @property
    def beyond_operators(self) -> str | None:
        """What looks on of which operators know nothing, or ``None``: they know vmap, and one gradient."""
        if torch.compiler.is_compiling():
            return None
        if forward_ad._current_level >= 0 and any(
            x is not None and forward_ad.unpack_dual(x).tangent is not None for x in self.tensors
        ):
            return "forward-mode differentiation runs on the reference"
        if not self.is_transformed:
            return None
        kinds = _transforms()
        orders = kinds.count(_KINDS.Grad) + any(_is_recorded_below(x) for x in self.tensors)
        if set(kinds) - {_KINDS.Vmap, _KINDS.Grad} or orders > 1 or self.dropout:
            return "transforms of torch.func beyond vmap and one gradient, and dropout under any, run on the reference"
        return None

    def coefficients(self, *, spread: bool = True) -> Tensor:
        """The scale in the dtype of the scores, as (b, h), or (b or 1, h or 1) as given unless ``spread``."""
        scale = self.scale
        if not isinstance(scale, Tensor):
            # Filled on the device: a copy of one number from the host would make the host wait for a GPU.
            scale = torch.full((1, 1), scale, dtype=score_dtype(self.q), device=self.q.device)
        return scale.expand(self.q.shape[0], self.q.shape[1]) if spread else scale

    def key_bias(self) -> Tensor | None:
        """``c |k|^2 + log_mass``, (b, h, m): what is added to ``a <q, k>``; computed from k as rounded."""
        if self.distance:
            bias = self._half() * self._key_squares()
            return bias if self.log_mass is None else bias + self.log_mass
        heads, (batch, _, m, _) = self.q.shape[1], self.k.shape
        return None if self.log_mass is None else self.log_mass.expand(batch, heads, m)

    def with_norm(self, norm: Tensor | float) -> Call:
        """The call whose score has the further term ``-norm |k|^2``, which ranks as the rest of it.

        It travels with the masses where they may rank or nobody asks for ranks, else with the pair bias.

        Args:
            norm: A number, or (b or 1, h or 1).
        """
        bias = -(norm[..., None] if isinstance(norm, Tensor) else norm) * self._key_squares()
        mass = self.log_mass
        if mass is None or self.mask_only or not self.reach.top_k:
            return self._replace(log_mass=bias if mass is None else bias + mass, ranked=True, mask_only=False)
        pair = bias[:, :, None]
        return self._replace(pair_bias=pair if self.pair_bias is None else pair + self.pair_bias)

    def _key_squares(self) -> Tensor:
        """``|k|^2``, (b, h, m), from k as rounded; 0 where a key is absent for all heads, which may hold NaN."""
        k, heads = self.k, self.q.shape[1]
        if self.log_mass is not None:
            k = k.masked_fill((self.log_mass == NEVER).all(1, keepdim=True)[..., None], 0.0)
        squared = _squares(k)
        group = heads // k.shape[1]
        return squared if group == 1 else squared.repeat_interleave(group, dim=1)

    def query_term(self, squares: Callable[[Tensor], Tensor] | None = None) -> Tensor | float:
        """``b |q|^2``, (b, h, n): joins the log-partition of kernels which compute ``a <q, k> + key_bias``.

        Args:
            squares: A faster way to compute ``|q|^2`` in the scores' dtype.
        """
        return self._half() * (squares or _squares)(self.q) if self.distance else 0.0

    def _half(self) -> Tensor | float:
        """Coefficients b = c of a distance, to multiply (b, h, n)."""
        return -0.5 * (self.scale[..., None] if isinstance(self.scale, Tensor) else self.scale)


class Gradients(NamedTuple):
    """Gradients of the tokens as `Call.tokens` gives them; masses per head (b, h, m), biases per pair (b, h, n, m)."""

    q: Tensor
    k: Tensor | None
    v: Tensor | None
    scale: Tensor
    log_mass: Tensor | None
    pair_bias: Tensor | None


def score_dtype(q: Tensor) -> torch.dtype:
    """float64 for float64 tokens, else float32."""
    return torch.float64 if q.dtype == torch.float64 else torch.float32


_KINDS = torch._C._functorch.TransformType


def _transforms() -> list[Any]:
    """Kinds of the transforms of `torch.func` that look on, the outermost first."""
    return [level.key() for level in torch._C._functorch.get_interpreter_stack() or ()]


def _is_recorded_below(x: Tensor | None) -> bool:
    """Whether autograd records a tensor outside of all transforms."""
    while x is not None and torch._C._functorch.is_functorch_wrapped_tensor(x):
        x = torch._C._functorch.get_unwrapped(x)
    return x is not None and x.requires_grad


def split_heads(x: Tensor, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, h, n, d), keys and values (b, h_kv, n, d) as parts of x (b, n, h + 2 h_kv, d)."""
    q, k, v = x.split([x.shape[2] - 2 * kv_heads, kv_heads, kv_heads], 2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def parts(q: Tensor, k: Tensor | None, v: Tensor | None, kv_heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries (b, h, n, d), keys and values (b, h_kv, m, d), of themselves or of q (b, n, h + 2 h_kv, d) alone."""
    return (q, k, v) if k is not None and v is not None else split_heads(q, kv_heads)


def empty_by_tokens(x: Tensor, dim: int | None = None) -> Tensor:
    """Empty, of the shape (b, h, n, d) of x (or another d), laid out (b, n, h, d) as projections of tokens are."""
    batch, heads, n, d = x.shape
    return x.new_empty(batch, n, heads, d if dim is None else dim).transpose(1, 2)


def _squares(x: Tensor) -> Tensor:
    return x.to(score_dtype(x)).square().sum(-1)


def selection_bytes(reach: Reach, n: int, m: int, offset: int) -> tuple[int, int, int]:
    """Packed selection: number of rows that may hear all keys, their bytes, and the bytes of the other rows."""
    wide = min(n, max(reach.prefix - offset, 0))
    return wide, (m + 7) // 8, (reach.row_length(m) + 7) // 8
