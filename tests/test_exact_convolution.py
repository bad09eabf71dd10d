"""The convolution on uniform grids equals the dense reference, also where transforms alone would fail."""

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics.forms.lattice import convolution
from krause_dynamics.forms.lattice.lattices import find_lattice
from krause_dynamics.interaction import Request, reference

N = 300
FACES = np.linspace(0.0, 10.0, N + 1)[1:-1, None]
CENTRES = ((np.arange(N) + 0.5) * 10 / N)[:, None]
CIRCLE = kd.Circle()
ANGLES = np.arange(N) * 2 * np.pi / N

LINE_RULES = {
    "bounded confidence": kd.bounded_confidence(1.0),
    "radius within a cell": kd.bounded_confidence(0.777),
    "per capita": kd.bounded_confidence(1.0, normalised=False),
    "gaussian": kd.krause(0.5),
    "truncated gaussian": kd.krause(0.5, kd.Within(1.0)),
    "radial": kd.Interaction(kd.Radial(lambda r: (1 + r * r) ** -0.5)),
}
CIRCLE_RULES = {
    "softmax": kd.softmax(4.0),
    "sharp softmax": kd.softmax(100.0),
    "truncated gaussian": kd.krause(0.3, kd.Within(0.5)),
    "bounded confidence": kd.bounded_confidence(0.5),
}


def compare(rule, queries, sources, log_mass, values=None):
    """Largest errors of mean and log-partition among all rows, and among those whose partition is not tiny."""
    request = Request.of(queries, sources, values, log_mass=log_mass)
    fast = kd.aggregate(rule, queries, sources, values, log_mass=log_mass, impl="convolution")
    exact = reference.aggregate(rule, request)
    heard = np.isfinite(exact.log_partition)
    np.testing.assert_array_equal(np.isfinite(fast.log_partition), heard)
    errors = np.abs(fast.mean - exact.mean).max(axis=-1)
    errors[heard] += np.abs(fast.log_partition[heard] - exact.log_partition[heard])
    clear = exact.log_partition > exact.log_partition.max() - np.log(1e3)
    return errors.max(), errors[clear].max()


def masses(kind, place):
    """Log-masses: rough, a hump, and a peak so sharp that most of the grid is a vacuum of e^-7500."""
    rng = np.random.default_rng(3)
    return {"rough": rng.normal(size=N), "hump": -8 * (place - 5) ** 2, "vacuum": -300 * (place - 5) ** 2}[kind]


@pytest.mark.parametrize("kind", ["rough", "hump", "vacuum"])
@pytest.mark.parametrize("name", LINE_RULES)
def test_equals_reference_on_a_line(name, kind):
    everywhere, clear = compare(LINE_RULES[name], FACES, CENTRES, masses(kind, CENTRES[:, 0]))
    assert clear < 3e-12  # positions up to 10: 1e-12 relative, noise 1e-15 times a partition ratio of 1e3
    assert everywhere < 1e-7  # rows worse than 1e-8 relative are summed again


@pytest.mark.parametrize("name", CIRCLE_RULES)
@pytest.mark.parametrize("sharpness", [0.0, 3.0, 300.0])
def test_equals_reference_on_the_circle(name, sharpness):
    faces, centres = CIRCLE.from_angles(ANGLES), CIRCLE.from_angles(ANGLES + np.pi / N)
    everywhere, clear = compare(CIRCLE_RULES[name], faces, centres, sharpness * np.cos(ANGLES))
    assert clear < 1e-12
    assert everywhere < 1e-7


def test_flat_windows_are_exact_in_any_vacuum():
    # 600 orders of magnitude between neighbours of one window: differences of prefix sums would be noise.
    everywhere, _ = compare(kd.bounded_confidence(1.0), FACES, CENTRES, -300 * (CENTRES[:, 0] - 5) ** 2)
    assert everywhere < 1e-10  # of log-partitions around -7500


def test_a_window_of_one_height_adds_the_height():
    def rule(height):
        return kd.Interaction(kd.Radial(lambda r: height + 0 * r), kd.Within(1.0))

    low, high = (kd.aggregate(rule(height), FACES, CENTRES, impl="convolution") for height in (1.0, 3.0))
    np.testing.assert_allclose(high.log_partition, low.log_partition + np.log(3.0), rtol=1e-15)
    np.testing.assert_array_equal(high.mean, low.mean)
    assert compare(rule(3.0), FACES, CENTRES, masses("rough", CENTRES[:, 0]))[0] < 3e-12


def test_clear_rows_eat_their_way_into_a_vacuum(monkeypatch):
    """On both sides of a hump whose slopes a few tilts level; one by one would be O(n) for each row."""

    def refuse(*_):
        raise AssertionError("rows were summed one by one")

    monkeypatch.setattr(convolution, "log_sums", refuse)
    request = Request.of(FACES, CENTRES, log_mass=masses("hump", CENTRES[:, 0]))
    table = convolution.table_of(kd.krause(0.5), find_lattice(request), request)
    clear = convolution._sums(table, request.log_mass, CENTRES).clear
    assert not clear[0]
    assert not clear[-1]
    assert clear.any()
    assert compare(kd.krause(0.5), FACES, CENTRES, request.log_mass)[0] < 1e-7


