"""The trained vision transformers looked at: softmax and the full rule, with fresh weights and shuffled patches beside.

    python -m evidence.vits WEIGHTS --data DATA

WEIGHTS is the folder into which ``python -m evidence.run fashion`` wrote the two models that it keeps (11 MB each, not
in the repository). The first pictures of the test part go through both; that they answer as the logs of their runs say
shows that the weights are those. Writes three figures, `figures/trained_vits*.png`, and a table into the
logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch

mpl.use("Agg")
import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence import logs, twins
from evidence.experiments import Run, configuration
from krause_dynamics import plots

COMMAND = "python -m evidence.vits"
RUNS = {"softmax": "fashion-dot.full-0", "krause": "fashion-gaussian.window+top_k-0"}
MAPS = 4  # pictures whose attention is drawn
ASKED = 400  # pictures whose answers are held against the log


@dataclass(frozen=True)
class Looked:
    """What one call each of `kd.analyze` and `kd.checkpoints.record` finds of a model on pictures.

    Attributes:
        analysis: The Dataset.
        weights: (blocks, pictures, heads, tokens, tokens).
        sigma: Learned bandwidth of each block; empty of softmax.
    """

    analysis: Any
    weights: np.ndarray
    sigma: list[float]

    @classmethod
    def at(cls, model: Any, pixels: np.ndarray) -> Looked:
        """Look at a model."""
        weights = kd.checkpoints.record(model, pixels, attention="weights").extras["attention"]
        learned = [layer.attention.log_sigma for layer in model.layers if model.config.score != "dot"]
        sigma = [float(x.weight.detach().exp().mean()) for x in learned]
        return cls(kd.analyze(model, pixels, eps=(twins.EPS,)), np.asarray(weights), sigma)

    def heard(self) -> np.ndarray:
        """Keys of a patch with any weight, mean over pictures, heads and patches, (blocks,)."""
        return (self.weights[:, :, :, 1:] > 0).sum(-1).mean((1, 2, 3))

    def effective(self) -> np.ndarray:
        """1 / sum_k A_ik^2 of the patches: keys that share the weight of a row, (blocks,)."""
        return (1.0 / (self.weights[:, :, :, 1:] ** 2).sum(-1)).mean((1, 2, 3))


def load(path: Path) -> Any:
    """A model from the single file that a run keeps, in float32."""
    from safetensors import safe_open

    from krause_dynamics.models import KrauseViT, KrauseViTConfig

    with safe_open(path, "pt") as opened:
        model = KrauseViT(KrauseViTConfig.from_dict(json.loads(opened.metadata()["config"])))
        model.load_state_dict({name: opened.get_tensor(name).float() for name in opened.keys()})  # noqa: SIM118
    return model.eval()


def test_part(data: Path) -> Any:
    """The task of the runs, whose test part and normalisation are wanted."""
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training.split import found_in, task_of

    tables = configuration(Run("fashion", "dot.full", 0), 1e-3, str(data))
    chosen = TrainingConfiguration.read(tables)
    return task_of(chosen, found_in(chosen.data), torch.device("cpu"))


def shuffled(pixels: np.ndarray, patch: int, rng: np.random.Generator) -> np.ndarray:
    """Pictures (n, c, h, w) whose patches stand in another order, each in one of its own."""
    n, c, h, w = pixels.shape
    patches = pixels.reshape(n, c, h // patch, patch, w // patch, patch).transpose(0, 2, 4, 1, 3, 5)
    mixed = np.stack([rng.permutation(picture) for picture in patches.reshape(n, -1, c, patch, patch)])
    return mixed.reshape(n, h // patch, w // patch, c, patch, patch).transpose(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)


def cases(model: Any, pixels: np.ndarray) -> dict[str, Looked]:
    """A model, the same with fresh weights, and the model on pictures whose patches are shuffled."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = type(model)(model.config).eval()
    other = shuffled(pixels, model.config.patch_size, np.random.default_rng(0))
    given = {"trained": (model, pixels), "untrained": (fresh, pixels), "shuffled": (model, other)}
    return {name: Looked.at(*case) for name, case in given.items()}


def row(name: str, control: str, found: Looked) -> dict[str, Any]:
    """Means over pictures (blocks and heads); the first token is CLS."""
    return twins.row(name, control, found.analysis) | {
        "head_diversity": float(found.analysis.head_diversity.mean()),
        "keys_heard": float(found.heard().mean()), "keys_effective": float(found.effective().mean()),
    }  # fmt: skip


