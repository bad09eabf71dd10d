"""``krause sweep``: every combination of the values of the table [sweep], into one netCDF file."""

from __future__ import annotations

import inspect
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from krause_dynamics.command.options import Settings, answered, check_ending, check_paths, tables_of, unfinished
from krause_dynamics.command.output import Answer, Output, drawn, options

if TYPE_CHECKING:
    import numpy as np
    import xarray

    from krause_dynamics._array import Array
    from krause_dynamics.spaces import Space

OF_CLUSTERS = ("clusters", "largest_cluster")  # statistics with a radius, besides the names of kd.observables


@options("json", "csv", "quiet", "force")
def sweep(
    configuration: Annotated[Path, typer.Argument(help="TOML file with a table 'sweep'.")],
    out: Annotated[Path, typer.Option(help="netCDF file to write.")] = Path("sweep.nc"),
    workers: Annotated[int | None, typer.Option(help="Processes; by default one per core, 0: none.")] = None,
    set_: Settings = None,
    plot: Annotated[
        Path | None, typer.Option(help="PNG, PDF or SVG: the first statistic over the two parameters of the sweep.")
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="File (.npz or .nc) that keeps finished points; by default one beside --out, which goes in the end."
        ),
    ] = None,
    *,
    output: Output,
) -> None:
    """Run every combination of the parameters and seeds of the table 'sweep'; write a labelled netCDF file.

    After a failure, Ctrl-C or SIGTERM finished points are kept, and the same command goes on.
    """
    kept = resume or unfinished(out, "unfinished").with_suffix(".npz")
    call = partial(_sweep, configuration, set_ or [], out, workers, kept, resume is None, plot, output)
    answered(call, output, partial(_kept_in, kept))


def _kept_in(kept: Path) -> str:
    if not kept.exists():
        return "no point was finished"
    return f"finished points are in {kept}, and the same command goes on"


def _sweep(
    path: Path,
    settings: list[str],
    out: Path,
    workers: int | None,
    kept: Path,
    removed: bool,
    plot: Path | None,
    output: Output,
) -> Answer:
    from krause_dynamics._files import write_netcdf
    from krause_dynamics.command import tables
    from krause_dynamics.sweeps import sweep as run

    described = tables.described(tables_of(path, settings, {}))
    plan = described["sweep"]
    _check_plan(described)
    check_ending(out, ".nc")
    check_paths(out, kept, plot)
    if plot is not None:
        _check_plot(plot, plan["parameters"])
    output.may_write(None if _holds(out, described) else out, plot)
    names = {name.replace(".", "_"): name for name in plan["parameters"]}
    function = partial(evaluate_point, described, names)
    values = {label: plan["parameters"][name] for label, name in names.items()}
    dataset = run(function, values, seeds=plan["seeds"], workers=workers, path=kept, progress=output.progress)
    dataset.attrs["configuration"] = json.dumps(described)
    write_netcdf(out, dataset)
    if plot is not None:
        _draw(dataset, list(values), plan["statistics"][0], plot)
    if removed:
        kept.unlink(missing_ok=True)
    facts = {"out": out, "plot": plot, "configuration": described, "values": values}
    return _answer(dataset, facts)


def _check_plan(described: dict[str, Any]) -> None:
    """Refuse before the start, not hours later, what some point of the sweep could not run or say."""
    from krause_dynamics._value import check_names
    from krause_dynamics.analysis import observables
    from krause_dynamics.command import configuration, tables

    plan = described["sweep"]
    if not plan["parameters"]:
        raise ValueError('[sweep] must name values, such as "rule.beta" = [1.0, 4.0]')
    for name, values in plan["parameters"].items():
        if not isinstance(values, list):
            raise ValueError(f"[sweep] {name} must be a list of values, got {values!r}")
        for value in values:
            configuration.check(tables.assign(described, name, value))
    check_names("statistic", plan["statistics"], [*OF_CLUSTERS, *observables.__all__])


def _answer(dataset: xarray.Dataset, facts: dict[str, Any]) -> Answer:
    from krause_dynamics.report.describing import describe

    sizes, means = dict(dataset.sizes), dataset.mean("seed")
    words = f"{facts['out']}{drawn(facts['plot'])}\n{describe(dataset)}"
    facts |= {"sizes": sizes, "mean_over_seeds": {str(name): x.values for name, x in means.data_vars.items()}}
    return Answer(words, facts, lambda: str(dataset.to_dataframe().reset_index().to_csv(index=False)))


def _holds(out: Path, described: dict[str, Any]) -> bool:
    """Whether a file is the result of this very sweep, so that going on replaces nothing."""
    from krause_dynamics._files import read_netcdf

    try:
        return out.exists() and read_netcdf(out).attrs.get("configuration") == json.dumps(described)
    except ValueError:
        return False


def _check_plot(path: Path, parameters: dict[str, Any]) -> None:
    """Refuse what could not be drawn before hours of runs."""
    from krause_dynamics.plots.style import figure_path

    figure_path(path)
    numbers = [all(isinstance(x, int | float) for x in values) for values in parameters.values()]
    if numbers != [True, True]:
        raise ValueError(
            f"--plot draws two parameters of numbers, got {', '.join(parameters)}; kd.plots.phase draws parts"
        )


def _draw(dataset: xarray.Dataset, axes: list[str], statistic: str, path: Path) -> None:
    from krause_dynamics import plots

    with plots.style():
        figure: Any = plots.phase(dataset, x=axes[0], y=axes[1], value=statistic).figure
        plots.save_figure(figure, path, {"configuration": dataset.attrs["configuration"]})


def evaluate_point(
    described: dict[str, Any], names: dict[str, str], rng: np.random.Generator, **point: Any
) -> dict[str, Any]:
    """Statistics of the last state of one run; the sweep's generator seeds its initial state and its noise."""
    from krause_dynamics.command import configuration, tables

    changed = described
    for label, value in point.items():
        changed = tables.assign(changed, names[label], value)
    changed = tables.assign(changed, "initial.seed", int(rng.integers(2**63)))
    run = configuration.run(changed, final_only=True)
    radius = described["sweep"]["cluster_radius"]
    return {name: _statistic(name, run.final, radius, run.space) for name in described["sweep"]["statistics"]}


def _statistic(name: str, final: Array, radius: float, space: Space) -> Any:
    from krause_dynamics.analysis import observables
    from krause_dynamics.analysis.clusters import find

    if name not in OF_CLUSTERS:
        function = getattr(observables, name)
        asks = space.period is not None and "space" in inspect.signature(function).parameters
        return function(final, space=space) if asks else function(final)
    found = find(final, radius, period=space.period)
    return found.count if name == "clusters" else found.sizes[0] / len(final)
