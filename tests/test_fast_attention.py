"""Blocked rows, compiled loops, cells and torch's kernels against the dense definition."""

from __future__ import annotations

import numpy as np
import pytest

import krause_dynamics as kd

PER_RUN = np.array([[1.0], [2.0]])  # a parameter for each of two runs
RULES = {
    "softmax": kd.softmax(2.0),
    "repelling": kd.softmax(-3.0, normalised=False),
    "steep": kd.softmax(900.0),  # exponents far beyond those taken without a row maximum
    "gaussian": kd.krause(0.7),
    "narrow": kd.krause(0.01),
    "causal": kd.softmax(2.0, kd.Causal()),
    "window": kd.krause(0.7, kd.Window(5, two_sided=True)),
    "causal window": kd.krause(0.7, kd.Window(5) & kd.Causal()),
    "beta per run": kd.softmax(PER_RUN),
    "sigma per run": kd.krause(PER_RUN),
}


def close(rule, impl, *arrays, atol=1e-12, **rest):
    got, expected = (kd.aggregate(rule, *arrays, impl=name, **rest) for name in (impl, "reference"))
    np.testing.assert_allclose(got.mean, expected.mean, atol=atol)
    np.testing.assert_allclose(got.log_partition, expected.log_partition, rtol=10 * atol, atol=10 * atol)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize(("n", "d"), [(1, 2), (5, 11), (600, 3)])  # 600: several tiles, the last one cut
def test_blocked_equals_the_reference(name, n, d, library, rng):
    x, log_mass = library(rng.standard_normal((2, n, d))), library(np.log(rng.uniform(0.1, 1, n)))
    close(RULES[name], "blocked", x)
    close(RULES[name], "blocked", x, log_mass=log_mass)


@pytest.mark.parametrize("name", ["softmax", "steep", "gaussian", "narrow", "sigma per run"])
def test_blocked_with_other_sources_and_padding(name, library, rng):
    x, y, v = (library(rng.standard_normal((2, n, d))) for n, d in ((4, 3), (300, 3), (300, 2)))
    log_mass = np.zeros(300)
    log_mass[7:40] = -np.inf
    close(RULES[name], "blocked", x, y, v, log_mass=library(log_mass))


def test_blocked_keeps_empty_rows_empty(library):
    x = library(np.linspace(0, 1, 6)[:, None])
    log_mass = library(np.array([-np.inf] * 3 + [0.0] * 3))
    result = kd.aggregate(kd.softmax(1.0, kd.Causal()), x, log_mass=log_mass, impl="blocked")
    np.testing.assert_array_equal(result.log_partition[:3], -np.inf)
    np.testing.assert_array_equal(result.mean[:3], 0)
    nobody = kd.aggregate(kd.krause(1.0), x, log_mass=library(np.full(6, -np.inf)), impl="blocked")
    np.testing.assert_array_equal(nobody.log_partition, -np.inf)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_exponent_overflows_or_vanishes(dtype, rng):
    """Around the largest exponent taken without a row maximum the error stays that of the dtype times the exponent."""
    x = rng.standard_normal((50, 3)).astype(dtype)
    norm = float(np.abs((x**2).sum(-1)).max())
    for exponent in (30.0, 39.0, 41.0, 80.0, 290.0, 310.0, 2000.0):
        rule = kd.softmax(exponent / norm)
        exact = kd.aggregate(rule, x.astype(np.float64), impl="reference").mean
        error = np.abs(kd.aggregate(rule, x, impl="blocked").mean - exact).max()
        assert error < 8 * exponent * np.finfo(dtype).eps


def test_auto_never_holds_all_pairs():
    """Peak memory of one drift of 2500 particles is below a sixth of the 50 MB of all pairs."""
    import tracemalloc

    x = kd.Sphere().sample(2500, 8, rng=0)
    for rule in (kd.softmax(4.0), kd.krause(0.5), kd.softmax(4.0, kd.Causal())):
        flow = kd.Dynamics(rule, kd.Sphere()).bind(x)
        tracemalloc.start()
        flow(0.0, x)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert flow.impl == "blocked"
        assert peak < 8e6


