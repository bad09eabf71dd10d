"""What the loop of `krause train` costs beside a bare captured step of the same model, on a GPU.

    python benchmarks/training_gpu.py                      # ViT-Ti on 28 x 28, ViT-S on 32 x 32, softmax and Krause
    python benchmarks/training_gpu.py --together 4         # and so many runs at once on the one card
    python benchmarks/training_gpu.py --smoke              # the same calls on the CPU at small sizes: no figures
    python benchmarks/training_gpu.py --host               # what the loop takes of the host, around an empty step

"bare" is forward, backward and fused AdamW under bfloat16 autocast on fixed inputs, replayed from one CUDA graph, its
wall time; "step" the training step of the package replayed (augmentation and clipping included); "loop" an epoch of
`train` over its steps, Trainer's loop included (the median of the epochs after the first); "eager" the same without a
capture; "run" everything from the start of the process's first call to the result, over the steps. Data are random
bytes in idx files. Before anything is measured, losses of the captured and the eager run are compared.
"""

import argparse
import gzip
import json
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

STRONG = {"label_smoothing": 0.1, "mixup": 0.8, "cutmix": 1.0, "crop": 2, "flip": True, "drop_path": 0.1}
CASES = {
    "ViT-Ti 28x28 softmax": ("tiny", 28, {"score": "dot", "support": "full"}),
    "ViT-Ti 28x28 Gaussian window": ("tiny", 28, {"score": "gaussian", "support": "window"}),
    "ViT-Ti 28x28 full rule": ("tiny", 28, {"score": "gaussian", "support": "window+top_k"}),
    "ViT-Ti 28x28 random keys": ("tiny", 28, {"score": "dot+temperature", "support": "random"}),
    "ViT-S 32x32 softmax": ("small", 32, {"score": "dot", "support": "full"}),
    "ViT-S 32x32 full rule": ("small", 32, {"score": "gaussian", "support": "window+top_k"}),
}
SIZES = {"examples": 256 * 100, "batch": 256, "epochs": 3}
SMOKE = {"examples": 64, "batch": 16, "epochs": 2}


def data(folder, side, examples):
    """Random pictures in MNIST's files."""
    rng = np.random.default_rng(0)
    for part, number in (("train", examples + 1000), ("t10k", 1000)):
        pixels = rng.integers(0, 256, (number, side, side), dtype=np.uint8)
        labels = rng.integers(0, 10, number, dtype=np.uint8)
        head = b"\0\0\x08\x03" + struct.pack(">III", number, side, side)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(head + pixels.tobytes(), 1))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(
            b"\0\0\x08\x01" + struct.pack(">I", number) + labels.tobytes()
        )


def tables(name, folder, sizes, **training):
    size, _, words = CASES[name]
    small = {"hidden_size": 24, "num_hidden_layers": 2} if sizes is SMOKE else {}
    return {
        "model": {"kind": "kvit", "size": size, "norm": "pre", **words, **small},
        "data": {"format": "idx", "path": str(folder), "validation": 1000, "limit": sizes["examples"]},
        "training": {"epochs": sizes["epochs"], "batch_size": sizes["batch"], **STRONG, **training},
        "evaluation": {"cost": False},
    }


def model_of(name, side, sizes):
    from krause_dynamics.training.kinds import build

    table = tables(name, "nowhere", sizes)["model"]
    return build(table, 0.1, {"image_size": side, "num_channels": 1, "num_labels": 10})


def replayed(step, steps):
    """Milliseconds a call, wall time, median of five rounds; captured where there is a GPU."""
    cuda = torch.cuda.is_available()
    if cuda:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step()
        step = graph.replay
    return timed(step, steps)


def timed(step, steps):
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    rounds = []
    for _ in range(6):
        wait()
        begin = time.perf_counter()
        for _ in range(steps):
            step()
        wait()
        rounds.append(1e3 * (time.perf_counter() - begin) / steps)
    return statistics.median(rounds[1:])


def bare(name, sizes):
    """The model's own step on fixed inputs."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    side = CASES[name][1]
    model = model_of(name, side, sizes).to(device).train()
    x = torch.randn(sizes["batch"], 1, side, side, device=device)
    y = torch.full((sizes["batch"], 10), 0.1, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True, capturable=device == "cuda")

    def step():
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(pixel_values=x, labels=y).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return replayed(step, 50 if device == "cuda" else 2)


def own(name, folder, sizes):
    """The package's step alone."""
    from krause_dynamics.models import parameter_groups
    from krause_dynamics.training import TrainingConfiguration, loop
    from krause_dynamics.training.split import found_in, task_of
    from krause_dynamics.training.step import TrainingStep

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    configuration = TrainingConfiguration.read(tables(name, folder, sizes))
    task = task_of(configuration, found_in(configuration.data), device)
    model = model_of(name, CASES[name][1], sizes).to(device).train()
    cuda = device.type == "cuda"
    step = TrainingStep(
        model, task, loop.optimizer_of(parameter_groups(model), 1e-3, device), [1e-3] * 1000, done=0,
        batch_size=sizes["batch"], clip=1.0, bfloat16=cuda, capture=cuda,
    )  # fmt: skip
    rows = torch.arange(sizes["batch"], device=device)
    return timed(lambda: step(rows), 50 if cuda else 2)


