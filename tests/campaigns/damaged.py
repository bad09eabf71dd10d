"""Damaged and hostile files of every format that is read: refused in one class of error, or read as they were."""

from __future__ import annotations

import functools
import json
import os
import resource
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import krause_dynamics as kd
from krause_dynamics.command import configuration, inputs, tables
from krause_dynamics.errors import UnsupportedModel
from tests import checkpoint_models
from tests.campaigns.frame import Campaign, main

MEMORY = 6 << 30  # bytes beyond which a trial may not allocate
REFUSED = (ValueError, TypeError, FileNotFoundError, UnsupportedModel)  # TypeError: of an argument of a valid file
TOML = '[rule]\ntype = "krause"\nsigma = 0.5\n[initial]\nn = 4\n[run]\nt_end = 0.2\ndt = 0.1\n'
IDS = [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1]]
LINE = np.array([[0.0], [0.5], [2.0]])


def _run(**options: Any) -> kd.Trajectory:
    return kd.simulate(kd.Dynamics(kd.softmax(1.0)), LINE, 0.4, dt=0.1, **options)


def _sweep(path: Path) -> Any:
    return kd.sweep(_point, {"a": [1.0, 2.0]}, workers=0, path=path)


def _point(a: float, rng: np.random.Generator) -> float:
    return a * float(rng.random())


def _arrays(run: kd.Trajectory) -> list[Any]:
    return [run.times, run.positions, sorted(run.extras), json.dumps(run.meta, sort_keys=True)]


def _model(folder: Path) -> list[Any]:
    found = kd.analyze(folder, IDS, attention=None)
    return [found.mean_cosine.values]


# By name of the file: how it is made, and how it is read; a reader's answer must be the same or an error.
FORMATS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], Any]]] = {
    "run.npz": (lambda path: _run().save(path), lambda path: _arrays(kd.Trajectory.load(path))),
    "run.nc": (lambda path: _run().save(path), lambda path: _arrays(kd.Trajectory.load(path))),
    "checkpoint.npz": (lambda path: _run(checkpoint=path), lambda path: _arrays(_run(checkpoint=path))),
    "sweep.npz": (_sweep, lambda path: [_sweep(path).value.values]),
    "sweep.nc": (_sweep, lambda path: [_sweep(path).value.values]),
    "start.npy": (lambda path: np.save(path, LINE), lambda path: [inputs.array_of("initial.path", str(path), {})]),
    "start.npz": (
        lambda path: np.savez_compressed(path, x=LINE),
        lambda path: [inputs.array_of("initial.path", str(path), {})],
    ),
    "start.csv": (
        lambda path: path.write_text("a,b\n0.1,0.2\n0.3,0.4\n"),
        lambda path: [inputs.array_of("initial.path", str(path), {})],
    ),
    "run.toml": (lambda path: path.write_text(TOML), lambda path: _arrays(configuration.run(tables.load(path)))),
    "ids.json": (lambda path: path.write_text(json.dumps(IDS)), lambda path: [kd_ids(path)]),
    "config.json": (lambda path: _save(path.parent), lambda path: _model(path.parent)),
    "model.safetensors": (lambda path: _save(path.parent), lambda path: _model(path.parent)),
}
CHECKED = ("run.npz", "run.nc", "checkpoint.npz", "sweep.npz", "sweep.nc", "start.npz")  # every changed byte is noticed


def kd_ids(path: Path) -> np.ndarray:
    from krause_dynamics.checkpoints.inputs import prepare

    return prepare(path, None).described()["token_ids"]


@functools.cache
def _weights() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        checkpoint_models.llama(num_hidden_layers=1).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _save(folder: Path) -> None:
    for name, content in _weights().items():
        (folder / name).write_bytes(content)


