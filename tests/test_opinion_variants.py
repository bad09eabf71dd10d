"""Variants of bounded confidence: schedules, networks, truth, stubborn and noisy agents, options and bad input."""

from __future__ import annotations

import networkx
import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import _files
from krause_dynamics.runs import recording


def loop_step(x, radius, hears=None, weights=None, include_self=True):
    """One synchronous step on a line in plain Python."""
    n = len(x)
    radius = np.broadcast_to(radius, n)
    new = x.copy()
    for i in range(n):
        near = [j for j in range(n) if abs(x[j] - x[i]) <= radius[i] and (include_self or j != i)]
        near = [j for j in near if hears is None or hears[i, j]]
        if near:
            mass = np.ones(n) if weights is None else weights
            new[i] = sum(mass[j] * x[j] for j in near) / sum(mass[j] for j in near)
    return new


class TestSchedules:
    @pytest.mark.parametrize("order", ["random", "permutation", "cyclic"])
    def test_sequential_moves_one_agent_after_the_other(self, rng, order):
        x, radius = rng.random(30), 0.25
        run = kd.hegselmann_krause(x, radius, schedule=kd.Sequential(order), rng=7, max_steps=1)
        generator, n = np.random.default_rng(7), len(x)
        agents = {
            "random": lambda: generator.integers(n, size=n),
            "permutation": lambda: generator.permutation(n),
            "cyclic": lambda: np.arange(n),
        }[order]()
        for i in agents:
            x[i] = x[np.abs(x - x[i]) <= radius].mean()
        np.testing.assert_allclose(run.final[:, 0], x, rtol=0, atol=1e-15 * n)

    @pytest.mark.parametrize("normalised", [True, False])
    @pytest.mark.parametrize("own_radius", [True, False])
    def test_sequential_takes_every_influence(self, rng, normalised, own_radius):
        x, n = rng.random(15), 15
        radius = rng.random(n) * 0.5 + 0.1 if own_radius else 0.4
        run = kd.hegselmann_krause(
            x, radius, influence=kd.Gaussian(0.3), normalised=normalised, schedule=kd.Sequential("cyclic"), max_steps=1
        )
        for i in range(n):
            phi = np.exp(-((x - x[i]) ** 2) / 0.18) * (np.abs(x - x[i]) <= np.broadcast_to(radius, n)[i])
            x[i] += (phi @ (x - x[i])) / (phi.sum() if normalised else n)
        np.testing.assert_allclose(run.final[:, 0], x, rtol=0, atol=1e-14)

    def test_sequential_ends_only_at_rest(self, rng):
        run = kd.hegselmann_krause(rng.random((60, 2)), 0.4, schedule=kd.Sequential(), rng=0)
        assert run.meta["stopped"] == "frozen"
        again = kd.aggregate(kd.bounded_confidence(0.4), run.final).mean
        assert np.abs(again - run.final).max() <= 1e-12  # of a range of 1

    def test_deffuant_pairs_meet(self, rng):
        x, mu, radius = rng.random(20), 0.3, 0.3
        run = kd.hegselmann_krause(x, radius, schedule=kd.Deffuant(mu), rng=3, max_steps=1)
        generator = np.random.default_rng(3)
        first = generator.integers(20, size=20)
        second = (first + generator.integers(1, 20, size=20)) % 20
        for i, j in zip(first, second, strict=True):
            assert i != j
            gap = x[j] - x[i]
            if abs(gap) <= radius:
                x[i], x[j] = x[i] + mu * gap, x[j] - mu * gap
        np.testing.assert_allclose(run.final[:, 0], x, rtol=0, atol=1e-15)

    def test_deffuant_conserves_the_mean_and_separates(self, rng):
        x = rng.random((100, 2))
        run = kd.hegselmann_krause(x, 0.25, schedule=kd.Deffuant(), rng=0)
        assert run.meta["stopped"] == "frozen"
        np.testing.assert_allclose(run.final.mean(axis=0), x.mean(axis=0), rtol=0, atol=1e-13)
        centres = np.array(run.meta["clusters"]["positions"])
        gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)[~np.eye(len(centres), dtype=bool)]
        assert (gaps > 0.25).all()

    @pytest.mark.parametrize("radius", [1.0, np.full(3, 0.5), np.inf])
    @pytest.mark.parametrize("graph", [None, [(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)]])
    def test_deffuant_rests_only_where_no_pair_may_meet_apart(self, graph, radius):
        """Between two stubborn agents the mean rests in the middle, but every meeting moves: such a run never ends."""
        fixed, options = np.array([True, False, True]), {"schedule": kd.Deffuant(0.25), "graph": graph, "max_steps": 8}
        for seed in range(20):  # in the first unit of some of them the middle one meets nobody
            run = kd.hegselmann_krause([0.0, 0.5, 1.0], radius, fixed=fixed, rng=seed, **options)
            assert run.meta["stopped"] == "max_steps"
        still = kd.hegselmann_krause([0.0, 0.0, 1.0], 0.5, fixed=fixed, rng=0, **options)
        assert still.meta["stopped"] == "frozen"

    def test_deffuant_on_one_way_edges_moves_the_listener_only(self):
        hears = np.array([[True, True], [False, True]])
        run = kd.hegselmann_krause([0.0, 1.0], 2.0, graph=hears, schedule=kd.Deffuant(0.5), rng=0, max_steps=1)
        np.testing.assert_allclose(run.final[:, 0], [0.75, 1.0])  # two meetings in a unit of time

    def test_stubborn_agents_stay_in_every_schedule(self, rng):
        x, fixed = rng.random(20), np.arange(20) < 3
        for schedule in (kd.Synchronous(), kd.Sequential(), kd.Deffuant()):
            run = kd.hegselmann_krause(x, 0.5, fixed=fixed, schedule=schedule, rng=0, max_steps=30)
            np.testing.assert_array_equal(run.final[fixed, 0], x[fixed])
            assert (run.final[~fixed, 0] != x[~fixed]).all()

    def test_what_the_schedules_do_not_take(self):
        with pytest.raises(ValueError, match="mu must lie"):
            kd.Deffuant(0.6)
        with pytest.raises(ValueError, match="order must be"):
            kd.Sequential("sorted")
        with pytest.raises(ValueError, match="weights must be None"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, weights=[1.0, 2.0], schedule=kd.Deffuant(), rng=0)
        with pytest.raises(ValueError, match="a meeting has no mean"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, influence=kd.Gaussian(1.0), schedule=kd.Deffuant(), rng=0)
        with pytest.raises(ValueError, match="external must be None"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, external=kd.TruthSeeking(1.0, 0.5), schedule=kd.Sequential(), rng=0)
        with pytest.raises(TypeError, match="rng must be"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, schedule=kd.Sequential())
        with pytest.raises(TypeError, match="schedule must be"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, schedule="sequential")