def lines(found: Mapping[str, Mapping[str, Looked]]) -> Any:
    """Over the blocks: neighbourhoods, sinks, heads and bandwidths of both models with their controls."""
    panels = {
        "keys that a patch hears": Looked.heard,
        "keys that share its weight, 1 / sum A^2": Looked.effective,
        "weight on CLS, by reach": lambda x: x.analysis.importance_first.mean(("sequence", "head")).values,
        "entropy of the weights": lambda x: x.analysis.entropy.mean(("sequence", "head")).values,
        "head diversity": lambda x: x.analysis.head_diversity.mean("sequence").values,
        "learned sigma": lambda x: x.sigma,
    }
    with plots.style():
        figure, axes = plt.subplots(2, 3, figsize=(13.0, 7.0), layout="constrained")
        for ax, (title, values) in zip(axes.flat, panels.items(), strict=True):
            for colour, (name, looked) in zip(("C0", "C1"), found.items(), strict=True):
                for control, dash in zip(twins.CONTROLS, ("-", ":", "--"), strict=True):
                    if len(y := values(looked[control])):
                        ax.plot(range(1, len(y) + 1), y, dash, color=colour, label=f"{name}, {control}")
            ax.set(title=title, xlabel="block", ylim=(0.0, None) if title != "learned sigma" else None)
        axes.flat[0].legend(fontsize=8)
    return figure


def evolution(found: Mapping[str, Mapping[str, Looked]], pictures: np.ndarray) -> Any:
    """What CLS looks at, block by block (mean over heads), a line for each picture and model."""
    blocks = next(iter(found.values()))["trained"].weights.shape[0]
    rows = [(i, name) for i in range(len(pictures)) for name in found]
    with plots.style():
        figure, axes = plt.subplots(
            len(rows), 1 + blocks, figsize=(1.0 + 0.95 * blocks, 0.95 * len(rows)), layout="constrained"
        )
        for line, (i, name) in zip(axes, rows, strict=True):
            weights = found[name]["trained"].weights[:, i, :, 0, 1:].mean(1)
            side = round(weights.shape[-1] ** 0.5)
            for ax, drawn in zip(line, (pictures[i, 0], *weights.reshape(blocks, side, side)), strict=True):
                ax.imshow(drawn, cmap="gray" if drawn is pictures[i, 0] or drawn.shape != (side, side) else "viridis")
                ax.set(xticks=[], yticks=[])
                ax.grid(visible=False)
            line[0].set_ylabel(name, fontsize=8)
        for block, ax in enumerate(axes[0, 1:], 1):
            ax.set_title(f"block {block}", fontsize=8)
    return figure


@torch.no_grad()
def agreement(model: Any, task: Any, run: str) -> float:
    """Share of the first test pictures that are right where the log of the run says so, and wrong where it says so."""
    kept = {one["run"]: logs.unpacked(one["right"]) for one in logs.read(logs.FOLDER, "fashion", "answers")}
    rows = torch.arange(ASKED)
    right = (task.answers(model, "test", rows) == task.labels["test"][rows]).numpy()
    return float((right == kept[run][:ASKED]).mean())


def main(arguments: list[str] | None = None) -> int:
    """Analyze both, draw, and keep the table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("weights", type=Path, help="folder of the kept weights")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fashion")
    parser.add_argument("--count", type=int, default=16, help="pictures")
    options = parser.parse_args(arguments)
    task = test_part(options.data)
    pixels = ((task.pixels["test"][: options.count].float() - task.mean) / task.deviation).numpy()
    models = {name: load(options.weights / f"{run.replace('+', '_')}.safetensors") for name, run in RUNS.items()}
    found = {name: cases(model, pixels) for name, model in models.items()}
    rows = []
    for name, looked in found.items():
        for control, one in looked.items():
            more = {"as_logged": agreement(models[name], task, RUNS[name])} if control == "trained" else {}
            rows.append(row(name, control, one) | more)
    logs.write(logs.FOLDER, "vits", "results", rows)
    told = {"command": COMMAND, "pictures": options.count, "runs": list(RUNS.values())}
    whole = {name: {control: one.analysis for control, one in looked.items()} for name, looked in found.items()}
    plots.save_figure(twins.draw(whole), twins.FIGURES / "trained_vits.png", told)
    plots.save_figure(lines(found), twins.FIGURES / "trained_vits_heads.png", told)
    plots.save_figure(evolution(found, pixels[:MAPS]), twins.FIGURES / "trained_vits_attention.png", told)
    sys.stdout.write("".join(f"{line}\n" for line in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