@pytest.mark.parametrize("name", [n for n in RULES if "per run" not in n])
@pytest.mark.parametrize("space", [kd.Sphere(), kd.Euclidean()])
def test_compiled_runs_equal_the_reference(name, space, rng):
    rule = RULES[name]
    if space == kd.Euclidean() and isinstance(rule.score, kd.DotProduct):
        pytest.skip("dot products blow up in flat space")
    x = np.stack([space.sample(9, 3, rng=seed) for seed in (0, 1)])
    log_mass = np.log(rng.uniform(0.5, 1, 9))
    for masses in (None, log_mass):
        close(rule, "compiled", x, log_mass=masses)
        for integrator in (kd.Euler(), kd.RK4(), kd.LayerStep()):
            options = {"dt": 0.05, "integrator": integrator, "save_at": [0.32], "log_mass": masses}
            ours, theirs = (
                kd.simulate(kd.Dynamics(rule, space), x, 0.63, impl=impl, **options)
                for impl in ("compiled", "reference")
            )
            np.testing.assert_allclose(ours.positions, theirs.positions, atol=1e-11)  # 13 steps of rounding
            assert ours.steps == theirs.steps == 14


def test_compiled_says_what_it_cannot():
    import torch

    x = np.zeros((4, 2))
    for rule, arrays, rest, reason in (
        (kd.Interaction(kd.Radial(np.exp)), (x,), {}, "dot products and Gaussians"),
        (kd.krause(1.0, kd.TopK(2)), (x,), {}, "no neighbourhoods but"),
        (kd.krause(np.ones(4)), (x,), {}, "one number"),
        (kd.krause(1.0), (torch.zeros(4, 2),), {}, "numpy float64"),
        (kd.krause(1.0), (x, x + 1), {}, "the same positions"),
        (kd.krause(1.0), (x,), {"log_mass": np.array([0, 0, 0, -np.inf])}, "no padding"),
    ):
        with pytest.raises(kd.UnsupportedImplementation, match=reason):
            kd.aggregate(rule, *arrays, impl="compiled", **rest)


def test_compiled_exponential():
    from krause_dynamics.forms.attention.attention_kernels import exponentials

    z = np.concatenate([np.linspace(-700, 0, 20001), [-1e9, -708.5]])
    x = z.copy()
    exponentials(x, x.size, 0.0)
    np.testing.assert_allclose(x[:-2], np.exp(z[:-2]), rtol=1e-15)
    assert (x[-2:] < 1e-300).all()


