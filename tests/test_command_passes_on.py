"""What the command line passes on: every option reaches the call of its name, and what is left out is that call's."""

from __future__ import annotations

import inspect
import itertools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics import report
from krause_dynamics.command import beside, configuration
from krause_dynamics.command.app import app
from krause_dynamics.command.kinds import INITIAL, RULES
from krause_dynamics.command.tables import DEFAULTS, described

ANALYZE = kd.checkpoints.analyze  # before it is replaced


def defaults_of(function, names):
    """What a call takes where these keywords are left out."""
    known = inspect.signature(function).parameters
    return {name: known[name].default for name in names}


class Asked(Exception):  # noqa: N818 (an end, not an error)
    """Ends a command at the call that it made, which it holds."""


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """``asked(module, name, *arguments)``: positional and keyword arguments of the call of that name.

    Files that models are shown are made where the command runs.
    """
    monkeypatch.chdir(tmp_path)

    def of(module, name, *arguments):
        found = []

        def noted(*args, **options):
            found.append((args, options))
            raise Asked

        monkeypatch.setattr(module, name, noted)
        for option, path in itertools.pairwise(arguments):
            if option in ("--text", "--token-ids"):
                Path(path).touch()
        result = CliRunner().invoke(app, [str(a) for a in arguments])
        assert isinstance(result.exception, Asked), result.output
        return found[0]

    return of


@pytest.mark.parametrize(
    ("arguments", "changed"),
    [
        ((), {}),
        (("--length", 7), {"sequence_length": 7}),
        (("--max-sequences", 3), {"max_sequences": 3}),
        (("--truncate",), {"truncate": True}),
        (("--pad-token", 5), {"pad_token": 5}),
        (("--batch-size", 2), {"batch_size": 2}),
        (("--states-only",), {"attention": None}),
        (("--device", "cuda"), {"device": "cuda"}),
        (("--trust-remote-code",), {"trust_remote_code": True}),
        (("--memory", "24GB"), {"memory": "24GB"}),
        (("--checkpoint", "half.npz"), {"checkpoint": Path("half.npz")}),
        (("--controls", "shuffled", "--controls", "random"), {"controls": ("shuffled", "random")}),
        (("--measures", "all"), {"measures": "all"}),
    ],
)
def test_analyze_passes_on_its_options(asked, tmp_path, arguments, changed):
    page = tmp_path / "page.txt"
    inputs, options = asked(kd.checkpoints, "analyze", "analyze", "a-model", "--text", page, *arguments)
    assert inputs == ("a-model", page)
    defaults = defaults_of(ANALYZE, set(options))
    assert options == defaults | {"progress": True} | changed


@pytest.mark.parametrize(
    ("models", "texts", "cases", "same"),
    [
        (["x/a", "y/b"], ["t.txt"], {"a": "x/a", "b": "y/b"}, {"inputs": Path("t.txt")}),
        (["x/a", "y/a"], ["t.txt"], {"x/a": "x/a", "y/a": "y/a"}, {"inputs": Path("t.txt")}),
        (["runs"], ["t.txt"], "runs", {"inputs": Path("t.txt")}),
        (["m"], ["t.txt", "u.txt"], {"t.txt": Path("t.txt"), "u.txt": Path("u.txt")}, {"model": "m"}),
    ],
)
def test_compare_passes_on_what_it_is_given(asked, models, texts, cases, same):
    files = [word for text in texts for word in ("--text", text)]
    arguments = ("--length", 8, "--memory", "2GB", "--level", 0.9, "--seed", 3, "--dtype", "float32")
    (given,), options = asked(kd.checkpoints, "compare", "compare", *models, *files, *arguments)
    assert given == cases
    assert {name: options[name] for name in same} == same
    told = {"sequence_length": 8, "memory": "2GB", "level": 0.9, "rng": 3, "dtype": "float32", "progress": True}
    assert {name: options[name] for name in told} == told


