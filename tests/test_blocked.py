"""Tiles and blocks of rows at sizes of a few particles: every branch equals the definition, and tiles are taken."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.forms import blocked

N = 11  # no multiple of the tile
ROUNDING = 1e-12  # sums of a dozen terms in float64, with exponents below 30

BANDS = {
    "everyone": kd.Everyone(),
    "causal": kd.Causal(),
    "window 1": kd.Window(1),
    "window 3": kd.Window(3),
    "window 5 both": kd.Window(5, two_sided=True),
    "longer than the row": kd.Window(41, two_sided=True),
}


@pytest.fixture(autouse=True, params=[2, 3])
def few(request, monkeypatch):
    """Tiles of four particles, blocks of two or three rows."""
    monkeypatch.setattr(blocked, "TILE", 4)
    monkeypatch.setattr(blocked, "BLOCK_PAIRS", request.param * N)


@pytest.fixture
def tiles_alone(monkeypatch):
    """The definition by rows, which is right everywhere and would hide a tile left out, is out of reach."""

    def refuse(*_):
        raise AssertionError("rows were computed by the definition")

    monkeypatch.setattr(blocked, "by_rows", refuse)


def compare(rule, *arrays, tolerance=ROUNDING, **rest):
    exact = kd.aggregate(rule, *arrays, impl="reference", **rest)
    found = kd.aggregate(rule, *arrays, impl="blocked", **rest)
    np.testing.assert_allclose(found.mean, exact.mean, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(found.log_partition, exact.log_partition, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("band", BANDS)
@pytest.mark.parametrize("rule", [kd.softmax, kd.krause])
def test_every_tile_counts(rule, band, library, rng, tiles_alone):
    x, log_mass = rng.normal(size=(2, N, 3)), rng.normal(size=N)
    compare(rule(0.8, BANDS[band]), library(x))
    compare(rule(0.8, BANDS[band]), library(x[:, :7]), library(x), log_mass=library(log_mass))


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", ROUNDING), ("float32", 1e-4)])  # 25 e-7 in an exponent
def test_small_sums_of_moderate_exponents_take_tiles(dtype, tolerance, library, rng, tiles_alone):
    x, y = (rng.normal(size=(N, 2)).astype(dtype) * 0.3 + place for place in (np.float32(-3), np.float32(3)))
    assert kd.aggregate(kd.softmax(1.0), x, y, impl="reference").log_partition.max() < -8
    compare(kd.softmax(1.0), library(x), library(y), tolerance=tolerance)


@pytest.mark.parametrize("band", BANDS)
def test_one_source_is_heard_by_those_in_whose_window_it_stands(band, library, rng):
    x = rng.normal(size=(N, 2))
    compare(kd.softmax(1.0, BANDS[band]), library(x), library(x[:1]))


@pytest.mark.parametrize("band", ["everyone", "window 3"])
def test_steep_queries_among_moderate_sources(band, library, rng):
    y = rng.normal(size=(N, 2))
    compare(kd.softmax(1.0, BANDS[band]), library(1e3 * y), library(y))  # e^3000 is no float64


def test_masses_that_underflow_in_a_window(library, rng):
    log_mass = np.where(np.arange(N) < 3, 0.0, -800.0)  # e^-800 is none either
    compare(kd.softmax(1.0, kd.Window(3)), library(rng.normal(size=(N, 2))), log_mass=library(log_mass))


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_rows_of_a_batch_stay_in_their_place(batch, library, rng):
    compare(kd.krause(0.8, kd.TopK(3)), library(rng.normal(size=(*batch, N, 2))))


def test_gradients_through_blocks_of_rows(rng):
    x, gradients = torch.from_numpy(rng.normal(size=(2, N, 3))).requires_grad_(), []
    for impl in ("reference", "blocked"):
        mean, log_partition = kd.aggregate(kd.softmax(0.8, kd.Window(3)), x, impl=impl)
        gradients.append(torch.autograd.grad(mean.sin().sum() + log_partition.sum(), x)[0])
    np.testing.assert_allclose(*gradients, atol=ROUNDING)
