"""What the artists hold, not how pixels look."""

from __future__ import annotations

import json

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")

import matplotlib.pyplot as plt

import krause_dynamics as kd
from krause_dynamics import plots, report
from krause_dynamics.checkpoints import analyze, record
from tests import checkpoint_models as models

IDS = np.random.default_rng(1).integers(0, models.VOCABULARY, (3, 16))


@pytest.fixture(scope="module")
def dataset():
    return analyze(models.llama(), IDS)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_synchronization_draws_mean_and_band_of_a_dataset_and_of_a_trajectory_alike(dataset):
    run = record(models.llama(), IDS)
    for tokens in ("all", "without_first"):
        expected = dataset["order_parameter"].sel(tokens=tokens).mean("sequence")
        for source in (dataset, run):
            ax = plots.synchronization(source, tokens=tokens, label="x", color="red")
            x, y = ax.lines[0].get_data()
            np.testing.assert_allclose(x, [0, 1, 2, 3])
            np.testing.assert_allclose(y, expected, atol=1e-6)
            assert ax.lines[0].get_label() == "x"
            assert "layer" in ax.get_xlabel()
    with pytest.raises(ValueError, match="quantity must be one of"):
        plots.synchronization(run, quantity="beauty")


def test_two_sequences_have_a_band_and_one_has_none(dataset):
    for count in (1, 2):
        some = dataset.isel(sequence=slice(count))
        ax = plots.synchronization(some)
        assert len(ax.collections) == count - 1
    low, high = np.quantile(some["order_parameter"].sel(tokens="all"), [0.1, 0.9], axis=0)
    edges = ax.collections[0].get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose([edges.min(), edges.max()], [low.min(), high.max()])


def test_synchronization_and_angles_of_particles():
    circle = kd.Circle()
    run = kd.simulate(kd.Dynamics(kd.softmax(), circle), circle.sample(n=6, d=2, rng=0), 1.0)
    fig, (left, right) = plt.subplots(1, 2)
    assert plots.synchronization(run, ax=left) is left
    assert left.get_xlabel() == "time"
    plots.angles(run, ax=right)
    assert len(right.lines) == 6
    x = run.positions
    np.testing.assert_allclose(right.lines[2].get_ydata()[0], np.degrees(np.arctan2(x[0, 2, 1], x[0, 2, 0])))
    with pytest.raises(ValueError, match=r"positions \(T, n, 2\)"):
        plots.angles(record(models.llama(), IDS))


def test_angles_leave_a_gap_where_a_particle_crosses_the_cut():
    degrees = np.array([170.0, 179.0, -179.0, -170.0])
    positions = np.stack([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))], -1)[:, None]
    ax = plots.angles(kd.Trajectory(np.arange(4.0), positions), cut=180.0)
    assert np.isnan(ax.lines[0].get_ydata()).tolist() == [False, False, True, False]


def test_sink_map_shows_the_rate_at_the_threshold_asked_for(dataset):
    drawn = plots.sink_map(dataset)  # at the threshold of the tables beside it
    assert f"over {100 * kd.report.EPS:.0f} % of attention" in drawn.figure.axes[-1].get_ylabel().replace("\n", " ")
    ax = plots.sink_map(dataset, eps=0.1)
    image = ax.images[0]
    np.testing.assert_array_equal(image.get_array(), dataset["sink_rate"].sel(eps=0.1))
    assert image.get_clim() == (0, 100)
    assert ax.get_ylabel() == "block"
    assert "10 %" in ax.figure.axes[1].get_ylabel()


def test_clusters_draws_one_line_a_radius_widest_first(dataset):
    ax = plots.clusters(dataset, radii=[0.4, 1.0], tokens="all")
    counts = dataset["clusters"].sel(tokens="all").mean("sequence")
    np.testing.assert_allclose(ax.lines[0].get_ydata(), counts.sel(radius=1.0))
    np.testing.assert_allclose(ax.lines[1].get_ydata(), counts.sel(radius=0.4))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["60\N{DEGREE SIGN}", "23\N{DEGREE SIGN}"]


def test_norm_ratio(dataset):
    ax = plots.norm_ratio(dataset)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), dataset["norm_ratio"].mean("sequence"))
    assert ax.get_yscale() == "log"


def test_style_leaves_rcparams_as_they_were():
    before = dict(mpl.rcParams)
    with plots.style():
        assert mpl.rcParams["axes.spines.top"] is False
    assert dict(mpl.rcParams) == before


def test_save_figure_writes_a_small_png_and_its_parameters(tmp_path):
    fig, ax = plt.subplots()
    ax.plot([0, 1])
    path = plots.save_figure(fig, tmp_path / "line", {"seed": 3})
    assert path == tmp_path / "line.png"
    assert path.read_bytes()[:4] == b"\x89PNG"
    assert path.stat().st_size < 50_000
    assert json.loads((tmp_path / "line.json").read_text()) == {"seed": 3}
    assert not plt.fignum_exists(fig.number)
    with pytest.raises(TypeError):
        plots.save_figure(plt.figure(), tmp_path / "other", {"x": object()})
    assert not (tmp_path / "other.png").exists()


def test_whole_figures_hold_every_panel(dataset):
    fig = plots.layers_figure(dataset)
    labels = {line.get_label() for line in fig.axes[0].lines}
    assert {"all tokens", "without first token", "independent tokens, $T^{-1/2}$"} == labels
    assert len(fig.axes[0].lines) == 3
    assert len(plots.clusters_and_sinks_figure(dataset, eps=0.3).axes) == 3


def test_table_has_first_and_last_layer_and_explains_itself(dataset):
    table = report.layer_table(dataset, rows=3)
    layers = list(table.columns[0].cells)
    assert (layers[0], layers[-1]) == ("0", "3")
    assert any("Sink_1^0.3" in line for line in report.findings(dataset))
    assert any("47 degrees" in line for line in report.legend(dataset))


def test_synchronization_draws_whatever_a_dataset_holds_by_layer_with_its_own_words(dataset):
    """A new measure needs no line in the plots."""
    steps = np.arange(dataset.sizes["layer"]) * np.ones((dataset.sizes["sequence"], 1))
    more = dataset.assign(mean_step=(("sequence", "layer"), steps, {"long_name": "mean step of the tokens"}))
    ax = plots.synchronization(more, quantity="mean_step")
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), steps[0])
    assert ax.get_ylabel() == "mean step of the tokens"
    with pytest.raises(ValueError, match="mean_step"):
        plots.synchronization(more, quantity="clusters")  # over radii too
    with pytest.raises(ValueError, match="order_parameter"):
        plots.synchronization(dataset, quantity="mean_step")
