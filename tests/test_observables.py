"""Observables against closed forms, their dense definitions in float64, and the laws of masses and symmetry."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from krause_dynamics import observables

NEVER = -float("inf")
WITH_MASSES = (
    observables.order_parameter,
    observables.dispersion,
    observables.residual,
    observables.effective_rank,
    observables.matrix_entropy,
    observables.stable_rank,
    observables.participation_ratio,
)
ALL = (
    *WITH_MASSES,
    observables.mean_cosine,
    observables.diameter,
    observables.residual_composite,
    observables.norm_ratio,
    observables.numerical_rank,
)


@pytest.fixture
def cloud() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((17, 5)) + 0.3


@pytest.mark.parametrize("observable", ALL)
def test_all_points_equal(observable) -> None:
    points = np.tile([3.0, -4.0, 0.0], (6, 1))
    expected = {
        "order_parameter": 1.0,
        "mean_cosine": 1.0,
        "dispersion": 0.0,
        "diameter": 0.0,
        "residual": 0.0,
        "residual_composite": 0.0,
        "effective_rank": 1.0,
        "matrix_entropy": 0.0,
        "stable_rank": 1.0,
        "participation_ratio": 0.0,  # of the centred matrix, which is zero
        "norm_ratio": 1.0,
        "numerical_rank": 1.0,
    }[observable.__name__]
    # entropies feel singular values of rounding size: s ln s at s = 1e-16 is 4e-15
    assert float(observable(points)) == pytest.approx(expected, abs=1e-13)


def test_orthogonal_frame() -> None:
    """n orthonormal points: every soft rank is n, and the cosine of pairs vanishes."""
    n = 6
    frame = np.eye(n)
    assert observables.mean_cosine(frame) == pytest.approx(0.0, abs=1e-15)
    assert observables.order_parameter(frame) == pytest.approx(1 / math.sqrt(n), abs=1e-15)
    assert observables.effective_rank(frame) == pytest.approx(n, rel=1e-13)
    assert observables.matrix_entropy(frame) == pytest.approx(math.log(n), rel=1e-13)
    assert observables.stable_rank(frame) == pytest.approx(n, rel=1e-13)
    assert observables.participation_ratio(frame) == pytest.approx(n - 1, rel=1e-13)
    assert observables.numerical_rank(frame) == n
    assert observables.residual(frame) == pytest.approx(math.sqrt(1 - 1 / n), rel=1e-14)
    assert observables.diameter(frame) == pytest.approx(math.sqrt(2), rel=1e-15)


def test_ranks_of_given_singular_values() -> None:
    """s = (3, 1): p = (3/4, 1/4) for the effective rank and (9/10, 1/10) for the matrix entropy."""
    matrix = np.zeros((4, 3))
    matrix[0, 0], matrix[1, 1] = 3.0, 1.0
    assert observables.effective_rank(matrix) == pytest.approx(4 / 3**0.75, rel=1e-13)
    assert observables.matrix_entropy(matrix) == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), rel=1e-13)
    assert observables.stable_rank(matrix) == pytest.approx(10 / 9, rel=1e-13)
    assert observables.participation_ratio(matrix, centred=False) == pytest.approx(100 / 82, rel=1e-13)


def test_dense_definitions(cloud: np.ndarray) -> None:
    """The O(n d) forms equal sums over all pairs, up to rounding of sums of 17 x 17 terms."""
    n = len(cloud)
    unit = cloud / np.linalg.norm(cloud, axis=1, keepdims=True)
    gram = unit @ unit.T
    assert observables.mean_cosine(cloud) == pytest.approx((gram.sum() - np.trace(gram)) / (n * (n - 1)), abs=1e-14)
    order = observables.order_parameter(cloud)
    assert observables.mean_cosine(cloud) == pytest.approx((n * order**2 - 1) / (n - 1), abs=1e-14)
    distances = np.linalg.norm(cloud[:, None] - cloud[None], axis=-1)
    assert observables.diameter(cloud) == pytest.approx(distances.max(), rel=1e-14)
    assert observables.dispersion(cloud) == pytest.approx((distances**2).mean() / 2, rel=1e-13)
    centred = cloud - cloud.mean(axis=0)
    assert observables.residual(cloud) == pytest.approx(np.linalg.norm(centred) / np.linalg.norm(cloud), rel=1e-13)
    composite = [math.sqrt(np.linalg.norm(x, 1) * np.linalg.norm(x, np.inf)) for x in (centred, cloud)]
    assert observables.residual_composite(cloud) == pytest.approx(composite[0] / composite[1], rel=1e-13)


def test_opposite_clusters_hide_from_the_order_parameter() -> None:
    points = np.array([[1.0, 0.0], [-1.0, 0.0]]).repeat(4, axis=0)
    assert observables.order_parameter(points) == 0.0
    assert observables.mean_cosine(points) == pytest.approx(-1 / 7, abs=1e-15)


def test_one_point_alone_has_no_pair() -> None:
    assert math.isnan(observables.mean_cosine(np.ones((1, 3))))
    assert observables.order_parameter(np.ones((1, 3))) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("observable", ALL)
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_padding_is_ignored_and_libraries_agree(observable, library: str, cloud: np.ndarray) -> None:
    """A padded batch gives each state's own value, with NaN in the padding on either side."""
    batch = np.full((2, 20, 5), np.nan)
    log_mass = np.full((2, 20), NEVER)
    batch[0, :17], log_mass[0, :17] = cloud, 0.0
    batch[1, 9:], log_mass[1, 9:] = cloud[:11], 0.0
    expected = [float(observable(cloud)), float(observable(cloud[:11]))]
    if library == "torch":
        result = observable(torch.from_numpy(batch), log_mass=torch.from_numpy(log_mass))
        assert isinstance(result, torch.Tensor)
    else:
        result = observable(batch, log_mass=log_mass)
    assert tuple(result.shape) == (2,)
    # zero rows change the SVD's path, hence its rounding, not its values
    np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-12)


