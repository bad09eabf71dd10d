"""Sums over the weights against the dense matrix, and against derivatives of the log-partition."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate import blocks, weight_blocks
from krause_dynamics.errors import UnsupportedImplementation
from krause_dynamics.interaction import Request

CLOSE = {"rtol": 1e-11, "atol": 1e-13}  # sums of at most 30 weights in float64
N = 30
LOW = -np.inf


def _bias() -> np.ndarray:
    bias = np.random.default_rng(5).normal(size=(N, N))
    bias[7] = LOW  # query 7 hears nobody
    return bias


SCORES = {
    "dot": kd.DotProduct(0.8),
    "gaussian": kd.Gaussian(1.4),
    "flat": kd.Flat(),
    "radial": kd.Radial(lambda r: (r < 3.0) * (1 + r**2) ** -0.5),
}
NEIGHBOURHOODS = {
    "everyone": kd.Everyone(),
    "others": kd.Others(),
    "causal": kd.Causal(),
    "window": kd.Window(4),
    "window both sides, top-k": kd.Window(7, two_sided=True) & kd.TopK(3),
    "window, ties kept": kd.Window(6) & kd.TopK(2, ties="keep"),
    "ring": kd.Window(5, two_sided=True, periodic=True),
    "causal ring": kd.Causal() & kd.Window(5, periodic=True),
    "grid": kd.Grid(5, 6, 1),
    "grid, prefix, top-k": kd.Grid(4, 7, 1, "manhattan", prefix=2) & kd.TopK(3),
    "causal grid": kd.Grid(5, 6, 1) & kd.Causal(),
    "within": kd.Within(1.5),
    "within others": kd.Within(0.9) & kd.Others() & kd.Window(9),
    "graph": kd.Graph(np.random.default_rng(1).random((N, N)) < 0.2),
    "packed": kd.Segments(np.array([0, 8, 21, N])) & kd.Causal(),
    "top-k": kd.TopK(5),
}


@pytest.fixture(params=[None, 3], ids=["one block", "blocks of 3 rows"])
def rows(request, monkeypatch):
    """Small clouds fit one block; here they are cut."""
    if request.param is not None:
        monkeypatch.setattr(weight_blocks, "CPU_PAIRS", 1)
        monkeypatch.setattr(weight_blocks, "FEWEST", request.param)


def dense(rule, *arrays, groups=None, **rest):
    """The same sums of ``kd.weights``, written as definitions."""
    a = np.asarray(kd.weights(rule, *arrays, **rest))
    n, m = a.shape[-2:]
    entropy = -np.where(a > 0, a * np.log(np.where(a > 0, a, 1.0)), 0.0).sum(-1)
    i, j = (rest.get(f"{name}_index", np.arange(size)) for name, size in (("query", n), ("source", m)))
    lag = np.asarray(i)[..., :, None] - np.asarray(j)[..., None, :]
    own = np.where(lag == 0, a, 0.0).sum(-1)
    most = max(n, m) - 1
    profile = np.stack([np.where(lag == o, a, 0.0).sum((-1, -2)) / n for o in range(-most, most + 1)], -1)
    return a, entropy, own, profile


def same(found, expected):
    a, entropy, own, profile = expected
    for name, value in (("received", a.sum(-2)), ("entropy", entropy), ("own", own), ("profile", profile)):
        np.testing.assert_allclose(getattr(found, name), value, err_msg=name, **CLOSE)


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("neighbourhood", NEIGHBOURHOODS)
def test_every_rule_equals_sums_of_dense_weights(score, neighbourhood, rows, library, rng):
    """Masses (one source absent), a pair bias and an empty row included; coarse positions, so that scores tie."""
    x = rng.integers(-3, 4, (N, 2)) / 2
    log_mass = np.log(rng.uniform(0.2, 3.0, N))
    log_mass[4] = LOW
    for bias, masses in ((None, None), (_bias(), log_mass)):
        rule = kd.Interaction(SCORES[score], NEIGHBOURHOODS[neighbourhood], pair_bias=bias)
        rest = {} if masses is None else {"log_mass": library(masses)}
        found = kd.statistics(rule, library(x), **rest)
        same(found, dense(rule, library(x), **rest))
        whole = kd.statistics(rule, library(x), impl="reference", **rest)
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_allclose(one, other, **CLOSE)


@pytest.mark.parametrize("neighbourhood", ["everyone", "causal", "window both sides, top-k", "grid, prefix, top-k"])
@pytest.mark.parametrize("score", ["dot", "gaussian"])
def test_they_are_derivatives_of_the_log_partition(score, neighbourhood, rows, rng):
    """d log Z_i/d log m_j = a_ij; log Z_i - beta d log Z_i/d beta - sum_j a_ij (log m_j + b_ij) is the entropy."""
    x = torch.tensor(rng.normal(size=(N, 12)))
    log_mass = torch.tensor(rng.normal(size=N), requires_grad=True)
    bias = torch.tensor(np.where(np.isinf(_bias()), 0.0, _bias()), requires_grad=True)
    beta = torch.full((N,), 0.6, dtype=torch.float64, requires_grad=True)  # one per query: a derivative per row
    value = kd.DotProduct(beta) if score == "dot" else kd.Gaussian(beta**-0.5)  # s = -beta |x - y|^2 / 2
    rule = kd.Interaction(value, NEIGHBOURHOODS[neighbourhood], pair_bias=bias)
    log_z = kd.aggregate(rule, x, log_mass=log_mass, impl="reference").log_partition
    received, by_beta, pairs = torch.autograd.grad(log_z.sum(), (log_mass, beta, bias))
    entropy = log_z - beta * by_beta - (pairs * (log_mass + bias)).sum(-1)
    found = kd.statistics(rule, x, log_mass=log_mass)
    assert not any(part.requires_grad for part in found)
    # Differences of log Z of size 10 against sums of entropies: a hundred roundings of float64.
    np.testing.assert_allclose(found.received, received, atol=1e-13)
    np.testing.assert_allclose(found.entropy, entropy.detach(), atol=1e-12)
    np.testing.assert_allclose(found.own, pairs.diagonal(), atol=1e-13)


@pytest.mark.parametrize("form", ["banded", "recomputed", "blocked", "reference"])
def test_the_gradient_of_every_differentiable_form_is_the_mass_received(form, rng):
    x = torch.tensor(rng.normal(size=(2, N, 4)))
    log_mass = torch.zeros(2, N, dtype=torch.float64, requires_grad=True)
    rule = kd.krause(1.2, kd.Causal())
    log_z = kd.aggregate(rule, x, log_mass=log_mass, impl=form).log_partition
    received = torch.autograd.grad(log_z.sum(), log_mass)[0]
    np.testing.assert_allclose(kd.statistics(rule, x).received, received, atol=1e-12)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_mode_of_gradients_gives_the_same_and_records_nothing(context, rng):
    x = torch.tensor(rng.normal(size=(N, 3)))
    sigma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    with context():
        found = kd.statistics(kd.krause(sigma, kd.Window(5) & kd.TopK(3)), x * 1.0)
    assert not any(part.requires_grad for part in found)
    same(found, dense(kd.krause(0.8, kd.Window(5) & kd.TopK(3)), x))


def test_batch_axes_broadcast_and_parameters_may_differ_by_head_run_or_query(rows, library, rng):
    x, y = rng.normal(size=(2, 1, N, 3)), rng.normal(size=(4, 11, 3))
    log_mass = rng.normal(size=(2, 1, 11))
    radius = rng.uniform(0.5, 3.0, N)
    rule = kd.Interaction(kd.Gaussian(library(np.linspace(0.5, 2.0, 4)[:, None])), kd.Within(library(radius)))
    found = kd.statistics(rule, library(x), library(y), log_mass=library(log_mass))
    same(found, dense(rule, library(x), library(y), log_mass=library(log_mass)))
    assert found.received.shape == (2, 4, 11)
    assert found.profile.shape == (2, 4, 2 * N - 1)


@pytest.mark.parametrize("shape", [(N, 1), (1, N), (3, 1, 1), (3, 1, N)])
def test_a_pair_bias_broadcasts_as_in_the_reference(shape, rows, library, rng):
    x = library(rng.normal(size=(3, N, 2)))
    rule = kd.softmax(0.7, kd.Window(9), pair_bias=library(rng.normal(size=shape)))
    same(kd.statistics(rule, x), dense(rule, x))


@pytest.mark.parametrize("masked", [False, True])
def test_mass_by_group_of_queries(masked, rows, library, rng):
    x, numbers = rng.normal(size=(3, N, 2)), rng.integers(-1, 3, N)
    rule = kd.softmax(0.9, kd.Causal())
    a = np.asarray(kd.weights(rule, x))
    member = numbers == np.arange(3)[:, None]
    if masked:
        member = np.stack([member, np.broadcast_to(numbers < 2, (3, N)), np.ones((3, N), bool)])  # overlapping
    groups = member if masked else numbers
    found = kd.statistics(rule, library(x), groups=groups)
    np.testing.assert_allclose(found.received, member.astype(float) @ a, **CLOSE)
    one = kd.statistics(rule, library(x), groups=member[..., 0, :] if not masked else member[0, 0])
    picked = member[0] if not masked else member[0, 0]
    np.testing.assert_allclose(one.received, (picked.astype(float) @ a)[:, None], **CLOSE)
    np.testing.assert_allclose(found.own, np.diagonal(a, 0, -2, -1), **CLOSE)


@pytest.mark.parametrize("kind", ["numbers", "members", "members of three runs"])
def test_groups_of_a_single_run(kind, library, rng):
    """Dot products of a torch state (n, d) take the compiled pass, unless the groups have runs of their own."""
    x, numbers = rng.normal(size=(N, 2)), rng.integers(0, 3, N)
    groups = {
        "numbers": numbers,
        "members": rng.random((4, N)) < 0.5,
        "members of three runs": rng.random((3, 4, N)) < 0.5,
    }
    member = numbers == np.arange(3)[:, None] if kind == "numbers" else groups[kind]
    rule = kd.softmax(0.9)
    found = kd.statistics(rule, library(x), groups=library(groups[kind]))
    np.testing.assert_allclose(found.received, member.astype(float) @ np.asarray(kd.weights(rule, x)), **CLOSE)


def test_indices_decide_what_is_own_and_how_far(rows, library, rng):
    """Three queries at the end of a cache, and queries whose places rise in another order."""
    x, cache = rng.normal(size=(2, 3, 4)), rng.normal(size=(2, 9, 4))
    rule = kd.softmax(0.4, kd.Window(5))
    for at in (np.array([6, 7, 8]), np.array([8, 2, 5]), np.array([[0, 3, 4], [1, 1, 8]])):
        rest = {"query_index": library(at), "source_index": library(np.arange(9))}
        found = kd.statistics(rule, library(x), library(cache), distances=8, **rest)
        same(found, dense(rule, library(x), library(cache), **rest))
        wide = kd.statistics(rule, library(x), library(cache), **rest)
        most = wide.profile.shape[-1] // 2
        np.testing.assert_allclose(wide.profile[..., most - 1 : most + 2], found.profile[..., 7:10], **CLOSE)


def test_a_short_profile_is_the_middle_of_the_long_one(rows, library, rng):
    rule, x = kd.softmax(1.0, kd.Window(9, two_sided=True)), library(rng.normal(size=(2, N, 3)))
    whole = kd.statistics(rule, x)
    np.testing.assert_allclose(whole.profile.sum(-1), 1.0, **CLOSE)
    for most in (0, 1, 4):
        short = kd.statistics(rule, x, distances=most).profile
        np.testing.assert_allclose(short, whole.profile[..., N - 1 - most : N + most], **CLOSE)
    np.testing.assert_allclose(kd.statistics(rule, x, distances=0).profile[..., 0], whole.own.mean(-1), **CLOSE)


def test_rows_that_hear_all_alike_have_known_sums(library):
    """Flat score: a window of W spreads ln W, and every source away from the ends receives exactly 1."""
    found = kd.statistics(kd.Interaction(kd.Flat(), kd.Window(5, two_sided=True)), library(np.zeros((N, 1))))
    np.testing.assert_allclose(found.entropy[2:-2], np.log(5.0), **CLOSE)
    np.testing.assert_allclose(found.received[4:-4], 1.0, **CLOSE)
    np.testing.assert_allclose(found.own[2:-2], 0.2, **CLOSE)


def test_nobody_heard_is_zero_not_nan(library):
    """Alone among others far away."""
    x = library(np.array([[0.0], [0.1], [9.0]]))
    found = kd.statistics(kd.bounded_confidence(1.0, kd.Others()), x)
    assert [float(part[..., -1]) for part in (found.received, found.entropy, found.own)] == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(found.profile, [0, 1 / 3, 0, 1 / 3, 0])


def test_half_types_are_summed_in_single_precision(rng):
    x = torch.tensor(rng.normal(size=(N, 4)), dtype=torch.bfloat16)
    found = kd.statistics(kd.softmax(0.5), x)
    assert {part.dtype for part in found} == {torch.float32}
    expected = kd.statistics(kd.softmax(0.5), x.double())
    np.testing.assert_allclose(found.received, expected.received, rtol=1e-5)


def test_a_window_costs_its_width_and_no_more_memory_than_the_particles(rng):
    """All pairs of 20,000 particles would be 3.2 GB; blocks look at a few widths of sources for each query."""
    n, width = 20_000, 33
    x, rule = rng.normal(size=(n, 2)), kd.krause(1.0, kd.Window(width))
    tracemalloc.start()
    found = kd.statistics(rule, x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 * n * 8 + 2_000_000  # ten numbers a particle, and a block
    np.testing.assert_allclose(found.received.sum(), n, rtol=1e-12)
    looked = sum(block.weights.size for block in blocks(rule, Request.of(x[:2000])))
    assert looked < 3 * 2000 * width


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groups": np.zeros(4, int)}, ValueError, "one entry per query"),
        ({"groups": np.zeros(N)}, TypeError, "whole numbers or booleans"),
        ({"distances": -1}, ValueError, "at least 0"),
        ({"distances": 1.5}, ValueError, "whole number"),
        ({"impl": "sdpa"}, UnsupportedImplementation, "impl must be"),
        ({"log_mass": np.full(N, np.nan)}, ValueError, "log_mass must hold numbers"),
    ],
)
def test_bad_arguments_are_named(options, error, message, rng):
    with pytest.raises(error, match=message):
        kd.statistics(kd.softmax(1.0), rng.normal(size=(N, 2)), **options)


@pytest.mark.parametrize("neighbourhood", [kd.Everyone(), kd.Causal(), kd.Window(40), kd.Window(41, two_sided=True)])
@pytest.mark.parametrize("kind", [None, "numbers", "members"])
@pytest.mark.parametrize("distances", [None, 0, 5])
def test_one_compiled_pass_sums_what_blocks_sum(neighbourhood, kind, distances):
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(2, 3, 300, 8, generator=g, dtype=torch.float64) for _ in range(2))
    groups = {
        None: None,
        "numbers": torch.arange(300) // 50 - 1,
        "members": torch.rand(2, 3, 4, 300, generator=g) < 0.5,
    }[kind]
    rule = kd.Interaction(kd.DotProduct(0.7), neighbourhood)
    asked = {"groups": groups, "distances": distances}
    found, expected = (kd.statistics(rule, q, k, **asked, impl=impl) for impl in ("fused", "blocked"))
    single = kd.statistics(rule, q.float(), k.float(), **asked, impl="fused")
    for name, value in expected._asdict().items():
        np.testing.assert_allclose(getattr(found, name), value, err_msg=name, **CLOSE)
        # scores of float32 are off by 1e-6, and so are weights, relatively
        np.testing.assert_allclose(getattr(single, name), value, rtol=1e-4, atol=1e-5, err_msg=name)


def test_one_compiled_pass_says_what_it_cannot_do():
    x = torch.randn(9, 2)
    for rule, given, message in (
        (kd.Interaction(kd.DotProduct(), kd.TopK(3)), x, "everyone or in a window"),
        (kd.Interaction(kd.Gaussian()), x, "dot products"),
        (kd.Interaction(kd.DotProduct()), x.numpy(), "torch tensors"),
    ):
        with pytest.raises(UnsupportedImplementation, match=message):
            kd.statistics(rule, given, impl="fused")
        kd.statistics(rule, given)
