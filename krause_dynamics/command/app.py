"""The command ``krause``: each subcommand parses, builds the same dataclasses as a notebook would, calls and saves."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from krause_dynamics._arguments.meant import nearest
from krause_dynamics._version import __version__
from krause_dynamics.command.analyze import analyze
from krause_dynamics.command.compare import compare
from krause_dynamics.command.init import init
from krause_dynamics.command.options import tell
from krause_dynamics.command.pictures import complete, generate
from krause_dynamics.command.simulate import simulate
from krause_dynamics.command.sweep import sweep
from krause_dynamics.command.train import train
from krause_dynamics.runs.interrupting import INTERRUPTED


def _meant(error: Any) -> str | None:
    """An option that there is not, with the one that is meant; typer names whatever begins alike."""
    given, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if given is None or context is None:
        return None
    options = [parameter.name for parameter in context.command.params if parameter.param_type_name == "option"]
    near = nearest(given.lstrip("-").replace("-", "_"), options)
    return f"No such option: {given}" + (f"; did you mean --{near.strip('_').replace('_', '-')}?" if near else "")


def _got(error: Any, words: Sequence[str] | None) -> str:
    """The value of an option that cannot be read, which typer's message of numbers leaves out."""
    names = getattr(getattr(error, "param", None), "opts", ())
    given = list(sys.argv[1:] if words is None else words)
    for word, after in zip(given, [*given[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in names and name.startswith("-"):
            return f", got {value if equals else after!r}"
    return ""


def _way_out(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


class PlainFlags:
    """A flag takes no value, so its help shows none (some versions of typer write ``--json <bool>``)."""

    def get_params(self, ctx: Any) -> list[Any]:
        """As of any command."""
        found: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for parameter in found:
            if getattr(parameter, "is_flag", False):
                parameter.display_type_rich = lambda ctx: None
        return found


class Command(PlainFlags, TyperCommand):
    """A subcommand."""


class OneStyle(PlainFlags, TyperGroup):
    """Mistakes in the command itself are told as all others are: one line, ``Error: ...``, and the exit code 2."""

    def main(self, *args: Any, **given: Any) -> Any:
        """As of any group of commands; typer's own frame around errors is left out."""
        if not given.pop("standalone_mode", True):
            return super().main(*args, **given | {"standalone_mode": False})
        try:
            status = super().main(*args, **given | {"standalone_mode": False})
        except typer.Abort:
            status = INTERRUPTED
        except Exception as error:
            if not hasattr(error, "format_message"):  # of typer's exceptions alone
                raise
            if words := error.format_message().rstrip("."):  # none where the help was asked for by giving nothing
                asked = args[0] if args else given.get("args")
                words = _meant(error) or words.replace("Value error, ", "") + _got(error, asked)
                tell(f"Error: {words}{_way_out(error)}")
            status = error.exit_code  # type: ignore[attr-defined]
        sys.exit(status if isinstance(status, int) else 0)


app = typer.Typer(
    cls=OneStyle,
    help="Tokens as interacting particles: simulate softmax and Krause dynamics, and analyze trained Transformers.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_show_locals=False,
)
for command in (init, simulate, sweep, analyze, compare, generate, complete, train):
    app.command(cls=Command)(command)


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
