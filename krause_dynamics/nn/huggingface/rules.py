"""The rule of an attention layer of transformers: from ``config.krause``, or from what `krausify` put on the layer."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics._array import to_numpy
from krause_dynamics._value import value_from
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import DotProduct, Gaussian, Interaction
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn.hearing import within

WRITE = "write config.krause = interaction.to_dict() (or a list, one for each layer), or use kd.krausify(model)"


class LayerRule(NamedTuple):
    """What a layer computes; both coefficients ``None``: dot products with the model's own scaling.

    Attributes:
        score: ``"gaussian"`` or ``"dot"``.
        reach: Index rules and rank.
        segments: Cumulative lengths of packed sequences, or ``None``.
        sigma: Bandwidth, a number or one per head, or ``None``.
        scale: Coefficient of dot products, likewise.
        learned: Whether the layer's module ``log_sigma`` holds the bandwidth.
    """

    score: Literal["gaussian", "dot"] = "dot"
    reach: Reach = Reach()
    segments: Tensor | None = None
    sigma: float | Tensor | None = None
    scale: float | Tensor | None = None
    learned: bool = False

    @staticmethod
    def of(interaction: Interaction) -> LayerRule:
        """The rule of an interaction.

        Raises:
            TypeError: Neither a Gaussian nor a dot product.
            ValueError: Per capita, with a pair bias, or with a neighbourhood that is not one of indices and ranks.
        """
        score = interaction.score
        if not isinstance(score, Gaussian | DotProduct):
            raise TypeError(f"attention takes a Gaussian or a DotProduct, got {score!r}")
        if interaction.pair_bias is not None or not interaction.normalised:
            raise ValueError(f"attention takes a normalised rule without a pair bias, got {interaction!r}")
        reach, segments = within(interaction.neighbourhood)
        if isinstance(score, Gaussian):
            return LayerRule("gaussian", reach, segments, sigma=_parameter(score.sigma))
        return LayerRule("dot", reach, segments, scale=_parameter(score.beta))

    @property
    def compares_places(self) -> bool:
        """Whether it matters where a query stands among the keys."""
        return self.reach._replace(top_k=0, keep_ties=False) != Reach() or self.segments is not None

    def bandwidth(self, module: nn.Module) -> dict[str, Any]:
        """``sigma`` or ``scale`` of a call."""
        if self.learned:
            return {"sigma": cast("nn.Module", module.log_sigma)()}
        return {"sigma": self.sigma} if self.scale is None else {"scale": self.scale}


def rule_of(module: nn.Module) -> LayerRule:
    """The rule of a layer.

    Raises:
        UnsupportedModel: Neither the layer nor its configuration holds one, the list in the configuration has another
            length, or its index rules meet cross-attention.
    """
    rule = getattr(module, "krause_rule", None)
    if rule is not None:
        return rule  # type: ignore[no-any-return]
    config, who = module.config, type(module).__name__
    content = getattr(config, "krause", None)
    if not content:
        raise UnsupportedModel(f"{who} runs the attention 'krause' and its config.krause holds no rule: {WRITE}")
    if isinstance(content, list | tuple):
        content = _of_layer(module, content)
    rule = _parsed(content) if content else LayerRule()
    if rule.compares_places and (
        getattr(config, "is_encoder_decoder", False) or getattr(config, "add_cross_attention", False)
    ):
        raise UnsupportedModel(
            f"{who} belongs to an encoder-decoder, whose cross-attention has no common places; "
            f"a window, a grid or causality of one's own cannot be heard there, got {content!r}; top-k can"
        )
    return rule


def _of_layer(module: nn.Module, content: Any) -> Any:
    layers, index = getattr(module.config, "num_hidden_layers", None), getattr(module, "layer_idx", None)
    if index is None:
        raise UnsupportedModel(
            f"{type(module).__name__} does not know which layer it is, so that a list of rules cannot be shared out; "
            "give one rule for all, or use kd.krausify(model)"
        )
    if layers is not None and len(content) != layers:
        raise UnsupportedModel(f"config.krause must hold one rule, or {layers}, one a layer, got {len(content)}")
    return content[index]


_PARSED: dict[str, LayerRule] = {}  # by what the configuration says: a rule is read once, not at every call


def _parsed(content: Any) -> LayerRule:
    key = repr(content)
    if key not in _PARSED:
        rule = content if isinstance(content, Interaction) else value_from(content, Interaction, "krause")
        _PARSED[key] = LayerRule.of(rule)
    return _PARSED[key]


def _parameter(value: Any) -> float | Tensor:
    """A number, or a tensor with one entry per head."""
    entries = np.asarray(to_numpy(value), dtype=float).reshape(-1)
    return float(entries[0]) if len(entries) == 1 else torch.from_numpy(entries.copy())
