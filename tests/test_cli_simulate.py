"""``krause simulate`` and ``krause sweep``: files that reproduce themselves, and one-line answers to bad input."""

from __future__ import annotations

from dataclasses import dataclass
from inspect import signature

import numpy as np
import pytest
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics._value import Value
from krause_dynamics.command import configuration
from krause_dynamics.command.app import app
from krause_dynamics.command.kinds import RULES
from krause_dynamics.command.tables import assign, load

TOML = """
[rule]
type = "krause"
sigma = 0.5
neighbourhood = [{ type = "Window", size = 5, two_sided = true }, { type = "TopK", k = 3 }]
[initial]
n = 8
seed = 4
[dynamics]
noise = 0.1
[run]
t_end = 1.0
dt = 0.25
[sweep]
seeds = 2
statistics = ["order_parameter", "clusters", "largest_cluster"]
[sweep.parameters]
"rule.sigma" = [0.2, 1.0]
"initial.n" = [6, 8]
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    return path


def krause(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_run_file_reproduces_itself(toml, tmp_path):
    result = krause("simulate", toml, "--out", tmp_path / "a.npz", "--plot", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    again = krause("simulate", tmp_path / "a.npz", "--out", tmp_path / "b.npz")
    assert again.exit_code == 0, again.output
    first, second = (kd.Trajectory.load(tmp_path / name) for name in ("a.npz", "b.npz"))
    np.testing.assert_array_equal(first.positions, second.positions)
    assert first.meta == second.meta
    assert (tmp_path / "a.png").stat().st_size > 1000
    rule = kd.krause(0.5, kd.Window(5, two_sided=True) & kd.TopK(3))
    direct = kd.simulate(kd.Dynamics(rule, kd.Sphere(), noise=0.1), kd.Sphere().sample(8, 3, 4), 1.0, dt=0.25, rng=4)
    np.testing.assert_array_equal(first.positions, direct.positions)


def test_options_overrule_the_file_and_settings_the_options(toml, tmp_path):
    out = tmp_path / "c.npz"
    result = krause(
        "simulate", toml, "-n", 5, "--t-end", 2, "-s", "run.dt=0.5", "-s", "space.type=Circle", "--out", out
    )
    assert result.exit_code == 0, result.output
    run = kd.Trajectory.load(out)
    assert run.positions.shape == (5, 5, 2)
    assert run.meta["configuration"]["run"]["t_end"] == 2.0


def test_another_type_leaves_the_keys_of_the_old_one_behind(tmp_path):
    """As do options; what is given beside the file stays, so that a mistake in it is told."""
    np.savetxt(tmp_path / "x.csv", np.eye(3), delimiter=",")
    text = '[rule]\ntype = "krause"\nsigma = 0.5\n[initial]\ntype = "uniform"\nd = 3\nlow = 0.0\n[run]\nt_end = 1.0\n'
    (tmp_path / "a.toml").write_text(text)
    given = ("-s", "initial.type=file", "-s", f"initial.path={tmp_path / 'x.csv'}", "--out", tmp_path / "a.npz")
    result = krause("simulate", tmp_path / "a.toml", "--rule", "softmax", *given)
    assert result.exit_code == 0, result.output
    run = kd.Trajectory.load(tmp_path / "a.npz")
    np.testing.assert_array_equal(run.positions[0], np.eye(3))
    assert run.meta["configuration"]["rule"]["beta"] == 1.0
    assert "sigma" not in run.meta["configuration"]["rule"]
    result = krause("simulate", tmp_path / "a.toml", "--rule", "softmax", "--sigma", 2)
    assert (result.exit_code, "rule.sigma belongs to rule.type = 'krause'" in result.output) == (2, True)


def test_a_sweep_writes_labelled_statistics(toml, tmp_path):
    import xarray

    out = tmp_path / "sweep.nc"
    result = krause("sweep", toml, "--out", out, "--workers", 0)
    assert result.exit_code == 0, result.output
    with xarray.open_dataset(out, engine="h5netcdf") as dataset:
        assert dict(dataset.sizes) == {"rule_sigma": 2, "initial_n": 2, "seed": 2}
        assert set(dataset.data_vars) == {"order_parameter", "clusters", "largest_cluster"}
        # These runs end before anybody meets: every particle is a cluster of its own.
        alone = 1 / dataset["initial_n"].astype(float)
        assert (dataset["clusters"] == dataset["initial_n"]).all()
        assert (dataset["largest_cluster"] == alone).all()
        assert '"sigma": 0.5' in dataset.attrs["configuration"]


def test_the_largest_cluster_is_a_share_of_the_particles(tmp_path):
    """Three of four stand together and the fourth hears nobody: they stay, 2 clusters, the larger holds 3/4."""
    import xarray

    np.save(tmp_path / "x.npy", np.array([[0.0], [0.0], [0.0], [5.0]]))
    (tmp_path / "sweep.toml").write_text(
        f'[rule]\ntype = "bounded_confidence"\n[space]\ntype = "Euclidean"\n[initial]\ntype = "file"\n'
        f'path = "{tmp_path / "x.npy"}"\n[run]\nt_end = 1.0\n'
        '[sweep]\nstatistics = ["clusters", "largest_cluster"]\n[sweep.parameters]\n"rule.radius" = [0.5]\n'
    )
    result = krause("sweep", tmp_path / "sweep.toml", "--out", tmp_path / "s.nc", "--workers", 0)
    assert result.exit_code == 0, result.output
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as dataset:
        assert dataset["clusters"].values.tolist() == [[2]]
        assert dataset["largest_cluster"].values.tolist() == [[0.75]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulate", "-s", "rule.bta=3"), "unknown key of [rule] 'bta'; did you mean 'beta'?"),
        (("simulate", "-s", "rul.beta=3"), "unknown table 'rul'; did you mean 'rule'?"),
        (("simulate", "--rule", "softmx"), "unknown rule.type 'softmx'; did you mean 'softmax'?"),
        (("simulate", "--space", "Spher"), "unknown space.type 'Spher'; did you mean 'Sphere'?"),
        (("simulate", "-s", "run.tend=3"), "unknown key of [run] 'tend'; did you mean 't_end'?"),
        (("simulate", "-s", "run.t_max=3"), "unknown key of [run] 't_max'; did you mean 't_end'?"),
        (("simulate", "-s", "rule.zzz=3"), "unknown key of [rule] 'zzz'; known: "),
        (("simulate", "--epsilon", "3"), "No such option: --epsilon; did you mean --radius? (see "),
        (("simulate", "--t-max", "3"), "No such option: --t-max; did you mean --t-end? (see "),
        (("simulate", "-s", "rule.beta=many"), "beta must be a number"),
        (("simulate", "-s", "rule"), "--set must be table.key=value"),
        (("simulate", "-s", "beta=3"), "named table.key"),
        (("simulate", "-s", 'rule.neighbourhood={type="Window",sise=3}'), "did you mean 'size'?"),
        (("simulate", "-s", 'rule.neighbourhood={type="Window"}'), "[rule.neighbourhood] Window needs size"),
        (("simulate", "-s", "rule.sigma=1"), "rule.sigma belongs to rule.type = 'krause', and the type is 'softmax'"),
        (
            ("simulate", "-s", "initial.path=x.csv"),
            "give that type too (--set initial.type=file), or leave the key out",
        ),
        (("simulate", "--out", "there.npz", "-s", "rule.bta=3"), "did you mean 'beta'?"),
        (("simulate", "--out", "there.npz", "--plot", "a.jpg"), "path must end in .png"),
        (("simulate", "-s", "initial.n=many"), "initial.n must be an integer"),
        (("simulate", "-s", "initial.type=file"), "initial.path must name"),
        (("simulate", "-s", "integrator.type=Eulr"), "did you mean 'Euler'?"),
        (("simulate", "-s", "integrator.rtol=1e-3"), "[integrator] must name its type"),
        (("simulate", "-s", "space.tipe=Circle"), "unknown key of [space] 'tipe'; did you mean 'type'?"),
        (("simulate", "-s", "rule.neighbourhood=Causal"), "rule.neighbourhood must hold tables"),
        (("simulate", "missing.toml"), "does not exist"),
        (("simulate", "--out", "/no/such/folder/a.npz"), "the folder /no/such/folder does not exist"),
        (("simulate", "--out", "/no/such/folder/a.npz"), "make it first"),
        (("simulate", "--out", "/proc/a.npz"), "/proc/a.npz cannot be written"),
        (("simulate", "--checkpoint", "/proc/a.npz"), "/proc/a.npz cannot be written"),
        (("simulate", "--out", "a.csv"), "--out must end in .npz or .nc, got 'a.csv'; --csv prints"),
        (("sweep", "nosuch.toml"), "krause init writes one"),
        (("train", "nosuch.toml"), "the configuration nosuch.toml does not exist; krause init train writes one"),
        (("simulate", "--beta", "much"), "valid number, unable to parse string as a number, got 'much' (see"),
        (("simulate", "-n", "1.5"), "got '1.5' (see"),
        (("init", "train", "--out", "no/a.toml"), "where a.toml is to be written; make it first"),
    ],
)
def test_bad_input_gets_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.npz").touch()  # a mistake is told before what is there already
    result = krause(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert "Traceback" not in result.output


def test_bad_files_get_one_line(tmp_path):
    broken = tmp_path / "broken.toml"
    broken.write_text("[rule\n")
    assert "is not TOML" in krause("simulate", broken).output
    run = kd.simulate(kd.Dynamics(kd.krause(1.0)), np.zeros((2, 1)), 1.0).save(tmp_path / "run.npz")
    assert "not made from a configuration" in krause("simulate", run).output
    empty = tmp_path / "empty.toml"
    empty.write_text("[rule]\nbeta = 1.0\n")
    assert "must name values" in krause("sweep", empty).output
    misspelt = tmp_path / "misspelt.toml"
    misspelt.write_text('[sweep]\nstatistics = ["mean_cosin"]\n[sweep.parameters]\n"rule.beta" = [1.0]\n')
    assert "unknown statistic 'mean_cosin'; did you mean 'mean_cosine'?" in krause("sweep", misspelt).output
    wrong = tmp_path / "wrong.toml"
    wrong.write_text('[sweep.parameters]\n"rule.gamma" = [1.0]\n')
    assert "unknown key of [rule] 'gamma'" in krause("sweep", wrong).output
    wrong.write_text('[sweep]\n"rule.neighbourhood.radius" = [0.3, 0.6]\n')
    assert "such as rule.neighbourhood = [{type = 'Within', radius = ...}]" in " ".join(
        krause("sweep", wrong).output.split()
    )


@pytest.mark.parametrize("rule", ["softmax", "krause", "bounded_confidence"])
def test_what_a_table_leaves_out_is_what_a_call_leaves_out(rule):
    """The defaults of a rule's table are those of the function of its name."""
    defaults = {name: p.default for name, p in signature(getattr(kd, rule)).parameters.items()}
    assert {name: defaults[name] for name in RULES[rule] if name != "radius"} == {
        name: value
        for name, value in RULES[rule].items()
        if name != "radius"  # a call has to give the radius
    }


