"""All sequences through one block before any passes the next, so that a model needs the memory of one block.

A block is run by the model's own forward pass: for block i the blocks before it hand on the state that was kept, and
the pass ends after block i. So masks, positions and whatever else a model prepares for a block are its own, whatever
its family, and the numbers are those of an ordinary pass. Between two blocks nothing is held but the last states and
what was measured, which a file can keep.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from krause_dynamics.checkpoints import one_block
from krause_dynamics.checkpoints.blocks import device_of
from krause_dynamics.checkpoints.finite import NotFinite
from krause_dynamics.checkpoints.measures import Measuring
from krause_dynamics.checkpoints.residual_stream import as_tokens
from krause_dynamics.checkpoints.sequences import marks_of
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.runs.resuming import RunFile

WINDOWS, WINDOW = 16, 1024  # of a weight, that tell it from another one: so many stretches of so many numbers


Found = tuple[list[int], dict[str, np.ndarray]]  # indices of sequences, and what was measured of them by name


def walk(run: Passes, make: Callable[[], Measuring], file: RunFile | None) -> InTurn | ByBlock:
    """Block by block where the weights of blocks lie on disk or a file is to be kept, else batch after batch.

    Args:
        run: The model and its inputs.
        make: Makes what measures one batch.
        file: Kept after every block.

    Raises:
        UnsupportedModel: The attention of single blocks cannot be recorded.
    """
    on_disk = any(weight.is_meta for block in run.blocks for weight in block.parameters())
    if file is None and (not on_disk or run.path == "eager" or run.silent):  # then accelerate reads them batch by batch
        return InTurn(run, make)
    return ByBlock(run, make, file)


class InTurn:
    """Batches go through the whole model, one after the other.

    Attributes:
        reason: Why not all of them did, or not to the end, in words; empty when they did.
        done: Blocks after which the states of all batches were finite.
    """

    reason = ""

    def __init__(self, run: Passes, make: Callable[[], Measuring]) -> None:
        self.run = run
        self.make = make
        self.done = run.expected

    def go(self, stopped: Callable[[], bool]) -> Iterator[Found]:
        """Pass all of them; a wish to stop is heard between two.

        Raises:
            NotFinite: So early, or in a model read so, that nothing can be kept.
        """
        passed: list[tuple[list[int], Measuring]] = []
        for members, batch in self.run.batches():
            if stopped():
                self.reason = self.reason or "interrupted"
                break
            layers = self.make()
            try:
                self.run.stream(batch, layers)
            except NotFinite as error:
                self._cut(error)
            layers.forget()
            passed.append((members, layers))
        for members, layers in passed:
            yield members, layers.arrays(self.done)

    def _cut(self, error: NotFinite) -> None:
        """Keep what was measured before a state that is not finite, of all batches."""
        done, run = error.layer - 1, self.run
        if done < 1 or run.path == "eager" or run.silent:  # then attention is told of when all states were
            raise error
        if done < self.done:
            self.done, self.reason = done, str(error)
            block = run.blocks[done % len(run.blocks)]
            if not any(weight.is_meta for weight in block.parameters()):
                try:
                    one_block.check_weights(block, done)
                except NotFinite as named:
                    self.reason = str(named)


class ByBlock:
    """Batches go through one block, all of them, before any goes through the next.

    Attributes:
        run: The model and its inputs.
        file: Replaced after every block; None: nothing is kept.
        batches: (indices of the sequences, what the inputs hold of them).
        measured: What was measured of each batch.
        states: The last state of each batch, on the host and in the model's own dtype; None before the first block.
        shapes: What each block returns: the length of its tuple, or 0 for the state alone.
        done: Blocks that all batches have passed.
        reason: Why not all blocks were passed, in words; empty when they were.
    """

    def __init__(self, run: Passes, make: Callable[[], Measuring], file: RunFile | None) -> None:
        if run.path == "eager" or run.silent:
            why = "it hands its weights out at the end" if run.path == "eager" else "some blocks have none"
            raise UnsupportedModel(
                f"{type(run.checkpoint.backbone).__name__} cannot be run block by block with its attention recorded "
                f"({why}); pass attention=None for the hidden states alone, or leave checkpoint= out"
            )
        self.run = run
        self.file = file
        self.batches = list(run.inputs.batches(run.batch_size))
        self.measured = [make() for _ in self.batches]
        self.states: list[Tensor | None] = [None] * len(self.batches)
        self.shapes: list[int] = []
        self.done = 0
        self.reason = ""

    def go(self, stopped: Callable[[], bool]) -> Iterator[Found]:
        """Pass the blocks that are left; after each the file is replaced, and a wish to stop is heard.

        Raises:
            NotFinite: The first block already is not finite, so that nothing can be kept.
        """
        if self.file is not None and (stored := self.file.read()) is not None:
            self._resume(*stored)
        while self.done < self.run.expected:
            try:
                self._pass(self.done)
            except NotFinite as error:
                if self.done == 0:
                    raise
                self.reason = str(error)
                break
            self.done += 1
            if self.file is not None:
                self.file.write(*self._kept())
            if stopped() and self.done < self.run.expected:
                self.reason = "interrupted"
                break
        for (members, _), layers in zip(self.batches, self.measured, strict=True):
            yield members, layers.arrays(self.done)

    def _pass(self, block: int) -> None:
        run = self.run
        module = run.blocks[block % len(run.blocks)]
        number, count = len(run.inputs), 0
        with one_block.held(module):
            one_block.check_weights(module, block)
            for place, (members, batch) in enumerate(self.batches):
                self.states[place] = self._through(block, place, batch)
                count += len(members)
                if run.report is not None:
                    run.report(block * number + count, run.expected * number)

    def _through(self, block: int, place: int, batch: Any) -> Tensor:
        """The state of one batch after a block."""
        run, layers = self.run, self.measured[place]
        with run.watching(layers, earliest=block + 1 if block else 0) as watch:
            calls = one_block.Calls(block, self.states[place], self.shapes)
            with calls.replacing(run.blocks), suppress(one_block.Left):
                run.run(run.checkpoint.backbone, batch)
        watch.stream.check(block + 1)
        if run.path != "none" and watch.called != [block]:
            raise UnsupportedModel(
                f"block {block + 1} made {len(watch.called)} calls of softmax attention where one is expected, so its "
                "statistics would be missing or mixed; pass attention=None for the hidden states alone"
            )
        if watch.stream.last is None:
            raise UnsupportedModel(f"block {block + 1} left no state")
        return watch.stream.last.detach().cpu().contiguous()  # as a file will give it back: sums in one order

    def _kept(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        arrays: dict[str, np.ndarray] = {}
        for place, (state, layers) in enumerate(zip(self.states, self.measured, strict=True)):
            if state is not None:
                arrays[f"state/{place}"] = state.contiguous().view(torch.uint8).numpy()  # numpy has no bfloat16
            arrays |= {f"{place}/{name}": x for name, x in layers.kept().items()}
        dtypes = [str(state.dtype).removeprefix("torch.") for state in self.states if state is not None]
        return {"done": self.done, "shapes": self.shapes, "dtypes": dtypes}, arrays

    def _resume(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        self.done, self.shapes = header["done"], header["shapes"]
        for place, layers in enumerate(self.measured):
            state = torch.from_numpy(arrays[f"state/{place}"]).view(getattr(torch, header["dtypes"][place]))
            self.states[place] = state
            mine = {name.partition("/")[2]: x for name, x in arrays.items() if name.startswith(f"{place}/")}
            layers.resume(mine, as_tokens(state, time_major=self.run.time_major))


def identity(run: Passes, options: dict[str, Any]) -> dict[str, Any]:
    """What makes an analysis this one, for its file: model, inputs, options and libraries.

    Of every weight some stretches are read, as reading all of a large model would take as long as analysing it.
    """
    import transformers

    model = run.checkpoint.backbone
    return {
        "kind": "analysis by block",
        "model": _marks(model),
        "inputs": marks_of(run.inputs),
        "batch_size": run.batch_size,
        "min_queries": run.min_queries,
        "attention": [run.path, run.tier],
        "device": device_of(model).type,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **options,
    }


def _marks(model: nn.Module) -> str:
    digest = hashlib.sha256(repr(sorted(getattr(model, "config", nn.Module()).__dict__.items(), key=str)).encode())
    for path, part in model.named_modules():
        for name, weight in part.named_parameters(recurse=False):
            if weight.is_meta:
                weight = part._hf_hook.weights_map[name]  # type: ignore[union-attr, index]
            flat = weight.detach().reshape(-1)
            starts = {place * max(0, len(flat) - WINDOW) // (WINDOWS - 1) for place in range(WINDOWS)}
            digest.update(f"{path}.{name} {tuple(weight.shape)} {weight.dtype}".encode())
            for start in sorted(starts):
                digest.update(flat[start : start + WINDOW].cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]