class TestWhoHearsWhom:
    def test_without_self_two_agents_swap_for_ever(self):
        run = kd.hegselmann_krause([0.0, 1.0], 1.0, include_self=False)
        assert run.meta["stopped"] == "period of two"
        np.testing.assert_array_equal(run.positions[:, :, 0], [[0, 1], [1, 0], [0, 1]])

    @pytest.mark.parametrize("include_self", [True, False])
    def test_a_radius_each_equals_the_loop(self, rng, include_self):
        x, radius = rng.random(40), rng.random(40) * 0.4 + 0.01
        run = kd.hegselmann_krause(x, radius, include_self=include_self, max_steps=4)
        for state in run.positions:
            np.testing.assert_allclose(state[:, 0], x, rtol=0, atol=1e-14)
            x = loop_step(x, radius, include_self=include_self)

    def test_open_and_closed_balls_differ_on_a_lattice(self):
        lattice = np.arange(4.0)
        assert kd.hegselmann_krause(lattice, 1.0, closed=False).steps == 0
        assert kd.hegselmann_krause(lattice, 1.0, closed=True).steps > 0
        assert kd.hegselmann_krause(lattice[:, None] * [1.0, 0.0], 1.0, closed=False).steps == 0

    def test_per_capita_step_is_the_formula(self, rng):
        x = rng.random((30, 2))
        run = kd.hegselmann_krause(x, 0.5, normalised=False, max_steps=1)
        gaps = x[None] - x[:, None]
        near = (gaps**2).sum(-1) <= 0.25
        np.testing.assert_allclose(run.final, x + (near[..., None] * gaps).sum(1) / 30, rtol=0, atol=1e-14)
        np.testing.assert_allclose(run.final.mean(0), x.mean(0), rtol=0, atol=1e-15)

    def test_influence_function_of_motsch_and_tadmor(self, rng):
        x = rng.random((25, 2))
        run = kd.hegselmann_krause(x, np.inf, influence=kd.Radial(lambda r: (1 + r**2) ** -2.0), max_steps=1)
        phi = (1 + ((x[:, None] - x[None]) ** 2).sum(-1)) ** -2.0
        np.testing.assert_allclose(run.final, phi @ x / phi.sum(1, keepdims=True), rtol=0, atol=1e-14)

    def test_a_network_restricts_who_is_heard(self, rng):
        x, graph = rng.random(20), networkx.gnp_random_graph(20, 0.3, seed=1)
        run = kd.hegselmann_krause(x, 0.6, graph=graph, max_steps=3)
        hears = networkx.to_numpy_array(graph, nodelist=range(20)) + np.eye(20) > 0
        for state in run.positions:
            np.testing.assert_allclose(state[:, 0], x, rtol=0, atol=1e-14)
            x = loop_step(x, 0.6, hears=hears)
        assert run.meta["graph"] == {"nodes": 20, "links": int(hears.sum())}

    @pytest.mark.parametrize("options", [{}, {"include_self": False}, {"normalised": False}, {"closed": False}])
    @pytest.mark.parametrize("d", [1, 3])
    def test_lists_of_links_equal_the_reference(self, rng, options, d):
        x = rng.integers(0, 9, size=(40, d)) / 8  # ties at the radius are part of the test
        hears, weights = rng.random((40, 40)) < 0.2, rng.random(40) + 0.1
        fast, slow = (
            kd.hegselmann_krause(x, 0.75, graph=hears, weights=weights, max_steps=5, impl=impl, **options)
            for impl in ("auto", "reference")
        )
        assert fast.meta["impl"] == "network"
        np.testing.assert_allclose(fast.positions, slow.positions, rtol=0, atol=1e-13)

    def test_nodes_are_the_agents_of_their_numbers(self):
        graph = networkx.Graph([(2, 0)])
        graph.add_node(1)
        run = kd.hegselmann_krause([0.0, 0.5, 1.0], 2.0, graph=graph)
        np.testing.assert_allclose(run.final[:, 0], [0.5, 0.5, 0.5])
        assert run.positions[1, 1, 0] == 0.5
        assert run.positions[1, 0, 0] == 0.5

    def test_names_are_taken_in_the_graphs_order(self):
        graph = networkx.Graph([("ann", "bob")])
        graph.add_node("eve")
        run = kd.hegselmann_krause([0.0, 1.0, 0.2], 2.0, graph=graph)
        np.testing.assert_allclose(run.final[:, 0], [0.5, 0.5, 0.2])

    def test_networks_that_do_not_fit(self):
        with pytest.raises(ValueError, match=r"unknown: \[7\]"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, graph=networkx.Graph([(0, 7)]))
        with pytest.raises(ValueError, match="one node per agent"):
            kd.hegselmann_krause([0.0, 1.0, 2.0], 1.0, graph=networkx.path_graph(2))
        with pytest.raises(ValueError, match="one node per agent"):
            kd.hegselmann_krause([0.0, 1.0, 2.0], 1.0, graph=np.eye(2, dtype=bool))
        with pytest.raises(TypeError, match="network must be a networkx graph"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, graph="0-1")

    def test_weights_equal_copies(self, rng):
        x, copies = rng.random(25), rng.integers(1, 5, size=25)
        weighted = kd.hegselmann_krause(x, 0.2, weights=copies)
        repeated = kd.hegselmann_krause(np.repeat(x, copies), 0.2)
        assert weighted.steps == repeated.steps
        np.testing.assert_allclose(np.repeat(weighted.final[:, 0], copies), repeated.final[:, 0], rtol=0, atol=1e-15)
        assert weighted.meta["clusters"]["masses"] == pytest.approx(repeated.meta["clusters"]["masses"])
        np.testing.assert_allclose(np.exp(weighted.log_mass), copies / copies.sum())


