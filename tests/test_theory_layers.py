"""Gaussian closures, context scaling, contraction, near-consensus spectra, sampling errors."""

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from krause_dynamics import theory


def softmax(scores):
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("variance", [0.1, 1.0, 50.0])
def test_gaussian_rule_variance_solves_its_equation(variance):
    times = np.array([0.5, 2.0, 6.0])
    run = solve_ivp(
        lambda _, u: -2 * u / (1 + u / 0.49), (0, 6), [variance], "DOP853", t_eval=times, rtol=1e-12, atol=1e-14
    )
    np.testing.assert_allclose(
        theory.gaussian_rule_variance(times=times, variance=variance, sigma=0.7), run.y[0], rtol=1e-9
    )


def test_gaussian_rule_variance_is_lambert_w():
    expected = float(mpmath.lambertw(2 * mpmath.e ** (2 - 2 * mpmath.mpf("0.7"))).real)
    assert float(theory.gaussian_rule_variance(times=0.7, variance=2.0)) == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize("step", [1.0, 0.3])
def test_gaussian_rule_step_by_quadrature(step):
    v, sigma, x = 1.3, 0.8, 0.6

    def weight(y):
        return np.exp(-y * y / (2 * v * v) - (x - y) ** 2 / (2 * sigma**2))

    mean = quad(lambda y: y * weight(y), -10, 10)[0] / quad(weight, -10, 10)[0]
    factor = ((1 - step) * x + step * mean) / x
    assert float(theory.gaussian_rule_deviation_step(deviation=v, sigma=sigma, step=step)) == pytest.approx(
        v * factor, rel=1e-9
    )
    if step == 1.0:
        assert v * factor == pytest.approx(v**3 / (v**2 + sigma**2), rel=1e-9)


@pytest.mark.parametrize("relative", [True, False])
def test_dot_product_variance_solves_its_riccati_equation(relative):
    beta, l0 = 0.8, 0.9

    def rate(_, l):
        return 2 * (beta * l - (1.0 if relative else 0.0)) * l

    run = solve_ivp(rate, (0, 0.5), [l0], "DOP853", t_eval=[0.5], rtol=1e-12, atol=1e-14)
    predicted = theory.dot_product_variance(times=0.5, variance=l0, beta=beta, relative=relative)
    assert float(predicted) == pytest.approx(run.y[0, 0], rel=1e-10)


@pytest.mark.parametrize(("relative", "variance"), [(False, 0.9), (True, 2.0)])
def test_dot_product_blow_up(relative, variance):
    time = theory.dot_product_blow_up(variance=variance, beta=0.8, relative=relative)
    assert (
        float(theory.dot_product_variance(times=time * (1 - 1e-9), variance=variance, beta=0.8, relative=relative))
        > 1e7
    )
    with pytest.raises(ValueError, match="blow-up"):
        theory.dot_product_variance(times=time, variance=variance, beta=0.8, relative=relative)


def test_relative_dot_product_has_an_unstable_fixed_point():
    assert theory.dot_product_blow_up(variance=1.25, beta=0.8, relative=True) == np.inf
    assert float(theory.dot_product_variance(times=3.0, variance=1.25, beta=0.8, relative=True)) == pytest.approx(
        1.25, rel=1e-12
    )
    assert float(theory.dot_product_variance(times=3.0, variance=1.2, beta=0.8, relative=True)) < 0.1


@pytest.mark.parametrize("scaling", [0.7, 1.5, 3.0])
def test_gram_map_is_one_layer_of_attention(scaling):
    n, rho = 12, 0.3
    x = np.linalg.cholesky((1 - rho) * np.eye(n) + rho)
    out = softmax(scaling * np.log(n) * x @ x.T) @ x
    cosine = out[0] @ out[1] / np.linalg.norm(out[0]) / np.linalg.norm(out[1])
    assert theory.gram_map(similarity=rho, tokens=n, scaling=scaling) == pytest.approx(cosine, rel=1e-12)
    assert theory.self_weight(tokens=n, scaling=scaling, similarity=rho) == pytest.approx(
        softmax(scaling * np.log(n) * x @ x.T)[0, 0], rel=1e-12
    )


@pytest.mark.parametrize(("factor", "weight"), [(0.5, 0.0), (1.0, 0.5), (1.5, 1.0)])
def test_threshold_of_the_self_weight(factor, weight):
    rho = 0.4
    gamma = factor * theory.critical_scaling(rho)
    # n^{-1/2} at n = 1e40.
    assert theory.self_weight(tokens=1e40, scaling=gamma, similarity=rho) == pytest.approx(weight, abs=1e-10)
    assert theory.gram_map(similarity=rho, tokens=1e40, scaling=gamma) == pytest.approx(
        theory.gram_map_limit(similarity=rho, scaling=gamma), rel=1e-10
    )


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_orthogonal_tokens_have_their_own_threshold(gamma):
    assert theory.gram_map(similarity=0.0, tokens=1e24, scaling=gamma) == pytest.approx(
        theory.gram_map_limit(similarity=0.0, scaling=gamma), abs=1e-5
    )


def test_critical_limit_value():
    assert theory.gram_map_limit(similarity=0.4, scaling=theory.critical_scaling(0.4)) == pytest.approx(1.6 / 2.2)


def test_uniform_keys_scaling_is_the_nearest_neighbour_distance():
    assert theory.uniform_keys_scaling(tokens=1e6, dimension=3) == pytest.approx(1e6)
    assert theory.uniform_keys_scaling(tokens=1e6, dimension=5) == pytest.approx(1e3)


