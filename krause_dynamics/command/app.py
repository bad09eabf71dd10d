"""The command ``krause``: each subcommand parses, builds the same dataclasses as a notebook would, calls and saves."""

from __future__ import annotations

from typing import Annotated

import typer

from krause_dynamics._version import __version__
from krause_dynamics.command.analyze import analyze
from krause_dynamics.command.compare import compare
from krause_dynamics.command.init import init
from krause_dynamics.command.pictures import complete, generate
from krause_dynamics.command.simulate import simulate
from krause_dynamics.command.sweep import sweep
from krause_dynamics.command.train import train

app = typer.Typer(
    help="Tokens as interacting particles: simulate softmax and Krause dynamics, and analyze trained Transformers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)
for command in (init, simulate, sweep, analyze, compare, generate, complete, train):
    app.command()(command)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"krause_dynamics {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    """Options of the command itself."""
