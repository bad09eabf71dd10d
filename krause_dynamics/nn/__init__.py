"""The rule as torch layers: `krause_attention` on tensors, `KrauseAttention` as a module, `WindowCache` to decode."""

from krause_dynamics.nn.attention import explain, krause_attention
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.layer import KrauseAttention
from krause_dynamics.nn.parts import LogSigma, Rotary
from krause_dynamics.nn.pattern import Pattern
from krause_dynamics.nn.sparse import sparse_weights
from krause_dynamics.nn.static_cache import StaticWindowCache

__all__ = [
    "KrauseAttention",
    "LogSigma",
    "Pattern",
    "Rotary",
    "StaticWindowCache",
    "WindowCache",
    "explain",
    "krause_attention",
    "sparse_weights",
]
