"""The checkpoint file of a run: written beside and renamed, refused when it belongs to another run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from krause_dynamics._array import to_numpy
from krause_dynamics._files import read_npz, why_not_writable, write_npz


class RunFile:
    """One ``.npz`` file (no pickle) holding arrays and a JSON header; `due` says when to write the next.

    Attributes:
        path: Where.
    """

    def __init__(self, path: str | os.PathLike[str], every: float, identity: dict[str, Any]) -> None:
        if not every >= 0:
            raise ValueError(f"checkpoint_every must be a number of seconds of at least 0, got {every!r}")
        self.path, self._every = Path(path), every
        if not self.path.absolute().parent.is_dir():
            raise ValueError(f"checkpoint must lie in a folder that exists, got {self.path}")
        if reason := why_not_writable(self.path.absolute().parent):
            raise ValueError(f"checkpoint must lie in a folder that can be written to, got {self.path} ({reason})")
        self._identity = json.loads(json.dumps(identity))
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether the time between two writings is over."""
        return time.monotonic() - self._last >= self._every

    def write(self, header: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
        """Replace the file in one step: a kill leaves the old or the new one, never half of one."""
        write_npz(self.path, {"identity": self._identity, **header}, arrays)
        self._last = time.monotonic()

    def read(self) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
        """Header and arrays, or ``None`` where there is no file yet.

        Raises:
            ValueError: The file is none of ours, or another run's; it is left as it is.
        """
        if not self.path.exists():
            return None
        try:
            header, arrays = read_npz(self.path)
            theirs = header.pop("identity")
        except (ValueError, KeyError) as error:
            raise ValueError(f"checkpoint must be a file written by a run, {self.path} is not: {error}") from error
        different = sorted(name for name in {*theirs, *self._identity} if theirs.get(name) != self._identity.get(name))
        if different:
            raise ValueError(
                f"checkpoint {self.path} belongs to another run (different: {', '.join(different)}); "
                "it was left as it is: choose another path, or delete it"
            )
        return header, arrays


def fingerprint(x: Any) -> str | None:
    """A short hash of an array's bytes and shape, so that a file can tell whether it started from the same state."""
    if x is None:
        return None
    host = np.ascontiguousarray(to_numpy(x))
    return hashlib.sha256(host.tobytes() + repr((host.shape, host.dtype.str)).encode()).hexdigest()[:16]


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
