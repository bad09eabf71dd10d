"""Whole Transformers on the one layer: krausified, gated, vision and language models, their weights and cost."""

from __future__ import annotations

import importlib
import importlib.util

from krause_dynamics import _torch  # noqa: F401 (says how to install it)
from krause_dynamics._extras import on_access

# Loaded on first access: most of it needs transformers. A function listed here must not bear the name of its module.
_EXPORTS: dict[str, str] = {
    "Cost": "costs",
    "KARM": "decoder",
    "KARMConfig": "decoder_configuration",
    "KrauseLM": "decoder",
    "KrauseLMConfig": "decoder_configuration",
    "KrauseSwin": "swin",
    "KrauseSwinConfig": "swin",
    "KrauseViT": "vision",
    "KrauseViTConfig": "vision",
    "add_krause_branch": "gated",
    "branch_circuits": "gated_circuits",
    "branch_statistics": "gated_statistics",
    "branch_weights": "gated_record",
    "complete_pictures": "pictures",
    "convert": "weights",
    "cost": "costs",
    "from_published": "weights",
    "generate_pictures": "pictures",
    "krausify": "krausified",
    "load_adapter": "gated_adapters",
    "lora_config": "gated_adapters",
    "parameter_groups": "training",
    "published": "settings",
    "shard": "sharding",
    "unkrausify": "krausified",
}

__all__ = sorted(_EXPORTS)  # noqa: PLE0605
__getattr__, __dir__ = on_access(__name__, _EXPORTS)


# A saved folder loads by `AutoModelForCausalLM` and its like once this room is loaded.
if importlib.util.find_spec("transformers") is not None:
    importlib.import_module("krause_dynamics.models.auto")
