"""What a fresh interpreter pays for ``import krause_dynamics``."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "scipy", "numba", "xarray", "matplotlib", "networkx", "typer", "rich", "transformers", "sklearn")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_import_loads_numpy_only():
    loaded = run(f"import sys, krause_dynamics; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded == "[]"


def test_a_numpy_run_never_loads_torch():
    code = (
        "import sys, numpy as np, krause_dynamics as kd;"
        "kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Sphere()), kd.Sphere().sample(8, 3, rng=0), 1.0);"
        "print('torch' in sys.modules)"
    )
    assert run(code) == "False"


def test_every_public_name_resolves():
    import krause_dynamics as kd

    for name in dir(kd):
        if not name.startswith("_"):
            assert getattr(kd, name) is not None


def test_a_folder_left_by_an_older_checkout_hides_no_module(tmp_path):
    """Pulling over a checkout leaves ``krause_dynamics/clusters/__pycache__``: a package without content to Python."""
    code = (
        "import krause_dynamics as kd;"
        f"kd.__path__.append({str(tmp_path)!r});"
        "import krause_dynamics.clusters;"
        "print(kd.clusters.find.__module__)"
    )
    (tmp_path / "clusters" / "__pycache__").mkdir(parents=True)
    assert run(code).startswith("krause_dynamics.analysis.clusters")
