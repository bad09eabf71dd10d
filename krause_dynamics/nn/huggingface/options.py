"""What models of transformers pass to an attention function: one table, for attention and for the recording of it.

An option changes the weights, or it does not. What is in neither table is refused: silence would be a wrong number.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

import torch

from krause_dynamics.errors import UnsupportedModel

MEANINGS: dict[str, str] = {
    "scaling": "coefficient of the dot product; a Gaussian has its bandwidth instead",
    "dropout": "probability to drop a weight",
    "softcap": "scores s become cap tanh(s / cap) (Gemma 2, T5Gemma, VaultGemma, VideoPrism)",
    "s_aux": "learned sinks, one logit a head in the denominator (gpt-oss, MiMo, Granite SWA, DeepSeek V4)",
    "position_bias": "added to the scores (T5, mT5, UMT5, LongT5, Switch, Pop2Piano, UDOP, Pix2Struct)",
    "is_causal": "read where a model passes no mask",
    "output_attentions": "asks for the weights",
}
"""Options that mean something, and what."""

HARMLESS: dict[str, str] = {
    "cache_position": "the mask holds it",
    "cu_seq_lens_k": "of kernels without padding; others cut the sequences or mask them",
    "cu_seq_lens_q": "of kernels without padding; others cut the sequences or mask them",
    "deterministic": "of one kernel",
    "layer_idx": "a number",
    "max_length_k": "of kernels without padding",
    "max_length_q": "of kernels without padding",
    "grid_thw": "the size of pictures, which their positions hold",
    "ignore_index": "of the loss",
    "num_items_in_batch": "of the loss (Trainer)",
    "output_hidden_states": "asks for other outputs",
    "output_router_logits": "asks for other outputs",
    "past_key_value": "the keys hold it",
    "past_key_values": "the keys hold it",
    "position_embeddings": "queries and keys are rotated already",
    "position_ids": "queries and keys are rotated already",
    "return_dict": "asks for other outputs",
    "shift_labels": "of the loss",
    "sliding_window": "the mask holds it",
    "token_type_ids": "the mask holds it",
    "use_cache": "asks for other outputs",
}
"""Options that leave the weights as they are, and why."""

REFUSED: dict[str, str] = {
    "block_indices": "blocks of keys which the model chooses itself (MiniMax M3)",
    "cache": "a paged cache of continuous batching",
    "head_mask": "heads switched off",
    "indices": "keys which the model chooses itself (DeepSeek V3.2, GLM MoE DSA)",
    "sinks": "sinks of another kind (Inkling 2)",
}
"""Options that change the weights in a way that nobody here computes; one that stands nowhere is refused as well."""

REFUSED_PARTS: dict[str, str] = {
    "compressor": "keys made of several tokens each, under a mask that is joined as numbers to add (DeepSeek V4)",
}
"""Parts of an attention layer that do so."""


def check(module: torch.nn.Module, options: Mapping[str, Any], served: Collection[str], way_out: str) -> None:
    """Refuse the options of one attention call that are neither served nor harmless.

    Args:
        module: The attention layer, for the message.
        options: What it passed; ``None`` is nothing.
        served: The names of `MEANINGS` that the caller serves.
        way_out: What the user can do, for the message.

    Raises:
        UnsupportedModel: For what is left, and for the parts of `REFUSED_PARTS`.
    """
    part = next((name for name in REFUSED_PARTS if getattr(module, name, None) is not None), None)
    if part is not None:
        raise UnsupportedModel(
            f"{type(module).__name__} has a {part} that is not served ({REFUSED_PARTS[part]}); {way_out}"
        )
    unknown = sorted(k for k, given in options.items() if given is not None and k not in served and k not in HARMLESS)
    if unknown:
        told = "; ".join(f"{name}: {_what(name)}" for name in unknown)
        raise UnsupportedModel(f"{type(module).__name__} passes options that are not served ({told}); {way_out}")


def is_causal(module: torch.nn.Module) -> bool:
    """Whether a layer's attention is one to the past, where its mask does not say so.

    Layers say it themselves; of those that do not (LayoutLM, MarkupLM, Splinter, Doge, the text towers of ALIGN and
    CLAP) the ones whose file makes causal masks are.
    """
    own = getattr(module, "is_causal", None)
    return _makes_causal_masks(type(module).__module__) if own is None else bool(own)


def masks_are_causal(model: torch.nn.Module) -> bool:
    """Whether a model makes causal masks and no others: layers that texts and pictures share (CLIP) do not say so."""
    return any(_masks_causally(type(part)) for part in model.modules())  # type: ignore[arg-type]


@cache
def _masks_causally(kind: Any) -> bool:
    if not kind.__module__.startswith("transformers.models."):
        return False
    source = inspect.getsource(kind)
    return "create_causal_mask(" in source and "bidirectional" not in source


@cache
def _makes_causal_masks(file: str) -> bool:
    return "causal_mask" in inspect.getsource(sys.modules[file])


def _what(name: str) -> str:
    return REFUSED.get(name) or MEANINGS.get(name) or "not known, so that it may change the weights"
