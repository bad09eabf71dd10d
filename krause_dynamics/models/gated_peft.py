"""Adapters that peft alone neither loads onto a base without the branch nor takes for ordinary ones.

An ordinary LoRA adapter whose targets a base lacks is loaded without a word: peft asks for one match, not for all. Ours
therefore bear a type of their own in their file. Where this package was not imported peft does not know it, and raises;
where it was, peft gives the base the branch that the adapter belongs to, before it looks for its targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import Any

from peft import LoraConfig, LoraModel
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from krause_dynamics.models.gated import OWN, add_krause_branch
from krause_dynamics.models.gated_identity import branch_of, check_sample, has_branch
from krause_dynamics.nn import LogSigma

BRANCH = (*OWN, "gate_proj_krause")  # names that no other model has
# An unknown type is a KeyError of peft, of which this is all that the user sees.
FILE_TYPE = "KRAUSE_LORA: import krause_dynamics.models first"


@dataclass
class KrauseLoraConfig(LoraConfig):
    """``peft.LoraConfig`` of a model with a Krause branch; from `lora_config`."""

    def to_dict(self) -> dict[str, Any]:
        """What is written to ``adapter_config.json``; in memory the type is that of LoRA, whose code runs."""
        held: dict[str, Any] = super().to_dict()
        return {**held, "peft_type": FILE_TYPE}


def ensure_branch(model: Any, config: Any) -> None:
    """Give a base the branch that an adapter belongs to.

    Args:
        model: What the adapter is put into, with or without the branch.
        config: Of the adapter, as peft has it; others than ours are left alone.

    Raises:
        ValueError: Settings that the adapter does not hold or that contradict the model's, another base, or weights
            that would be without content.
    """
    held = config.auto_mapping or {}
    named = [x for x in (config.target_modules, config.modules_to_save) if isinstance(x, list | set | tuple)]
    if "log_sigma" in (config.modules_to_save or ()) and "krause_branch" not in held:
        check_sigma(model)
    ours = "krause_branch" in held or any(part in names for names in named for part in BRANCH)
    if not ours or not hasattr(getattr(model, "config", None), "model_type"):
        return
    if "krause_branch" not in held and not has_branch(model):
        raise ValueError(
            "the adapter is of a model with a Krause branch and does not hold the settings of that; load it by "
            "kd.models.load_adapter(base, path, window=, top_k=, sigma=)"
        )
    branch = branch_of(model, held.get("krause_branch"), {})
    check_sample(model, held.get("base"))
    if has_branch(model):
        return
    if nn.Linear(1, 1).weight.is_meta:  # projections copied from the base are in no file
        raise ValueError(
            "low_cpu_mem_usage=True makes the weights of the Krause branch empty; leave it out, or give the base its "
            "branch first: kd.models.add_krause_branch(base)"
        )
    add_krause_branch(model, **branch)


def check_sigma(model: Any) -> None:
    """Refuse an adapter with bandwidths for a base that has none; peft would drop them without a word.

    Raises:
        ValueError: The base is not krausified.
    """
    if not any(isinstance(part, LogSigma) for part in model.modules()):
        raise ValueError(
            "the adapter holds bandwidths (log_sigma) of a Krause model, and the base has none; kd.krausify(base, ...) "
            "as it was trained first"
        )


def register() -> None:
    """Let peft know the type, and look after the branch wherever it puts an adapter into a model."""
    if FILE_TYPE in PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    known: Any = PEFT_TYPE_TO_CONFIG_MAPPING
    known[FILE_TYPE] = KrauseLoraConfig
    lora: Any = LoraModel
    prepare = lora._prepare_model

    @wraps(prepare)
    def prepared(self: Any, peft_config: Any, model: Any) -> None:
        ensure_branch(model, peft_config)
        prepare(self, peft_config, model)

    lora._prepare_model = prepared  # peft's place for changes of a model before its targets are looked for