def test_rank_collapse_is_cubic_with_this_leading_term():
    rng = np.random.default_rng(2)
    n, d = 30, 3
    residual = rng.normal(size=(n, d))
    residual -= residual.mean(0)
    weight, mean = rng.normal(size=(d, d)), rng.normal(size=d)
    errors = []
    for scale in (1e-2, 5e-3):
        x = mean + scale * residual
        out = softmax(x @ weight @ x.T) @ x
        out -= out.mean(0)
        predicted = theory.rank_collapse_step(residual=scale * residual, weight=weight)
        errors.append(np.linalg.norm(out - predicted) / np.linalg.norm(predicted))
    # The relative remainder is linear in the size of the residual.
    assert errors[0] < 0.2
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.2)


def test_rank_collapse_wants_a_centred_residual():
    with pytest.raises(ValueError, match="subtract the mean"):
        theory.rank_collapse_step(residual=np.ones((3, 2)), weight=np.eye(2))


def total_variation(matrix):
    return 0.5 * np.abs(matrix[:, None, :] - matrix[None, :, :]).sum(-1).max()


def test_dobrushin_bound_holds_and_is_attained():
    rng = np.random.default_rng(0)
    for _ in range(50):
        scores = rng.normal(size=(4, 6)) * rng.uniform(0.1, 3)
        assert total_variation(softmax(scores)) <= theory.dobrushin_bound(scores) + 1e-12
    extreme = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert theory.score_oscillation(extreme) == 4.0
    assert total_variation(softmax(extreme)) == pytest.approx(theory.dobrushin_bound(extreme), rel=1e-14)
    assert theory.dobrushin_bound(np.array([[0.0, -np.inf], [0.0, 0.0]])) == 1.0


def test_a_priori_bound_covers_queries_and_keys():
    rng = np.random.default_rng(1)
    q, k = rng.normal(size=(5, 3)), rng.normal(size=(7, 3))
    diameters = [np.linalg.norm(a[:, None] - a, axis=-1).max() for a in (q, k)]
    bound = theory.attention_contraction_bound(coupling=0.4, query_diameter=diameters[0], key_diameter=diameters[1])
    assert theory.dobrushin_bound(0.4 * q @ k.T) <= bound + 1e-12
    gaussian = -0.2 * np.sum((q[:, None] - k) ** 2, -1)
    assert theory.dobrushin_bound(gaussian) <= bound + 1e-12


def averaging(support):
    return support / support.sum(axis=1, keepdims=True)


def test_ring_and_band_eigenvalues():
    n, w = 24, 3
    index = np.arange(n)
    gap = np.abs(index[:, None] - index)
    ring = averaging((np.minimum(gap, n - gap) <= w).astype(float))
    expected = np.sort(np.linalg.eigvals(ring).real)
    np.testing.assert_allclose(np.sort(theory.ring_eigenvalues(tokens=n, window=2 * w + 1)), expected, atol=1e-12)
    band = averaging((gap <= w).astype(float))
    expected = np.sort(np.linalg.eigvals(band).real)[::-1]
    np.testing.assert_allclose(theory.band_eigenvalues(tokens=n, window=2 * w + 1), expected, atol=1e-12)


def test_layer_factor():
    matrix = 0.6 * np.eye(5) + 0.4 * np.full((5, 5), 0.2)
    assert np.sort(np.linalg.eigvals(matrix).real)[0] == pytest.approx(theory.layer_factor(0.0, step=0.4))


@pytest.mark.parametrize(("pattern", "side", "radius"), [("cross", 8, 1), ("square", 14, 2)])
def test_patch_masks(pattern, side, radius):
    cells = [(r, c) for r in range(side) for c in range(side)]
    support = np.ones((side**2 + 1, side**2 + 1))
    for i, (r, c) in enumerate(cells):
        for j, (s, e) in enumerate(cells):
            reach = abs(r - s) + abs(c - e) if pattern == "cross" else max(abs(r - s), abs(c - e))
            support[i + 1, j + 1] = reach <= radius
    assert theory.vit_allowed_pairs(height=side, width=side, pattern=pattern, radius=radius) == support.sum()
    second = np.sort(np.linalg.eigvals(averaging(support)).real)[-2]
    assert theory.vit_eigenvalues(height=side, width=side, pattern=pattern, radius=radius)[1] == pytest.approx(
        second, abs=1e-11
    )


@pytest.mark.parametrize(("window", "match"), [(4, "window must be odd"), (9, "window must not exceed")])
def test_windows_are_checked(window, match):
    with pytest.raises(ValueError, match=match):
        theory.ring_eigenvalues(tokens=7, window=window)


def test_quantile_start_error_in_exact_arithmetic():
    n = 7
    squared = n * quad(lambda s: (s - 0.5 / n) ** 2, 0, 1 / n)[0]
    assert theory.quantile_start_error(n) == pytest.approx(np.sqrt(squared), rel=1e-12)


def test_linear_model_error_by_sampling():
    rng, n, trials, t = np.random.default_rng(3), 20, 4000, 0.4
    x = np.sort(rng.uniform(size=(trials, n)), axis=1)
    mean = x.mean(1, keepdims=True)
    x = mean + np.exp(-t) * (x - mean)
    # The limit at time t is uniform on an interval of length e^{-t} about 1/2: its quantile function is linear.
    edges = np.arange(n + 1) / n
    width = np.exp(-t)
    quantile_mean = 0.5 + width * (0.5 * (edges[1:] + edges[:-1]) - 0.5)
    squared = np.mean((x - quantile_mean) ** 2, axis=1) + width**2 / (12 * n * n)
    # Four standard errors.
    assert squared.mean() == pytest.approx(
        float(theory.linear_model_error(times=t, particles=n)), abs=4 * squared.std() / trials**0.5
    )


def test_sampling_exponents():
    assert theory.sampling_rate_exponent() == -0.5
    assert theory.sampling_rate_exponent(4) == -0.25
