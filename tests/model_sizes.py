"""Models small enough for a test: the keywords of their configurations, their weights and their inputs."""

from __future__ import annotations

import torch

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {**SMALL, "vocab_size": 23, "max_position_embeddings": 40, "window": 6, "attention_top_k": 3}
PICTURES = {**SMALL, "image_size": 4, "num_channels": 3, "levels": 16, "window": 8, "attention_top_k": 4}
PATCHES = {**SMALL, "image_size": (16, 20), "num_labels": 5}
WINDOWS = {"hidden_size": 16, "depths": (2, 1), "heads": (2, 4), "image_size": (32, 32), "num_labels": 5}


def spread(model):
    """Weights so large that all layers matter, biases and norms that are not 0 and 1; in evaluation mode."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(10.0)
            elif "log_sigma" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def seeded(kind, config, dtype=torch.float64):
    """A model with the weights of seed 0, spread."""
    torch.manual_seed(0)
    return spread(kind(config).to(dtype))


def words(n=30, batch=2, vocabulary=23, seed=1):
    return torch.randint(vocabulary, (batch, n), generator=torch.Generator().manual_seed(seed))


def pixels(config, batch=2, seed=1, dtype=torch.float64):
    shape = (batch, config.num_channels, *config.pixels)
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def gated_base(family, seed=0, wider=1):
    """A tiny pretrained decoder of transformers, with weights and biases spread so that layers matter; float64."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family, vocab_size=23, hidden_size=32 * wider, intermediate_size=48, num_hidden_layers=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=16, num_attention_heads=4, num_key_value_heads=2,
        head_dim=8, max_position_embeddings=64, pad_token_id=0, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_config(config, experts_implementation="eager").double().eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(5.0) if weight.ndim > 1 else weight.add_(0.1 * torch.randn_like(weight))
    return model
