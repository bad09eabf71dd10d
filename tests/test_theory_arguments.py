"""Every formula reads its arguments by its domains: names, kinds, ends; nothing undefined comes out of finite input."""

from __future__ import annotations

import inspect
import math

import mpmath
import numpy as np
import pytest

from krause_dynamics import theory
from krause_dynamics.theory._bessel import iv_ratio, log_iv

FORMULAS = {
    name: getattr(theory, name)
    for name in theory.__all__
    if inspect.isfunction(getattr(theory, name)) and inspect.signature(getattr(theory, name)).parameters
}
GOOD = {
    "angles": [0.0, 1.0, 2.5], "threshold": 0.3, "turn": 0.4,
    "alignment": 0.1, "eigenvalue": 0.5, "gap": 0.5, "heads": 2, "law": "normal", "massive": 5.0, "opening": 0.7,
    "others": [0.2, -0.3], "rank": 5, "share": 0.6,
    "rotation": [[0.0, 1.0], [-1.0, 0.0]], "strength": 0.5, "stimulus": [[0.0, 0.0], [0.5, 0.5]],
    "agents": 7, "angle": 1.0, "beta": 2.0, "circumference": 6.0, "clusters": 3, "coupling": 3.0, "decay": 1.0,
    "degree": 2, "density": 1.0, "deviation": 1.0, "dimension": 3, "error": 0.01, "frequency": 2.0,
    "guess": 3 + 2j, "height": 4, "key_diameter": 2.0, "layers": 4, "length": 10.0, "mass": 0.4,
    "mass_a": 1.0, "mass_b": 2.0, "mode": 1, "modes": 64, "moments": [0.3, 0.1], "noise": 0.1, "normalised": True,
    "oscillation": 1.0, "particles": 10, "pattern": "cross", "position": 0.7, "positions": [0.2, 0.5], "q": 1.0,
    "query_diameter": 2.0, "radius": 1.0, "rate": 0.8, "relative": False, "residual": [[1.0, 0.0], [-1.0, 0.0]],
    "resolution": 4.0, "samples": 100, "scaled": False, "scaling": 1.0, "scheme": "peri",
    "scores": [[0.0, 1.0], [1.0, 0.0]], "separation": 1.0, "sigma": 1.0, "similarity": 0.2, "spacing": 0.1,
    "start": 0.2, "step": 1.0, "stop": None, "switch": 1.5, "time": "discrete", "times": [0.0, 0.5], "tokens": 9,
    "twist": 1.0, "value": [[1.0, 0.5], [0.2, -1.0]], "variance": 0.5, "vertices": [[1.0, 0.0], [-1.0, 0.0]],
    "wavenumber": 1.0, "weight": [[1.0, 0.0], [0.0, 1.0]], "width": 4, "window": 3,
}  # fmt: skip
OTHERWISE = {
    "low_temperature_flow": {"start": [[0.6, 0.8]]},
    "low_temperature_lag": {"start": [[0.6, 0.8]]},
    "random_value_deviation": {"time": 0.5},
    "open_tree_part_size": {"radius": 0.6},
    "holding_strength": {"clusters": 2},
    "consensus_attraction": {"position": [0.6, 0.8]},
    "leading_share_bound": {"others": 2.0},
    "oscillator_energy": {"positions": [[1.0, 0.0], [0.6, 0.8]], "coupling": [[0.0, 1.0], [1.0, 0.0]]},
    "oscillator_energy_rate": {"positions": [[1.0, 0.0], [0.6, 0.8]], "coupling": [[0.0, 1.0], [1.0, 0.0]]},
    "open_tree_parts": {"radius": 0.3},
    "reversible_law": {"scores": [[0.0, 1.0], [1.0, 2.0]]},
    "winning_wave": {"length": 12.0},
    "frozen_position_angle": {"strength": 0.5},
    "kuramoto_critical_coupling": {"width": 1.0},
    "kuramoto_locked_order": {"width": 1.0},
    "consensus_flow": {"start": [0.6, 0.8]},
    "rotary_ring_eigenvalues": {"tokens": 12},
    "causal_response": {"time": 0.5},
    "retrieval_profile": {"time": 0.5},
    "hard_attention_positions": {"start": [[0.1, 0.2]]},
    "layer_norm_late_gap": {"times": [0.5, 2.0]},
    "random_value_rate": {"tokens": 3},
    "boolean_limit_rank": {"tokens": [1.0, 2.0]},
    "causal_gap_time": {"start": 1.0, "stop": 0.2},
    "equiangular_time": {"stop": 0.5},
    "vit_allowed_pairs": {"radius": 1},
    "vit_eigenvalues": {"radius": 1},
    "causal_influence": {"residual": 0.5},
    "stack_influence": {"residual": 0.5},
    "stack_reach": {"residual": 0.5},
    "expected_initial_modes": {"tokens": 100},
    "dot_product_variance": {"times": [0.0, 0.1]},
}


