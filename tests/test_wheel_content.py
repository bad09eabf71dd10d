"""The wheel: small, and with everything that is read at run time."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LARGEST = 2 * 2**20  # bytes; trained models lie in the repository


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """Names and sizes of what a wheel of this checkout holds."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    assert wheel.stat().st_size <= LARGEST
    with zipfile.ZipFile(wheel) as opened:
        return {entry.filename: entry.file_size for entry in opened.infolist()}


def test_everything_that_is_read_is_in_it(names):
    package = ROOT / "krause_dynamics"
    read = [path for path in package.rglob("*") if path.suffix in (".toml", ".mplstyle", ".typed", ".txt", ".json")]
    assert len(read) >= 10
    for path in read:
        assert names[path.relative_to(ROOT).as_posix()] == path.stat().st_size


def test_nothing_else_is_in_it(names):
    top = {name.split("/")[0] for name in names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"krause_dynamics"}
    assert not [name for name in names if name.endswith((".safetensors", ".ipynb", ".png", ".pyc"))]
