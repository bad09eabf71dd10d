"""What a `Dynamics` adds to the rule: matrices, heads, stubborn particles, external drift, borders of the space."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import krause_dynamics as kd


def test_heads_are_summed(rng, library):
    x, q, k, v = rng.normal(size=(6, 4)), *(rng.normal(size=(3, 4, 4)) for _ in range(3))
    together = kd.Dynamics(kd.softmax(0.3), query=library(q), key=library(k), value=library(v), relative=False)
    expected = sum(np.asarray(kd.aggregate(kd.softmax(0.3), x @ q[h].T, x @ k[h].T, x @ v[h].T).mean) for h in range(3))
    np.testing.assert_allclose(together.drift(0.0, library(x)), expected, atol=1e-12)
    batch = np.stack([x, 2 * x])  # runs along a leading axis see the same matrices
    np.testing.assert_allclose(np.asarray(together.drift(0.0, library(batch)))[0], expected, atol=1e-12)


def test_heads_with_a_parameter_each(rng):
    x, sigma = rng.normal(size=(5, 2)), np.array([[0.5], [2.0]])
    eye = np.stack([np.eye(2)] * 2)
    both = kd.Dynamics(kd.krause(sigma), value=eye).drift(0.0, x)
    one_by_one = sum(kd.Dynamics(kd.krause(float(s))).drift(0.0, x) for s in sigma[:, 0])
    np.testing.assert_allclose(both, one_by_one, atol=1e-12)


@pytest.mark.parametrize("normalised", [True, False])
def test_relative_drift_with_a_value_matrix(normalised, rng):
    """sum_j a_ij V (x_j - x_i), masses 1/n when per capita."""
    x, v = rng.normal(size=(6, 2)), rng.normal(size=(2, 2))
    affinity = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / 2)
    a = affinity / (affinity.sum(1, keepdims=True) if normalised else 6)
    expected = np.einsum("ij,ijd->id", a, (x[None] - x[:, None]) @ v.T)
    got = kd.Dynamics(kd.krause(1.0, normalised=normalised), value=v).drift(0.0, x)
    np.testing.assert_allclose(got, expected, atol=1e-12)


def test_nobody_in_reach_means_no_motion():
    x = np.array([[0.0], [0.3], [9.0]])
    for normalised in (True, False):
        rule = kd.bounded_confidence(0.5, kd.Others(), normalised=normalised)
        assert kd.Dynamics(rule).drift(0.0, x)[2, 0] == 0.0


@pytest.mark.parametrize("matrix", ["query", "key"])
@pytest.mark.parametrize("neighbourhood", [kd.Within(0.5), kd.Within(0.5) & kd.TopK(2), kd.Within(0.5) & kd.Window(2)])
def test_with_matrices_nobody_may_be_in_reach_not_even_oneself(matrix, neighbourhood):
    """|5 x_i - x_j| > 1/2 for all pairs of the first two: they rest, and the third at 0 hears itself alone."""
    x = np.array([[1.0], [1.2], [0.0]])
    for rule in (kd.krause(1.0, neighbourhood), kd.Interaction(kd.Flat(), neighbourhood, normalised=False)):
        dynamics = kd.Dynamics(rule, **{matrix: np.array([[5.0]])})
        np.testing.assert_array_equal(dynamics.drift(0.0, x), 0.0)
    heads = kd.Dynamics(kd.bounded_confidence(0.5), **{matrix: np.array([[[5.0]], [[1.0]]])})
    alone = kd.Dynamics(kd.bounded_confidence(0.5)).drift(0.0, x)  # of the second head, where the first rests
    np.testing.assert_allclose(heads.drift(0.0, x), alone, atol=1e-15)


def test_fixed_particles_are_heard_but_stay(rng):
    x = rng.normal(size=(4, 2))
    dynamics = kd.Dynamics(kd.krause(1.0), fixed=[True, False, False, True])
    drift = dynamics.drift(0.0, x)
    np.testing.assert_array_equal(drift[[0, 3]], 0)
    np.testing.assert_allclose(drift[1:3], kd.Dynamics(kd.krause(1.0)).drift(0.0, x)[1:3])
    with pytest.raises(ValueError, match=r"fixed must have shape \(n,\) = \(4,\)"):
        kd.Dynamics(kd.krause(1.0), fixed=[True]).drift(0.0, x)


def test_external_drift_is_projected(rng):
    x = kd.Sphere().sample(5, 3, rng=0)
    dynamics = kd.Dynamics(kd.softmax(1.0), kd.Sphere(), external=lambda t, y: np.full_like(y, t))
    drift = dynamics.drift(2.0, x)
    np.testing.assert_allclose((drift * x).sum(-1), 0, atol=1e-14)
    assert np.abs(drift - dynamics.drift(0.0, x)).max() > 0.1


def test_rules_and_matrices_may_vary_in_time(rng):
    x = rng.normal(size=(5, 2))
    dynamics = kd.Dynamics(lambda t: kd.krause(1.0 + t), value=lambda t: np.eye(2) * t)
    expected = 3.0 * kd.Dynamics(kd.krause(4.0)).drift(0.0, x)
    np.testing.assert_allclose(dynamics.drift(3.0, x), expected, atol=1e-12)


def test_pre_norm_reads_the_normalised_position(rng):
    x = 3 * rng.normal(size=(5, 3))
    sphere = kd.Sphere()
    dynamics = kd.Dynamics(kd.softmax(2.0), read=sphere.retract, relative=False)
    np.testing.assert_allclose(
        dynamics.drift(0.0, x), kd.aggregate(kd.softmax(2.0), sphere.retract(x)).mean, atol=1e-14
    )


@pytest.mark.parametrize("d", [1, 2])
def test_torus_is_translation_invariant_across_the_border(d, rng):
    torus = kd.Torus(5.0)
    x = rng.uniform(0, 5, (30, d))
    for rule in (kd.bounded_confidence(0.8), kd.krause(0.4, kd.Within(1.1)), kd.krause(0.3)):
        here = kd.Dynamics(rule, torus).drift(0.0, x)
        there = kd.Dynamics(rule, torus).drift(0.0, torus.retract(x + 1.7))
        np.testing.assert_allclose(there, here, atol=1e-12)
    with pytest.raises(ValueError, match="unbounded reach"):
        kd.Dynamics(kd.softmax(1.0), torus).drift(0.0, x)


@pytest.mark.parametrize("name", ["query", "key"])
@pytest.mark.parametrize("space", [kd.Torus(1.0), kd.Interval(0.0, 1.0, mirror=True)])
def test_matrices_that_have_no_periodic_form_are_refused(space, name):
    """2 x wrapped is no position of the torus that a shift by a period leaves alone: who is near whom would change."""
    moved = kd.Dynamics(kd.bounded_confidence(0.3), space, **{name: np.array([[2.0]])})
    with pytest.raises(ValueError, match=f"{name} must be None where sources are heard through a border"):
        moved.drift(0.0, np.array([[0.1], [0.8]]))
    cells = kd.mean_field.uniform(kd.mean_field.LineCells(40, 0.0, 1.0), (0.0, 0.5))
    with pytest.raises(ValueError, match=f"{name} must be None"):
        kd.mean_field.solve(moved, cells, 1.0)


def test_walls_without_mirrors_take_matrices(rng):
    """Nobody is heard behind such a wall, so inside the interval the drift is that of the line."""
    x, query = rng.uniform(0.0, 1.0, (9, 1)), np.array([[2.0]])
    walled = kd.Dynamics(kd.bounded_confidence(0.3), kd.Interval(0.0, 1.0), query=query).drift(0.0, x)
    np.testing.assert_array_equal(walled, kd.Dynamics(kd.bounded_confidence(0.3), query=query).drift(0.0, x))


def test_value_heads_on_a_torus_are_those_of_each_run(rng):
    """V (y_j - y_i) of the image that is heard, summed over heads, each run of a batch as alone."""
    x, v = rng.uniform(0, 3, (2, 7, 2)), rng.normal(size=(2, 2, 2))
    torus, rule = kd.Torus(3.0), kd.krause(0.5, kd.Within(1.2))
    together = kd.Dynamics(rule, torus, value=v).drift(0.0, x)
    for run, moved in zip(x, together, strict=True):
        alone = kd.Dynamics(rule, torus).drift(0.0, run)
        np.testing.assert_allclose(moved, alone @ v.sum(axis=0).T, atol=1e-12)


def test_torus_equals_a_long_periodic_chain(rng):
    x = rng.uniform(0, 3, (20, 1))
    chain = np.concatenate([x - 3, x, x + 3])
    for rule in (kd.bounded_confidence(0.9), kd.bounded_confidence(0.9, normalised=False)):
        log_mass = np.full(60, -np.log(20))
        expected = kd.Dynamics(rule).drift(0.0, chain, log_mass)[20:40]
        np.testing.assert_allclose(kd.Dynamics(rule, kd.Torus(3.0)).drift(0.0, x), expected, atol=1e-12)


def test_mirror_walls_stop_the_pull_of_the_edge():
    lattice = (np.arange(50.0)[:, None] + 0.5) / 50  # its even extension is the infinite lattice, which rests
    moving = kd.Dynamics(kd.bounded_confidence(0.105), kd.Interval(0, 1)).drift(0.0, lattice)
    still = kd.Dynamics(kd.bounded_confidence(0.105), kd.Interval(0, 1, mirror=True)).drift(0.0, lattice)
    assert np.abs(moving).max() > 0.01
    np.testing.assert_allclose(still, 0, atol=1e-14)


def test_numpy_and_torch_agree(rng):
    import torch

    x = kd.Sphere().sample(12, 4, rng=3)
    for rule in (kd.softmax(2.0), kd.krause(0.5, kd.Within(0.9)), kd.krause(0.5, kd.Window(5) & kd.TopK(2))):
        dynamics = kd.Dynamics(rule, kd.Sphere())
        ours = kd.simulate(dynamics, x, 1.0, dt=0.1).final
        theirs = kd.simulate(dynamics, torch.from_numpy(x), 1.0, dt=0.1).final
        np.testing.assert_allclose(theirs, ours, atol=1e-12)


def test_a_dynamics_called_is_its_drift(rng):
    sphere = kd.Sphere()
    dynamics, x = kd.Dynamics(kd.softmax(1.0), sphere), sphere.sample(6, 3, rng)
    for project in (True, False):
        np.testing.assert_array_equal(dynamics(0.0, x, project=project), dynamics.drift(0.0, x, project=project))
    heard = np.asarray(kd.aggregate(kd.softmax(1.0), x, x, x).mean)
    np.testing.assert_allclose(dynamics(0.0, x, project=False), heard, atol=1e-14)


def test_a_space_of_ones_own_retracts_every_step(rng):
    """A compiled form moves points by itself in the flat space and on the sphere alone."""

    class Disc(kd.Euclidean):
        def retract(self, x):
            return np.clip(x, -0.5, 0.5)

    x, rule = rng.uniform(-0.5, 0.5, (6, 2)), kd.softmax(1.0)
    inside, outside = (
        kd.simulate(kd.Dynamics(rule, space, relative=False), x, 4.0, dt=0.5, impl="compiled", save_at=[]).final
        for space in (Disc(), kd.Euclidean())
    )
    assert np.abs(inside).max() <= 0.5 < np.abs(outside).max()
    for space in (kd.Euclidean(), kd.Sphere()):
        flow = kd.Dynamics(rule, space).bind(space.retract(x), impl="compiled")
        assert flow.many_steps(kd.Euler().scheme(), 0.5) is not None


def test_pair_bias_follows_its_owner_across_the_border(rng):
    """A source seen through the border has the bias of its owner: the shortest way round, by hand."""
    x, bias = rng.random((7, 1)), rng.normal(size=(7, 7))
    rule = replace(kd.bounded_confidence(0.3), pair_bias=bias)
    drift = kd.Dynamics(rule, kd.Torus(1.0)).drift(0.0, x)
    shift = (x[None, :, 0] - x[:, None, 0] + 0.5) % 1.0 - 0.5
    weight = np.exp(bias) * (np.abs(shift) <= 0.3)
    np.testing.assert_allclose(drift[:, 0], (weight * shift).sum(1) / weight.sum(1), atol=1e-13)


def test_a_gradient_flow_needs_symmetry_to_rounding(rng):
    symmetric = rng.normal(size=(3, 3))
    symmetric += symmetric.T
    np.testing.assert_array_equal(kd.matrices.gradient_flow(symmetric, np.eye(3)), symmetric)
    askew = symmetric.copy()
    askew[0, 1] += 1e-6 * np.abs(symmetric[0, 1])
    with pytest.raises(ValueError, match="must be symmetric"):
        kd.matrices.gradient_flow(askew, np.eye(3))


def test_every_run_of_a_batch_has_its_own_matrices(rng, library):
    x, values = kd.Sphere().sample(6, 3, 0), rng.normal(size=(5, 2, 3, 3))
    dynamics = kd.Dynamics(kd.softmax(1.3), kd.Sphere(), value=library(values))
    batch = np.asarray(dynamics.drift(0.0, library(np.stack([x] * 5))))
    for one, value in zip(batch, values, strict=True):
        alone = kd.Dynamics(kd.softmax(1.3), kd.Sphere(), value=value).drift(0.0, x)
        np.testing.assert_allclose(one, alone, atol=1e-12)
    with pytest.raises(ValueError, match=r"\(\*batch, heads, d', d\)"):
        dynamics.drift(0.0, library(np.stack([x] * 4)))


@pytest.mark.parametrize("scheme", ["post", "pre", "peri", "ngpt", "scaled", "pre_scaled", "mix"])
def test_normalised_layers_are_values_and_run_in_every_library(scheme, library):
    dynamics = kd.layer_normed(kd.softmax(2.0), scheme, rate=0.5, switch=0.4)
    x = kd.Sphere().sample(7, 3, 1)
    here = kd.simulate(dynamics, x, 1.0, dt=0.1).final
    np.testing.assert_allclose(np.asarray(kd.simulate(dynamics, library(x), 1.0, dt=0.1).final), here, atol=1e-12)
    if dynamics.read is None:  # a function is stored by name only
        assert kd.from_dict(dynamics.to_dict()) == dynamics


def test_a_killed_run_of_normalised_layers_ends_with_the_same_numbers(tmp_path):
    dynamics, x = kd.layer_normed(kd.softmax(2.0), "mix", switch=0.5), kd.Sphere().sample(7, 3, 1)
    whole = kd.simulate(dynamics, x, 1.0, dt=0.1)

    def interrupt(t, state):
        if t > 0.55:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        kd.simulate(dynamics, x, 1.0, dt=0.1, on_save=interrupt, checkpoint=tmp_path / "run.npz", checkpoint_every=0.0)
    resumed = kd.simulate(dynamics, x, 1.0, dt=0.1, checkpoint=tmp_path / "run.npz")
    np.testing.assert_array_equal(resumed.positions, whole.positions)
    other = kd.layer_normed(kd.softmax(2.0), "mix", switch=0.7)
    with pytest.raises(ValueError, match="run"):
        kd.simulate(other, x, 1.0, dt=0.1, checkpoint=tmp_path / "run.npz")


def test_spectra_know_the_response(rng):
    """nGPT near consensus: directions close at its rate, where Post-LN closes at 1."""
    x = np.tile([[1.0, 0.0, 0.0]], (4, 1))
    for scheme, rate in (("ngpt", 0.5), ("post", 1.0)):
        dynamics = kd.layer_normed(kd.softmax(2.0), scheme, rate=0.5)
        rates = np.sort(np.linalg.eigvals(kd.jacobian(dynamics, x, tangent=True)).real)
        np.testing.assert_allclose(rates, [-rate] * 6 + [0.0] * 2, atol=1e-9)


def test_mean_fields_know_the_response():
    """LN-scaling is Post-LN on the clock 2 sqrt(t + 1) - 2; nGPT is held against particles at the quantiles."""
    mf = kd.mean_field
    start = mf.from_function(mf.CircleCells(128), lambda a: 1 + 0.5 * np.cos(a))
    post = mf.solve(kd.Dynamics(kd.softmax(1.0), kd.Circle()), start, 2.0, save_at=2)
    fading = replace(kd.layer_normed(kd.softmax(1.0), "scaled"), space=kd.Circle())
    scaled = mf.solve(fading, start, 3.0, save_at=2)
    one, other = (mf.density_at(run).mass for run in (post, scaled))
    assert np.abs(one - start.mass).max() > 5e-3
    np.testing.assert_allclose(other, one, atol=2e-5)  # of the steps in time, whose lengths differ
    unit = replace(kd.layer_normed(kd.softmax(1.0), "ngpt", rate=0.5), space=kd.Circle())
    density = mf.density_at(mf.solve(unit, start, 1.0, save_at=2))
    angles = density.cells.centres
    order = np.hypot(density.mass @ np.cos(angles), density.mass @ np.sin(angles))
    followed = kd.observables.order_parameter(mf.follow(unit, start, 1.0).final)
    assert order == pytest.approx(float(followed), abs=2e-3)  # of 128 cells
