"""``krause train``: a model from its configuration, into a folder of weights, metrics and curves."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from krause_dynamics.command.options import Settings, answered
from krause_dynamics.command.output import Answer, Output, options


@options("json", "csv", "quiet", "format")
def train(
    configuration: Annotated[Path, typer.Argument(help="TOML file: model, data, training, evaluation.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: the file's name).")] = None,
    set_: Settings = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: a GPU where there is one).")] = None,
    resume: Annotated[str, typer.Option(help="auto: go on with the run of the folder; never: refuse one.")] = "auto",
    *,
    output: Output,
) -> None:
    """Train a model; the same command goes on, bit for bit, where a run was stopped.

    Several GPUs: ``torchrun --nproc-per-node 4 -m krause_dynamics train FILE``.
    """
    folder = Path(configuration.stem) if out is None else out
    go_on = f"the last finished epoch is kept in {folder}, and the same command goes on"
    answered(partial(_train, configuration, folder, set_ or [], device, resume, output), output, go_on)


def _train(path: Path, out: Path, settings: list[str], device: str | None, resume: str, output: Output) -> Answer:
    from krause_dynamics.command.options import setting
    from krause_dynamics.command.tables import assign
    from krause_dynamics.training import train as run
    from krause_dynamics.training.configuration import tables_of

    tables = tables_of(path)
    for given in settings:
        tables = assign(tables, *setting(given))
    first = os.environ.get("RANK", "0") == "0"
    about: dict[str, Any] = {"resume": resume, "ending": output.format}
    result = run(tables, out=out, device=device, progress=first and output.progress, **about)
    if not first:
        return Answer("")
    measures = ", ".join(f"{k} {v:.4g}" for k, v in result.test.items() if k not in ("epoch", "step", "split"))
    chosen = result.result["chosen_by"]
    words = f"{out}: test {measures} (best of {result.result['epochs']} epochs by {chosen}: {result.best['epoch']})"
    return Answer(words, {"out": out} | result.result, (out / "metrics.csv").read_text)