@pytest.mark.parametrize("observable", WITH_MASSES)
def test_two_points_at_one_place_are_one_of_double_mass(observable, cloud: np.ndarray) -> None:
    repeated = np.concatenate([cloud, cloud[:3]])
    log_mass = np.log(np.where(np.arange(17) < 3, 2.0, 1.0)) + 1.7
    assert float(observable(cloud, log_mass=log_mass)) == pytest.approx(float(observable(repeated)), rel=1e-12)


@pytest.mark.parametrize("observable", [o for o in ALL if o not in (observables.residual_composite,)])
def test_rotation_invariance(observable, cloud: np.ndarray) -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    assert float(observable(cloud @ rotation)) == pytest.approx(float(observable(cloud)), rel=1e-12)


@pytest.mark.parametrize("observable", ALL)
def test_half_types_are_computed_in_single(observable, cloud: np.ndarray) -> None:
    half = torch.from_numpy(cloud).to(torch.bfloat16)
    result = observable(half)
    assert torch.equal(result, observable(half.float()))


def test_norm_ratio_counts_present_tokens(cloud: np.ndarray) -> None:
    norms = np.linalg.norm(cloud, axis=1)
    for present in (slice(4, 17), slice(5, 17)):  # an odd and an even number
        log_mass = np.full(17, NEVER)
        log_mass[present] = np.random.default_rng(2).standard_normal(len(norms[present]))
        value = observables.norm_ratio(cloud, token=2, log_mass=log_mass)
        assert value == pytest.approx(norms[present][2] / np.median(norms[present]), rel=1e-14)


def test_mean_step(cloud: np.ndarray) -> None:
    layers = np.stack([cloud, 1.5 * cloud, 3.0 * cloud])
    np.testing.assert_allclose(observables.mean_step(layers), [0.5, 1.0], rtol=1e-14)
    log_mass = np.where(np.arange(17) < 5, 0.0, NEVER)
    layers[:, 5:] = np.nan
    np.testing.assert_allclose(observables.mean_step(layers, log_mass=log_mass), [0.5, 1.0], rtol=1e-14)


def test_diameter_in_blocks_finds_a_pair_across_blocks(monkeypatch: pytest.MonkeyPatch, cloud: np.ndarray) -> None:
    whole = observables.diameter(np.stack([cloud, 2 * cloud]))
    monkeypatch.setattr("krause_dynamics.analysis.observables.synchronization.BLOCK", 2 * 17 * 4)
    np.testing.assert_array_equal(observables.diameter(np.stack([cloud, 2 * cloud])), whole)


