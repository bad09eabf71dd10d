"""The form `cells` on clouds of many cells: long boxes, far offsets, pairs at the radius, foreign queries, values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd


def cloud(seed, n, box, offset=0.0):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(n, len(box), generator=g, dtype=torch.float64) * torch.tensor(box) + offset


def equal(rule, x, y=None, values=None, log_mass=None):
    arrays = {"values": values, "log_mass": log_mass}
    expected = kd.aggregate(rule, x, y, impl="reference", **arrays)
    found = kd.aggregate(rule, x, y, impl="cells", **arrays)
    torch.testing.assert_close(found.mean, expected.mean, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.log_partition, expected.log_partition, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("box", "radius"),
    [([30.0], 0.4), ([1.0, 25.0], 0.7), ([25.0, 1.0], 0.7), ([6.0, 6.0], 0.5), ([3.0, 9.0, 2.0], 0.8)],
)
@pytest.mark.parametrize("offset", [0.0, -400.0])
def test_many_cells_in_boxes_of_any_shape(box, radius, offset):
    x = cloud(0, 300, box, offset)
    equal(kd.bounded_confidence(radius), x)
    equal(kd.krause(radius / 2, kd.Within(radius)), x)


@pytest.mark.parametrize("width", [1, 3])
def test_queries_elsewhere_values_and_masses(width):
    x, y = cloud(1, 90, [9.0, 2.0], -1.0), cloud(2, 200, [6.0, 4.0])
    values = torch.randn(200, width, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    mass = torch.linspace(-3.0, 1.0, 200, dtype=torch.float64)
    mass[::7] = -torch.inf
    equal(kd.bounded_confidence(0.6), x, y, values, mass)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pairs_at_the_radius_are_admitted_wherever_cells_begin(dtype):
    """A lattice of step 1/4 with radius 1/4: every neighbour is at the radius, and sums of quarters are exact."""
    side = torch.arange(24, dtype=dtype) / 4
    x = torch.cartesian_prod(side, side)
    found = kd.aggregate(kd.bounded_confidence(0.25), x, impl="cells")
    number = torch.exp(found.log_partition).round()
    inner = ((x > 0) & (x < side[-1])).all(1)
    assert (number[inner] == 5).all()
    assert number.min() == 3


def test_what_it_takes():
    flat = kd.bounded_confidence(1.0)
    assert kd.supported(flat, torch.zeros(4, 3))["cells"] is None
    assert "at most 3 dimensions" in kd.supported(flat, torch.zeros(4, 4))["cells"]
    assert "at most 3 dimensions" in kd.supported(flat, torch.zeros(2, 4, 3))["cells"]


def test_others_among_foreign_sources():
    """`Others` leaves out the source of the query's own index, which a ball of neighbours cannot know elsewhere."""
    x, y = np.linspace(0, 2, 7)[:, None], np.linspace(0, 2, 5)[:, None]
    rule = kd.Interaction(kd.Flat(), kd.Within(0.8) & kd.Others())
    for sources in (None, y):
        expected = kd.aggregate(rule, x, sources, impl="reference").mean
        for name, reason in kd.supported(rule, x, sources).items():
            if reason is None:
                np.testing.assert_allclose(kd.aggregate(rule, x, sources, impl=name).mean, expected, atol=1e-12)


def test_ranges_and_networks_say_what_they_do_not_take():
    x = np.linspace(0, 1, 6)[:, None]
    twice = np.array([0, 0, 1, 2, 3, 4])
    rule = kd.Interaction(kd.Flat(), kd.Within(0.5) & kd.Others())
    reasons = kd.supported(rule, x, query_index=np.arange(6), source_index=twice)
    assert "no source index twice" in reasons["neighbours"]
    assert "Others" not in str(kd.supported(kd.bounded_confidence(0.5), x, source_index=twice)["neighbours"])
    network = kd.Interaction(kd.Flat(), kd.Graph(np.ones((6, 6))))
    assert kd.supported(network, x)["network"] is None
    assert kd.supported(network, np.stack([x, x]), log_mass=np.zeros((2, 6)))["network"] is not None
