"""What an optimiser must know of the models here."""

from __future__ import annotations

from typing import Any

from torch import nn

from krause_dynamics._arguments import Is, Real, reads


@reads(model=Is(nn.Module, "a model of this package"), weight_decay=Real(0.0))
def parameter_groups(model: nn.Module, weight_decay: float = 0.05) -> list[dict[str, Any]]:
    """Groups for an optimiser: matrices decay; biases, norms and learned numbers of a score (log sigma) do not.

    Decay would draw log sigma to 0, a bandwidth of 1, whatever the scale of the tokens. The Trainer of transformers
    spares biases and norms alone: give it ``optimizers=(torch.optim.AdamW(parameter_groups(model)), None)``.

    Args:
        model: Any module; weights without gradients are left out.
        weight_decay: Of the matrices; 0.05 is common for vision transformers (DeiT, 2012.12877).

    Raises:
        ValueError: A negative decay.
    """
    if not weight_decay >= 0.0:
        raise ValueError(f"weight_decay must be at least 0, got {weight_decay!r}")
    learned = [p for p in model.parameters() if p.requires_grad]
    return [
        {"params": [p for p in learned if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in learned if p.ndim < 2], "weight_decay": 0.0},
    ]
