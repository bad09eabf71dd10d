"""The Dataset: names, definitions, sequences of different length, files, and the command."""

from __future__ import annotations

import csv
import json
import os
import signal
import weakref

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

import krause_dynamics as kd
from krause_dynamics import report
from krause_dynamics.checkpoints import Measure, analyze, measures, record
from krause_dynamics.checkpoints.stream import Passes
from krause_dynamics.command.analyze import analyze as command
from krause_dynamics.report.rows import measure_rows
from tests import checkpoint_models as models

IDS = [list(range(1, 21)), list(range(5, 17)), [7, 3, 7, 3, 9, 9, 9, 1, 2, 3, 4, 5]]
DIMENSIONS = {
    "importance_first": ("sequence", "block", "head"),
    "first_token_score": ("sequence", "block", "head"),
    "entropy": ("sequence", "block", "head"),
    "strongest_key": ("sequence", "block", "head"),
    "sink_rate": ("block", "head", "eps"),
    "mean_cosine": ("sequence", "layer", "tokens"),
    "order_parameter": ("sequence", "layer", "tokens"),
    "residual": ("sequence", "layer", "tokens"),
    "effective_rank": ("sequence", "layer", "tokens"),
    "norm_ratio": ("sequence", "layer"),
    "clusters": ("sequence", "layer", "tokens", "radius"),
    "effective_clusters": ("sequence", "layer", "tokens", "radius"),
}


@pytest.fixture(scope="module")
def model():
    return models.llama()


@pytest.fixture(scope="module")
def dataset(model):
    return analyze(model, IDS, eps=[0.1, 0.2], radii=[0.5, 1.0])


def test_names_and_coordinates_that_scripts_rely_on(dataset):
    for name, dimensions in DIMENSIONS.items():
        assert dataset[name].dims == dimensions
        assert dataset[name].attrs["long_name"]
    assert dataset["layer"].values.tolist() == [0, 1, 2, 3]
    assert dataset["block"].values.tolist() == [1, 2, 3]
    assert dataset["tokens"].values.tolist() == ["all", "without_first"]
    assert dataset["length"].values.tolist() == [20, 12, 12]
    meta = json.loads(dataset.attrs["meta"])
    assert list(meta) == sorted(meta)  # two files of one analysis are equal byte for byte
    assert meta["attention_path"] == "registry"
    assert (meta["tokens_shortest"], meta["tokens_longest"]) == (12, 20)


def test_every_variable_equals_its_definition_on_the_recorded_states(dataset, model):
    for i, ids in enumerate(IDS):
        run = record(model, [ids])
        for layer, state in enumerate(run.positions[:, 0].astype(float)):
            norms = np.linalg.norm(state, axis=1)
            here = dataset.sel(sequence=i, layer=layer)
            assert float(here["norm_ratio"]) == pytest.approx(norms[0] / np.median(norms), rel=1e-5)
            for tokens, points in (("all", state), ("without_first", state[1:])):
                at, u = here.sel(tokens=tokens), points / np.linalg.norm(points, axis=1, keepdims=True)
                n = len(u)
                assert float(at["order_parameter"]) == pytest.approx(np.linalg.norm(u.mean(0)), abs=1e-5)
                cosine = ((u @ u.T).sum() - n) / (n * (n - 1))
                assert float(at["mean_cosine"]) == pytest.approx(cosine, abs=1e-5)
                spread = np.linalg.norm(points - points.mean(0)) / np.linalg.norm(points)
                assert float(at["residual"]) == pytest.approx(spread, abs=1e-5)
                s = np.linalg.svd(points, compute_uv=False)
                p = s[s > 0] / s.sum()
                assert float(at["effective_rank"]) == pytest.approx(np.exp(-(p * np.log(p)).sum()), rel=1e-4)
                for radius in (0.5, 1.0):
                    found = kd.clusters.find(points, radius, metric="chord")
                    assert int(at["clusters"].sel(radius=radius)) == found.count
                    assert float(at["effective_clusters"].sel(radius=radius)) == pytest.approx(found.effective_number)
        for name, extra in (("importance_first", run.extras["importance"][..., 0]), ("entropy", run.extras["entropy"])):
            np.testing.assert_allclose(dataset[name].sel(sequence=i), extra[:, 0], atol=1e-6)
    alpha = dataset["importance_first"].values
    for e, eps in enumerate((0.1, 0.2)):
        np.testing.assert_allclose(dataset["sink_rate"].values[..., e], 100 * (alpha > eps).mean(0), atol=1e-9)


