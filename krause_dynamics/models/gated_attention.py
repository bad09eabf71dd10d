"""The Krause branch beside the attention of a pretrained decoder, whose own module stays as it is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from krause_dynamics._arguments import COUNT, POSITIVE
from krause_dynamics.interaction import Segments, TopK, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.branches import Gate
from krause_dynamics.models.gated_cache import add_layers, layer_of, miss
from krause_dynamics.models.gated_masks import heard_of, packed_of
from krause_dynamics.models.padding import PADDING
from krause_dynamics.nn import LogSigma, krause_attention
from krause_dynamics.nn.huggingface.first_tokens import own_window

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
SUFFIX = "_krause"  # names of the published adapters


@dataclass(frozen=True)
class Branch:
    """Settings of the Krause branch; the defaults are those of Krause-Llama and Krause-Qwen (2602.11534).

    Attributes:
        window: W keys, the query's own counted.
        top_k: Keys that stay; ties with the k-th stay too, as published.
        sigma: Bandwidth of every head at the start.
        projections: ``"pretrained"``: weights and biases of the base; ``"fresh"``: drawn anew.
        gate: ``"learned"``, or ``"closed"``: the base alone, bit for bit.

    Raises:
        ValueError: Naming the setting, what it must be, and what was given.
    """

    window: int = 32
    top_k: int = 16
    sigma: float = 5.5
    projections: str = "pretrained"
    gate: str = "learned"

    def __post_init__(self) -> None:
        COUNT.read("window", self.window)
        COUNT.read("top_k", self.top_k)
        POSITIVE.read("sigma", self.sigma)
        for name, known in (("projections", ("pretrained", "fresh")), ("gate", ("learned", "closed"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")

    @property
    def neighbourhood(self) -> Neighbourhood:
        """Who is heard."""
        return heard_by(self.window, self.top_k)


def heard_by(window: int, top_k: int) -> Neighbourhood:
    """The last W keys, and of them the top-k with all ties."""
    return Window(window) & TopK(top_k, ties="keep")


class KrauseBranch(nn.Module):
    """Mixed into the class of an attention module by `gated_attention`; adds the branch and the gate to its forward."""

    config: Any
    layer_idx: int
    head_dim: int
    q_proj: Any
    o_proj_krause: Any
    gate_proj_krause: Any
    log_sigma: Any
    rotated: ClassVar[Callable[..., tuple[Tensor, Tensor]]]  # queries and keys, by the rotary positions of the base

    def add_branch(self, branch: Branch, width: int) -> None:
        """The branch's modules, on the device and in the dtype of the base's.

        Args:
            branch: Settings.
            width: Of the tokens.
        """
        like = self.q_proj.weight
        place: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        for name in PROJECTIONS:
            base = getattr(self, name)
            fresh = nn.Linear(base.in_features, base.out_features, bias=name != "o_proj", **place)
            setattr(self, name + SUFFIX, fresh)
        self.gate_proj_krause = Gate(width).to(**place)
        heads = self.q_proj.out_features // self.head_dim
        self.log_sigma = LogSigma(branch.sigma, heads).to(like.device, torch.promote_types(torch.float32, like.dtype))

    @torch.no_grad()
    def copy_projections(self) -> None:
        """Weights and biases of the base into the branch; zero biases where the base has none."""
        for name in PROJECTIONS:
            base, own = getattr(self, name), getattr(self, name + SUFFIX)
            own.weight.copy_(base.weight)
            if own.bias is not None:
                own.bias.zero_() if base.bias is None else own.bias.copy_(base.bias)

    @property
    def branch(self) -> Branch:
        """Settings, as the configuration has them now."""
        return Branch(**self.config.krause_branch)

    @property
    def sigma(self) -> Tensor:
        """Bandwidth (heads,), by a call, which FSDP and peft's wrapper of saved modules listen to."""
        found: Tensor = self.log_sigma(None)
        return found

    def forward(
        self,
        hidden_states: Tensor,
        position_embeddings: Any = None,
        attention_mask: Any = None,
        past_key_values: Any = None,
        **rest: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """The base's forward, then the branch and the gate; returned weights are those of the softmax branch."""
        branch, told = self.branch, PADDING in rest
        padding = rest.pop(PADDING, None)
        closed = branch.gate == "closed"
        if past_key_values is not None and not closed:
            add_layers(past_key_values, self.config.num_hidden_layers, branch.window)
        elif past_key_values is not None:
            miss(past_key_values, self.config.num_hidden_layers, self.layer_idx)
        softmax, weights = super().forward(
            hidden_states,
            position_embeddings=position_embeddings,
            attention_mask=attention_mask,
            past_key_values=past_key_values,
            **rest,
        )
        if closed:
            return softmax, weights
        window = branch.window
        if told:  # padding is all that a mask would add, but for a narrower window of the model
            attention_mask, own = padding, own_window(self)
            window = window if own is None else min(own, window)
        call = self.krause_call(hidden_states, position_embeddings, attention_mask, past_key_values)
        heard = heard_by(window, branch.top_k)
        packed = None if told else packed_of(self.config._attn_implementation, attention_mask, rest, hidden_states)
        heard = heard if packed is None else heard & Segments(packed)
        krause: Any = krause_attention(*call[:3], heard, **call[3])
        krause = self.o_proj_krause(krause.transpose(1, 2).flatten(2))
        return self.gate_proj_krause(softmax, krause), weights

    def krause_call(self, x: Tensor, positions: Any, mask: Any, cache: Any) -> tuple[Tensor, Tensor, Tensor, Any]:
        """Queries, keys, values and options of `krause_attention` for tokens x (batch, n, width)."""
        q, k, v = (
            getattr(self, name + SUFFIX)(x).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for name in PROJECTIONS[:3]
        )
        q, k = self.rotated(q, k, *positions)
        seen = x.shape[1]
        if cache is not None:
            layer = layer_of(cache, self.config.num_hidden_layers, self.layer_idx)
            k, v = layer.update(k, v)
            seen = layer.get_seq_length()
        return q, k, v, {"sigma": self.sigma, **heard_of(mask, q, k, seen, self.branch.window)}


def rotation_of(attention: type) -> Callable[..., tuple[Tensor, Tensor]]:
    """The rotary positions of the file of an attention class."""
    files = (vars(sys.modules[base.__module__]) for base in attention.__mro__)
    found: Callable[..., tuple[Tensor, Tensor]] = next(
        file["apply_rotary_pos_emb"] for file in files if "apply_rotary_pos_emb" in file
    )
    return found


@lru_cache(maxsize=64)
def gated_attention(base: type[nn.Module]) -> type[nn.Module]:
    """The class of an attention module with the branch; still an instance of the base's, so that recorders find it."""
    own = {"__doc__": f"`{base.__name__}` with the branch.", "rotated": staticmethod(rotation_of(base))}
    return type(f"KrauseGated{base.__name__}", (KrauseBranch, base), own)


def __getattr__(name: str) -> Any:
    """A class by its name, which is all that pickle keeps of it; the model's own class, read before, has its file."""
    plain = name.removeprefix("KrauseGated")
    known = [] if plain == name else list(sys.modules.items())  # thousands, which few names are worth
    for key, file in known:
        if key.startswith("transformers.models.") and plain in vars(file):
            return gated_attention(vars(file)[plain])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