def test_a_configuration_is_read_as_utf8_wherever_it_is_read(tmp_path, monkeypatch):
    """TOML is UTF-8; the platform's own encoding, ASCII here, does not matter."""
    path = tmp_path / "run.toml"
    path.write_text('[rule]\ntype = "krause"  # Krause’s σ\nsigma = 0.5\n', encoding="utf-8")
    monkeypatch.setattr("io.text_encoding", lambda encoding, *_: "ascii" if encoding is None else encoding)
    assert load(path) == {"rule": {"type": "krause", "sigma": 0.5}}


@pytest.mark.parametrize("kind", ["sample", "uniform", "gaussian", "equally_spaced", "dumbbell", "file"])
def test_initial_states(kind, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1)))
    tables = {"space": {"type": "Euclidean"}, "initial": {"type": kind, "n": 4}, "rule": {"type": "bounded_confidence"}}
    if kind == "file":
        tables["initial"]["path"] = str(tmp_path / "x.npy")
    expected = {
        "sample": lambda: kd.Euclidean().sample(4, 1, 0),
        "uniform": lambda: kd.initial.uniform(4, 1, low=0.0, high=1.0, rng=0),
        "gaussian": lambda: kd.initial.gaussian(4, 1, mean=0.0, std=1.0, rng=0),
        "equally_spaced": lambda: kd.initial.equally_spaced(4, low=0.0, high=1.0),
        "dumbbell": lambda: kd.initial.dumbbell(4),
        "file": lambda: np.zeros((4, 1)),
    }
    _, x0, _ = configuration.build(tables)
    np.testing.assert_array_equal(x0, expected[kind]())


