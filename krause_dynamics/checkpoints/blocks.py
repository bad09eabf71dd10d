"""The blocks of a trained model: which modules the residual stream passes, and in which order."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.errors import UnsupportedModel


class NotFinite(ValueError):
    """NaN or infinity in a model's states or weights."""


def check_kind(model: Any, argument: str = "input_ids") -> None:
    """Refuse models which are not a stack of blocks over what they are shown.

    Args:
        model: The model.
        argument: What its ``forward`` would be given: ``"input_ids"`` or ``"pixel_values"``.

    Raises:
        UnsupportedModel: With the reason and, where there is one, the way out.
    """
    name = type(model).__name__
    if not hasattr(model, "config"):
        return  # a module of somebody's own, whose blocks were given
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
    if not _numbers_of_layers(model):
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


def resolved(model: Any, part: str | None) -> Any:
    """The stack of blocks that is meant by a model: without wrappers, adapters' shells and heads.

    Args:
        model: A ``transformers`` model, also inside peft, DataParallel or DistributedDataParallel.
        part: ``"encoder"``, ``"decoder"``, or the path of a submodule, such as ``"language_model"``.

    Raises:
        UnsupportedModel: Adapters that put tokens before the sequence.
        ValueError: No such part.
    """
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        model = model.module
    if hasattr(model, "get_base_model"):  # peft
        if getattr(model.active_peft_config, "is_prompt_learning", False):
            raise UnsupportedModel(
                f"{type(model).__name__} puts learned tokens before every sequence (prompt learning), which the "
                "model below it would not show; merge it into the inputs, or pass model.get_base_model() without them"
            )
        model = model.get_base_model()
    base = getattr(model, "base_model", model)
    shown = getattr(model, "main_input_name", "")
    if shown in _takes(model) and shown not in _takes(base):
        base = model  # what bears the name of the base is an inner stack (DINOv3)
    if part is not None:
        return _part(base, part)
    # A decoder of an encoder-decoder as a language model: transformers wraps it once more, without embeddings.
    inner = getattr(base, "decoder", None)
    return inner if type(base).__name__.endswith("DecoderWrapper") and inner is not None else base


def _takes(model: Any) -> Any:
    """Names of the arguments of a pass; a shell around a stack of blocks need not have one."""
    forward = getattr(model, "forward", None)
    return () if forward is None else inspect.signature(forward).parameters


def _part(model: Any, part: str) -> Any:
    getter = {"encoder": "get_encoder", "decoder": "get_decoder"}.get(part)
    try:
        found = getattr(model, getter)() if getter and hasattr(model, getter) else model.get_submodule(part)
    except AttributeError:
        found = None
    if found is None or found is model or not hasattr(found, "config"):
        named = sorted(
            {name for name, below in model.named_modules() if name and hasattr(below, "get_input_embeddings")}
        )
        raise ValueError(f"part must name a model inside {type(model).__name__}, such as {named}, received {part!r}")
    return found


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
        return list(blocks), len(blocks)
    if getattr(model.config, "depths", None):
        raise UnsupportedModel(
            f"{type(model).__name__} merges its tokens between stages, so that no sequence of patches runs through all "
            "of its blocks: what is analysed keeps its tokens. Pass the blocks of one stage of the picture, such as "
            "blocks=list(model.encoder.layers[0].blocks), with attention=None where it attends in windows"
        )
    layers = int(getattr(model.config, "num_hidden_layers", 0) or 0)
    groups = getattr(getattr(model, "encoder", None), "albert_layer_groups", None)
    if groups is not None:
        shared = [layer for group in groups for layer in group.albert_layers]
        return shared, layers * int(model.config.inner_group_num)
    for layers in _numbers_of_layers(model):
        lists = _lists(model, layers)
        if len(lists) == 1:
            break
    if len(lists) != 1:
        raise UnsupportedModel(
            f"{type(model).__name__}: expected one list of {layers} blocks (num_hidden_layers), found "
            f"{sorted(lists) or 'none'}; pass the modules themselves as blocks="
        )
    return list(next(iter(lists.values()))), layers


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