class TestTruthAndStubbornness:
    def test_truth_attracts_the_mean_geometrically(self, rng):
        x = rng.random((30, 2))
        truth, strength = np.array([2.0, -1.0]), 0.3
        run = kd.hegselmann_krause(x, 10.0, external=kd.TruthSeeking(truth, strength), max_steps=10)
        gap = run.positions.mean(axis=1) - truth
        np.testing.assert_allclose(gap, gap[0] * (1 - strength) ** run.times[:, None], rtol=1e-12)

    def test_only_seekers_seek(self):
        run = kd.hegselmann_krause([0.0, 10.0], 1.0, external=kd.TruthSeeking(5.0, np.array([0.5, 0.0])), max_steps=2)
        np.testing.assert_allclose(run.positions[:, :, 0], [[0, 10], [2.5, 10], [3.75, 10]])
        with pytest.raises(ValueError, match="strength must be a number or"):
            kd.hegselmann_krause([0.0, 10.0], 1.0, external=kd.TruthSeeking(5.0, np.ones(3)))

    def test_an_external_drift_is_added_to_every_step(self):
        run = kd.hegselmann_krause([0.0, 10.0], 1.0, external=lambda t, x: np.full_like(x, t), max_steps=3)
        np.testing.assert_allclose(run.positions[:, 0, 0], [0, 0, 1, 3])

    def test_a_drift_to_infinity_gives_back_what_there_was(self):
        with pytest.raises(kd.SimulationDiverged) as caught, np.errstate(over="ignore"):
            kd.hegselmann_krause([1.0, 2.0], 0.5, external=lambda t, x: x * 1e100)
        assert len(caught.value.trajectory) >= 3
        assert np.isfinite(caught.value.trajectory.positions).all()

    def test_a_free_agent_between_two_stubborn_ones(self):
        run = kd.hegselmann_krause([0.0, 0.3, 1.0], 1.0, fixed=np.array([True, False, True]))
        assert run.meta["stopped"] == "frozen"
        np.testing.assert_allclose(run.final[:, 0], [0.0, 0.5, 1.0], atol=1e-11)  # x = (0 + x + 1) / 3
        assert run.meta["clusters"]["sizes"] == [1, 1, 1]

    def test_truth_as_a_drift_in_continuous_time(self):
        run = kd.hegselmann_krause_flow([0.0, 10.0], 1.0, 1.0, external=kd.TruthSeeking(5.0, 0.5), save_every=100)
        np.testing.assert_allclose(run.final[:, 0], 5 + np.array([-5, 5]) * np.exp(-0.5), rtol=1e-6)