@functools.cache
def original(name: str) -> tuple[bytes, Any]:
    """The bytes of a file as it should be, and what is read of it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        make, read = FORMATS[name]
        make(path)
        return path.read_bytes(), read(path)


HOSTILE = (
    b"",
    b"[" * 100_000,
    b'{"a":' * 100_000,
    b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"
    + b" " * 40
    + b"\n",
    b"\x93NUMPY\x01\x00\x76\x00{'descr': '|O', 'fortran_order': False, 'shape': (3,), }" + b" " * 56 + b"\n",
    b"PK\x05\x06" + bytes(18),
    b"\x89HDF\r\n\x1a\n" + bytes(200),
    b"\xff\xff\xff\xff\xff\xff\xff\x7f{}",
    b"cos\nsystem\n(S'touch called'\ntR.",
    b"[run]\nt_end = 1e300\ndt = 1e-3\n",
    b"[initial]\nn = 10000000000000\n",
    b"[rule]\ntype = []\n",
    b"a = " + b"9" * 5000,
    b"\xef\xbb\xbf\x00",
)
NUMBERS = (
    "-1",
    "0",
    "1e400",
    "NaN",
    '"x"',
    "[]",
    "{}",
    "null",
    "99999999999999999999",
    "1.5",
    "true",
    "-9223372036854775808",
)


def damaged(name: str, content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """A way of damage, and the file."""
    way = str(rng.choice(["cut", "flip", "zero", "swap", "insert", "hostile", "number", "entry"]))
    data = bytearray(content)
    place = int(rng.integers(0, len(data)))
    length = int(rng.integers(1, 200))
    if way == "cut":
        data = data[:place]
    elif way == "flip":
        for at in rng.integers(0, len(data), size=rng.integers(1, 9)):
            data[at] ^= 1 << int(rng.integers(0, 8))
    elif way == "zero":
        data[place : place + length] = bytes(len(data[place : place + length]))
    elif way == "swap":
        half = len(data) // 2
        data = data[half:] + data[:half]
    elif way == "insert":
        data[place:place] = rng.bytes(length)
    elif way == "hostile":
        data = bytearray(HOSTILE[int(rng.integers(0, len(HOSTILE)))])
    elif way == "number":
        data = _other_number(data, rng)
    elif name.endswith(".npz"):
        return way, _other_entry(content, rng)
    return way, bytes(data)


def _other_number(data: bytearray, rng: np.random.Generator) -> bytearray:
    """One run of digits of a text replaced by something odd."""
    import re

    found = list(re.finditer(rb"(?<![\w.])\d+(\.\d+)?", bytes(data)))
    if not found:
        return data[:-1]
    one = found[int(rng.integers(0, len(found)))]
    return data[: one.start()] + bytearray(str(rng.choice(NUMBERS)), "ascii") + data[one.end() :]


def _other_entry(content: bytes, rng: np.random.Generator) -> bytes:
    """One entry of an archive taken out, emptied, renamed, or replaced by a hostile one."""
    import io

    source, target = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    names = source.namelist()
    chosen, way = str(rng.choice(names)), int(rng.integers(0, 4))
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            data = source.read(name)
            if name != chosen or way == 3:
                archive.writestr(name, data)
            if name == chosen and way == 1:
                archive.writestr(name, HOSTILE[int(rng.integers(0, len(HOSTILE)))])
            if name == chosen and way > 1:
                archive.writestr("other.npy", data)
    return target.getvalue()


def kind(rng: np.random.Generator) -> str:
    """Which file is damaged."""
    return str(rng.choice(list(FORMATS)))


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """One damaged file, read."""
    name = kind(rng)
    content, expected = original(name)
    way, data = damaged(name, content, rng)
    line = {"kind": name, "way": way}
    if name in _weights():
        _save(folder)
    (folder / name).write_bytes(data)
    os.chdir(folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        found = FORMATS[name][1](folder / name)
    except REFUSED as error:
        return line | {"outcome": "refused", "told": str(error)[:200]}
    except Exception as error:
        return line | {"outcome": "unclear", "told": f"{type(error).__name__}: {error}"[:300]}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        os.chdir("/")
    if (folder / "called").exists():
        return line | {"outcome": "executed"}
    same = all(
        np.array_equal(a, b, equal_nan=not isinstance(a, str | list)) for a, b in zip(found, expected, strict=True)
    )
    # A number of a text, or bytes of a format without a check, can be another valid one: nobody could know.
    return line | {"outcome": "same" if same else "silent" if name in CHECKED and way != "entry" else "returned"}


CAMPAIGN = Campaign("damaged", trial, kind)

if __name__ == "__main__":
    main(CAMPAIGN)