def good(name):
    return {p: GOOD[p] for p in inspect.signature(FORMULAS[name]).parameters} | OTHERWISE.get(name, {})


CASES = [(name, parameter) for name in FORMULAS for parameter in inspect.signature(FORMULAS[name]).parameters]


@pytest.mark.parametrize("name", FORMULAS)
def test_positional_calls_keep_the_old_order_and_warn(name):
    arguments = good(name)
    by_name = FORMULAS[name](**arguments)
    kinds = [p.kind for p in inspect.signature(FORMULAS[name]).parameters.values()]
    if kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) == len(kinds):
        by_place = FORMULAS[name](*arguments.values())  # one argument: nothing can be swapped
    else:
        with pytest.warns(DeprecationWarning, match="by name"):
            by_place = FORMULAS[name](*arguments.values())
    flat, other = (
        np.concatenate([np.ravel(x) for x in (v if isinstance(v, tuple) else (v,))]) for v in (by_name, by_place)
    )
    np.testing.assert_array_equal(flat, other)
    assert not np.isnan(flat).any()


@pytest.mark.parametrize(("name", "parameter"), CASES)
@pytest.mark.parametrize("bad", [math.nan, "several", object()], ids=["nan", "text", "object"])
def test_a_wrong_kind_is_named(name, parameter, bad):
    with pytest.raises((TypeError, ValueError), match=f"^{parameter} must"):
        FORMULAS[name](**good(name) | {parameter: bad})


@pytest.mark.parametrize(
    ("name", "parameter"), [c for c in CASES if GOOD[c[1]] is not None and c[1] not in ("window", "tokens")]
)
def test_none_is_no_number(name, parameter):
    with pytest.raises((TypeError, ValueError), match=f"^{parameter} must"):
        FORMULAS[name](**good(name) | {parameter: None})


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.self_weight(tokens=0.5, scaling=1.0, similarity=0.0), "tokens must be at least 1"),
        (lambda: theory.gaussian_rule_variance(times=0.0, variance=-1.0), "variance must be positive"),
        (lambda: theory.mode_growth(degree=-1, beta=1.0, dimension=2), "degree must be at least 0"),
        (lambda: theory.equiangular_similarity(times=[1, 0], start=0.0, beta=1.0, tokens=3), "times must be one ris"),
        (lambda: theory.causal_gap_time(start=0.2, stop=1.0, beta=1.0), "stop must lie in"),
        (lambda: theory.causal_rates(10**12), "tokens must be at most"),
        (lambda: theory.vit_eigenvalues(height=10**4, width=10**4, pattern="cross"), "memory of the matrix"),
        (lambda: theory.expected_density_modes_on_line(samples=10**12, beta=1e-9), "beta must resolve"),
        (lambda: theory.rank_collapse_step(residual=np.zeros((3, 2)), weight=np.eye(3)), "weight must be"),
        (lambda: theory.growth_rate(wavenumber=1.0, radius=1.0, noise=1e300), "leaves the range"),
        (lambda: theory.consensus_rate(1.0, 2.0, 3.0), "takes 2 arguments"),
        (lambda: theory.circle_order_parameter(beta=20.0, coupling=10.0, modes=16), "modes must resolve"),
        (lambda: theory.attention_free_energy(moments=[0.9], beta=1.0, coupling=1.0), "moments must be those of"),
    ],
)  # fmt: skip
def test_ends_are_refused(call, match):
    with pytest.raises((TypeError, ValueError), match=match):
        call()


