"""The picture of a density holds its values and its clusters."""

import matplotlib as mpl
import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics import mean_field as mf

mpl.use("Agg")


def test_image_and_marks_hold_the_data():
    import matplotlib.pyplot as plt

    from krause_dynamics.plots.density import density

    run = mf.iterate(kd.Dynamics(kd.bounded_confidence(1.0)), mf.uniform(mf.LineCells(160, 0.0, 8.0)), 15)
    ax = density(run, ax=plt.subplots()[1])
    (image,) = ax.collections
    shown = image.get_array().reshape(160, len(run))
    values = mf.density_at(run).values
    np.testing.assert_allclose(shown[values > 1, -1], values[values > 1])
    assert shown.min() > 0
    assert image.norm.vmin == pytest.approx(shown.min())  # empty cells have the lowest colour
    (marks,) = ax.lines
    np.testing.assert_allclose(marks.get_ydata(), [c.position for c in mf.clusters(run) if c.mass >= 1e-3])
    assert [text.xy for text in ax.texts] == [(1.0, position) for position in marks.get_ydata()]
    ax.figure.canvas.draw()
    edges = image.get_coordinates()[..., 0]  # the image ends half a layer after the last: so do the marks
    drawn = ax.transData.inverted().transform(marks.get_transform().transform(marks.get_xydata()))
    np.testing.assert_allclose(drawn[:, 0], edges.max())
    assert edges.max() > run.times[-1]
    assert len(ax.texts) == 3
    with pytest.raises(ValueError, match="must hold a density"):
        density(mf.follow(kd.Dynamics(kd.bounded_confidence(1.0)), mf.density_at(run), 0.1, count=9))
    plt.close("all")
