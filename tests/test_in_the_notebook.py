"""What results show of themselves in a notebook, and facts as attributes of files."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import numpy as np
import pytest
import xarray

import krause_dynamics as kd
from krause_dynamics._files import attributes, read_netcdf, write_netcdf

NEAR = kd.krause(1.0, kd.Within(0.5))


class Balanced(HTMLParser):
    """Text of a piece of HTML whose tags close in their order."""

    def __init__(self, html):
        super().__init__()
        self.open, self.text = [], []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def text_of(x):
    return " ".join(Balanced(x._repr_html_()).text)


def test_every_result_shows_itself_as_a_table():
    run = kd.datasets.load("circle")
    for words in ("Gaussian(sigma=1) & Within(radius=0.5)", "particles 64", "0 to 15, 31 states", "Circle", "t_end"):
        assert words in text_of(run)
    found = kd.clusters.find(run.final, 0.1)
    for words in (f"{found.count} clusters", "points 64", ", ".join(map(str, found.sizes)), "0.1 (euclidean)"):
        assert words in text_of(found)
    for words in ("Dynamics", "Interaction", "sigma 1.0", "Within", "radius 0.5", "Circle"):
        assert words in text_of(kd.Dynamics(NEAR, kd.Circle()))


def test_every_public_value_shows_itself():
    values = [
        NEAR, kd.softmax(2.0, kd.Window(4) & kd.Causal() & kd.TopK(2)), kd.Sphere(), kd.Torus(1.0), kd.RK4(),
        kd.Adaptive(), kd.bounded_confidence(0.2), kd.Interaction(kd.Radial(np.exp)),
        kd.softmax(1.0, kd.Graph(np.eye(3))), kd.Dynamics(NEAR, query=np.eye(3)), kd.Dynamics(lambda t: NEAR),
    ]  # fmt: skip
    for value in values:
        html = value._repr_html_()
        assert type(value).__name__ in " ".join(Balanced(html).text)
        assert len(html) < 6000  # arrays by their shape


def test_what_a_user_wrote_is_text_and_no_page():
    run = kd.Trajectory(np.zeros(1), np.zeros((1, 2, 1)), meta={"model": "<script>alert(1)</script>", "axis": "layer"})
    assert "<script>" not in run._repr_html_()
    assert "&lt;script&gt;" in run._repr_html_()


def test_facts_are_attributes_of_files_and_all_of_them_are_read_back(tmp_path):
    run = kd.datasets.load("circle")
    stored = read_netcdf(run.save(tmp_path / "run.nc"))
    assert (stored.attrs["stopped"], stored.attrs["version"]) == ("t_end", run.meta["version"])
    assert kd.open(tmp_path / "run.nc").meta == run.meta
    old = stored.assign_attrs()  # as written by earlier releases
    old.attrs = {"meta": json.dumps(run.meta), "steps": run.steps}
    write_netcdf(tmp_path / "old.nc", old)
    assert kd.open(tmp_path / "old.nc").meta == run.meta
    data = kd.datasets.load("smollm2")
    meta = json.loads(data.attrs["meta"])
    assert data.attrs["model"] == meta["model"] == "smollm2-135m"
    assert {name: data.attrs[name] for name in data.attrs if name != "meta"} == {
        name: value for name, value in meta.items() if isinstance(value, str | int | float) and value != ""
    }


@pytest.mark.parametrize("value", [True, 3, 0.5, "word", np.float64(2.0), np.str_("text")])
def test_each_kind_of_fact_is_written(value, tmp_path):
    given = xarray.Dataset({"x": ("n", [1.0])}, attrs=attributes({"fact": value, "table": {"a": [1]}, "none": None}))
    write_netcdf(tmp_path / "a.nc", given)
    stored = read_netcdf(tmp_path / "a.nc")
    assert stored.attrs["fact"] == value
    assert json.loads(stored.attrs["meta"]) == {"fact": value, "table": {"a": [1]}, "none": None}


def test_stored_results_are_small_and_draw_at_once():
    from importlib.resources import files

    import matplotlib.pyplot as plt

    plt.switch_backend("Agg")
    folder = files("krause_dynamics.datasets")
    sizes = {name: len((folder / f"{name}.nc").read_bytes()) for name in kd.datasets.NAMES}
    assert sum(sizes.values()) < 300_000
    kd.plots.overview(kd.datasets.load("circle"))
    kd.plots.phase(kd.datasets.load("phase"), x="sigma", y="radius", value="clusters")
    kd.plots.synchronization(kd.datasets.load("smollm2"))
    plt.close("all")