def test_compare_shows_models_without_a_tokenizer_token_ids(asked):
    (given,), options = asked(kd.checkpoints, "compare", "compare", "a", "b", "--token-ids", "values.npy")
    assert (given, options["inputs"]) == ({"a": "a", "b": "b"}, Path("values.npy"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), "either --text FILE or --token-ids FILE"),
        (("--text", "t.txt", "--token-ids", "i.json"), "either --text FILE or --token-ids FILE"),
        (("--text", "t.npy"), "token ids go to --token-ids"),
        (("--token-ids", "t.txt"), "ends in .json or .npy"),
        (("--text", "nowhere.txt"), "--text: there is no file 'nowhere.txt'"),
        (("--token-ids", "nowhere.npy"), "--token-ids: there is no file 'nowhere.npy'"),
    ],
)
@pytest.mark.parametrize("command", [("analyze", "a"), ("compare", "a", "b")])
def test_models_are_shown_files_of_one_kind(command, given, words):
    result = CliRunner().invoke(app, [*command, *given])
    assert (result.exit_code, words in result.output) == (2, True)


def test_compare_refuses_models_and_texts_at_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in "tu":
        (tmp_path / name).write_text("words")
    result = CliRunner().invoke(app, ["compare", "a", "b", "--text", "t", "--text", "u"])
    assert (result.exit_code, "several models or several texts" in result.output) == (2, True)


def test_analyze_takes_one_file_of_the_kind_that_its_option_says(asked, tmp_path):
    ids = tmp_path / "ids.json"
    assert asked(kd.checkpoints, "analyze", "analyze", "m", "--token-ids", ids)[0] == ("m", ids)


def test_analyze_writes_where_it_is_told_or_nowhere(tmp_path, monkeypatch):
    from tests.keywords.figures import analysis

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kd.checkpoints, "analyze", lambda *_, **__: analysis())
    (tmp_path / "page.txt").write_text("words")
    result = CliRunner().invoke(app, ["analyze", "m", "--text", "page.txt"])
    assert result.exit_code == 0, result.output
    assert "hand" in result.output  # the report is printed
    assert [path.name for path in tmp_path.iterdir()] == ["page.txt"]
    told = []
    monkeypatch.setattr(report, "write_all", lambda *given, **_: told.append(given) or [given[1] / "analysis.nc"])
    result = CliRunner().invoke(app, ["analyze", "m", "--text", "page.txt", "--out", "new"])
    ((dataset, folder, about),) = told
    assert (dataset.identical(analysis()), folder.name) == (True, "new")
    assert about == {"command": "krause analyze", "model": "m"}
    assert result.output.splitlines()[-1] == "wrote new/analysis.nc"


def test_analyze_writes_a_page_where_it_is_told(tmp_path, monkeypatch):
    from tests.keywords.figures import analysis

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kd.checkpoints, "analyze", lambda *_, **__: analysis())
    (tmp_path / "page.txt").write_text("words")
    told = []
    monkeypatch.setattr(report, "write_page", lambda *given, beside: told.append(given) or [given[1]])
    result = CliRunner().invoke(app, ["analyze", "m", "--text", "page.txt", "--report", "a.html"])
    ((dataset, page, about),) = told
    assert (dataset.identical(analysis()), page) == (True, Path("a.html"))
    assert about == {"command": "krause analyze", "model": "m"}
    assert result.output.splitlines()[-1] == "wrote a.html"
    refused = CliRunner().invoke(app, ["analyze", "m", "--text", "page.txt", "--report", "a.pdf"])
    assert (refused.exit_code, "must end in .html" in refused.output, len(told)) == (2, True, 1)


@pytest.mark.parametrize("name", beside.NAMES)
def test_further_sections_are_computed_with_the_options_of_the_analysis(name, monkeypatch):
    asked = []
    functions = {
        "forecast": "forecast",
        "confidence": "confidence",
        "branches": "branch_statistics",
        "tracks": "record",
    }
    module = kd.models if name == "branches" else kd.checkpoints
    loaded = SimpleNamespace(tokenizer="a tokenizer", model=torch.nn.Linear(2, 2, dtype=torch.bfloat16))
    dtypes = []

    def called(*given, **options):
        asked.append((given, options))
        dtypes.append(loaded.model.weight.dtype)
        return name

    monkeypatch.setattr(module, functions[name], called)
    monkeypatch.setattr(kd.checkpoints, "tracks", lambda run, *, tokenizer: (run, tokenizer))
    settings = {"sequence_length": 9, "max_sequences": 3, "batch_size": 2, "dtype": None}
    (result,) = beside.results([name], loaded, "t.txt", settings, progress=True)
    (call,) = asked
    assert call[0] == (loaded, "t.txt")
    sizes = {"sequence_length": 9, "max_sequences": 3, "batch_size": 2, "progress": True}
    assert call[1] == (sizes | {"max_sequences": 1, "attention": None} if name == "tracks" else sizes)
    beside.results([name], loaded, "t.txt", settings | {"dtype": "bfloat16"}, progress=True)
    assert dtypes == [torch.float32, torch.bfloat16]  # unless one is asked for
    assert loaded.model.weight.dtype == torch.bfloat16
    assert result == (("tracks", "a tokenizer") if name == "tracks" else name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--beside", "forecast"), "add --report"),
        (("--report", "a.html", "--beside", "forcast"), "did you mean 'forecast'"),
        (
            ("--report", "a.html", "--beside", "tracks", "--pad-token", "3", "--truncate"),
            "leave --truncate, --pad-token away",
        ),
    ],
)
def test_sections_that_cannot_stand_on_a_page_are_refused_before_anything_is_loaded(
    tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["analyze", "m", "--text", "page.txt", *arguments])
    assert (result.exit_code, message in " ".join(result.output.split())) == (2, True), result.output


