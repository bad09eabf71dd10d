"""Pretrained decoders with a Krause branch beside their softmax attention: Krause-Llama, Krause-Qwen of the paper."""

from __future__ import annotations

import copy
import inspect
from dataclasses import asdict
from functools import cache
from typing import Any

import torch
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    GenerationMixin,
    PreTrainedModel,
)

from krause_dynamics._value import check_names
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.models.branches import Gate
from krause_dynamics.models.decoding import Unpaged
from krause_dynamics.models.folders import OwnFolder, check_complete
from krause_dynamics.models.gated_attention import (
    PROJECTIONS,
    SUFFIX,
    Branch,
    KrauseBranch,
    gated_attention,
)
from krause_dynamics.models.gated_cache import add_layers
from krause_dynamics.models.padding import hand_on
from krause_dynamics.nn import LogSigma

# Families with four plain projections, rotary positions and no other part in their attention.
FAMILIES = ("llama", "mistral", "mixtral", "qwen2", "qwen2_moe", "gemma", "starcoder2", "granite")
PREFIX = "krause_gated_"
OWN = tuple(name + SUFFIX for name in PROJECTIONS)
WHOLE = ("gate_proj_krause", "log_sigma")  # parts that an adapter trains and saves as they are
PARTS = (*OWN, *WHOLE)


def add_krause_branch(model: Any, **settings: Any) -> Any:
    """Give every attention layer of a pretrained decoder a Krause branch of its own and a gate per token.

    ``out = a o_v + b o_k``, ``(a, b) = softmax(G [o_v; o_k] + c)``, a = 0.8 at the start: o_v is the model's own
    attention, untouched, under whatever ``attn_implementation``; o_k attends with a Gaussian score to the top-k of the
    last W tokens, with projections, rotated queries and keys, and a cache of its own. Draws (the gate's, fresh
    projections) come from torch's generator, as those of any module.

    Args:
        model: A causal language model of transformers (llama, mistral, mixtral, qwen2, qwen2_moe, gemma, starcoder2,
            granite), before any adapter.
        **settings: ``window=32, top_k=16, sigma=5.5, projections="pretrained", gate="learned"``: the published ones;
            projections may be ``"fresh"``, and a gate ``"closed"`` leaves the base alone, bit for bit. They stand in
            ``model.config.krause_branch``, where the gate can be closed and opened later.

    Returns:
        The same model, now of a class with a ``model_type`` of its own, which is saved and loaded by
        ``save_pretrained`` and the Auto classes. Outputs named ``attentions`` are the softmax branch's; see
        `branch_weights`.

    Raises:
        TypeError, ValueError: A setting that is none.
        UnsupportedModel: A family that cannot be served, with the reason; the model is left as it was.

    Examples:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> base = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        ...                                     num_attention_heads=2))
        >>> add_krause_branch(base, window=4, top_k=2).config.model_type
        'krause_gated_llama'

    Source: Krause Synchronization Transformers, 2602.11534.
    """
    check_names("Krause branch setting", settings, list(asdict(Branch())))
    branch = Branch(**settings)
    parts = _attention_parts(model)
    config_class, model_class = gated_classes(model.config.model_type)
    config, shared = copy.deepcopy(model.config), model.config
    config.__class__, config.krause_branch = config_class, asdict(branch)
    config.__dict__.pop("model_type", None)  # what was read from a file stands before the word of the class
    for module in model.modules():
        if getattr(module, "config", None) is shared:
            module.config = config
    model.__class__ = model_class
    _grow(model, parts, branch)
    with torch.no_grad():
        for part in parts:
            for name in PARTS:
                model._init_weights(getattr(part, name))
            if branch.projections == "pretrained":
                part.copy_projections()
    return model


def _grow(model: Any, parts: list[Any], branch: Branch) -> None:
    """Turn the attention modules into gated ones; the new weights are still to be filled."""
    for part in parts:
        kind: Any = type(part)
        part.__class__ = gated_attention(kind)
        part.add_branch(branch, model.config.hidden_size)
    model.register_forward_pre_hook(hand_on, with_kwargs=True)


