"""What the host does for one attention layer of a training step on a GPU, measured without one.

    OMP_NUM_THREADS=1 python benchmarks/host_share.py                     # the table that results/host_share.md keeps
    OMP_NUM_THREADS=1 python benchmarks/host_share.py --before CHECKOUT   # another checkout beside it, in alternation
    OMP_NUM_THREADS=1 python benchmarks/host_share.py --list              # which operations

Layers of the models of models_gpu.py, and the attention of a decoder of transformers with a gated branch, forward and
backward under bfloat16 autocast, on tokens of the CPU that are too few to take time. Everything runs as on a GPU up to
the launches of Triton kernels, which are counted and left out; the calls are recorded before, as in any step but the
first two. Beside each layer stands softmax attention: one product for q, k and v (transformers': three, and rotary
positions), and one call that allocates, in place of torch's fused attention.

Operations are calls of torch's dispatcher that compute or copy something (views left aside): on a GPU each is a launch
at least. Microseconds are processor time; sides alternate, medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Tokens, neighbourhood in words: grid, window, k.
LAYERS = {
    "KViT-S 8x8": (65, {"grid": 8, "top_k": 8}),
    "KARM": (96, {"window": 32, "top_k": 16}),
    "window": (96, {"window": 32}),
    "random": (65, {"random": 9}),
    "gated Llama": (96, {"gated": {"window": 32, "top_k": 16}}),
}
WIDTH, HEADS = 48, 6
# Calls that are made of others, and calls that compute nothing.
MADE_OF_OTHERS = {
    "linear",
    "matmul",
    "to",
    "reshape",
    "flatten",
    "contiguous",
    "zeros",
    "zeros_like",
    "ones_like",
    "sum_to_size",
}
VIEWS = {
    "view", "transpose", "split", "narrow", "slice", "select", "expand", "permute", "unflatten", "detach", "detach_",
    "as_strided", "unsqueeze", "squeeze", "t", "alias", "unbind", "split_with_sizes", "_reshape_alias", "_unsafe_view",
    "result_type", "resolve_neg", "resolve_conj", "empty", "empty_like", "empty_strided", "new_empty", "movedim",
}  # fmt: skip
ROUNDS, CALLS = 15, 60


def without_a_device():
    """Everything of a GPU that a layer asks for, and launches that do nothing; returns the list that they fill."""
    import torch

    import krause_dynamics  # noqa: F401
    from krause_dynamics.aggregate import calls
    from krause_dynamics.forms.attention.triton import replay

    launches = []

    class Compiled:
        def __getitem__(self, grid):
            return lambda *arguments, **options: launches.append(grid)

    def launch(device, recorded, held):
        addresses = [0 if x is None else x.data_ptr() for x in held]
        for run, template, places in recorded:
            arguments = template.copy()
            for place, which, offset in places:
                tensor = held[which]
                arguments[place] = addresses[which] + (offset * tensor.itemsize if offset and tensor is not None else 0)
            run(*arguments, stream=0)

    replay._KERNEL.run = lambda *arguments, **options: Compiled()
    replay._launch_on = launch
    calls._SERVES["triton"] = lambda call: None
    torch.cuda.get_device_capability = lambda *_: (9, 0)
    return launches


def fused_attention():
    """A call of autograd like torch's fused attention that allocates and computes nothing."""
    import torch

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx, q, k, v):
            out = torch.empty_like(q)
            ctx.save_for_backward(q, k, v, out)
            return out

        @staticmethod
        def backward(ctx, grad):
            return tuple(torch.empty_like(x) for x in ctx.saved_tensors[:3])

    return lambda q, k, v, **options: Fused.apply(q, k, v)


def layers_of(name):
    """A Krause layer and softmax's."""
    import models_gpu
    import torch

    import krause_dynamics as kd
    from krause_dynamics.nn import KrauseAttention

    models_gpu.functional.scaled_dot_product_attention = fused_attention()
    torch.manual_seed(0)
    tokens, words = LAYERS[name]
    if "gated" in words:
        return tokens, *gated(tokens, words["gated"])
    if "grid" in words:
        hood = kd.Grid(words["grid"], words["grid"], radius=2, prefix=1)
    elif "random" in words:
        hood = kd.RandomKeys(words["random"], tokens=tokens, prefix=1)
    else:
        hood = kd.Window(words["window"])
    hood = hood & kd.TopK(words["top_k"]) if "top_k" in words else hood
    return (
        tokens,
        KrauseAttention(WIDTH, HEADS, hood, impl="triton"),
        models_gpu.Softmax(WIDTH, HEADS, "window" in words),
    )