def test_order_near_the_threshold_is_found():
    """Square-root law of a continuous transition: r^2 is proportional to K - K_lin; an iteration alone stays behind."""
    threshold = theory.linear_threshold(beta=1.0, dimension=2)
    near, far = (theory.circle_order_parameter(beta=1.0, coupling=(1 + e) * threshold) for e in (1e-5, 4e-5))
    assert far / near == pytest.approx(2.0, rel=1e-4)
    assert near == pytest.approx(0.00541, abs=5e-6)


def test_the_ordered_state_has_the_least_free_energy():
    for beta in (1.0, 3.0):
        coupling = 1.5 * theory.linear_threshold(beta=beta, dimension=2)
        moments = theory.ordered_state(beta=beta, coupling=coupling)
        least = theory.attention_free_energy(moments=moments, beta=beta, coupling=coupling)
        tighter = theory.ordered_state(beta=beta, coupling=1.3 * coupling)
        for other in (0.98 * moments, 0.9 * moments + 0.1 * tighter):
            assert theory.attention_free_energy(moments=other, beta=beta, coupling=coupling) > least + 1e-5
        uniform = theory.attention_free_energy(moments=[0.0], beta=beta, coupling=coupling)
        assert uniform == pytest.approx(-0.5 * coupling * float(mpmath.besseli(0, beta)) / beta, rel=1e-13)
        assert least < uniform


@pytest.mark.parametrize("dimension", [2, 81, 82, 400, 100_000])
def test_the_order_of_the_transition_in_any_dimension(dimension):
    with mpmath.workdps(30):
        beta = mpmath.mpf(theory.transition_order_threshold(dimension))
        half = mpmath.mpf(dimension) / 2
        series = [mpmath.hyp0f1(half + k, beta**2 / 4) for k in (2, 1)]
        ratio = beta / (2 * (half + 1)) * series[0] / series[1]
        assert float(ratio * dimension) == pytest.approx(1.0, rel=1e-9)  # of scipy's 0F1 at large orders


@pytest.mark.parametrize(("dimension", "beta"), [(400, 1e-6), (400, 1.0), (2000, 50.0)])
def test_kernel_coefficients_where_bessel_functions_leave_the_floats(dimension, beta):
    half = mpmath.mpf(dimension) / 2
    exact = mpmath.gamma(half) * (2 / mpmath.mpf(beta)) ** (half - 1) * mpmath.besseli(half, beta)
    assert theory.kernel_coefficient(degree=1, beta=beta, dimension=dimension) == pytest.approx(float(exact), rel=1e-11)


def test_lifetimes_beyond_the_floats():
    """exp(beta (1 - cos)) with 1/beta corrections while it is a float, infinity beyond."""
    late = [theory.cluster_lifetime(beta=b, angle=np.pi / 2) for b in (300.0, 600.0)]
    leading = [theory.cluster_lifetime_asymptotic(beta=b, angle=np.pi / 2) for b in (300.0, 600.0)]
    np.testing.assert_allclose(late, leading, rtol=1e-4)
    assert theory.cluster_lifetime(beta=1000.0, angle=np.pi / 2, stop=0.1) == math.inf
    assert theory.gaussian_lifetime(50.0) == math.inf


def test_unnormalised_clusters_do_not_ask_for_the_split():
    """Two tokens of USA have masses 1/2: the angle between them closes as ``gap_rate`` says."""
    angle = np.linspace(0.1, 3.0, 7)
    for mass in (0.2, 0.5):
        rate = theory.cluster_angle_rate(angle=angle, beta=1.5, mass=mass, normalised=False)
        np.testing.assert_allclose(rate, theory.gap_rate(gap=angle, beta=1.5, normalised=False), rtol=1e-14)
    time = theory.cluster_lifetime(beta=0.0, angle=2.0, stop=0.5, normalised=False)
    assert time == pytest.approx(math.log(math.tan(1.0) / math.tan(0.25)), rel=1e-10)  # phi' = -sin(phi)


