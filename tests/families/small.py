"""Any configuration of transformers made small, and inputs that a model might take: guesses, tried in turn."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch
from transformers import PreTrainedConfig

WIDTHS = ("hidden_size d_model embed_dim dim n_embd width encoder_embed_dim decoder_embed_dim embed_size model_dim "
          "embedding_size hidden_dim")  # fmt: skip
HEADS = "num_attention_heads encoder_attention_heads decoder_attention_heads num_heads n_head n_heads attention_heads"
DEPTHS = ("num_hidden_layers encoder_layers decoder_layers num_layers n_layer n_layers depth encoder_num_layers layers "
          "decoder_num_layers num_decoder_layers num_encoder_layers num_blocks encoder_layer decoder_layer "
          "decoder_depth num_global_layers num_local_layers")  # fmt: skip
INNER = "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff n_inner ffn_hidden_size dim_feedforward d_inner"
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8,
          "qk_head_dim": 8}  # fmt: skip
COUNTS = {
    "vocab_size": 120, "vocab_size_per_layer_input": 120, "max_position_embeddings": 64, "n_positions": 64,
    "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 1,
    "topk_group": 1, "attn_layer_period": 2, "attn_layer_offset": 1,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    **dict.fromkeys(DEPTHS.split(), 2),
}  # fmt: skip
FULL = {
    **COUNTS, **dict.fromkeys(WIDTHS.split(), 32), **dict.fromkeys(INNER.split(), 48), **LATENT,
    **dict.fromkeys([*HEADS.split(), "num_key_value_heads"], 4), "head_dim": 8, "global_head_dim": 8, "d_kv": 8,
    "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "first_k_dense_replace": 1, "sliding_window": 4,
    "attention_chunk_size": 4, "hidden_size_per_layer_input": 8, "max_source_positions": 64, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
STAGES = {k: v for k, v in FULL.items() if k not in (*WIDTHS.split(), *HEADS.split(), *LATENT, "head_dim")}
WIDE = {**FULL, "hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}
LEVELS: tuple[dict[str, Any], ...] = (FULL, STAGES, {**WIDE, "head_dim": 128}, {**WIDE, "head_dim": None}, COUNTS, {})
"""What is made small, the smallest first: a family may insist on a width, on a dimension of heads, on anything."""
LAYERS = ("layer_types", "mlp_layer_types", "layers_block_type")


def small(kind: Any, sizes: dict[str, Any], like: Any = None) -> Any:
    """A configuration with the sizes that its class has, and those inside it likewise."""
    like = kind() if like is None else like
    fields = set(inspect.signature(kind.__init__).parameters) | set(getattr(kind, "__dataclass_fields__", {}))
    inside = {name: getattr(like, name, None) for name in getattr(kind, "sub_configs", None) or {}}
    given = {name: small(type(x), sizes, x) for name, x in inside.items() if isinstance(x, PreTrainedConfig)}
    for name, value in sizes.items():
        old = getattr(like, name, None)
        is_size = old is not None or name in ("num_key_value_heads", "head_dim")
        if name in fields and is_size and value is not None and not isinstance(old, list | tuple | dict):
            given[name] = value
    for name in LAYERS if sizes else ():
        old = getattr(like, name, None)
        if name in fields and isinstance(old, list | tuple) and len(old) > 2:
            each = list(dict.fromkeys(old))
            given[name] = (each * 2)[: max(2, len(each))]
            given["num_hidden_layers"] = len(given[name])
    return kind(**given)


def _said(config: Any, *names: str, default: int) -> int:
    """The first whole number under one of these names, in a configuration or in those inside it."""
    inside = (getattr(config, name, None) for name in getattr(type(config), "sub_configs", None) or {})
    for each in (config, *(x for x in inside if isinstance(x, PreTrainedConfig))):
        for name in names:
            value = getattr(each, name, None)
            value = value[0] if isinstance(value, list | tuple) and value else value
            if isinstance(value, int):
                return value
    return default


def guesses(model: Any) -> Iterator[dict[str, Any]]:
    """Inputs, the likeliest first."""
    takes, config = inspect.signature(model.forward).parameters, model.config
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    words = _said(config, "vocab_size", default=100)
    ids = torch.randint(3, max(5, min(words, 120) - 2), (2, 9), generator=generator)
    decoder = {"decoder_input_ids": ids.flip(0)[:, :6]} if "decoder_input_ids" in takes else {}
    image, channels = (
        _said(config, "image_size", "img_size", default=32), _said(config, "num_channels", "in_channels", default=3)
    )  # fmt: skip
    width, mel = _said(config, "hidden_size", "d_model", default=32), _said(config, "num_mel_bins", default=80)
    patch, times = _said(config, "patch_size", default=8), _said(config, "temporal_patch_size", default=1)
    frames = _said(config, "num_frames", "frames_per_clip", default=2)
    if "bbox" in takes:
        boxes = torch.randint(0, 60, (2, 9, 4), generator=generator).sort(-1).values
        yield {"input_ids": ids, "bbox": boxes, **decoder}
    if "input_ids" in takes:
        yield {"input_ids": ids, **decoder}
    if "grid_thw" in takes:
        main = "pixel_values" if "pixel_values" in takes else "hidden_states"
        for shape in ((channels * times * patch**2,), (channels * patch**2,), (channels, patch, patch)):
            yield {main: drawn(16, *shape), "grid_thw": torch.tensor([[1, 4, 4]])}
        yield {main: drawn(1, 16, channels, patch, patch), "grid_thw": torch.tensor([[1, 4, 4]])}
    if "pixel_values" in takes:
        yield {"pixel_values": drawn(2, channels, image, image)}
        yield {"pixel_values": drawn(1, frames, channels, image, image)}
        if "input_ids" in takes:
            yield {"pixel_values": drawn(2, channels, image, image), "input_ids": ids, **decoder}
        for side in (64, 224, 256):
            yield {"pixel_values": drawn(1, channels, side, side)}
    if "pixel_values_videos" in takes:
        yield {"pixel_values_videos": drawn(1, frames, channels, image, image)}
    for length in (128, 64, 3000) if "input_features" in takes else ():
        for shape in ((2, mel, length), (2, length, mel)):
            yield {"input_features": drawn(*shape), **decoder}
            if "input_features_mask" in takes:
                yield {"input_features": drawn(*shape), "input_features_mask": torch.ones(2, length, dtype=torch.long)}
    if "input_values" in takes:
        yield {"input_values": drawn(2, 4000), **decoder}
        yield {"input_values": drawn(2, 1, 4000)}
        yield {"input_values": drawn(2, _said(config, "max_length", default=128), mel)}
    if "past_values" in takes:
        yield {"past_values": drawn(2, _said(config, "context_length", default=32), 1)}
    for name in ("inputs_embeds", "hidden_states"):
        if name in takes:
            yield {name: drawn(2, 9, width)}
    if "query_embeds" in takes:
        yield {"query_embeds": drawn(2, 5, width)}