class TestNoise:
    @pytest.mark.parametrize("law", ["normal", "uniform"])
    def test_isolated_agents_diffuse(self, law):
        x = 100.0 * np.arange(4000)
        run = kd.hegselmann_krause(x, 1e-3, noise=kd.StepNoise(0.1, law), max_steps=9, rng=5)
        spread = (run.final[:, 0] - x).std()
        assert spread == pytest.approx(0.3, rel=4 / np.sqrt(2 * 4000))  # four standard errors of a standard deviation
        assert run.steps == 9

    def test_noise_can_be_kept_in_an_interval(self):
        run = kd.hegselmann_krause(
            np.linspace(0, 1, 50), 0.1, noise=kd.StepNoise(0.5, low=0.0, high=1.0), max_steps=5, rng=0
        )
        assert run.positions.min() >= 0.0
        assert run.positions.max() <= 1.0

    def test_relocation_replaces_its_share(self):
        x = np.full((20_000, 2), 5.0)
        run = kd.hegselmann_krause(x, 0.1, noise=kd.RandomRelocation(0.25, -1.0, 1.0), max_steps=1, rng=2)
        moved = (run.final != 5.0).all(axis=1)
        assert moved.mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 20_000))
        assert np.abs(run.final[moved]).max() <= 1.0
        assert (run.final[~moved] == 5.0).all()

    def test_one_seed_gives_one_run(self, rng):
        x, options = rng.random(40), {"noise": kd.StepNoise(0.02), "max_steps": 5}
        runs = [kd.hegselmann_krause(x, 0.2, rng=seed, **options).final for seed in (1, 1, 2)]
        np.testing.assert_array_equal(runs[0], runs[1])
        assert (runs[0] != runs[2]).all()

    def test_noise_needs_an_end_and_sensible_numbers(self):
        with pytest.raises(ValueError, match="max_steps"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, noise=kd.StepNoise(0.1), rng=0)
        for wrong in (
            lambda: kd.StepNoise(-1.0),
            lambda: kd.StepNoise(1.0, "cauchy"),
            lambda: kd.RandomRelocation(0.0),
        ):
            with pytest.raises(ValueError, match="must"):
                wrong()
        with pytest.raises(TypeError, match="noise must be"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, noise=0.1, max_steps=3, rng=0)


