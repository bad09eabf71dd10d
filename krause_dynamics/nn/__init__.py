"""The rule as torch layers: `krause_attention` on tensors, `KrauseAttention` as a module, `WindowCache` to decode."""

from typing import Any

from krause_dynamics import _torch  # noqa: F401 (says how to install it)
from krause_dynamics.nn.attention import explain, krause_attention
from krause_dynamics.nn.cache import WindowCache
from krause_dynamics.nn.huggingface.registry import register_when_loaded
from krause_dynamics.nn.layer import KrauseAttention
from krause_dynamics.nn.parts import LogSigma, Rotary
from krause_dynamics.nn.sparse import sparse_weights
from krause_dynamics.nn.static_cache import StaticWindowCache

__all__ = [
    "KrauseAttention",
    "LogSigma",
    "Rotary",
    "StaticWindowCache",
    "WindowCache",
    "explain",
    "krause_attention",
    "sparse_weights",
]

# The names "krause" and "krause_softmax" in transformers, which is not imported for it.
register_when_loaded()


def __getattr__(name: str) -> Any:
    if name == "Pattern":  # of the last release; every function and layer takes a neighbourhood of the core
        from krause_dynamics.nn.deprecated import pattern

        return pattern
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
