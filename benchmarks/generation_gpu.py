"""Pictures a second of KARM beside the same model with softmax attention, each at its own best batch, on one GPU.

    python benchmarks/generation_gpu.py [--shapes mnist cifar] [--batches 64 256 1024] [--values 48] [--whole]

Both sides feed one value a step through a captured CUDA graph in bfloat16. KARM fills its window as it is timed; the
rest of a picture is counted at the pace of ``--values`` further steps. The softmax twin keeps all keys; its steps are
captured anew 24 times as the places fill, and fused attention reads no more than are filled by then; a picture's time
is the sum over these stretches, each measured on a few replays. The floor is the traffic of W keys and values a token
and layer over the bandwidth that a copy reaches in the same run. ``--whole`` draws pictures as a user would.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from _report import table  # noqa: E402

from krause_dynamics.models import KARM, KARMConfig, drawing, generate_pictures  # noqa: E402
from krause_dynamics.nn.arguments import call_of  # noqa: E402
from krause_dynamics.nn.static_cache import from_ring  # noqa: E402

SHAPES = {
    "mnist": {},
    "cifar": {"image_size": 32, "num_channels": 3, "hidden_size": 512, "num_hidden_layers": 16, "window": 256,
              "attention_top_k": 192},
}  # fmt: skip
SMALL = {"image_size": 12, "num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2}
STRETCHES = 24
WARM_UP = 3


def built(dtype=torch.bfloat16, **options):
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = KARM(KARMConfig(**options))
    return model.eval().to("cuda", dtype)


class Filled:
    """Softmax attention of one layer over the keys that are there: the twin's cache, in fixed memory."""

    def __init__(self, attention, batch, length):
        self.attention, shape = attention, (batch, attention.heads, length, attention.head_dim)
        dtype, self.scale = attention.q_proj.weight.dtype, float(attention.sigma) ** -2
        self.k, self.v = (torch.zeros(shape, device="cuda", dtype=dtype) for _ in range(2))

    def __call__(self, x, place, filled):
        q, k, v = self.attention.project(x)
        self.k.index_copy_(2, place, k)
        self.v.index_copy_(2, place, v)
        # Places beyond the present one are masked; there are fewer than a stretch of them.
        mask = (torch.arange(filled, device="cuda") <= place)[None, None, None]
        out = torch.nn.functional.scaled_dot_product_attention(
            q, self.k[:, :, :filled], self.v[:, :, :filled], mask, scale=self.scale
        )
        return self.attention.out_proj(out.transpose(1, 2).flatten(2))


class Softmax:
    """The twin's step: the modules of the model, attention as above, the same drawing of a value."""

    def __init__(self, model, batch):
        self.model, self.length = model, model.config.max_position_embeddings
        self.caches = [Filled(layer.attention, batch, self.length) for layer in model.layers]
        self.values = torch.zeros(batch, self.length, dtype=torch.long, device="cuda")
        self.numbers = torch.rand(batch, self.length, device="cuda", dtype=torch.float64)
        self.place = torch.zeros(1, dtype=torch.long, device="cuda")

    @torch.no_grad()
    def step(self, filled):
        m = self.model
        x = m.token_embedding(self.values.index_select(1, self.place)) + m.position_embedding(self.place)
        for layer, cache in zip(m.layers, self.caches, strict=True):
            x = x + cache(layer.norm1(x), self.place, filled)
            x = x + layer.mlp(layer.norm2(x))
        after = (self.place + 1).clamp_max(self.length - 1)
        logits = m.head(m.norm(x))[:, -1]
        self.values.index_copy_(1, after, drawing.invert(logits, self.numbers.index_select(1, after), 1.0))
        self.place += 1
        return logits


