"""Statistics of attention on a GPU, beside the plain pass of the same blocks, at the shapes of an 8B model.

    python benchmarks/checkpoints_gpu.py [tokens] [--profile] [--tiles]

Random weights, four Llama blocks of 4096 dimensions (32 heads of 128, 8 of keys, 14336 inside), bfloat16, 8192 tokens.
First the statistics against float64 at 600 tokens; then medians of the whole pass in alternation with the plain one
(sdpa), and their ratio; then one attention layer of 1 048 576 tokens in a window of 256. The vocabulary is small: that
of an 8B model would take memory and no time. With --profile the kernels of a pass of each tier are listed by time, and
where the GPU stands idle; with --tiles the kernels of sums are timed with other tiles, other warps and fewer registers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
import warnings
from collections import Counter
from dataclasses import fields
from pathlib import Path

import torch
import transformers
from _report import table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from krause_dynamics.checkpoints.attention_call import AttentionCall  # noqa: E402
from krause_dynamics.checkpoints.attention_pass import attend  # noqa: E402
from krause_dynamics.checkpoints.stream import Passes  # noqa: E402

BLOCKS, ROUNDS = 4, 7
DEVICE = torch.device("cuda")


def check() -> None:
    """Largest error of every statistic of both tiers against float64 on the host."""
    g = torch.Generator().manual_seed(0)
    for before in (None, 100):
        q, k, v = (torch.randn(1, heads, 600, 128, generator=g).bfloat16() for heads in (8, 2, 2))
        call = AttentionCall.of_window(before, 600, torch.device("cpu"))
        _, expected = attend(q.double(), k.double(), v.double(), None, read=lambda *_, call=call: call)
        call = AttentionCall.of_window(before, 600, DEVICE)
        for sink_only in (False, True):
            _, found = attend(q.cuda(), k.cuda(), v.cuda(), None, read=lambda *_, call=call: call, sink_only=sink_only)
            errors = {}
            for name in (field.name for field in fields(found) if field.name not in ("top_keys", "weights")):
                ours, truth = getattr(found, name).cpu().double(), getattr(expected, name).double()
                if name == "mean_distance":  # of hundreds of tokens: a share of them
                    ours, truth = ours / truth, torch.ones_like(truth)
                assert sink_only or torch.equal(ours.isnan(), truth.isnan()), name
                errors[name] = float((ours - truth).abs().nan_to_num().max())  # NaN: was not looked at
            told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
            print(f"window {before}, {'sink tier' if sink_only else 'statistics'}: {told}", flush=True)
            strongest = errors.pop("strongest_key")  # among the keys that a tier looks at
            assert max(errors.values()) < 2e-4
            assert sink_only or strongest == 0


def model(tokens: int) -> torch.nn.Module:
    config = transformers.LlamaConfig(
        vocab_size=1024, hidden_size=4096, intermediate_size=14336, num_hidden_layers=BLOCKS, num_attention_heads=32,
        num_key_value_heads=8, max_position_embeddings=tokens, attn_implementation="sdpa",
    )  # fmt: skip
    with torch.device(DEVICE):
        return transformers.LlamaModel(config).bfloat16().eval()


def _timed(run) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


class Forgetting:
    """Takes layers and keeps none, so that the pass itself is timed."""

    def state(self, layer, tokens) -> None:
        self.last = layer

    def attention(self, block, found) -> None:
        self.last = found


def ratios(tokens: int, profiled: bool) -> None:
    net = model(tokens)
    ids = torch.randint(0, 1024, (1, tokens), device=DEVICE)
    plain = lambda: net(ids, use_cache=False)  # noqa: E731
    runs = {"plain pass (sdpa)": plain}
    for name, attention in (("states alone", None), ("sink tier", "sink"), ("statistics", "statistics")):
        run = Passes.of(
            net, ids.tolist(), tokenizer=None, attention=attention, batch_size=1, min_queries=8, device=None,
            trust_remote_code=False, progress=False,
        )  # fmt: skip
        batch = next(iter(run.inputs.batches(1)))[1]
        runs[name] = lambda run=run, batch=batch: run.stream(batch, Forgetting())
    with torch.no_grad():
        for run in runs.values():
            run()
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                seconds[name].append(_timed(run))
        memory = {}
        for name, run in runs.items():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            run()
            memory[name] = (torch.cuda.max_memory_allocated() - before) / 1e9
    base = statistics.median(seconds["plain pass (sdpa)"])
    rows = [
        (name, 1e3 * statistics.median(t), statistics.median(t) / base, memory[name]) for name, t in seconds.items()
    ]
    print(f"\n{BLOCKS} blocks of an 8B model, {tokens} tokens, bfloat16, {torch.cuda.get_device_name()}\n")
    print(table(("pass", "ms", "ratio", "GB beyond the model"), rows))
    for name, run in runs.items():
        waits(name, run)
    if profiled:
        for name, run in runs.items():
            profile(name, run)


def waits(name, run) -> None:
    """Places at which the host waits for the GPU during a pass."""
    torch.cuda.synchronize()
    with torch.no_grad(), warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    places = Counter(
        f"{'/'.join(Path(w.filename).parts[-2:])}:{w.lineno}" for w in seen if "synchron" in str(w.message)
    )
    print(f"{name}: the host waits {sum(places.values())} times", dict(places), flush=True)


def profile(name, run) -> None:
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as watching

    with torch.no_grad(), watching(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
        _timed(run)
    on_gpu = lambda events: [e for e in events if e.device_type == torch.autograd.DeviceType.CUDA]  # noqa: E731
    kernels = sorted(on_gpu(seen.key_averages()), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in kernels) / 1e3
    print(f"\n{name}: {sum(e.count for e in kernels)} kernels, {total:.1f} ms in all")
    print(
        table(("kernel", "calls", "ms"), [(e.key[:80], e.count, e.self_device_time_total / 1e3) for e in kernels[:24]])
    )
    in_order = sorted(on_gpu(seen.events()), key=lambda e: e.time_range.start)
    gaps = [
        ((after.time_range.start - before.time_range.end) / 1e3, i, after.name)
        for i, (before, after) in enumerate(zip(in_order, in_order[1:]))  # noqa: B905, RUF007
    ]
    idle = sum(gap for gap, *_ in gaps if gap > 0)
    longest = ", ".join(f"{gap:.2f} before kernel {i} ({after[:40]})" for gap, i, after in sorted(gaps)[:-7:-1])
    print(f"idle between kernels {idle:.1f} ms; the longest: {longest}", flush=True)


def tiles(tokens: int) -> None:
    """The kernels of sums alone, by events of the GPU, in other shapes than the library's; medians of 9."""
    q, k = (torch.randn(1, heads, tokens, 128, device=DEVICE, dtype=torch.bfloat16) for heads in (32, 8))
    z = torch.full((1, 32, tokens), 20.0, device=DEVICE)
    from krause_dynamics.forms.attention.triton import sums as kernels

    of_library, rows = kernels.options, []
    shapes = (
        {}, {"maxnreg": 255}, {"maxnreg": 128, "num_stages": 2}, {"TILE": 128, "num_warps": 8, "maxnreg": 255},
        {"num_stages": 2},
    )  # fmt: skip
    for shape in shapes:
        kernels.options = lambda q, shape=shape: of_library(q) | shape
        try:
            for _ in range(2):
                kernels.sums(q, k, z, 0.09, -1, 0, 4)
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as seen:
                for _ in range(9):
                    kernels.sums(q, k, z, 0.09, -1, 0, 4)
                torch.cuda.synchronize()
            ms = {e.key: e.self_device_time_total / 9e3 for e in seen.key_averages()}
            rows.append((str(shape or "as they are"), ms.get("by_query", 0.0), ms.get("by_key", 0.0)))
        except Exception as error:  # a shape that does not compile or fit is an answer, too
            rows.append((str(shape), type(error).__name__, str(error)[:60]))
        print(rows[-1], flush=True)
    kernels.options = of_library
    print(table(("shape", "by_query, ms", "by_key, ms"), rows))


