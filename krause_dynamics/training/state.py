"""The one file from which a run goes on: weights, optimiser, best weights and the rows of its table, as safetensors.

Order, augmentation and dropped paths of an epoch follow from the seed and the epoch's number, so that no generator has
to be kept and a run that was killed goes on bit for bit.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from krause_dynamics._files import reading, write_bytes

NAME = "state.safetensors"


@dataclass(frozen=True)
class Origin:
    """What a run follows from: another of any would go on to other numbers.

    Attributes:
        configuration: Its digest.
        checksums: Of the files of data, by name.
        processes: How many share each batch.
    """

    configuration: str
    checksums: dict[str, str]
    processes: int = 1


@dataclass
class Progressed:
    """How far a run is.

    Attributes:
        epoch: Finished epochs.
        seconds: Time spent in them.
        rows: Of the table of metrics.
        best: The row of the best epoch.
        best_weights: Weights of that epoch.
        processes: How many shared each batch so far; ``None`` before the first epoch, and in files that do not say.
    """

    epoch: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: dict[str, Any] | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    processes: int | None = None


def learned(model: nn.Module) -> dict[str, Tensor]:
    """The weights that training changes, by name; those of a frozen base come from where it came from."""
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


def put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model weights of `learned`, in place."""
    with torch.no_grad():
        for name, p in learned(model).items():
            p.copy_(weights[name])


def snapshot(origin: Origin, model: nn.Module, optimizer: torch.optim.Optimizer, run: Progressed) -> Snapshot:
    """A copy of everything after an epoch, to be written then or when a signal ends the run within a later one."""
    tensors = {f"model.{name}": x.clone() for name, x in learned(model).items()}
    tensors |= {f"best.{name}": x for name, x in run.best_weights.items()}
    for i, p in enumerate(_parameters(optimizer)):
        tensors |= {f"optimizer.{i}.{name}": x.clone() for name, x in optimizer.state.get(p, {}).items()}
    about = {"epoch": run.epoch, "seconds": run.seconds, "rows": run.rows, "best": run.best, **asdict(origin)}
    return Snapshot(tensors, json.dumps(about))


@dataclass(frozen=True)
class Snapshot:
    """Tensors of a run after an epoch, and the rest as JSON."""

    tensors: dict[str, Tensor]
    about: str

    def write(self, folder: Path) -> None:
        """Replace the file in one step."""
        whole = {name: x.detach().cpu().contiguous() for name, x in self.tensors.items()}
        write_bytes(folder / NAME, save(whole, {"krause_dynamics": self.about}))


def read(folder: Path, origin: Origin, model: nn.Module, optimizer: torch.optim.Optimizer) -> Progressed:
    """Go on from the file, where there is one; model and optimiser are filled.

    Raises:
        ValueError: The file of another configuration or of other data, or a damaged one; it is left as it is.
    """
    path = folder / NAME
    if not path.exists():
        return Progressed()
    with reading(path), safe_open(path, "pt") as opened:
        about = json.loads(opened.metadata()["krause_dynamics"])
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118  # no mapping
    if about["configuration"] != origin.configuration:
        raise ValueError(f"{folder} holds a run of another configuration; it was left as it is: choose another folder")
    before, now = about.get("checksums", origin.checksums), origin.checksums  # older files do not name them
    if changed := sorted(name for name in {**before, **now} if before.get(name) != now.get(name)):
        raise ValueError(
            f"{folder} holds a run on other data: {changed[0]} changed since it began; it was left as it is: bring the "
            "file back, or choose another folder"
        )
    with reading(path):
        put(model, _under("model", tensors))
    for i, p in enumerate(_parameters(optimizer)):
        state = _under(f"optimizer.{i}", tensors)
        if state:
            optimizer.state[p] = {name: x.to(p.device) for name, x in state.items()}
    best = {name: x.to(p.device) for name, x in _under("best", tensors).items()}
    return Progressed(about["epoch"], about["seconds"], about["rows"], about["best"], best, about.get("processes"))


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): x for name, x in tensors.items() if name.startswith(f"{prefix}.")}


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]
