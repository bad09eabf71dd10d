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


def test_importing_layers_and_checkpoints_does_not_load_the_compiler_of_torch():
    """It takes 150 MB and more time than all the rest; what it must know of our functions is told when it comes."""
    code = (
        "import sys, torch, krause_dynamics as kd;"
        "from krause_dynamics.forms.attention import banded, kernels;"
        "kd.nn.KrauseAttention, kd.checkpoints.analyze;"
        "print([m for m in ('torch._dynamo', 'triton', 'sympy') if m in sys.modules])"
    )
    assert run(code) == "[]"


def test_what_waits_for_a_module_is_done_once_it_is_whole_and_nothing_is_left_behind():
    code = (
        "import sys, importlib.util;"
        "from krause_dynamics._when_loaded import when_loaded;"
        "before, told = list(sys.meta_path), [];"
        "[when_loaded('wave', lambda module: told.append(module.open)) for _ in range(2)];"
        "importlib.util.find_spec('wave');"  # a look is no import
        "assert not told and 'wave' not in sys.modules;"
        "import wave;"
        "assert told == [wave.open] * 2 and sys.meta_path == before;"
        "assert wave.__spec__.loader is wave.__loader__ and type(wave.__loader__).__name__ == 'SourceFileLoader';"
        "when_loaded('wave', lambda module: told.append(3));"
        "print(told[2:], len(sys.meta_path) - len(before))"
    )
    assert run(code) == "[3] 0"
