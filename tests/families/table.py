"""Tiny random models of each family: configuration, model, and what is peculiar to it."""

# ruff: noqa: E501  one family a line, with its sizes

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import transformers as hf

# Matrices this small gain nothing from threads, and test processes run side by side.
torch.set_num_threads(1)

VOCABULARY = 60
TEXT = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = {**TEXT, "num_key_value_heads": 2}
WIDE = {**GROUPED, "head_dim": 8}
BART = {
    "vocab_size": VOCABULARY, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
T5 = {
    "vocab_size": VOCABULARY, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
    "pad_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 0,
}  # fmt: skip
PICTURE = {
    "image_size": 16, "patch_size": 4, "num_channels": 3, "hidden_size": 32, "intermediate_size": 48,
    "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
EXPERTS = {"num_experts": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16}


class Family(NamedTuple):
    """One family: the prefix of its classes, the ending of the model's, its kind of input, and its sizes."""

    name: str
    model: str
    kind: str
    sizes: dict[str, Any]
    config: str = ""

    def build(self, implementation: str, krause: dict[str, Any] | None = None) -> Any:
        """The model with random weights, far from uniform attention; in float64 eager attention itself gives NaN."""
        config = getattr(hf, self.config or f"{self.name}Config")(**self.sizes)
        config.krause = krause
        config._attn_implementation = implementation
        torch.manual_seed(0)
        model = getattr(hf, self.name + self.model)(config)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if weight.ndim == 2 and "embed" not in name:
                    weight.mul_(2.0)
                if "sink" in name:
                    weight.normal_()
        return model.eval()


def _each(names: str, model: str, kind: str, sizes: dict[str, Any]) -> list[Family]:
    return [Family(name, model, kind, sizes) for name in names.split()]


LM = "ForCausalLM"
FAMILIES: tuple[Family, ...] = (
    *_each("Llama Qwen2 Olmo Olmo2 Granite Cohere StableLm Starcoder2 Arcee Apertus Nemotron Phi", LM, "text", GROUPED),
    *_each("Mistral Ministral", LM, "text", {**WIDE, "sliding_window": 4}),
    *_each("Gemma Qwen3 Glm Glm4 SmolLM3 Helium", LM, "text", WIDE),
    *_each("SeedOss Exaone4 Ernie4_5 HunYuanDenseV1", LM, "text", WIDE),
    Family("Qwen2", LM, "text", {**GROUPED, "use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    Family("Cohere2", LM, "text", {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}),
    Family("Gemma2", LM, "text", {**WIDE, "sliding_window": 4, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8}),
    Family("VaultGemma", LM, "text", {**WIDE, "sliding_window": 4, "attn_logit_softcapping": 0.5, "query_pre_attn_scalar": 8}),
    Family("Gemma3", LM, "text", {**WIDE, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}, "Gemma3TextConfig"),
    Family("Gemma3", "TextModel", "text", {**WIDE, "sliding_window": 5, "use_bidirectional_attention": True, "layer_types": ["sliding_attention", "full_attention"]}, "Gemma3TextConfig"),
    Family("GptOss", LM, "text", {**WIDE, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 4}),
    Family("Llama4", LM, "text", {**WIDE, "attention_chunk_size": 4, "num_local_experts": 2, "intermediate_size_mlp": 48, "no_rope_layers": [1, 0], "layer_types": ["chunked_attention", "full_attention"]}, "Llama4TextConfig"),
    Family("Mixtral", LM, "text", {**GROUPED, "num_local_experts": 2, "num_experts_per_tok": 1}),
    *_each("Qwen2Moe Qwen3Moe Olmoe", LM, "text", {**WIDE, **EXPERTS, "shared_expert_intermediate_size": 16}),
    Family("Phi3", LM, "text", {**GROUPED, "sliding_window": 4}),
    Family("GPTNeoX", LM, "text", TEXT),
    Family("GPT2", "LMHeadModel", "text", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}),
    Family("GPTBigCode", LM, "text", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}),
    Family("OPT", LM, "text", {**TEXT, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    Family("BioGpt", LM, "text", TEXT),
    Family("DeepseekV3", LM, "text", {**TEXT, "num_key_value_heads": 4, "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "first_k_dense_replace": 2, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16}),
    *_each("Bert Roberta Electra Camembert XLMRoberta Ernie RobertaPreLayerNorm", "Model", "encoder", TEXT),
    *_each("NomicBert", "Model", "encoder", TEXT),
    Family("XLMRobertaXL", "Model", "encoder", TEXT),
    Family("Albert", "Model", "encoder", {**TEXT, "embedding_size": 16}),
    Family("DistilBert", "Model", "encoder", {"vocab_size": VOCABULARY, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}),
    Family("ModernBert", "Model", "encoder", {**TEXT, "local_attention": 4, "global_attn_every_n_layers": 2, "cls_token_id": 1, "sep_token_id": 2}),
    Family("EuroBert", "Model", "encoder", WIDE),
    *_each("Bart MBart Pegasus Marian BlenderbotSmall Blenderbot M2M100 PLBart", "Model", "pair", BART),
    *_each("T5 MT5 UMT5", "Model", "pair", T5),
    *_each("SwitchTransformers", "Model", "pair", {**T5, "num_experts": 2, "expert_capacity": 8}),
    *_each("ViT DeiT ViTMSN Dinov2 Dinov2WithRegisters IJepa DINOv3ViT VivitX", "Model", "picture", PICTURE),
    Family("Siglip", "VisionModel", "picture", PICTURE, "SiglipVisionConfig"),
    Family("CLIP", "VisionModel", "picture", PICTURE, "CLIPVisionConfig"),
    Family("CLIP", "TextModel", "encoder", TEXT, "CLIPTextConfig"),
)  # fmt: skip


def inputs(kind: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """Two sequences of 9 tokens, or two pictures."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "picture":
        return {"pixel_values": torch.randn(2, 3, 16, 16, generator=generator)}
    ids = torch.randint(3, VOCABULARY, (2, 9), generator=generator)
    return {"input_ids": ids, **({"decoder_input_ids": ids.flip(0)[:, :6]} if kind == "pair" else {})}
