"""Pictures of particles: the data of the artists, not pixels."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import krause_dynamics as kd


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def test_lines_of_opinions_are_as_wide_as_their_mass():
    x = np.array([[0.0, 1.0, 5.0], [0.5, 0.5, 5.0], [0.5, 0.5, 5.0]])[..., None]
    run = kd.Trajectory(np.arange(3.0), x)
    (lines,) = kd.plots.opinions(run, color="C3").collections
    segments, widths = lines.get_segments(), lines.get_linewidths()
    assert len(segments) == 3 + 2  # two meet after the first step and are one line from then on
    np.testing.assert_allclose(sorted(widths), 0.4 + 12 * np.array([1, 1, 1, 1, 2]) / 3)
    weighted = kd.Trajectory(np.arange(3.0), x, log_mass=np.log([0.1, 0.3, 0.6]))
    widest = kd.plots.opinions(weighted).collections[0].get_linewidths()
    np.testing.assert_allclose(sorted(widest), 0.4 + 12 * np.array([0.1, 0.3, 0.4, 0.6, 0.6]))
    with pytest.raises(ValueError, match=r"positions \(T, n, 1\)"):
        kd.plots.opinions(kd.Trajectory(np.zeros(1), np.zeros((1, 2, 2))))


def test_circle_and_sphere_show_the_state_asked_for():
    circle, sphere = kd.Circle(), kd.Sphere()
    flat = kd.simulate(kd.Dynamics(kd.softmax(1.0), circle), circle.sample(6, 2, 0), 1.0, dt=0.25)
    ax = kd.plots.circle(flat, 2)
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), flat[2])
    assert ax.get_title() == "time 0.5"
    solid = kd.simulate(kd.Dynamics(kd.softmax(1.0), sphere), sphere.sample(6, 3, 0), 1.0, dt=0.25)
    axes = kd.plots.sphere(solid, 3)
    trails = list(axes.lines)
    assert len(trails) == 6
    np.testing.assert_array_equal(np.stack(trails[1].get_data_3d()).T, solid.positions[:4, 1])
    with pytest.raises(ValueError, match="three-dimensional"):
        kd.plots.sphere(solid, ax=ax)
    together = kd.Trajectory(np.zeros(1), np.array([[[1.0, 0], [1, 0], [0, 1]]]))
    sizes = kd.plots.circle(together).collections[0].get_sizes()
    np.testing.assert_allclose(sizes, 12 + 300 * np.array([2, 2, 1]) / 3)


def test_what_lies_behind_the_sphere_is_faint_however_many_lie_there():
    from matplotlib.colors import to_rgb

    towards = np.array([np.cos(-np.pi / 3), np.sin(-np.pi / 3), 0.0])  # matplotlib looks from an azimuth of -60 degrees
    run = kd.Trajectory(np.zeros(1), np.stack([towards, *[-towards] * 20])[None])
    ax = kd.plots.sphere(run)
    ax.figure.canvas.draw()
    colours = np.asarray(ax.collections[-1].get_facecolor())
    front, back = colours[colours.mean(axis=1).argsort()][:1], colours[colours.mean(axis=1).argsort()][1:]
    np.testing.assert_allclose(front[0], [0.55, 0.55, 0.55, 1])  # alone, so grey
    # Opaque: twenty on one another are no darker than one.
    np.testing.assert_allclose(back, np.broadcast_to([*(0.25 * np.array(to_rgb("C0")) + 0.75), 1], (20, 4)))


def test_overview_chooses_by_dimension():
    for space, d, label in ((kd.Euclidean(), 1, "opinion"), (kd.Euclidean(), 4, "first coordinate")):
        run = kd.simulate(kd.Dynamics(kd.krause(1.0), space), space.sample(5, d, 0), 1.0, dt=0.5)
        assert kd.plots.overview(run).get_ylabel() == label
    circle = kd.simulate(kd.Dynamics(kd.softmax(1.0), kd.Circle()), kd.Circle().sample(5, 2, 0), 1.0, dt=0.5)
    assert "angle" in kd.plots.overview(circle).get_ylabel()


def test_bifurcation_and_largest_cluster():
    radii = np.array([0.11, 0.51])
    runs = [kd.hegselmann_krause(np.linspace(0, 1, 41), radius) for radius in radii]
    finals = [kd.final_clusters(run) for run in runs]
    ax = kd.plots.bifurcation(radii, [f.positions for f in finals], [f.masses for f in finals])
    offsets = np.asarray(ax.collections[0].get_offsets())
    assert len(offsets) == sum(len(f.masses) for f in finals)
    np.testing.assert_allclose(offsets[-1], [0.51, 0.5], atol=1e-12)
    np.testing.assert_allclose(ax.collections[0].get_sizes()[-1], 41.0)
    batch = kd.hegselmann_krause_batch(np.random.default_rng(0).random((7, 30)), radii)
    line = kd.plots.largest_cluster(batch.radii, batch.largest).lines[0]
    np.testing.assert_array_equal(line.get_ydata(), batch.mean_largest)
    with pytest.raises(ValueError, match="one entry per radius"):
        kd.plots.bifurcation(radii, [np.zeros(2)])
    with pytest.raises(ValueError, match=r"shape \(R, S\)"):
        kd.plots.largest_cluster(radii, np.zeros((3, 2)))


def test_animations_have_their_frames(tmp_path):
    circle = kd.Circle()
    run = kd.simulate(kd.Dynamics(kd.softmax(2.0), circle), circle.sample(5, 2, 0), 1.0, dt=0.05)
    path = kd.plots.animate(run, tmp_path / "run.gif", frames=4)
    with Image.open(path) as picture:
        assert picture.n_frames == 4
    with pytest.raises(ValueError, match=r"end in \.gif or \.mp4"):
        kd.plots.animate(run, tmp_path / "run.avi")
    if not mpl.animation.writers.is_available("ffmpeg"):
        with pytest.raises(ValueError, match="ffmpeg"):
            kd.plots.animate(run, tmp_path / "run.mp4")
    line = kd.hegselmann_krause(np.arange(20.0), 1.0)
    with Image.open(kd.plots.animate(line, tmp_path / "line.gif", frames=4)) as picture:
        assert picture.n_frames == 4
    far = kd.simulate(kd.Dynamics(kd.krause(1.0)), np.zeros((2, 4)), 1.0)
    with pytest.raises(ValueError, match="draw must be given for dimension 4"):
        kd.plots.animate(far, tmp_path / "far.gif")
