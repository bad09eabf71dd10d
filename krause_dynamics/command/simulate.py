"""``krause simulate`` and ``krause sweep``: parse, build the same values as a notebook, call, save."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

Configuration = Annotated[
    Path | None, typer.Argument(help="TOML file, or a run file (.npz) to repeat. Without it the defaults run.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="table.key=value, in TOML's notation: -s rule.beta=9 -s 'space.type=\"Circle\"'."),
]


def simulate(
    configuration: Configuration = None,
    out: Annotated[Path, typer.Option(help="Run file to write.")] = Path("run.npz"),
    rule: Annotated[str | None, typer.Option(help="softmax, krause or bounded_confidence.")] = None,
    space: Annotated[str | None, typer.Option(help="Sphere, Circle, Euclidean, Interval or Torus.")] = None,
    n: Annotated[int | None, typer.Option("-n", help="Number of particles.")] = None,
    t_end: Annotated[float | None, typer.Option(help="Final time; one layer is time 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the initial state.")] = None,
    set_: Settings = None,
    checkpoint: Annotated[Path | None, typer.Option(help="File to resume from, and to write once a minute.")] = None,
    plot: Annotated[Path | None, typer.Option(help="PNG of the trajectories, or GIF or MP4 of their motion.")] = None,
) -> None:
    """Run particles, from a TOML file or from options; the run file holds the configuration that reproduces it."""
    options = {"rule.type": rule, "space.type": space, "initial.n": n, "run.t_end": t_end, "initial.seed": seed}
    _reported(partial(_simulate, configuration, options, set_ or [], out, checkpoint, plot))


def sweep(
    configuration: Annotated[Path, typer.Argument(help="TOML file with a table 'sweep'.")],
    out: Annotated[Path, typer.Option(help="netCDF file to write.")] = Path("sweep.nc"),
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core, 0: none.")] = None,
    set_: Settings = None,
    resume: Annotated[Path | None, typer.Option(help="File that keeps finished points.")] = None,
) -> None:
    """Run every combination of the parameters and seeds of the table 'sweep'; write a labelled netCDF file."""
    _reported(partial(_sweep, configuration, set_ or [], out, workers, resume))


def _simulate(
    path: Path | None,
    options: dict[str, Any],
    settings: list[str],
    out: Path,
    checkpoint: Path | None,
    plot: Path | None,
) -> str:
    from dataclasses import replace

    from krause_dynamics.command import configuration

    tables = _tables(path, settings, options)
    _check_folder(out, checkpoint, plot)
    trajectory = configuration.run(tables, progress=True, checkpoint=checkpoint).numpy()
    trajectory = replace(trajectory, meta=trajectory.meta | {"configuration": configuration.described(tables)})
    written = trajectory.save(out)
    if plot is not None:
        from krause_dynamics import plots

        with plots.style():
            if plot.suffix in (".gif", ".mp4"):
                plots.animate(trajectory, plot)
            else:
                figure: Any = plots.overview(trajectory).figure
                plots.save_figure(figure, plot, trajectory.meta)
    count, reason = trajectory.final.shape[-2], trajectory.meta["stopped"]
    return f"{written}: {len(trajectory)} states of {count} particles, ended by {reason}"


def _sweep(path: Path, settings: list[str], out: Path, workers: int | None, resume: Path | None) -> str:
    import json

    from krause_dynamics.analysis import observables
    from krause_dynamics.command import configuration
    from krause_dynamics.sweeps import sweep as run

    tables = configuration.described(_tables(path, settings, {}))
    plan = tables["sweep"]
    if not plan["parameters"]:
        raise ValueError('[sweep.parameters] must name values, such as "rule.beta" = [1.0, 4.0]')
    for name, values in plan["parameters"].items():
        configuration.check(configuration.assign(tables, name, values[0]))  # unknown names are refused before the start
    known = ["clusters", "largest_cluster", *observables.__all__]
    configuration.check_names("statistic", plan["statistics"], known)
    _check_folder(out, resume)
    names = {name.replace(".", "_"): name for name in plan["parameters"]}
    function = partial(evaluate_point, tables, names)
    values = {label: plan["parameters"][name] for label, name in names.items()}
    dataset = run(function, values, seeds=plan["seeds"], workers=workers, path=resume, progress=True)
    dataset.attrs["configuration"] = json.dumps(tables)
    dataset.to_netcdf(out, engine="h5netcdf")
    return f"{out}: {', '.join(str(name) for name in dataset.data_vars)} over {dict(dataset.sizes)}"


def evaluate_point(tables: dict[str, Any], names: dict[str, str], rng: np.random.Generator, **point: Any) -> Any:
    """Statistics of the last state of one run; the sweep's generator seeds its initial state and its noise."""
    from krause_dynamics.analysis import observables
    from krause_dynamics.analysis.clusters import find
    from krause_dynamics.command import configuration

    for label, value in point.items():
        tables = configuration.assign(tables, names[label], value)
    tables = configuration.assign(tables, "initial.seed", int(rng.integers(2**63)))
    final = configuration.run(tables, final_only=True).final
    results: dict[str, Any] = {}
    for name in tables["sweep"]["statistics"]:
        if name in ("clusters", "largest_cluster"):
            found = find(final, tables["sweep"]["cluster_radius"])
            results[name] = found.count if name == "clusters" else found.sizes[0] / len(final)
        else:
            results[name] = getattr(observables, name)(final)
    return results


def _tables(path: Path | None, settings: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The file's tables, then options, then ``--set``, each overruling what came before."""
    import tomllib

    from krause_dynamics.command import configuration

    tables = {} if path is None else configuration.load(path)
    for name, value in options.items():
        if value is not None:
            tables = configuration.assign(tables, name, value)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be table.key=value, got {setting!r}")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a bare word is a string
        tables = configuration.assign(tables, name.strip(), value)
    return tables


def _check_folder(*paths: Path | None) -> None:
    from krause_dynamics.report import check_folder

    for path in paths:
        if path is not None and not path.absolute().parent.is_dir():
            raise ValueError(f"the folder {path.absolute().parent} does not exist; a long run would be lost at its end")
        if path is not None:
            check_folder(path.absolute().parent)


def _reported(call: Callable[[], str]) -> None:
    """Bad input in one line instead of a traceback."""
    try:
        typer.echo(call())
    except (ValueError, TypeError, OSError, RuntimeError) as error:
        typer.echo(f"Error: {error}", err=True)
        raise typer.Exit(code=2) from error