class TestRuns:
    def test_stop_rules_end_a_run_and_are_recorded(self, rng):
        x = rng.random(200)
        run = kd.hegselmann_krause(x, 0.15, stop=kd.stopping.ClustersSettled(0.15))
        frozen = kd.hegselmann_krause(x, 0.15)
        assert run.meta["stopped"] == "clusters settled"
        assert run.steps == frozen.steps - 1  # a settled state freezes in one more step
        assert kd.hegselmann_krause(x, 0.6, stop=kd.stopping.Consensus()).meta["stopped"] == "consensus"
        assert kd.hegselmann_krause(x, 0.15, stop=kd.stopping.AtTime(2)).times[-1] == 2
        either = kd.stopping.Consensus() | kd.stopping.AtTime(3.0)
        assert kd.hegselmann_krause(x, 0.05, stop=either).meta["stopped"] == "time"
        assert kd.hegselmann_krause(x, 0.05, stop=kd.stopping.Consensus()).meta["stopped"] == "frozen"
        loose = kd.hegselmann_krause(np.linspace(0, 5.2, 301), 1.0, stop=kd.stopping.Frozen(1e-2))
        assert loose.steps < kd.hegselmann_krause(np.linspace(0, 5.2, 301), 1.0).steps

    def test_max_steps_is_said(self, rng):
        run = kd.hegselmann_krause(rng.random(100), 0.2, max_steps=2)
        assert (run.meta["stopped"], run.steps, len(run)) == ("max_steps", 2, 3)

    def test_states_kept(self, rng):
        x, seen = rng.random(300), []
        every = kd.hegselmann_krause(x, 0.1, on_save=lambda t, state: seen.append(t))
        third = kd.hegselmann_krause(x, 0.1, save_every=3)
        assert seen == list(every.times[1:]) == list(range(1, every.steps + 1))
        assert list(third.times) == [*range(0, every.steps, 3), every.steps]
        np.testing.assert_array_equal(third.positions[1], every.positions[3])
        np.testing.assert_array_equal(third.final, every.final)

    def test_long_runs_thin_themselves(self, monkeypatch):
        monkeypatch.setattr(recording, "KEPT", 200)
        run = kd.hegselmann_krause(np.arange(40), 1.0)
        assert run.steps == 5 * 6 + 5
        assert run.positions.size <= 400
        assert run.times[-1] == run.steps
        stride = run.times[1]
        assert stride in (8, 16)
        np.testing.assert_array_equal(run.times[:-1] % stride, 0)

    def test_results_can_be_stored(self, rng, tmp_path):
        run = kd.hegselmann_krause(rng.random((30, 2)), 0.3, external=kd.TruthSeeking(0.5, 0.1), max_steps=5)
        again = kd.Trajectory.load(run.save(tmp_path / "run"))
        assert again.meta == run.meta
        assert again.steps == run.steps

    def test_final_clusters(self):
        run = kd.hegselmann_krause([0.0, 5.0, 0.1, 5.1, 5.2], 1.0, weights=[1.0, 1.0, 3.0, 1.0, 2.0])
        found = kd.final_clusters(run)
        np.testing.assert_array_equal(found.labels, [0, 1, 0, 1, 1])
        np.testing.assert_array_equal(found.sizes, [2, 3])
        np.testing.assert_allclose(found.masses, [0.5, 0.5])
        np.testing.assert_allclose(found.positions[:, 0], [0.075, 5.125])
        assert kd.final_clusters(run, radius=10.0).sizes.tolist() == [5]

    def test_final_clusters_of_many_in_the_plane_are_linked_by_the_radius(self, rng):
        """5000 distinct points about two places one apart: two clusters at 0.5, whatever their number."""
        x = rng.normal(scale=0.02, size=(5000, 2)) + np.repeat([[0.0, 0.0], [1.0, 0.0]], 2500, axis=0)
        run = kd.hegselmann_krause(x, 0.5, max_steps=1)
        assert kd.final_clusters(run, radius=0.5).sizes.tolist() == [2500, 2500]
        assert run.meta["clusters"]["sizes"] == [2500, 2500]

    def test_a_far_outlier_disturbs_nothing(self, rng):
        x = rng.random((100, 2))
        alone, beside = kd.hegselmann_krause(x, 0.3), kd.hegselmann_krause(np.vstack([x, [[1e200, 0.0]]]), 0.3)
        np.testing.assert_allclose(beside.final[:-1], alone.final, rtol=0, atol=1e-14)
        assert beside.final[-1, 0] == 1e200

    def test_dtype_of_the_start_is_kept(self, rng):
        run = kd.hegselmann_krause(rng.random(30).astype(np.float32), 0.2)
        assert run.positions.dtype == np.float32

    @pytest.mark.parametrize("x", [[0.3], [0.3, 0.3, 0.3], np.ones((4, 3))])
    def test_nothing_to_do(self, x):
        run = kd.hegselmann_krause(x, 0.1)
        assert (run.steps, len(run), run.meta["stopped"]) == (0, 1, "frozen")

    def test_lattices_decided_by_rounding_are_named(self):
        with pytest.warns(kd.RoundingWarning, match="100% of the pairs"):
            run = kd.hegselmann_krause(0.1 * np.arange(30), 0.1)
        assert run.meta["pairs_at_radius"] == 1.0
        plane = np.stack(np.meshgrid(0.1 * np.arange(8), 0.1 * np.arange(8)), -1).reshape(-1, 2)
        with pytest.warns(kd.RoundingWarning):
            kd.hegselmann_krause(plane, 0.1, max_steps=1)
        assert kd.hegselmann_krause(np.arange(30), 1.0).meta["pairs_at_radius"] == 1.0  # exact: said, not warned of

    @pytest.mark.parametrize(
        ("arguments", "options", "message"),
        [
            (([], 1.0), {}, "x0 must have shape"),
            (([0.0, np.nan], 1.0), {}, "x0 must be finite"),
            (([-1e308, 1e308], 1.0), {}, "x0 must have a range"),
            ((np.zeros((2, 3, 1)), 1.0), {}, "hegselmann_krause_batch"),
            (([0.0, 1.0], 0.0), {}, "radius must be positive"),
            (([0.0, 1.0], np.nan), {}, "radius must be"),
            (([0.0, 1.0], [1.0, 1.0, 1.0]), {}, r"radius must be a number or one per agent, shape \(2,\)"),
            (([0.0, 1.0], 1.0), {"weights": [1.0]}, "weights must have shape"),
            (([0.0, 1.0], 1.0), {"weights": [1.0, 0.0]}, "weights must be positive"),
            (([0.0, 1.0], 1.0), {"fixed": [0]}, "fixed must be booleans"),
            (([0.0, 1.0], 1.0), {"fixed": [0, 1]}, "fixed must be booleans"),
            (([0.0, 1.0], 1.0), {"fixed": [True]}, "fixed must be booleans"),
            (([0.0, 1.0], 1.0), {"max_steps": 0}, "max_steps must be"),
            (([0.0, 1.0], 1.0), {"save_every": 0}, "save_every must be"),
        ],
    )
    def test_bad_values_are_named(self, arguments, options, message):
        with pytest.raises(ValueError, match=message):
            kd.hegselmann_krause(*arguments, **options)

    def test_bad_types_are_named(self):
        import torch

        with pytest.raises(TypeError, match=r"kd\.simulate"):
            kd.hegselmann_krause(torch.zeros(3), 1.0)
        with pytest.raises(TypeError, match="save_every must be an integer"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, save_every=0.5)
        with pytest.raises(TypeError, match="influence must be"):
            kd.hegselmann_krause([0.0, 1.0], 1.0, influence=lambda r: r)
        with pytest.raises(ValueError, match="radius must be given"):
            kd.final_clusters(kd.Trajectory(np.zeros(1), np.zeros((1, 2, 1))))

    @pytest.mark.parametrize(
        ("samples", "radii", "options", "message"),
        [
            (np.zeros((0, 3)), 1.0, {}, "samples must have shape"),
            (np.zeros((1, 2, 3)), 1.0, {}, "samples must have shape"),
            ([[0.0, np.inf]], 1.0, {}, "samples must be finite"),
            ([[0.0, 1.0]], -1.0, {}, "radius must be positive"),
            ([[0.0, 1.0]], [[1.0]], {}, "radii must have shape"),
            ([[0.0, 1.0]], 1.0, {"max_steps": 0}, "max_steps must be"),
        ],
    )
    def test_bad_batches_are_named(self, samples, radii, options, message):
        with pytest.raises(ValueError, match=message):
            kd.hegselmann_krause_batch(samples, radii, **options)