def test_sections_stand_on_the_page_and_replace_nothing(tmp_path, monkeypatch):
    from tests.keywords.figures import analysis

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(kd.checkpoints, "analyze", lambda *_, **__: analysis())
    monkeypatch.setattr(beside, "loaded", lambda *given: given[0])
    monkeypatch.setattr(beside, "results", lambda names, *_: [f"of {name}" for name in names])
    (tmp_path / "page.txt").write_text("words")
    told = []
    monkeypatch.setattr(report, "write_page", lambda *given, beside: told.append(beside) or [given[1]])
    call = ["analyze", "m", "--text", "page.txt", "--report", "a.html", "--beside", "tracks", "--beside", "forecast"]
    assert CliRunner().invoke(app, call).exit_code == 0
    assert told == [["of tracks", "of forecast"]]
    (tmp_path / "a_forecast.nc").write_text("of another day")
    refused = CliRunner().invoke(app, call)
    assert (refused.exit_code, "a_forecast.nc" in refused.output, len(told)) == (2, True, 1), refused.output


def test_compare_writes_a_page_where_it_is_told(tmp_path, monkeypatch, light_pictures):
    from tests.keywords.figures import comparison

    monkeypatch.chdir(tmp_path)
    (tmp_path / "page.txt").write_text("words")
    found = comparison()
    monkeypatch.setattr(kd.checkpoints, "compare", lambda *_, **__: found)
    arguments = ["compare", "m", "n", "--text", "page.txt", "--report"]
    result = CliRunner().invoke(app, [*arguments, "a.html"])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"page.txt", "a.html", "a.csv", "a.nc"}
    refused = CliRunner().invoke(app, [*arguments, "a.pdf"])
    assert (refused.exit_code, "must end in .html" in refused.output) == (2, True)


