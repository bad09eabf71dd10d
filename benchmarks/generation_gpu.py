"""Pictures a second of KARM beside the same model with softmax attention, each at its own best batch, on one GPU.

    python benchmarks/generation_gpu.py [--shapes mnist cifar] [--batches 64 256 1024] [--values 48]

Both sides feed one value a step through a captured CUDA graph in bfloat16. The softmax twin keeps all keys; its steps
are captured once for every 256 filled places, and fused attention reads no more than these. A picture's time is the sum
over its places, measured on a stretch of ``--values`` replays in each of these. The floor is the traffic of W keys and
values a token and layer over the memory bandwidth that a copy reaches in the same run.
"""

import argparse
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from _report import table  # noqa: E402

from krause_dynamics.models import KARM, KARMConfig  # noqa: E402
from krause_dynamics.models import pictures as drawing  # noqa: E402

SHAPES = {
    "mnist": {},
    "cifar": {"image_size": 32, "num_channels": 3, "hidden_size": 512, "num_hidden_layers": 16, "window": 256,
              "attention_top_k": 192},
}  # fmt: skip
STRETCH = 256


def built(**options):
    torch.manual_seed(0)
    return KARM(KARMConfig(**options)).eval().cuda().bfloat16()


class Filled:
    """Softmax attention of one layer over the keys that are there: the twin's cache, in fixed memory."""

    def __init__(self, attention, batch, length):
        self.attention, shape = attention, (batch, attention.heads, length, attention.head_dim)
        self.k, self.v = (torch.zeros(shape, device="cuda", dtype=torch.bfloat16) for _ in range(2))

    def __call__(self, x, place, filled):
        q, k, v = self.attention.project(x)
        self.k.index_copy_(2, place, k)
        self.v.index_copy_(2, place, v)
        # Places beyond the present one are masked; there are fewer than a stretch of them.
        mask = (torch.arange(filled, device="cuda") <= place)[None, None, None]
        out = torch.nn.functional.scaled_dot_product_attention(q, self.k[:, :, :filled], self.v[:, :, :filled], mask)
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
        draw(m.head(m.norm(x))[:, -1], self)


def draw(logits, state):
    after = (state.place + 1).clamp_max(state.values.shape[1] - 1)
    share = logits.double().softmax(-1).cumsum(-1)
    value = (share <= state.numbers.index_select(1, after) * share[:, -1:]).sum(-1, keepdim=True)
    state.values.index_copy_(1, after, value.clamp_max(share.shape[1] - 1))
    state.place += 1


def captured(step):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def seconds(replay, place, at, values):
    place.fill_(at)
    replay()
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(values):
        replay()
    torch.cuda.synchronize()
    return (time.perf_counter() - begin) / values


@torch.no_grad()
def krause(model, batch, values):
    """Seconds a picture: the window is full almost always, so that one stretch stands for all."""
    length = model.config.max_position_embeddings
    numbers = torch.rand(batch, length, device="cuda", dtype=torch.float64)
    state = drawing._State(model, numbers.new_empty(batch, 0, dtype=torch.long), numbers, 1.0, True)
    state.place.fill_(1)
    for _ in range(3):
        state.step()
    return length * seconds(state._graph(), state.place, 4, min(values, length - 8)), state


@torch.no_grad()
def softmax(model, batch, values):
    """Seconds a picture: one captured step for each stretch of filled places."""
    length, state, total = model.config.max_position_embeddings, Softmax(model, batch), 0.0
    for begin in range(0, length, STRETCH):
        end = min(begin + STRETCH, length)
        state.place.fill_(begin)
        replay = captured(lambda end=end: state.step(end))
        total += (end - begin) * seconds(replay, state.place, begin, min(values, end - begin - 2))
    return total


def check(model):
    """The captured step draws what eager steps draw, and the twin's step gives the twin's logits."""
    drawn = drawing.generate_pictures(model, 4, captured=True)
    eager = drawing.generate_pictures(model, 4, captured=False)
    same = float((drawn == eager).mean())
    print(f"values alike in captured and eager generation (bfloat16): {same:.3f}", flush=True)


def bandwidth():
    x = torch.empty(1 << 28, device="cuda", dtype=torch.bfloat16)
    y = torch.empty_like(x)
    y.copy_(x)
    torch.cuda.synchronize()
    begin = time.perf_counter()
    for _ in range(10):
        y.copy_(x)
    torch.cuda.synchronize()
    return 10 * 2 * x.numel() * 2 / (time.perf_counter() - begin)


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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES))
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 256, 1024])
    parser.add_argument("--values", type=int, default=48)
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}", flush=True)
    check(
        built(image_size=12, num_hidden_layers=2, hidden_size=128, num_attention_heads=2, window=32, attention_top_k=16)
    )
    speed, rows = bandwidth(), []
    for shape in options.shapes:
        sizes, times = SHAPES[shape], {}
        karm, arm = built(**sizes), built(**sizes, score="dot", support="full")
        ours, batch = best("KARM", times, lambda b, m=karm: krause(m, b, options.values)[0], options.batches)
        theirs, their_batch = best("softmax", times, lambda b, m=arm: softmax(m, b, options.values), options.batches)
        c = karm.config
        traffic = c.max_position_embeddings * c.num_hidden_layers * 2 * c.window * c.hidden_size * 2
        floor = speed / traffic
        rows.append((shape, f"{ours:.1f}", batch, f"{theirs:.1f}", their_batch, f"{ours / theirs:.2f}",
                     f"{floor:.0f}", f"{floor / ours:.1f}"))  # fmt: skip
        del karm, arm
    head = (
        "shape",
        "KARM, pictures a second",
        "batch",
        "softmax",
        "batch",
        "ratio",
        "floor of the traffic",
        "floor / KARM",
    )
    print(table(head, rows), flush=True)


if __name__ == "__main__":
    main()