@pytest.mark.parametrize("name", [n for n in RULES if n not in ("steep", "narrow", "window", "causal window")])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-6), ("bfloat16", 3e-2)])
def test_fused_attention_of_torch(name, dtype, tolerance, rng):
    """float32: exponents of some tens times 6e-8; bfloat16: inputs have 8 bits."""
    import torch

    for n, d in ((1, 1), (37, 3), (65, 64)):
        x = torch.from_numpy(rng.standard_normal((2, n, d)) / d**0.5).to(getattr(torch, dtype))
        log_mass = torch.from_numpy(rng.standard_normal(n) / 2).to(x.dtype)
        log_mass[n // 2 + 1 :] = -torch.inf
        for masses in (None, log_mass):
            got = kd.aggregate(RULES[name], x, log_mass=masses, impl="sdpa")
            double = None if masses is None else masses.double()
            expected = kd.aggregate(RULES[name], x.double(), log_mass=double, impl="reference")
            np.testing.assert_allclose(got.mean.double(), expected.mean, atol=tolerance)
            np.testing.assert_allclose(got.log_partition.double(), expected.log_partition, atol=4 * tolerance)
            assert got.mean.dtype == x.dtype
            assert got.log_partition.dtype == torch.float32
    with pytest.raises(kd.UnsupportedImplementation, match="no gradient"):
        kd.aggregate(RULES[name], x.requires_grad_(), impl="sdpa")
    with pytest.raises(kd.UnsupportedImplementation, match="torch tensors"):
        kd.aggregate(RULES[name], np.zeros((3, 2)), impl="sdpa")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_cells_equal_the_reference(dtype, d, rng):
    import torch

    tolerance = 1e-12 if dtype == "float64" else 1e-4  # sums of hundreds of terms
    for rule in (
        kd.bounded_confidence(0.3),
        kd.bounded_confidence(0.3, closed=False),
        kd.bounded_confidence(50.0),
        kd.krause(0.2, kd.Within(0.5)),
    ):
        x, y = (torch.from_numpy(rng.uniform(-3, w, (n, d))).to(getattr(torch, dtype)) for n, w in ((300, 5), (90, 2)))
        log_mass = torch.from_numpy(rng.standard_normal(90)).to(x.dtype)
        log_mass[::7] = -torch.inf
        close(rule, "cells", x, atol=tolerance)
        close(rule, "cells", x, y, atol=tolerance)
        close(rule, "cells", x, y, y[:, :1] ** 2, log_mass=log_mass, atol=tolerance)


def test_cells_decide_the_radius_as_the_reference_does():
    import torch

    line = torch.arange(40.0, dtype=torch.float64)
    lattice = torch.stack(torch.meshgrid(line[:15], line[:15], indexing="ij"), -1).reshape(-1, 2)
    for x in (line[:, None], lattice):
        for closed in (True, False):
            close(kd.bounded_confidence(1.0, closed=closed), "cells", x, atol=0)
    for rule, message in (
        (kd.bounded_confidence(1.0, kd.Others()), "one Within"),
        (kd.softmax(1.0, kd.Within(1.0)), "flat and Gaussian"),
        (kd.krause(0.01, kd.Within(1.0)), "falls to e"),
    ):
        with pytest.raises(kd.UnsupportedImplementation, match=message):
            kd.aggregate(rule, line[:, None], impl="cells")
    with pytest.raises(ValueError, match="too small for the extent"):
        kd.aggregate(kd.bounded_confidence(1e-12), 1e3 * lattice, impl="cells")


def test_gradients_through_auto_equal_the_reference(rng):
    import torch

    start = rng.standard_normal((40, 3))
    for rule in (kd.softmax(2.0), kd.krause(0.7, kd.Causal())):
        gradients = []
        for impl in ("auto", "reference"):
            x = torch.tensor(start, requires_grad=True)
            kd.aggregate(rule, x, impl=impl).mean.square().sum().backward()
            gradients.append(x.grad)
        np.testing.assert_allclose(gradients[0], gradients[1], atol=1e-12)


def test_gradients_of_many_particles_by_recomputation(rng, monkeypatch):
    """Positions, values, masses and the bandwidth: the same gradients, from both results, block by block."""
    import torch

    from krause_dynamics.forms import recomputed

    monkeypatch.setattr(recomputed, "CPU_PAIRS", 200)
    start = [rng.standard_normal(shape) for shape in ((2, 30, 3), (2, 40, 3), (2, 40, 2), (40,))]
    for neighbourhood in (kd.Everyone(), kd.Within(2.0), kd.TopK(5)):
        gradients = []
        for impl in ("recomputed", "reference"):
            tensors = [torch.tensor(x, requires_grad=True) for x in start]
            sigma = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
            x, y, v, log_mass = tensors
            result = kd.aggregate(kd.krause(sigma, neighbourhood), x, y, v, log_mass=log_mass, impl=impl)
            (result.mean.square().sum() + result.log_partition.sin().sum()).backward()
            gradients.append([t.grad for t in (*tensors, sigma)])
        for ours, theirs in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    monkeypatch.undo()
    many = torch.zeros(1500, 2, requires_grad=True)
    assert kd.plan(kd.softmax(1.0), many).impl == "recomputed"
    with torch.no_grad():
        assert kd.plan(kd.softmax(1.0), many).impl == "blocked"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["softmax", "repelling", "gaussian", "causal", "sigma per run"])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 3e-2), ("float64", 1e-12)])
def test_gpu_equals_the_reference(name, dtype, tolerance, rng):
    import torch

    for n, d in ((129, 3), (1000, 64)):
        x = torch.from_numpy(rng.standard_normal((2, n, d)) / d**0.5).to(getattr(torch, dtype)).cuda()
        got = kd.aggregate(RULES[name], x, impl="blocked" if dtype == "float64" else "sdpa")
        expected = kd.aggregate(RULES[name], x.double(), impl="reference")
        torch.testing.assert_close(got.mean.double(), expected.mean, atol=tolerance, rtol=0)
        torch.testing.assert_close(got.log_partition.double(), expected.log_partition, atol=4 * tolerance, rtol=0)