class TestInitial:
    def test_shapes_and_laws(self):
        assert kd.initial.uniform(5, 2, low=-1.0, high=1.0, rng=0).shape == (5, 2)
        x = kd.initial.gaussian(4000, 2, mean=[1.0, 2.0], std=[0.5, 2.0], rng=0)
        np.testing.assert_allclose(x.mean(0), [1.0, 2.0], atol=4 * 2.0 / np.sqrt(4000))
        np.testing.assert_allclose(x.std(0), [0.5, 2.0], rtol=4 / np.sqrt(8000))
        np.testing.assert_array_equal(kd.initial.equally_spaced(5, high=4.0)[:, 0], np.arange(5.0))
        y = kd.initial.mixture(3000, [-5.0, 5.0], 0.1, weights=[0.2, 0.8], rng=0)
        assert (y > 0).mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 3000))
        assert np.abs(np.abs(y) - 5).max() < 1.0
        assert len(kd.initial.dumbbell(3)) == 10

    def test_hidden_states(self, rng):
        states = rng.normal(size=(3, 5, 4))
        np.testing.assert_array_equal(kd.initial.from_states(states, layer=1), states[1])
        unit = kd.initial.from_states(kd.Trajectory(np.arange(3.0), states), normalise=True)
        np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0)
        np.testing.assert_array_equal(kd.initial.from_states([1.0, 2.0]), [[1.0], [2.0]])

    def test_bad_values_are_named(self):
        for wrong in (
            lambda: kd.initial.uniform(0, rng=0),
            lambda: kd.initial.uniform(3, low=1.0, high=0.0, rng=0),
            lambda: kd.initial.gaussian(3, std=-1.0, rng=0),
            lambda: kd.initial.mixture(3, [0.0, 1.0], 0.1, weights=[0.5, 0.6], rng=0),
            lambda: kd.initial.from_states(np.zeros((3, 2)), normalise=True),
        ):
            with pytest.raises(ValueError, match="must"):
                wrong()
        with pytest.raises(TypeError, match="rng must be"):
            kd.initial.uniform(3, rng=None)


