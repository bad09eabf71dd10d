"""What moves particles, and how: Dynamics, PerLayer, LayerStep, Adaptive, Stiff."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import solve_ivp

import krause_dynamics as kd
from tests.keywords.row import row

X = np.random.default_rng(31).standard_normal((6, 3))
U = X / np.linalg.norm(X, axis=1, keepdims=True)
M = np.random.default_rng(32).standard_normal((3, 3))
HEADS = np.random.default_rng(33).standard_normal((2, 3, 3))
CLOSE = {"rtol": 1e-11, "atol": 1e-12}


def softmax_mean(queries, keys, values, beta=1.3):
    affinity = np.exp(beta * queries @ keys.T)
    return affinity / affinity.sum(axis=1, keepdims=True) @ values


def drift(x=X, rule=None, **parts):
    return kd.Dynamics(rule or kd.softmax(1.3), **parts).drift(0.0, x)


def annealed(t):
    return kd.softmax(1.0 + t)


@row(
    "kd.Dynamics", "rule", kd.softmax(1.3), annealed, "drift A - x of the rule, or at time t of the rule in force then"
)
def rule(first, second):
    np.testing.assert_allclose(kd.Dynamics(first).drift(0.0, X), softmax_mean(X, X, X) - X, **CLOSE)
    for t in (0.0, 2.0):
        np.testing.assert_allclose(kd.Dynamics(second).drift(t, X), softmax_mean(X, X, X, 1.0 + t) - X, **CLOSE)


@row(
    "kd.Dynamics",
    "space",
    kd.Euclidean(),
    kd.Sphere(),
    "A - x in flat space; on the sphere A less its part along x, tangent",
)
def space(first, second):
    np.testing.assert_allclose(drift(U, space=first), softmax_mean(U, U, U) - U, **CLOSE)
    np.testing.assert_array_equal(drift(U), drift(U, space=first))
    heard = softmax_mean(U, U, U)
    tangent = heard - (heard * U).sum(axis=1, keepdims=True) * U
    np.testing.assert_allclose(drift(U, space=second), tangent, **CLOSE)


@row("kd.Dynamics", "query", None, M, "scores <Q x, y>: the identity by default; heads are summed over")
@row("kd.Dynamics", "key", None, M, "scores <x, K y>: the identity by default; heads are summed over")
@row("kd.Dynamics", "value", None, M, "drift A - V x of values V y: the identity by default; heads are summed over")
def matrices(first, second):
    def expected(q, k, v):
        return softmax_mean(X @ q.T, X @ k.T, X @ v.T) - X @ v.T

    one = np.eye(3)
    np.testing.assert_allclose(drift(query=first, key=first, value=first), expected(one, one, one), **CLOSE)
    np.testing.assert_allclose(drift(query=second), expected(second, one, one), **CLOSE)
    np.testing.assert_allclose(drift(key=second), expected(one, second, one), **CLOSE)
    np.testing.assert_allclose(drift(value=second), expected(one, one, second), **CLOSE)
    several = drift(query=HEADS, key=HEADS[::-1].copy(), value=HEADS * 0.5)
    summed = sum(expected(q, k, v) for q, k, v in zip(HEADS, HEADS[::-1], HEADS * 0.5, strict=True))
    np.testing.assert_allclose(several, summed, **CLOSE)


@row(
    "kd.Dynamics", "relative", True, False, "towards the mean, A - x, or along it, A; by default the habit of the space"
)
def relative(first, second):
    heard = softmax_mean(X, X, X)
    np.testing.assert_allclose(drift(relative=first), heard - X, **CLOSE)
    np.testing.assert_allclose(drift(relative=second), heard, **CLOSE)
    np.testing.assert_array_equal(drift(), drift(relative=first))
    sphere = {"space": kd.Sphere(), "value": M}
    np.testing.assert_array_equal(drift(U, **sphere), drift(U, **sphere, relative=second))


def wind(t, x):
    return np.array([1.0, 0.0, t]) + 0 * x


@row("kd.Dynamics", "external", None, wind, "added to the drift at its time, and projected with it on a sphere")
def external(first, second):
    np.testing.assert_array_equal(drift(external=first), drift())
    blown = kd.Dynamics(kd.softmax(1.3), external=second).drift(2.0, X)
    np.testing.assert_allclose(blown - drift(), np.tile([1.0, 0.0, 2.0], (6, 1)), **CLOSE)
    tangent = kd.Dynamics(kd.softmax(1.3), kd.Sphere(), external=second).drift(2.0, U)
    np.testing.assert_allclose((tangent * U).sum(axis=1), 0.0, atol=1e-14)


STUBBORN = np.array([True, False, False, True, False, False])


@row("kd.Dynamics", "fixed", None, STUBBORN, "they stand still and are heard as before; nobody does by default")
def fixed(first, second):
    free = softmax_mean(X, X, X) - X
    np.testing.assert_allclose(drift(fixed=first), free, **CLOSE)
    held = drift(fixed=second)
    np.testing.assert_array_equal(held[second], 0.0)
    np.testing.assert_allclose(held[~second], free[~second], **CLOSE)


@row(
    "kd.Dynamics",
    "noise",
    0.3,
    0.6,
    "alone a particle diffuses: variance noise^2 t, and twice the noise goes twice as far",
)
def noise(first, second):
    alone, start = kd.Interaction(kd.Flat(), kd.Window(1)), np.zeros((20_000, 1, 1))  # runs of one particle each
    ends = [kd.simulate(kd.Dynamics(alone, noise=sigma), start, 2.0, dt=0.5, rng=5).final for sigma in (first, second)]
    np.testing.assert_allclose(ends[1], 2 * ends[0], **CLOSE)
    # The variance of 20000 draws is off by 1 % (sqrt(2/n)); five of those.
    assert ends[0].var() == pytest.approx(first**2 * 2.0, rel=0.05)
    np.testing.assert_array_equal(kd.simulate(kd.Dynamics(alone), start, 2.0, dt=0.5).final, start)


@row(
    "kd.Dynamics",
    "read",
    None,
    kd.Sphere().retract,
    "pre-norm: the rule sees x/|x|, so lengths change nothing that is heard",
)
def read(first, second):
    np.testing.assert_array_equal(drift(read=first), drift())
    np.testing.assert_allclose(drift(read=second, relative=False), softmax_mean(U, U, U), **CLOSE)
    np.testing.assert_allclose(drift(7.0 * X, read=second, relative=False), softmax_mean(U, U, U), **CLOSE)


LAYERS = np.random.default_rng(34).standard_normal((3, 3, 3)) / 3


@row(
    "kd.PerLayer",
    "values",
    LAYERS,
    (kd.krause(2.0), kd.krause(0.5)),
    "layer by layer equals steps with each one alone, the last one ever after",
)
def per_layer(first, second):
    run = kd.simulate(kd.Dynamics(kd.softmax(1.3), value=kd.PerLayer(first)), X, 5.0, dt=1.0, integrator=kd.Euler())
    ruled = kd.simulate(kd.Dynamics(kd.PerLayer(second)), X, 5.0, dt=1.0, integrator=kd.Euler())
    x, y = X, X
    for layer in range(5):
        x = x + drift(x, value=first[min(layer, 2)])
        y = y + drift(y, second[min(layer, 1)])
        np.testing.assert_allclose(run[layer + 1], x, **CLOSE)
        np.testing.assert_allclose(ruled[layer + 1], y, **CLOSE)


@row("kd.LayerStep", "skip", True, False, "a layer is (x + A)/|x + A| on the sphere; without skip it is A/|A|")
def skip(first, second):
    heard = softmax_mean(U, U, U)
    for flag, moved in ((first, U + heard), (second, heard)):
        run = kd.simulate(kd.Dynamics(kd.softmax(1.3), kd.Sphere()), U, 1.0, dt=1.0, integrator=kd.LayerStep(flag))
        np.testing.assert_allclose(run.final, moved / np.linalg.norm(moved, axis=1, keepdims=True), **CLOSE)
    assert kd.LayerStep() == kd.LayerStep(skip=first)


def decay(integrator, scale=1.0, t_end=3.0):
    """x' = -x through ``external`` (everyone alone): the run and its relative error."""
    dynamics = kd.Dynamics(kd.Interaction(kd.Flat(), kd.Window(1)), external=lambda t, x: -x)
    run = kd.simulate(dynamics, np.array([[scale]]), t_end, dt=t_end, integrator=integrator)
    return run, abs(run.final[0, 0] / (scale * np.exp(-t_end)) - 1)


