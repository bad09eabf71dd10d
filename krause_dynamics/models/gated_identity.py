"""What an adapter says of its model: settings of the Krause branch, and a few numbers of the base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.models.gated import FAMILIES, PARTS, PREFIX
from krause_dynamics.models.gated_attention import SUFFIX

SAMPLES, ENTRIES = 8, 4  # of the base's matrices, and of each: enough to tell two trainings apart
NOISE = 2e-2  # relative: a base that is loaded in half precision is still the same


def sample_of(model: Any) -> list[float]:
    """A few numbers of a base, by which an adapter recognises it; none where weights are not at hand (meta, shards)."""
    matrices = {
        name.replace(".base_layer", ""): p
        for name, p in model.named_parameters()
        if p.ndim > 1 and "lora_" not in name and not any(part in name.split(".") for part in PARTS)
    }
    result: list[float] = []
    for name in sorted(matrices)[:: max(len(matrices) // SAMPLES, 1)]:
        weight = matrices[name].detach()
        if weight.is_meta or type(weight.data) is not Tensor:
            return []
        result += weight[weight.shape[0] // 2].flatten()[:ENTRIES].float().tolist()
    return result


def has_branch(model: Any) -> bool:
    """Whether a model of transformers has a Krause branch."""
    return str(model.config.model_type).startswith(PREFIX)


def settings_of(model: Any) -> dict[str, Any]:
    """Settings of a model's branch.

    Raises:
        TypeError: It has none.
    """
    if not has_branch(model):
        raise TypeError(f"model must have a Krause branch (kd.models.add_krause_branch), got {type(model).__name__}")
    return dict(model.config.krause_branch)


def branch_of(base: Any, held: dict[str, Any] | None, given: dict[str, Any]) -> dict[str, Any]:
    """Settings of the branch, from wherever they are known.

    Raises:
        ValueError: They are known nowhere, or two places differ.
    """
    known = [settings for settings in (held, settings_of(base) if has_branch(base) else None) if settings]
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


def check_shapes(base: Any, weights: Mapping[str, Tensor], rank: int) -> None:
    """Refuse an adapter for a base of another shape.

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


def check_sample(base: Any, sample: list[float] | None) -> None:
    """Refuse an adapter that was trained on other weights.

    Raises:
        ValueError: They differ.
    """
    ours = sample_of(base)
    if not sample or not ours:
        return
    found, expected = torch.tensor(sample), torch.tensor(ours)
    if len(sample) != len(ours) or not torch.allclose(
        found, expected, rtol=NOISE, atol=1e-3 * float(expected.abs().max())
    ):
        raise ValueError("the adapter was trained on another base: its sample of the base's weights differs")
