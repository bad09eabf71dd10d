"""The blocks of a trained model: which modules the residual stream passes, and in which order."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from krause_dynamics.checkpoints.backbone import of_transformers
from krause_dynamics.checkpoints.equal_blocks import equal_blocks
from krause_dynamics.errors import UnsupportedModel


def check_kind(model: Any, argument: str = "input_ids", *, counted: bool = True) -> None:
    """Refuse models which are not a stack of blocks over what they are shown.

    Args:
        model: The model.
        argument: What its ``forward`` would be given: ``"input_ids"`` or ``"pixel_values"``.
        counted: Whether the configuration must say how many blocks there are; False where they are given.

    Raises:
        UnsupportedModel: With the reason and, where there is one, the way out.
    """
    name = type(model).__name__
    if not of_transformers(model):
        return  # a module of somebody's own
    if "decoder_input_ids" in inspect.signature(model.forward).parameters:
        raise UnsupportedModel(
            f"{name} is an encoder-decoder, two stacks; pass part='encoder' or part='decoder' for one alone, or pairs "
            "to kd.checkpoints.encoder_decoder, where the decoder hears the encoder"
        )
    taken = getattr(model, "main_input_name", "input_ids")
    if taken != argument:
        shown = (
            "" if taken != "pixel_values" else " (pictures: a floating array (n, channels, height, width), or files)"
        )
        raise UnsupportedModel(f"{name} takes {taken}{shown}, not {argument}{_suggested(model, argument)}")
    if counted and not _numbers_of_layers(model):
        raise UnsupportedModel(
            f"{name}: its configuration does not say how many layers there are (num_hidden_layers)"
            f"{_suggested(model, argument)}"
        )


def _suggested(model: Any, argument: str) -> str:
    """Parts of a composed model that are stacks over what it is shown, as a way out; empty where there is none."""
    from transformers import PreTrainedModel as Base

    reads = _reads_pixels if argument == "pixel_values" else _reads_ids
    parts = [
        name
        for name, part in model.named_modules()
        if name and isinstance(part, Base) and _numbers_of_layers(part) and reads(part)
    ]
    return f"; pass part={parts[0]!r} for that part of it" if parts else ""


def _reads_ids(model: Any) -> bool:
    named = model.main_input_name == "input_ids" and "input_ids" in inspect.signature(model.forward).parameters
    return named and "pixel_values" not in inspect.signature(model.forward).parameters


def _reads_pixels(model: Any) -> bool:
    named = model.main_input_name == "pixel_values" and "pixel_values" in inspect.signature(model.forward).parameters
    return named and "input_ids" not in inspect.signature(model.forward).parameters


def _numbers_of_layers(model: Any) -> list[int]:
    """How many blocks a configuration may mean: encoders and decoders of one share it and differ in number."""
    names = ("num_hidden_layers", "encoder_layers", "decoder_layers", "num_decoder_layers")
    numbers: list[int] = []
    for name in names:
        number = getattr(model.config, name, None)
        if number is not None and int(number) not in numbers:
            numbers.append(int(number))
    return numbers


def find_blocks(model: Any, blocks: Sequence[nn.Module] | None = None) -> tuple[list[nn.Module], int]:
    """(modules to watch, number of calls that one forward pass must make).

    One module may be called many times: in ALBERT the layers of a group are called again and again.

    Args:
        model: The base model, without its head.
        blocks: The blocks in order, where the search cannot find them.

    Raises:
        UnsupportedModel: If no list of modules has the number of layers that the configuration states.
    """
    if blocks is not None:
        return _given(blocks), len(blocks)
    if not of_transformers(model):
        found = equal_blocks(model)
        return found, len(found)
    if getattr(model.config, "depths", None):
        raise UnsupportedModel(
            f"{type(model).__name__} merges its tokens between stages, so that no sequence of patches runs through all "
            "of its blocks: what is analysed keeps its tokens. Pass the blocks of one stage of the picture, such as "
            "blocks=list(model.encoder.layers[0].blocks) of Swin, or list(model.layers[:2]) of KSwin"
        )
    layers = int(getattr(model.config, "num_hidden_layers", 0) or 0)
    groups = getattr(getattr(model, "encoder", None), "albert_layer_groups", None)
    if groups is not None:
        shared = [layer for group in groups for layer in group.albert_layers]
        return shared, layers * int(model.config.inner_group_num)
    lists: dict[str, nn.ModuleList] = {}
    for layers in _numbers_of_layers(model):
        lists = _lists(model, layers)
        if len(lists) == 1:
            break
    if len(lists) != 1:
        raise UnsupportedModel(
            f"{type(model).__name__}: expected one list of {layers or 'so many'} blocks (num_hidden_layers), found "
            f"{sorted(lists) or 'none'}; pass the modules themselves as blocks="
        )
    return list(next(iter(lists.values()))), layers


def _given(blocks: Any) -> list[nn.Module]:
    """Blocks that were named.

    Raises:
        TypeError: No list of modules.
        ValueError: None.
    """
    if isinstance(blocks, nn.Module) and not isinstance(blocks, nn.ModuleList | nn.Sequential):
        raise TypeError(f"blocks must be a list of modules, received one {type(blocks).__name__}; pass [module]")
    found = list(blocks)
    wrong = [type(block).__name__ for block in found if not isinstance(block, nn.Module)]
    if wrong:
        raise TypeError(f"blocks must be a list of modules, received a {wrong[0]} in it; pass list(model.layers)")
    if not found:
        raise ValueError("blocks must be at least one module, received none; leave it out to have them searched")
    return found


def _lists(model: Any, layers: int) -> dict[str, nn.ModuleList]:
    lists: dict[str, nn.ModuleList] = {}
    inside: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == layers and not name.startswith(inside):
            lists[name] = module
            inside = (*inside, f"{name}.")
    if len(lists) > 1:  # adapters or embeddings may be lists of the same length: keep those that hold attention
        lists = {name: found for name, found in lists.items() if all(map(attends, found))}
    return lists


def attends(block: nn.Module) -> bool:
    """Whether a block holds attention, by the names of its modules' classes."""
    return any("attention" in type(part).__name__.lower() for part in block.modules())


def device_of(model: Any) -> torch.device:
    """Where a model runs: of its first parameter that is loaded, or the CPU."""
    # Weights that lie on disk have no device of their own; where all are outlines, so are the states.
    devices = [weight.device for weight in model.parameters()]
    return next((device for device in devices if device.type != "meta"), devices[0] if devices else torch.device("cpu"))


def context_length(model: Any) -> int | None:
    """Longest sequence that the model takes, None when its configuration gives no limit."""
    length = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if length is None or int(length) < 1:  # XLNet: -1 for none
        return None
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from padding_idx + 1 on, inside the same table.
        if name.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            return int(length) - int(module.padding_idx) - 1
    return int(length)
