"""A training step of adapters on a decoder of SmolLM2-135M's shape: eager, captured, compiled and captured, on a GPU.

    python benchmarks/adapters_gpu.py                      # LoRA, and the gated Krause branch + LoRA; 16 x 512 tokens
    python benchmarks/adapters_gpu.py --compile            # a third way: fused by torch.compile, then captured
    python benchmarks/adapters_gpu.py --smoke              # the same calls on the CPU at small sizes: no figures

Weights are random (times do not depend on them) and tokens are bytes drawn at random. Each way begins with the same
weights, order and random numbers; before a time is shown, losses of the first steps are compared with the eager ones.
"""

import argparse
import gc
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

ARMS = {"LoRA": {"branch": False}, "Krause + LoRA": {"branch": True, "window": 32, "top_k": 16, "sigma": 5.5}}
SHAPE = {
    "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "tie_word_embeddings": True, "max_position_embeddings": 2048,
}  # fmt: skip
SMALL = {**SHAPE, "vocab_size": 512, "hidden_size": 48, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 3}  # fmt: skip
STEPS = 6  # of each round


def base(folder, small):
    """A decoder of random weights, in bfloat16 to be written quickly."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**(SMALL if small else SHAPE))
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(config)
    model.to(torch.bfloat16).save_pretrained(folder)


def task_of(length, device):
    """Rows of random bytes, as the task of text takes them."""
    from krause_dynamics.training.corpora import Corpus
    from krause_dynamics.training.tasks import Tokens

    tokens = np.random.default_rng(0).integers(0, 256, 200 * length).astype(np.int32)
    parts = ("train", "validation", "test")
    return Tokens(Corpus(dict.fromkeys(parts, tokens), dict.fromkeys(parts, 1.0), 257), length, device)


def measured(arm, folder, sizes, *, capture, fuse, rounds):
    """(losses of the first steps, milliseconds a step, MiB, seconds to the first step)."""
    from krause_dynamics.models import parameter_groups
    from krause_dynamics.training import loop
    from krause_dynamics.training.adapted import adapted
    from krause_dynamics.training.step import TrainingStep

    batch, length = sizes
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    wait = torch.cuda.synchronize if cuda else lambda: None
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(1)
    model = adapted({"base": str(folder), **ARMS[arm]}, {"vocab_size": 257, "max_position_embeddings": length})
    model = model.to(device).train()
    groups = [group for group in parameter_groups(model, 0.0) if group["params"]]
    begin = time.perf_counter()
    step = TrainingStep(
        torch.compile(model, dynamic=False) if fuse else model, task_of(length, device),
        loop.optimizer_of(groups, 2e-4, device), [2e-4] * (STEPS * (rounds + 1)), done=0, batch_size=batch, clip=1.0,
        bfloat16=cuda, capture=capture and cuda,
    )  # fmt: skip
    torch.manual_seed(2)
    losses, times = [], []
    for i in range(STEPS):
        losses.append(step(torch.arange(i * batch, (i + 1) * batch, device=device) % 199).item())
        if i == 0:
            first = time.perf_counter() - begin
    for _ in range(rounds):
        wait()
        begin = time.perf_counter()
        for i in range(STEPS):
            step(torch.arange(i * batch, (i + 1) * batch, device=device) % 199)
        wait()
        times.append(1e3 * (time.perf_counter() - begin) / STEPS)
    memory = torch.cuda.max_memory_reserved() / 2**20 if cuda else 0.0
    del step, model
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
    return losses, statistics.median(times), memory, first


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compile", action="store_true", help="also fused by torch.compile")
    parser.add_argument("--smoke", action="store_true", help="small sizes, on any machine")
    options = parser.parse_args()
    sizes, rounds = ((2, 32), 1) if options.smoke else ((16, 512), 3)
    ways = {"eager": (False, False), "captured": (True, False)}
    ways |= {"compiled, captured": (True, True)} if options.compile else {}
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{machine}, torch {torch.__version__}; {sizes[0]} x {sizes[1]} tokens a step\n")
    print("| arm | way | ms a step | MiB | s to the first step | largest difference of a loss from eager |")
    print("| --- " * 6 + "|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        base(Path(folder), options.smoke)
        for arm in ARMS:
            eager = None
            for way, (capture, fuse) in ways.items():
                losses, milliseconds, memory, first = measured(
                    arm, folder, sizes, capture=capture, fuse=fuse, rounds=rounds
                )
                eager = eager or losses
                off = max(abs(a - b) for a, b in zip(losses, eager, strict=True))
                print(f"| {arm} | {way} | {milliseconds:.1f} | {memory:.0f} | {first:.1f} | {off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
