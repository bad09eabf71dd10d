"""Particles need no torch; what needs it, or transformers, says how to install it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PARTICLES = """
import numpy as np
import krause_dynamics as kd
circle = kd.Circle()
run = kd.simulate(kd.Dynamics(kd.krause(1.0, kd.Within(0.5)), circle), circle.sample(16, 2, 1), 1.0)
print(run)
print(kd.clusters.find(run.final, 0.1))
kd.simulate(kd.Dynamics(kd.softmax(4.0), kd.Sphere()), kd.Sphere().sample(8, 3, 0), 1.0, integrator=kd.Adaptive())
print(len(kd.hegselmann_krause(np.linspace(0, 1, 11), 0.2)))
print(kd.aggregate(kd.softmax(1.0), np.eye(3)).mean.shape)
print(kd.sweep(lambda beta, rng: beta, {"beta": [1.0, 2.0]}, workers=0))
cells = kd.mean_field.LineCells(20, 0.0, 1.0)
density = kd.mean_field.Density(cells, np.full(20, 0.05))
kd.mean_field.iterate(kd.Dynamics(kd.bounded_confidence(0.2), kd.Interval(0.0, 1.0)), density, 3, dt=0.2)
kd.theory, kd.observables.order_parameter(run.final), kd.measures, kd.graphs, kd.energies, kd.operators
import matplotlib
matplotlib.use("Agg")
kd.plots.overview(run)
stored = kd.datasets.load("smollm2")
kd.plots.synchronization({"a": stored, "b": stored})
run.save("run.nc")
print(kd.open("run.nc"))
"""
DOORS = ("kd.nn", "kd.models", "kd.training", "kd.analyze", "kd.compare", "kd.krausify", "kd.jacobian(dynamics, x)")


def without(*modules, code, cwd):
    """A process in which these modules cannot be imported."""
    hidden = f"import sys; sys.modules.update(dict.fromkeys({modules}))\n"
    return subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, cwd=cwd)


def tried(doors):
    """Code that goes through every door and prints what it was told."""
    return "\n".join(
        f"try:\n    {door}\n    print({door!r}, 'opened')\nexcept ImportError as error:\n    print(error.name, error)"
        for door in doors
    )


def test_particles_run_without_torch(tmp_path):
    found = without("torch", "transformers", code=PARTICLES, cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("Trajectory: 21 states of 16 particles in Circle") == 2


def test_the_command_runs_without_torch(tmp_path):
    code = "from krause_dynamics.command.app import app\napp(sys.argv[1:] or {})"
    done = without("torch", code=code.format(["simulate", "-n", "4", "--t-end", "0.2"]), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (tmp_path / "a.txt").write_text("words")
    refused = without("torch", code=code.format(["analyze", "smollm2-135m", "--text", "a.txt"]), cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Error: ")
    assert "pip install 'krause_dynamics[torch]'" in refused.stderr


def test_every_door_that_needs_torch_says_how_to_get_it(tmp_path):
    setting = "import krause_dynamics as kd\ndynamics, x = kd.Dynamics(kd.softmax(1.0)), kd.Sphere().sample(4, 3, 0)\n"
    found = without("torch", code=setting + tried(DOORS), cwd=tmp_path)
    lines = found.stdout.splitlines()
    assert len(lines) == len(DOORS), found.stderr
    for door, line in zip(DOORS, lines, strict=True):
        assert line.startswith("torch layers need torch: pip install 'krause_dynamics[torch]'"), (door, line)
        assert "trained ones 'krause_dynamics[hf]'" in line


def test_what_needs_transformers_says_how_to_get_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    doors = ("kd.models.KARM", "kd.training.train", "kd.checkpoints.load('.')")
    found = without("transformers", code="import krause_dynamics as kd\n" + tried(doors), cwd=tmp_path)
    lines = found.stdout.splitlines()
    assert len(lines) == len(doors), found.stderr
    assert all("pip install 'krause_dynamics[hf]'" in line for line in lines), lines


def test_what_is_imported_is_declared():
    """Each package that a module imports at its top is a dependency; torch and those of models are extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = {line.split(">=")[0].lower() for line in project["dependencies"]}
    assert not needed & {"torch", "transformers", "peft", "accelerate", "safetensors"}
    assert {"pillow", "pandas", "numpy", "scipy", "numba"} < needed
    assert "krause_dynamics[torch]" in project["optional-dependencies"]["hf"]


@pytest.mark.parametrize("name", ["torch", "transport", "hf", "distributed", "notebooks", "docs", "dev"])
def test_extras_are_there(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"][name]
