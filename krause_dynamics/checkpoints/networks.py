"""Networks with all of their weights, read by transformers and peft, and nothing left random."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any, Literal

from krause_dynamics.checkpoints import shards
from krause_dynamics.checkpoints.bundled import SMOLLM2
from krause_dynamics.checkpoints.quiet import quiet_transformers
from krause_dynamics.checkpoints.sources import ADAPTERS

logger = logging.getLogger(__name__)

# Heads that a checkpoint of another task may lack, by the first word of a tensor's path: they lie after the last block
# and are never run here. Elsewhere in a path the same words may mean what every token passes ("e_score_correction").
_HEADS = ("pooler", "lm_head", "classifier", "cls", "score", "predictions", "qa_outputs")


def _is_of_a_head(tensor: str, prefix: str) -> bool:
    """Whether a tensor belongs to a head; ``prefix`` is what models with heads call their backbone."""
    first, _, rest = tensor.partition(".")
    return (rest.partition(".")[0] if first == prefix else first) in _HEADS


def network_of(
    source: str | Path, dtype: Any, trust_remote_code: bool, places: dict[str, str] | Literal["auto"] | None = None
) -> tuple[Any, dict[str, Any]]:
    """The network of a folder or a name, and facts about its loading.

    Args:
        source: Folder, also of adapters, or a name that transformers resolves.
        dtype: Of the weights; None: as stored.
        trust_remote_code: Whether Python files of the checkpoint may run.
        places: Where its modules go, as accelerate's device maps say it; None: all into memory.

    Raises:
        ValueError: It cannot be read, a shard is missing or damaged, or tensors of its blocks are missing.
    """
    if isinstance(source, Path) and not (source / "config.json").exists():
        return _adapted(source, dtype, trust_remote_code)
    from transformers import AutoModel

    if isinstance(source, Path):
        shards.check(source)
    options: dict[str, Any] = {} if places is None else {"device_map": places}
    try:
        with quiet_transformers():
            model, info = AutoModel.from_pretrained(
                source, dtype=dtype or "auto", trust_remote_code=trust_remote_code, output_loading_info=True, **options
            )
    except Exception as error:  # a configuration with an odd number makes it raise nearly anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"model: cannot load {str(source)!r} ({reason}); pass an existing folder, or a name such as {SMOLLM2!r}"
        ) from error
    prefix = model.base_model_prefix
    missing = sorted(key for key in info["missing_keys"] if not _is_of_a_head(key, prefix))
    if missing:
        raise ValueError(
            f"model {str(source)!r} lacks {len(missing)} tensors that its configuration needs, such as {missing[0]!r}; "
            "they would be random. Pass a complete checkpoint"
        )
    unexpected = sorted(key for key in info["unexpected_keys"] if not _is_of_a_head(key, prefix))
    if unexpected:
        logger.warning("%s: %d tensors of the file are not used, such as %s", source, len(unexpected), unexpected[0])
    return model, {"tensors_not_used": unexpected}


def _adapted(folder: Path, dtype: Any, trust_remote_code: bool) -> tuple[Any, dict[str, Any]]:
    """The base model that adapters name, with the adapters of a folder in it."""
    import peft
    import transformers

    try:
        config = peft.PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"model folder {folder}: its {ADAPTERS} cannot be read ({error})") from error
    base = config.base_model_name_or_path
    if not base:
        raise ValueError(f"model folder {folder}: its {ADAPTERS} names no base model; load it with peft and pass it")
    task = str(getattr(config.task_type, "value", config.task_type))
    kinds = {"CAUSAL_LM": "AutoModelForCausalLM", "SEQ_CLS": "AutoModelForSequenceClassification"}
    kinds |= {"TOKEN_CLS": "AutoModelForTokenClassification", "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM"}
    kind = getattr(transformers, kinds.get(task, "AutoModel"))
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # peft only warns where adapters find no place
            below = kind.from_pretrained(base, dtype=dtype or "auto", trust_remote_code=trust_remote_code)
            model = peft.PeftModel.from_pretrained(below, str(folder))
    except (OSError, ValueError, RuntimeError, UserWarning) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"model folder {folder} holds adapters for {base!r}, which cannot be put together here ({reason}); load "
            "the two with peft and pass the model"
        ) from error
    return model, {"tensors_not_used": [], "base_model": base}
