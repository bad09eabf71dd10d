"""The checkpoint file of a run: written beside and renamed, refused when it belongs to another run."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from krause_dynamics._arguments import Real
from krause_dynamics._array import to_numpy
from krause_dynamics._files import check_target, read_header, read_npz, write_npz
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.runs.fingerprints import differences

Translate = Callable[[dict[str, Any], dict[str, np.ndarray]], None]

FUNCTIONS = "functions"  # in an identity: marks of all that has no words, see `runs.fingerprints`
SECONDS = Real(0.0, ends="[]")  # infinite: at the end alone
ANY_VERSION = "version"  # of the package: kept in a file, not compared, as a release does not make it another run


class RunFile:
    """One ``.npz`` file (no pickle) holding arrays and a JSON header; `due` says when to write the next.

    Attributes:
        path: Where.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        every: float,
        identity: dict[str, Any],
        *,
        later: tuple[str, ...] = (),
        translate: Translate | None = None,
    ) -> None:
        """Check that the file can be written.

        Args:
            path: Where.
            every: Seconds between two writings.
            identity: What makes a run this one; JSON-ready.
            later: Names of ``identity`` that files of older releases lack.
            translate: ``translate(header, arrays)`` turns, in place, what an older release wrote into today's words.
        """
        SECONDS.read("checkpoint_every", every)
        self.path = check_target("checkpoint", path)
        self._every, self._later, self._translate = every, later, translate
        self._identity = json.loads(json.dumps(identity))
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time between two writings is over."""
        return time.monotonic() - self._last >= self._every

    def write(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Replace the file in one step: a kill leaves the old or the new one, never half of one."""
        self._last = time.monotonic()
        write_npz(self.path, {"identity": self._identity, **header}, arrays)

    def read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Header and arrays, or ``None`` where there is no file yet.

        Raises:
            ValueError: The file is none of ours, or another run's; it is left as it is.
        """
        if not self.path.exists():
            return None
        try:
            header, arrays = read_npz(self.path)
            different = self._different(header.pop("identity"))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"checkpoint must be a file written by a run, {self.path} is not: {error}") from error
        if different:
            raise ValueError(
                f"checkpoint {self.path} belongs to another run (different: {', '.join(different)}); "
                "it was left as it is: choose another path, or delete it"
            )
        if self._translate is not None:
            self._translate(header, arrays)
        return header, arrays

    def _different(self, theirs: dict[str, Any]) -> list[str]:
        later = {name for name in self._later if name not in theirs}
        names = {*theirs, *self._identity} - {ANY_VERSION, FUNCTIONS} - later
        found = [name for name in names if _text(theirs.get(name)) != _text(self._identity.get(name))]
        # The name of a function differs wherever its code does: say it once.
        marks = differences(self._identity.get(FUNCTIONS, {}), theirs.get(FUNCTIONS, {}))
        return sorted([*found, *(mark for mark in marks if mark.partition(" (")[0].partition(".")[0] not in found)])


class Bound(Protocol):
    """A rule bound to its data, which knows by what form it is computed."""

    @property
    def impl(self) -> str:
        """Name of the form."""


B = TypeVar("B", bound=Bound)


def with_form(bind: Callable[[str], B], impl: str, checkpoint: str | os.PathLike[str] | None) -> B:
    """``bind(impl)``, with the form that the checkpoint file names where the caller leaves the choice open.

    So a run that goes on uses the form that it began with, even where ``"auto"`` now takes another one.
    """
    chosen = bind(impl)
    named = form_in(checkpoint) if impl == "auto" and checkpoint is not None else None
    if named not in (None, chosen.impl):
        with contextlib.suppress(UnsupportedImplementation):  # of another run: `RunFile.read` says all that differs
            return bind(named)
    return chosen


def form_in(checkpoint: str | os.PathLike[str]) -> str | None:
    """``impl`` of the run in a checkpoint file; ``None`` without one, or where `RunFile.read` will refuse the file."""
    try:
        return read_header(Path(checkpoint))["identity"].get("impl")  # type: ignore[no-any-return]
    except (ValueError, KeyError, AttributeError, TypeError):
        return None


def random_state(rng: Any) -> Any:
    """The state of a generator as JSON: numpy's dictionary, or the bytes of torch's."""
    if rng is None:
        return None
    if isinstance(rng, np.random.Generator):
        return json.loads(json.dumps(rng.bit_generator.state, default=_plain))
    return bytes(to_numpy(rng.get_state())).hex()


def restore_random_state(rng: Any, state: Any) -> None:
    """The inverse of `random_state`, in place."""
    if isinstance(rng, np.random.Generator):
        rng.bit_generator.state = state
    elif rng is not None:
        current = rng.get_state()
        rng.set_state(current.new_tensor(list(bytes.fromhex(state))))


def _plain(x: Any) -> Any:
    return x.tolist()


def _text(x: Any) -> str:
    """For comparison: NaN equals itself there."""
    return json.dumps(x, sort_keys=True)
