"""Causal linear attention, the peer of the paper's LARM: a kernel of features instead of a score."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

CHUNK = 128  # queries that meet their keys at once: N (128 + d_h^2 / 128) numbers, neither N^2 nor N d_h^2
EPSILON = 1e-6  # of the denominator, as in Katharopoulos et al.; features are positive, so that it hardly counts


class LinearCache:
    """What linear attention keeps of the past: ``S = sum_j phi(k_j) v_j^T`` and ``z = sum_j phi(k_j)`` a head.

    Attributes:
        seen: Number of tokens ever appended.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.seen = 0
        self.state: tuple[Tensor, Tensor] | None = None

    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]``."""
        if self.state is not None:
            self.state = self.state[0].index_select(0, beams), self.state[1].index_select(0, beams)


class LinearAttention(nn.Module):
    """``z_i = sum_{j <= i} (phi(q_i) . phi(k_j)) v_j / (phi(q_i) . sum_{j <= i} phi(k_j))`` with phi = elu + 1.

    In O(N d_h^2): chunks of queries meet their own keys directly and the earlier ones through their sum, all at once.

    Args:
        dim: Width of the tokens.
        heads: Number of heads; divides dim.

    Source: Katharopoulos et al., Transformers are RNNs, 2006.16236, equations 7-12.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (nn.Linear(dim, dim) for _ in range(4))

    def new_cache(self, *, static: bool = False) -> LinearCache:
        """An empty cache; its size never changes, so that ``static`` makes no difference."""
        return LinearCache()

    def forward(
        self,
        x: Tensor,
        *,
        key_valid: Tensor | None = None,
        cache: LinearCache | None = None,
        return_weights: Any = False,
    ) -> Any:
        """Tokens (batch, n, dim) -> the same, and weights (batch, heads, n, n); see `KrauseAttention.forward`.

        Raises:
            ValueError: Weights on a cache that has seen tokens, of which sums are left.
        """
        if return_weights and cache is not None and cache.seen:
            raise ValueError(
                f"linear attention keeps sums over the {cache.seen} tokens before, so that it has no weights on them; "
                "ask for weights with use_cache=False"
            )
        q, k, v = (
            projection(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = features(q), features(k)
        if key_valid is not None:
            k = k * key_valid[:, None, :, None]
        past = None if cache is None else cache.state
        out, past = causal_linear(q, k, v, past)
        if cache is not None:
            cache.seen, cache.state = cache.seen + x.shape[1], past
        result = self.out_proj(out.transpose(1, 2).flatten(2))
        return (result, linear_weights(q, k)) if return_weights else result


def features(x: Tensor) -> Tensor:
    """``elu(x) + 1``, as ``exp(x)`` below 0: ``exp(x) - 1 + 1`` forgets what is small, in bfloat16 all below 0.002.

    In the dtype of x: autocast computes exponentials in float32, in which every later pass would take twice as long.
    """
    return torch.where(x > 0, x + 1.0, x.clamp(max=0.0).exp().to(x.dtype))


def linear_weights(q: Tensor, k: Tensor) -> Tensor:
    """Weights (batch, heads, n, n) that `causal_linear` means, of features q, k (batch, heads, n, d)."""
    products = (q @ k.transpose(2, 3)).tril()
    return products / (products.sum(-1, keepdim=True) + EPSILON)


def causal_linear(
    q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None = None
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Outputs of features q, k (batch, heads, n, d) and values v (batch, heads, n, d_v), and the sums to go on from."""
    n = q.shape[2]
    size = -(-n // -(-n // CHUNK))  # chunks of one size with as little as can be behind the last
    if past is None:
        past = q.new_zeros(*q.shape[:2], q.shape[3], v.shape[3]), q.new_zeros(*q.shape[:2], q.shape[3])
    # (batch, heads, chunks, size, d); keys of zeros behind the last add nothing
    a, b, c = (functional.pad(x, (0, 0, 0, -n % size)).unflatten(2, (-1, size)) for x in (q, k, v))
    # Sums over all chunks before each, and in the last place over everything.
    outer = torch.cat([past[0][:, :, None], b.mT @ c], 2).cumsum(2)
    total = torch.cat([past[1][:, :, None], b.sum(3)], 2).cumsum(2)
    weights = (a @ b.mT).tril()
    denominator = weights.sum(-1, keepdim=True) + a @ total[:, :, :-1, :, None] + EPSILON
    out = (weights @ c + a @ outer[:, :, :-1]) / denominator
    return out.flatten(2, 3)[:, :, :n], (outer[:, :, -1], total[:, :, -1])
