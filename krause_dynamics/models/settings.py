"""The sizes at which the paper runs its models, by name."""

from __future__ import annotations

from typing import Any

from krause_dynamics._value import check_names
from krause_dynamics.models.configuration import KrauseConfig
from krause_dynamics.models.decoder_configuration import KARMConfig, KrauseLMConfig
from krause_dynamics.models.swin import KrauseSwinConfig
from krause_dynamics.models.vision import KrauseViTConfig

TINY = {"hidden_size": 192, "num_attention_heads": 3}
SMALL = {"hidden_size": 384, "num_attention_heads": 6}
BASE = {"hidden_size": 768, "num_attention_heads": 12}
CIFAR = {"num_labels": 10}
IMAGENET = {"image_size": 224, "patch_size": 16, "window": 2, "metric": "chebyshev", "num_labels": 1000,
            "sigma": 4.5, "attention_top_k": 8, "attention_top_k_last": 16}  # fmt: skip
# Two branches and a gate, tied head; the vocabulary is GPT-2's.
WORDS = {"vocab_size": 50257, "gate": True, "sigma": 2.5, "sigma_per_head": True, "window": 32, "attention_top_k": 16,
         "intermediate_size": 2048}  # fmt: skip

SETTINGS: dict[str, tuple[type[KrauseConfig], dict[str, Any]]] = {
    "kvit-tiny-cifar10": (KrauseViTConfig, {**TINY, **CIFAR}),
    "kvit-small-cifar10": (KrauseViTConfig, {**SMALL, **CIFAR}),
    "kvit-base-cifar10": (KrauseViTConfig, {**BASE, **CIFAR}),
    "kvit-tiny-imagenet": (KrauseViTConfig, {**IMAGENET, **TINY}),
    "kvit-small-imagenet": (KrauseViTConfig, {**IMAGENET, **SMALL}),
    "kvit-base-imagenet": (KrauseViTConfig, {**IMAGENET, **BASE, "patch_size": 32, "sigma": 9.0}),
    "kswin-tiny-cifar10": (KrauseSwinConfig, CIFAR),
    "karm-mnist": (KARMConfig, {}),
    "karm-cifar10": (
        KARMConfig,
        {"image_size": 32, "num_channels": 3, "hidden_size": 512, "num_hidden_layers": 16, "window": 256,
         "attention_top_k": 192},
    ),
    "lm-100m": (KrauseLMConfig, WORDS),
    "lm-200m": (KrauseLMConfig, {**WORDS, "hidden_size": 1024, "num_attention_heads": 16, "num_hidden_layers": 12}),
}  # fmt: skip


def published(name: str, **changes: Any) -> KrauseConfig:
    """A configuration of the paper, changed where asked: the softmax twin is ``score="dot", support="full"``.

    Args:
        name: ``"kvit-small-cifar10"``, ``"karm-mnist"``, ``"lm-100m"``, ...: ``krause_dynamics.models.settings``. The
            tiny models, the base model on CIFAR and the shape of 200M are ours, in the same proportions; the rest is
            the published code's.
        **changes: Keys of the configuration.

    Returns:
        The configuration, from which its model is built: ``KrauseViT(published("kvit-small-cifar10"))``.

    Raises:
        ValueError: An unknown name or key.

    Source: 2602.11534, section 5 and the code beside it.
    """
    check_names("setting", [name], list(SETTINGS))
    kind, keys = SETTINGS[name]
    return kind(**{**keys, **changes})
