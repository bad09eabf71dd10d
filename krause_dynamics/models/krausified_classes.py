"""Classes of krausified models: one beside each class of transformers, made when it is asked for.

``krause_llama`` is to ``llama`` what `KrauseLlamaForCausalLM` is to `LlamaForCausalLM`: the same modules and weights,
and a `LogSigma` in each attention module. Of a model that is made of several (CLIP) it is the class of one of which
parts were krausified. The Auto classes know all of them once this module is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import transformers
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.models.decoding import Unpaged
from krause_dynamics.models.folders import OwnFolder, check_complete, fix_what_is_not_learned
from krause_dynamics.models.krausified_becoming import become
from krause_dynamics.models.krausified_layers import attention_modules, grow, remove, start
from krause_dynamics.nn.huggingface.own_code import dispatches
from krause_dynamics.nn.huggingface.refusals import KRAUSE, SOFTMAX
from krause_dynamics.nn.parts import LogSigma

PREFIX = "krause_"


class Mixed:
    """What every class made here can do."""

    @staticmethod
    def kept_within(model: Any) -> Any:
        """`holding`, by which saving (`guards`) asks a part how a model around it is saved."""
        return holding(model)

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
        fix_what_is_not_learned(model)
        return (model, info) if output_loading_info else model


class Krausified(Unpaged, Mixed):
    """Mixed into a model of transformers by `krause_class`."""

    remembers_attention = True

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        asked = config._attn_implementation  # of from_pretrained or from_config
        config._attn_implementation = KRAUSE if asked is None else self._checked(asked)
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        grow(self)

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


class HoldsKrausified(Mixed):
    """Mixed into a model that is made of several, some of which are krausified, as ``config.krause_parts`` says."""

    def __init__(self, config: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        for name, told in (getattr(config, "krause_parts", None) or {}).items():
            turn(self._part(name), told["krause"], told["krause_learns"])

    def _part(self, name: str) -> Any:
        """A part by its name in the class that was saved, which may be the base of this one or hold it.

        Raises:
            UnsupportedModel: There is none.
        """
        prefix = f"{self.base_model_prefix}."  # type: ignore[attr-defined]
        parts = dict(self.named_modules())  # type: ignore[attr-defined]
        names = (name, name.removeprefix(prefix), prefix + name)
        found = next((parts[each] for each in names if each in parts), None)
        if found is None:
            raise UnsupportedModel(
                f"{type(self).__name__} has no part {name}, which was krausified; load the folder in the class that "
                f"was saved, {', '.join(self.config.architectures or ())}"  # type: ignore[attr-defined]
            )
        return found


@contextmanager
def holding(model: Any) -> Iterator[None]:
    """A model with krausified parts in the class that remembers them, for as long as it is saved.

    Raises:
        UnsupportedModel: There is no such class.
    """
    kind, config = type(model), model.config
    base: Any = getattr(kind, "krause_base", kind)
    parts = {name: part for name, part in model.named_modules() if isinstance(part, Krausified)}
    known = config.model_type in CONFIG_MAPPING and type(config) is CONFIG_MAPPING[config.model_type]
    if parts and not config.sub_configs and (config.is_encoder_decoder or not known):
        name, part = next(iter(parts.items()))
        raise UnsupportedModel(
            f"{kind.__name__} holds a {type(part).__name__} ({name}), whose rule its own folder cannot say: save that "
            f"part alone (model.{name}.save_pretrained), or kd.unkrausify it"
        )
    undo = become(model, krause_class(base) if parts else base)
    try:
        _tell(model, parts)
        yield
    finally:
        undo()


def _tell(model: Any, parts: dict[str, Any]) -> None:
    """Write the rules of parts into the configuration of the model around them."""
    vars(model.config).pop("krause_parts", None)
    if model.config.sub_configs:
        told = {
            name: {"krause": part.config.krause, "krause_learns": part.config.krause_learns}
            for name, part in parts.items()
        }
        if told:
            model.config.krause_parts = told
        return
    rules = {
        id(module): rule
        for part in parts.values()
        for module, rule in zip(attention_modules(part), part.config.krause, strict=True)
    }
    model.config.krause = [rules.get(id(module)) for module in attention_modules(model)]
    model.config.krause_learns = all(part.config.krause_learns for part in parts.values())


def turn(model: Any, rules: Any, learns: bool) -> None:
    """Make a model of transformers a krausified one where it stands; it is left as it was if that fails.

    Args:
        model: The model.
        rules: One dictionary or ``None`` (softmax) an attention module.
        learns: Whether bandwidths are trained.
    """
    undo = become(model, krause_class(type(model)))
    config = model.config
    config.krause, config.krause_learns = rules, learns
    config.krause_base_attention, config._attn_implementation_internal = config._attn_implementation, KRAUSE
    try:
        grow(model)
    except Exception:
        remove(model)
        undo()
        raise


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
    mixed: Any = HoldsKrausified if config.sub_configs else Krausified
    return type(
        f"Krause{base.__name__}", (mixed, base),
        {"config_class": config, "krause_base": base, "_keep_in_fp32_modules_strict": strict, "__module__": __name__,
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
