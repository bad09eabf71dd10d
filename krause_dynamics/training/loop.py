"""The loop: transformers' Trainer over batches that lie on the device, with one `TrainingStep` for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from krause_dynamics.errors import TrainingDiverged
from krause_dynamics.training.step import AdamW, TrainingStep

LOOKED_AT = 100  # steps between two looks at the losses: one wait for the device


class Batches:
    """Numbers of the training examples in the order of each epoch; what does not fill a batch waits for another one.

    Args:
        examples: How many there are.
        batch_size: Of one process.
        seed: Of the order, with the number of the epoch.
        begin: Finished epochs.
        rank: Of this process.
        world: How many processes share an epoch.
        device: Where the numbers are wanted.
    """

    def __init__(
        self, examples: int, batch_size: int, *, seed: int, begin: int, rank: int, world: int, device: torch.device
    ) -> None:
        self.examples, self.batch_size, self.seed, self.epoch = examples, batch_size, seed, begin
        self.begin, self.rank, self.world, self.device = begin, rank, world, device

    def __len__(self) -> int:
        return self.examples // (self.batch_size * self.world)

    def set_epoch(self, epoch: int) -> None:
        """The loop counts its own epochs; those that were finished before come first."""
        self.epoch = self.begin + epoch

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(mixed(self.seed, self.epoch))
        order = torch.randperm(self.examples, generator=generator).to(self.device)
        for i in range(len(self)):
            begin = (i * self.world + self.rank) * self.batch_size
            yield {"rows": order[begin : begin + self.batch_size]}


def mixed(seed: int, epoch: int, rank: int = 0) -> int:
    """A seed of its own for each run, epoch and process."""
    return (seed * 1_000_003 + epoch) * 1_009 + rank


class Rates:
    """The schedule as the loop knows it: the step itself reads its rate from a table on the device."""

    def __init__(self, rates: list[float], done: int) -> None:
        self.rates, self.place = rates, done

    def step(self) -> None:
        """One more step was made."""
        self.place += 1

    def get_last_lr(self) -> list[float]:
        """Rate of the step that was made."""
        return [self.rates[min(self.place, len(self.rates) - 1)]]


def _nothing(set_to_none: bool = True) -> None:
    """Done already."""


class Loop(Trainer):
    """Trainer whose training step is ours, gradients, clipping and optimiser included.

    Args:
        make: Makes the step of a model that has been wrapped for its processes.
        batches: Numbers of examples.
        **rest: Of the Trainer.
    """

    def __init__(self, make: Callable[[nn.Module], TrainingStep], batches: Batches, **rest: Any) -> None:
        self.make, self.batches = make, batches
        self.made: TrainingStep | None = None
        self.stepped: float | None = None  # when the first step was made, compiled and captured
        super().__init__(**rest)
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> Any:
        """Our batches, which know their process."""
        return self.batches

    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """The whole step."""
        if self.made is None:
            model.train()
            self.made = self.make(model)
            # What the Trainer would do after each step is done: it would walk over all weights to drop gradients, and
            # accelerate's wrapper of the optimiser looks for packages, together a millisecond or two of the host.
            self.optimizer = self.made.optimizer
            model.zero_grad = _nothing  # type: ignore[method-assign]
        loss = self.made(inputs["rows"])
        if self.stepped is None:
            loss.item()  # waits for the device
            self.stepped = time.perf_counter()
        return loss

    def train(self, *args: Any, **rest: Any) -> Any:
        """As the Trainer; the model is left as it was."""
        try:
            return super().train(*args, **rest)
        finally:
            if self.made is not None:
                del self.model_wrapped.zero_grad

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here: the Trainer's own count walks over all weights at each step."""
        return 0

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Gradients are gone when the Trainer asks for their norm."""
        return grad_norm


class Epochs(TrainerCallback):  # type: ignore[misc]
    """What surrounds an epoch: seeds before, a look at the losses within, and ``finished`` after it.

    Args:
        loop: Whose step is looked at; set after both are made.
        begin: Finished epochs.
        seed: Of the random numbers of each epoch.
        told: Called with the number of steps made and of all.
        finished: Called with the number of finished epochs, mean loss and seconds.
        kept: The file to go on from, for messages.
        total: Steps of the whole run.
    """

    loop: Loop

    def __init__(
        self, begin: int, seed: int, told: Callable[[float, float], Any], finished: Callable[..., None], kept: Path,
        total: int,
    ) -> None:  # fmt: skip
        self.epoch, self.seed, self.told, self.finished, self.kept = begin, seed, told, finished, kept
        self.total, self.first, self.seen = total, 0, 0
        self.started = time.perf_counter()

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Random numbers that follow from seed, epoch and process."""
        torch.manual_seed(mixed(self.seed, self.epoch, self.loop.batches.rank))
        rest["model"].train()
        self.started = time.perf_counter()
        self.first = self.seen = self.epoch * len(self.loop.batches)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Progress, and now and then a look at the losses."""
        self.seen += 1
        self.told(self.seen, self.total)
        if (self.seen - self.first) % LOOKED_AT == 0:
            self._losses()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Mean loss of the epoch, over all processes."""
        losses = self._losses()
        mean = self.loop.accelerator.reduce(losses.mean(), "mean").item()
        self.epoch += 1
        self.finished(self.epoch, mean, time.perf_counter() - self.started)

    def _losses(self) -> Tensor:
        """Losses of the epoch so far.

        Raises:
            TrainingDiverged: One of them is infinite or NaN.
        """
        step = self.loop.made
        assert step is not None
        losses = step.losses[self.first : self.seen]
        bad = (~losses.isfinite()).nonzero()
        if len(bad):
            raise self._diverged(f"the loss became {float(losses[int(bad[0, 0])])}", self.first + int(bad[0, 0]))
        return losses

    def check_weights(self, model: nn.Module, error: ValueError) -> None:
        """Tell weights that have left all bounds from other reasons of an error in a step.

        Raises:
            TrainingDiverged: A loss or a weight is infinite or NaN, or a bandwidth is 0 or infinite.
        """
        if self.loop.made is not None:
            self._losses()
        for name, weight in model.named_parameters():
            bounded = weight.detach().exp() if "log_sigma" in name.split(".") else weight.detach()
            if not bool(bounded.isfinite().all()) or ("log_sigma" in name.split(".") and bool((bounded == 0).any())):
                raise self._diverged(f"{name} left all bounds ({error})", max(self.first, self.seen - 1)) from error

    def _diverged(self, what: str, place: int) -> TrainingDiverged:
        assert self.loop.made is not None
        earlier = f"{self.kept.parent / 'best'} holds the best weights before it, resume='end' measures them"
        there = earlier if self.epoch else "no epoch was finished before it"
        return TrainingDiverged(
            f"{what} at step {place + 1} (epoch {self.epoch + 1}) at a learning rate of "
            f"{float(self.loop.made.rates[place]):.3g}; {there}: lower training.learning_rate or set training.clip"
        )


def optimizer_of(groups: list[dict[str, Any]], rate: float, device: torch.device) -> AdamW:
    """AdamW in one kernel; its step counters lie on a GPU, where a capture needs them."""
    return AdamW(groups, lr=rate, betas=(0.9, 0.999), fused=True, capturable=device.type == "cuda")


def arguments(out: Path, epochs: int, batch_size: int, seed: int, device: str) -> TrainingArguments:
    """The Trainer's, with everything off that is ours: logs, files, evaluation, clipping, its filter of NaN losses."""
    found = TrainingArguments(
        output_dir=str(out), num_train_epochs=epochs, per_device_train_batch_size=batch_size, seed=seed, data_seed=seed,
        use_cpu=device == "cpu", report_to="none", save_strategy="no", eval_strategy="no", logging_strategy="no",
        logging_nan_inf_filter=False, max_grad_norm=0.0, disable_tqdm=True, remove_unused_columns=False,
        log_level="error", skip_memory_metrics=True,
    )  # fmt: skip
    _ = found.device  # several GPUs in one process would be used by threads that copy the model at each step
    if found.n_gpu > 1:
        found._n_gpu = 1
    return found
