"""What the subcommands share: options of one meaning, folders tried before a run, bad input answered in one line."""

from __future__ import annotations

import itertools
import tomllib
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer

from krause_dynamics._files import why_not_writable
from krause_dynamics.command.output import Answer, Output
from krause_dynamics.errors import printable
from krause_dynamics.runs import interrupting

TOKEN_IDS = (".json", ".npy")  # endings of files of token ids
BUNDLED = ("smollm2-135m", "rxn-albert")  # names that `kd.analyze` knows itself
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="table.key=value, in TOML's notation: -s rule.beta=9 -s 'space.type=\"Circle\"'."),
]


def tables_of(path: Path | None, settings: list[str], options: dict[str, Any]) -> dict[str, Any]:
    """The file's tables, then options, then ``--set``, each overruling what came before.

    Who gives another type of rule or start need not take the keys of the old one out of the file.

    Raises:
        ValueError: No TOML, or a setting without ``=``.
    """
    from krause_dynamics.command.inputs import forget, located
    from krause_dynamics.command.kinds import without_other_kinds
    from krause_dynamics.command.tables import assign, load

    tables = {} if path is None else load(path)
    for name, value in options.items():
        if value is not None:
            tables = assign(tables, name, value)
    told = {name for name, value in options.items() if value is not None}
    for name, value in map(setting, settings):
        tables = assign(forget(tables, name), name, value)
        told.add(name)
    return located(without_other_kinds(tables, told), Path.cwd())


def setting(given: str) -> tuple[str, Any]:
    """Name and value of one ``--set``.

    Raises:
        ValueError: No ``=``.
    """
    name, equals, text = given.partition("=")
    if not equals:
        raise ValueError(f"--set must be table.key=value, got {given!r}")
    try:
        return name.strip(), tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), text  # a bare word is a string


def check_ending(out: Path, *endings: str) -> None:
    """The ending decides what is written; one of another format would name what is not in the file.

    Raises:
        ValueError: An ending in letters that is none of these.
    """
    if out.suffix[1:2].isalpha() and out.suffix not in endings:
        raise ValueError(
            f"--out must end in {' or '.join(endings)}, got {str(out)!r}; --csv prints numbers for a table"
        )


def check_paths(*paths: Path | None) -> None:
    """Files can be written where they shall be.

    Raises:
        ValueError: A folder does not exist or cannot be written to, or is named instead of a file.
    """
    for path in paths:
        if path is None:
            continue
        folder = path.absolute().parent
        if not folder.is_dir():
            raise ValueError(f"the folder {folder} does not exist, where {path.name} is to be written; make it first")
        if path.is_dir():
            raise ValueError(f"a file is to be written, but {path} is a folder; add a file name")
        if reason := why_not_writable(path):
            raise ValueError(f"{path} cannot be written ({reason}); name a file in another folder")


def check_model(name: str) -> None:
    """Refuse what can only be a mistyped model before libraries are loaded and the hub is asked.

    Raises:
        ValueError: A path that does not exist, nearly the name of a bundled model or of a folder here, or a file of
            another kind, such as a second text behind one ``--text``.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix != ".gguf":
        raise ValueError(
            f"model: {name!r} is a file, and a model is a folder, a .gguf file or a name; give each text its own --text"
        )
    if path.exists() or name in BUNDLED:
        return
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ValueError(f"model: there is no {name!r}; pass a folder, or a name such as {BUNDLED[0]!r}")
    folders = [str(path.parent) for path in Path(name).parent.glob("*/config.json")]
    if near := get_close_matches(name, [*BUNDLED, *folders], n=1, cutoff=0.75):
        raise ValueError(f"model: there is no {name!r}; did you mean {near[0]!r}?")


def files_shown(texts: Sequence[Path | None], token_ids: Sequence[Path | None]) -> list[Path]:
    """The files that models are shown, of the kind that their option says.

    Raises:
        ValueError: Neither texts nor token ids, both, a file of the other kind, or one that is not there.
    """
    given, ids = [path for path in texts if path is not None], [path for path in token_ids if path is not None]
    if bool(given) == bool(ids):
        raise ValueError("give either --text FILE or --token-ids FILE")
    for path in given:
        if path.suffix in TOKEN_IDS:
            raise ValueError(f"--text must be a text file, received {str(path)!r}; token ids go to --token-ids")
    for path in ids:
        if path.suffix not in TOKEN_IDS:
            raise ValueError(f"--token-ids must be a file that ends in .json or .npy, received {str(path)!r}")
    for path in given + ids:
        if not path.is_file():  # told before seconds of imports
            raise ValueError(f"{'--text' if given else '--token-ids'}: there is no file {str(path)!r}")
    return given or ids


def answered(call: Callable[[], Answer | str], output: Output, go_on: str | Callable[[], str] = "") -> None:
    """Print what the call returns, as the options say; bad input becomes one line and the exit code 2.

    Ctrl-C ends with the exit code 130 and SIGTERM with 143, after what is finished has been kept.

    Args:
        call: The command.
        output: What is printed, and where.
        go_on: What to say after a signal, where the call itself has not said it; a function is asked then.
    """
    try:
        output.check()
        with interrupting.terminating():
            answer = call()
    except typer.Abort:  # Ctrl-C at a question
        raise typer.Exit(code=interrupting.INTERRUPTED) from None
    except (KeyboardInterrupt, interrupting.Terminated) as error:
        if isinstance(error, interrupting.Terminated):
            status, told = interrupting.TERMINATED, error.told
        else:
            status, told = interrupting.INTERRUPTED, "".join(map(str, error.args))
        tell(f"interrupted; {told or (go_on() if callable(go_on) else go_on)}")
        raise typer.Exit(code=status) from error
    except (ValueError, TypeError, OSError, RuntimeError, ModuleNotFoundError) as error:
        tell(f"Error: {error}")
        raise typer.Exit(code=2) from error
    except (ArithmeticError, LookupError, AttributeError, MemoryError) as error:  # what no check foresaw: absurd sizes
        tell(f"Error: {type(error).__name__}: {error}")
        raise typer.Exit(code=2) from error
    output.give(answer)


def tell(message: str) -> None:
    """A line on stderr."""
    typer.echo(printable(message), err=True)


def unfinished(path: Path, word: str) -> Path:
    """Where a part of a result goes: beside its place, so that what is there is never replaced by less."""
    return path.parent / f"{path.stem}.{word.replace(' ', '_')}{path.suffix or '.npz'}"


def free(path: Path) -> Path:
    """The path, or one with a number where that is taken: who was interrupted cannot be asked."""
    numbered = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(2))
    return path if not path.exists() else next(other for other in numbered if not other.exists())
