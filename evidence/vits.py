"""The trained vision transformers looked at: softmax and the full rule, with fresh weights and shuffled patches beside.

    python -m evidence.vits WEIGHTS --data DATA

WEIGHTS is the folder into which the runner wrote the two models that it keeps (11 MB each, not in the repository):

    python -m evidence.run fashion --only fashion-dot.full-0 fashion-gaussian.window+top_k-0 --data DATA --out WEIGHTS

The first pictures of the test part go through both; that they answer as the logs of their runs say shows that the
weights are those (of runs made again, on another machine or with torch.compile, how alike they are). Writes three
figures, `figures/trained_vits*.png`, and a table into the logs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evidence import logs, twins, vit_figures
from evidence.experiments import configuration
from evidence.looked import Looked
from evidence.plan import Run
from krause_dynamics import plots

COMMAND = "python -m evidence.vits"
RUNS = {"softmax": "fashion-dot.full-0", "krause": "fashion-gaussian.window+top_k-0"}
MAPS = 4  # pictures whose attention is drawn
ASKED = 400  # pictures whose answers are held against the log


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
        "groups": float(found.groups().mean()), "separated": 100.0 * float((found.groups() > 1).mean()),
    }  # fmt: skip


@torch.no_grad()
def agreement(model: Any, task: Any, run: str, folder: Path = logs.FOLDER) -> float:
    """Share of the first test pictures that are right where the log of the run says so, and wrong where it says so."""
    kept = {one["run"]: logs.unpacked(one["right"]) for one in logs.read(folder, "fashion", "answers")}
    rows = torch.arange(ASKED)
    right = (task.answers(model, "test", rows) == task.labels["test"][rows]).numpy()
    return float((right == kept[run][:ASKED]).mean())


def main(arguments: list[str] | None = None) -> int:
    """Analyze both, draw, and keep the table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("weights", type=Path, help="folder of the kept weights")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds fashion")
    parser.add_argument("--count", type=int, default=16, help="pictures")
    parser.add_argument("--logs", type=Path, default=logs.FOLDER, help="folder of the runs' answers, and of the table")
    parser.add_argument("--figures", type=Path, default=twins.FIGURES, help="folder of the figures")
    options = parser.parse_args(arguments)
    task = test_part(options.data)
    pixels = ((task.pixels["test"][: options.count].float() - task.mean) / task.deviation).numpy()
    models = {name: load(options.weights / f"{run.replace('+', '_')}.safetensors") for name, run in RUNS.items()}
    found = {name: cases(model, pixels) for name, model in models.items()}
    rows = []
    for name, looked in found.items():
        for control, one in looked.items():
            more = (
                {"as_logged": agreement(models[name], task, RUNS[name], options.logs)} if control == "trained" else {}
            )
            rows.append(row(name, control, one) | more)
    logs.write(options.logs, "vits", "results", rows)
    told = {"command": COMMAND, "pictures": options.count, "runs": list(RUNS.values())}
    whole = {name: {control: one.analysis for control, one in looked.items()} for name, looked in found.items()}
    plots.save_figure(twins.draw(whole), options.figures / "trained_vits.png", told)
    plots.save_figure(vit_figures.lines(found), options.figures / "trained_vits_heads.png", told)
    plots.save_figure(vit_figures.evolution(found, pixels[:MAPS]), options.figures / "trained_vits_attention.png", told)
    sys.stdout.write("".join(f"{line}\n" for line in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