def captured(step, warm_up=WARM_UP):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(warm_up):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def seconds(call, times):
    """Of ``times`` calls in a row."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(times):
        call()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


@torch.no_grad()
def krause(model, batch, values):
    """Seconds a picture."""
    config = model.config
    length, window = config.max_position_embeddings, config.window
    numbers = torch.rand(batch, length, device="cuda", dtype=torch.float64)
    state = drawing.Drawing(model, torch.empty(batch, 0, dtype=torch.long, device="cuda"), numbers, 1.0, True)
    draws, early = state.draw(), drawing.WARM_UP + 3  # kernels are compiled and the step is captured by then
    for _ in range(early):
        next(draws)
    filling = seconds(lambda: next(draws), window - early)
    pace = seconds(lambda: next(draws), values) / values
    return filling + (early + length - window) * pace


@torch.no_grad()
def softmax(model, batch, values):
    """Seconds a picture: one captured step for each stretch of filled places."""
    length, state, total = model.config.max_position_embeddings, Softmax(model, batch), 0.0
    stretch, warm_up = -(-length // STRETCHES), WARM_UP
    for begin in range(0, length, stretch):
        end = min(begin + stretch, length)
        state.place.fill_(begin)
        replay, warm_up = captured(lambda end=end: state.step(end), warm_up), 1
        state.place.fill_(begin)
        replay()
        few = min(max(values // 6, 2), end - begin)
        total += (end - begin) * seconds(replay, few) / few
    return total


@torch.no_grad()
def attention_alone(model, batch):
    """(seconds of one layer's attention, bytes of W keys and values) where the window is full."""
    layer, config = model.layers[0].attention, model.config
    cache, shape = layer.new_cache(static=True), (batch, layer.heads, 1, layer.head_dim)
    dtype = layer.q_proj.weight.dtype
    for _ in range(config.window):
        tokens = [torch.randn(shape, device="cuda", dtype=dtype) for _ in range(3)]
        call = call_of(*tokens, layer._reach, sigma=layer.sigma, score=layer.score)
        assert from_ring(cache, call) is not None
    graph = captured(lambda: [from_ring(cache, call) for _ in range(10)])
    return seconds(graph, 5) / 50, 2 * batch * config.window * config.hidden_size * tokens[0].element_size()


@torch.no_grad()
def check():
    """Decoding from the ring is the whole pass, replayed steps draw what eager ones draw, the twin is the twin."""
    model = built(torch.float32, window=32, attention_top_k=16, **SMALL)
    values = torch.randint(256, (4, 144), device="cuda")
    cache = model.new_cache(static=True)
    steps = [model(values[:, i : i + 1], past_key_values=cache).logits for i in range(144)]
    apart = (torch.cat(steps, 1) - model(values).logits).abs().amax(-1)
    print(f"ring against the whole pass, float32: largest difference {float(apart.max()):.1e}", flush=True)
    for kind in (torch.float32, torch.bfloat16):
        model = built(kind, window=32, attention_top_k=16, **SMALL)
        drawn = (generate_pictures(model, 64, captured=way) for way in (True, False))
        first, second = drawn
        print(f"values alike in captured and eager generation, {kind}: {(first == second).mean():.4f}", flush=True)
    arm = built(torch.float32, score="dot", support="full", **SMALL)
    twin = Softmax(arm, 4)
    replay = captured(lambda: twin.step(144))
    twin.place.zero_()
    for _ in range(143):
        replay()
    fed = twin.values.clone()
    apart = (twin.step(144) - arm(fed).logits[:, -1]).abs().max()
    print(f"twin against its model, float32: largest difference {float(apart):.1e}", flush=True)


def bandwidth():
    x = torch.empty(1 << 28, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    y.copy_(x)
    return 10 * 2 * x.numel() * 2 / seconds(lambda: y.copy_(x), 10)


def best(name, times, call, batches):
    for batch in batches:
        try:
            times[name, batch] = batch / call(batch)
        except torch.cuda.OutOfMemoryError:
            break
        finally:
            torch.cuda.empty_cache()
        print(f"{name}, batch {batch}: {times[name, batch]:.1f} pictures a second", flush=True)
    return max((rate, batch) for (who, batch), rate in times.items() if who == name)


def of_krause(sizes, options):
    """Best rate, its batch, seconds of one layer's attention there, bytes of its keys and values, configuration."""
    model = built(**sizes)
    rate, batch = best("KARM", {}, lambda b: krause(model, b, options.values), options.batches)
    once, moved = attention_alone(model, batch)
    if options.whole:
        generate_pictures(model, 2, captured=True)
        whole = batch / seconds(lambda: generate_pictures(model, batch, batch_size=batch), 1)
        print(f"generate_pictures, batch {batch}: {whole:.1f} pictures a second, from the call to its end", flush=True)
    return rate, batch, once, moved, model.config


def of_softmax(sizes, options):
    model = built(**sizes, score="dot", support="full")
    return best("softmax", {}, lambda b: softmax(model, b, options.values), options.twin_batches)


def row(shape, options, speed):
    ours, batch, once, moved, c = of_krause(SHAPES[shape], options)
    torch.cuda.empty_cache()
    theirs, their_batch = of_softmax(SHAPES[shape], options)
    layers = c.num_hidden_layers * c.max_position_embeddings  # times a picture's tokens
    floor, share = speed * batch / (layers * moved), once * layers * ours / batch
    return (shape, f"{ours:.1f}", batch, f"{theirs:.1f}", their_batch, f"{ours / theirs:.2f}", f"{floor:.0f}",
            f"{floor / ours:.2f}", f"{share:.2f}", f"{moved / once / 1e12:.2f}")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--twin-batches", nargs="+", type=int)
    parser.add_argument("--values", type=int, default=48)
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    options.twin_batches = options.twin_batches or options.batches
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    check()
    speed = bandwidth()
    print(f"a copy reads and writes {speed / 1e12:.2f} TB/s", flush=True)
    head = ("shape", "KARM, pictures a second", "batch", "softmax", "batch", "ratio", "floor of the traffic",
            "floor / KARM", "attention's share of a step", "its TB/s of W keys and values")  # fmt: skip
    print(table(head, [row(shape, options, speed) for shape in options.shapes]), flush=True)


if __name__ == "__main__":
    main()
