"""What all models are built from: a block of attention and feed-forward layer, its regularisation, its weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.branches import Gate
from krause_dynamics.models.configuration import KrauseConfig
from krause_dynamics.models.folders import check_complete, fix_what_is_not_learned
from krause_dynamics.nn import KrauseAttention
from krause_dynamics.nn.parts import PerHead


def attention(
    config: KrauseConfig, layer: int, *, score: str | None = None, neighbourhood: Neighbourhood | None = None
) -> KrauseAttention:
    """The attention layer of a configuration.

    Args:
        config: Sizes, score and support.
        layer: Which of its layers, from 0.
        score: Another score than the configuration's.
        neighbourhood: Another support.
    """
    words = config.scores[config.score if score is None else score]
    learned = words.get("learn_sigma", True)
    return KrauseAttention(
        config.hidden_size, config.num_attention_heads, neighbourhood or config.neighbourhood(layer),
        sigma=config.sigma if learned else None, sigma_per_head=config.sigma_per_head and learned,
        dropout=config.attention_dropout, **words,
    )  # fmt: skip


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 1603.09382): in training a branch is left out for some of the batch.

    Args:
        rate: Probability to leave it out; what stays is divided by 1 - rate.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """X (batch, ...)."""
        if not self.training or self.rate == 0.0:
            return x
        kept = torch.rand(x.shape[0], *(1,) * (x.ndim - 1), device=x.device) >= self.rate
        return x * kept / (1.0 - self.rate)


class Block(GradientCheckpointingLayer):
    """Attention, then a feed-forward layer, each beside a residual.

    Pre-norm: ``x + f(norm(x))``; post-norm: ``norm(x + f(x))``, as in the published KViT.

    Args:
        config: `norm` and `dropout`.
        mixer: Its attention: a module that takes tokens (..., width) and keywords.
        width: Width of the tokens.
        hidden: Width of the feed-forward layer.
        drop_path: Probability to skip a branch in training.
    """

    def __init__(self, config: KrauseConfig, mixer: nn.Module, width: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.pre = config.norm == "pre"
        self.attention = mixer
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Dropout(config.dropout),
            nn.Linear(hidden, width), nn.Dropout(config.dropout),
        )  # fmt: skip
        self.dropout = nn.Dropout(config.dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *, return_weights: bool = False, **heard: Any) -> Any:
        """Tokens (..., width) -> the same, and the weights of the attention if asked for; keywords go to it."""
        if return_weights:
            heard["return_weights"] = "dense"
        found = self.attention(self.norm1(x) if self.pre else x, **heard)
        mixed, weights = found if return_weights else (found, None)
        mixed = self.drop_path(self.dropout(mixed))
        x = residual(x, mixed, self.pre, self.norm1, self.norm2, lambda y: self.drop_path(self.mlp(y)))
        return (x, weights) if return_weights else x


def residual(x: Any, mixed: Any, pre: bool, norm1: Any, norm2: Any, feed: Any) -> Any:
    """A block after its attention, of tensors and modules, or of rows and functions of rows (`stepping`).

    Args:
        x: Tokens.
        mixed: What the attention made of them.
        pre: Whether norms stand before the branches.
        norm1: Norm of the attention.
        norm2: Norm of the feed-forward layer.
        feed: The feed-forward layer.
    """
    x = x + mixed
    if pre:
        return x + feed(norm2(x))
    x = norm1(x)
    return norm2(x + feed(x))


class Trail:
    """What a pass leaves behind for those who ask: the tokens before each layer and after the last, and the weights.

    Args:
        config: Says what is wanted where a call does not.
        hidden_states: Whether tokens are wanted.
        attentions: Whether weights are.
        x: The tokens before the first layer.
    """

    def __init__(self, config: KrauseConfig, hidden_states: bool | None, attentions: bool | None, x: Tensor) -> None:
        self.wants_states = config.output_hidden_states if hidden_states is None else hidden_states
        self.wants_weights = config.output_attentions if attentions is None else attentions
        self.states = [x]
        self.weights: list[Tensor] = []

    def through(self, block: nn.Module, x: Tensor, **heard: Any) -> Tensor:
        """Tokens after a block."""
        if self.wants_weights:
            x, weights = block(x, return_weights=True, **heard)
            self.weights.append(weights)
        else:
            x = block(x, **heard)
        return self.past(x)

    def past(self, x: Tensor) -> Tensor:
        """Tokens after a layer without attention."""
        self.states.append(x)
        return x

    @property
    def is_wanted(self) -> bool:
        """Whether anybody asks."""
        return bool(self.wants_states or self.wants_weights)

    @property
    def outputs(self) -> dict[str, tuple[Tensor, ...] | None]:
        """As transformers names them."""
        return {
            # Maps of pictures in raster order.
            "hidden_states": tuple(x.flatten(1, -2) for x in self.states) if self.wants_states else None,
            "attentions": tuple(self.weights) if self.wants_weights else None,
        }


def drop_rates(config: KrauseConfig) -> list[float]:
    """Rate of `DropPath` of each block, rising linearly from 0."""
    return [config.drop_path * i / max(config.num_hidden_layers - 1, 1) for i in range(config.num_hidden_layers)]


def blocks(config: KrauseConfig, mixers: Iterable[nn.Module]) -> nn.ModuleList:
    """One block for each attention, all of the configuration's width."""
    assert config.intermediate_size is not None
    pairs = zip(mixers, drop_rates(config), strict=True)
    return nn.ModuleList(Block(config, x, config.hidden_size, config.intermediate_size, rate) for x, rate in pairs)


class KrauseModel(PreTrainedModel):
    """What all models share: truncated normal weights (tails cut at 2 sigma, as in ViT), learned numbers of the score
    kept in float32.
    """

    supports_gradient_checkpointing = True
    _no_split_modules = ["Block"]
    _keep_in_fp32_modules_strict = ["log_sigma", "key_norm"]

    def __init__(self, config: KrauseConfig) -> None:
        if isinstance(config, KrauseConfig):  # what is none is refused by transformers
            config.check()  # attributes may have been set since it was built
        super().__init__(config)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but weights that the files lack are an error, not a fresh start.

        Raises:
            ValueError: Files that lack weights.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        resized = {name for name, *_ in info["mismatched_keys"]}  # a head of other classes, where that was asked for
        check_complete(info, lambda name: name not in resized, "save the model again by save_pretrained")
        fix_what_is_not_learned(model)
        return (model, info) if output_loading_info else model

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights of one module; the library guards `torch.nn.init`, so that what a file held is left alone."""
        width = self.config.initializer_range
        if isinstance(module, PerHead | nn.LayerNorm | Gate):
            module.reset_parameters()
        elif isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=width, a=-2 * width, b=2 * width)
            bias = getattr(module, "bias", None)
            if bias is not None:
                nn.init.zeros_(bias)
