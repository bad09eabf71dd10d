"""Adapters (LoRA) of models with a Krause branch: they say what they belong to, and load onto nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._arguments import FILE, Is, Real, Whole, reads
from krause_dynamics.models.gated import FAMILIES, PARTS, PREFIX, add_krause_branch
from krause_dynamics.models.gated_attention import PROJECTIONS, SUFFIX

FEED_FORWARD = ("gate_proj", "up_proj", "down_proj", "c_fc", "c_proj")
OWN = tuple(name + SUFFIX for name in PROJECTIONS)
WHOLE = ("gate_proj_krause", "log_sigma")  # trained and saved as they are
SAMPLES, ENTRIES = 8, 4  # of the base's matrices, and of each: enough to tell two trainings apart
NOISE = 2e-2  # relative: a base that is loaded in half precision is still the same


@reads(
    model=Is(torch.nn.Module, "kd.models.add_krause_branch(model)"), rank=Whole(), alpha=Whole(), dropout=Real(0.0, 1.0)
)
def lora_config(model: Any, *, rank: int = 8, alpha: int = 16, dropout: float = 0.0, **rest: Any) -> Any:
    """LoRA on both branches: the projections of the model, those of its Krause branch, and gate and log sigma whole.

    The configuration, and with it every saved adapter, holds the settings of the branch and a few numbers of the base,
    so that `load_adapter` can rebuild the one and recognise the other. Fresh projections of the branch, which no base
    has, are trained and saved whole.

    Args:
        model: From `add_krause_branch`, before any adapter.
        rank: Of the updates.
        alpha: Their scale is alpha / rank.
        dropout: Before the updates.
        **rest: Further arguments of ``peft.LoraConfig``.

    Returns:
        A ``peft.LoraConfig`` for ``peft.get_peft_model(model, config)``.

    Raises:
        TypeError: A model without the branch.
    """
    from peft import LoraConfig

    settings = _settings(model)
    names = {name.rpartition(".")[2] for name, _ in model.model.layers.named_modules()}
    fresh = settings["projections"] == "fresh"
    targets = [*PROJECTIONS, *(name for name in FEED_FORWARD if name in names), *(() if fresh else OWN)]
    belongs = {"krause_branch": settings, "base": sample_of(model)}
    return LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="CAUSAL_LM",
        modules_to_save=[*WHOLE, *(OWN if fresh else ())], auto_mapping=belongs, **rest,
    )  # fmt: skip


@reads(base=Is(torch.nn.Module, "a model of transformers"), path=FILE)
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
    branch = _branch_of(base, held.get("krause_branch"), settings)
    _check_base(base, held.get("base"), weights, config.r)
    if not _has_branch(base):
        base = add_krause_branch(base, **branch)
    config.modules_to_save = sorted({*(config.modules_to_save or ()), "gate_proj_krause", "log_sigma"})
    config.inference_mode = not trainable
    model = PeftModel(base, config)
    found: Any = set_peft_model_state_dict(model, weights)
    lost = [name for name in found.missing_keys if ".default." in name and "log_sigma" not in name]
    if found.unexpected_keys or lost:
        raise ValueError(f"{path} does not fit: missing {lost[:3]}, without a place {list(found.unexpected_keys)[:3]}")
    return model if trainable else model.eval()


def sample_of(model: Any) -> list[float]:
    """A few numbers of a base, by which an adapter recognises it; none where weights are not at hand (meta, shards)."""
    matrices = {n: p for n, p in model.named_parameters() if p.ndim > 1 and not any(x in n.split(".") for x in PARTS)}
    names = sorted(name.replace(".base_layer", "") for name in matrices if "lora_" not in name)
    result: list[float] = []
    for name in names[:: max(len(names) // SAMPLES, 1)]:
        weight = matrices[name].detach()
        if weight.is_meta or type(weight.data) is not Tensor:
            return []
        result += weight[weight.shape[0] // 2].flatten()[:ENTRIES].float().tolist()
    return result


def _has_branch(model: Any) -> bool:
    return str(model.config.model_type).startswith(PREFIX)


def _settings(model: Any) -> dict[str, Any]:
    if not _has_branch(model):
        raise TypeError(f"model must have a Krause branch (kd.models.add_krause_branch), got {type(model).__name__}")
    return dict(model.config.krause_branch)


def _ours(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Published names and shapes as ours: log sigma is a module with one number a head."""
    renamed = {f"{name}.weight" if name.endswith(".log_sigma") else name: value for name, value in weights.items()}
    return {name: value.reshape(-1) if "log_sigma" in name else value for name, value in renamed.items()}


def _branch_of(base: Any, held: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the branch, from wherever they are known.

    Raises:
        ValueError: They are known nowhere, or two places differ.
    """
    known = [settings for settings in (held, _settings(base) if _has_branch(base) else None) if settings]
    if not known:
        missing = sorted({"window", "top_k", "sigma"} - given.keys())
        if missing:
            raise ValueError(
                f"the adapter does not say {', '.join(missing)} of its Krause branch; pass them (published: window=32, "
                "top_k=16, sigma=5.5)"
            )
        return given
    for settings in (*known[1:], given):
        differing = {name for name, value in settings.items() if known[0].get(name) != value} - {"gate"}
        if differing:
            name = min(differing)
            raise ValueError(
                f"{name} of the Krause branch is {known[0].get(name)} for the adapter, got {settings[name]}"
            )
    return {**known[0], **given}


def _check_base(base: Any, sample: list[float] | None, weights: Mapping[str, Tensor], rank: int) -> None:
    """Refuse an adapter for another base.

    Raises:
        ValueError: Naming what differs.
    """
    kind = str(base.config.model_type).removeprefix(PREFIX)
    if kind not in FAMILIES:
        raise ValueError(f"base must be a model of {', '.join(FAMILIES)}, got {kind}")
    shapes = {name: tuple(p.shape) for name, p in base.named_parameters()}
    for name, value in weights.items():
        place = name.removeprefix("base_model.model.").replace(SUFFIX + ".", ".")
        module, side = place.partition(".lora_")[::2]
        expected = shapes.get(f"{module}.weight")
        if not side or "log_sigma" in name:
            continue
        if expected is None or tuple(value.shape) != ((rank, expected[1]) if side[0] == "A" else (expected[0], rank)):
            raise ValueError(f"the adapter is for another base: {name} is {tuple(value.shape)}, {module} is {expected}")
    ours = sample_of(base)
    if sample and ours:
        near = len(sample) == len(ours) and torch.allclose(
            torch.tensor(sample), torch.tensor(ours), rtol=NOISE, atol=1e-3 * float(torch.tensor(ours).abs().max())
        )
        if not near:
            raise ValueError("the adapter was trained on another base: its sample of the base's weights differs")