class StreamRecorder:
    """Hooks on the blocks that hand on the residual stream before the first block and after each call.

    Attributes:
        time_major: Whether the blocks' states are (T, batch, d), as XLNet's.
        told: Called with (0, embedding) and (i, state after call i), each (batch, T, d), float32, where the block runs.
        earliest: Layers before it are not told of.
        block: Number of the call that is running, None outside the blocks.
        shape: (batch, T) of the states seen so far.
        calls: Number of calls that have ended.
        last: What the last of them left, as the model has it.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        told: Callable[[int, Tensor], None],
        *,
        time_major: bool = False,
        earliest: int = 0,
    ) -> None:
        self.blocks = blocks
        self.told = told
        self.time_major = time_major
        self.earliest = earliest
        self.thread = threading.get_ident()
        self.block: int | None = None
        self.calls = 0
        self.shape: torch.Size | None = None
        self.last: Tensor | None = None
        self._handles: list[Any] = []

    def __enter__(self) -> StreamRecorder:
        # A module listed twice gets one pair of hooks: calls are counted, not modules.
        for module in {id(block): block for block in self.blocks}.values():
            self._handles.append(module.register_forward_pre_hook(self._before, with_kwargs=True))
            self._handles.append(module.register_forward_hook(self._after, with_kwargs=True))
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _before(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != self.thread:  # a forward pass of another thread through the same blocks
            return
        entering = args[0] if args else kwargs.get("hidden_states")
        if not isinstance(entering, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} takes no hidden states as its first argument")
        if self.last is None:
            self._tell(0, entering)
        elif entering is not self.last and not torch.equal(entering, self.last):
            raise UnsupportedModel(
                f"the model changes the residual stream between blocks {self.calls} and {self.calls + 1}: what enters "
                "the next block is not what left the last one, so states after blocks would leave a step out"
            )
        self.block = self.calls

    def _after(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        if threading.get_ident() != self.thread:
            return
        leaving = output[0] if isinstance(output, tuple | list) else output
        if not isinstance(leaving, Tensor):
            raise UnsupportedModel(f"{type(module).__name__} returns {type(leaving).__name__}, not hidden states")
        self.last = leaving
        self.calls += 1
        self._tell(self.calls, leaving)
        self.block = None

    def _tell(self, layer: int, state: Tensor) -> None:
        """Hand on a state, checked: what follows would name neither layer nor model."""
        if layer < self.earliest:
            return
        if state.ndim != 3:
            raise UnsupportedModel(
                f"layer {layer} has states of shape {tuple(state.shape)} where (batch, tokens, d) is expected: a model "
                "of several streams is not analysed"
            )
        copy = _copied(state.transpose(0, 1) if self.time_major else state)
        if not bool(torch.stack(torch.aminmax(copy)).isfinite().all()):  # NaN is passed on; one reading of the states
            where = "the embedding" if layer == 0 else f"block {layer}"
            raise NotFinite(
                f"model must have finite hidden states, but {where} gives NaN or infinity in {state.dtype}; where that "
                "is a half type, load it with dtype='float32'"
            )
        if self.shape is not None and copy.shape[:2] != self.shape:
            raise UnsupportedModel(
                f"block {layer} turns {tuple(self.shape)} tokens into {tuple(copy.shape[:2])}: what is analysed keeps "
                "its tokens from block to block"
            )
        self.shape = copy.shape[:2]
        self.told(layer, copy)

    def check(self, expected: int) -> None:
        """Raise UnsupportedModel unless every layer of the configuration was seen."""
        if self.calls != expected:
            raise UnsupportedModel(
                f"{self.calls} calls of blocks were seen where the configuration says {expected} layers; "
                "a layer was skipped or replaced. Pass the modules themselves as blocks="
            )


def _copied(state: Tensor) -> Tensor:
    """A copy that later in-place operations of the model cannot reach."""
    return state.detach().to(dtype=torch.float32, copy=True)
