"""Dense float64 definition that the kernel tests compare with."""

import math

import torch

from krause_dynamics.interaction.reach import MANHATTAN, UNBOUNDED, Reach


def launched(*, left=None, right=None, top_k=None, ties="index", grid=None, prefix=0, first=0, exempt=0, **rest):
    """Keyword arguments of the launch functions for the words in which tests name a neighbourhood."""
    picture = ()
    if grid is not None:
        picture, left, right = (*grid[:3], MANHATTAN if grid[3] == "manhattan" else 0, prefix), None, None
    left, right = (UNBOUNDED if bound is None else bound for bound in (left, right))
    reach = Reach(left, right, picture, top_k or 0, ties == "keep", first, exempt)
    return {"reach": reach, "prefix": 0 if picture else prefix, **rest}


def admitted(n, m, *, left=None, right=None, grid=None, prefix=0, first=0, query_offset=0, device="cpu"):
    """Boolean (n, m): who hears whom, before key validity and top-k."""
    i = torch.arange(n, device=device)[:, None] + query_offset
    j = torch.arange(m, device=device)[None, :]
    if grid is None:
        near = torch.ones(n, m, dtype=torch.bool, device=device)
        if left is not None:
            near &= j >= i - left
        if right is not None:
            near &= j <= i + right
    else:
        _, width, radius, metric = grid
        rows = ((i - prefix) // width - (j - prefix) // width).abs()
        columns = ((i - prefix) % width - (j - prefix) % width).abs()
        near = rows + columns <= radius if metric == "manhattan" else (rows <= radius) & (columns <= radius)
    return near | (i < prefix) | (j < prefix) | ((j < first) & (j <= i))


def select(scores, heard, top_k, ties):
    """Restrict `heard` to the top_k best of every row; earlier keys win ties, or all that tie stay."""
    if top_k is None or top_k >= scores.shape[-1]:
        return heard
    ranked = scores.masked_fill(~heard, -math.inf)
    values, order = torch.sort(ranked, dim=-1, descending=True, stable=True)
    if ties == "keep":
        return heard & (ranked >= values[..., top_k - 1 : top_k])
    rank = torch.empty_like(order)
    rank.scatter_(-1, order, torch.arange(scores.shape[-1], device=scores.device).expand_as(order).contiguous())
    return heard & (rank < top_k)


def dense(q, k, v, *, scale, key_bias=None, top_k=None, ties="index", exempt=0, chosen=None, **where):
    """(out, log_partition, selected) in float64; the set is ranked in float32 or given as `chosen`."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    if isinstance(scale, torch.Tensor):
        scale = scale.expand(q.shape[:2])[..., None, None]
    heard = admitted(q.shape[-2], k.shape[-2], device=q.device, **where).expand(*q.shape[:3], k.shape[-2])
    if key_bias is not None:
        valid = (key_bias > -math.inf).expand(*q.shape[:2], -1)[..., None, :]
        heard = heard & valid
    with torch.no_grad():
        rank = (q.float() @ k.float().mT) * (scale.float() if isinstance(scale, torch.Tensor) else scale)
        if key_bias is not None:
            rank = rank + key_bias[..., None, :]
        keep = select(rank, heard, top_k, ties) if chosen is None else chosen
        free = torch.arange(q.shape[-2], device=q.device)[:, None] + where.get("query_offset", 0) < exempt
        keep = torch.where(free, heard, keep)
    # Erase before multiplying, so that what nobody hears cannot poison gradients either.
    alive = keep.any(-2)[..., None]
    k = torch.where(alive, k, torch.zeros_like(k)).double()
    v = torch.where(alive, v, torch.zeros_like(v)).double()
    s = (q.double() @ k.mT) * scale
    if key_bias is not None:
        s = s + torch.where(key_bias > -math.inf, key_bias, torch.zeros_like(key_bias)).double()[..., None, :]
    s = s.masked_fill(~keep, -math.inf)
    empty = ~keep.any(-1, keepdim=True)
    top = s.detach().amax(-1, keepdim=True).masked_fill(empty, 0.0)
    p = (s - top).exp()
    z = p.sum(-1, keepdim=True)
    out = (p / z.masked_fill(empty, 1.0)) @ v
    log_partition = (z.masked_fill(empty, 1.0).log() + top).masked_fill(empty, -math.inf)
    return out, log_partition[..., 0], keep
