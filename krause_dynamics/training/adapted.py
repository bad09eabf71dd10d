"""Pretrained decoders that learn by adapters: LoRA alone, or beside a Krause branch (2602.11534, Krause-Llama)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from krause_dynamics._value import check_names

BRANCH = ("window", "top_k", "sigma", "projections")
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0}
KNOWN = ("base", "branch", *BRANCH, *(f"lora_{name}" for name in LORA))

# Families whose step asks nothing of the host, so that a CUDA graph can hold it; experts are routed by the host.
CAPTURED = ("llama", "mistral", "qwen2", "gemma", "starcoder2", "granite")


def can_be_captured(model: Any) -> bool:
    """Whether a step of this model, from `adapted`, can be replayed from a CUDA graph."""
    from krause_dynamics.models.gated import PREFIX

    return str(model.config.model_type).removeprefix(PREFIX) in CAPTURED


def adapted(keys: Mapping[str, Any], follows: Mapping[str, Any]) -> Any:
    """A base with adapters, of which only these (and gate and bandwidths of a branch) learn.

    Args:
        keys: ``base`` (a folder, or ``smollm2-135m``), ``branch = false`` for LoRA alone, settings of the branch, and
            ``lora_rank``, ``lora_alpha``, ``lora_dropout``.
        follows: What the data decide: the vocabulary and the length.

    Raises:
        ValueError: Unknown keys, no base, or one that does not know the tokens.
    """
    from peft import LoraConfig, get_peft_model

    from krause_dynamics.models import add_krause_branch, lora_config
    from krause_dynamics.models.gated_adapters import FEED_FORWARD
    from krause_dynamics.models.gated_attention import PROJECTIONS

    check_names("key of [model]", keys, KNOWN)
    model = _base(keys.get("base"), follows["vocab_size"])
    lora = {name: keys.get(f"lora_{name}", default) for name, default in LORA.items()}
    if keys.get("branch", True):
        add_krause_branch(model, **{name: keys[name] for name in BRANCH if name in keys})
        return get_peft_model(model, lora_config(model, **lora))
    unused = [name for name in BRANCH if name in keys]
    if unused:
        raise ValueError(f"model.{unused[0]} belongs to a Krause branch, which branch = false leaves out; take it out")
    names = {name.rpartition(".")[2] for name, _ in model.model.layers.named_modules()}
    targets = [*PROJECTIONS, *(name for name in FEED_FORWARD if name in names)]
    config = LoraConfig(
        r=lora["rank"], lora_alpha=lora["alpha"], lora_dropout=lora["dropout"], target_modules=targets,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(model, config)


def _base(name: Any, vocabulary: int) -> Any:
    """The pretrained model, in float32, from files of this machine."""
    from transformers import AutoModelForCausalLM

    from krause_dynamics.checkpoints.bundled import SMOLLM2, smollm2_folder

    if not isinstance(name, str) or not (name == SMOLLM2 or Path(name).is_dir()):
        raise ValueError(f"model.base must be {SMOLLM2!r} or the folder of a model of transformers, got {name!r}")
    folder = smollm2_folder() if name == SMOLLM2 else Path(name)
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    if model.config.vocab_size < vocabulary:
        raise ValueError(
            f"data.tokenizer must be that of the base, with at most {model.config.vocab_size} tokens, got {vocabulary}"
        )
    # With a cache, transformers takes the rows to be whole; without one it looks for packed texts in the positions,
    # which waits for the device, and in a capture, where it cannot wait, writes out a mask of all pairs.
    model.config.use_cache = True
    return model