def test_limits_that_were_undefined():
    assert theory.frozen_graph_multiplier(wavenumber=0.0, spacing=0.1, radius=0.5) == 1.0
    start = theory.equiangular_similarity(times=[0.0], start=0.2, beta=1.0, tokens=5)
    np.testing.assert_allclose(start, [0.2], rtol=1e-15)
    assert theory.kuramoto_order_parameter(times=1e6, start=0.0) == 0.0
    assert theory.self_weight(tokens=1e300, scaling=4.0, similarity=0.0) == pytest.approx(1.0)


@pytest.mark.parametrize(("degree", "dimension"), [(1000, 2), (300, 50), (5, 3)])
def test_switching_where_bessel_functions_are_no_floats(degree, dimension):
    """The two rates by mpmath's Bessel functions, at the answer; relative tolerance of a ratio 2/degree from 1."""
    beta = theory.switching_beta(degree, dimension=dimension)
    order = degree + mpmath.mpf(dimension) / 2 - 1
    rates = [d * (d + dimension - 2) * mpmath.besseli(order + k, beta) for k, d in enumerate((degree, degree + 1))]
    assert float(rates[0] / rates[1]) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize(("order", "x"), [(1000, 200.0), (180, 27.0), (2, 1e-300), (400, 40.0), (5, 3.0)])
def test_logarithms_and_ratios_of_bessel_functions(order, x):
    exact = mpmath.log(mpmath.besseli(order, x))
    assert float(log_iv(order, x) - exact) == pytest.approx(0.0, abs=1e-11)
    ratio = mpmath.besseli(order + 1, x) / mpmath.besseli(order, x)
    assert iv_ratio(order, x) == pytest.approx(float(ratio), rel=1e-12)


def test_ratios_of_bessel_functions_of_large_arguments_lie_between_amos_bounds():
    for order, x in ((1e6, 5e11), (1e8, 1e9)):
        a = order + 0.5
        low, high = (x / (a + math.hypot(x, c)) for c in (a + 1.0, a))
        assert low * (1 - 1e-15) <= iv_ratio(order, x) <= high * (1 + 1e-15)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: theory.equiangular_rate(similarity=0.1, beta=1.0, tokens=10**30), "tokens must be at most 2"),
        (lambda: theory.gaussian_rule_variance(times=[1.0, 2.0], variance=[1.0] * 3), r"times \(2,\), variance \(3,\)"),
        (lambda: theory.winning_wave(radius=1e-300, length=5.0), "length / radius"),
        (lambda: theory.retrieval_time_bound(beta=1e300, decay=1.0), "beta must lie in"),
        (lambda: theory.cluster_lifetime(beta=1.0, angle=math.pi - 1e-15), "stop and start must be further"),
        (lambda: theory.reversible_law([[0.0, 1.0], [2.0, 0.0]]), "symmetric"),
        (lambda: theory.oscillator_energy(positions=[[2.0, 0.0]], coupling=[[0.0]], stimulus=[[0.0, 0.0]]), "unit vec"),
        (lambda: theory.leading_share_bound(massive=0.0, others=0.0), "no token has a length"),
    ],
)  # fmt: skip
def test_sizes_shapes_and_paths_are_refused_in_words(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_a_consensus_without_a_share_in_the_growing_direction_stays_a_direction():
    """e^{V t} x underflows there; what is left of x is known: an eigenvector, and a turn of a skew V."""
    value = np.diag([1.0, -1.0, 0.0])
    late = theory.consensus_flow(times=[1e4, -1e4], start=[0.0, 0.0, 1.0], value=value)
    np.testing.assert_allclose(late, [[0.0, 0.0, 1.0]] * 2, atol=1e-12)
    mixed = theory.consensus_flow(times=[1e4, -1e4], start=[0.6, 0.8, 0.0], value=value)
    np.testing.assert_allclose(mixed, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], atol=1e-12)
    turned = theory.consensus_flow(times=[100.0], start=[0.0, 1.0], value=[[0.0, -3.0], [3.0, 0.0]])
    np.testing.assert_allclose(turned, [[-math.sin(300.0), math.cos(300.0)]], atol=1e-9)


