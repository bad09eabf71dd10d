"""What the two branches of a gated model weigh, and how the gate shares between them."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor

from krause_dynamics._arguments import Is, reads
from krause_dynamics.models.branches import GatedAttention
from krause_dynamics.models.gated_attention import KrauseBranch
from krause_dynamics.nn import sparse_weights
from krause_dynamics.nn.sparse import dense


class BranchWeights(NamedTuple):
    """Weights of both branches, one entry a layer.

    Attributes:
        softmax: (batch, heads, n, n), of the model's own attention.
        krause: (batch, heads, n, n), of the Krause branch.
        gate: (batch, n, 2): shares of the softmax and of the Krause branch, which sum to 1.
    """

    softmax: tuple[Tensor, ...]
    krause: tuple[Tensor, ...]
    gate: tuple[Tensor, ...]


@torch.no_grad()
@reads(model=Is(torch.nn.Module, "a model of transformers"))
def branch_weights(model: Any, *args: Any, **inputs: Any) -> BranchWeights:
    """Attention weights of the softmax branch and of the Krause branch, and the gate, of one pass.

    The dual branch has no single matrix of weights, and ``outputs.attentions`` is the softmax branch's alone. The
    pass runs with the model's eager attention, whatever it was loaded with; O(n^2) memory a layer.

    Args:
        model: A model with a Krause branch, with or without an adapter around it, or a `KrauseLM` with a gate.
        *args: What its forward takes.
        **inputs: Likewise, such as ``**tokenizer(text, return_tensors="pt")``.

    Raises:
        TypeError: A model without the branch.
    """
    parts = _parts(model)
    if not parts:
        raise TypeError(f"branch_weights takes a model with a Krause branch, got {type(model).__name__}")
    krause: list[Tensor] = []
    gate: list[Tensor] = []
    config = model.config
    before = config._attn_implementation_internal
    with ExitStack() as stack:
        for part in parts:
            hook = part.register_forward_pre_hook(
                lambda m, tokens, given: krause.append(_krause(m, tokens, given)), with_kwargs=True
            )
            stack.callback(hook.remove)
            hook = _gate(part).register_forward_pre_hook(lambda m, both: gate.append(m.share(*both)))
            stack.callback(hook.remove)
        stack.callback(setattr, config, "_attn_implementation_internal", before)
        config._attn_implementation_internal = "eager"
        outputs = model(*args, **{**inputs, "output_attentions": True, "use_cache": False})
    return BranchWeights(tuple(outputs.attentions), tuple(krause), tuple(gate))


def gates(model: torch.nn.Module) -> list[Any]:
    """The gates of a model, which share between its two branches: one a layer, none where it has one branch."""
    return [_gate(part) for part in _parts(model)]


def _parts(model: torch.nn.Module) -> list[Any]:
    return [module for module in model.modules() if isinstance(module, KrauseBranch | GatedAttention)]


def _gate(part: Any) -> Any:
    return part.gate_proj_krause if isinstance(part, KrauseBranch) else part.gate


def _krause(part: Any, tokens: tuple[Tensor, ...], given: dict[str, Any]) -> Tensor:
    """Weights (batch, heads, n, n) of a module's Krause branch."""
    if isinstance(part, GatedAttention):
        weights: Tensor = part.krause(*tokens, key_valid=given.get("key_valid"), return_weights="dense")[1]
        return weights
    call = part.krause_call(
        given["hidden_states"], given["position_embeddings"], given.get("attention_mask"), given.get("past_key_values")
    )
    return dense(*sparse_weights(call[0], call[1], part.branch.neighbourhood, **call[3]), call[1].shape[2])