def test_simulate_passes_on_its_options(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told, options = asked(configuration, "simulate", "simulate", "--checkpoint", "half.npz", "-s", "run.save_every=3")
    assert options["checkpoint"].name == "half.npz"
    assert (options["progress"], options["save_every"], options["impl"]) == (True, 3, "auto")
    assert (told[0], told[1].shape) == (kd.Dynamics(kd.softmax(1.0), kd.Sphere()), (64, 3))


def test_simulate_passes_on_the_checkpoint_of_opinions(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ("simulate", "-s", "opinions.radius=0.25", "--checkpoint", "half.npz")
    (x0,), options = asked(configuration, "hegselmann_krause", *arguments)
    assert options["checkpoint"].name == "half.npz"
    np.testing.assert_array_equal(x0, kd.initial.uniform(64, rng=0))
    assert (options["radius"], options["rng"]) == (0.25, 0)


def test_sweep_passes_on_its_options(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[sweep]\nseeds = 3\n"rule.beta" = [1.0, 2.0]\n')
    (function, values), options = asked(
        kd.sweeps, "sweep", "sweep", "s.toml", "--workers", 2, "--resume", "half.npz", "-s", "run.t_end=0.5"
    )
    assert values == {"rule_beta": [1.0, 2.0]}
    assert (options["seeds"], options["workers"], options["progress"]) == (3, 2, True)
    assert options["path"].name == "half.npz"
    # A point of it: the sweep's generator seeds the initial state, the changed table the rule.
    seed = int(np.random.default_rng(5).integers(2**63))
    run = kd.simulate(kd.Dynamics(kd.softmax(2.0), kd.Sphere()), kd.Sphere().sample(64, 3, seed), 0.5)
    found = function(np.random.default_rng(5), rule_beta=2.0)
    assert found == {"order_parameter": pytest.approx(float(kd.observables.order_parameter(run.final)), abs=1e-12)}


def test_a_point_of_a_sweep_keeps_its_first_and_last_state_only(asked, monkeypatch):
    kept = []
    monkeypatch.setattr(configuration, "simulate", lambda *_, **options: kept.append(options["save_at"]))
    configuration.run({}, final_only=True)
    assert kept == [[]]


@pytest.mark.parametrize(
    ("table", "function"),
    [("run", kd.simulate), ("opinions", kd.hegselmann_krause), ("dynamics", kd.Dynamics), ("sweep", kd.sweep)],
)
def test_what_a_table_leaves_out_is_what_the_call_leaves_out(table, function):
    known = inspect.signature(function).parameters
    same = {name for name in DEFAULTS[table] if name in known and known[name].default is not inspect.Parameter.empty}
    assert len(same) >= 1
    defaults = defaults_of(function, same - {"seed"})
    assert {name: DEFAULTS[table][name] for name in defaults} == defaults


def test_balls_are_closed_unless_a_table_says_otherwise():
    closed = inspect.signature(kd.bounded_confidence).parameters["closed"].default
    assert DEFAULTS["opinions"]["closed"] == RULES["bounded_confidence"]["closed"] == closed


def test_pictures_are_drawn_with_the_defaults_of_the_function():
    from krause_dynamics.command.pictures import complete, generate

    for command, function in ((generate, kd.models.generate_pictures), (complete, kd.models.complete_pictures)):
        known = inspect.signature(function).parameters
        for name in ("seed", "temperature", "batch_size"):
            assert inspect.signature(command).parameters[name].default == known[name].default


@pytest.mark.parametrize("kind", ["uniform", "gaussian", "equally_spaced", "dumbbell"])
def test_what_an_initial_state_leaves_out_is_what_its_function_leaves_out(kind):
    assert INITIAL[kind] == defaults_of(getattr(kd.initial, kind), INITIAL[kind])


def test_a_run_without_tables():
    """What the help and the README promise: 64 tokens on the sphere, softmax at beta 1, until time 20."""
    tables = described({})
    assert tables["rule"] == {"type": "softmax", "beta": 1.0, "normalised": True, "neighbourhood": []}
    assert (tables["space"], tables["initial"]["n"], tables["run"]["t_end"]) == ({"type": "Sphere"}, 64, 20.0)
    assert tables["sweep"]["cluster_radius"] == 0.1
    assert "opinions" not in tables


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"rule": {"type": "Krause"}}, "unknown rule.type 'Krause'; did you mean 'krause'"),
        (
            {"rule": {"type": "krause", "beta": 1.0}},
            "rule.beta belongs to rule.type = 'softmax', and the type is 'krause'",
        ),
        ({"initial": {"type": "uniforme"}}, "unknown initial.type 'uniforme'; did you mean 'uniform'"),
        ({"initial": {"lo": 1.0, "type": "uniform"}}, "unknown key of .initial. 'lo'; did you mean 'low'"),
        ({"dynamics": {"noize": 1.0}}, "unknown key of .dynamics. 'noize'; did you mean 'noise'"),
        ({"sweep": {"seed": 1}}, "unknown key of .sweep. 'seed'; did you mean 'seeds'"),
        ({"rule": 3}, "rule must be a table .rule., got 3"),
        ({"sweep": {"parameters": 3}}, "sweep.parameters. must be a table of lists, got 3"),
    ],
)
def test_a_misspelt_table_is_answered_with_the_nearest_name(tables, message):
    with pytest.raises(ValueError, match=message):
        described(tables)


def test_settings_of_dimension_and_seed_reach_the_initial_state():
    tables = {"initial": {"type": "gaussian", "n": 5, "d": 2, "std": 3.0, "seed": 7}, "space": {"type": "Euclidean"}}
    x0 = configuration.build(tables)[1]
    np.testing.assert_array_equal(x0, kd.initial.gaussian(5, 2, std=3.0, rng=7))
    for space, d in (("Circle", 2), ("Sphere", 3), ("Euclidean", 1)):
        assert configuration.build({"space": {"type": space}})[1].shape == (64, d)


