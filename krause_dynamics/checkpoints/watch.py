"""What is told of a forward pass of a trained model while it runs, to whom, and by what attention is heard of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from krause_dynamics.checkpoints import capture, finite, own_attention, torch_calls, windows
from krause_dynamics.checkpoints.attention_statistics import HeadStatistics
from krause_dynamics.checkpoints.blocks import device_of
from krause_dynamics.checkpoints.residual_stream import StreamRecorder
from krause_dynamics.errors import UnsupportedModel

Running = Callable[[], int | None]  # the block that is running
Told = Callable[[int, HeadStatistics], None]  # of the attention of a block


class Layers(Protocol):
    """Who is told of the layers of one batch of b sequences of equal length T."""

    def state(self, layer: int, tokens: Tensor) -> None:
        """Residual stream (b, T, d) in float32, where the block runs; 0 = embedding, i = after block i."""

    def attention(self, block: int, found: HeadStatistics) -> None:
        """Statistics of the attention of block 1, 2, ...; before the state after that block, or after all states."""


@dataclass
class Watch:
    """What is seen of one forward pass.

    Attributes:
        stream: Hooks on the blocks.
        called: Blocks (0, 1, ...) whose attention was told, in order.
        found: Statistics of the first of them.
    """

    stream: StreamRecorder
    called: list[int] = field(default_factory=list)
    found: HeadStatistics | None = None

    def heard(self, block: int, found: HeadStatistics) -> None:
        """Note statistics of a block.

        Raises:
            UnsupportedModel: They are among other tokens than the states, or of other heads than before.
        """
        among, states = found.importance[:, 0].shape, self.stream.shape
        if states is not None and among != states:
            raise UnsupportedModel(
                f"block {block + 1} attends among {tuple(among)} tokens where states are {tuple(states)}: in windows "
                "of a picture, perhaps; pass attention=None for the hidden states alone"
            )
        self.called.append(block)
        self.found = self.found or found
        if found.entropy.shape != self.found.entropy.shape:
            raise UnsupportedModel(
                f"block {block + 1} has {found.entropy.shape[1]} heads where block {self.called[0] + 1} has "
                f"{self.found.entropy.shape[1]}: blocks of one analysis have the same; pass attention=None for the "
                "hidden states alone, or blocks= of one kind"
            )


@contextmanager
def hearing(
    path: str,
    model: Any,
    blocks: list[nn.Module],
    running: Running,
    told: Told,
    *,
    sink_only: bool,
    **options: Any,
) -> Iterator[list[Callable[[], None]]]:
    """Inside, attention is told of as a model computes it; yields what is to be called when a block has ended.

    Args:
        path: How attention is read, see `stream.Passes`; with ``"eager"`` and ``"none"`` nothing is told.
        model: Which is run.
        blocks: Its blocks.
        running: The block that is running.
        told: Called with it and the statistics.
        sink_only: Whether a few keys are enough.
        **options: ``min_queries`` and ``keep_weights`` of the statistics.
    """
    at_end: list[Callable[[], None]] = []
    with ExitStack() as stack:
        if path == "registry":
            later = device_of(model).type != finite.HOST  # a CPU would gain nothing, and hold more meanwhile
            recorder = capture.AttentionRecorder(running, told, sink_only=sink_only, later=later, **options)
            stack.enter_context(capture.recording(model, recorder))
            at_end.append(recorder.finish)
        if path in ("krause", "calls"):
            stack.enter_context(own_attention.watching(running, told, **options))
        if path == "calls":
            stack.enter_context(torch_calls.watching(running, told, **options))
        if path == "windows":
            stack.enter_context(windows.watching(model, blocks, running, told, **options))
        yield at_end
