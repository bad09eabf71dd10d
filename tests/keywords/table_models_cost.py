"""Cost: each keyword and each number."""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from krause_dynamics.models import Cost, cost
from tests.keywords.row import row

X = torch.zeros(5, 7)


@row("kd.models.cost", "model", 3, 11, "a linear layer costs rows x columns a token")
@row("kd.models.cost", "inputs", 2, 5, "and as often as there are tokens; a tensor is its first keyword")
def linear(first, second):
    for width in (first, second):
        for tokens in (first, second):
            model, x = nn.Linear(7, width), torch.zeros(tokens, 7)
            assert cost(model, x, repeats=1).executed == tokens * 7 * width
            assert cost(model, {"input": x}, repeats=1).executed == tokens * 7 * width


@row("kd.models.cost", "repeats", 1, 4, "so many passes of each kind, one more that warms up, and two that count")
@row("kd.models.cost", "progress", False, True, "a function hears of each of them, the last as all; True draws")
def passes(first, second):
    for repeats in (1, 4):
        calls, seen = [], []
        model = nn.Linear(7, 3)
        model.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        cost(model, X, repeats=repeats, progress=lambda done, total, seen=seen: seen.append((done, total)))
        assert len(calls) == 2 * (repeats + 1) + 2 == seen[-1][0] == seen[-1][1]
    assert cost(nn.Linear(7, 3), X, repeats=1, progress=True).executed == 105


FIELDS = {
    "executed": "products of the pass",
    "useful": "the same without pairs that do not matter",
    "interaction": "products between tokens, which a linear layer has none of",
    "parameters": "weights",
    "trained": "weights with gradients",
    "activation_bytes": "what gradients need: the input",
    "forward_seconds": "positive, a float",
    "step_seconds": "positive, a float",
}


def field(name, expected):
    def check(first, second):
        model = nn.Linear(7, 3)
        model.bias.requires_grad_(False)
        found = getattr(cost(model, X, repeats=1), name)
        assert found == expected if expected is not None else found > 0
        whole = Cost(*range(8))
        assert getattr(dataclasses.replace(whole, **{name: second}), name) == second

    return check


EXPECTED = {"executed": 105, "useful": 105, "interaction": 0, "parameters": 24, "trained": 21, "activation_bytes": 140,
            "forward_seconds": None, "step_seconds": None}  # fmt: skip
for name, words in FIELDS.items():
    row("kd.models.Cost", name, 1, 9, f"{name}: {words}")(field(name, EXPECTED[name]))