def test_noise_is_drawn_with_the_seed_of_the_run_or_of_the_initial_state():
    quiet, noisy = {}, {"noise": 0.1}
    for dynamics, run, seed in ((quiet, {}, None), (noisy, {}, 3), (noisy, {"seed": 9}, 9), (quiet, {"seed": 9}, 9)):
        tables = {"initial": {"seed": 3}, "dynamics": dynamics, "run": run}
        assert configuration.build(tables)[2]["rng"] == seed
    for opinions, seed in (({}, 3), ({"seed": 9}, 9)):
        tables = {"initial": {"seed": 3}, "opinions": {"radius": 0.2} | opinions}
        assert configuration.build_opinions(tables)[1]["rng"] == seed


def test_the_form_of_a_file_is_taken_unless_something_was_changed(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, ["simulate", "-n", "4", "--t-end", "0.1"]).exit_code == 0
    run = kd.Trajectory.load("run.npz")
    assert run.meta["impl"] != "reference"
    replace(run, meta=run.meta | {"impl": "reference"}).save("other.npz")
    assert asked(configuration, "simulate", "simulate", "other.npz")[1]["impl"] == "reference"
    for changed in (("-n", 5), ("-s", "rule.beta=2.0")):
        assert asked(configuration, "simulate", "simulate", "other.npz", *changed)[1]["impl"] == "auto"


def test_pictures_and_words_of_a_run(tmp_path, monkeypatch):
    from krause_dynamics import plots

    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(plots, "animate", lambda run, path: drawn.append((len(run), path.name)))
    quick = ("simulate", "-n", "4", "--t-end", "0.1", "-s", "space.type=Circle")
    for name in ("a.gif", "b.mp4", "c.png"):
        result = CliRunner().invoke(app, [*quick, "--force", "--plot", name])
        assert result.output.splitlines()[-1] == f"run.npz: 3 states of 4 particles, ended by t_end; drawn in {name}"
    assert drawn == [(3, "a.gif"), (3, "b.mp4")]
    assert (tmp_path / "c.png").exists()


def test_bad_input_goes_to_the_standard_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["simulate", "-s", "rule.bta=3"])
    assert "did you mean 'beta'" in result.stderr
    assert result.stdout == ""
    lost = CliRunner().invoke(app, ["sweep", "none.toml", "--out", "no/s.nc"])
    assert (lost.exit_code, lost.stdout) == (2, "")


@pytest.mark.parametrize("option", ["--out", "--resume"])
def test_a_sweep_tries_its_folders_before_the_start(option, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "s.toml").write_text('[sweep]\n"rule.beta" = [1.0]\n')
    monkeypatch.setattr(kd.sweeps, "sweep", lambda *_, **__: pytest.fail("started"))
    result = CliRunner().invoke(app, ["sweep", "s.toml", option, "no/s.nc"])
    assert "the folder" in result.stderr


def test_help_and_version():
    for arguments in ((), ("--help",)):
        assert "tokens as interacting particles" in " ".join(CliRunner().invoke(app, arguments).output.lower().split())
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"krause_dynamics {kd.__version__}\n")
    for command in typer.main.get_command(app).commands:
        words = CliRunner().invoke(app, [command, "--help"], terminal_width=200).output
        assert "<bool>" not in words, "a flag takes no value"
        for name, option in _options(command):
            assert option.help, f"{command} {name} has no help"
            assert option.opts[-1].split("--")[-1] in words


def _options(command):
    return [(one.name, one) for one in typer.main.get_command(app).commands[command].params if hasattr(one, "help")]


def test_a_failing_command_shows_no_values_of_the_user():
    """Locals may hold texts and ids of others: tracebacks stay without them."""
    assert app.pretty_exceptions_show_locals is False


def opened(path):
    tables = {"initial": {"type": "file", "path": str(path)}, "space": {"type": "Euclidean"}}
    return configuration.build(tables)[1]


@pytest.mark.parametrize("mark", [";", ",", "\t", " "])
def test_columns_of_numbers_are_read_between_comments_and_empty_lines(mark, tmp_path):
    lines = ["# made by hand", "", "1.0|2.0", "   ", "# and more", '"3.5"|-1e-3', ""]
    (tmp_path / "x.csv").write_text("\n".join(lines).replace("|", mark), encoding="utf-8")
    np.testing.assert_array_equal(opened(tmp_path / "x.csv"), [[1.0, 2.0], [3.5, -1e-3]])


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_pickles_are_refused(suffix, tmp_path):
    content, path = np.array([{"code": 1}], dtype=object), tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, content, allow_pickle=True)
    else:
        np.savez(path, x=content)
    with pytest.raises(ValueError, match="x.np"):
        opened(path)
