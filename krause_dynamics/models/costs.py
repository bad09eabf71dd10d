"""What a pass of a model costs: multiply-adds executed and useful, weights, memory, time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from krause_dynamics._arguments import COUNT, Is, reads
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.forms.attention import tiles
from krause_dynamics.interaction.reach import Reach
from krause_dynamics.nn import KrauseAttention
from krause_dynamics.nn.arguments import call_of

PAIRS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Cost:
    """The cost of one pass over one batch.

    Attributes:
        executed: Multiply-adds of all matrix products, convolutions and attention operators of a forward pass, as
            torch's `FlopCounterMode` counts them (it counts two operations a multiply-add). An operator of attention
            counts the pairs that its index rules admit to an ordinary row.
        useful: The same with the pairs that matter alone: a score for each admitted, a value for each selected one.
        interaction: The part of `executed` between pairs of tokens.
        parameters: Number of weights.
        trained: Number of weights that gradients change.
        activation_bytes: Memory that a forward pass keeps for its gradients, weights aside.
        forward_seconds: Median time of a forward pass without gradients.
        step_seconds: Median time of a forward and a backward pass.
    """

    executed: int
    useful: int
    interaction: int
    parameters: int
    trained: int
    activation_bytes: int
    forward_seconds: float
    step_seconds: float


@reads(model=Is(nn.Module, "a model of transformers"))
@reads(repeats=COUNT)
def cost(
    model: nn.Module,
    inputs: Tensor | Mapping[str, Any],
    *,
    repeats: int = 5,
    progress: bool | Progress = False,
) -> Cost:
    """Count and measure a pass of a model, whose weights, gradients and random numbers stay as they are.

    Args:
        model: Any module; pairs of tokens are told apart in layers of `KrauseAttention` only.
        inputs: What it is called with: a tensor, or keywords.
        repeats: Passes of which the median time is taken, after one that warms up.
        progress: ``True`` draws a bar; or a function ``progress(done, total)``.

    Returns:
        The cost; times are those of this machine, mode and device.

    Raises:
        ValueError: ``repeats`` below 1.

    Examples:
        >>> from krause_dynamics.models import KrauseViT, published
        >>> model = KrauseViT(published("kvit-tiny-cifar10", num_hidden_layers=1))
        >>> cost(model, torch.zeros(1, 3, 32, 32), repeats=1).executed
        29518080
    """
    keywords = dict(inputs) if isinstance(inputs, Mapping) else None
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}

    def run() -> Any:
        return model(inputs) if keywords is None else model(**keywords)

    def step() -> None:
        weights = [p for p in model.parameters() if p.requires_grad]
        torch.autograd.grad(_total(run()), weights, allow_unused=True)

    total = 2 * (repeats + 1) + 2
    with torch.random.fork_rng(devices=sorted(device.index or 0 for device in devices)), drawn(progress, "cost") as bar:
        bar(0, total)
        executed, interaction, useful = _multiply_adds(model, run)
        bar(1, total)
        kept = _kept(model, run)
        bar(2, total)
        with torch.no_grad():
            forward = _timed(run, repeats, lambda done: bar(2 + done, total))
        backward = _timed(step, repeats, lambda done: bar(3 + repeats + done, total))
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return Cost(
        executed, useful, interaction, sum(n for n, _ in sizes), sum(n for n, learns in sizes if learns), kept,
        forward, backward,
    )  # fmt: skip


def _total(output: Any) -> Tensor:
    """One number of all floating outputs."""
    values = output.to_tuple() if hasattr(output, "to_tuple") else output
    parts = values if isinstance(values, tuple | list) else [values]
    return torch.stack([x.float().sum() for x in parts if isinstance(x, Tensor) and x.requires_grad]).sum()


@torch.no_grad()
def _multiply_adds(model: nn.Module, run: Any) -> tuple[int, int, int]:
    """Executed, between pairs, and useful multiply-adds of a pass."""
    heard: list[tuple[KrauseAttention, int, int]] = []
    layers = [module for module in model.modules() if isinstance(module, KrauseAttention)]

    def note(layer: Any, args: Any, keywords: Any) -> None:
        heard.append((layer, *(args[0] if args else keywords["x"]).shape[:2]))

    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in layers]
    try:
        with FlopCounterMode(display=False) as counter:
            run()
    finally:
        for hook in hooks:
            hook.remove()
    executed = counter.get_total_flops() // 2
    counted = counter.get_flop_counts()
    root = type(model).__name__
    interaction = useful = 0
    for name, module in model.named_modules():
        if isinstance(module, KrauseAttention):
            whole = sum(counted[f"{root}.{name}" if name else root].values()) // 2
            products = [module.q_proj, module.k_proj, module.v_proj, module.out_proj]
            tokens = sum(batch * n for layer, batch, n in heard if layer is module)
            interaction += whole - tokens * sum(x.in_features * x.out_features for x in products)
    pairs: dict[tuple[Reach, int], tuple[int, int]] = {}
    for layer, batch, n in heard:
        key = layer._reach, n
        if key not in pairs:
            pairs[key] = pairs_of(*key)
        scored, selected = pairs[key]
        useful += batch * layer.heads * layer.head_dim * (scored + selected)
    return executed, interaction, executed - interaction + useful


def pairs_of(reach: Reach, n: int) -> tuple[int, int]:
    """How many of n x n pairs index rules admit, and how many of those a rank leaves."""
    x = torch.zeros(1, 1, n, 1)
    call = call_of(x, x, x, reach)
    first, last = tiles.bounds(call)
    scored = selected = 0
    for block in tiles.blocks(call, PAIRS_AT_ONCE):
        count = tiles.admitted(block, call, first, last).sum(-1)
        inside = block.rows < n
        scored += int(count[inside].sum())
        if reach.top_k:
            ranked = count.clamp_max(reach.top_k)
            exempt = block.rows < getattr(reach, "exempt", 0)
            count = torch.where(exempt, count, ranked)
        selected += int(count[inside].sum())
    return scored, selected


def _kept(model: nn.Module, run: Any) -> int:
    """Bytes of the distinct tensors that a pass saves for its gradients, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no address is used twice

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(x)
        return x

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = run()
    del output
    return sum(found.values())


def _timed(run: Any, repeats: int, done: Any) -> float:
    """Median seconds of a call, after one that warms up."""
    times = []
    for i in range(repeats + 1):
        _wait()
        start = time.perf_counter()
        run()
        _wait()
        times.append(time.perf_counter() - start)
        done(i + 1)
    return median(times[1:])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
