"""Whole training steps on a GPU: Krause attention against the same model with fused softmax attention.

    python benchmarks/models_gpu.py                                    # all models
    python benchmarks/models_gpu.py --models "KViT-S 8x8" --kernels    # some, and where the device's time goes
    python benchmarks/models_gpu.py --before CHECKOUT                  # another checkout's layer in the same run
    python benchmarks/models_gpu.py --columns eager                    # nothing is compiled by torch

A step is forward, backward and fused AdamW under bfloat16 autocast: pre-norm blocks, GELU, cross entropy. The peer has
one product for q, k and v and `scaled_dot_product_attention` over everyone, or causal. Every model is a process, so
that compile times are cold; all compile side by side, then each has the card for itself. "captured" is the compiled
step replayed from one CUDA graph, its best mode on both sides. Prints what results/models_gpu.md keeps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
# Layers, width, heads, tokens, batch, vocabulary, neighbourhood in words.
MODELS = {
    "KViT-S 8x8": (12, 384, 6, 65, 256, 100, {"grid": 8, "top_k": 8}),
    "KViT-S/16 14x14": (12, 384, 6, 197, 256, 1000, {"grid": 14, "top_k": 8}),
    "ViT-Ti 7x7, random": (12, 192, 3, 50, 256, 10, {"grid": 7, "random": 9}),
    "KARM MNIST": (12, 256, 8, 784, 32, 256, {"window": 128, "top_k": 96}),
    "KARM CIFAR": (16, 512, 8, 3072, 8, 256, {"window": 256, "top_k": 192}),
    "LM 100M": (8, 768, 12, 1024, 16, 32000, {"window": 256, "top_k": 192}),
    "N 65536": (4, 768, 12, 65536, 1, 256, {"window": 256}),
}
COLUMNS = ("eager", "compiled", "captured")


class Softmax(nn.Module):
    """The peer: one product for q, k and v, torch's fused attention."""

    def __init__(self, width, heads, causal):
        super().__init__()
        self.qkv, self.out, self.heads, self.causal = (
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
            heads,
            causal,
        )

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).transpose(1, 3).unbind(2)
        out = functional.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(out.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Pre-norm."""

    def __init__(self, attention, width):
        super().__init__()
        self.attention, self.norm1, self.norm2 = attention, nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Model(nn.Module):
    """Tokens or patches in, a class of the picture or the next token out; returns the loss."""

    def __init__(self, name, krause):
        super().__init__()
        import krause_dynamics as kd
        from krause_dynamics.nn import KrauseAttention

        layers, width, heads, n, _, vocabulary, hearing = MODELS[name]
        self.side = hearing.get("grid")
        if "random" in hearing:
            hood = kd.RandomKeys(hearing["random"], tokens=n, prefix=1)
        elif self.side:
            hood = kd.Grid(self.side, self.side, radius=2, prefix=1) & kd.TopK(hearing["top_k"])
        else:
            hood = kd.Window(hearing["window"])
            hood = hood & kd.TopK(hearing["top_k"]) if "top_k" in hearing else hood
        attend = lambda: KrauseAttention(width, heads, hood) if krause else Softmax(width, heads, not self.side)  # noqa: E731
        self.embed = nn.Linear(48, width) if self.side else nn.Embedding(vocabulary, width)
        self.positions = nn.Parameter(0.02 * torch.randn(n, width))
        self.blocks = nn.Sequential(*[Block(attend(), width) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary)

    def forward(self, given, target):
        x = self.embed(given)
        if self.side:
            x = functional.pad(x, (0, 0, 1, 0))
        x = self.norm(self.blocks(x + self.positions))
        logits = self.head(x[:, 0] if self.side else x)
        return functional.cross_entropy(logits.flatten(0, -2), target.flatten())


class Step:
    """One training step of a model on random data."""

    def __init__(self, name, krause, device="cuda"):
        torch.manual_seed(0)
        _, _, _, n, batch, vocabulary, hearing = MODELS[name]
        self.model, self.kind = Model(name, krause).to(device), device
        self.call = self.model
        pictures = "grid" in hearing
        self.given = torch.randn(batch, n - 1, 48, device=device)
        if not pictures:
            self.given = torch.randint(vocabulary, (batch, n), device=device)
        self.target = torch.randint(vocabulary, (batch,) if pictures else (batch, n), device=device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), 1e-4, fused=True, capturable=device == "cuda")

    def __call__(self):
        with torch.autocast(self.kind, torch.bfloat16):
            loss = self.call(self.given, self.target)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def captured(self):
        """The step as the replay of a CUDA graph."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = self()
        return graph.replay


def milliseconds(step, seconds=0.7):
    """Median of seven rounds of at least two steps, and the spread of the rounds."""

    def rounds(count):
        torch.cuda.synchronize()
        begin = time.perf_counter()
        for _ in range(count):
            step()
        torch.cuda.synchronize()
        return 1e3 * (time.perf_counter() - begin) / count

    rounds(2)
    count = max(2, round(1e3 * seconds / 7 / rounds(2)))
    return statistics.median(rounds(count) for _ in range(7))


def kernels(step, steps=3):
    """Device time a step by kernel, microseconds, the 24 longest."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in events)
    lines = [(e.key[:90], e.count // steps, e.self_device_time_total / steps) for e in events[:24]]
    return [("all", sum(e.count for e in events) // steps, total / steps), *lines]


def child(name, krause, profiled, columns):
    """Compile, say so, wait for the turn, measure; one line of JSON each."""
    steps, found = {"eager": Step(name, krause)}, {}
    loss = steps["eager"]().item()
    if columns != ["eager"]:
        torch.cuda.synchronize()
        begin = time.perf_counter()
        steps["compiled"] = compiled = Step(name, krause)
        compiled.call = torch.compile(compiled.model, fullgraph=True)
        off = abs(compiled().item() - loss)
        torch.cuda.synchronize()
        found = {"compile": time.perf_counter() - begin, "off": off}
    torch.cuda.empty_cache()
    print("ready", flush=True)
    sys.stdin.readline()
    for column, step in steps.items():
        if column not in columns:
            continue
        step()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        found[column] = milliseconds(step)
        # What the other model holds does not count.
        found[column + " MiB"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    replay = steps[list(steps)[-1]]
    if "captured" in columns:
        replay = replay.captured()
        found["captured"] = milliseconds(replay)
    if profiled:
        found["kernels"] = kernels(replay)
    print(json.dumps(found), flush=True)


def start(name, side, before, profiled, columns):
    tree = Path(before) if side == "before" else HERE.parent
    paths = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "TORCHINDUCTOR_COMPILE_THREADS": "2",
                   "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}  # fmt: skip
    command = [sys.executable, __file__, "--child", name, side, *(["--kernels"] if profiled else [])]
    command += ["--columns", *columns]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, text=True)


def measure(names, before, profiled, columns):
    """{(model, side): figures}; a model whose process ends early is left out, and its error is on stderr."""
    sides = ("softmax", "krause", *(["before"] if before else []))
    running = {(name, side): start(name, side, before, profiled, columns) for name in names for side in sides}
    ready = {key: process for key, process in running.items() if process.stdout.readline().strip() == "ready"}
    print(f"{len(ready)} of {len(running)} compiled", file=sys.stderr, flush=True)
    found = {}
    for key, process in ready.items():
        answer, _ = process.communicate("go\n")
        if process.returncode == 0:
            found[key] = json.loads(answer.splitlines()[-1])
            print(
                *key,
                {n: round(x, 3) for n, x in found[key].items() if not isinstance(x, list)},
                file=sys.stderr,
                flush=True,
            )
    return found


def report(found, names, columns):
    sides = [side for side in ("before", "krause") if any(key[1] == side for key in found)]
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}; milliseconds a step, then over softmax\n")
    beside = {"memory": "eager MiB", "compiled memory": "compiled MiB", "compile time": "compile"}
    beside = {head: key for head, key in beside.items() if any(key in figures for figures in found.values())}
    head = ["model", "side", *columns, *(f"{c}, ratio" for c in columns), *beside]
    print("| " + " | ".join(head) + " |\n" + "| --- " * len(head) + "|")
    for name in names:
        peer = found.get((name, "softmax"))
        for side in ("softmax", *sides):
            mine = found.get((name, side))
            if not mine or not peer:
                continue
            ratios = [mine[c] / peer[c] for c in (*columns, *beside.values())]
            cells = [*(f"{mine[c]:.2f}" for c in columns), *(f"{r:.2f}" for r in ratios)]
            print(f"| {name} | {side} | " + " | ".join(cells) + " |", flush=True)
    for key, figures in found.items():
        for kernel, count, microseconds in figures.get("kernels", ()):
            print(f"{key[0]}, {key[1]}: {microseconds:9.1f} us {count:5d} x {kernel}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=list(MODELS), help="which of them; default all")
    parser.add_argument("--before", help="checkout whose layer is measured beside this one's")
    parser.add_argument("--kernels", action="store_true", help="list the device's time by kernel")
    parser.add_argument("--columns", nargs="*", default=list(COLUMNS), choices=COLUMNS, help="which; default all")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child[0], options.child[1] != "softmax", options.kernels, options.columns)
        return
    found = measure(options.models, options.before, options.kernels, options.columns)
    report(found, options.models, options.columns)


if __name__ == "__main__":
    main()