def test_one_head_is_a_consensus_of_usa():
    rates = theory.multi_head_rates(heads=1, beta=2.0, normalised=False)
    assert rates == (math.exp(2.0), math.exp(2.0))
    assert 2.0 * rates.across == theory.consensus_rate(2.0, normalised=False)


def test_exact_counts_may_be_of_any_size():
    assert theory.equally_spaced_freezing_time(6 * 10**30 + 4) == 5 * 10**30 + 5


def test_paths_that_end_near_a_rest_or_take_for_ever():
    """At beta = 0 the follower's phi' = -sin(phi)/2: twice the logarithm of the ratio of half tangents."""
    time = theory.causal_gap_time(start=1.0, stop=1e-300, beta=0.0)
    assert time == pytest.approx(2.0 * (math.log(math.tan(0.5)) - math.log(0.5e-300)), rel=1e-10)
    assert theory.causal_gap_time(start=1.0, stop=0.2, beta=1e15) == math.inf
    assert theory.gaussian_lifetime(1e6) == math.inf


def test_times_of_paths_one_rounding_long_and_of_slownesses_beyond_any_float():
    """Between neighbouring floats the time is their distance over the speed; a cold or far pair takes for ever."""
    stop = np.nextafter(1.0, 0.0)
    speed = -theory.causal_gap_rate(gap=1.0, beta=2.0)
    assert theory.causal_gap_time(start=1.0, stop=stop, beta=2.0) == pytest.approx((1.0 - stop) / speed, rel=1e-12)
    step = np.nextafter(0.0, 1.0)
    assert theory.equiangular_time(start=0.0, stop=0.5, beta=0.0, tokens=2) == pytest.approx(math.atanh(0.5), rel=1e-10)
    for beyond in (
        theory.cluster_lifetime(beta=1e300, angle=1.0),
        theory.causal_gap_time(start=1.0, stop=0.2, beta=1e300),
        theory.equiangular_time(start=0.1, stop=0.5, beta=1e300, tokens=4),
        theory.gaussian_lifetime(1e200),
        theory.gaussian_lifetime(3.0, sigma=1e-200),
    ):
        assert beyond == math.inf
    with pytest.raises(ValueError, match="stop must be above 0"):
        theory.cluster_lifetime(beta=2.0, angle=step)


@pytest.mark.parametrize(("beta", "strength", "opening"), [(1e-8, 0.3, 0.7), (1.0, 1e-3, 0.5), (50.0, 0.2, 1.5)])
def test_positions_however_weak_keep_tokens_apart(beta, strength, opening):
    theta = theory.frozen_position_angle(beta=beta, strength=strength, opening=opening)
    with mpmath.workdps(30):
        far = 2 * beta * (mpmath.sin(theta) + strength * mpmath.sin(opening)) ** 2
        back = (mpmath.sin(2 * mpmath.mpf(theta)) + strength * mpmath.sin(opening + mpmath.mpf(theta))) * mpmath.exp(
            -far
        )
        ahead = strength * mpmath.sin(opening - mpmath.mpf(theta))
    assert theta > 0
    assert float(ahead - back) == pytest.approx(0.0, abs=1e-15)


def test_a_profile_of_any_resolution_sums_the_degrees_that_grow():
    """Beyond 12 sqrt(beta) degrees nothing is left to tell apart."""
    fine, finer = (
        theory.retrieval_profile(positions=[0.2, 0.9], time=0.5, beta=4.0, decay=1.0, resolution=m) for m in (1e9, 1e15)
    )
    np.testing.assert_allclose(fine, finer, rtol=1e-14)


def test_clusters_that_cannot_be_told_apart_are_refused():
    for angles in ([1.0], [0.0, 0.0, 1.0], [0.0, 1.5, 3.2]):
        with pytest.raises(ValueError, match="angles must be of two or more clusters"):
            theory.merging_times(angles=angles, beta=4.0)


def test_two_clusters_merge_in_their_lifetime():
    (time,) = theory.merging_times(angles=[0.2, 1.7], beta=5.0)
    assert time == theory.cluster_lifetime(beta=5.0, angle=1.5)