def whole(name, folder, out, sizes, **training):
    """(milliseconds a step of the median later epoch, of the whole call, losses, MiB) of one run of `train`."""
    from krause_dynamics.training import train

    begin = time.perf_counter()
    result = train(tables(name, folder, sizes, **training), out=out)
    spent = time.perf_counter() - begin
    rows = [row for row in result.metrics if row["split"] == "train"]
    steps = sizes["examples"] // sizes["batch"]
    loop = 1e3 * statistics.median(row["seconds"] for row in rows[1:]) / steps
    run = 1e3 * spent / (steps * sizes["epochs"])
    return loop, run, [row["loss"] for row in rows], result.result["memory_mib"] or 0.0


def together(name, folder, sizes, number):
    """Milliseconds a step of each of several processes that train at once."""
    import os

    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, __file__, "--child", name, str(folder), *(["--smoke"] if sizes is SMOKE else [])]
    runs = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(number)]
    answers = [run.communicate()[0].splitlines()[-1:] for run in runs]
    found = [json.loads(line[0]) for line in answers if line]
    return statistics.mean(found) if len(found) == number else float("nan")


def child(name, folder, sizes):
    sizes = sizes if sizes is SMOKE else {**sizes, "examples": 256 * 50, "epochs": 4}  # the median of three epochs
    with tempfile.TemporaryDirectory() as out:
        print(json.dumps(whole(name, Path(folder), Path(out) / "run", sizes)[0]), flush=True)


def row(name, sizes, number):
    side = CASES[name][1]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data(folder, side, sizes["examples"])
        loop, run, captured, memory = whole(name, folder, folder / "captured", sizes)
        short = sizes if sizes is SMOKE else {**sizes, "epochs": 2}
        eager, _, losses, _ = whole(name, folder, folder / "eager", short, capture=False)
        off = abs(captured[0] - losses[0]) if sizes["epochs"] == short["epochs"] else float("nan")
        first = abs(captured[0] - losses[0])  # another schedule after the first epoch; the warm-up is the same
        step, alone = own(name, folder, sizes), bare(name, sizes)
        figures = [alone, step, loop, eager, run, loop / alone, loop / step, memory, off if off == off else first]
        if number:
            side_by_side = together(name, folder, sizes, number)
            figures += [side_by_side, side_by_side / number]
    return figures


def host(steps=2000, rounds=4):
    """Microseconds a step of the loop around an empty step, for a ViT-Ti of 12 layers, by rounds."""
    from krause_dynamics.models import parameter_groups
    from krause_dynamics.training import loop

    class Empty:
        loss = torch.zeros(())
        losses = torch.zeros(steps * rounds)
        rates = losses

        def __call__(self, rows):
            return self.loss

    cpu, found = torch.device("cpu"), []
    model = model_of("ViT-Ti 28x28 softmax", 28, SIZES)
    empty, optimizer = Empty(), loop.optimizer_of(parameter_groups(model), 1e-3, cpu)
    empty.optimizer = optimizer
    batches = loop.Batches(256 * steps, 256, seed=0, begin=0, rank=0, world=1, device=cpu)
    with tempfile.TemporaryDirectory() as out:
        epochs = loop.Epochs(
            0, 0, lambda done, total: None, lambda epoch, loss, seconds: found.append(1e6 * seconds / steps),
            Path(out) / "none", steps * rounds,
        )  # fmt: skip
        trainer = loop.Loop(
            lambda model: empty, batches, model=model, args=loop.arguments(Path(out), rounds, 256, 0, "cpu"),
            optimizers=(optimizer, loop.Rates([0.0] * steps * rounds, 0)), callbacks=[epochs],
        )  # fmt: skip
        epochs.loop = trainer
        trainer.train()
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="*", default=list(CASES), help="which of them; default all")
    parser.add_argument("--together", type=int, default=0, help="also so many processes at once")
    parser.add_argument("--host", action="store_true", help="the loop's share of the host alone")
    parser.add_argument("--smoke", action="store_true", help="small sizes, on any machine")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    sizes = SMOKE if options.smoke else SIZES
    if options.child:
        child(*options.child, sizes)
        return
    if options.host:
        print("microseconds a step:", ", ".join(f"{x:.0f}" for x in host()))
        return
    machine = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    print(f"{machine}, torch {torch.__version__}; milliseconds a step of {sizes['batch']} pictures\n")
    columns = ["case", "bare", "step", "loop", "eager loop", "whole run", "loop / bare", "loop / step", "MiB",
               "captured - eager loss, epoch 1"]  # fmt: skip
    if options.together:
        columns += [f"loop of {options.together} at once", "the same a run"]
    print("| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|", flush=True)
    for name in options.cases:
        cells = [f"{x:.4g}" for x in row(name, sizes, options.together)]
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