@pytest.mark.parametrize("n", [211, 300])  # the transform of a circle has its own length, a prime one too
@pytest.mark.parametrize("turn", [0.0, 0.7, 3.0])
def test_the_circle_may_be_turned_and_have_any_number_of_places(n, turn):
    angles = turn + np.arange(n) * 2 * np.pi / n
    queries, sources = CIRCLE.from_angles(angles), CIRCLE.from_angles(angles + 1.0)
    assert find_lattice(Request.of(queries, sources)).offset == pytest.approx(-1.0, abs=1e-14)
    for rule in CIRCLE_RULES.values():
        assert compare(rule, queries, sources, 3 * np.cos(angles))[0] < 1e-7


def test_empty_rows_and_empty_sources():
    log_mass = np.where(np.abs(CENTRES[:, 0] - 2) < 0.5, 0.0, -np.inf)
    for rule in (kd.bounded_confidence(1.0), kd.krause(0.5, kd.Within(1.0))):
        assert compare(rule, FACES, CENTRES, log_mass)[0] < 1e-11
    nobody = np.full(N, -np.inf)
    result = kd.aggregate(kd.krause(0.5), FACES, CENTRES, log_mass=nobody, impl="convolution")
    assert (result.log_partition == -np.inf).all()
    assert (result.mean == 0).all()


def test_values_of_their_own_and_offset_grids():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(N, 3)) + 100.0
    shifted = FACES[20:90] + 0.013
    assert compare(kd.krause(0.5), shifted, CENTRES, None, values)[0] < 1e-11


def test_two_functions_of_one_name_are_two_rules():
    def rule(power):
        return kd.Interaction(kd.Radial(lambda r: (1 + r) ** -power))

    means = [kd.aggregate(rule(p), FACES, CENTRES, impl="convolution").mean for p in (1, 4)]
    assert np.abs(means[0] - means[1]).max() > 0.1


def test_a_large_grid_at_a_few_rows():
    n = 100_000
    faces, centres = np.linspace(0, 10, n + 1)[1:-1, None], ((np.arange(n) + 0.5) * 10 / n)[:, None]
    log_mass = -6 * (centres[:, 0] - 4) ** 2
    rows = np.linspace(0, n - 2, 23).astype(int)
    for rule in (kd.bounded_confidence(1.0), kd.krause(0.3), kd.krause(0.3, kd.Within(1.0))):
        fast = kd.aggregate(rule, faces, centres, log_mass=log_mass, impl="convolution")
        exact = reference.aggregate(rule, Request.of(faces[rows], centres, log_mass=log_mass))
        np.testing.assert_allclose(fast.mean[rows], exact.mean, atol=1e-7)
        np.testing.assert_allclose(fast.log_partition[rows], exact.log_partition, atol=1e-7)


@pytest.mark.parametrize(
    ("rule", "queries", "reason"),
    [
        (kd.softmax(1.0), FACES, "dot product"),
        (kd.krause(1.0, kd.Causal()), FACES, "indices"),
        (kd.krause(1.0), FACES**2, "step"),
        (kd.bounded_confidence(1.0 + 0.5 * 10 / N), FACES, "equals a distance"),
        (kd.krause(1.0), np.random.default_rng(0).normal(size=(9, 3)), "dimensions"),
        (kd.krause(1.0), FACES.astype(np.float32), "float64"),
    ],
)
def test_refuses_with_the_reason(rule, queries, reason):
    sources = CENTRES.astype(queries.dtype) if queries.shape[-1] == 1 else queries
    with pytest.raises(kd.UnsupportedImplementation, match=reason):
        kd.aggregate(rule, queries, sources, impl="convolution")


@pytest.mark.parametrize("part", [0.25, -0.25])  # the radius meets sources on one side of a query alone
def test_refuses_a_radius_that_equals_a_distance_on_one_side(part):
    step = 10 / N
    with pytest.raises(kd.UnsupportedImplementation, match="equals a distance"):
        kd.aggregate(kd.bounded_confidence(0.75 * step), CENTRES + part * step, CENTRES, impl="convolution")


def test_padding_may_hold_anything_and_is_no_grid():
    padded, log_mass = CENTRES.copy(), np.zeros(N)
    padded[7], log_mass[7] = np.nan, -np.inf
    with pytest.raises(kd.UnsupportedImplementation, match="evenly spaced"):
        kd.aggregate(kd.krause(1.0), FACES, padded, log_mass=log_mass, impl="convolution")


def test_a_plan_notices_when_points_leave_the_grid():
    chosen = kd.plan(kd.krause(1.0), CENTRES, impl="convolution")
    with pytest.raises(kd.UnsupportedImplementation, match="uniform grids"):
        chosen(CENTRES**1.5)