def test_opinions_from_a_file_equal_the_one_liner_and_are_swept(tmp_path):
    (tmp_path / "run.toml").write_text(
        "[opinions]\nradius = 0.2\nschedule = { type = 'Sequential' }\nmax_steps = 5\n"
        "noise = { type = 'StepNoise', std = 0.01 }\n[initial]\nn = 30\nseed = 3\n"
    )
    out = tmp_path / "run.npz"
    assert CliRunner().invoke(app, ["simulate", str(tmp_path / "run.toml"), "--out", str(out)]).exit_code == 0
    x0 = kd.initial.uniform(30, 1, low=0.0, high=1.0, rng=3)
    options = {"schedule": kd.Sequential(), "noise": kd.StepNoise(0.01), "max_steps": 5, "rng": 3}
    np.testing.assert_array_equal(kd.Trajectory.load(out).final, kd.hegselmann_krause(x0, 0.2, **options).final)
    again = tmp_path / "again.npz"
    assert CliRunner().invoke(app, ["simulate", str(out), "--out", str(again)]).exit_code == 0
    np.testing.assert_array_equal(kd.Trajectory.load(again).final, kd.Trajectory.load(out).final)
    (tmp_path / "sweep.toml").write_text(
        '[opinions]\nradius = 0.2\n[initial]\nn = 40\n[sweep]\nseeds = 2\nstatistics = ["clusters"]\n'
        '[sweep.parameters]\n"opinions.radius" = [0.1, 2.0]\n'
    )
    done = CliRunner().invoke(
        app, ["sweep", str(tmp_path / "sweep.toml"), "--out", str(tmp_path / "s.nc"), "--workers", "0"]
    )
    assert done.exit_code == 0, done.output
    import xarray

    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as dataset:
        assert (dataset.clusters.sel(opinions_radius=2.0) == 1).all()
        assert (dataset.clusters.sel(opinions_radius=0.1) > 1).all()


