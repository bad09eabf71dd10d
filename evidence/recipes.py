"""What all arms of an experiment share: model, data, schedule, as tables of a training configuration."""

from __future__ import annotations

from evidence.plan import Tables

SIGMA = 64**0.25  # of heads of width 64: the dot product over sigma^2 is softmax attention's, at 1/sqrt(64)
VIT = {
    "kind": "kvit", "norm": "pre", "read_out": "cls", "sigma": SIGMA, "window": 1, "metric": "manhattan",
    "attention_top_k": 2, "attention_top_k_last": 4,
}  # fmt: skip
TRAINING = {
    "batch_size": 256, "weight_decay": 0.05, "label_smoothing": 0.1, "drop_path": 0.1, "clip": 1.0, "precision": "auto",
}  # fmt: skip
FASHION: Tables = {
    "model": {**VIT, "size": "tiny"},
    "data": {"format": "idx", "path": "fashion", "validation": 5000, "split_seed": 0},
    "training": {**TRAINING, "epochs": 15, "warmup_epochs": 1, "crop": 2, "flip": True, "mixup": 0.0, "cutmix": 0.0},
}
REACH: Tables = {**FASHION, "training": {**FASHION["training"], "epochs": 5, "learning_rate": 3e-4}}
KEYS: Tables = {**FASHION, "training": {**FASHION["training"], "learning_rate": 3e-4}}
CIFAR: Tables = {
    "model": {**VIT, "size": "small"},
    "data": {"format": "cifar", "path": "cifar-10", "validation": 5000, "split_seed": 0},
    "training": {**TRAINING, "epochs": 12, "warmup_epochs": 1, "crop": 4, "flip": True, "mixup": 0.8, "cutmix": 1.0},
}
MNIST: Tables = {
    "model": {"kind": "karm", "size": "mnist", "sigma": 32**0.25},
    "data": {"format": "pickle", "path": "mnist", "validation": 5000, "split_seed": 0},
    "training": {"batch_size": 32, "epochs": 5, "warmup_epochs": 0.25, "weight_decay": 0.05, "clip": 1.0,
                 "precision": "auto"},
}  # fmt: skip
PAIR: Tables = {  # digits of half the side in 16 levels, small enough for a CPU: `python -m evidence.pair --halve`
    "model": {"kind": "karm", "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "levels": 16,
              "window": 64, "attention_top_k": 48, "sigma": 16**0.25},
    "data": {"format": "idx", "path": "mnist-14", "validation": 300, "split_seed": 0, "limit": 12_000},
    "training": {"batch_size": 16, "epochs": 1, "warmup_epochs": 0.05, "weight_decay": 0.05, "clip": 1.0,
                 "precision": "auto", "learning_rate": 3e-3},
}  # fmt: skip
NOVELS: Tables = {
    "model": {"kind": "lm", "hidden_size": 384, "num_hidden_layers": 8, "num_attention_heads": 6, "sigma": SIGMA,
              "window": 64, "first_tokens": 4},
    "data": {"format": "text", "path": "novels", "tokenizer": "bpe", "vocabulary": 8192, "length": 512},
    "training": {"batch_size": 64, "epochs": 4, "warmup_epochs": 0.25, "weight_decay": 0.1, "clip": 1.0,
                 "precision": "auto"},
}  # fmt: skip
SMOLLM2: Tables = {
    "model": {"kind": "gated", "base": "smollm2-135m", "lora_rank": 8},
    "data": {"format": "text", "path": "novels", "tokenizer": "smollm2-135m", "length": 512, "limit": 12_000_000},
    "training": {"batch_size": 16, "epochs": 1, "warmup_epochs": 0.1, "weight_decay": 0.0, "clip": 1.0,
                 "precision": "auto", "learning_rate": 2e-4},
}  # fmt: skip
