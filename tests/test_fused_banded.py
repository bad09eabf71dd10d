"""Banded attention on all engines against the dense definition: outputs, log-partitions, selected sets, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import krause_dynamics as kd
from krause_dynamics.forms.attention import banded, banded_operators, tiles
from krause_dynamics.forms.attention import by_tiles as tiles_engine
from krause_dynamics.forms.attention import engine as both
from krause_dynamics.forms.attention.call import Call
from krause_dynamics.forms.attention.cpu import by_blocks, by_rows
from krause_dynamics.forms.attention.cpu.chunks import NotFinite
from krause_dynamics.interaction import Request, reference
from krause_dynamics.interaction.reach import Reach

NEVER = -float("inf")

NEIGHBOURHOODS = {
    "window": kd.Window(9),
    "window top-k": kd.Window(9) & kd.TopK(4),
    "centred, ties kept": kd.Window(9, two_sided=True) & kd.TopK(4, ties="keep"),
    "window beyond the row": kd.Window(500) & kd.TopK(600),
    "causal top-k": kd.Causal() & kd.TopK(6),
    "everyone": kd.Everyone(),
    "squares": kd.Grid(7, 7, 2, prefix=1) & kd.TopK(5),
    "diamonds": kd.Grid(6, 8, 1, metric="manhattan", prefix=2),
    "one row of cells": kd.Grid(1, 49, 3, prefix=1) & kd.TopK(3),
}


def points(*shape, dtype=torch.float64, seed=0, grad=True):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, dtype=torch.float64, generator=generator).to(dtype)
    return x.requires_grad_(grad)


def call_of(q, k, v, neighbourhood, parameter, score="gaussian", **rest):
    """parameter: sigma or beta, (heads,)."""
    gaussian = score == "gaussian"
    a = parameter**-2 if gaussian else parameter
    reach = neighbourhood.reach
    assert isinstance(reach, Reach), reach
    return Call(q, k, v, a[None], gaussian, reach, **rest)


def by_reference(q, k, v, neighbourhood, parameter, score="gaussian", mass=None, pair=None, offset=0):
    """The definition; also for queries that stand at ``offset`` among the keys."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    score = kd.Gaussian(parameter[:, None]) if score == "gaussian" else kd.DotProduct(parameter[:, None])
    indices = {}
    if offset:
        indices = {
            "query_index": torch.arange(q.shape[2]) + offset,
            "source_index": torch.arange(k.shape[2]),
        }
    mass = None if mass is None else mass.expand(*k.shape[:3])
    request = Request.of(q, k, v, log_mass=mass, **indices)
    return reference.aggregate(kd.Interaction(score, neighbourhood, pair_bias=pair), request)


class ByTiles(torch.autograd.Function):
    """The engine of other devices, run on the CPU."""

    @staticmethod
    def forward(ctx, q, k, v, scale, mass, pair, call):
        if pair is not None:
            pair = pair.expand(*q.shape[:3], k.shape[2])
        mass = None if mass is None else mass.expand(q.shape[0], -1, -1)
        ctx.shapes = scale.shape, None if call.log_mass is None else call.log_mass.shape, call.pair_bias
        ctx.call = Call(q, k, v, scale.expand(q.shape[:2]), *call[4:6], mass, pair, *call[8:])
        return tiles_engine.forward(ctx.call)

    @staticmethod
    def backward(ctx, grad_out, grad_log):
        g = tiles_engine.backward(ctx.call, grad_out, grad_log)
        scale, mass, pair = ctx.shapes
        return (
            g.q, g.k, g.v, g.scale.sum_to_size(scale),
            None if mass is None else g.log_mass.sum_to_size(mass),
            None if pair is None else g.pair_bias.sum_to_size(pair.shape), None,
        )  # fmt: skip


def by_tiles(call):
    return ByTiles.apply(*call.tensors, call)


