"""The door to torch, which particles do without: a room that needs it imports this first."""

from __future__ import annotations

from krause_dynamics._extras import explaining

with explaining():
    import torch

__all__ = ["torch"]
