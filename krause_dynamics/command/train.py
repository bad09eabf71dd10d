"""``krause train``: a model from its configuration, into a folder of weights, metrics and curves."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import typer

from krause_dynamics.command.options import answered
from krause_dynamics.command.output import Answer, Output, options


@options("json", "csv", "quiet", "format")
def train(
    configuration: Annotated[Path, typer.Argument(help="TOML file: model, data, training, evaluation.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the run (default: the file's name).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", "-s", help="table.key=value, in TOML's notation: -s training.epochs=3 -s model.score=dot."
        ),
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda (default: a GPU where there is one).")] = None,
    resume: Annotated[
        str,
        typer.Option(help="auto: go on with the folder's run; never: refuse one; end: test its best weights, and end."),
    ] = "auto",
    seeds: Annotated[
        int | None,
        typer.Option(min=1, help="So many runs, from training.seed on, each in OUT/seed-N; their mean and spread."),
    ] = None,
    *,
    output: Output,
) -> None:
    """Train a model; the same command goes on, bit for bit, where a run was stopped.

    Several GPUs: torchrun --nproc-per-node 4 -m krause_dynamics train FILE
    """
    folder = Path(configuration.stem) if out is None else out
    call = partial(_train, configuration, folder, set_ or [], device, resume, seeds, output)
    answered(call, output, partial(_kept_in, folder))


def _kept_in(folder: Path) -> str:
    if not any(folder.rglob("state.safetensors")):
        return "no epoch was finished"
    return f"the last finished epoch is kept in {folder}, and the same command goes on"


def _train(
    path: Path, out: Path, settings: list[str], device: str | None, resume: str, seeds: int | None, output: Output
) -> Answer:
    from krause_dynamics.command.options import setting
    from krause_dynamics.command.tables import assign
    from krause_dynamics.training import TrainingConfiguration
    from krause_dynamics.training import train as run
    from krause_dynamics.training.configuration import tables_of

    if not path.is_file():
        raise FileNotFoundError(f"the configuration {path} does not exist; krause init train writes one to begin with")
    tables = tables_of(path)
    for given in settings:
        tables = assign(tables, *setting(given))
    first = os.environ.get("RANK", "0") == "0"
    about: dict[str, Any] = {"resume": resume, "ending": output.format, "progress": first and output.progress}
    if seeds is None:
        result = run(tables, out=out, device=device, **about)
        return Answer(_told(result), {"out": out} | result.result, _metrics(result)) if first else Answer("")
    begin = TrainingConfiguration.read(tables).training.seed
    results = {
        seed: run(assign(tables, "training.seed", seed), out=out / f"seed-{seed}", device=device, **about)
        for seed in range(begin, begin + seeds)
    }
    return _several(out, results) if first else Answer("")


def _told(result: Any) -> str:
    """A run in a line."""
    measures = ", ".join(f"{name} {value:.4g}" for name, value in _measures(result).items())
    epochs, chosen = result.result["epochs"], result.result["chosen_by"]
    return f"{result.folder}: test {measures} (best of {epochs} epochs by {chosen}: {result.best['epoch']})"


def _metrics(result: Any) -> Callable[[], str]:
    return partial((result.folder / "metrics.csv").read_text, encoding="utf-8")


def _measures(result: Any) -> dict[str, float]:
    return {name: value for name, value in result.test.items() if name not in ("epoch", "step", "split", "seconds")}


def _several(out: Path, results: Mapping[int, Any]) -> Answer:
    """Runs that differ in their seed: each, then mean and standard deviation of the test part."""
    found = [_measures(result) for result in results.values()]
    summary = {
        f"test_{name}": {
            "mean": mean(one[name] for one in found),
            "deviation": stdev(one[name] for one in found) if len(found) > 1 else None,
        }
        for name in found[0]
    }
    told = ", ".join(
        f"{name.removeprefix('test_')} {x['mean']:.4g}" + (f" +- {x['deviation']:.2g}" if x["deviation"] else "")
        for name, x in summary.items()
    )
    words = [*map(_told, results.values()), f"{out}: test {told} (mean +- standard deviation of {len(found)} seeds)"]
    facts = {"out": out, "seeds": list(results), **summary, "runs": [result.result for result in results.values()]}

    def rows() -> str:
        head, lines = "", []
        for seed, result in results.items():
            head, *own = _metrics(result)().splitlines()
            lines += [f"{seed},{line}" for line in own]
        return "\n".join([f"seed,{head}", *lines]) + "\n"

    return Answer("\n".join(words), facts, rows)