@row("kd.Adaptive", "rtol", 1e-5, 1e-10, "the error of x' = -x stays near it, and order 5 takes rtol^(-1/5) steps")
@row("kd.Adaptive", "atol", 1e-5, 1e-10, "the same as rtol for a state of size 1; a state of size 1e5 feels rtol alone")
def adaptive(first, second):
    def relative(rtol, scale=1.0):
        return decay(kd.Adaptive(rtol=rtol, atol=1e-15 * scale), scale)

    def absolute(atol, scale=1.0):
        return decay(kd.Adaptive(rtol=1e-14, atol=atol * scale), scale)

    for solve in (relative, absolute):
        steps = []
        for tolerance in (first, second):
            run, error = solve(tolerance)
            assert error < 30 * tolerance  # some ten steps, and exp(3) = 20 where the tolerance is absolute
            assert solve(tolerance, 1e5)[0].steps == run.steps  # in units of the state nothing changes
            steps.append(run.steps)
        # Whole numbers of steps, and a first one that is too bold: 30 % off the power law.
        assert steps[1] / steps[0] == pytest.approx((first / second) ** 0.2, rel=0.3)
    assert decay(kd.Adaptive(1e-6, 1e-9))[0].steps == decay(kd.Adaptive())[0].steps


@row(
    "kd.Adaptive", "max_steps", 1_000_000, 3, "a run that needs so many steps passes; one step less is refused by name"
)
def max_steps(first, second):
    needed = decay(kd.Adaptive(max_steps=first))[0].steps
    assert needed > second
    assert decay(kd.Adaptive(max_steps=needed))[1] < 1e-5
    for limit in (needed - 1, second):
        with pytest.raises(kd.SimulationDiverged, match=f"max_steps = {limit}"):
            decay(kd.Adaptive(max_steps=limit))


