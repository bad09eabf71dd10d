"""KrauseAttention: sizes, bandwidth, score and projections, against the layer written out with numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.nn import KrauseAttention
from tests.keywords.heads import attention, draw, same, turned
from tests.keywords.row import row

CLOSE = {"rtol": 2e-6, "atol": 1e-6}  # log sigma is learned, and so kept, in float32
X = draw(2, 6, 8, seed=1)


def layer(dim=8, heads=2, seed=3, **options):
    """A layer in float64 whose projections are far from those of its start."""
    module = KrauseAttention(dim, heads, **options).double()
    with torch.no_grad():
        for i, weight in enumerate(p for name, p in module.named_parameters() if name != "log_sigma.weight"):
            weight.copy_(draw(*weight.shape, seed=seed + i) / dim**0.5)
    return module


def written(module, x, heads=2, factor=1.0, base=None, **rule):
    """Output of the layer from its projections: split into heads, attend, join, project."""
    bias = lambda linear: 0.0 if linear.bias is None else linear.bias.detach().numpy()  # noqa: E731
    apply = lambda linear, x: np.asarray(x) @ linear.weight.detach().numpy().T + bias(linear)  # noqa: E731
    batch, n, dim = x.shape
    split = lambda x: x.reshape(batch, n, -1, dim // heads).swapaxes(1, 2)  # noqa: E731
    q, k, v = (split(apply(linear, x)) for linear in (module.q_proj, module.k_proj, module.v_proj))
    if base is not None:
        q, k = (turned(x, np.arange(n), base) for x in (q, k))
    out = attention(factor * q, factor * k, v, **rule)[0]
    return apply(module.out_proj, out.swapaxes(1, 2).reshape(batch, n, dim))


@row(
    "kd.nn.KrauseAttention",
    "dim",
    8,
    12,
    "width of the tokens: the layer written out, of bandwidth (dim / heads)^(1/4)",
)
def dim(first, second):
    for width in (first, second):
        x, module = draw(2, 6, width, seed=1), layer(width)
        same(module(x), written(module, x), **CLOSE)
        with pytest.raises(ValueError, match=f"{width}"):
            module(x[..., :-1])


@row("kd.nn.KrauseAttention", "heads", 2, 4, "each head attends on its own share of the width, as written out")
def heads(first, second):
    for count in (first, second):
        module = layer(heads=count)
        same(module(X), written(module, X, count), **CLOSE)
    with pytest.raises(ValueError, match="divide"):
        layer(heads=3)


@row(
    "kd.nn.KrauseAttention",
    "sigma",
    None,
    0.7,
    "scores -r^2 / (2 sigma^2), by default head_dim^(1/4); dot products alike",
)
def sigma(first, second):
    for given, value in ((first, 4**0.25), (second, second)):
        module = layer(sigma=given)
        same(module.sigma, [value], **CLOSE)
        same(module(X), written(module, X, a=value**-2), **CLOSE)
    module = layer(sigma=second, score="dot")
    same(module(X), written(module, X, a=second**-2, score="dot"), **CLOSE)


@row("kd.nn.KrauseAttention", "learn_sigma", True, False, "gradient of log sigma: the central difference; or none")
def learn_sigma(first, second):
    module = layer(sigma=0.7, learn_sigma=first)
    module(X).square().sum().backward()
    ends = [(written(module, X, a=(0.7 * np.exp(h)) ** -2) ** 2).sum() for h in (-1e-4, 1e-4)]
    same(module.log_sigma.weight.grad, [(ends[1] - ends[0]) / 2e-4], rtol=1e-5)
    fixed = layer(sigma=0.7, learn_sigma=second)
    fixed(X).square().sum().backward()
    torch.optim.SGD(fixed.parameters(), lr=0.1).step()
    assert fixed.log_sigma.weight.grad is None
    same(fixed.sigma, [0.7], **CLOSE)


@row(
    "kd.nn.KrauseAttention", "sigma_per_head", False, True, "one bandwidth for all heads, or one for each, written out"
)
def sigma_per_head(first, second):
    for each, values in ((first, np.array([0.6])), (second, np.array([0.6, 2.0]))):
        module = layer(sigma_per_head=each)
        assert module.sigma.shape == values.shape
        with torch.no_grad():
            module.log_sigma.weight.copy_(torch.as_tensor(values).log())
        same(module(X), written(module, X, a=values**-2), **CLOSE)


@row("kd.nn.KrauseAttention", "bias", True, False, "tokens 0 give W_o b_v + b_o, or 0 without biases")
def bias(first, second):
    module, nothing = layer(bias=first), torch.zeros(1, 3, 8, dtype=torch.float64)
    same(module(nothing), (module.out_proj.weight @ module.v_proj.bias + module.out_proj.bias).expand(1, 3, 8))
    same(module(X), written(module, X), **CLOSE)
    module = layer(bias=second)
    same(module(nothing), nothing)
    same(module(X), written(module, X), **CLOSE)


@row("kd.nn.KrauseAttention", "kv_heads", None, 2, "consecutive heads share keys and values: the projections repeated")
def kv_heads(first, second):
    module, whole = layer(heads=4, kv_heads=second), layer(heads=4, kv_heads=first)
    same(module(X), written(module, X, 4), **CLOSE)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name.startswith(("k_", "v_")):  # each head of width 2 twice
                parameter = parameter.unflatten(0, (-1, 2)).repeat_interleave(2, 0).flatten(0, 1)
            whole.get_parameter(name).copy_(parameter)
    same(whole(X), module(X))
    with pytest.raises(ValueError, match="kv_heads"):
        layer(heads=4, kv_heads=3)


@row("kd.nn.KrauseAttention", "rotary", None, 100.0, "places turn queries and keys; without it tokens permute freely")
def rotary(first, second):
    turn, module = torch.tensor([3, 1, 0, 5, 4, 2]), layer(rotary=first)
    same(module(X[:, turn]), module(X)[:, turn])
    module = layer(rotary=second)
    expected = written(module, X, base=second)
    same(module(X), expected, rtol=1e-5, atol=1e-5)  # frequencies are float32
    same(module(X, positions=torch.arange(6) + 30), expected, rtol=1e-4, atol=1e-4)


@row(
    "kd.nn.KrauseAttention",
    "score",
    "gaussian",
    "dot",
    "distances or products written out; products as torch's attention",
)
def score(first, second):
    for word in (first, second):
        module = layer(score=word)
        same(module(X), written(module, X, score=word), **CLOSE)
    module, theirs = layer(score=second), torch.nn.MultiheadAttention(8, 2, batch_first=True).double()
    with torch.no_grad():
        for part in ("weight", "bias"):
            joined = torch.cat([getattr(p, part) for p in (module.q_proj, module.k_proj, module.v_proj)])
            getattr(theirs, f"in_proj_{part}").copy_(joined)
        theirs.out_proj.load_state_dict(module.out_proj.state_dict())
    same(module(X), theirs(X, X, X)[0], **CLOSE)
    with pytest.raises(ValueError, match="score"):
        layer(score="cosine")


@row("kd.nn.KrauseAttention", "project_scale", 1.0, 0.5, "factor of queries and keys: the same as sigma / factor")
def project_scale(first, second):
    for factor in (first, second):
        module = layer(project_scale=factor, sigma=0.7)
        same(module(X), written(module, X, a=0.7**-2, factor=factor), **CLOSE)
        same(module(X), layer(sigma=0.7 / factor)(X), **CLOSE)
    with pytest.raises(ValueError, match="project_scale"):
        layer(project_scale=0.0)


@row("kd.nn.KrauseAttention", "dropout", 0.0, 0.4, "in training a weight is 0 or divided by 1 - p; never in evaluation")
def dropout(first, second):
    identity = torch.eye(4, dtype=torch.float64)
    modules = [layer(4, 1, bias=False, dropout=p) for p in (first, second)]
    for module in modules:
        with torch.no_grad():  # of values and outputs: then what comes out is the weights
            module.v_proj.weight.copy_(identity)
            module.out_proj.weight.copy_(identity)
    x = identity.expand(300, 4, 4)
    weights = written(modules[0], x, 1)
    same(modules[0].train()(x), weights, **CLOSE)
    same(modules[1].eval()(x), weights, **CLOSE)
    torch.manual_seed(0)
    found = modules[1].train()(x).detach().numpy()
    kept = found != 0.0
    same(found[kept], weights[kept] / (1.0 - second), **CLOSE)
    # Independent draws: five standard errors of their share.
    assert abs(kept.mean() - (1.0 - second)) < 5 * np.sqrt(second * (1.0 - second) / kept.size)


@row(
    "kd.nn.KrauseAttention",
    "impl",
    "reference",
    "banded",
    "each form gives the layer written out; a name never falls back",
)
def impl(first, second):
    for name in (first, second):
        module = layer(impl=name, top_k=3)
        same(module(X), written(module, X, top_k=3), **CLOSE)
    with pytest.raises(kd.UnsupportedImplementation, match="dropout"):
        layer(impl=first, dropout=0.5)(X)
    with pytest.raises(kd.UnsupportedImplementation, match="CUDA"):
        layer(impl="triton")(X)
    with pytest.raises(kd.UnsupportedImplementation, match="dense"):
        layer(impl="dense")