class TestStopRules:
    def test_settled_needs_every_group_to_be_complete(self):
        settled = kd.stopping.ClustersSettled(1.0)
        for shape in ((lambda x: x), (lambda x: np.concatenate([x, 0 * x], axis=1))):  # on a line, and in the plane
            chain = shape(np.array([[0.0], [0.9], [1.8]]))
            assert settled(0.0, chain, chain) is None
            pairs = shape(np.array([[0.0], [0.9], [3.0]]))
            assert settled(0.0, pairs, pairs) == "clusters settled"
            batch = np.stack([pairs, chain])
            assert settled(0.0, batch, batch) is None
        same = np.ones((3, 2))
        assert settled(0.0, same, same) == "clusters settled"

    def test_groups_whose_means_come_within_the_radius_are_not_settled(self):
        """A pair on both sides of the foot of a third point, which hears neither until the two have met below it."""
        settled = kd.stopping.ClustersSettled(1.0)
        for height, groups in ((0.9, [3]), (1.6, [2, 1])):
            x = np.array([[-0.5, 0.0], [0.5, 0.0], [0.0, height]])
            assert np.linalg.norm(x[2] - x[0]) > 1.0
            assert (settled(0.0, x, x) is None) == (height < 1.0)
            assert kd.hegselmann_krause(x, 1.0).meta["clusters"]["sizes"] == groups

    def test_frozen_ignores_rounding_only(self):
        x = np.array([[0.0], [1.0]])
        assert kd.stopping.Frozen()(1.0, x + 1e-13, x) == "frozen"
        assert kd.stopping.Frozen()(1.0, x + 1e-11, x) is None
        met = np.full((2, 1), 0.3)
        assert kd.stopping.Frozen()(1.0, np.nextafter(met, 1.0), met) == "frozen"

    def test_rules_round_trip(self):
        rule = kd.stopping.Consensus(1e-6) | kd.stopping.AtTime(3.0)
        assert kd.from_dict(rule.to_dict()) == rule


