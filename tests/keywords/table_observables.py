"""Synchronization of a cloud: each measure by its formula in numpy, masses as copies, -inf as absence."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from scipy.spatial.distance import pdist

import krause_dynamics as kd
from tests.keywords.row import row

ob = kd.observables
CLOUD = np.random.default_rng(91).standard_normal((8, 3)) + 0.4
BATCH = np.random.default_rng(92).standard_normal((4, 6, 3))
COUNTS = np.array([1, 2, 1, 3, 1, 1, 2, 1])
ABSENT = np.where(np.arange(8) % 3 == 0, -np.inf, 0.7)
TURN = np.linalg.qr(np.random.default_rng(93).standard_normal((3, 3)))[0]


def unit(x):
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def mean_cosine(x):
    cosines = unit(x) @ unit(x).T
    return cosines[~np.eye(len(x), dtype=bool)].mean()


def composite(x):
    def norm(a):
        return np.sqrt(np.abs(a).sum(axis=0).max() * np.abs(a).sum(axis=1).max())

    return norm(x - x.mean(axis=0)) / norm(x)


# By formula for equal masses. Where masses count, a mass of 3 is three copies; elsewhere only -inf matters.
FORMULAS = {
    "order_parameter": lambda x: np.linalg.norm(unit(x).mean(axis=0)),
    "dispersion": lambda x: x.var(axis=0).sum(),
    "residual": lambda x: np.linalg.norm(x - x.mean(axis=0)) / np.linalg.norm(x),
    "diameter": lambda x: pdist(x).max(),
    "residual_composite": composite,
    "norm_ratio": lambda x: np.linalg.norm(x[0]) / np.median(np.linalg.norm(x, axis=1)),
    "mean_cosine": mean_cosine,
}


def points(name, first, second):
    measure, formula = getattr(ob, name), FORMULAS[name]
    for x in (first, second):
        flat = x.reshape(-1, *x.shape[-2:])
        expected = np.reshape([formula(one) for one in flat], x.shape[:-2])
        np.testing.assert_allclose(measure(x), expected, rtol=1e-12)
        np.testing.assert_allclose(measure(7.0 * x), 7.0 ** POWERS.get(name, 0) * expected, rtol=1e-12)
        if name != "residual_composite":  # a norm of columns depends on the axes
            np.testing.assert_allclose(measure(x @ TURN), expected, rtol=1e-12)


POWERS = {"dispersion": 2, "diameter": 1}
for name in FORMULAS:
    states = "its formula in numpy, for one state or many; rotations and scales act as they must"
    row(f"kd.observables.{name}", "points", CLOUD, BATCH, states)(partial(points, name))


def copies(name, first, second):
    measure, formula = getattr(ob, name), FORMULAS[name]
    np.testing.assert_allclose(measure(CLOUD, log_mass=first), formula(CLOUD), rtol=1e-12)
    repeated = formula(np.repeat(CLOUD, COUNTS, axis=0))
    np.testing.assert_allclose(measure(CLOUD, log_mass=second), repeated, rtol=1e-12)
    np.testing.assert_allclose(measure(CLOUD, log_mass=ABSENT), formula(CLOUD[ABSENT > 0]), rtol=1e-12)


def absence(name, first, second):
    measure, formula = getattr(ob, name), FORMULAS[name]
    np.testing.assert_allclose(measure(CLOUD, log_mass=first), formula(CLOUD), rtol=1e-12)
    padded = np.where(second[:, None] > -np.inf, CLOUD, np.nan)
    np.testing.assert_allclose(measure(padded, log_mass=second), formula(CLOUD[second > -np.inf]), rtol=1e-12)
    np.testing.assert_allclose(measure(CLOUD, log_mass=np.log(COUNTS)), formula(CLOUD), rtol=1e-12)


for name in ("order_parameter", "dispersion", "residual"):
    states = "a mass of 3 is three copies, -inf is absence; equal masses by default"
    row(f"kd.observables.{name}", "log_mass", None, np.log(COUNTS), states)(partial(copies, name))
for name in ("diameter", "residual_composite", "norm_ratio"):
    states = "-inf is absence, whatever stands there; other masses do not matter"
    row(f"kd.observables.{name}", "log_mass", None, ABSENT, states)(partial(absence, name))


@row(
    "kd.observables.mean_cosine",
    "log_mass",
    None,
    np.log(COUNTS),
    "the mean over pairs i != j weighted by p_i p_j; -inf is absence",
)
def cosine_log_mass(first, second):
    share = COUNTS / COUNTS.sum()
    pairs = np.outer(share, share) * ~np.eye(8, dtype=bool)
    expected = (pairs * (unit(CLOUD) @ unit(CLOUD).T)).sum() / pairs.sum()
    assert ob.mean_cosine(CLOUD, log_mass=second) == pytest.approx(expected, rel=1e-12)
    assert ob.mean_cosine(CLOUD, log_mass=first) == pytest.approx(mean_cosine(CLOUD), rel=1e-12)
    assert ob.mean_cosine(CLOUD, log_mass=ABSENT) == pytest.approx(mean_cosine(CLOUD[ABSENT > 0]), rel=1e-12)


@row(
    "kd.observables.norm_ratio",
    "token",
    0,
    2,
    "that token's norm over the median; counted among those present; beyond the end refused",
)
def token(first, second):
    norms = np.linalg.norm(CLOUD, axis=1)
    for which in (first, second):
        assert ob.norm_ratio(CLOUD, which) == pytest.approx(norms[which] / np.median(norms), rel=1e-13)
        there = norms[ABSENT > 0]
        assert ob.norm_ratio(CLOUD, which, log_mass=ABSENT) == pytest.approx(there[which] / np.median(there), rel=1e-13)
    assert ob.norm_ratio(CLOUD) == ob.norm_ratio(CLOUD, first)
    with pytest.raises(ValueError, match="token"):
        ob.norm_ratio(CLOUD, 8)


@row("kd.observables.directions", "points", CLOUD, BATCH, "unit vectors along the points; the origin stays where it is")
def directions(first, second):
    for x in (first, second):
        u = ob.directions(x)
        np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1.0, rtol=1e-14)
        np.testing.assert_allclose(u * np.linalg.norm(x, axis=-1, keepdims=True), x, rtol=1e-13)
    np.testing.assert_array_equal(ob.directions(np.zeros((2, 3))), 0.0)


GROWING = CLOUD * np.array([1.0, 1.5, 1.2])[:, None, None]


@row(
    "kd.observables.mean_step",
    "positions",
    GROWING,
    BATCH,
    "steps relative to the norm before: growth by 3/2 is 0.5, by 4/5 is 0.2; else by loops",
)
def mean_step(first, second):
    np.testing.assert_allclose(ob.mean_step(first), [0.5, 0.2], rtol=1e-13)
    steps = np.linalg.norm(np.diff(second, axis=0), axis=-1) / np.linalg.norm(second[:-1], axis=-1)
    np.testing.assert_allclose(ob.mean_step(second), steps.mean(axis=1), rtol=1e-13)
    with pytest.raises(ValueError, match="positions"):
        ob.mean_step(second[:1])


@row(
    "kd.observables.mean_step",
    "log_mass",
    None,
    np.log(COUNTS[:6]),
    "a mass of 3 is three copies; equal masses by default",
)
def mean_step_log_mass(first, second):
    copies = np.repeat(BATCH, COUNTS[:6], axis=1)
    np.testing.assert_allclose(ob.mean_step(BATCH, log_mass=second), ob.mean_step(copies), rtol=1e-12)
    steps = np.linalg.norm(np.diff(BATCH, axis=0), axis=-1) / np.linalg.norm(BATCH[:-1], axis=-1)
    np.testing.assert_allclose(ob.mean_step(BATCH, log_mass=first), steps.mean(axis=1), rtol=1e-13)


def moved(x):
    """Rotated, scaled and shifted."""
    return 2.5 * x @ TURN + 1.0


OTHER = np.random.default_rng(94).standard_normal((8, 3))


def procrustes(name, first, second):
    for value in (first, second):
        given = {"x": CLOUD, "y": OTHER} | {name: value}
        assert ob.procrustes_residual(moved(value), value) < 1e-7  # the root of a rounding of 1e-15
        a, b = (z - z.mean(axis=0) for z in given.values())
        turn, scale = orthogonal_procrustes(a, b)
        rest = np.linalg.norm(scale / np.sum(a * a) * a @ turn - b) / np.linalg.norm(b)
        assert ob.procrustes_residual(**given) == pytest.approx(rest, rel=1e-10)


def cka(name, first, second):
    for value in (first, second):
        given = {"x": CLOUD, "y": OTHER} | {name: value}
        assert ob.linear_cka(moved(value), value) == pytest.approx(1.0, rel=1e-12)
        a, b = (z - z.mean(axis=0) for z in given.values())
        plain = np.linalg.norm(b.T @ a) ** 2 / np.linalg.norm(a.T @ a) / np.linalg.norm(b.T @ b)
        assert ob.linear_cka(**given, debiased=False) == pytest.approx(plain, rel=1e-12)


WIDE = np.random.default_rng(95).standard_normal((8, 3)) ** 3
for name, first, second in (("x", CLOUD, WIDE), ("y", OTHER, WIDE)):
    row("kd.observables.procrustes_residual", name, first, second, "what scipy's best rotation and scale leave")(
        partial(procrustes, name)
    )
    row("kd.observables.linear_cka", name, first, second, "1 for a moved copy; else |Y'X|^2 / (|X'X| |Y'Y|)")(
        partial(cka, name)
    )


@row(
    "kd.observables.linear_cka",
    "debiased",
    True,
    False,
    "independent clouds of n < d: 0 on average without bias, near 1 with it",
)
def debiased(first, second):
    rng = np.random.default_rng(96)
    pairs = rng.standard_normal((200, 2, 16, 64))
    x, y = pairs[:, 0], pairs[:, 1]
    fair, biased = (ob.linear_cka(x, y, debiased=flag) for flag in (first, second))
    assert abs(fair.mean()) < 5 * fair.std() / np.sqrt(200)  # five standard errors
    assert biased.min() > 0.5
    np.testing.assert_array_equal(ob.linear_cka(x, y), fair)