def by_scipy(method, rtol, atol):
    result = solve_ivp(lambda t, y: -y, (0.0, 3.0), [1.0], method, t_eval=[3.0], rtol=rtol, atol=atol)
    return result.y[0, -1]


@row("kd.Stiff", "method", "Radau", "BDF", "the solver of scipy of that name gives the same digits")
def stiff_method(first, second):
    for method in (first, second):
        found = decay(kd.Stiff(method))[0].final[0, 0]
        assert found == pytest.approx(by_scipy(method, 1e-6, 1e-9), rel=1e-13)
    assert kd.Stiff() == kd.Stiff(first)
    with pytest.raises(ValueError, match="method"):
        kd.Stiff("RK45")


@row("kd.Stiff", "rtol", 1e-3, 1e-9, "reaches scipy: the same digits, and an error near the tolerance")
@row("kd.Stiff", "atol", 1e-3, 1e-9, "reaches scipy: the same digits, and an error near the tolerance")
def stiff_tolerances(first, second):
    for loose in (first, second):
        for rtol, atol in ((loose, 1e-13), (1e-13, loose)):
            run, error = decay(kd.Stiff(rtol=rtol, atol=atol))
            assert run.final[0, 0] == pytest.approx(by_scipy("Radau", rtol, atol), rel=1e-13)
            assert error < 30 * loose
