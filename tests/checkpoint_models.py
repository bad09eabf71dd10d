"""Tiny models with random weights, built from configurations alone."""

from __future__ import annotations

import torch
import transformers as hf

# Matrices this small gain nothing from threads, and test processes run side by side.
torch.set_num_threads(1)

VOCABULARY = 50
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "max_position_embeddings": 64}


def llama(seed: int = 0, **options):
    config = hf.LlamaConfig(
        **{**SMALL, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, **options}
    )
    return build(hf.LlamaForCausalLM, config, seed)


def gpt2(seed: int = 0, **options):
    config = hf.GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=64, n_inner=48, **options)
    return build(hf.GPT2LMHeadModel, config, seed)


def bert(seed: int = 0, **options):
    config = hf.BertConfig(**{**SMALL, "num_hidden_layers": 2, "num_attention_heads": 4, **options})
    return build(hf.BertModel, config, seed)


def albert(seed: int = 0, **options):
    config = hf.AlbertConfig(
        **{**SMALL, "embedding_size": 16, "num_hidden_layers": 5, "num_attention_heads": 4, **options}
    )
    return build(hf.AlbertForMaskedLM, config, seed)


def mistral(seed: int = 0, **options):
    """Sliding window of 4 tokens."""
    config = hf.MistralConfig(
        **{**SMALL, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "sliding_window": 4},
        **options,
    )
    return build(hf.MistralForCausalLM, config, seed)


def gemma2(seed: int = 0, **options):
    """Soft-capped scores, and windows in every other block."""
    config = hf.Gemma2Config(
        **{**SMALL, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8},
        sliding_window=4,
        attn_logit_softcapping=2.0,
        **options,
    )
    return build(hf.Gemma2ForCausalLM, config, seed)


def t5(seed: int = 0, **options):
    """Two stacks of unlike depth, with learned distances in the scores."""
    config = hf.T5Config(
        d_model=32, d_kv=8, d_ff=48, num_layers=2, num_decoder_layers=3, num_heads=4, vocab_size=VOCABULARY, **options
    )
    return build(hf.T5Model, config, seed)


def bloom(seed: int = 0, **options):
    """Attention code of its own, outside the registry."""
    config = hf.BloomConfig(vocab_size=VOCABULARY, hidden_size=32, n_layer=2, n_head=4, **options)
    return build(hf.BloomForCausalLM, config, seed)


def build(kind, config, seed: int):
    """A model whose attention is far from uniform: random weights of the usual size would hide a wrong one."""
    torch.manual_seed(seed)
    model = kind(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "embed" not in name:
                weight.mul_(4.0)
    return model.eval()


def eager(model, dtype=torch.float32):
    """A copy that transformers itself runs with eager attention, in another precision if asked."""
    config = type(model.config).from_dict(model.config.to_dict())
    config._attn_implementation = "eager"
    copy = type(model)(config)
    copy.load_state_dict(model.state_dict())
    return copy.to(dtype).eval()
