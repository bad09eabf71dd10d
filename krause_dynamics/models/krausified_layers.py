"""Rules and bandwidths on the attention modules of a model: put there, started, taken off again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics._value import value_from
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import Interaction
from krause_dynamics.models.padding import say_unpadded
from krause_dynamics.nn.huggingface.own_code import dispatches
from krause_dynamics.nn.huggingface.rules import LayerRule
from krause_dynamics.nn.huggingface.unpadded import takes_masks
from krause_dynamics.nn.parts import LogSigma


def grow(model: Any) -> None:
    """Give the attention modules their rules and bandwidths, as ``config.krause`` says.

    Raises:
        UnsupportedModel: The configuration holds no rules, or as many as the model has no layers.
    """
    config, parts = model.config, attention_modules(model)
    content = getattr(config, "krause", None)
    if not isinstance(content, list | tuple) or len(content) != len(parts):
        raise UnsupportedModel(
            f"{type(model).__name__} needs config.krause, a list of {len(parts)} rules, one an attention module "
            f"(None: softmax), got {content!r}; kd.krausify(model) writes it"
        )
    for part, item in zip(parts, content, strict=True):
        if item is None:
            part.krause_rule = LayerRule()
            continue
        rule = LayerRule.of(value_from(item, Interaction, "krause"))
        if rule.score != "gaussian":
            raise UnsupportedModel(f"a krausified layer has a Gaussian score, got {item!r}")
        part.krause_rule = rule._replace(learned=True)
        part.log_sigma = LogSigma(
            1.0, torch.as_tensor(rule.sigma).numel(), learn=getattr(config, "krause_learns", True)
        )
        like = next(part.parameters())  # of the attention module: its projections
        start(part.log_sigma, rule, like)
    if takes_masks(model):
        model._unpadded_hook = model.register_forward_pre_hook(say_unpadded, with_kwargs=True)


@torch.no_grad()
def start(log_sigma: LogSigma, rule: LayerRule, like: Tensor | None = None) -> None:
    """Set a bandwidth to the one that the rule says, in float32, or float64 in a model of that dtype."""
    weight = log_sigma.weight
    like = weight if like is None else like
    value = torch.as_tensor(rule.sigma, dtype=torch.float64).reshape(-1).log()
    value = value.to(like.device, torch.promote_types(torch.float32, like.dtype))
    if value.device.type == weight.device.type:
        weight.data = value
    else:
        log_sigma.weight = nn.Parameter(value, weight.requires_grad)


def remove(model: Any) -> None:
    """Take rules and bandwidths off the attention modules."""
    for part in attention_modules(model):
        vars(part).pop("krause_rule", None)
        if "log_sigma" in part._modules:
            del part.log_sigma
    if "_unpadded_hook" in vars(model):
        model._unpadded_hook.remove()
        del model._unpadded_hook


def attention_modules(model: nn.Module) -> list[Any]:
    """The modules that call the attention registry, in order."""
    return [part for part in model.modules() if dispatches(type(part))]  # type: ignore[arg-type]
