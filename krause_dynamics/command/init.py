"""``krause init``: a commented TOML file to begin with."""

from __future__ import annotations

from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from krause_dynamics.command.options import answered

FOLDER = files("krause_dynamics.command") / "examples"


def init(
    kind: Annotated[str, typer.Argument(help="circle, plane, opinions, sweep or train.")] = "circle",
    out: Annotated[Path | None, typer.Option(help="File to write (default: KIND.toml).")] = None,
    force: Annotated[bool, typer.Option(help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented TOML file for `krause simulate`, `krause sweep` or `krause train`."""
    answered(partial(_init, kind, Path(f"{kind}.toml") if out is None else out, force))


def _init(kind: str, out: Path, force: bool) -> str:
    from krause_dynamics._files import check_target, write_bytes
    from krause_dynamics._value import check_names

    known = sorted(entry.name.removesuffix(".toml") for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))
    check_names("kind", [kind], known)
    if out.exists() and not force:
        raise ValueError(f"{out} is there already; --force replaces it, --out names another file")
    write_bytes(check_target("out", out), (FOLDER / f"{kind}.toml").read_bytes())
    command = {"sweep": "sweep", "train": "train"}.get(kind, "simulate")
    return f"{out}: begin with krause {command} {out}"
