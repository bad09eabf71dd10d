"""Configurations of models small enough for a test, as the keywords that make them."""

from __future__ import annotations

import torch

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
WORDS = {**SMALL, "vocab_size": 23, "max_position_embeddings": 40, "window": 6, "attention_top_k": 3}
PICTURES = {**SMALL, "image_size": 4, "num_channels": 3, "levels": 16, "window": 8, "attention_top_k": 4}


def seeded(kind, config, dtype=torch.float64):
    """A model with the weights of seed 0, spread so that layers matter; in evaluation mode."""
    torch.manual_seed(0)
    model = kind(config).to(dtype).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.mul_(10.0)
            elif "log_sigma" not in name:
                weight.add_(0.1 * torch.randn_like(weight))
    return model


def words(n=30, batch=2, vocabulary=23, seed=1):
    return torch.randint(vocabulary, (batch, n), generator=torch.Generator().manual_seed(seed))