def test_bad_input() -> None:
    points = np.ones((4, 3))
    with pytest.raises(ValueError, match="finite"):
        observables.order_parameter(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match=r"x\[:, None\]"):
        observables.order_parameter(np.ones(4))
    with pytest.raises(ValueError, match="n, d >= 1"):
        observables.order_parameter(np.ones((0, 3)))
    with pytest.raises(ValueError, match="log_mass must leave"):
        observables.order_parameter(points, log_mass=np.full(4, NEVER))
    with pytest.raises(ValueError, match="log_mass must have shape"):
        observables.order_parameter(points, log_mass=np.zeros(5))
    with pytest.raises(TypeError, match="one dtype"):
        observables.order_parameter(points, log_mass=np.zeros(4, np.float32))
    with pytest.raises(TypeError, match="floating"):
        observables.order_parameter(np.ones((4, 3), int))
    with pytest.raises(ValueError, match="token must be"):
        observables.norm_ratio(points, token=4)
    with pytest.raises(ValueError, match="T >= 2"):
        observables.mean_step(points)


def test_alignment_of_independent_clouds() -> None:
    """n = 64, d = 576: the plain form says 0.90, the unbiased one is 0 within its spread, about 1 / (n sqrt(d / n))."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 20, 64, 576))
    plain, unbiased = observables.linear_cka(x, y, debiased=False), observables.linear_cka(x, y)
    np.testing.assert_allclose(plain, 0.90, atol=0.01)
    assert abs(unbiased.mean()) < 4 * unbiased.std() / math.sqrt(20)
    assert unbiased.std() < 0.05


def test_alignment_is_blind_to_rotation_shift_and_scale(cloud: np.ndarray) -> None:
    rotation = np.linalg.qr(np.random.default_rng(1).standard_normal((5, 5)))[0]
    turned = 3.0 * cloud @ rotation + 7.0
    for debiased in (True, False):
        assert observables.linear_cka(cloud, turned, debiased=debiased) == pytest.approx(1.0, abs=1e-12)
    # the residual is the root of a difference from 1, so rounding is seen at 1e-8
    assert observables.procrustes_residual(cloud, turned) < 1e-7
    assert math.isnan(observables.linear_cka(cloud, np.ones((17, 2))))


def test_unbiased_alignment_by_sums_over_different_points(cloud: np.ndarray) -> None:
    """The unbiased estimate is a mean over quadruples of different points (Song et al. 2012, theorem 2)."""
    from itertools import permutations

    x, y = cloud[:6], cloud[6:12] ** 2

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        k, l = a @ a.T, b @ b.T
        terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(6), 4)]
        return float(np.mean(terms))

    expected = hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))
    assert observables.linear_cka(x, y) == pytest.approx(expected, rel=1e-10)
    torch_value = observables.linear_cka(torch.from_numpy(x), torch.from_numpy(y))
    assert float(torch_value) == pytest.approx(expected, rel=1e-10)


def test_pairs_of_states_are_compared_one_by_one_however_many_axes_they_have() -> None:
    x, y = np.random.default_rng(4).standard_normal((2, 2, 3, 5, 4))
    for debiased in (True, False):
        each = [
            [float(observables.linear_cka(x[i, j], y[i, j], debiased=debiased)) for j in range(3)] for i in range(2)
        ]
        np.testing.assert_allclose(observables.linear_cka(x, y, debiased=debiased), each, atol=1e-13)


def test_procrustes_against_scipy(cloud: np.ndarray) -> None:
    from scipy.spatial import procrustes

    other = np.random.default_rng(2).standard_normal((17, 5))
    disparity = procrustes(cloud, other)[2]
    assert observables.procrustes_residual(cloud, other) == pytest.approx(math.sqrt(disparity), rel=1e-10)
    assert observables.procrustes_residual(cloud, np.zeros((17, 5))) == 0.0


@pytest.mark.parametrize("d", [1, 2, 5])
def test_intrinsic_dimension_of_a_normal_cloud_in_ten_dimensions(d: int) -> None:
    """Standard error of the estimate is about d / sqrt(n); 1500 points, four of them, and 5 % for the edge."""
    rng = np.random.default_rng(3)
    flat = rng.standard_normal((1500, d)) @ np.linalg.qr(rng.standard_normal((10, d)))[0].T
    assert observables.two_nn(flat) == pytest.approx(d, rel=4 / math.sqrt(1500) + 0.05)
    assert observables.two_nn(np.concatenate([flat, flat[:300]])) == observables.two_nn(flat)
    assert math.isnan(observables.two_nn(np.ones((5, 2))))


def test_bad_input_of_pairs_and_dimension() -> None:
    with pytest.raises(ValueError, match="the same points"):
        observables.linear_cka(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(ValueError, match="one dimension"):
        observables.procrustes_residual(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ValueError, match="one state"):
        observables.two_nn(np.ones((2, 3, 4)))
    with pytest.raises(ValueError, match="discarded"):
        observables.two_nn(np.ones((3, 4)), discarded=1.0)
