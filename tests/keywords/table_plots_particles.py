"""Rows of `kd.plots` for particles: what the artists hold, from paths written down here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

import krause_dynamics as kd
from tests.keywords.figures import assert_colours, assert_drawn_on, drawing, heights

DEGREES = np.array([[0.0, -80.0], [40.0, -20.0], [90.0, 30.0]])  # of two particles at three times
TIMES = np.array([0.0, 0.5, 2.0])


def turning(degrees=DEGREES, times=TIMES):
    """A run on the circle through angles (T, n)."""
    radians = np.radians(np.asarray(degrees, dtype=float))
    return kd.Trajectory(times, np.stack([np.cos(radians), np.sin(radians)], axis=-1))


def on_sphere(count=2):
    """A run on the sphere: particles turn about the vertical at heights of their own."""
    height, turn = np.linspace(-0.5, 0.5, count), TIMES[:, None]
    width = np.sqrt(1 - height**2)
    return kd.Trajectory(TIMES, np.stack([width * np.cos(turn), width * np.sin(turn), height + 0 * turn], axis=-1))


def offsets(ax):
    """Places of the dots of the last scatter on the axes."""
    dots = ax.collections[-1]
    return np.transpose(dots._offsets3d) if hasattr(dots, "_offsets3d") else np.asarray(dots.get_offsets())


def trails(ax):
    """Paths of lines in space, (lines, T, 3)."""
    return [np.transpose(line.get_data_3d()) for line in ax.lines]


@drawing("kd.plots.angles", "trajectory", DEGREES, [[170.0, 10.0], [-170.0, 20.0], [-150.0, 30.0]],
         "lines are the angles over the times, and miss the one after a crossing of the cut")  # fmt: skip
def _(first, second):
    np.testing.assert_allclose(heights(kd.plots.angles(turning(first))), np.transpose(first), atol=1e-12)
    ax = kd.plots.angles(turning(second), cut=180.0)
    np.testing.assert_allclose(heights(ax), [[170, np.nan, -150], [10, 20, 30]])
    np.testing.assert_array_equal([line.get_xdata() for line in ax.lines], [TIMES, TIMES])


@drawing("kd.plots.angles", "cut", None, 180.0, "no line is cut where one can pass between them; or cut as asked")
def _(first, second):
    degrees = [[170.0, 10.0], [-170.0, 20.0], [-150.0, 30.0]]
    ax = kd.plots.angles(turning(degrees), cut=first)
    assert np.isfinite(heights(ax)).all()
    np.testing.assert_allclose(np.subtract(heights(ax), np.transpose(degrees)) % 360, 0, atol=1e-9)
    low, high = ax.get_ylim()
    assert high - low == 360
    assert kd.plots.angles(turning(degrees), cut=second).get_ylim() == (-180, 180)
    # Of cuts that nobody crosses the usual one.
    assert kd.plots.angles(turning(np.zeros((3, 1)))).get_ylim() == (-180, 180)


@drawing("kd.plots.angles", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(lambda ax: kd.plots.angles(turning(), ax=ax), second, heights, DEGREES.T)


@drawing("kd.plots.angles", "line", {}, {"color": "C3", "linestyle": ":"}, "blue strokes, or as asked for")
def _(first, second):
    for line, colour, stroke in ((first, "C0", "-"), (second, "C3", ":")):
        lines = kd.plots.angles(turning(), **line).lines
        assert_colours(lines, [colour] * 2)
        assert {one.get_linestyle() for one in lines} == {stroke}


MEETING = np.array([[0.0, 1.0, 5.0], [0.5, 0.5, 5.0], [0.5, 0.5, 5.0]])


@drawing("kd.plots.opinions", "trajectory", (0.2, 0.2, 0.6), (0.1, 0.5, 0.4),
         "a stroke per group and time; its width is affine in the mass of those who agree at both ends")  # fmt: skip
def _(first, second):
    for masses in (first, second):
        a, b, c = masses
        run = kd.Trajectory(TIMES, MEETING[..., None], log_mass=np.log(masses))
        (lines,) = kd.plots.opinions(run).collections
        width = {tuple(map(tuple, s)): w for s, w in zip(lines.get_segments(), lines.get_linewidths(), strict=True)}
        known = {
            ((0, 0), (0.5, 0.5)): a, ((0, 1), (0.5, 0.5)): b, ((0, 5), (0.5, 5)): c,
            ((0.5, 0.5), (2, 0.5)): a + b, ((0.5, 5), (2, 5)): c,
        }  # fmt: skip
        assert set(width) == set(known)
        zero = width[(0, 0), (0.5, 0.5)] - 12 * a  # of a group without mass
        np.testing.assert_allclose([width[key] for key in known], [zero + 12 * mass for mass in known.values()])


@drawing("kd.plots.opinions", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    run = kd.Trajectory(TIMES, MEETING[..., None])
    known = [[[0, 0], [0.5, 0.5]], [[0, 1], [0.5, 0.5]], [[0, 5], [0.5, 5]], [[0.5, 0.5], [2, 0.5]], [[0.5, 5], [2, 5]]]
    assert_drawn_on(
        lambda ax: kd.plots.opinions(run, ax=ax), second, lambda ax: ax.collections[0].get_segments(), known
    )


@drawing("kd.plots.opinions", "lines", {}, {"color": "C3", "linewidths": 2.0}, "blue and by mass, or as asked for")
def _(first, second):
    run = kd.Trajectory(TIMES, MEETING[..., None])
    for lines, colour, widths in ((first, "C0", 2), (second, "C3", 1)):
        strokes = kd.plots.opinions(run, **lines).collections[0]
        np.testing.assert_array_equal(strokes.get_color()[0], plt.matplotlib.colors.to_rgba(colour))
        assert len(np.unique(strokes.get_linewidths())) == widths


@drawing("kd.plots.circle", "trajectory", [0.0, 0.5], [0.0, 0.6],
         "areas grow with the mass within a hundredth: 0.5 degrees apart is together, 0.6 is not")  # fmt: skip
def _(first, second):
    # 0.01 is 0.573 degrees. With a third particle far away, an area is 12 + 300 of the share that is near.
    for near, shares in ((first, [2, 2, 1]), (second, [1, 1, 1])):
        ax = kd.plots.circle(turning([[*near, 90.0]], TIMES[:1]))
        np.testing.assert_allclose(offsets(ax), turning([[*near, 90.0]], TIMES[:1]).final)
        np.testing.assert_allclose(ax.collections[0].get_sizes(), 12 + 100 * np.array(shares))


@drawing("kd.plots.circle", "index", -1, 1, "dots and title are of the state chosen, the last one by default")
def _(first, second):
    for ax, state in (
        (kd.plots.circle(turning()), 2), (kd.plots.circle(turning(), first), 2), (kd.plots.circle(turning(), second), 1)
    ):  # fmt: skip
        np.testing.assert_allclose(offsets(ax), turning()[state])
        assert ax.get_title() == f"time {TIMES[state]:g}"


@drawing("kd.plots.circle", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(lambda ax: kd.plots.circle(turning(), ax=ax), second, offsets, turning().final)


@drawing("kd.plots.circle", "scatter", {}, {"color": "C3", "s": 7.0}, "dots by mass, blue where none meet; or as asked")
def _(first, second):
    for scatter, colour, area in ((first, "C0", 162.0), (second, "C3", 7.0)):
        dots = kd.plots.circle(turning(), **scatter).collections
        assert_colours(dots, [colour])
        np.testing.assert_allclose(dots[0].get_sizes(), area)


def roaming(side=3.0):
    """Three particles in the plane: two meet at the end, one stays alone."""
    x = np.array([[[0, 0], [1, 0], [3, 3]], [[0.4, 0], [0.6, 0], [3, 2]], [[0.5, 0], [0.5, 0], [3, 1]]])
    return kd.Trajectory(TIMES, side / 3 * x)


@drawing("kd.plots.plane", "trajectory", 3.0, 30.0, "the axes hold all positions of the run, equal units both ways")
def _(first, second):
    for side in (first, second):
        ax = kd.plots.plane(roaming(side))
        np.testing.assert_allclose(offsets(ax), roaming(side).final)
        np.testing.assert_allclose([*ax.get_xlim(), *ax.get_ylim()], side * np.array([-0.05, 1.05, -0.05, 1.05]))
        assert ax.get_aspect() == 1
        # Those who met are together whatever the unit; who is alone is grey.
        np.testing.assert_allclose(ax.collections[0].get_sizes(), 12 + 100 * np.array([2, 2, 1]))
        assert len(np.unique(ax.collections[0].get_facecolors()[:, :3], axis=0)) == 2


@drawing("kd.plots.plane", "index", -1, 1, "dots, paths and title end with the state chosen, the last by default")
def _(first, second):
    run = roaming()
    for ax, state in ((kd.plots.plane(run), 2), (kd.plots.plane(run, first), 2), (kd.plots.plane(run, second), 1)):
        np.testing.assert_allclose(offsets(ax), run[state])
        np.testing.assert_allclose([line.get_xydata()[-1] for line in ax.lines], run[state])
        assert ax.get_title() == f"time {TIMES[state]:g}"


@drawing(
    "kd.plots.plane", "trails", True, False, "a path for each particle, by default too, broken at borders; or none"
)
def _(first, second):
    for options, count in (({}, 3), ({"trails": first}, 3), ({"trails": second}, 0)):
        assert len(kd.plots.plane(roaming(), **options).lines) == count
    border = kd.Trajectory(
        TIMES[:2], np.array([[[0.9, 0.5]], [[0.1, 0.5]]]), meta={"dynamics": {"space": kd.Torus(1.0).to_dict()}}
    )
    ax = kd.plots.plane(border)
    assert np.isnan(ax.lines[0].get_xydata()[1]).all()
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 1), (0, 1))


@drawing("kd.plots.plane", "ax", None, 1, "a new figure, or the axes given and none beside them")
def _(_, second):
    assert_drawn_on(lambda ax: kd.plots.plane(roaming(), ax=ax), second, offsets, roaming().final)


@drawing("kd.plots.plane", "scatter", {}, {"color": "C3", "s": 7.0}, "dots by mass and cluster, or as asked for")
def _(first, second):
    assert len(np.unique(kd.plots.plane(roaming(), **first).collections[0].get_facecolors(), axis=0)) == 2
    dots = kd.plots.plane(roaming(), **second).collections
    assert_colours(dots, ["C3"])
    np.testing.assert_allclose(dots[0].get_sizes(), 7.0)


@drawing("kd.plots.sphere", "trajectory", 2, 5, "dots are the last state, the paths are the positions of each")
def _(first, second):
    for count in (first, second):
        ax = kd.plots.sphere(on_sphere(count))
        np.testing.assert_allclose(offsets(ax), on_sphere(count).final)
        np.testing.assert_allclose(trails(ax), on_sphere(count).positions.swapaxes(0, 1))


@drawing("kd.plots.sphere", "index", -1, 1, "dots, paths and title end with the state chosen, the last by default")
def _(first, second):
    run = on_sphere()
    for ax, state in ((kd.plots.sphere(run), 2), (kd.plots.sphere(run, first), 2), (kd.plots.sphere(run, second), 1)):
        np.testing.assert_allclose(offsets(ax), run[state])
        np.testing.assert_allclose(trails(ax), run.positions[: state + 1].swapaxes(0, 1))
        assert ax.get_title() == f"time {TIMES[state]:g}"


@drawing(
    "kd.plots.sphere", "trails", True, False, "a path for each particle, by default too, or none; dots in any case"
)
def _(first, second):
    run = on_sphere()
    for options, count in (({}, 2), ({"trails": first}, 2), ({"trails": second}, 0)):
        ax = kd.plots.sphere(run, **options)
        assert len(ax.lines) == count
        np.testing.assert_allclose(offsets(ax), run.final)


@drawing("kd.plots.sphere", "ax", None, 1, "a new figure, or the axes in space given; flat ones are refused")
def _(_, second):
    run = on_sphere()
    assert_drawn_on(lambda ax: kd.plots.sphere(run, ax=ax), second, offsets, run.final, projection="3d")
    with pytest.raises(ValueError, match="three-dimensional"):
        kd.plots.sphere(run, ax=plt.subplots()[1])


@drawing("kd.plots.sphere", "scatter", {}, {"color": "C3", "s": 7.0}, "dots by mass, blue where none meet; or as asked")
def _(first, second):
    blue = plt.matplotlib.colors.to_rgb("C0")
    for scatter, area in ((first, 162.0), (second, 7.0)):
        ax = kd.plots.sphere(on_sphere(), **scatter)
        ax.figure.canvas.draw()
        dots = ax.collections[-1]
        np.testing.assert_allclose(dots.get_sizes(), area)
        if scatter:
            assert_colours([dots], ["C3"])
            continue
        # A quarter of the blue is left behind the sphere, seen from azimuth -60 and height 30 degrees.
        eye = np.array([np.cos(np.pi / 3), -np.sin(np.pi / 3), np.tan(np.pi / 6)])
        known = [blue if at @ eye >= 0 else 0.25 * np.array(blue) + 0.75 for at in on_sphere().final]
        np.testing.assert_allclose(sorted(map(tuple, dots.get_facecolor()[:, :3])), sorted(map(tuple, known)))


@drawing("kd.plots.overview", "trajectory", 1.0, 2.0,
         "angles on the unit circle, the end in the plane off it, opinions on a line, the sphere in space")  # fmt: skip
def _(first, second):
    circle = turning().positions
    np.testing.assert_allclose(heights(kd.plots.overview(kd.Trajectory(TIMES, first * circle))), DEGREES.T, atol=1e-12)
    wide = kd.Trajectory(TIMES, second * circle)
    np.testing.assert_allclose(offsets(kd.plots.overview(wide)), wide.final)
    line = kd.Trajectory(TIMES, MEETING[..., None])
    assert len(kd.plots.overview(line).collections[0].get_segments()) == 5
    np.testing.assert_allclose(offsets(kd.plots.overview(on_sphere())), on_sphere().final)


@drawing("kd.plots.overview", "ax", None, 1, "a new figure, or the axes given and none beside them, flat or in space")
def _(_, second):
    line, far = kd.Trajectory(TIMES, MEETING[..., None]), kd.Trajectory(TIMES, np.repeat(MEETING[..., None], 4, axis=2))
    for run, read, known in (
        (turning(), heights, DEGREES.T),
        (far, heights, MEETING.T),
        (line, lambda ax: ax.collections[0].get_segments()[0], [[0, 0], [0.5, 0.5]]),
    ):
        assert_drawn_on(lambda ax, run=run: kd.plots.overview(run, ax=ax), second, read, known)
    run = on_sphere()
    assert_drawn_on(lambda ax: kd.plots.overview(run, ax=ax), second, offsets, run.final, projection="3d")


COARSE = {"figure.dpi": 25, "savefig.dpi": 25}  # fewer pixels are drawn sooner


def long_run(count=9):
    """A particle that climbs from 0 to 80 degrees in `count` states."""
    return turning(np.linspace(0, 80, count)[:, None], np.arange(float(count)))


def shown(run, name="run.gif", **options):
    """(path, states that were drawn, milliseconds of each frame of the file)."""
    states = []

    def draw(run, index, *, ax):
        states.append(index)
        ax.plot(*run[index].T, "o")
        ax.set(xlim=(0, 1), ylim=(0, 1))
        ax.set_axis_off()

    with tempfile.TemporaryDirectory() as folder, plt.rc_context(COARSE):
        path = kd.plots.animate(run, Path(folder) / name, **({"draw": draw} | options))
        with Image.open(path) as picture:
            frames = []
            for number in range(picture.n_frames):
                picture.seek(number)
                frames.append(picture.info["duration"])
        return path, states, frames


@drawing("kd.plots.animate", "trajectory", 2, 4, "every state of a short run is a frame, in order")
def _(first, second):
    for count in (first, second):
        _, states, frames = shown(long_run(count))
        assert states == list(range(count))
        assert len(frames) == count


@drawing("kd.plots.animate", "path", "run.gif", "other.gif", "the file is written there, and its path returned")
def _(first, second):
    for name in (first, second):
        path, _, frames = shown(long_run(2), name)
        assert path.name == name
        assert len(frames) == 2
    with pytest.raises(ValueError, match=r"\.gif or \.mp4"):
        shown(long_run(2), "run.avi")


def moving_picture(run, **options):
    """The bytes of the file."""
    with tempfile.TemporaryDirectory() as folder, plt.rc_context(COARSE):
        return kd.plots.animate(run, Path(folder) / "run.gif", **options).read_bytes()


@drawing("kd.plots.animate", "draw", None, kd.plots.circle,
         "without one units are on circle or sphere, other pairs in the plane; one given draws each frame")  # fmt: skip
def _(first, second):
    assert moving_picture(long_run(2), draw=first) == moving_picture(long_run(2), draw=second)
    wide = kd.Trajectory(np.arange(2.0), 3 * long_run(2).positions)
    assert moving_picture(wide) == moving_picture(wide, draw=kd.plots.plane)
    start = on_sphere()[:1]
    assert moving_picture(start) == moving_picture(start, draw=kd.plots.sphere)
    assert shown(long_run(2))[1] == [0, 1]


@drawing("kd.plots.animate", "frames", 2, 5, "so many states, evenly spread from the first to the last")
def _(first, second):
    assert shown(long_run(9), frames=first)[1] == [0, 8]
    assert shown(long_run(9), frames=second)[1] == [0, 2, 4, 6, 8]


@drawing("kd.plots.animate", "fps", 10, 4, "each frame lasts 1/fps; files count hundredths of a second")
def _(first, second):
    for options, lasts in (({"fps": first}, {100}), ({"fps": second}, {250}), ({}, {60, 70})):
        assert set(shown(long_run(2), **options)[2]) <= lasts
