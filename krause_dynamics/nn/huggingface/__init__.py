"""The rule as an attention of transformers: ``attn_implementation="krause"`` on any model that uses its registry."""

from krause_dynamics.nn.huggingface.registry import register_attention

__all__ = ["register_attention"]
