"""``krause compare``: parse, call ``kd.compare``, write and print."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from krause_dynamics.command.options import answered, check_model, files_shown
from krause_dynamics.command.output import Answer, Output, options
from krause_dynamics.command.own_measures import OWN, with_own_measures


@options("json", "csv", "quiet", "force", "format")
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Folders or names of checkpoints, as for krause analyze; one folder that holds the checkpoints of a "
            "training (checkpoint-500, ...); or one model, for several texts."
        ),
    ],
    text: Annotated[
        list[Path] | None, typer.Option(help="Text file (UTF-8); --text A --text B compares texts in one model.")
    ] = None,
    token_ids: Annotated[
        list[Path] | None,
        typer.Option(help="Token ids in place of a text (.json or .npy), for models that have no tokenizer."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for comparison.nc, .csv, table.txt and PNG figures.")] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Page (.html) with words, tables and pictures, to be read offline; .csv and .nc beside it."),
    ] = None,
    length: Annotated[int | None, typer.Option(help="Cut the input into sequences of this many tokens.")] = None,
    max_sequences: Annotated[int | None, typer.Option(help="Analyse only the first ones.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences per forward pass.")] = 8,
    dtype: Annotated[str | None, typer.Option(help="Of the weights, such as float32 (default: as stored).")] = None,
    device: Annotated[str | None, typer.Option(help="Where the models run, such as cuda (default: cpu).")] = None,
    memory: Annotated[str | None, typer.Option(help="What may be used, such as 24GB, see krause analyze.")] = None,
    measure: Annotated[list[str] | None, OWN] = None,
    level: Annotated[float, typer.Option(help="Of the intervals of differences.")] = 0.95,
    seed: Annotated[int, typer.Option(help="Of the resampling of sequences.")] = 0,
    *,
    output: Output,
) -> None:
    """Compare models on a text, texts in a model, or the checkpoints of a training, on relative depth."""
    settings = {
        "sequence_length": length,
        "max_sequences": max_sequences,
        "batch_size": batch_size,
        "dtype": dtype,
        "device": device,
        "memory": memory,
        "level": level,
        "rng": seed,
        "measures": "default",
        "own": tuple(measure or ()),
    }
    answered(
        partial(_compare, models, (text or [], token_ids or []), (out, report), settings, output),
        output,
        "nothing was written",
    )


def _compare(
    models: list[str],
    shown: tuple[list[Path], list[Path]],
    targets: tuple[Path | None, Path | None],
    settings: dict[str, Any],
    output: Output,
) -> Answer:
    for model in models:
        check_model(model)
    files = files_shown(*shown)
    from rich.console import Console

    from krause_dynamics import report
    from krause_dynamics.checkpoints import compare as run
    from krause_dynamics.report.comparison import rows_text

    settings = with_own_measures(settings)
    cases, inputs = _cases(models, files)
    out, page = targets
    folder = None if out is None else report.check_folder(out)
    if page is not None:
        report.check_page(page)
        output.may_write(*(page.with_suffix(ending) for ending in (page.suffix, ".csv", ".nc")))
    output.may_write(folder, way_out="--out names another folder")
    comparison = run(cases, progress=output.progress, **inputs, **settings)
    told = {"command": "krause compare", "models": models, "texts": list(map(str, files))}
    written = [] if folder is None else report.write_comparison(comparison, folder, told, ending=output.format)
    if page is not None:
        written += report.write_comparison_page(comparison, page, told)
    words, rows = "\n".join(f"wrote {path}" for path in written), report.comparison_rows(comparison)
    facts = told | {"rows": rows, "written": written}
    show = partial(report.print_comparison, comparison, Console())
    return Answer(words, facts, partial(rows_text, rows), show)


def _cases(models: list[str], texts: list[Path]) -> tuple[Any, dict[str, Any]]:
    """What is compared, and what stays the same."""
    if len(texts) == 1:
        return (models[0] if len(models) == 1 else _named(models)), {"inputs": texts[0]}
    if len(models) > 1:
        raise ValueError(f"give several models or several texts, not {len(models)} and {len(texts)}")
    return {name: Path(path) for name, path in _named(list(map(str, texts))).items()}, {"model": models[0]}


def _named(paths: list[str]) -> dict[str, str]:
    """Paths by their last names, or as they are where those are the same."""
    short = [Path(path).name or path for path in paths]
    return dict(zip(short if len(set(short)) == len(paths) else paths, paths, strict=True))
