"""An 8B model that is read and run block by block: peak memory, seconds a block, and the least budget.

    python benchmarks/large.py [--layers 32] [--dtype bfloat16] [--sequences 8] [--length 64] [--folder DIR]

Llama-3-8B's shapes with random weights are written in shards of one block each into a folder that is removed in the
end. First a model of two such blocks is analysed in memory and block by block, which must agree bit for bit; then all
of the blocks within the least budget that `kd.analyze` names. Every analysis runs in a process of its own, whose peak
is that of the kernel (VmHWM: with the pages of weight files that were mapped).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from _report import machine, table

LAYERS = 32


def config(layers: int):
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=layers,
        num_attention_heads=32,
        num_key_value_heads=8,
        max_position_embeddings=8192,
        rope_theta=500000.0,
        dtype="bfloat16",
    )


def write(folder: Path, layers: int) -> None:
    """A folder as save_pretrained writes it, one block at a time."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel

    folder.mkdir(parents=True, exist_ok=True)
    config(layers).save_pretrained(folder)
    with torch.device("meta"):
        outline = AutoModel.from_config(config(layers), dtype=torch.bfloat16)
    generator, index = torch.Generator().manual_seed(0), {}
    parts = {f"layers.{i}": block for i, block in enumerate(outline.layers)}
    parts |= {"embed_tokens": outline.embed_tokens, "norm": outline.norm}
    for name, part in parts.items():
        tensors = {f"model.{name}.{key}": _random(weight, generator) for key, weight in part.named_parameters()}
        shard = f"model-{name.replace('.', '-')}.safetensors"
        save_file(tensors, folder / shard, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, shard)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def _random(weight, generator):
    import torch

    if weight.ndim == 1:
        return torch.ones(weight.shape, dtype=torch.bfloat16)
    return torch.empty(weight.shape, dtype=torch.bfloat16).normal_(0.0, 0.02, generator=generator)


def analysis(folder: str, budget: str, dtype: str, sequences: int, length: int) -> None:
    """In a process of its own: print what was needed, and keep the numbers beside the folder."""
    import krause_dynamics as kd

    ids = np.random.default_rng(0).integers(0, 128256, (sequences, length))
    options = {"dtype": dtype, "batch_size": sequences}
    if budget == "least":
        try:
            kd.analyze(folder, ids, memory=1, **options)
        except ValueError as error:
            budget = re.search(r"at least (\S+)", str(error))[1]
    start, ends = time.perf_counter(), []
    found = kd.analyze(
        folder,
        ids,
        memory=None if budget == "none" else budget,
        progress=lambda *_: ends.append(time.perf_counter()),
        **options,
    )
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    numbers = {name: x.values for name, x in found.data_vars.items()}
    np.savez(Path(folder) / f"{budget}.npz", **numbers)
    steps = np.diff(ends).tolist() if len(ends) > 1 else []
    told = {"budget": budget, "peak": int(peak) * 1024, "steps": steps, "load": ends[0] - start}
    print(json.dumps(told))


def of_its_own(folder: Path, budget: str, options: argparse.Namespace) -> dict:
    arguments = [str(folder), budget, options.dtype, str(options.sequences), str(options.length)]
    done = subprocess.run(
        [sys.executable, __file__, "--one", *arguments], check=True, capture_output=True, text=True, timeout=3600
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure(options: argparse.Namespace) -> None:
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    try:
        write(folder / "two", 2)
        whole, parts = (of_its_own(folder / "two", budget, options) for budget in ("none", "least"))
        one, other = (np.load(folder / "two" / f"{x['budget']}.npz") for x in (whole, parts))
        assert all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.files), "numbers differ"
        print(machine("torch", "transformers", "accelerate"))
        print(f"two blocks: in memory and block by block agree bit for bit in {len(one.files)} variables\n")
        shutil.rmtree(folder / "two")
        write(folder / "all", options.layers)
        size = sum(path.stat().st_size for path in (folder / "all").glob("*.safetensors"))
        found = of_its_own(folder / "all", "least", options)
        rows = [
            ("weights in the file (GB)", f"{size / 1e9:.1f}"),
            ("tokens", f"{options.sequences} x {options.length}"),
            ("type", options.dtype),
            ("least budget named", found["budget"]),
            ("peak of the process (GB)", f"{found['peak'] / 1e9:.2f}"),
            ("seconds a block (median)", f"{np.median(found['steps']):.1f}"),
            ("seconds until the first block is done", f"{found['load']:.1f}"),
            (f"seconds of {LAYERS} blocks", f"{found['load'] + (LAYERS - 1) * np.median(found['steps']):.0f}"),
        ]
        print(table((f"Llama-3-8B, {options.layers} blocks", ""), rows))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--sequences", type=int, default=8)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--folder", default=None)
    parser.add_argument("--one", nargs=5)
    given = parser.parse_args()
    if given.one:
        analysis(*given.one[:3], *map(int, given.one[3:]))
    else:
        measure(given)