def million(tokens: int = 1 << 20, window: int = 256) -> None:
    """One layer whose map would have 1.1e12 entries a head."""
    q, k, v = (torch.randn(1, heads, tokens, 128, device=DEVICE, dtype=torch.bfloat16) for heads in (8, 2, 2))
    call = AttentionCall.of_window(window - 1, tokens, DEVICE)
    run = lambda: attend(q, k, v, None, read=lambda *_: call)  # noqa: E731
    run()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = _timed(run)
    peak = (torch.cuda.max_memory_allocated() - before) / 1e9
    _, found = run()
    total = float(found.importance.double().mul(call.visible_queries).sum() / tokens / 8)
    print(f"\none layer, 8 heads, {tokens} tokens, window {window}: {1e3 * seconds:.0f} ms, {peak:.1f} GB; ", end="")
    print(f"weights of a row sum to {total:.6f}")


def main() -> None:
    if not torch.cuda.is_available():
        print("benchmarks/checkpoints_gpu.py left out: no CUDA device")
        return
    words = argparse.ArgumentParser()
    words.add_argument("tokens", nargs="?", type=int, default=8192)
    words.add_argument("--profile", action="store_true")
    words.add_argument("--tiles", action="store_true")
    asked = words.parse_args()
    if asked.tiles:
        tiles(asked.tokens)
        return
    check()
    ratios(asked.tokens, asked.profile)
    million()


if __name__ == "__main__":
    main()
