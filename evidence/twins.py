"""The trained pair looked at: sinks, clusters and synchronization over layers, with untrained and shuffled controls.

``python -m evidence.twins`` writes ``figures/trained_pair.png``, completions beside it, and a table into the logs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt

import krause_dynamics as kd
from evidence import logs, pair
from krause_dynamics import plots

FIGURES = Path(__file__).parent.parent / "figures"
COMMAND = "python -m evidence.twins"
CONTROLS = ("trained", "untrained", "shuffled")
EPS, RADIUS = 0.3, 0.8  # threshold of a sink; chord within which directions are one cluster


def looked_at(model: Any, pictures: np.ndarray) -> dict[str, Any]:
    """`kd.analyze` of a model, of the same model with fresh weights, and on values whose order is shuffled."""
    import torch

    values = pictures.reshape(len(pictures), -1).astype(np.int64)
    shuffled = np.random.default_rng(0).permuted(values, axis=1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = type(model)(model.config).eval()
    cases = {"trained": (model, values), "untrained": (fresh, values), "shuffled": (model, shuffled)}
    return {name: kd.analyze(*case, eps=(EPS,)) for name, case in cases.items()}


def row(name: str, control: str, found: Any) -> dict[str, Any]:
    """Means over sequences (and blocks and heads) of an analysis."""
    last = found.isel(layer=-1).sel(tokens="without_first").mean("sequence")
    return {
        "run": f"{name}-{control}", "model": name, "control": control,
        "sink_rate": float(found.sink_rate.sel(eps=EPS).mean()),
        "importance_first": float(found.importance_first.mean()),
        "published_importance_first": float(found.published_importance_first.mean()),
        "entropy": float(found.entropy.mean()),
        "order_parameter": float(last.order_parameter),
        "effective_clusters": float(last.effective_clusters.sel(radius=RADIUS, method="nearest")),
    }  # fmt: skip


def draw(found: dict[str, dict[str, Any]]) -> Any:
    """Synchronization with controls, clusters and sinks, a line of panels for each model."""
    with plots.style():
        figure, axes = plt.subplots(len(found), 3, figsize=(14.0, 3.8 * len(found)), layout="constrained")
        for (name, cases), (left, middle, right) in zip(found.items(), axes, strict=True):
            for control, dash in zip(CONTROLS, ("-", ":", "--"), strict=True):
                line = {"label": control, "color": "C0" if control == "trained" else "0.4", "linestyle": dash}
                plots.synchronization(cases[control], ax=left, tokens="without_first", **line)
            left.legend()
            left.set(title=f"{name}: synchronization", ylabel="order parameter R")
            plots.clusters(cases["trained"], ax=middle).set_title(f"{name}: clusters of tokens")
            plots.sink_map(cases["trained"], ax=right, eps=EPS).set_title(f"{name}: sinks")
    return figure


def completions(pictures: np.ndarray, count: int) -> np.ndarray:
    """Given digits, then their completions by each model: (3 count, 28, 28)."""
    drawn = [kd.models.complete_pictures(pair.load(name), pictures[:count])[..., 0] for name in pair.RUNS]
    return np.concatenate([pictures[:count], *drawn])


def main(arguments: list[str] | None = None) -> int:
    """Analyze the pair, draw, and keep the table."""
    parser = argparse.ArgumentParser(prog=COMMAND, description=__doc__)
    parser.add_argument("--count", type=int, default=4, help="digits that are analyzed")
    parser.add_argument("--complete", type=int, default=8, help="digits that are completed")
    options = parser.parse_args(arguments)
    pictures = pair.digits()
    found = {name: looked_at(pair.load(name), pictures[: options.count]) for name in pair.RUNS}
    rows = [row(name, control, cases[control]) for name, cases in found.items() for control in CONTROLS]
    logs.write(logs.FOLDER, "twins", "results", rows)
    told = {"command": COMMAND, "digits": options.count}
    plots.save_figure(draw(found), FIGURES / "trained_pair.png", told)
    told = {"command": COMMAND, "rows": "given, softmax, Krause"}
    plots.save_pictures(
        completions(pictures, options.complete), FIGURES / "trained_pair_completions.png", told,
        columns=options.complete, levels=16, scale=4,
    )  # fmt: skip
    sys.stdout.write("".join(f"{line}\n" for line in rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
