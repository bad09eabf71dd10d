"""``krause simulate``: particles or opinions from a TOML file or from options, into a run file."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from krause_dynamics._version import __version__
from krause_dynamics.command.options import (
    Settings,
    answered,
    check_ending,
    check_paths,
    free,
    tables_of,
    tell,
    unfinished,
)
from krause_dynamics.command.output import Answer, Output, drawn, options
from krause_dynamics.command.rules import disguised, rule_options
from krause_dynamics.errors import SimulationDiverged
from krause_dynamics.runs.interrupting import Interrupts, Terminated

if TYPE_CHECKING:
    from collections.abc import Callable

    from krause_dynamics.trajectory import Trajectory


@options("json", "csv", "quiet", "force")
def simulate(
    configuration: Annotated[
        Path | None,
        typer.Argument(help="TOML file, or a run file (.npz or .nc) to repeat. Without it the defaults run."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Run file to write: .npz, or .nc for netCDF (default: run.npz; of a run that is repeated beside it)."
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="softmax, krause (within a radius of 0.5 unless said otherwise) or bounded_confidence."),
    ] = None,
    beta: Annotated[float | None, typer.Option(help="Inverse temperature of softmax.")] = None,
    sigma: Annotated[float | None, typer.Option(help="Bandwidth of krause; unit: position.")] = None,
    radius: Annotated[
        float | None, typer.Option(help="Hear those within it alone; on the unit sphere a chord.")
    ] = None,
    window: Annotated[
        int | None, typer.Option(help="Hear so many particles by index: those before, and oneself.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Hear the so many nearest alone.")] = None,
    space: Annotated[str | None, typer.Option(help="Sphere, Circle, Euclidean, Interval or Torus.")] = None,
    n: Annotated[int | None, typer.Option("--particles", "-n", help="Number of particles.")] = None,
    t_end: Annotated[float | None, typer.Option(help="Final time; one layer is time 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the initial state.")] = None,
    set_: Settings = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to resume from, and to write once a minute.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG, PDF or SVG of the trajectories, or GIF or MP4 of their motion.")
    ] = None,
    *,
    output: Output,
) -> None:
    """Run particles, from a TOML file or from options; the run file holds the configuration that reproduces it.

    After Ctrl-C or SIGTERM, and where a run diverges, what was computed is written beside, and --out left as it is.
    """
    settings = {"space.type": space, "initial.n": n, "run.t_end": t_end, "initial.seed": seed}
    near = {"rule": rule, "beta": beta, "sigma": sigma, "radius": radius, "window": window, "top_k": top_k}
    target = _default_out(configuration) if out is None else out
    answered(partial(_simulate, configuration, settings, near, set_ or [], target, checkpoint, plot, output), output)


def _default_out(configuration: Path | None) -> Path:
    """``run.npz`` here; a run that is repeated is not replaced by its repetition."""
    if configuration is None or configuration.suffix not in (".npz", ".nc"):
        return Path("run.npz")
    return Path(f"{configuration.stem}_repeated{configuration.suffix}")


def _simulate(
    path: Path | None,
    options: dict[str, Any],
    near: dict[str, Any],
    settings: list[str],
    out: Path,
    checkpoint: Path | None,
    plot: Path | None,
    output: Output,
) -> Answer:
    from krause_dynamics._files import with_ending
    from krause_dynamics.command import configuration, tables

    options |= rule_options({} if path is None else tables.load(path), **near)
    given = tables_of(path, settings, options)
    described = tables.described(given)
    configuration.check(described)  # what is mistyped is told before what is there already
    check_ending(out, ".npz", ".nc")
    check_paths(out, checkpoint, plot)
    if plot is not None:
        _check_plot(plot)
    output.may_write(with_ending(out, ".npz", (".npz", ".nc")), plot)
    changed = settings or any(value is not None for value in options.values())
    impl = "auto" if changed else tables.form_of(path)
    if (words := disguised(described)) and not output.quiet:
        tell(f"note: {words}")
    run = _whole(partial(configuration.run, given, progress=output.progress, impl=impl), described, out, checkpoint)
    with Interrupts() as interrupts:  # a finished run is written first
        run = _described(run, described)
        written = run.save(out)
        if plot is not None:
            _draw(run, plot)
    answer = _answer(run, written, plot)
    if interrupts.reason is not None:
        raise (Terminated if interrupts.terminated else KeyboardInterrupt)(answer.words)
    return answer


def _whole(
    start: Callable[..., Trajectory], described: dict[str, Any], out: Path, checkpoint: Path | None
) -> Trajectory:
    """The run to its end; what there is of a run that ends before is written, and the error says where."""
    go_on = f"the same command with --checkpoint {checkpoint} goes on" if checkpoint else (
        "give --checkpoint FILE for a run that can go on"
    )  # fmt: skip
    try:
        run = start(checkpoint=checkpoint)
    except Terminated as error:
        raise Terminated(f"{_keep(error.result, described, out)}{go_on}") from error
    except SimulationDiverged as error:
        raise RuntimeError(f"{error}; {_keep(error.trajectory, described, out)}") from error
    if run.meta["stopped"] == "interrupted":
        raise KeyboardInterrupt(f"{_keep(run, described, out)}{go_on}")
    return run


def _answer(run: Trajectory, written: Path, plot: Path | None) -> Answer:
    count, reason = run.final.shape[-2], run.meta["stopped"]
    words = f"{written}: {len(run)} states of {count} particles, ended by {reason}" + drawn(plot)
    facts = {"out": written, "plot": plot, "states": len(run), "particles": count, "dimension": run.final.shape[-1]}
    facts |= {"t_end": float(run.times[-1]), "ended_by": reason, "impl": run.meta.get("impl"), "version": __version__}
    return Answer(words, facts, partial(_positions, run))


def _positions(run: Trajectory) -> str:
    """A line for each time and particle, a column for each coordinate."""
    positions = run.to_xarray()["positions"]
    table = positions.to_dataset("dimension").rename({i: f"x{i}" for i in range(positions.sizes["dimension"])})
    return str(table.to_dataframe().reset_index().to_csv(index=False))


def _described(run: Trajectory, described: dict[str, Any]) -> Trajectory:
    return replace(run.numpy(), meta=run.meta | {"configuration": described})


def _keep(run: Trajectory | None, described: dict[str, Any], out: Path) -> str:
    """Write what there is of a run beside its place; in words where."""
    if run is None:
        return ""
    written = _described(run, described).save(free(unfinished(out, run.meta["stopped"])))
    return f"{written} holds the run up to t = {float(run.times[-1]):g}; "


def _check_plot(path: Path) -> None:
    from krause_dynamics.plots.style import figure_path

    if path.suffix not in (".gif", ".mp4"):
        figure_path(path)


def _draw(run: Trajectory, path: Path) -> None:
    from krause_dynamics import plots

    with plots.style():
        if path.suffix in (".gif", ".mp4"):
            plots.animate(run, path)
        else:
            figure: Any = plots.overview(run).figure
            plots.save_figure(figure, path, run.meta)