def test_batches_and_order_of_sequences_change_nothing(dataset, model):
    again = analyze(model, IDS[::-1], eps=[0.1, 0.2], radii=[0.5, 1.0], batch_size=1)
    for name in DIMENSIONS:
        values = again[name].values[::-1] if "sequence" in again[name].dims else again[name].values
        # another batch is another order of sums in the matrix products
        np.testing.assert_allclose(values, dataset[name].values, rtol=1e-4, atol=1e-5)


def test_statistics_are_float32_in_half_precision(model):
    half = models.llama().to(torch.bfloat16)
    found = analyze(half, IDS[:1])
    assert found["importance_first"].dtype == found["mean_cosine"].dtype == np.float32
    assert json.loads(found.attrs["meta"])["dtype"] == "bfloat16"


def test_short_sequences_leave_nan_and_minus_one_not_an_error(model):
    found = analyze(model, [[3], [3, 4]])
    assert np.isnan(found["mean_cosine"].sel(sequence=0, tokens="without_first")).all()
    assert (found["clusters"].sel(sequence=0, tokens="without_first") == -1).all()
    assert (found["strongest_key"] == -1).all()
    assert np.isnan(found["first_token_score"].sel(sequence=0)).all()


def test_states_alone(model):
    found = analyze(model, IDS, attention=None)
    assert "sink_rate" not in found
    assert "block" not in found.dims
    report.layer_table(found)
    assert len(report.findings(found)) == 2


@pytest.mark.parametrize("options", [{"eps": [0.0]}, {"eps": [1.2]}, {"radii": []}, {"radii": [-1.0]}, {"radii": [3]}])
def test_bad_thresholds_are_named(model, options):
    with pytest.raises(ValueError, match=f"{next(iter(options))} must be numbers above 0"):
        analyze(model, IDS, **options)


def test_netcdf_keeps_everything(dataset, tmp_path):
    import xarray

    path = report.write_dataset(dataset, tmp_path / "analysis.nc")
    with xarray.open_dataset(path, engine="h5netcdf") as again:
        xarray.testing.assert_equal(again.load(), dataset)
        assert json.loads(again.attrs["meta"]) == json.loads(dataset.attrs["meta"])


@pytest.fixture
def app():
    application = typer.Typer()
    application.command()(command)
    return application


