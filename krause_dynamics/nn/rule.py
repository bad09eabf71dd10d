"""What a layer makes of a rule: its arguments, and the cache with which it decodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from krause_dynamics.interaction import DotProduct, Gaussian, Interaction
from krause_dynamics.interaction.reach import UNBOUNDED, Reach
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.static_cache import StaticWindowCache


def arguments_of(interaction: Interaction) -> tuple[dict[str, Any], Tensor, Tensor | None]:
    """Arguments of a layer with this score, its bandwidths, (1,) or (heads,), and coefficients of norms or ``None``.

    Raises:
        TypeError: Neither a Gaussian nor a dot product, or a pair bias.
    """
    score = interaction.score
    if not isinstance(score, Gaussian | DotProduct) or interaction.pair_bias is not None:
        raise TypeError(f"a layer takes a Gaussian or a DotProduct without a pair bias, got {interaction!r}")
    sigma = torch.as_tensor(score.sigma if isinstance(score, Gaussian) else score.beta**-0.5)
    sigma, norm = sigma.detach().double().reshape(-1), None
    arguments = {
        "sigma": float(sigma[0]),
        "sigma_per_head": len(sigma) > 1,
        "score": "gaussian" if isinstance(score, Gaussian) else "dot",
    }
    if isinstance(score, DotProduct) and not score.coefficients().is_product:
        norm = torch.as_tensor(score.norm).detach().double().reshape(-1)
        arguments["norm"] = float(norm[0])
    return arguments, sigma, norm


def cache_of(reach: Reach, segments: Tensor | None, *, static: bool) -> WindowCache | StaticWindowCache:
    """An empty cache of a layer; see `KrauseAttention.new_cache`.

    Raises:
        ValueError: As there.
    """
    if reach.right != 0 or reach.grid or segments is not None:
        raise ValueError("decoding needs causal=True or a window of the past; this layer hears later tokens")
    window = None if reach.left == UNBOUNDED else reach.left + 1
    if not static:
        return WindowCache(window, reach.first)
    if window is None:
        raise ValueError("a static cache needs a window, got window=None; use static=False, which grows")
    if reach.exempt:
        raise ValueError("a static cache counts on the device and cannot tell exempt rows; use static=False")
    return StaticWindowCache(window, reach.first)
