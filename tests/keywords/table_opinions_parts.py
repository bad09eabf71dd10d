"""What a bounded-confidence run is made of, and what it gives: schedules, noise, truth, clusters, batches."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row


@row("kd.Deffuant", "mu", 0.5, 0.2, "a meeting leaves 1 - 2 mu of the distance and the mean; a unit of time has two")
def mu(first, second):
    for part in (first, second):
        run = kd.hegselmann_krause([0.0, 1.0], 2.0, schedule=kd.Deffuant(part), rng=0, max_steps=1)
        assert np.ptp(run.final) == pytest.approx((1 - 2 * part) ** 2, abs=1e-15)
        assert run.final.mean() == pytest.approx(0.5, abs=1e-15)
    assert kd.Deffuant() == kd.Deffuant(first)
    for wrong in (0.0, 0.6):
        with pytest.raises(ValueError, match="mu"):
            kd.Deffuant(wrong)


def ends_of_pairs(order, seeds=120):
    """How often two agents at 0 and 1 end where, after one unit of time, two draws."""
    found = {}
    for seed in range(seeds):
        run = kd.hegselmann_krause([0.0, 1.0], 2.0, schedule=kd.Sequential(order), rng=seed, max_steps=1)
        end = tuple(run.final[:, 0].tolist())
        found[end] = found.get(end, 0) + 1
    return found


@row(
    "kd.Sequential",
    "order",
    "random",
    "permutation",
    "two agents that go to their mean one by one: four outcomes alike, or two, or one where cyclic",
)
def order(first, second):
    assert set(ends_of_pairs("cyclic", seeds=3)) == {(0.5, 0.75)}
    shuffled, drawn = ends_of_pairs(second), ends_of_pairs(first)
    assert set(shuffled) == {(0.5, 0.75), (0.25, 0.5)}
    assert set(drawn) == {(0.5, 0.75), (0.25, 0.5), (0.75, 1.0), (0.0, 0.25)}
    for found in (shuffled, drawn):  # 120 draws of probability p: five standard deviations of a share
        p = 1 / len(found)
        assert all(abs(count / 120 - p) < 5 * np.sqrt(p * (1 - p) / 120) for count in found.values())
    assert kd.Sequential() == kd.Sequential(first)


CLOUD = np.full((20_000, 1), 7.0)


def disturbed(noise):
    return noise.disturb(CLOUD, np.random.default_rng(81))[:, 0]


@row(
    "kd.RandomRelocation",
    "probability",
    0.1,
    1.0,
    "that share of the agents, to five standard errors, is put elsewhere; the others stay",
)
def probability(first, second):
    for share in (first, second):
        moved = (disturbed(kd.RandomRelocation(share)) != 7.0).mean()
        assert abs(moved - share) <= 5 * np.sqrt(share * (1 - share) / len(CLOUD))
    with pytest.raises(ValueError, match="probability"):
        kd.RandomRelocation(0.0)


@row("kd.RandomRelocation", "low", 0.0, -2.0, "new opinions are uniform from low to high: ends and mean")
@row("kd.RandomRelocation", "high", 1.0, 3.0, "new opinions are uniform from low to high: ends and mean")
def relocation_interval(first, second):
    for end in (first, second):
        low, high = (end, 1.0) if end <= 0 else (0.0, end)
        new = disturbed(kd.RandomRelocation(1.0, low, high))
        width = high - low  # the extremes of 20000 uniform numbers are within 1e-3 of the ends but for e^-20
        assert low <= new.min() < low + 1e-3 * width
        assert high - 1e-3 * width < new.max() <= high
        assert new.mean() == pytest.approx((low + high) / 2, abs=5 * width / np.sqrt(12 * len(CLOUD)))
    assert kd.RandomRelocation(0.3) == kd.RandomRelocation(0.3, 0.0, 1.0)


@row(
    "kd.StepNoise", "std", 0.3, 0.9, "standard deviation of the shifts to five standard errors; the same draws, scaled"
)
def std(first, second):
    shifts = [disturbed(kd.StepNoise(value)) - 7.0 for value in (first, second)]
    for shift, value in zip(shifts, (first, second), strict=True):
        assert shift.std() == pytest.approx(value, rel=5 / np.sqrt(2 * len(CLOUD)))
    np.testing.assert_allclose(shifts[1], shifts[0] * second / first, atol=1e-13)
    with pytest.raises(ValueError, match="std"):
        kd.StepNoise(0.0)


@row(
    "kd.StepNoise",
    "law",
    "normal",
    "uniform",
    "fourth moment 3 or 9/5 of the squared variance; uniform shifts end at sqrt(3) std",
)
def law(first, second):
    normal, uniform = ((disturbed(kd.StepNoise(0.3, name)) - 7.0) / 0.3 for name in (first, second))
    assert (normal**4).mean() == pytest.approx(3.0, abs=5 * np.sqrt(96 / len(CLOUD)))  # var of z^4 is 105 - 9
    assert (uniform**4).mean() == pytest.approx(1.8, abs=5 * np.sqrt(9 - 1.8**2) / np.sqrt(len(CLOUD)))
    assert 1.73 < np.abs(uniform).max() <= np.sqrt(3) < np.abs(normal).max()
    assert kd.StepNoise(0.3) == kd.StepNoise(0.3, first)


@row("kd.StepNoise", "low", -np.inf, 6.9, "opinions below are put at the bound, the others are those of free noise")
@row("kd.StepNoise", "high", np.inf, 7.1, "opinions above are put at the bound, the others are those of free noise")
def bounds(first, second):
    free = disturbed(kd.StepNoise(0.3))
    name = "low" if second < 7.0 else "high"
    assert kd.StepNoise(0.3, **{name: first}) == kd.StepNoise(0.3)
    cut = np.maximum(free, second) if name == "low" else np.minimum(free, second)
    np.testing.assert_array_equal(disturbed(kd.StepNoise(0.3, **{name: second})), cut)


@row(
    "kd.TruthSeeking",
    "truth",
    0.7,
    np.array([0.7, -1.0]),
    "alone an agent keeps (1 - a)^t of its distance to the truth, in every coordinate",
)
def truth(first, second):
    for goal in (first, second):
        start = np.array([[3.0, 4.0]])
        run = kd.hegselmann_krause(start, 1.0, external=kd.TruthSeeking(goal, 0.25), max_steps=5)
        np.testing.assert_allclose(run.final, goal + 0.75**5 * (start - goal), rtol=1e-13)
        np.testing.assert_allclose(kd.TruthSeeking(goal, 0.25)(0.0, start), 0.25 * (goal - start), rtol=1e-14)


@row(
    "kd.TruthSeeking",
    "strength",
    0.25,
    np.array([0.0, 0.5, 1.0]),
    "(1 - a) of what was heard and a of the truth, each with its own a; outside [0, 1] refused",
)
def strength(first, second):
    heard = np.array([[1.0], [2.0], [3.0]])
    for a in (first, second):
        column = np.reshape(a, (-1, 1))
        np.testing.assert_allclose(kd.TruthSeeking(0.7, a).mix(heard), (1 - column) * heard + column * 0.7, rtol=1e-15)
    with pytest.raises(ValueError, match="strength"):
        kd.TruthSeeking(0.7, 2 * first + 1)


def lattice_end():
    """Where agents at 0 .. 5 come to rest with radius 1, in fractions."""
    x = [Fraction(i) for i in range(6)]
    for _ in range(6):
        near = [[y for y in x if abs(y - here) <= 1] for here in x]
        x = [sum(heard) / len(heard) for heard in near]
    return [float(x[0]), float(x[5])]


LEFT, RIGHT = lattice_end()  # 1.67 and 3.33
LATTICE = kd.hegselmann_krause(np.arange(6.0), 1.0)
PAIRS = kd.hegselmann_krause([[5.0, 0.0], [0.0, 0.0], [0.5, 1.0]], 2.0, weights=[2.0, 1.0, 5.0])


@row(
    "kd.final_clusters",
    "run",
    LATTICE,
    PAIRS,
    "six in a row end as three and three, by fractions; weights give the masses",
)
def final_run(first, second):
    found = kd.final_clusters(first)
    np.testing.assert_allclose(found.positions[:, 0], [LEFT, RIGHT], rtol=1e-14)
    np.testing.assert_array_equal(found.labels, [0, 0, 0, 1, 1, 1])
    weighted = kd.final_clusters(second)
    np.testing.assert_allclose(weighted.positions, [[2.5 / 6, 5 / 6], [5.0, 0.0]])
    np.testing.assert_allclose(weighted.masses, [0.75, 0.25])


@row(
    "kd.final_clusters",
    "radius",
    None,
    RIGHT - LEFT + 1e-9,
    "what lies at most so far apart is one cluster, else two; by default those that froze together",
)
def final_radius(first, second):
    assert kd.final_clusters(LATTICE, first).sizes.tolist() == [3, 3]
    joined = kd.final_clusters(LATTICE, second)
    assert joined.sizes.tolist() == [6]
    np.testing.assert_allclose(joined.positions, [[2.5]], rtol=1e-14)
    assert kd.final_clusters(LATTICE, second - 2e-9).sizes.tolist() == [3, 3]
    plain = kd.simulate(kd.Dynamics(kd.bounded_confidence(1.0)), np.arange(6.0), 1.0)
    with pytest.raises(ValueError, match="radius"):
        kd.final_clusters(plain)


def final_field(name, first, second, states):
    """A row: the field of that name, of both runs, holds the known values; also in one built with them."""

    def check(first, second):
        for run, known in ((LATTICE, first), (PAIRS, second)):
            found = kd.final_clusters(run)
            np.testing.assert_allclose(getattr(found, name), known, rtol=1e-14)
            rebuilt = kd.opinions.FinalClusters(**found._asdict() | {name: known})
            assert rebuilt[found._fields.index(name)] is known

    row("kd.opinions.FinalClusters", name, first, second, states)(check)


final_field(
    "positions", [[LEFT], [RIGHT]], [[2.5 / 6, 5 / 6], [5.0, 0.0]], "centres of mass by increasing first coordinate"
)
final_field("masses", [0.5, 0.5], [0.75, 0.25], "shares of the total weight, in the order of the positions")
final_field("sizes", [3, 3], [2, 1], "numbers of agents, in the order of the positions")
final_field("labels", [0, 0, 0, 1, 1, 1], [1, 0, 0], "the cluster of each agent, counted in the order of the positions")


RADII = np.array([0.1, 0.4])
LARGEST = np.array([[0.3, 0.5, 0.4], [1.0, 1.0, 0.7]])
COUNT = np.array([[5, 4, 5], [1, 1, 2]])
STEPS = np.array([[9, 8, 7], [3, 4, 5]])
FROZEN = np.array([[True, True, False], [True, True, True]])


def batch(**changed):
    given = {"radii": RADII, "largest": LARGEST, "clusters": COUNT, "steps": STEPS, "frozen": FROZEN}
    return kd.opinions.Batch(**given | changed)


@row("kd.opinions.Batch", "radii", RADII, 2 * RADII, "labels the rows of the Dataset")
def batch_radii(first, second):
    for radii in (first, second):
        np.testing.assert_array_equal(batch(radii=radii).to_xarray().largest.sel(radius=radii[1]), LARGEST[1])


@row("kd.opinions.Batch", "largest", LARGEST, LARGEST / 2, "mean over the samples, one number for each radius")
def batch_largest(first, second):
    np.testing.assert_allclose(batch(largest=first).mean_largest, [0.4, 0.9])
    np.testing.assert_allclose(batch(largest=second).mean_largest, [0.2, 0.45])


@row(
    "kd.opinions.Batch",
    "clusters",
    COUNT,
    COUNT + (COUNT == 1),
    "consensus is the part of the samples that end in one cluster",
)
def batch_clusters(first, second):
    np.testing.assert_allclose(batch(clusters=first).consensus, [0, 2 / 3])
    np.testing.assert_allclose(batch(clusters=second).consensus, [0, 0])


@row("kd.opinions.Batch", "steps", STEPS, STEPS[::-1], "in the Dataset by radius and sample")
@row("kd.opinions.Batch", "frozen", FROZEN, ~FROZEN, "in the Dataset by radius and sample")
def batch_fields(first, second):
    for values in (first, second):
        name = "frozen" if values.dtype == bool else "steps"
        labelled = batch(**{name: values}).to_xarray()[name]
        assert labelled.sel(radius=0.4, sample=2) == values[1, 2]
        assert labelled.sel(radius=0.1, sample=0) == values[0, 0]
