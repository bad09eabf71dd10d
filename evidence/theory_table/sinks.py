"""Section 10: sinks are necessary for rows that are normalised; three attentions learn the same task."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from evidence.theory_table._row import Comparison, check, compare
from krause_dynamics import theory

CONTENT, TOKENS, STEPS = 6, 12, 600
KINDS = ("softmax", "Krause", "ReLU")


def batch(generator: Any, size: int) -> tuple[Any, Any]:
    """Contexts (size, 1 + TOKENS, 3 + CONTENT) and targets: a trigger asks for the mean of the contents, others for 0.

    Columns: is it the first token, is it a trigger, is it another, contents. The first token is empty.
    """
    import torch

    content = torch.randn(size, TOKENS, CONTENT, generator=generator)
    trigger = torch.rand(size, TOKENS, generator=generator) < 0.3
    x = torch.zeros(size, 1 + TOKENS, 3 + CONTENT)
    x[:, 0, 0] = 1.0
    x[:, 1:, 1], x[:, 1:, 2], x[:, 1:, 3:] = trigger.float(), (~trigger).float(), content
    counts = torch.arange(1, TOKENS + 1)[:, None]
    means = content.cumsum(1) / counts
    return x, torch.where(trigger[..., None], means, torch.zeros_like(means))


@lru_cache(maxsize=4)
def trained(kind: str) -> tuple[list[float], list[float], float]:
    """Squared output and weight on the first token by row, where nothing is asked for; mean squared error of all."""
    import torch

    import krause_dynamics as kd

    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    d = 3 + CONTENT
    query, key, value = (torch.nn.Parameter(0.3 * torch.randn(d, m)) for m in (8, 8, CONTENT))
    optimiser = torch.optim.Adam([query, key, value], lr=0.02)
    rules = {"softmax": kd.softmax(1.0, kd.Causal()), "Krause": kd.krause(1.0, kd.Causal())}

    def weights(x: Any) -> Any:
        q, k = x @ query, x @ key
        if kind != "ReLU":
            return kd.weights(rules[kind], q, k)
        places = torch.arange(1, x.shape[1] + 1)
        return torch.relu(q @ k.mT).tril() / places[:, None]

    for step in range(STEPS):
        for group in optimiser.param_groups:
            group["lr"] = 0.02 * (1.0 - step / STEPS)
        x, target = batch(generator, 64)
        loss = ((weights(x)[:, 1:] @ (x @ value) - target) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        x, target = batch(torch.Generator().manual_seed(2), 4000)
        a = weights(x)[:, 1:]
        out = a @ (x @ value)
        idle = x[:, 1:, 2]
        squared = ((out**2).mean(-1) * idle).sum(0) / idle.sum(0)
        sink = (a[..., 0] * idle).sum(0) / idle.sum(0)
        return squared.tolist(), sink.tolist(), float(((out - target) ** 2).mean())


@check(
    10,
    source="2603.11487; bound derived",
    setting="one layer, 12 tokens, 600 steps, seed 0; weight off the first token by row against sqrt(n error)",
    tolerance=1e-3,  # the squared output is a mean over 4000 contexts
    kind="at most",
    slow=True,
)
def sinks_are_necessary() -> Comparison:
    """Sinks are necessary: softmax and Krause attention that stay silent without a trigger rest on the first token."""
    allowed, off = [], []
    words = []
    for kind in KINDS[:2]:
        squared, sink, loss = trained(kind)
        allowed += [1.0 - float(theory.sink_mass_bound(error=e, tokens=n)) for n, e in enumerate(squared, start=1)]
        off += [1.0 - s for s in sink]
        words.append(f"{kind}: sink {sum(sink) / len(sink):.2f}, error {loss:.4f}")
    return compare(allowed, off, "; ".join(words))


@check(
    10,
    source="2603.11487",
    setting="the same layer and data; mean weight on the first token, error against that of softmax",
    tolerance=0.02,
    slow=True,
)
def relu_needs_no_sink() -> Comparison:
    """ReLU attention solves the same task without a sink."""
    _, sink, loss = trained("ReLU")
    _, _, softmax_loss = trained("softmax")
    return compare([0.0, 0.0], [sum(sink) / len(sink), max(0.0, loss - softmax_loss)], f"error {loss:.4f}")