def test_command_writes_table_dataset_and_figures(app, model, tmp_path, light_pictures):
    model.save_pretrained(tmp_path / "model")
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    arguments = [str(tmp_path / "model"), "--token-ids", str(tmp_path / "ids.json"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Sink_1^0.3" in result.output
    written = {path.name for path in (tmp_path / "out").iterdir()}
    figures = {f"{name}.{kind}" for name in ("synchronization", "clusters", "sinks") for kind in ("png", "json")}
    assert written == {"analysis.nc", "table.txt", *figures}
    assert "sink rate" in (tmp_path / "out" / "table.txt").read_text()


def test_command_says_what_is_wrong_before_it_computes(app, tmp_path):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "page.txt").write_text("words")
    text = ["--text", str(tmp_path / "page.txt")]
    for arguments, message in (
        (
            ["smollm2-135m", *text, "--out", str(tmp_path / "file" / "out")],
            "out must be a folder that can",
        ),
        (["./nowhere", *text], "there is no './nowhere'"),
        (["smollm2-135m"], "give either --text FILE or --token-ids FILE"),
        (["smollm2-135m", "--token-ids", str(tmp_path / "page.txt")], "must be a file that ends in .json or .npy"),
    ):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert message in " ".join(result.output.split())


def own_measures():
    """One of states over layers, one of attention, one of the corpus."""

    def mean_step(state):
        """Mean length of the step from the layer before; NaN at the embedding."""
        if state.previous is None:
            return torch.full((len(state.tokens),), torch.nan)
        return (state.tokens - state.previous).norm(dim=-1).mean(-1)

    step = Measure("mean_step", ("sequence", "layer"), "mean step of the tokens", "state", mean_step)
    heads = ("sequence", "block", "head")
    share = Measure("largest_share", heads, "largest alpha", "attention", lambda a: a.importance.amax(-1))
    total = Measure("tokens_in_all", (), "tokens of all", "corpus", lambda corpus: corpus.lengths.sum())
    return ["default", step, share, total]


def test_a_measure_of_ones_own_is_in_the_dataset(model):
    """Its variable, dimensions and words are there, and what it needs of two neighbouring layers."""
    found = analyze(model, IDS, measures=own_measures())
    assert found["mean_step"].dims == ("sequence", "layer")
    assert found["mean_step"].attrs["long_name"] == "mean step of the tokens"
    assert int(found["tokens_in_all"]) == sum(map(len, IDS))
    assert set(found.data_vars) == set(analyze(model, IDS)) | {"mean_step", "largest_share", "tokens_in_all"}
    run = record(model, IDS[:1])
    steps = np.linalg.norm(np.diff(run.positions[:, 0], axis=0), axis=-1).mean(-1)
    np.testing.assert_allclose(found["mean_step"].values[0, 1:], steps, rtol=1e-5)
    assert np.isnan(found["mean_step"].values[:, 0]).all()
    largest = run.extras["importance"][:, 0].max(-1)
    np.testing.assert_allclose(found["largest_share"].values[0], largest, rtol=1e-5)


def test_a_measure_of_ones_own_goes_wherever_an_analysis_goes(tmp_path, model):
    """Into rows, pages, files, intervals, comparisons and a run that is kept after every block."""
    found = analyze(model, IDS, measures=own_measures())
    table = csv.DictReader(kd.report.write_csv(found, tmp_path / "rows.csv").read_text().splitlines())
    means = {float(row["layer"]): float(row["mean"]) for row in table if row["measure"] == "mean_step" and row["mean"]}
    np.testing.assert_allclose([means[i] for i in (1, 2, 3)], found["mean_step"].mean("sequence")[1:], rtol=1e-6)
    shown = {row["measure"]: row["words"] for row in measure_rows(found)}  # the table of a page
    assert shown["mean_step"] == "mean step of the tokens"
    assert shown["largest_share"] == "largest alpha"
    kd.report.write_dataset(found, tmp_path / "analysis.nc")
    again = kd.open(tmp_path / "analysis.nc")
    np.testing.assert_array_equal(again["largest_share"], found["largest_share"])
    other = analyze(models.llama(1), IDS, measures=own_measures()[1:])
    both = kd.compare({"a": found, "b": other}, draws=20)
    difference = (other["mean_step"] - found["mean_step"]).mean("sequence")[1:]
    np.testing.assert_allclose(both["mean_step_difference"].sel(case="b")[1:], difference, rtol=1e-5)
    assert "largest_share_interval" in both
    assert "mean_step" in kd.checkpoints.interval(found)
    kept = analyze(model, IDS, measures=own_measures(), checkpoint=tmp_path / "kept.npz")
    np.testing.assert_allclose(kept["mean_step"], found["mean_step"], rtol=1e-6)
    other = Measure("mean_step", ("sequence", "layer"), "another", "state", lambda state: state.tokens.sum((1, 2)))
    with pytest.raises(ValueError, match="another run"):
        analyze(model, IDS, measures=["default", other, *own_measures()[2:]], checkpoint=tmp_path / "kept.npz")


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"name": "mean step"}, ValueError, "name must be one word"),
        ({"name": "residual"}, ValueError, "'residual' is another measure's"),
        ({"of": "layers"}, ValueError, "of must be 'state', 'attention' or 'corpus'"),
        ({"dims": ("layer", "sequence")}, ValueError, "must begin with"),
        ({"dims": ("sequence", "block")}, ValueError, "must begin with"),
        ({"formula": 3}, TypeError, "formula must be a function"),
        ({"formula": lambda state: state.tokens}, ValueError, r"must give numbers over \(sequence\), 1 sequences"),
        ({"formula": lambda state: state.tokens.sum()}, ValueError, "must give numbers over"),
        ({"formula": lambda state: np.array(["word"])}, ValueError, "gave <U4"),
        ({"dims": ("sequence", "layer", "tokens"), "formula": lambda s: s.tokens[..., 0]}, ValueError, "'tokens' has"),
        (
            {"dims": ("sequence", "layer", "place"), "formula": lambda s: s.tokens[..., 0]},
            ValueError,
            "one size whatever the sequence",
        ),
    ],
)
def test_a_measure_of_ones_own_that_is_none(model, change, error, words):
    fields = {"name": "sizes", "dims": ("sequence", "layer"), "long_name": "sizes", "of": "state"}
    fields |= {"formula": lambda state: state.tokens.norm(dim=(1, 2))} | change
    with pytest.raises(error, match=words):
        analyze(model, IDS, measures=[Measure(**fields)], batch_size=1)


