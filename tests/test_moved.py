"""Import paths that users type lead to the modules, in a checkout and in a wheel; evidence stays in the checkout."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from krause_dynamics._moved import ROOMS

ROOT = Path(__file__).parent.parent
HOME = {"theory_table": "evidence.theory_table"} | {name: f"krause_dynamics.{room}" for name, room in ROOMS.items()}


def python(*arguments: str, path: Path = ROOT, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(path)}
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("name", HOME)
def test_both_paths_are_one_module(name):
    module = importlib.import_module(f"krause_dynamics.{name}")
    assert module is importlib.import_module(HOME[name])
    assert module.__spec__.name == HOME[name]


def test_modules_below_a_moved_one_are_found_once():
    from krause_dynamics.clusters.tree import Curve

    from krause_dynamics.analysis.clusters import tree

    assert tree.Curve is Curve


@pytest.mark.parametrize("name", ["demo", "theory_table"])
def test_moved_programs_run(name):
    done = python("-m", f"krause_dynamics.{name}", "--help")
    assert done.returncode == 0, done.stderr
    assert "usage" in done.stdout.lower()


def test_an_unknown_name_is_no_module():
    with pytest.raises(ModuleNotFoundError, match=r"krause_dynamics\.nowhere"):
        importlib.import_module("krause_dynamics.nowhere")
    with pytest.raises(ModuleNotFoundError, match=r"krause_dynamics\.clusters\.nowhere"):
        importlib.import_module("krause_dynamics.clusters.nowhere")


def test_a_wheel_holds_the_package_alone_and_names_the_way_out(tmp_path):
    pytest.importorskip("hatchling")
    build = "from hatchling.build import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
    done = python("-c", build, str(tmp_path))
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(tmp_path / done.stdout.split()[-1]) as wheel:
        names = wheel.namelist()
        wheel.extractall(tmp_path / "installed")
    assert {name.split("/")[0].split("-")[0] for name in names} == {"krause_dynamics"}
    assert "krause_dynamics/py.typed" in names
    assert "krause_dynamics/data/genesis.txt" in names
    use = "import krause_dynamics as kd; from krause_dynamics.clusters import find; print(find is kd.clusters.find)"
    found = python("-c", use, path=tmp_path / "installed", folder=tmp_path)
    assert found.stdout == "True\n", found.stderr
    for form in ("import krause_dynamics.theory_table", "import krause_dynamics as kd; kd.theory_table"):
        refused = python("-c", form, path=tmp_path / "installed", folder=tmp_path)
        assert "comes with a checkout, not with an installed wheel; clone the repository" in refused.stderr