def test_opinions_refuse_tables_that_they_do_not_read(tmp_path):
    (tmp_path / "run.toml").write_text("[opinions]\nradius = 0.2\n[run]\ndt = 0.1\n")
    result = CliRunner().invoke(app, ["simulate", str(tmp_path / "run.toml")])
    assert result.exit_code != 0
    assert "[run] has no part in a run of [opinions]" in " ".join(result.output.split())


def test_truth_seeking_from_a_table():
    tables = {"opinions": {"radius": 0.2, "truth": {"truth": 0.4, "strength": 0.3}}, "initial": {"n": 20, "seed": 1}}
    np.testing.assert_allclose(configuration.run(tables).final, 0.4, atol=1e-9)
    with pytest.raises(ValueError, match=r"unknown key of \[opinions\] 'raduis'; did you mean 'radius'"):
        configuration.run({"opinions": {"raduis": 0.2}})


TOP_K_IN_A_WINDOW = {
    "rule": {"type": "krause", "neighbourhood": [{"type": "Window", "size": 5}, {"type": "TopK", "k": 3}]}
}


def test_dotted_keys_reach_any_depth():
    (by_name,) = {
        configuration.build(assign(TOP_K_IN_A_WINDOW, name, 2))[0].rule.top_k.k
        for name in ("rule.neighbourhood.k", "rule.neighbourhood.1.k")
    }
    assert by_name == 2
    assert TOP_K_IN_A_WINDOW["rule"]["neighbourhood"][1]["k"] == 3  # a copy was changed
    one = assign({"rule": {"neighbourhood": {"type": "Within", "radius": 1.0}}}, "rule.neighbourhood.radius", 0.5)
    assert configuration.build(one)[0].rule.find(kd.Within) == (kd.Within(0.5),)
    deep = {"rule": {"type": "Interaction", "score": {"type": "Gaussian", "sigma": 1.0}}}
    assert configuration.build(assign(deep, "rule.score.sigma", 0.5))[0].rule == kd.krause(0.5)
    assert assign({}, "space.type", "Circle") == {"space": {"type": "Circle"}}


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("rule.neighbourhood.kk", r"unknown key of \[rule.neighbourhood\] 'kk'; did you mean 'k'"),
        ("rule.neighbourhood.2.k", "has 2 entries, numbered from 0, got 2"),
        ("rule.neighbourhood.two_sides", "did you mean 'two_sided'"),
        ("rule.type.name", "rule.type must be a table for rule.type.name to be set, got 'krause'"),
        ("rule..k", "a parameter is named table.key"),
    ],
)
def test_bad_dotted_keys(dotted, message):
    with pytest.raises(ValueError, match=message):
        assign(TOP_K_IN_A_WINDOW, dotted, 1)


