"""How the attention of a model is read, how much of it, and whether all of it was: nothing is lost silently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from krause_dynamics.checkpoints import capture, own_attention, windows
from krause_dynamics.checkpoints.backbone import evaluating, of_transformers
from krause_dynamics.errors import UnsupportedModel

TIERS = ("sink", "statistics", "full")
MAPS = 1 << 28  # bytes that the attention maps of one block may take under attention="auto"


def tier_of(attention: str | None, model: Any, batch: int, tokens: int) -> str:
    """How much is looked at; ``"auto"``: the maps of a block where they are small."""
    if attention == "auto":
        heads = getattr(getattr(model, "config", None), "num_attention_heads", None) or 1
        return "full" if 4 * batch * heads * tokens**2 <= MAPS else "statistics"
    return {None: "none", "weights": "full", "eager": "statistics"}.get(attention, str(attention))


def path_of(model: Any, attention: str | None, blocks: list[torch.nn.Module]) -> str:
    """How attention is read.

    ``registry`` if the model's attention can be replaced for the pass, ``eager``: what the model itself returns,
    ``krause``: calls of our rules, ``calls``: of a module of one's own these and calls of torch's attention,
    ``windows``: the weights of each window of a picture.
    """
    if attention is None:
        return "none"
    own = not of_transformers(model)
    if own or own_attention.is_ours(model):
        if attention == "eager":
            raise ValueError(
                "attention='eager' is for models of transformers that return their weights; leave it out, calls of "
                "others are seen as they are made"
            )
        return "calls" if own else "windows" if windows.in_windows(blocks) else "krause"
    if windows.in_windows(blocks):
        return "windows"
    if attention == "eager":
        return "eager"
    reason = capture.refusal(model)
    if reason is None:
        return "registry"
    implementation = model.config._attn_implementation
    if implementation not in (None, "eager", "sdpa"):
        raise UnsupportedModel(
            f"attention cannot be recorded: {reason}. Pass attention=None for the hidden states alone"
        )
    return "eager"


def without_attention(config: Any, expected: int) -> tuple[int, ...]:
    """Blocks that a hybrid's configuration gives another mixer: convolutions, state spaces, linear attention."""
    kinds = getattr(config, "layer_types", None) or getattr(config, "layers_block_type", None) or ()
    if len(kinds) != expected:
        return ()
    # "hybrid": attention beside another mixer (Falcon-H1), or after it (Zamba).
    has = [kind == "hybrid" or ("attention" in kind and "linear" not in kind) for kind in kinds]
    return tuple(i for i, attends in enumerate(has) if not attends)


def check_one_per_block(called: list[int], expected: int, silent: tuple[int, ...]) -> None:
    """Refuse calls of attention that are not one a block.

    Args:
        called: Blocks (0, 1, ...) in the order of calls.
        expected: Number of blocks.
        silent: Blocks that have none.

    Raises:
        UnsupportedModel: Naming the first block that made another number of calls.
    """
    if len(silent) == expected:
        raise UnsupportedModel("no block has softmax attention; pass attention=None for the hidden states alone")
    wanted = [block for block in range(expected) if block not in silent]
    if called != wanted:
        counts = [called.count(block) for block in range(expected)]
        wrong = next(i for i, count in enumerate(counts) if count != (i not in silent))
        raise UnsupportedModel(
            f"block {wrong + 1} made {counts[wrong]} calls of softmax attention where one is expected, so its "
            "statistics would be missing or mixed; pass attention=None for the hidden states alone (a gated model: "
            "kd.models.branch_statistics has each branch; a module of one's own is seen where it calls torch's "
            "scaled_dot_product_attention, nn.MultiheadAttention or attention of kd.nn, not where it multiplies itself)"
        )


def returned_weights(model: Any, output: Any, expected: int) -> Sequence[Tensor]:
    """The weights that the model itself returned, checked for what gets lost silently."""
    maps: Sequence[Tensor] | None = getattr(output, "attentions", None)
    name, implementation = type(model).__name__, model.config._attn_implementation
    number = sum(weights is not None for weights in maps or ())
    way_out = "" if implementation == "eager" else "load it with attn_implementation='eager', or "
    if not maps or len(maps) != expected or any(weights is None for weights in maps):
        raise UnsupportedModel(
            f"{name} returned attention weights of {number} of {expected} blocks, loaded with "
            f"attn_implementation={implementation!r}; {way_out}pass attention=None for the hidden states alone"
        )
    for i, weights in enumerate(maps):
        sums = weights.float().sum(-1)
        if weights.ndim != 4 or weights.shape[-2] != weights.shape[-1]:
            raise UnsupportedModel(
                f"{name}: the attention of block {i + 1} has shape {tuple(weights.shape)}, not one weight for each "
                "query and key (a window, perhaps); pass attention=None for the hidden states alone"
            )
        if not torch.allclose(sums, torch.ones_like(sums), atol=2e-2):
            raise UnsupportedModel(
                f"{name}: rows of the attention of block {i + 1} do not sum to 1, {tuple(weights.shape)}"
            )
    return maps


def check_unchanged(model: Any, plain: dict[str, Any], output: Any) -> None:
    """Asking a model for its weights must not change what it computes: seen on the first sequence of a batch.

    Args:
        model: Which was asked.
        plain: Arguments of the first sequence, without asking.
        output: What it answered for the batch when asked.

    Raises:
        UnsupportedModel: It does.
    """
    with torch.no_grad(), evaluating(model), torch.autocast(model.device.type, enabled=False):
        untouched = model(**plain).last_hidden_state.float()
    asked = output.last_hidden_state[:1].float()
    change = float((asked - untouched).norm() / untouched.norm().clamp_min(1e-30))
    if not change < (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.05):
        raise UnsupportedModel(
            f"{type(model).__name__} computes other states when asked for its attention weights ({change:.0%} "
            f"off; loaded with attn_implementation={model.config._attn_implementation!r}), so these are not its "
            "weights; load it with attn_implementation='eager', or pass attention=None for the hidden states alone"
        )