def _attention_parts(model: Any) -> list[Any]:
    """The attention modules of a model that can be served.

    Raises:
        UnsupportedModel: It cannot.
    """
    kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    if str(kind).startswith(PREFIX):
        raise UnsupportedModel(f"this {kind} has a Krause branch already; its settings are in config.krause_branch")
    if kind not in FAMILIES or type(model) is not _base_classes(kind)[1]:
        raise UnsupportedModel(
            f"a Krause branch needs a causal language model of one of {', '.join(FAMILIES)}, got "
            f"{type(model).__name__} ({kind}): others normalise queries, fuse projections or rotate otherwise"
        )
    parts = [layer.self_attn for layer in model.model.layers]
    for part in parts:
        plain = {name: type(child) is nn.Linear for name, child in part.named_children()}
        if not all(plain.get(name) for name in PROJECTIONS) or "position_embeddings" not in _arguments(part):
            wrapped = sorted(name for name in PROJECTIONS if not plain.get(name))
            raise UnsupportedModel(
                f"the projections {', '.join(wrapped)} of {type(part).__name__} are not plain linear layers (an "
                "adapter, or quantised); add the branch to the base first"
            )
    return parts


def _arguments(module: nn.Module) -> Any:
    return inspect.signature(module.forward).parameters


def _base_classes(family: str) -> tuple[Any, Any]:
    config = CONFIG_MAPPING[family]
    return config, MODEL_FOR_CAUSAL_LM_MAPPING[config]


class GatedModel(Unpaged, PreTrainedModel, GenerationMixin):  # type: ignore[misc]  # mixed in, both come with the model
    """Mixed into a causal language model of transformers by `gated_classes`."""

    model: Any
    remembers_attention = True

    @staticmethod
    def kept_within(model: Any) -> Any:
        """By which saving asks a part how a model around it is saved: not at all.

        Raises:
            UnsupportedModel: Always.
        """
        raise UnsupportedModel(
            f"{type(model).__name__} holds a decoder with a Krause branch, which its own folder cannot say; save the "
            "decoder alone by its save_pretrained"
        )

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)
        settings = getattr(config, "krause_branch", None)
        config.krause_branch = asdict(Branch(**(settings or {})))
        _grow(self, [layer.self_attn for layer in self.model.layers], Branch(**config.krause_branch))
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights of one module: those of the branch as published, others as the base does."""
        if isinstance(module, LogSigma | Gate):
            module.reset_parameters()
        elif not isinstance(module, KrauseBranch):
            super()._init_weights(module)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but weights of the branch that the files lack are an error, not a fresh start.

        Raises:
            ValueError: The files are those of a base without the branch.
        """
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        check_complete(
            info,
            lambda name: not {"self_attn", *PARTS}.isdisjoint(name.split(".")),
            "load the base by AutoModelForCausalLM, then kd.models.add_krause_branch(base) or "
            "kd.models.load_adapter(base, path)",
        )
        return (model, info) if output_loading_info else model

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: Any, *rest: Any, **more: Any
    ) -> bool:
        """The branch's layers join the cache at once, so that ``generate`` sees what they can and cannot do."""
        above: Any = super()
        prepared: bool = above._prepare_cache_for_generation(generation_config, model_kwargs, *rest, **more)
        cache, branch = model_kwargs.get("past_key_values"), Branch(**self.config.krause_branch)
        if cache is not None and branch.gate != "closed":
            add_layers(cache, self.config.num_hidden_layers, branch.window)
            if generation_config.is_assistant:  # its guesses are taken back
                cache.activate_past_recording()
        return prepared

    def _valid_auto_compile_criteria(self, *_: Any, **__: Any) -> bool:
        """``generate`` does not compile: the branch's cache counts on the host."""
        return False


@cache
def gated_classes(family: str) -> tuple[Any, Any]:
    """Configuration and model class of a family with the branch, known to the Auto classes.

    Args:
        family: A ``model_type`` of `FAMILIES`.
    """
    base_config, base = _base_classes(family)
    kind = PREFIX + family
    config = type(
        f"KrauseGated{base_config.__name__}", (OwnFolder, base_config),
        {"model_type": kind, "__module__": __name__, "__doc__": f"`{base_config.__name__}` and ``krause_branch``."},
    )  # fmt: skip
    strict = sorted({*(getattr(base, "_keep_in_fp32_modules_strict", None) or ()), "log_sigma"})
    model = type(
        f"KrauseGated{base.__name__}", (GatedModel, base),
        {"config_class": config, "_keep_in_fp32_modules_strict": strict, "__module__": __name__,
         "__doc__": f"`{base.__name__}` with a Krause branch; see `add_krause_branch`."},
    )  # fmt: skip
    AutoConfig.register(kind, config)
    AutoModelForCausalLM.register(config, model)
    return config, model


def __getattr__(name: str) -> Any:
    """A class by its name, which is all that pickle keeps of it."""
    for family in FAMILIES if name.startswith("KrauseGated") else ():
        for kind in gated_classes(family):
            if kind.__name__ == name:
                return kind
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
