"""Where a model comes from and goes to, tried out before anything of it is read or run."""

from __future__ import annotations

import os
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from krause_dynamics.checkpoints.bundled import RXN_ALBERT, SMOLLM2, rxn_albert_folder, smollm2_folder

ANSWER_WITHIN = 5.0  # seconds in which the hub must answer a first question
ADAPTERS = "adapter_config.json"


def place_of(device: str | torch.device | None) -> torch.device:
    """The device, tried out before anything is read from disk."""
    target = "cpu" if device is None else device
    try:
        return torch.empty(0, device=target).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device {str(target)!r} cannot be used ({reason}); leave it out to run on the CPU") from None


def check_computes(dtype: Any, device: torch.device | None) -> None:
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


def source_of(model: str | os.PathLike[str]) -> str | Path:
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
