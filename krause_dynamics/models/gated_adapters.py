"""Adapters (LoRA) of models with a Krause branch: they say what they belong to, and load onto nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._arguments import FOLDER, Is, Real, Whole, reads
from krause_dynamics.models.gated import OWN, PARTS, WHOLE, add_krause_branch
from krause_dynamics.models.gated_attention import PROJECTIONS
from krause_dynamics.models.gated_identity import (
    branch_of,
    check_sample,
    check_shapes,
    has_branch,
    sample_of,
    settings_of,
)

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj", "c_fc", "c_proj")


@reads(
    model=Is(torch.nn.Module, "kd.models.add_krause_branch(model)"), rank=Whole(), alpha=Whole(), dropout=Real(0.0, 1.0)
)
def lora_config(model: Any, *, rank: int = 8, alpha: int = 16, dropout: float = 0.0, **rest: Any) -> Any:
    """LoRA on both branches: the projections of the model, those of its Krause branch, and gate and log sigma whole.

    The configuration, and with it every saved adapter, holds the settings of the branch and a few numbers of the base,
    so that `load_adapter` can rebuild the one and recognise the other; so does peft itself
    (``PeftModel.from_pretrained``, ``model.load_adapter``) once `krause_dynamics.models` is imported, and it refuses
    the adapter before. Fresh projections of the branch, which no base has, are trained and saved whole.

    Args:
        model: From `add_krause_branch`, before any adapter.
        rank: Of the updates.
        alpha: Their scale is alpha / rank.
        dropout: Before the updates.
        **rest: Further arguments of ``peft.LoraConfig``.

    Returns:
        A ``peft.LoraConfig`` (`KrauseLoraConfig`) for ``peft.get_peft_model(model, config)``.

    Raises:
        TypeError: A model without the branch.
    """
    from krause_dynamics.models.gated_peft import KrauseLoraConfig

    settings = settings_of(model)
    names = {name.rpartition(".")[2] for name, _ in model.model.layers.named_modules()}
    fresh = settings["projections"] == "fresh"
    targets = [*PROJECTIONS, *(name for name in FEED_FORWARD if name in names), *(() if fresh else OWN)]
    belongs = {"krause_branch": settings, "base": sample_of(model)}
    return KrauseLoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM",
        modules_to_save=[*WHOLE, *(OWN if fresh else ())], auto_mapping=belongs, **rest,
    )  # fmt: skip


@reads(base=Is(torch.nn.Module, "a model of transformers"), path=FOLDER)
def load_adapter(base: Any, path: str | Path, *, trainable: bool = False, **settings: Any) -> Any:
    """A base with the Krause branch and the adapter that was trained on it.

    Args:
        base: The pretrained model, with or without the branch; without it the branch is added.
        path: Folder that ``save_pretrained`` of the adapter wrote, or a published adapter.
        trainable: Whether training goes on.
        **settings: Of the branch (`add_krause_branch`), where the adapter does not hold them, as published ones do not.

    Returns:
        A ``peft.PeftModel``.

    Raises:
        ValueError: An adapter for another base or without weights of the branch, or settings that are missing or that
            contradict it. The base is left as it was.
        FileNotFoundError: No adapter there.
    """
    from peft import PeftConfig, PeftModel
    from peft.utils import load_peft_weights, set_peft_model_state_dict

    if not (Path(path) / "adapter_config.json").is_file():
        raise FileNotFoundError(f"path must be the folder of an adapter (adapter_config.json), got {path}")
    config, weights = PeftConfig.from_pretrained(str(path)), _ours(load_peft_weights(str(path), device="cpu"))
    if not any(f".{part}." in name for name in weights for part in PARTS):
        raise ValueError("the adapter holds no weights of a Krause branch; load it by peft.PeftModel.from_pretrained")
    held = config.auto_mapping or {}
    branch = branch_of(base, held.get("krause_branch"), settings)
    check_shapes(base, weights, config.r)
    check_sample(base, held.get("base"))
    if not has_branch(base):
        base = add_krause_branch(base, **branch)
    config.modules_to_save = sorted({*(config.modules_to_save or ()), "gate_proj_krause", "log_sigma"})
    config.inference_mode = not trainable
    model = PeftModel(base, config)
    found: Any = set_peft_model_state_dict(model, weights)
    lost = [name for name in found.missing_keys if ".default." in name and "log_sigma" not in name]
    if found.unexpected_keys or lost:
        raise ValueError(f"{path} does not fit: missing {lost[:3]}, without a place {list(found.unexpected_keys)[:3]}")
    return model if trainable else model.eval()


def _ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names and shapes as ours: log sigma is a module with one number a head."""
    renamed = {f"{name}.weight" if name.endswith(".log_sigma") else name: value for name, value in weights.items()}
    return {name: value.reshape(-1) if "log_sigma" in name else value for name, value in renamed.items()}