def test_a_name_that_two_entries_bear_asks_for_a_place():
    twice = {"rule": {"neighbourhood": [{"type": "Within", "radius": 1.0}, {"type": "Grid", "height": 2, "width": 2}]}}
    with pytest.raises(
        ValueError, match=r"2 entries of rule.neighbourhood have a radius; .* rule.neighbourhood.0.radius"
    ):
        assign(twice, "rule.neighbourhood.radius", 2.0)


def test_values_are_read_from_tables_without_being_listed():
    """A class that the command has never heard of, the one of networks, and a rule given by its score."""

    @dataclass(frozen=True, eq=False)
    class _Half(kd.Gaussian):
        share: float = 0.5

    network = {"type": "Graph", "adjacency": [[True, False], [True, True]]}
    rule = {"type": "Interaction", "score": {"type": "_Half", "sigma": 2.0, "share": 0.25}, "neighbourhood": network}
    try:
        tables = {"rule": rule, "initial": {"n": 2}, "run": {"stop": {"type": "AtTime", "time": 1.0}}}
        dynamics, _, options = configuration.build(tables)
    finally:
        del Value._types["_Half"]
    assert dynamics.rule.score == _Half(2.0, 0.25)
    np.testing.assert_array_equal(dynamics.rule.find(kd.Graph)[0].adjacency, network["adjacency"])
    assert options["stop"] == kd.stopping.AtTime(1.0)


@pytest.mark.parametrize(
    "written",
    [
        '[sweep.parameters]\n"rule.neighbourhood.radius" = [0.2, 9.0]\n',
        '[sweep]\n"rule.neighbourhood.radius" = [0.2, 9.0]\n',
        "[sweep]\nrule.neighbourhood.radius = [0.2, 9.0]\n",
    ],
)
def test_a_sweep_names_its_parameters_in_any_of_toml_s_ways(written, tmp_path):
    import xarray

    head = '[rule]\ntype = "krause"\nneighbourhood = { type = "Within", radius = 1.0 }\n[initial]\nn = 6\n'
    (tmp_path / "sweep.toml").write_text(head + written)
    out = tmp_path / "s.nc"
    done = krause("sweep", tmp_path / "sweep.toml", "--out", out, "--workers", 0, "-s", "run.t_end=1.0")
    assert done.exit_code == 0, done.output
    with xarray.open_dataset(out, engine="h5netcdf") as dataset:
        np.testing.assert_array_equal(dataset["rule_neighbourhood_radius"], [0.2, 9.0])
        near, far = dataset["order_parameter"].values[:, 0]
        assert far > near  # who hears everyone on the sphere aligns with everyone


def test_every_value_of_a_sweep_is_checked_before_the_start(tmp_path):
    (tmp_path / "sweep.toml").write_text('[sweep]\n"rule.beta" = [1.0, "many"]\n')
    assert "beta must be a number" in krause("sweep", tmp_path / "sweep.toml").output
    (tmp_path / "sweep.toml").write_text('[sweep]\n"rule.beta" = 1.0\n')
    assert "rule.beta must be a list of values, got 1.0" in krause("sweep", tmp_path / "sweep.toml").output


def test_a_sweep_file_that_names_the_function_by_its_old_module_continues(tmp_path):
    import xarray

    from krause_dynamics._files import read_npz, write_npz

    (tmp_path / "s.toml").write_text('[initial]\nn = 4\n[run]\nt_end = 0.5\n[sweep]\n"rule.beta" = [1.0, 2.0]\n')
    command = ("sweep", tmp_path / "s.toml", "--workers", 0, "--resume", tmp_path / "s.npz", "--out", tmp_path / "s.nc")
    assert krause(*command).exit_code == 0
    header, arrays = read_npz(tmp_path / "s.npz")
    now, then = "krause_dynamics.command.sweep.evaluate_point", "krause_dynamics.cli_simulate.evaluate_point"
    assert now in header["sweep"]["function"]
    header["sweep"]["function"] = header["sweep"]["function"].replace(now, then)
    arrays["result_order_parameter"][:] = 7.0  # read, not computed again
    write_npz(tmp_path / "s.npz", header, arrays)
    again = krause(*command)
    assert again.exit_code == 0, again.output
    with xarray.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as dataset:
        assert (dataset["order_parameter"] == 7.0).all()
