"""What an analysis needs of memory, compared with what it may use: the whole model, or one block at a time."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from krause_dynamics.checkpoints.blocks import find_blocks
from krause_dynamics.checkpoints.load import Checkpoint, load, load_on_disk, load_outline
from krause_dynamics.checkpoints.sequences import Inputs, model_inputs

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
RESERVE = 256 * 2**20  # blocks of rows of the attention, and what allocators keep


def amount(value: Any) -> int:
    """Bytes of ``24_000_000_000``, ``"24GB"`` or ``"24 GiB"``.

    Raises:
        ValueError: Something else, or nothing above 0.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        return value
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    if found is None or found[2].upper() not in UNITS or float(found[1]) <= 0:
        raise ValueError(f"memory must be bytes or a text such as '24GB' or '24GiB', received {value!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def words(size: float) -> str:
    """An amount as it is written: ``"24.1GB"``, rounded up."""
    unit = next(name for name in ("GB", "MB", "KB", "B") if size >= UNITS[name] or name == "B")
    return f"{-(-size * 10 // UNITS[unit]) / 10:g}{unit}"


@dataclass(frozen=True)
class Need:
    """Bytes that an analysis needs.

    Attributes:
        process: What the process has already.
        rest: Weights outside of the blocks.
        block: Weights of the largest block.
        blocks: Weights of all blocks.
        work: Activations and measures of one batch.
        states: Last states of all sequences, as the model has them and in float32.
    """

    process: int
    rest: int
    block: int
    blocks: int
    work: int
    states: int

    @property
    def whole(self) -> int:
        """With all weights in memory."""
        return self.process + self.rest + self.blocks + self.work

    @property
    def by_block(self) -> int:
        """With one block in memory at a time."""
        return self.process + self.rest + self.block + self.work + self.states

    @classmethod
    def of(cls, model: nn.Module, inputs: Inputs, batch_size: int, process: int) -> Need:
        """Of a model (its outline is enough) and inputs, an upper bound."""
        blocks, _ = find_blocks(model)
        sizes = [_bytes(block) for block in blocks]
        dtype = next(model.parameters()).dtype
        width = int(getattr(model.config, "hidden_size", 0) or 0)  # type: ignore[union-attr, arg-type]
        longest, tokens = int(inputs.lengths.max()), int(inputs.lengths.sum())
        matrices = [weight.shape for weight in blocks[0].parameters() if weight.ndim == 2]
        # Whatever a block computes from a token is the result of a matrix; counted as if all lived at once.
        activations = sum(map(sum, matrices)) * dtype.itemsize + 12 * width * 4
        pairs = 32 * longest**2  # the mask while it is built; distances between tokens for clusters, in float64
        work = min(batch_size, len(inputs)) * longest * activations + pairs + RESERVE
        states = tokens * width * (dtype.itemsize + 4)
        return cls(process, _bytes(model) - sum(sizes), max(sizes), sum(sizes), work, states)


def _bytes(module: nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in (*module.parameters(), *module.buffers()))


def resident(device: torch.device | None = None) -> int:
    """Bytes that this process has in memory now (on a GPU: that torch has there); 0 where the system does not say."""
    if device is not None and device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return 0


def placed(
    model: Any, inputs: Any, budget: Any, *, batch_size: int, cutting: dict[str, Any], **loading: Any
) -> tuple[Checkpoint, Inputs]:
    """A model of a folder, whole where it fits into the budget and else with its blocks on disk; and its inputs.

    Args:
        model: As for `load`; a loaded model is taken as it is.
        inputs: As for `prepare`.
        budget: Bytes, or a text such as ``"24GB"``: of the process, or of the GPU that the model runs on.
        batch_size: Sequences per forward pass.
        cutting: Further arguments of `prepare`.
        **loading: Arguments of `load`.

    Raises:
        ValueError: Not even one block at a time fits; the message says what would.
    """
    if not isinstance(model, str | os.PathLike):
        _check_one_device(loading)
        amount(budget)
        checkpoint = load(model, **loading)
        return checkpoint, model_inputs(checkpoint, inputs, **cutting)
    allowed = amount(budget)
    need, outline, prepared = _asked(model, inputs, batch_size, cutting, loading)
    loading["tokenizer"] = outline.tokenizer
    if need.whole <= allowed:
        return load(model, **loading), prepared
    least = min(need.by_block, need.whole)
    if least > allowed:
        raise ValueError(
            f"memory must be at least {words(least)} for this model and these inputs, received {budget!r}: the "
            f"process has {words(need.process)}, weights outside of the blocks take {words(need.rest)}, one block "
            f"{words(need.block)}, a batch of {batch_size} up to {words(need.work)}, states of all sequences "
            f"{words(need.states)}; a smaller batch_size, shorter or fewer sequences need less"
        )
    return load_on_disk(model, **loading), prepared


def check_whole(
    model: str | os.PathLike[str],
    inputs: Any,
    budget: Any,
    *,
    batch_size: int,
    cutting: dict[str, Any],
    **loading: Any,
) -> None:
    """Whether all of a model fits into a budget; arguments as of `placed`.

    Raises:
        ValueError: It does not; the message says what would do.
    """
    allowed = amount(budget)
    need, _, _ = _asked(model, inputs, batch_size, cutting, loading)
    if need.whole > allowed:
        raise ValueError(
            f"memory must be at least {words(need.whole)} for the whole of this model, received {budget!r}: the "
            f"process has {words(need.process)}, weights take {words(need.rest + need.blocks)}, a batch of "
            f"{batch_size} up to {words(need.work)}"
        )


def _asked(
    model: str | os.PathLike[str], inputs: Any, batch_size: int, cutting: dict[str, Any], loading: dict[str, Any]
) -> tuple[Need, Checkpoint, Inputs]:
    """What a model of a folder needs, its outline, and the inputs as it takes them."""
    _check_one_device(loading)
    outline = load_outline(model, **loading)
    prepared = model_inputs(outline, inputs, **cutting)
    where = torch.device(loading.get("device") or "cpu")
    return Need.of(outline.backbone, prepared, batch_size, resident(where)), outline, prepared


def _check_one_device(loading: dict[str, Any]) -> None:
    if loading.get("device") == "auto":
        raise ValueError("memory is what one device may use; with device='auto' accelerate divides the model by itself")
