"""State dictionaries as training scripts leave them: files, what the weights are nested in, prefixes of wrappers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from krause_dynamics.models.variants import State

WRAPPERS = re.compile(r"^(module\.|_orig_mod\.)+")  # of DistributedDataParallel and torch.compile
NESTS = ("state_dict", "model_state_dict", "model")  # under which training scripts keep the weights


def unwrapped(state: Mapping[str, Tensor]) -> State:
    """Names without the prefixes of wrappers.

    Raises:
        ValueError: What is no tensor with numbers in a row, or two weights of one name.
    """
    found: State = {}
    for name, weight in state.items():
        if not isinstance(weight, Tensor):
            raise ValueError(f"a state dictionary holds tensors, got {type(weight).__name__} for {name}")
        if weight.is_meta or weight.layout != torch.strided:
            kind = "one without content (meta)" if weight.is_meta else str(weight.layout)
            raise ValueError(f"weights must be dense tensors that hold numbers, got {kind} for {name}")
        plain = WRAPPERS.sub("", name)
        if plain in found:
            raise ValueError(
                f"the file holds {plain} twice, with the prefix of a wrapper and without; give one of them"
            )
        found[plain] = weight
    return found


def read(path: Path) -> Mapping[str, Tensor]:
    """What a file holds, without a word of code of it being run.

    Raises:
        ValueError: It is no state dictionary, or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, OSError, EOFError, LookupError) as error:
        said = [] if isinstance(error, LookupError) else str(error).splitlines()  # of a text: the number of a letter
        reason = "".join(said[:1]).partition("Weights only load failed")[0]
        raise ValueError(
            f"{path} is no state dictionary of tensors that can be read, or it is truncated or damaged"
            + (f" ({reason})" if reason else "")
        ) from error
    for nest in NESTS:
        if isinstance(content, dict) and isinstance(content.get(nest), dict):
            content = content[nest]
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold a state dictionary of tensors, got {type(content).__name__}")
    return content