def gated(tokens, settings):
    """The attention of a decoder of transformers with a Krause branch and a gate, and without them."""
    from functools import partial

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from krause_dynamics.models import add_krause_branch, gated_attention

    gated_attention.krause_attention = partial(gated_attention.krause_attention, impl="triton")
    config = LlamaConfig(
        vocab_size=8, hidden_size=WIDTH, intermediate_size=WIDTH, num_hidden_layers=1, num_attention_heads=HEADS
    )
    bases = [LlamaForCausalLM(config) for _ in range(2)]
    positions = bases[0].model.rotary_emb(torch.zeros(1, tokens, WIDTH), torch.arange(tokens)[None])
    add_krause_branch(bases[0], **settings)

    class Attention(torch.nn.Module):
        def __init__(self, part):
            super().__init__()
            self.part = part

        def forward(self, x):
            return self.part(x, position_embeddings=positions, attention_mask=None)[0]

    return [Attention(base.model.layers[0].self_attn) for base in bases]


def step_of(layer, tokens):
    """One forward and backward pass."""
    import torch

    x = torch.randn(1, tokens, WIDTH, requires_grad=True)
    weights = torch.randn(1, tokens, WIDTH, dtype=torch.bfloat16)
    leaves = [x, *layer.parameters()]

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            out = layer(x)
        out.backward(weights)
        for leaf in leaves:
            leaf.grad = None

    return step


def operations(step):
    """Names of the dispatcher's calls that compute or copy something, without what they are made of."""
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        step()
    found, waiting = [], [event for event in profile.events() if event.cpu_parent is None]
    while waiting:
        event = waiting.pop(0)
        name = event.name.removeprefix("aten::")
        if not event.name.startswith("aten::") or name in MADE_OF_OTHERS:
            waiting = [*event.cpu_children, *waiting]
        elif name not in VIEWS:
            found.append(name)
    return found


def child(name):
    """Count, then measure on demand: a line in, a line out."""
    launches = without_a_device()
    tokens, *layers = layers_of(name)
    steps = [step_of(layer, tokens) for layer in layers]
    for step in steps * 5:
        step()
    found = {}
    for side, step in zip(("krause", "softmax"), steps, strict=True):
        del launches[:]
        found[side] = operations(step)
        found[side + " launches"] = len(launches)
    print(json.dumps(found), flush=True)
    for line in sys.stdin:
        step = steps[int(line)]
        step()
        start = time.process_time()
        for _ in range(CALLS):
            step()
        print((time.process_time() - start) / CALLS, flush=True)


def start(name, tree):
    """A process of a checkout."""
    paths = os.pathsep.join([str(tree), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--child", name]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stdin=pipe, stdout=pipe, text=True)


def measure(name, trees):
    """{side: (operations, launches, microseconds)}."""
    running = {side: start(name, tree) for side, tree in trees.items()}
    counts = {side: json.loads(process.stdout.readline()) for side, process in running.items()}
    sides = [("softmax", "krause", 1)] + [(side, side, 0) for side in trees]
    times = {side: [] for side, _, _ in sides}
    for _ in range(ROUNDS):
        for side, process, which in sides:
            print(which, file=running[process].stdin, flush=True)
            times[side].append(1e6 * float(running[process].stdout.readline()))
    for process in running.values():
        process.stdin.close()
        process.wait()
    found = {}
    for side, process, which in sides:
        key = ("krause", "softmax")[which]
        found[side] = (counts[process][key], counts[process][key + " launches"], statistics.median(times[side]))
    return found


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="*", default=list(LAYERS), choices=list(LAYERS))
    parser.add_argument("--before", help="checkout whose layer is measured beside this one's")
    parser.add_argument("--list", action="store_true", help="list the operations")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        child(asked.child)
        return
    from _report import machine, table

    trees = {"krause": HERE.parent} | ({"before": Path(asked.before)} if asked.before else {})
    rows = []
    for name in asked.layers:
        found = measure(name, trees)
        for side, (names, launches, microseconds) in found.items():
            own = microseconds - found["softmax"][2]
            rows.append((name, side, len(names), launches, f"{microseconds:.0f}", f"{own:+.0f}"))
            if asked.list:
                print(name, side, *names)
    header = ("layer", "side", "operations", "Triton kernels", "microseconds", "beside softmax")
    print(table(header, rows) + f"\n\n{machine('torch')}")


if __name__ == "__main__":
    main()
