"""Attention of transformers that no attention function reaches: code of its own, in a whole family or in a part of it.

A family may use the registry in its decoder and code of its own in its encoder (LongT5, Pegasus-X, BigBird-Pegasus). It
would run the rule in one part and softmax in the other, and code of its own takes the mask of an attention function
for something else. Such a family is refused as those are that have no registry at all.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

from torch import nn

_FAMILIES = "transformers.models."
DISPATCH = "ALL_ATTENTION_FUNCTIONS.get_interface("
UNTOLD = ("MaskFormerSwinBackbone", "MaskFormerSwinModel")
"""Models that the one around them makes of a configuration of its own, without the attention that was asked for."""
_ATTENDS = re.compile(r"softmax\(|\.Softmax\(|logsumexp\(|scaled_dot_product_attention|MultiheadAttention\(")
_COMPARES = re.compile(r"matmul\(|bmm\(|einsum\(| @ |scaled_dot_product_attention|MultiheadAttention\(")


def own_attention(model: Any) -> str | None:
    """Name of what attends with code of its own in a model of transformers, or is going to; ``None``: nothing.

    Args:
        model: A model, built or about to be; the models inside it answer for themselves.
    """
    kind = type(model)
    if not model._can_set_attn_implementation():
        return str(kind.__name__)
    if not model._modules:  # about to be built
        return _chosen_from_a_table(kind)  # type: ignore[arg-type]
    kinds: set[Any] = {type(part) for part in modules_of(model)}
    return min((kind.__name__ for kind in kinds if _has_own_code(kind)), default=None)


@cache
def dispatches(kind: Any) -> bool:
    """Whether a module of transformers calls the attention registry."""
    return kind.__module__.startswith(_FAMILIES) and DISPATCH in _source(kind)


def asks_registry(model: Any) -> bool:
    """Whether a module of a built model, or of a model inside it, may call an attention function of transformers."""
    return any(_may_ask(type(part)) for part in model.modules())  # type: ignore[arg-type]


@cache
def _may_ask(kind: Any) -> bool:
    """Code of transformers' families is read class by class, of others file by file; what cannot be read may."""
    return any(_asks(one) for one in kind.__mro__ if one.__module__.partition(".")[0] not in ("torch", "builtins"))


def _asks(kind: Any) -> bool:
    if kind.__module__.startswith(_FAMILIES):
        return dispatches(kind)
    if kind.__module__.startswith("transformers."):
        return False
    try:
        source = inspect.getsource(sys.modules[kind.__module__])
    except (OSError, TypeError, KeyError):
        return True
    return "ALL_ATTENTION_FUNCTIONS" in source or "AttentionInterface" in source


def modules_of(module: nn.Module) -> Iterator[nn.Module]:
    """Modules of a model without those of the models inside it."""
    from transformers import PreTrainedModel

    for part in module.children():
        if not isinstance(part, PreTrainedModel) or type(part).__name__ in UNTOLD:
            yield part
            yield from modules_of(part)


@cache
def _has_own_code(kind: Any) -> bool:
    """Whether a module weighs tokens, and asks no attention function.

    Heads that pool bear other names; gates of features (PatchTSMixer) have neither a mask nor products of tokens.
    """
    if not kind.__name__.endswith("Attention") or "Cross" in kind.__name__:
        return False
    source = _source(kind)
    if DISPATCH in source or _ATTENDS.search(source) is None:
        return False
    masked = any("mask" in name for name in inspect.signature(kind.forward).parameters)
    return masked or _COMPARES.search(source) is not None


def _source(kind: Any) -> str:
    ours = (one for one in kind.__mro__ if one.__module__.startswith(_FAMILIES))
    return "\n".join(inspect.getsource(one) for one in ours)


@cache
def _chosen_from_a_table(kind: Any) -> str | None:
    """The table of attention classes, one for each attention that the file knows, which building the model asks."""
    source = inspect.getsource(sys.modules[kind.__module__])
    if "_CLASSES[" not in source:
        return None
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    waiting, seen = [kind.__name__], set()
    while waiting:
        name = waiting.pop()
        if name in seen or name not in classes:
            continue
        seen.add(name)
        for node in ast.walk(classes[name]):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func).endswith("_CLASSES[config._attn_implementation]"):
                return ast.unparse(node.func).partition("[")[0]
            waiting.append(ast.unparse(node.func))
        waiting += [ast.unparse(base) for base in classes[name].bases]
    return None