@pytest.fixture(params=["rows", "blocks", "tiles"])
def engine(request, monkeypatch):
    """Banded attention on one engine: blocks take what they can, at any length."""
    if request.param == "tiles":
        return by_tiles

    def can(call):
        return request.param == "blocks" and not call.reach.grid

    monkeypatch.setattr(by_blocks, "pays", can)
    return banded_operators.banded


def gradients(outcome, leaves, seed=9):
    """Of a random functional of output and log-partition, empty rows left out of the latter."""
    out, log_partition = outcome
    weights = points(*out.shape, seed=seed, grad=False), points(*log_partition.shape, seed=seed + 1, grad=False)
    finite = torch.where(log_partition > NEVER, log_partition, 0.0)
    return torch.autograd.grad((out * weights[0]).sum() + (finite * weights[1]).sum(), leaves)


def agree(mine, theirs, leaves, tolerance=1e-11):
    """Outputs, log-partitions and gradients; 1e-11 leaves room for a few hundred roundings of float64."""
    assert torch.equal(mine[1] == NEVER, theirs[1] == NEVER)
    torch.testing.assert_close(mine[0], theirs[0], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(mine[1], theirs[1], rtol=tolerance, atol=tolerance)
    for a, b in zip(gradients(mine, leaves), gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=100 * tolerance)


@pytest.mark.parametrize("score", ["gaussian", "dot"])
@pytest.mark.parametrize("name", list(NEIGHBOURHOODS))
def test_equals_the_definition_with_all_gradients(name, score, engine):
    q, k, v = points(2, 2, 50, 8, seed=1), points(2, 2, 50, 8, seed=2), points(2, 2, 50, 5, seed=3)
    parameter = torch.tensor([1.3, 0.8], dtype=torch.float64, requires_grad=True)
    mine = engine(call_of(q, k, v, NEIGHBOURHOODS[name], parameter, score))
    theirs = by_reference(q, k, v, NEIGHBOURHOODS[name], parameter, score)
    agree(mine, theirs, [q, k, v, parameter])


@pytest.mark.parametrize("shape", [(2, 1, 50), (1, 4, 50)])
def test_masses_weigh_but_do_not_rank_and_biases_rank(shape, engine):
    q, k, v = points(2, 4, 50, 8, seed=1), points(2, 2, 50, 8, seed=2), points(2, 2, 50, 5, seed=3)
    mass = points(*shape, seed=4, grad=False)
    mass[..., [3, 4, 5, 30]] = NEVER
    mass.requires_grad_()
    pair = points(4, 50, 50, seed=5)
    parameter = torch.tensor([1.3, 0.8, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    rule = kd.Window(7) & kd.TopK(3)
    mine = engine(call_of(q, k, v, rule, parameter, log_mass=mass, pair_bias=pair[None]))
    agree(mine, by_reference(q, k, v, rule, parameter, mass=mass, pair=pair), [q, k, v, parameter, mass, pair])


@pytest.mark.parametrize(("n", "m", "offset"), [(1, 30, 29), (7, 30, 23), (5, 40, 3)])
def test_queries_inside_a_longer_row_of_keys(n, m, offset, engine):
    q, k, v = points(1, 2, n, 8, seed=1), points(1, 2, m, 8, seed=2), points(1, 2, m, 8, seed=3)
    parameter = torch.ones(2, dtype=torch.float64, requires_grad=True)
    rule = kd.Window(9) & kd.TopK(4)
    mine = engine(call_of(q, k, v, rule, parameter, offset=offset))
    agree(mine, by_reference(q, k, v, rule, parameter, offset=offset), [q, k, v, parameter])


@pytest.mark.parametrize("n", [1, 63, 129, 1000])
def test_odd_lengths(n, engine):
    q, k, v = (points(1, 1, n, 4, seed=s) for s in range(3))
    parameter = torch.ones(1, dtype=torch.float64, requires_grad=True)
    rule = kd.Window(32) & kd.TopK(7)
    agree(engine(call_of(q, k, v, rule, parameter)), by_reference(q, k, v, rule, parameter), [q, k, v, parameter])


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradcheck(engine, dropout):
    q, k, v = points(1, 2, 6, 3, seed=1), points(1, 1, 6, 3, seed=2), points(1, 1, 6, 2, seed=3)
    scale = torch.tensor([[0.7, 1.2]], dtype=torch.float64, requires_grad=True)
    mass, pair = points(1, 1, 6, seed=4), points(1, 1, 6, 6, seed=5)

    def run(q, k, v, scale, mass, pair):
        torch.manual_seed(3)  # of what is dropped, where no seed is given
        return engine(Call(q, k, v, scale, True, Reach(3, 0, (), 2), mass, pair, dropout=dropout, seed=3))

    # Scores stay apart by more than gradcheck's step of 1e-6, so that no perturbation changes the selection.
    assert torch.autograd.gradcheck(run, (q, k, v, scale, mass, pair))


def weights_of(engine, q, k, rule, sigma=1.0, **rest):
    """The row-stochastic matrix, read off with values = identity."""
    v = torch.eye(k.shape[2], dtype=q.dtype).expand(*k.shape[:2], -1, -1)
    parameter = torch.full((q.shape[1],), sigma, dtype=torch.float64 if q.dtype == torch.float64 else torch.float32)
    return engine(call_of(q, k, v, rule, parameter, **rest))[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equal_scores_admit_the_earliest_keys_or_all(engine, dtype):
    x = torch.ones(1, 1, 20, 4, dtype=dtype)
    first = weights_of(engine, x, x, kd.Window(8) & kd.TopK(3))[0, 0]
    for i in range(20):
        begin = max(0, i - 7)
        expected = torch.arange(begin, min(i + 1, begin + 3))
        assert torch.equal(first[i].nonzero()[:, 0], expected)
    kept = weights_of(engine, x, x, kd.Window(8) & kd.TopK(3, ties="keep"))[0, 0]
    assert torch.equal((kept > 0).sum(1), torch.arange(1, 21).clamp(max=8))


@pytest.mark.parametrize("ties", ["index", "keep"])
def test_small_integers_give_the_sets_of_the_definition(engine, ties):
    """Squared distances of small integers are exact in every form, so that ties are ties everywhere."""
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randint(-2, 3, (2, 2, 90, 3), generator=generator).float() for _ in range(2))
    rule = kd.Window(21, two_sided=True) & kd.TopK(6, ties=ties)
    mine = weights_of(engine, q, k, rule, sigma=2.0) > 0
    request = Request.of(q, k)
    assert torch.equal(mine, reference.admitted(kd.krause(2.0, rule), request))


@pytest.mark.parametrize(
    "make",
    [
        lambda x: torch.where((torch.arange(x.shape[2]) % 50 == 7)[:, None], 30 * x, x),
        lambda x: x[:, :, torch.arange(x.shape[2]) % 8],
        lambda x: x + 100,
        lambda x: x,
    ],
    ids=["far keys", "few distinct tokens", "offset tokens", "plain"],
)
def test_single_precision_stays_close_to_double(make, engine):
    """Errors against float64: differences of coordinates lose eps |x| each, which scores multiply by their slope."""
    x = make(points(1, 2, 300, 16, grad=False))
    q, k, v = x.float(), x.float().roll(1, -2), points(1, 2, 300, 8, seed=3, grad=False).float()
    parameter = torch.full((2,), 2.0)
    rule = kd.Window(64)
    mine = engine(call_of(q, k, v, rule, parameter))
    theirs = by_reference(q.double(), k.double(), v.double(), rule, parameter.double())
    eps = torch.finfo(torch.float32).eps
    spread = (q.double() - q.double().mean(-2, keepdim=True)).abs().amax()
    bound = 40 * eps * float(1 + spread**2)
    assert float((mine[0] - theirs.mean).abs().max()) < bound


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types_round_once(dtype):
    """Scores and sums are float32: the only rounding of size eps is that of the result."""
    q, k, v = (points(1, 2, 100, 16, seed=s, grad=False).to(dtype) for s in range(3))
    parameter = torch.full((2,), 2.0)
    rule = kd.Window(32) & kd.TopK(9)
    out, log_partition = banded_operators.banded(call_of(q, k, v, rule, parameter))
    theirs = by_reference(q.double(), k.double(), v.double(), rule, parameter.double())
    assert out.dtype == dtype
    assert log_partition.dtype == torch.float32
    eps = torch.finfo(dtype).eps
    assert float((out.double() - theirs.mean).abs().max()) < 0.51 * eps * float(theirs.mean.abs().max()) + 1e-5
    torch.testing.assert_close(log_partition.double(), theirs.log_partition, rtol=1e-5, atol=1e-5)


def test_padding_and_the_future_may_hold_nan(engine):
    """Left padding and a NaN in a later key: rows that cannot hear them, and their gradients, are untouched."""
    q, k, v = (points(2, 2, 40, 8, seed=s, grad=False) for s in range(3))
    valid = torch.arange(40) >= torch.tensor([[0], [6]])
    mass = torch.zeros(2, 1, 40, dtype=torch.float64).masked_fill(~valid[:, None], NEVER)
    rule, parameter = kd.Window(5) & kd.TopK(3), torch.ones(2, dtype=torch.float64)
    clean = engine(call_of(q, k, v, rule, parameter, log_mass=mass))
    dirty = [x.masked_fill(~valid[:, None, :, None], float("nan")) for x in (q, k, v)]
    for x in dirty:
        x[:, :, 35:] = float("nan")
        x.requires_grad_()
    out, log_partition = engine(call_of(*dirty, rule, parameter, log_mass=mass))
    heard = valid[:, None, :, None].expand_as(out) & (torch.arange(40) < 35)[:, None]
    # Tiles choose their centre among the keys that are numbers, hence the few roundings.
    torch.testing.assert_close(out[heard], clean[0][heard], rtol=1e-12, atol=1e-12)
    assert bool(out[:, :, 35:].isnan().all())
    assert bool((log_partition[1, :, :6] == NEVER).all())
    assert bool((out[1, :, :6] == 0).all())
    for gradient in torch.autograd.grad(torch.where(heard, out, 0.0).sum(), dirty):
        assert bool(gradient[:, :, :35].isfinite().all())
        assert bool((gradient[1, :, :6] == 0).all())


@pytest.mark.parametrize("where", ["q", "k", "v", "grad"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_blocks_leave_what_is_not_finite_to_rows(where, bad):
    """Token 100 alone holds it: rows that do not hear it, and their queries' gradients, are those of clean input."""
    tokens = {name: points(1, 1, 300, 8, seed=s, grad=False) for s, name in enumerate(("q", "k", "v", "grad"))}
    rule, parameter = kd.Window(200), torch.ones(1, dtype=torch.float64)
    clean = call_of(*(tokens[name] for name in "qkv"), rule, parameter)
    expected, log_partition, selection = both.forward(clean, save=True)
    grad, tokens[where] = tokens["grad"], tokens[where].clone()
    tokens[where][0, 0, 100] = bad
    dirty, nothing = call_of(*(tokens[name] for name in "qkv"), rule, parameter), torch.zeros_like(log_partition)
    with pytest.raises(NotFinite):
        by_blocks.backward(dirty, log_partition, selection, tokens["grad"], nothing)
    # Keys and values of token 100 reach all later rows, its query and gradient no other row.
    untouched = slice(0, 100) if where in ("k", "v") else slice(101, 300)
    found = both.forward(dirty, save=True)[0]
    torch.testing.assert_close(found[:, :, untouched], expected[:, :, untouched], rtol=1e-12, atol=1e-12)
    gradient = both.backward(dirty, log_partition, selection, tokens["grad"], nothing)
    theirs = both.backward(clean, log_partition, selection, grad, nothing)
    torch.testing.assert_close(gradient.q[:, :, untouched], theirs.q[:, :, untouched], rtol=1e-12, atol=1e-12)


def test_every_entry_of_the_results_is_written(engine):
    """torch.empty is filled with NaN here, so that anything left out would show."""
    torch.use_deterministic_algorithms(True)
    try:
        q, k, v = (points(1, 2, 70, 8, seed=s) for s in range(3))
        mass = torch.zeros(1, 1, 70, dtype=torch.float64).masked_fill(torch.arange(70) < 20, NEVER)
        parameter = torch.ones(2, dtype=torch.float64, requires_grad=True)
        outcome = engine(call_of(q, k, v, kd.Window(9) & kd.TopK(4), parameter, log_mass=mass))
        assert not any(bool(x.isnan().any()) for x in (*outcome, *gradients(outcome, [q, k, v, parameter])))
    finally:
        torch.use_deterministic_algorithms(False)


def test_threads_share_the_work_and_change_nothing(engine):
    q, k, v = points(2, 4, 600, 8, seed=1), points(2, 2, 600, 8, seed=2), points(2, 2, 600, 8, seed=3)
    parameter = torch.ones(4, dtype=torch.float64, requires_grad=True)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            outcome = engine(call_of(q, k, v, kd.Window(40) & kd.TopK(20), parameter))
            found.append((*outcome, *gradients(outcome, [q, k, v, parameter])))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    # torch's own products, which tiles use whole, may be cut differently by its threads.
    tolerance = 1e-12 if engine is by_tiles else 0.0
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(three, one, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_does_not_reach_the_scores(engine, dtype):
    """Their products stay single: the half products of autocast would move log Z by a few hundredths."""
    q, k, v = (points(1, 2, 300, 16, seed=s, grad=False).to(dtype) for s in range(3))
    call = call_of(q, k, v, kd.Window(100) & kd.TopK(90), torch.full((2,), 2.0))
    expected = engine(call)
    with torch.autocast("cpu", torch.bfloat16):
        found = engine(call)
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])


def test_strides_do_not_matter(engine):
    x = points(1, 33, 3, 2, 8, grad=False)
    q, k, v = (x[:, :, i].transpose(1, 2) for i in range(3))
    rule, parameter = kd.Window(9) & kd.TopK(4), torch.ones(2, dtype=torch.float64)
    strided = engine(call_of(q, k, v, rule, parameter))
    contiguous = engine(call_of(q.contiguous(), k.contiguous(), v.contiguous(), rule, parameter))
    assert torch.equal(strided[0], contiguous[0])
    assert torch.equal(strided[1], contiguous[1])


@pytest.mark.parametrize("kv_heads", [1, 2])
def test_a_stretch_of_a_buffer_is_read_in_place(kv_heads):
    """What lies before and behind it in the buffer is not heard, nor is it when buffers of k and v differ."""
    held_k, held_v = (torch.full((3, kv_heads, 60, 8), float("nan"), dtype=torch.float64) for _ in range(2))
    held_k[:, :, 11:40], held_v[:, :, 11:40] = (points(3, kv_heads, 29, 8, seed=s, grad=False) for s in (1, 2))
    q, k, v = points(3, 2, 2, 8, grad=False), held_k[:, :, 11:40], held_v[:, :, 11:40]
    elsewhere = torch.cat([held_v[:, :, 10:40], held_v[:, :, :1]], 2)[:, :, 1:30]
    for rule in (kd.Window(9) & kd.TopK(4), kd.Causal(), kd.Everyone(), kd.Window(200)):
        call = call_of(q, k, v, rule, torch.ones(2, dtype=torch.float64), offset=27)
        expected = banded_operators.banded(call._replace(k=k.contiguous(), v=v.contiguous()))
        for values in (v, elsewhere):
            found = banded_operators.banded(call._replace(v=values))
            assert torch.equal(found[0], expected[0])
            assert torch.equal(found[1], expected[1])


def test_packed_sequences_do_not_hear_each_other(engine):
    q, k, v = (points(1, 2, 45, 8, seed=s, grad=False) for s in range(3))
    edges = [0, 10, 10, 31, 45]
    rule, parameter = kd.Window(9, two_sided=True) & kd.TopK(4), torch.ones(2, dtype=torch.float64)
    packed = engine(call_of(q, k, v, rule, parameter, segments=torch.tensor(edges, dtype=torch.int32)))
    for begin, end in ((0, 10), (10, 31), (31, 45)):
        one = engine(call_of(*(x[:, :, begin:end] for x in (q, k, v)), rule, parameter))
        torch.testing.assert_close(packed[0][:, :, begin:end], one[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(packed[1][:, :, begin:end], one[1], rtol=1e-12, atol=1e-12)


class CountBytes(torch.utils._python_dispatch.TorchDispatchMode):
    """Bytes of everything that torch operations allocate."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, tuple | list) else (result,):
            if isinstance(x, torch.Tensor) and not function.is_view:
                self.total += x.numel() * x.element_size()
        return result


def counting(make, sizes):
    def made(*args, **kwargs):
        x = make(*args, **kwargs)
        sizes.append(x.nbytes)
        return x

    return made


def run_engine(engine, call):
    """Both passes, on the module itself: the operator would hide what its inside allocates."""
    if engine is tiles_engine:
        out, log_partition = engine.forward(call)
        engine.backward(call, out, log_partition)
    else:
        out, log_partition, bits = engine.forward(call, True)
        engine.backward(call, log_partition, bits, out, log_partition)


@pytest.mark.parametrize("engine", [by_rows, by_blocks, tiles_engine])
def test_allocations_grow_linearly_with_the_number_of_tokens(engine, monkeypatch):
    allocated = {}
    for n in (1024, 4096):
        q, k, v = (points(1, 2, n, 16, seed=s, grad=False).float() for s in range(3))
        call = Call(q, k, v, torch.ones(1, 2), True, Reach(31, 0, (), 9))
        numpy_bytes = []
        run_engine(engine, call)  # compiled before anything is counted
        for name in ("empty", "zeros", "arange", "clip"):
            monkeypatch.setattr(np, name, counting(getattr(np, name), numpy_bytes))
        with CountBytes() as count:
            run_engine(engine, call)
        monkeypatch.undo()
        allocated[n] = count.total + sum(numpy_bytes)
    assert allocated[1024] > 1024 * 16
    assert allocated[4096] <= 4.4 * allocated[1024]


def test_aggregate_takes_torch_arrays_of_any_batch_shape():
    x = points(3, 2, 70, 4, grad=False)
    rule = kd.krause(torch.tensor([[0.5], [1.0]], dtype=torch.float64), kd.Window(9) & kd.TopK(3))
    request = Request.of(x)
    assert banded.supports(rule, request) is None
    mine, theirs = banded.prepare(rule, request)(request), reference.aggregate(rule, request)
    torch.testing.assert_close(mine.mean, theirs.mean, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(mine.log_partition, theirs.log_partition, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("rule", "word"),
    [
        (kd.krause(1.0, kd.Others()), "Others"),
        (kd.krause(1.0, kd.Window(5, periodic=True)), "Window"),
        (kd.bounded_confidence(1.0), "Within"),
        (kd.Interaction(kd.Radial(lambda r: 1 / (1 + r))), "Radial"),
        (kd.krause(torch.ones(70, dtype=torch.float64)), "query to query"),
        (kd.krause(1.0, kd.Grid(3, 3)), "Grid"),
    ],
)
def test_what_has_no_banded_form_says_why(rule, word):
    assert word in banded.supports(rule, Request.of(points(70, 4, grad=False)))


def test_flops_are_those_of_the_admitted_pairs():
    from torch.utils.flop_counter import FlopCounterMode

    q, k, v = points(2, 3, 100, 8), points(2, 3, 100, 8), points(2, 3, 100, 5)
    with FlopCounterMode(display=False) as counter:
        out, _ = banded_operators.banded(call_of(q, k, v, kd.Window(9), torch.ones(3, dtype=torch.float64)))
        forward = counter.get_total_flops()
        out.sum().backward()
    assert forward == 2 * 2 * 3 * 100 * 9 * (8 + 5)
    assert counter.get_total_flops() == forward + forward * 5 // 2


NOTHING = (None,) * 5  # masses, pair biases, cumulative lengths, seed, intervals beside the window


def test_operator_contract():
    q, k, v = points(2, 2, 20, 8), points(2, 1, 20, 8), points(2, 1, 20, 8)
    scale = torch.ones(2, 2, dtype=torch.float64, requires_grad=True)
    numbers = Reach(8, 0, top_k=4).numbers
    arguments = (q, k, v, scale, *NOTHING, numbers, True, 0, 1, False, 0.0, True)
    torch.library.opcheck(
        torch.ops.krause_dynamics.banded.default,
        arguments,
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


@pytest.mark.parametrize("lie", ["by tokens", "by heads", "together"])
@pytest.mark.parametrize("by", ["engine", "tiles"])
def test_outputs_and_gradients_lie_in_memory_as_the_compiler_is_told(by, lie, monkeypatch):
    """By tokens, (batch, tokens, heads, d) in memory, wherever the queries, keys and values lie."""
    if by == "tiles":  # what other devices than the CPU take
        monkeypatch.setattr(both, "forward", lambda call, save: (*tiles_engine.forward(call), torch.empty(0).byte()))
        monkeypatch.setattr(both, "backward", lambda call, log, chosen, *grads: tiles_engine.backward(call, *grads))
    q, k, v = (points(2, 20, 2, 8, grad=False).transpose(1, 2) for _ in range(3))
    if lie == "by heads":
        q, k, v = (x.contiguous() for x in (q, k, v))
    elif lie == "together":
        q, k, v = torch.cat([q, k, v], 1).transpose(1, 2).contiguous(), None, None
    scale = torch.ones(2, 2, dtype=torch.float64)
    numbers = Reach(8, 0, top_k=4).numbers
    shared = (q, k, v, scale, *NOTHING, numbers, True, 0, 2, False, 0.0)
    out, log_partition, chosen = torch.ops.krause_dynamics.banded(*shared, True)
    arguments = (*shared, log_partition, chosen, torch.ones_like(out), torch.ones_like(log_partition))
    assert out.transpose(1, 2).is_contiguous()
    for operator, given in (("banded", (*shared, True)), ("banded_backward", arguments)):
        run = getattr(torch.ops.krause_dynamics, operator)
        real = run(*given)
        with FakeTensorMode() as mode:
            told = run(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in given))
        both_ways = [[(x.shape, x.stride()) for x in found if x.dtype != torch.uint8] for found in (real, told)]
        assert both_ways[0] == both_ways[1]


def test_dropout_of_tiles_drops_its_share_and_keeps_the_mean():
    """Factors are 0 or 1/(1-p); of 2^16 pairs the kept share is 1 - p within five standard deviations."""
    p, side = 0.3, 128
    places = torch.arange(side)[None]
    block = tiles.Block(places, places, torch.ones_like(places, dtype=torch.bool))
    factors = tiles.dropout_factors(block, (2, 2), side, p, seed=7)
    assert sorted(factors.unique().tolist()) == pytest.approx([0.0, 1 / (1 - p)])
    share = (factors > 0).double().mean().item()
    assert abs(share - (1 - p)) < 5 * (p * (1 - p) / factors.numel()) ** 0.5


def test_keys_without_mass_are_heard_by_nobody(engine):
    """Rows that see such keys alone hear nobody: mean 0 and log-partition -inf, never NaN."""
    q, k, v = (points(1, 1, 6, 3, seed=seed) for seed in range(3))
    mass = torch.zeros(1, 1, 6, dtype=torch.float64)
    mass[..., :3] = NEVER
    out, log_partition = engine(Call(q, k, v, torch.ones(1, 1, dtype=torch.float64), False, Reach(1, 0, (), 0), mass))
    assert torch.equal(log_partition[0, 0] == NEVER, torch.arange(6) < 3)
    assert torch.equal(out[0, 0, :3], torch.zeros(3, 3, dtype=torch.float64))
    torch.testing.assert_close(out[0, 0, 3], v[0, 0, 3])
