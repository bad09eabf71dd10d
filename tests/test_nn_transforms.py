"""Layers under torch.export and torch.func: the fast operators stay, and what they compute is the loop's."""

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

import krause_dynamics as kd
from krause_dynamics.aggregate import calls
from krause_dynamics.forms.attention import kernel_operators
from krause_dynamics.nn import KrauseAttention

RULES = {
    "window and rank": kd.Window(5) & kd.TopK(3),
    "picture": kd.Grid(3, 4, prefix=1) & kd.TopK(3, exempt=1),
    "random": kd.RandomKeys(4, tokens=13),
}


def seeds(rule, **options):
    layers = []
    for seed in range(3):
        torch.manual_seed(seed)
        layers.append(KrauseAttention(8, 2, RULES[rule], **options).double())
    params = {name: x.detach() for name, x in stack_module_state(layers)[0].items()}
    return layers, params, torch.randn(2, 13, 8, dtype=torch.float64)


@pytest.fixture
def used(monkeypatch):
    """Calls that the fast form took."""
    seen, attend = [], calls.ATTEND["banded"]
    monkeypatch.setitem(calls.ATTEND, "banded", lambda call: (seen.append(call), attend(call))[1])
    return seen


@pytest.mark.parametrize("options", [{}, {"sink": True}, {"score": "dot", "norm": 0.2}])
@pytest.mark.parametrize("rule", RULES)
def test_seeds_side_by_side_are_a_loop_over_seeds(rule, options, used):
    layers, params, x = seeds(rule, **options)
    valid = torch.ones(2, 13, dtype=torch.bool)
    valid[0, -2:] = False

    def loss(p, x):
        return functional_call(layers[0], p, (x,), {"key_valid": valid}).sin().sum()

    slopes = vmap(grad(loss), in_dims=(0, None))(params, x)
    leaves = {name: p.clone().requires_grad_() for name, p in params.items()}
    vmap(loss, in_dims=(0, None))(leaves, x).sum().backward()
    assert len(used) == 2  # one pass each for three seeds
    for i, layer in enumerate(layers):
        layer(x, key_valid=valid).sin().sum().backward()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(slopes[name][i], p.grad, rtol=1e-10, atol=1e-11)
            torch.testing.assert_close(leaves[name].grad[i], p.grad, rtol=1e-10, atol=1e-11)


def test_one_token_and_two_mapped_axes():
    layers, params, x = seeds("window and rank")
    x = torch.randn(4, 3, 2, 1, 8, dtype=torch.float64)
    mapped = vmap(vmap(lambda p, x: functional_call(layers[0], p, (x,))), in_dims=(None, 0))(params, x)
    for i, layer in enumerate(layers):
        for j in range(4):
            torch.testing.assert_close(mapped[j, i], layer(x[j, i]), rtol=1e-12, atol=1e-12)


def test_what_operators_do_not_know_runs_on_the_reference(used):
    layers, params, x = seeds("window and rank")

    def loss(log_sigma, x):
        rest = {name: p[0] for name, p in params.items()} | {"log_sigma.weight": log_sigma}
        return functional_call(layers[0], rest, (x,)).sin().sum()

    at = params["log_sigma.weight"][0]
    second = torch.func.hessian(loss)(at, x)
    assert not used
    step = 1e-4
    slope = lambda s: torch.func.grad(loss)(s, x)  # noqa: E731
    expected = (slope(at + step) - slope(at - step)) / (2 * step)
    torch.testing.assert_close(second[0], expected, rtol=1e-5, atol=1e-6)  # error step^2 times the third derivative


def test_mapped_kernels_fold_their_batch():
    """The rule of the kernels' operators, by the one operator of theirs that runs everywhere: shapes alone."""
    x = torch.empty(3, 2, 2, 5, 4, device="meta")
    assert vmap(kernel_operators.squared_norms)(x).shape == (3, 2, 2, 5)


@pytest.mark.parametrize(("rule", "strict"), [*((rule, False) for rule in RULES), ("picture", True)])
def test_a_layer_is_exported_with_any_batch(rule, strict):
    torch.manual_seed(0)
    layer = KrauseAttention(8, 2, RULES[rule], score="dot", norm=0.1, sink=True)
    batch = ({0: torch.export.Dim("batch")},)
    program = torch.export.export(layer, (torch.randn(3, 13, 8),), dynamic_shapes=batch, strict=strict)
    x = torch.randn(5, 13, 8)
    torch.testing.assert_close(program.module()(x), layer(x))