class TestCheckpoints:
    """A run that is killed ends with the same numbers."""

    @pytest.mark.parametrize(
        "options",
        [
            {},
            {"graph": np.ones((60, 60), dtype=bool)},
            {"schedule": kd.Sequential(), "rng": 4},
            {"schedule": kd.Deffuant(), "rng": 4},
            {"noise": kd.StepNoise(0.01), "rng": 4, "max_steps": 12},
        ],
        ids=["plan", "stepwise", "sequential", "deffuant", "noise"],
    )
    @pytest.mark.parametrize("d", [1, 2])
    def test_a_killed_run_resumes_bit_for_bit(self, rng, tmp_path, options, d):
        x, file = rng.random((60, d)), tmp_path / "run.npz"
        whole = kd.hegselmann_krause(x, 0.3, **options)

        def killed_after_three(t, state):
            if t == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            kd.hegselmann_krause(x, 0.3, checkpoint=file, checkpoint_every=0.0, on_save=killed_after_three, **options)
        resumed = kd.hegselmann_krause(x, 0.3, checkpoint=file, checkpoint_every=0.0, **options)
        assert resumed.steps == whole.steps
        assert resumed.meta["stopped"] == whole.meta["stopped"]
        np.testing.assert_array_equal(resumed.times, whole.times)
        np.testing.assert_array_equal(resumed.positions, whole.positions)
        again = kd.hegselmann_krause(x, 0.3, checkpoint=file, **options)  # a finished file only repeats its result
        np.testing.assert_array_equal(again.positions, whole.positions)

    @pytest.mark.parametrize(
        ("options", "reason"),
        [
            ({"stop": kd.stopping.AtTime(3)}, "time"),
            ({"stop": kd.stopping.ClustersSettled(0.3)}, "clusters settled"),
            ({"stop": kd.stopping.AtTime(3), "noise": kd.StepNoise(0.01), "rng": 4}, "time"),
            ({"include_self": False}, "period of two"),
        ],
    )
    def test_a_finished_file_is_not_run_on(self, rng, tmp_path, options, reason):
        x = np.array([0.0, 0.2]) if reason == "period of two" else rng.random(60)
        first = kd.hegselmann_krause(x, 0.3, checkpoint=tmp_path / "run.npz", **options)
        again = kd.hegselmann_krause(x, 0.3, checkpoint=tmp_path / "run.npz", **options)
        assert first.meta["stopped"] == again.meta["stopped"] == reason
        assert first.steps == again.steps
        np.testing.assert_array_equal(again.times, first.times)
        np.testing.assert_array_equal(again.positions, first.positions)

    def test_the_file_of_another_run_is_refused_and_kept(self, rng, tmp_path):
        x, file = rng.random(30), tmp_path / "run.npz"
        kd.hegselmann_krause(x, 0.1, checkpoint=file)
        before = file.read_bytes()
        with pytest.raises(ValueError, match="belongs to another run"):
            kd.hegselmann_krause(x, 0.2, checkpoint=file)
        assert file.read_bytes() == before

    def test_a_run_that_goes_on_keeps_the_form_that_its_file_names(self, rng, tmp_path):
        x, file = rng.random(60), tmp_path / "run.npz"
        kd.hegselmann_krause(x, 0.3, impl="reference", max_steps=1, checkpoint=file)
        assert kd.hegselmann_krause(x, 0.3, checkpoint=file).meta["impl"] == "reference"
        file.unlink()
        kd.hegselmann_krause(x, 0.3, max_steps=1, checkpoint=file)
        with pytest.raises(ValueError, match="different: impl"):
            kd.hegselmann_krause(x, 0.3, impl="sorted1d", checkpoint=file)  # step by step: another run

    def test_files_of_the_first_release_go_on(self, rng, tmp_path):
        """They called things by other names, and did not say of which form they are."""
        x, file = rng.random(60), tmp_path / "run.npz"
        for options in ({}, {"impl": "reference"}, {"schedule": kd.Deffuant(), "rng": 4}):
            whole = kd.hegselmann_krause(x, 0.1, **options)
            kd.hegselmann_krause(x, 0.1, max_steps=2, checkpoint=file, **options)
            header, arrays = _files.read_npz(file)
            stepper, record = header.pop("stepper"), header.pop("record")
            header |= {"time": int(header.pop("t")), "steps": stepper["taken"], "stride": record["stride"]}
            del header["identity"]["impl"], header["memories"], header["events"]
            arrays["states"] = arrays.pop("positions")
            if "atoms" in arrays:
                del arrays["x"]
            _files.write_npz(file, header, arrays)
            np.testing.assert_array_equal(
                kd.hegselmann_krause(x, 0.1, checkpoint=file, **options).positions, whole.positions
            )
            file.unlink()

    @pytest.mark.parametrize("save_every", [1, 5])
    @pytest.mark.parametrize("options", [{}, {"schedule": kd.Sequential(), "rng": 4}], ids=["plan", "sequential"])
    def test_a_run_goes_on_to_more_steps(self, rng, tmp_path, options, save_every):
        """What was kept only because the steps were used up is no part of the longer run."""
        x, file = rng.random(60), tmp_path / "run.npz"
        options |= {"save_every": save_every, "max_steps": 14}
        whole = kd.hegselmann_krause(x, 0.05, **options)
        for steps in (3, 3, 14):
            run = kd.hegselmann_krause(x, 0.05, checkpoint=file, **(options | {"max_steps": steps}))
            assert run.times[-1] == min(steps, whole.times[-1])
        np.testing.assert_array_equal(run.times, whole.times)
        np.testing.assert_array_equal(run.positions, whole.positions)

    def test_progress_is_reported(self, rng):
        seen: list[tuple[float, float]] = []
        run = kd.hegselmann_krause(
            rng.random(60), 0.05, schedule=kd.Sequential(), rng=4, max_steps=9, progress=lambda *a: seen.append(a)
        )
        assert seen == [(t, 9.0) for t in range(1, 1 + int(run.times[-1]))]

    def test_control_c_keeps_what_there_is(self, rng):
        import signal

        def press(t, state):
            if t == 2:
                signal.raise_signal(signal.SIGINT)

        run = kd.hegselmann_krause(rng.random(200), 0.02, on_save=press)
        assert run.meta["stopped"] == "interrupted"
        assert run.times[-1] == 3


def test_only_runs_on_a_line_are_kept_symmetric():
    line = kd.hegselmann_krause(np.arange(6.0), 1.0)
    plane = kd.hegselmann_krause(np.stack([np.arange(6.0)] * 2, axis=1), 2.0)
    assert line.meta["mirrored"] is True
    assert plane.meta["mirrored"] is False


def test_a_small_network_is_asked_along_its_links():
    """Below the size where one call of that form alone would pay: a run makes many."""
    links = networkx.cycle_graph(20)
    run = kd.hegselmann_krause(np.linspace(0, 1, 20), 0.3, graph=links, max_steps=3)
    assert run.meta["impl"] == "network"
