"""One training step, the same on every device: eager, or replayed from one CUDA graph."""

from __future__ import annotations

import math
from functools import cache, reduce
from typing import Any

import torch
from torch import Tensor, nn

from krause_dynamics.training.tasks import Task

WARM_UP = 3  # steps before a capture: kernels are compiled, and all of the optimiser's memory is there


class AdamW(torch.optim.AdamW):
    """AdamW whose `step` does nothing: `TrainingStep` moves the weights itself, as a capture holds the whole step."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Called by the loop after each training step."""

    def move(self) -> None:
        """Move the weights."""
        super().step()


def learning_rates(largest: float, steps: int, warmup: int) -> list[float]:
    """Rate of each step: a linear rise to the largest at step ``warmup``, then a cosine that ends near 0."""
    rise = [largest * (i + 1) / (warmup + 1) for i in range(min(warmup, steps))]
    rest = steps - len(rise)
    return rise + [largest * (1.0 + math.cos(math.pi * i / max(rest, 1))) / 2.0 for i in range(rest)]


@cache
def capture_stream(device: torch.device) -> Any:
    """The stream of all captures on a card: each further one would keep a workspace of cuBLAS, 66 MiB, for good."""
    return torch.cuda.Stream(device)


class TrainingStep:
    """Augmentation, forward, backward, clipping and AdamW on one batch; called with the numbers of its examples.

    Weights, learning rate and losses of all steps lie on the device, and the step counts itself: nothing waits for the
    host. On a GPU the first call warms up on copies, puts everything back, captures, and replays from then on, so that
    captured runs see the same numbers of steps as eager ones.

    Args:
        model: What is called, wrapped for several processes or not.
        task: Makes its inputs.
        optimizer: An `AdamW`.
        rates: Learning rate of each step of the run.
        done: Steps that were made before.
        batch_size: Examples a call.
        clip: Largest norm of the gradient; 0: none.
        bfloat16: Autocast.
        capture: Replay a CUDA graph.
        parts: Parts of the batch, whose gradients are added; memory holds the pass of one.
    """

    def __init__(
        self, model: nn.Module, task: Task, optimizer: AdamW, rates: list[float], *, done: int, batch_size: int,
        clip: float, bfloat16: bool, capture: bool, parts: int = 1,
    ) -> None:  # fmt: skip
        self.model, self.task, self.optimizer, self.clip, self.bfloat16 = model, task, optimizer, clip, bfloat16
        self.weights = [p for group in optimizer.param_groups for p in group["params"]]
        device = self.weights[0].device
        self.rates = torch.tensor(rates + [0.0] * WARM_UP, device=device)
        self.losses = torch.full_like(self.rates, math.nan)
        self.place = torch.tensor([done], device=device)
        self.rate = torch.zeros((), device=device)
        for group in optimizer.param_groups:
            group["lr"] = self.rate
        self.rows = torch.zeros(batch_size, dtype=torch.long, device=device)
        self.capture, self.parts = capture, parts
        self.graph: Any = None
        self.loss = torch.zeros((), device=device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Learn from these examples (batch_size,); the loss stays on the device.

        Raises:
            RuntimeError: No capture can hold the step, or memory ended in it.
        """
        self.rows.copy_(rows)
        if not self.capture:
            self._once()
        else:
            if self.graph is None:
                try:
                    self._captured()
                except RuntimeError as error:
                    raise RuntimeError(
                        f"the step could not be captured in a CUDA graph ({error}); training.capture = false makes it "
                        "without one, training.accumulation in parts that need less memory"
                    ) from error
            self.graph.replay()
        return self.loss

    def _once(self) -> None:
        self.rate.copy_(self.rates[self.place][0])
        loss = reduce(torch.add, [self._passed(rows) for rows in self.rows.chunk(self.parts)])
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.weights, self.clip)
        self.optimizer.move()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss.copy_(loss)
        self.losses.index_copy_(0, self.place, self.loss[None])
        self.place.add_(1)

    def _passed(self, rows: Tensor) -> Tensor:
        """Forward and backward of a part: its share of the mean loss, without a graph."""
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.bfloat16):
            loss: Tensor = self.model(**self.task.inputs(rows)).loss / self.parts
        loss.backward()
        return loss.detach()

    def _captured(self) -> None:
        """Capture the step; weights, optimiser and random numbers are afterwards as before."""
        held = self._held()
        # Detached: a graph of the copies would hold where gradients are added to the stream outside of the capture.
        kept = [(x, x.detach().clone()) for x in held]
        generator = torch.cuda.get_rng_state()
        side = capture_stream(self.weights[0].device)
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._once()
        torch.cuda.current_stream().wait_stream(side)
        with torch.no_grad():
            known = {id(x) for x in held}
            for x in self._held():
                if id(x) not in known:  # the optimiser's memory begins at 0
                    x.zero_()
            for x, before in kept:
                x.copy_(before)
        del kept
        torch.cuda.set_rng_state(generator)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=side):  # where autograd accumulated gradients in the warm-up
            self._once()

    def _held(self) -> list[Tensor]:
        """Everything that a step changes."""
        states = [x for state in self.optimizer.state.values() for x in state.values() if isinstance(x, Tensor)]
        buffers = [x for x in self.model.buffers() if x.is_floating_point()]
        return [*self.weights, *states, *buffers, self.place, self.losses]
