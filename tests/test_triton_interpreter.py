"""Runs the kernel tests in Triton's interpreter, chosen before triton is imported: a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


@pytest.mark.timeout(600)
def test_kernels_in_the_interpreter():
    """All in one process: to import torch, transformers and the layers takes as long as a third of the tests."""
    here = Path(__file__).parent
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(here.parent)}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    files = [str(here / f"interpreted_{name}.py") for name in ("triton", "ring", "sums")]
    run = subprocess.run([*command, *files], env=environment, capture_output=True, text=True, timeout=590, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
