"""What a command prints and may replace: one meaning of --json, --csv, --quiet and --force, defined once for all."""

from __future__ import annotations

import functools
import inspect
import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import typer

from krause_dynamics.errors import printable

# Parameters that `options` adds to a command, by name.
ADDED: dict[str, tuple[Any, Any]] = {
    "json": (
        Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object, and nothing else.")],
        False,
    ),
    "csv": (
        Annotated[bool, typer.Option("--csv", help="Print the numbers as CSV; words go to the standard error.")],
        False,
    ),
    "quiet": (
        Annotated[bool, typer.Option("--quiet", "-q", help="Neither words nor a bar; errors are still told.")],
        False,
    ),
    "force": (
        Annotated[bool, typer.Option("--force", "-f", help="Replace files that are there, without being asked.")],
        False,
    ),
    "format": (
        Annotated[Literal["png", "pdf", "svg"], typer.Option(help="Of the figures; PDF and SVG stay sharp in print.")],
        "png",
    ),
}


@dataclass(frozen=True)
class Answer:
    """What a command has to say.

    Attributes:
        words: For people.
        facts: For ``--json``: numbers, texts, lists, tables and paths.
        rows: Makes the text of ``--csv``.
        show: Prints something longer before the words, such as a table with colours.
    """

    words: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    rows: Callable[[], str] | None = None
    show: Callable[[], None] | None = None


@dataclass(frozen=True)
class Output:
    """The options of one call; those that a command does not have keep their defaults."""

    json: bool = False
    csv: bool = False
    quiet: bool = False
    force: bool = False
    format: str = "png"

    @property
    def progress(self) -> bool:
        """Whether a bar is drawn (on the standard error)."""
        return not self.quiet

    def check(self) -> None:
        """Refuse what excludes one another.

        Raises:
            ValueError: Both ``--json`` and ``--csv``.
        """
        if self.json and self.csv:
            raise ValueError("--json and --csv both print on the standard output; give one of them")

    def may_write(self, *paths: Path | None, way_out: str = "--out names another file") -> None:
        """Ask before anything is computed whether files that are there shall be replaced.

        A terminal is asked; in a pipe nobody can answer, so that only ``--force`` replaces. A folder counts as the
        files in it.

        Raises:
            ValueError: Not to be replaced.
        """
        there = [file for path in paths if path is not None for file in _files_at(path)]
        if not there or self.force:
            return
        shown = ", ".join(printable(str(path)) for path in there[:3]) + (", ..." if len(there) > 3 else "")
        verb = "is" if len(there) == 1 else "are"
        if sys.stdin.isatty() and sys.stderr.isatty():
            if typer.confirm(f"{shown} {verb} there already. Replace?", err=True):
                return
            raise ValueError(f"{shown} left as before; {way_out}")
        raise ValueError(f"{shown} {verb} there already; --force replaces, {way_out}")

    def give(self, answer: Answer | str) -> None:
        """Print an answer in the form that was asked for."""
        answer = Answer(answer) if isinstance(answer, str) else answer
        if self.json:
            typer.echo(json.dumps(_plain(answer.facts), ensure_ascii=False, allow_nan=False))
            return
        if self.csv and answer.rows is not None:
            sys.stdout.write(answer.rows())
        elif answer.show is not None and not self.quiet:
            answer.show()
        if answer.words and not self.quiet:
            typer.echo(printable(answer.words), err=self.csv)


def options(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with these options of `ADDED`; it gets them as one `Output`, its keyword ``output``."""
    return gathered("output", Output, {name: ADDED[name] for name in names})


def gathered(
    keyword: str, kind: Callable[..., Any], added: Mapping[str, tuple[Any, Any]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A command with further options, which it gets as one value.

    Args:
        keyword: Parameter of the command that the value is handed to.
        kind: Makes the value of the options by name.
        added: Annotation and default of each.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        own = [given for name, given in signature.parameters.items() if name != keyword]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for name, (annotation, default) in added.items()
        ]

        @functools.wraps(command)
        def whole(*args: Any, **given: Any) -> None:
            value = kind(**{name: given.pop(name) for name in added if name in given})
            command(*args, **{keyword: value}, **given)

        hints = get_type_hints(command, include_extras=True)
        hints.pop(keyword)
        whole.__annotations__ = {**hints, **{name: annotation for name, (annotation, _) in added.items()}}
        whole.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]
        return whole

    return decorate


def drawn(picture: Path | None) -> str:
    """The end of a sentence: where the picture is, if there is one."""
    return "" if picture is None else f"; drawn in {picture}"


def _files_at(path: Path) -> list[Path]:
    """A file itself, or the visible files of a folder."""
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
    return [path] if path.exists() else []


def _plain(value: Any) -> Any:
    """What JSON knows: arrays as lists, numbers that are none as null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(content) for content in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
