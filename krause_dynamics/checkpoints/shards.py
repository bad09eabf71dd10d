"""Folders of safetensors: whether every shard is there and whole, and models whose blocks stay on disk until they run.

The weights are read by transformers and accelerate (a device map whose blocks lie on ``"disk"``), so that names, types
and tied weights are theirs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from krause_dynamics.checkpoints.backbone import resolved
from krause_dynamics.checkpoints.blocks import find_blocks
from krause_dynamics.checkpoints.gguf_files import named
from krause_dynamics.checkpoints.quiet import quiet_transformers
from krause_dynamics.errors import UnsupportedModel

INDEX = "model.safetensors.index.json"


def check(folder: Path) -> None:
    """Every file of weights that a folder needs is there and whole.

    Raises:
        ValueError: A shard is missing, truncated or damaged; it is named.
    """
    from safetensors import SafetensorError, safe_open

    for path in files_of(folder):
        if not path.is_file():
            raise ValueError(f"model folder {folder} lacks the shard {path.name}, which its index names; copy it there")
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"model folder {folder}: the shard {path.name} ({path.stat().st_size} bytes) is truncated or damaged "
                f"({error}); copy it again"
            ) from error


def files_of(folder: Path) -> list[Path]:
    """Files of safetensors that make up a model, from its index where there is one; none for other formats.

    Raises:
        ValueError: The index cannot be read.
    """
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    index = folder / INDEX
    if not index.is_file():
        return []
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        return sorted(folder / name for name in names)
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"model folder {folder}: its {INDEX} cannot be read ({error}); copy it again") from error


def outline(source: str | Path, dtype: Any, trust_remote_code: bool) -> Any:
    """The model without its weights: shapes alone, of no memory.

    Raises:
        ValueError: Its configuration cannot be read.
    """
    from transformers import AutoConfig, AutoModel

    try:
        with quiet_transformers(), torch.device("meta"):
            place, options = named(source)
            config = AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code, **options)
            chosen = dtype if dtype is not None else getattr(config, "dtype", None)
            chosen = getattr(torch, chosen) if isinstance(chosen, str) else chosen
            return AutoModel.from_config(config, dtype=chosen, trust_remote_code=trust_remote_code).eval()
    except Exception as error:  # a configuration with an odd number makes it raise nearly anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"model: cannot read the configuration of {str(source)!r} ({reason}); the file is cut or damaged, or of a "
            "family that transformers does not know"
        ) from error


def placement(
    source: str | Path, part: str | None, dtype: Any, device: torch.device, trust_remote_code: bool
) -> dict[str, str]:
    """Where the modules of a model go: its blocks on disk, everything else on ``device``.

    Raises:
        ValueError: Weights that are not safetensors, or adapters.
        UnsupportedModel: No list of blocks is found.
    """
    if isinstance(source, Path) and not files_of(source):
        raise ValueError(
            f"model folder {source} holds no safetensors, which alone are read block by block; write them with "
            "save_pretrained where the model fits into memory, or leave memory= out"
        )
    model = outline(source, dtype, trust_remote_code)
    blocks, calls = find_blocks(resolved(model, part))
    if len(blocks) > calls:
        raise UnsupportedModel(f"{type(model).__name__} does not run all of its blocks; leave memory= out")
    return _places(model, "", {id(block) for block in blocks}, str(device))


def _places(module: nn.Module, path: str, blocks: set[int], device: str) -> dict[str, str]:
    if id(module) in blocks:
        return {path: "disk"}
    if not any(id(part) in blocks for part in module.modules()):
        return {path: device}
    before = f"{path}." if path else ""
    places = {f"{before}{name}": device for name, _ in module.named_parameters(recurse=False)}
    places |= {f"{before}{name}": device for name, _ in module.named_buffers(recurse=False)}
    for name, child in module.named_children():
        places |= _places(child, f"{before}{name}", blocks, device)
    return places
