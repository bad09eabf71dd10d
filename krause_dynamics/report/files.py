"""What an analysis leaves on disk: the Dataset, the table, and figures with their parameters."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from krause_dynamics._arguments import FILE, FOLDER, Holds, Is, Word, reads
from krause_dynamics._files import replacing, why_not_writable, write_netcdf
from krause_dynamics.report.places import EPS
from krause_dynamics.report.table import print_report

if TYPE_CHECKING:
    import xarray
    from rich.console import Console

ENDING = Word(("png", "pdf", "svg"))


@reads(folder=FOLDER)
def check_folder(folder: str | os.PathLike[str]) -> Path:
    """Make sure, before anything is computed, that results can be written.

    Raises:
        ValueError: If the folder cannot be made or written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = why_not_writable(folder)
    except OSError as error:
        reason = error.strerror or type(error).__name__
    if reason:
        raise ValueError(f"out must be a folder that can be written to, received {str(folder)!r} ({reason})")
    return folder


@reads(dataset=Holds("kd.analyze", ()), path=FILE)
def write_dataset(dataset: xarray.Dataset, path: str | os.PathLike[str]) -> Path:
    """Write netCDF, compressed; facts are attributes, and all of them as JSON in ``attrs["meta"]``.

    Args:
        dataset: From `kd.analyze`.
        path: File to write.
    """
    path = Path(path)
    write_netcdf(path, dataset)
    return path


@reads(dataset=Holds("kd.analyze", ("length",)), folder=FOLDER, parameters=Is(dict, "{}"), ending=ENDING)
def write_figures(
    dataset: xarray.Dataset, folder: str | os.PathLike[str], parameters: dict[str, Any], *, ending: str = "png"
) -> list[Path]:
    """Write the figures synchronization, clusters and sinks, each with its JSON, as far as what they draw was measured.

    Args:
        dataset: Of ``kd.analyze``.
        folder: Is made where there is none.
        parameters: What is written beside each figure, together with the metadata of the analysis.
        ending: ``"png"``, which every viewer shows; ``"pdf"`` or ``"svg"`` for print.

    Raises:
        ValueError: The folder cannot be made or written to.
    """
    from krause_dynamics import plots

    folder, described = check_folder(folder), parameters | {"analysis": json.loads(dataset.attrs["meta"])}
    draws: dict[str, tuple[tuple[str, ...], Any]] = {
        "synchronization": (("order_parameter", "norm_ratio"), plots.layers_figure),
        "clusters": (("clusters",), plots.clusters_figure),
        "sinks": (("sink_rate",), partial(plots.sinks_figure, eps=EPS)),
    }
    with plots.style():
        return [
            plots.save_figure(draw(dataset), folder / f"{name}.{ending}", described)
            for name, (shown, draw) in draws.items()
            if all(variable in dataset for variable in shown)
        ]


@reads(dataset=Holds("kd.analyze", ("length",)), folder=FOLDER, parameters=Is(dict, "{}"), ending=ENDING)
def write_all(
    dataset: xarray.Dataset, folder: str | os.PathLike[str], parameters: dict[str, Any], *, ending: str = "png"
) -> list[Path]:
    """Everything ``krause analyze --out`` leaves: analysis.nc, table.txt, figures with their parameters.

    Args:
        dataset: Of ``kd.analyze``.
        folder: Is made where there is none.
        parameters: What is written beside each figure, together with the metadata of the analysis.
        ending: Of the figures, as for `write_figures`.

    Raises:
        ValueError: The folder cannot be made or written to.
    """
    folder = check_folder(folder)
    table = write_table(folder / "table.txt", partial(print_report, dataset), width=140)
    figures = write_figures(dataset, folder, parameters, ending=ending)
    return [write_dataset(dataset, folder / "analysis.nc"), table, *figures]


def write_table(path: Path, printed: Callable[[Console], None], *, width: int) -> Path:
    """What is printed to a console of that many characters, as a file."""
    from rich.console import Console

    with replacing(path) as beside, beside.open("w", encoding="utf-8") as stream:
        printed(Console(file=stream, width=width))
    return path
