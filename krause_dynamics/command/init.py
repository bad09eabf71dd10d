"""``krause init``: a commented TOML file to begin with."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from krause_dynamics.command.options import answered, check_paths
from krause_dynamics.command.output import Answer, Output, options

FOLDER = files("krause_dynamics.command") / "examples"


@options("json", "quiet", "force")
def init(
    kind: Annotated[str, typer.Argument(help="circle, plane, opinions, sweep or train.")] = "circle",
    out: Annotated[Path | None, typer.Option(help="File to write (default: KIND.toml).")] = None,
    *,
    output: Output,
) -> None:
    """Write a commented TOML file for `krause simulate`, `krause sweep` or `krause train`."""
    answered(partial(_init, kind, Path(f"{kind}.toml") if out is None else out, output), output)


def _init(kind: str, out: Path, output: Output) -> Answer:
    from krause_dynamics._files import check_target, write_bytes
    from krause_dynamics._value import check_names

    known = sorted(entry.name.removesuffix(".toml") for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))
    check_names("kind", [kind], known)
    check_paths(out)
    output.may_write(out)
    write_bytes(check_target("out", out), (FOLDER / f"{kind}.toml").read_bytes())
    command = {"sweep": "sweep", "train": "train"}.get(kind, "simulate")
    return Answer(f"{out}: begin with krause {command} {out}", {"out": out, "command": ["krause", command, out]})