@pytest.mark.parametrize("alone", [[[7]], [7], np.array([[7], [9]]), {"input_ids": [[7]], "attention_mask": [[1]]}])
def test_one_token_given_as_ids_is_refused_as_text_is(tmp_path, app, model, alone):
    """At every door; beside a longer sequence it has nothing to meet, which is NaN."""
    doors = [analyze, record, kd.checkpoints.forecast, kd.checkpoints.prepare]
    doors += [kd.models.branch_statistics, kd.checkpoints.confidence]
    doors += [lambda one, ids: kd.compare({0: one, 1: one}, ids)]
    for door in doors:
        given = (alone,) if door is kd.checkpoints.prepare else (model, alone)
        with pytest.raises(ValueError, match="no sequence has two tokens"):
            door(*given)
    (tmp_path / "one.json").write_text("[[7]]")
    model.save_pretrained(tmp_path / "model")
    done = CliRunner().invoke(app, [str(tmp_path / "model"), "--token-ids", str(tmp_path / "one.json")])
    assert done.exit_code == 2
    assert "no sequence has two tokens" in " ".join(done.output.split())


def test_the_command_says_which_block_is_no_number_and_keeps_the_layers_before(tmp_path, app, light_pictures):
    damaged = models.llama()
    damaged.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    damaged.save_pretrained(tmp_path / "model")
    (tmp_path / "ids.json").write_text(json.dumps(IDS))
    arguments = [str(tmp_path / "model"), "--token-ids", str(tmp_path / "ids.json"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, arguments)
    said = " ".join(done.output.split())
    assert done.exit_code == 2
    assert "block 2: weight mlp.up_proj.weight holds NaN" in said
    assert "the layers before are in" in said
    assert kd.open(tmp_path / "out" / "interrupted" / "analysis.nc").sizes["layer"] == 2


def test_measures_of_attention_that_is_not_looked_at(model):
    share = own_measures()[2]
    for asked in (share, "entropy"):
        with pytest.raises(ValueError, match="attention=None leaves out"):
            analyze(model, IDS, measures=[asked], attention=None)
    with pytest.raises(TypeError, match="a function becomes one by"):
        analyze(model, IDS, measures=[len])


def test_layers_are_forgotten_as_they_are_measured(monkeypatch):
    """While a deep model is analysed, never more than two of its eleven layers are held, nor attention of any block."""
    held, most = weakref.WeakSet(), []
    add = measures.Measuring.state

    def state(self, layer, tokens):
        held.add(tokens)
        add(self, layer, tokens)
        most.append(len(held))

    monkeypatch.setattr(measures.Measuring, "state", state)
    deep = models.llama(num_hidden_layers=10)
    found = analyze(deep, IDS[:1])
    assert found.sizes["layer"] == len(most) == 11
    assert max(most) <= 2
    run = record(deep, IDS[:1])
    np.testing.assert_allclose(found["norm_ratio"][0], kd.observables.norm_ratio(run.positions[:, 0]), rtol=1e-5)


def test_the_stream_tells_each_layer_in_order_after_the_attention_of_its_block(model):
    told = []

    class Listener:
        def state(self, layer, tokens):
            told.append(("state", layer, tuple(tokens.shape), tokens.dtype))

        def attention(self, block, found):
            told.append(("attention", block, tuple(found.importance.shape), found.importance.dtype))

    options = {"batch_size": 8, "min_queries": 8, "trust_remote_code": False, "progress": False}
    run = Passes.of(model, IDS[1:], tokenizer=None, attention="statistics", device=None, **options)
    for members, batch in run.batches():
        assert members == [0, 1]
        run.stream(batch, Listener())
    state, attention = ((2, 12, 32), torch.float32), ((2, 4, 12), torch.float32)
    expected = [("state", 0, *state)]
    for block in (1, 2, 3):
        expected += [("attention", block, *attention), ("state", block, *state)]
    assert told == expected


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_analysis_holds_its_finished_sequences(number, model, tmp_path, monkeypatch):
    def tell(done, total):
        if done == 2:
            os.kill(os.getpid(), number)

    whole = analyze(model, IDS, batch_size=1)
    before = signal.getsignal(signal.SIGTERM)
    if number == signal.SIGINT:
        part = analyze(model, IDS, batch_size=1, progress=tell)
    else:
        with pytest.raises(SystemExit) as ended:
            analyze(model, IDS, batch_size=1, progress=tell)
        assert ended.value.code == 143
        part = ended.value.result
    assert signal.getsignal(signal.SIGTERM) is before
    assert json.loads(part.attrs["meta"])["stopped"] == "interrupted"
    assert part.sizes["sequence"] == 2
    np.testing.assert_array_equal(part.mean_cosine, whole.mean_cosine.sel(sequence=part.sequence))
    assert report.findings(part)
