"""Groups of weights for an optimiser."""

from __future__ import annotations

import pytest
import torch

from krause_dynamics.models import KrauseLM, KrauseLMConfig, parameter_groups
from tests.keywords.row import row
from tests.model_sizes import WORDS


def model(score="dot+temperature+key_norm"):
    return KrauseLM(KrauseLMConfig(**WORDS, score=score))


@row("kd.models.parameter_groups", "model", "dot", "gaussian", "every weight that learns stands once, vectors apart")
def groups(first, second):
    for score in (first, second):
        decaying, free = parameter_groups(model(score))
        assert {p.ndim for p in decaying["params"]} == {2}
        assert {p.ndim for p in free["params"]} == {1}
        learned = [p for p in model(score).parameters() if p.requires_grad]
        assert len(decaying["params"]) + len(free["params"]) == len(learned)


@row(
    "kd.models.parameter_groups", "weight_decay", 0.05, 0.5, "without gradients matrices shrink by it, log sigma stays"
)
def weight_decay(first, second):
    for decay in (first, second):
        network = model()
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        optimiser = torch.optim.AdamW(parameter_groups(network, decay), lr=0.1)
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        optimiser.step()
        for name, p in network.named_parameters():
            torch.testing.assert_close(p, before[name] * (1 - 0.1 * decay if p.ndim == 2 else 1.0))
    with pytest.raises(ValueError, match="weight_decay"):
        parameter_groups(model(), -first)
