"""How a model of transformers becomes one of another class where it stands, with a configuration of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.models.krausified_layers import attention_modules


def become(model: Any, kind: Any) -> Callable[[], None]:
    """Another class, with a configuration of its own, since configurations are shared between models.

    Some models replace the configuration of a part by an equal one, of which its modules do not hear
    (`VisionEncoderDecoderModel`); here they all hold one.

    Returns:
        What makes it as it was.

    Raises:
        UnsupportedModel: A module that attends holds a configuration that says something else.
    """
    before, shared = type(model), model.config
    holders = [m for m in model.modules() if type(getattr(m, "config", None)) is type(shared)]
    held = [(module, module.config) for module in holders if _alike(module.config, shared)]
    other = next((m for m in attention_modules(model) if m in holders and not _alike(m.config, shared)), None)
    if other is not None:
        raise UnsupportedModel(
            f"{type(other).__name__} in {before.__name__} holds a configuration of its own, which differs from the "
            "model's, so that one file cannot say both"
        )
    config = copy.deepcopy(shared)
    config.__class__ = kind.config_class
    vars(config).pop("model_type", None)  # of a file that was loaded: it would hide the class's own

    def put(kind: Any, configs: Iterable[tuple[Any, Any]]) -> None:
        for module, one in configs:
            module.config = one
        model.__class__ = kind
        _CAN_RECORD_REGISTRY[model] = model._can_record_outputs  # transformers keeps it by the name of the class

    put(kind, ((module, config) for module, _ in held))
    return lambda: put(before, held)


def _alike(one: Any, other: Any) -> bool:
    """Whether two configurations say the same, apart from what transformers notes in them."""
    noted = ("architectures", "dtype", "model_type", "transformers_version")
    told = [{k: v for k, v in vars(x).items() if not k.startswith("_") and k not in noted} for x in (one, other)]
    return one is other or bool(told[0] == told[1])
