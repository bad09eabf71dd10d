"""Classes of krausified models: one beside each class of transformers, made when it is asked for.

``krause_llama`` is to ``llama`` what `KrauseLlamaForCausalLM` is to `LlamaForCausalLM`: the same modules and weights,
and a `LogSigma` in each attention module. The Auto classes know all of them once this module is loaded.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from krause_dynamics._value import value_from
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import Interaction
from krause_dynamics.models.folders import OwnFolder, check_complete
from krause_dynamics.models.padding import say_unpadded
from krause_dynamics.nn.huggingface.guards import KRAUSE, SOFTMAX
from krause_dynamics.nn.huggingface.own_code import dispatches
from krause_dynamics.nn.huggingface.rules import LayerRule
from krause_dynamics.nn.huggingface.unpadded import takes_masks
from krause_dynamics.nn.parts import LogSigma

PREFIX = "krause_"


class Krausified:
    """Mixed into a model of transformers by `krause_class`."""

    remembers_attention = True

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        asked = config._attn_implementation  # of from_pretrained or from_config
        config._attn_implementation = KRAUSE if asked is None else self._checked(asked)
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        grow(self)

    @classmethod
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As in transformers; a base folder's bandwidths, with ``config=`` of a krausified model, start as that says.

        Raises:
            ValueError: The files lack weights of attention modules.
        """
        model, info = super().from_pretrained(*args, output_loading_info=True, **kwargs)  # type: ignore[misc]
        missing = {name.rpartition(".")[0] for name in info["missing_keys"]}
        own = {name: part for name, part in model.named_modules() if isinstance(part, LogSigma)}
        attention = tuple(f"{name}." for name, part in model.named_modules() if dispatches(type(part)))  # type: ignore[arg-type]
        becomes = own.keys() if "config" in kwargs and own.keys() <= missing else ()  # of a base folder
        check_complete(
            info,
            lambda name: name.startswith(attention) and name.rpartition(".")[0] not in becomes,
            "save the model again by save_pretrained",
        )
        for name, part in own.items():
            if name in missing:
                start(part, model.get_submodule(name.rpartition(".")[0]).krause_rule)
        return (model, info) if output_loading_info else model

    def set_attn_implementation(self, attn_implementation: Any, *args: Any, **kwargs: Any) -> None:
        """``"krause"``, or ``"krause_softmax"``: the softmax twin on the same keys.

        Raises:
            UnsupportedModel: Another name, which would drop the rule.
        """
        super().set_attn_implementation(self._checked(attn_implementation), *args, **kwargs)  # type: ignore[misc]

    def get_correct_attn_implementation(self, requested_attention: Any, *args: Any, **kwargs: Any) -> Any:
        """As in transformers; a model around this one that changes its other parts leaves this one as it is."""
        if requested_attention not in (KRAUSE, SOFTMAX) and self._modules:  # type: ignore[attr-defined]
            return self.config._attn_implementation  # type: ignore[attr-defined]
        return super().get_correct_attn_implementation(requested_attention, *args, **kwargs)  # type: ignore[misc]

    def _checked(self, name: Any) -> Any:
        if name in (KRAUSE, SOFTMAX):
            return name
        raise UnsupportedModel(
            f"{type(self).__name__} is its attention, {KRAUSE!r} or {SOFTMAX!r} (its softmax twin), got {name!r}; "
            "kd.unkrausify(model) gives the model with its own attention back"
        )


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


@cache
def krause_config(base: Any) -> Any:
    """The configuration class beside one of transformers; its models become known to the Auto classes."""
    kind = PREFIX + base.model_type
    config = type(
        f"Krause{base.__name__}", (OwnFolder, base),
        {"model_type": kind, "__module__": __name__, "__doc__": f"`{base.__name__}` and the rules of its layers."},
    )  # fmt: skip
    CONFIG_MAPPING.register(kind, config)
    for auto in vars(modeling_auto).values():
        mapping = getattr(auto, "_model_mapping", None)
        if isinstance(auto, type) and mapping is not None and base in mapping:
            found = mapping[base]
            if isinstance(found, type):
                mapping.register(config, _class_of(found, config), exist_ok=True)
    return config


def krause_class(base: Any) -> Any:
    """The class beside a model class of transformers."""
    return _class_of(base, krause_config(CONFIG_MAPPING[base.config_class.model_type]))  # type: ignore[arg-type]


@cache
def _class_of(base: Any, config: Any) -> Any:
    strict = sorted({*(getattr(base, "_keep_in_fp32_modules_strict", None) or ()), "log_sigma"})
    return type(
        f"Krause{base.__name__}", (Krausified, base),
        {"config_class": config, "_keep_in_fp32_modules_strict": strict, "__module__": __name__,
         "__doc__": f"`{base.__name__}` with Krause attention; see `krausify`."},
    )  # fmt: skip


class _Known(dict[str, Any]):
    """Configurations that were registered, and ``krause_NAME`` for every NAME of the library, made on demand."""

    def __contains__(self, kind: object) -> bool:
        return super().__contains__(kind) or (
            isinstance(kind, str) and kind.startswith(PREFIX) and kind.removeprefix(PREFIX) in CONFIG_MAPPING._mapping
        )

    def __missing__(self, kind: str) -> Any:
        if kind not in self:
            raise KeyError(kind)
        return krause_config(CONFIG_MAPPING[kind.removeprefix(PREFIX)])  # type: ignore[arg-type]


def know_all() -> None:
    """Let the Auto classes find krausified models of any family; no family is imported for it."""
    if not isinstance(CONFIG_MAPPING._extra_content, _Known):
        CONFIG_MAPPING._extra_content = _Known(CONFIG_MAPPING._extra_content)


def __getattr__(name: str) -> Any:
    """A class by its name, which is all that pickle keeps of it."""
    base: Any = getattr(transformers, name.removeprefix("Krause"), None) if name.startswith("Krause") else None
    kinds: Any = base.__mro__ if isinstance(base, type) else ()
    if transformers.PreTrainedModel in kinds:
        return krause_class(base)
    if transformers.PreTrainedConfig in kinds:
        return krause_config(base)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
