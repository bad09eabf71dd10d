"""The one door through which files are written: beside the target, to disk, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import secrets
import stat
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NO_FOLDER = "the folder does not exist"
LEFT_ALONE = 60.0  # seconds for which what a dead process left is not touched: its clock may be another one
DAY = 86400.0  # seconds after which no writer of any host can still be at work on a file
NEIGHBOUR = re.compile(
    r"\.part-[0-9a-f]{8}-(?P<host>[0-9a-f]{8})-(?P<process>\d{1,9})-[0-9a-f]{8}-"
)  # as `replacing` names
LONGEST = 100  # characters of the target's name in that of its neighbour: file systems allow 255 in all


class UnwritableTarget(FileNotFoundError, ValueError):
    """A file cannot be written where it shall be; of both classes, as callers of earlier releases catch either."""


def why_not_writable(path: str | os.PathLike[str]) -> str | None:
    """Why a file cannot be written or replaced there, or ``None``; a folder is asked for any file in it."""
    target = Path(os.path.realpath(path))
    folder = target if target.is_dir() else target.parent
    try:
        if not folder.is_dir():
            return NO_FOLDER
        if target.exists() and not target.is_dir():
            if not target.is_file():
                return "it is no regular file"
            if not os.access(target, os.W_OK):
                return "it may not be written to"
        with tempfile.TemporaryFile(dir=folder):
            return None
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def check_target(name: str, path: str | os.PathLike[str]) -> Path:
    """The path of a file that is to be written, asked before anything is computed for it.

    Args:
        name: Of the argument, for the message.
        path: Where.

    Raises:
        TypeError: No path.
        UnwritableTarget: A folder, or no place where a file can be written; the message says why.
    """
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"{name} must be the path of a file, got {path!r}")
    path = Path(path)
    reason = why_not_writable(path)
    if reason is None and path.is_dir():
        raise UnwritableTarget(f"{name} must name a file, got the folder {path}; add a file name")
    if reason == NO_FOLDER:
        raise UnwritableTarget(f"{name} must lie in a folder that exists, got {path}; make the folder first")
    if reason:
        raise UnwritableTarget(f"{name} must lie in a folder that can be written to, got {path} ({reason})")
    return path


def with_ending(path: str | os.PathLike[str], ending: str, known: Sequence[str] = ()) -> Path:
    """The path of a file with its ending; a folder stays itself, to be refused as one.

    Args:
        path: As given.
        ending: For a name without one.
        known: Endings that a name may have; any by default.
    """
    path = Path(path)
    has = path.suffix in known if known else bool(path.suffix)
    return path if has or path.is_dir() else path.with_name(path.name + ending)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A new empty file beside the target to write to, which replaces the target at the end, or goes.

    A kill leaves the old file or the new one, two writers each write a file of their own, a symbolic link stays one,
    and the permissions are those of the old file. What a killed writer left is removed by the next one in that folder,
    of another host after a day. The error of a
    full disk names the target.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise UnwritableTarget(f"{path} is no regular file; it was left as it is: choose another path")
    _remove_leftovers(target.parent)
    beside = target.with_name(f"{_prefix(target)}{os.getpid()}-{secrets.token_hex(4)}-{target.name[-LONGEST:]}")
    os.close(os.open(beside, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the user's mask applies, as to any file
    try:
        yield beside
        _to_disk(beside)
        with contextlib.suppress(FileNotFoundError):
            os.chmod(beside, stat.S_IMODE(target.stat().st_mode))
        os.replace(beside, target)
    except OSError as error:
        if error.errno is not None and error.filename is None:  # a full disk does not say what could not be written
            error.filename = os.fspath(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike[str], *parts: bytes | memoryview) -> None:
    """A whole file at once, of one part or several."""
    with replacing(path) as beside, beside.open("wb") as stream:
        for part in parts:
            stream.write(part)


def _to_disk(path: Path) -> None:
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def _prefix(target: Path) -> str:
    """How names of files beside a target begin: hidden, of this target and this host."""
    return f".part-{zlib.crc32(os.fsencode(target.name)):08x}-{_host()}-"


def _host() -> str:
    return f"{zlib.crc32(platform.node().encode()):08x}"


def _remove_leftovers(folder: Path) -> None:
    """What processes that are no more left in the folder: who was killed may never write the same target again."""
    for left in folder.glob(".part-*"):
        if not (named := NEIGHBOUR.match(left.name)):
            continue
        with contextlib.suppress(OSError):
            age = time.time() - left.stat().st_mtime
            gone = named["host"] == _host() and not _is_alive(int(named["process"])) and age > LEFT_ALONE
            if gone or age > DAY:  # numbers of processes of another host say nothing here
                left.unlink()


def _is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
