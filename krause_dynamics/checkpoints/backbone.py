"""The stack of blocks that is meant by a model: without wrappers, adapters' shells, heads and other parts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from krause_dynamics.errors import UnsupportedModel


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout off, and every module's own mode restored afterwards."""
    before = [module for module in model.modules() if module.training]
    if before:
        model.eval()
    try:
        yield
    finally:
        for module in before:
            module.training = True


def of_transformers(model: Any) -> bool:
    """Whether a model is one of transformers, by its configuration; a module of one's own may have another."""
    return hasattr(getattr(model, "config", None), "_attn_implementation_internal")


def resolved(model: Any, part: str | None) -> Any:
    """The stack of blocks that is meant by a model: without wrappers, adapters' shells and heads.

    Args:
        model: A ``transformers`` model, also inside peft, DataParallel or DistributedDataParallel.
        part: ``"encoder"``, ``"decoder"``, or the path of a submodule, such as ``"language_model"``.

    Raises:
        UnsupportedModel: Adapters that put tokens before the sequence.
        ValueError: No such part.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    model = getattr(model, "_orig_mod", model)  # torch.compile
    if hasattr(model, "get_base_model"):  # peft
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise UnsupportedModel(
                f"{type(model).__name__} puts learned tokens before every sequence (prompt learning), which the "
                "model below it would not show; merge it into the inputs, or pass model.get_base_model() without them"
            )
        model = model.get_base_model()
    base = getattr(model, "base_model", model)
    shown = getattr(model, "main_input_name", "")
    if shown in _takes(model) and shown not in _takes(base):
        base = model  # what bears the name of the base is an inner stack (DINOv3)
    if part is not None:
        return _part(base, part)
    # A decoder of an encoder-decoder as a language model: transformers wraps it once more, without embeddings.
    inner = getattr(base, "decoder", None)
    return inner if type(base).__name__.endswith("DecoderWrapper") and inner is not None else base


def _takes(model: Any) -> Any:
    """Names of the arguments of a pass; a shell around a stack of blocks need not have one."""
    forward = getattr(model, "forward", None)
    return () if forward is None else inspect.signature(forward).parameters


def _part(model: Any, part: str) -> Any:
    getter = {"encoder": "get_encoder", "decoder": "get_decoder"}.get(part)
    try:
        found = getattr(model, getter)() if getter and hasattr(model, getter) else model.get_submodule(part)
    except AttributeError:
        found = None
    if found is None or found is model or (hasattr(model, "config") and not hasattr(found, "config")):
        named = sorted(
            {name for name, below in model.named_modules() if name and hasattr(below, "get_input_embeddings")}
        )
        raise ValueError(f"part must name a model inside {type(model).__name__}, such as {named}, received {part!r}")
    return found
