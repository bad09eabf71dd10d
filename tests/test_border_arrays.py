"""The border of the operation: arrays of every kind, bad arguments, numbers beyond the dtype, forms refusing late."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics import _array
from krause_dynamics.aggregate import FORMS, plan, registry
from krause_dynamics.forms.near import cell_lists
from krause_dynamics.nn import krause_attention, sparse_weights

RULE = kd.bounded_confidence(1.5)
LINE = np.array([[0], [1], [2], [3]])
MEANS = [0.5, 1.0, 2.0, 2.5]


def locked(x):
    x.flags.writeable = False
    return x


KINDS = {
    "int64": LINE,
    "int8": LINE.astype(np.int8),
    "uint16": LINE.astype(np.uint16),
    "float32": LINE.astype(np.float32),
    "half": LINE.astype(np.float16),
    "other byte order": LINE.astype(">f8"),
    "integers of other byte order": LINE.astype(">i4"),
    "matrix": np.matrix(LINE * 1.0),
    "read-only": locked(LINE * 1.0),
    "Fortran order": np.asfortranarray(LINE * 1.0),
    "objects": LINE.astype(object),
    "DataFrame": pd.DataFrame(LINE),
    "DataFrame of integers that may lack": pd.DataFrame(LINE).astype("Int64"),
    "torch integers": torch.tensor(LINE),
    "torch bfloat16": torch.tensor(LINE).bfloat16(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_positions_of_every_kind_give_the_same_means(kind):
    x = KINDS[kind]
    for found in (
        kd.aggregate(RULE, x).mean,
        plan(RULE, x)(x).mean,
        x + kd.Dynamics(RULE).drift(0.0, x) if kind in ("int64", "other byte order", "torch integers") else None,
        kd.weights(RULE, x) @ (torch.tensor(LINE * 1.0) if isinstance(x, torch.Tensor) else LINE * 1.0)
        if "float16" not in kind and "half" not in kind
        else None,
    ):
        if found is not None:
            found = found.double() if isinstance(found, torch.Tensor) else found
            np.testing.assert_allclose(np.asarray(found, float).ravel(), MEANS, atol=1e-6)


def test_booleans_are_numbers_and_integers_take_the_dtype_of_their_neighbours():
    assert kd.aggregate(kd.softmax(0.0), np.array([[True], [False]])).mean.ravel().tolist() == [0.5, 0.5]
    mixed = kd.aggregate(RULE, LINE.astype(np.float32), LINE, log_mass=np.zeros(4, int))
    assert mixed.mean.dtype == np.float32
    np.testing.assert_allclose(mixed.mean.ravel(), MEANS)


@pytest.mark.parametrize("bad", [LINE + 1j, LINE.astype(str), np.array([["a"], ["b"]], object), np.array([[None]])])
def test_what_is_no_real_number_is_refused(bad):
    with pytest.raises((TypeError, ValueError), match="queries must"):
        kd.aggregate(RULE, bad)


def test_places_of_every_kind():
    rule, x = kd.softmax(0.0, kd.Window(2)), np.arange(4.0)[:, None]
    places = np.array([3, 2, 1, 0])
    expected = kd.aggregate(rule, x, query_index=places, source_index=places).mean
    for kind in (np.uint8, np.int8, ">i4", np.uint64):
        given = {"query_index": places.astype(kind), "source_index": places.astype(kind)}
        np.testing.assert_array_equal(kd.aggregate(rule, x, **given).mean, expected)
    with pytest.raises(TypeError, match="query_index must be an array of whole numbers, got float64"):
        kd.aggregate(rule, x, query_index=np.arange(4.0))
    with pytest.raises(ValueError, match="has 4 tokens, but token 5"):
        kd.aggregate(kd.krause(1.0, kd.Grid(2, 2)), np.zeros((6, 1)))


@pytest.mark.parametrize(
    "call",
    [
        lambda rule: kd.aggregate(rule, LINE),
        lambda rule: kd.weights(rule, LINE),
        lambda rule: kd.supported(rule, LINE),
        lambda rule: kd.statistics(rule, LINE),
        lambda rule: plan(rule, LINE),
    ],
)
@pytest.mark.parametrize("rule", ["krause", None, kd.Gaussian(1.0), kd.Dynamics(RULE)])
def test_a_rule_of_another_type_is_named(call, rule):
    with pytest.raises(TypeError, match="the rule must be an Interaction such as"):
        call(rule)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: kd.softmax(4.0, False), "neighbourhood must be one such as"),
        (lambda: kd.krause(1.0, 0), "neighbourhood must be one such as"),
        (lambda: kd.softmax(4.0, normalised=2.0), "normalised must be True or False"),
        (lambda: kd.bounded_confidence(True), "radius must be a number or an array of numbers, got True"),
        (lambda: kd.Dynamics(kd.softmax(1.0), noise=True), "noise must hold real numbers, got True"),
        (lambda: kd.Dynamics(kd.softmax(1.0), relative="no"), "relative must be True or False, got 'no'"),
        (lambda: kd.Event(lambda t, x: 0.0, terminal="no"), "terminal must be True or False, got 'no'"),
        (lambda: kd.Event(lambda t, x: 0.0, direction=True), "direction must be an integer, got True"),
        (lambda: kd.softmax(4.0, pair_bias=True), "pair_bias must be an array"),
        (lambda: kd.softmax(4.0, pair_bias=np.eye(3, dtype=bool)), "pair_bias must be an array"),
        (lambda: kd.Within(1.0, 0.5), "closed must be True or False"),
        (lambda: kd.Window(3, 5), "two_sided must be True or False"),
        (lambda: kd.Window(3, periodic="yes"), "periodic must be True or False"),
    ],
)
def test_arguments_in_the_wrong_place_are_refused(build, message):
    with pytest.raises(TypeError, match=message):
        build()


def test_masses_of_another_shape_are_named():
    with pytest.raises(ValueError, match=r"leading axes must broadcast, got .*log_mass \(2,\)"):
        kd.aggregate(RULE, np.zeros((4, 3, 1)), log_mass=np.zeros((2, 3)))
    with pytest.raises(ValueError, match="log_mass must have shape"):
        kd.aggregate(RULE, np.zeros((3, 1)), log_mass=np.float64(0.0))


@pytest.mark.parametrize("convert", [lambda x: x, torch.tensor])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(
    "rule",
    [
        *(kd.krause(sigma) for sigma in (1e-300, 1e-200, 1e-30, 1e-15, 1e15, 1e30, 1e200)),
        *(kd.softmax(beta) for beta in (1e-300, 1e30, 1e200, -1e300)),
        kd.krause(np.array([1e-200, 1.0, 1.0])),
    ],
    ids=str,
)
def test_parameters_beyond_the_dtype_are_refused_alike_or_answered_alike(rule, dtype, convert):
    x = convert(np.array([[0.0], [1.0], [1.5]], dtype))
    answers = set()
    for form, reason in kd.supported(rule, x).items():
        if reason is not None or form == "flex":
            continue
        try:
            mean, log_partition = kd.aggregate(rule, x, impl=form)
            answers.add(tuple(np.round(np.asarray(mean).ravel(), 3).tolist()))
            answers |= set() if np.isfinite(np.asarray(log_partition)).all() else {"log Z is not finite"}
        except ValueError as error:
            answers.add(str(error))
    (answer,) = answers
    assert "scores must stay below" in answer if isinstance(answer, str) else np.isfinite(answer).all()


@pytest.mark.parametrize("convert", [lambda x: x, torch.tensor])
def test_no_positions_that_are_finite_give_nan(convert):
    x = np.array([[0.0, 1.0], [1.0, 0.0], [-1.0, 1.0]])
    for rule in (kd.krause(1.0), kd.softmax(1.0), kd.krause(1.0, kd.TopK(2))):
        assert np.isfinite(np.asarray(kd.aggregate(rule, convert(1e150 * x)).mean)).all()
        with pytest.raises(ValueError, match="scores must stay below"):
            kd.aggregate(rule, convert(1e155 * x))


@pytest.mark.parametrize("convert", [lambda x: x, torch.tensor])
@pytest.mark.parametrize("ties", ["index", "keep"])
@pytest.mark.parametrize("score", [kd.Gaussian(2.0), kd.DotProduct(0.5), kd.DotProduct(0.5, 0.1)], ids=str)
def test_repeated_tokens_tie_exactly(score, ties, convert):
    """Equal keys have equal scores in every dimension: the earlier ones win, or all of them stay."""
    for seed in range(8):
        draw = np.random.default_rng(seed)
        base = draw.normal(size=(5, 16))
        which = draw.integers(0, 5, 40)
        x = base[which]
        heard = np.asarray(kd.weights(kd.Interaction(score, kd.TopK(7, ties)), convert(x))) > 0
        ranks = np.asarray(score(np, base[which], base))  # distinct, far beyond rounding
        for i in range(40):
            order = np.lexsort((np.arange(40), -ranks[i][which]))
            limit = ranks[i][which[order[6]]]
            expected = set(order[:7]) if ties == "index" else set(np.flatnonzero(ranks[i][which] >= limit))
            assert set(np.flatnonzero(heard[i])) == expected


@pytest.mark.parametrize("score", ["gaussian", "dot"])
def test_repeated_tokens_tie_exactly_in_products_of_matrices(score):
    draw = torch.Generator().manual_seed(0)
    base = torch.randn(1, 2, 9, 24, generator=draw, dtype=torch.float64)
    k = base[:, :, torch.randint(0, 9, (400,), generator=draw)]
    q, v = (
        torch.randn(1, 2, 400, 24, generator=draw, dtype=torch.float64),
        torch.eye(400).double().expand(1, 2, 400, 400),
    )
    chosen = [
        krause_attention(q, k, v, kd.Window(180) & kd.TopK(60), score=score, sigma=2.0, impl=impl) > 0
        for impl in ("reference", "banded")
    ]
    assert torch.equal(*chosen)


@pytest.mark.parametrize("convert", [lambda x: x, torch.tensor])
def test_padding_moves_no_centre(convert):
    """16 dimensions far from the origin, float32: the spread is 1, and 1000^2 has a rounding of 0.06."""
    x = (np.random.default_rng(0).normal(size=(6, 16)) + 1000).astype(np.float32)
    mass = np.array([0, 0, -np.inf, -np.inf, -np.inf, -np.inf], np.float32)
    exact = kd.aggregate(kd.krause(1.5), x.astype(float), log_mass=mass.astype(float)).mean
    for filler in (x, np.where(mass[:, None] == 0, x, np.nan).astype(np.float32)):
        for form in ("reference", "blocked", "auto"):
            given = convert(filler)
            found = kd.aggregate(kd.krause(1.5), convert(x), given, given, log_mass=convert(mass), impl=form).mean
            np.testing.assert_allclose(np.asarray(found), exact, atol=1e-3)  # 1000 times a rounding of float32


def test_tiles_of_padded_keys_stand_near_those_that_are_there():
    x = torch.randn(1, 1, 6, 16, generator=torch.Generator().manual_seed(0)) + 1000
    keys = torch.cat([x[:, :, :2], torch.zeros(1, 1, 4, 16)], 2)
    valid = torch.tensor([[True, True, False, False, False, False]])
    exact = sparse_weights(x.double(), keys.double(), sigma=1.5, key_valid=valid)[1]
    np.testing.assert_allclose(sparse_weights(x, keys, sigma=1.5, key_valid=valid)[1], exact, atol=1e-3)


def test_flat_for_everyone_is_one_mean():
    draw = np.random.default_rng(0)
    x, mass = draw.normal(size=(3, 50, 2)), draw.normal(size=(3, 50))
    mass[:, 4], mass[1] = -np.inf, -np.inf  # padding, and a run in which nobody has mass
    rule = kd.Interaction(kd.Flat())
    exact = kd.aggregate(rule, x, log_mass=mass, impl="reference")
    for found, expected in zip(kd.aggregate(rule, x, log_mass=mass, impl="blocked"), exact, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)
    assert plan(rule, np.zeros((200_000, 1)))(np.ones((200_000, 1))).mean[7, 0] == 1.0  # 4 10^10 pairs if it were not


def test_auto_goes_on_where_a_form_refuses_at_a_call(monkeypatch):
    monkeypatch.setattr(cell_lists, "pays", lambda *_: True)
    x = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rule = kd.bounded_confidence(0.5)
    prepared = plan(rule, x)
    assert prepared.impl == "cells"
    x[0] = 1e30
    exact = kd.aggregate(rule, x, impl="reference").mean
    torch.testing.assert_close(prepared(x).mean, exact)
    torch.testing.assert_close(kd.aggregate(rule, x).mean, exact)
    with pytest.raises(kd.UnsupportedImplementation, match="cells cannot be numbered"):
        plan(rule, x / 1e30, impl="cells")(x)


def test_a_tensor_is_known_while_torch_is_half_imported(monkeypatch):
    """Another thread may be importing torch: `sys.modules` then holds a module without a Tensor."""
    monkeypatch.setitem(__import__("sys").modules, "torch", type(torch)("torch"))
    _array._is_tensor_type.cache_clear()
    found = []
    worker = threading.Thread(target=lambda: found.append([_array.is_torch(np.float64(1)), _array.is_torch(object())]))
    worker.start()
    worker.join()
    assert found == [[False, False]]
    _array._is_tensor_type.cache_clear()


def test_every_form_is_listed_with_what_it_says():
    assert set(kd.supported(kd.krause(1e-300), np.zeros((3, 1)))) == set(FORMS) == set(registry.FORMS)


def test_squares_of_distances_beyond_the_dtype_are_refused_in_any_dimension():
    """|x - y|^2 is at most 4 d times the square of the largest coordinate: near the largest float32 d decides."""
    edge = (float(np.finfo(np.float32).max) / 16) ** 0.5
    x = np.array([[1.0] * 4, [-1.0] * 4], np.float32) * np.float32(edge)
    assert np.isfinite(kd.aggregate(kd.krause(1.0), 0.5 * x).mean).all()
    with pytest.raises(ValueError, match="positions"):
        kd.aggregate(kd.krause(1.0), 1.5 * x)


def test_netcdf_is_compressed(tmp_path):
    import xarray

    path = kd.report.write_dataset(xarray.Dataset({"x": ("n", np.zeros(100_000))}), tmp_path / "zeros.nc")
    assert path.stat().st_size < 40_000


ASKED = {
    "aggregate": lambda x: kd.aggregate(kd.bounded_confidence(0.6), x).mean,
    "simulate": lambda x: kd.simulate(kd.Dynamics(kd.bounded_confidence(0.6)), x, 0.1).final,
    "hegselmann_krause": lambda x: kd.hegselmann_krause(x, 0.6, max_steps=1).final,
    "weights": lambda x: kd.hegselmann_krause([0.0, 0.5, 1.0], 0.6, weights=1 + x[:, 0], max_steps=1).final,
    "find": lambda x: kd.clusters.find(x, 0.6).labels,
    "curve": lambda x: kd.clusters.curve(x, [0.6]).count,
    "matrix": lambda x: kd.operators.matrix(kd.bounded_confidence(0.6), x),
    "energy": lambda x: kd.energies.energy(kd.bounded_confidence(0.6), x),
    "dispersion": lambda x: kd.observables.dispersion(x),
    "wasserstein": lambda x: kd.measures.wasserstein(x, np.zeros((3, 1))),
    "from_particles": lambda x: kd.mean_field.from_particles(kd.mean_field.LineCells(4, 0.0, 1.0), x).mass,
    "from_states": kd.initial.from_states,
}


@pytest.mark.parametrize("name", ASKED)
def test_absent_entries_are_refused_and_numbers_are_numbers_in_every_form(name):
    x = np.array([[0.0], [0.5], [1.0]])
    with pytest.raises(ValueError, match="must have no masked entries, got 1"):
        ASKED[name](np.ma.masked_array(x, [[0], [1], [0]]))
    expected = ASKED[name](x)
    for other in (np.ma.masked_array(x), x.astype(">f8"), np.ascontiguousarray(x.repeat(2, axis=1))[:, :1]):
        np.testing.assert_array_equal(ASKED[name](other), expected)
    if name != "weights":
        np.testing.assert_array_equal(ASKED[name](x.astype(object)), expected)
