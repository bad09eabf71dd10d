"""Predictions from weights and embeddings: against automatic differentiation, closed forms and other counts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.csgraph import connected_components
from scipy.special import eval_gegenbauer

import krause_dynamics as kd
from krause_dynamics.checkpoints import forecast
from krause_dynamics.checkpoints.near_mean import predicted_contraction, residual
from krause_dynamics.checkpoints.patterns import amplitudes, grown_mode
from tests import checkpoint_models as models

IDS = [list(range(1, 13)), [3, 14, 15, 9, 26, 5, 35, 8, 9]]


def states_and_scores(model, ids):
    """Hidden states (layers, T, d) before the final norm, and attention weights (blocks, heads, T, T), in float64."""
    caught = []
    model = models.eager(model, torch.float64)
    hook = model.model.layers[-1].register_forward_hook(
        lambda m, a, out: caught.append(out if torch.is_tensor(out) else out[0])
    )
    with torch.no_grad():
        out = model(torch.tensor([ids]), output_hidden_states=True, output_attentions=True)
    hook.remove()
    states = torch.stack([*out.hidden_states[:-1], caught[0]])[:, 0]
    return states, torch.stack(out.attentions)[:, 0].numpy()


def derivative(model, ids, layer, tokens):
    """Residual after a block at the mean token plus its derivative in the direction of the deviations, by autograd."""
    model = models.eager(model, torch.float64)
    module, taken = model.model.layers[layer], {}
    hook = module.register_forward_pre_hook(lambda m, a, kw: taken.update(kw), with_kwargs=True)
    with torch.no_grad():
        model(torch.tensor([ids]))
    hook.remove()
    taken.pop("past_key_values", None)
    taken.pop("use_cache", None)
    mean = tokens[1:].mean(0)
    away = tokens - mean
    away[0] = 0

    def block(x):
        out = module(x, **taken)
        return out if torch.is_tensor(out) else out[0]

    at, slope = torch.autograd.functional.jvp(block, mean.expand_as(tokens)[None].clone(), away[None])
    return residual((at + slope).detach()) / residual(tokens[None])


def test_contraction_is_predicted_by_the_derivative_and_measured_on_the_states():
    model = models.llama()
    found = forecast(model, IDS, batch_size=2)["contraction"]
    assert found.sizes == {"side": 2, "sequence": 2, "block": 3}
    for i, ids in enumerate(IDS):
        states, _ = states_and_scores(model, ids)
        rest = states[:, 1:]
        off = ((rest - rest.mean(1, keepdim=True)).norm(dim=(1, 2)) / rest.norm(dim=(1, 2))).numpy()
        np.testing.assert_allclose(found.sel(side="measured")[i], off[1:] / off[:-1], rtol=1e-4)
        # Differences at 1 % of the mean token's norm: the error is of third order, and float32 leaves 1e-5.
        expected = [float(derivative(model, ids, layer, states[layer])) for layer in range(3)]
        np.testing.assert_allclose(found.sel(side="predicted")[i], expected, rtol=3e-3)


def test_near_their_mean_tokens_do_what_the_derivative_says():
    """A block of attention alone: both sides agree to first order in the deviations, and no further from the mean."""
    torch.manual_seed(0)
    layer = kd.nn.KrauseAttention(8, 2, score="dot", causal=True).double()
    mean, noise = torch.randn(8, dtype=torch.float64), torch.randn(1, 12, 8, dtype=torch.float64)
    noise[:, 0] = 0
    errors = []
    with torch.no_grad():
        for size in (1e-3, 1.0):
            tokens = mean + size * noise
            tokens = tokens - tokens[:, 1:].mean(1, keepdim=True) + mean
            tokens[:, 0] = mean
            block = lambda x: x + layer(x)  # noqa: E731
            measured = residual(block(tokens)) / residual(tokens)
            errors.append(abs(float(predicted_contraction(block, tokens)[0] / measured[0]) - 1))
    assert errors[0] < 5e-3
    assert errors[1] > 5 * errors[0]


def test_effective_beta_is_the_spread_of_scores_over_that_of_cosines():
    model = models.llama()
    found = forecast(model, IDS[:1])
    states, weights = states_and_scores(model, IDS[0])
    for block in range(3):
        unit = torch.nn.functional.normalize(states[block, 1:], dim=-1).numpy()
        spread = (unit @ unit.T)[np.triu_indices(11, 1)].std()
        rows = [np.log(weights[block, :, i, : i + 1]).std(-1) for i in range(12) if i + 1 >= 8]
        np.testing.assert_allclose(found["effective_beta"][0, block], np.mean(rows, 0) / spread, rtol=1e-3)
    beta = float(np.median(found["effective_beta"]))
    chord = 2 * np.sin(float(kd.theory.strongest_attraction_angle(beta=beta)) / 2)
    assert float(found["chord"][0]) == pytest.approx(chord, rel=1e-6)
    for side, layer in (("predicted", 0), ("measured", -1)):
        unit = torch.nn.functional.normalize(states[layer, 1:], dim=-1).numpy()
        near = np.linalg.norm(unit[:, None] - unit[None], axis=-1) <= chord
        assert int(found["clusters"].sel(side=side)[0]) == connected_components(near)[0]


def test_amplitudes_are_those_of_gegenbauers_polynomials_and_name_the_pattern():
    rng = np.random.default_rng(0)
    units = rng.normal(size=(40, 5))
    units /= np.linalg.norm(units, axis=-1, keepdims=True)
    cosines = units @ units.T
    for dimension in (5, 9):
        alpha = dimension / 2 - 1
        expected = [
            (eval_gegenbauer(degree, alpha, cosines) / eval_gegenbauer(degree, alpha, 1.0)).mean()
            for degree in range(1, 9)
        ]
        np.testing.assert_allclose(amplitudes(units, dimension), expected, atol=1e-12)
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], -1) * 0.999 + rng.normal(size=(40, 2)) * 1e-3
    circle /= np.linalg.norm(circle, axis=-1, keepdims=True)
    for number in (1, 2, 3, 5):  # tokens that have moved a third of their way to so many places
        goal = np.round(angles * number / (2 * np.pi)) * 2 * np.pi / number
        moved = angles + 0.3 * (goal - angles)
        assert grown_mode(circle, np.stack([np.cos(moved), np.sin(moved)], -1), 2) == number


def test_the_theorys_own_particles_grow_the_mode_that_is_predicted():
    """Softmax attention on the circle from a nearly even start: the mode that has grown is the winning one."""
    beta, n = 9.0, 200
    predicted = kd.theory.winning_mode(beta, dimension=2)
    rng = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, n, endpoint=False) + 1e-3 * rng.normal(size=n)
    start = np.stack([np.cos(angles), np.sin(angles)], -1)
    run = kd.simulate(kd.Dynamics(kd.softmax(beta=beta), kd.Sphere()), start, 6.0, dt=0.1)
    assert abs(grown_mode(start, run.positions[-1], 2) - predicted) <= 1


def test_any_kind_of_model_and_what_is_too_short():
    for build in (models.gpt2, models.bert, models.albert, models.bloom):
        found = forecast(build(), IDS[:1])
        assert np.isfinite(found["contraction"]).all()
        assert np.isfinite(found["winning_mode"]).all()
    narrow = forecast(models.mistral(), IDS[:1])  # a window of 4
    assert np.isfinite(narrow["contraction"]).all()
    assert np.isnan(narrow["clusters"]).all()
    with pytest.raises(ValueError, match="at least 8 tokens, got one of 3"):
        forecast(models.llama(), [[1, 2, 3]])
    with pytest.raises(ValueError, match="which torch.bfloat16 rounds away"):
        forecast(models.llama().bfloat16(), IDS)


def test_one_repeated_token_has_nothing_to_contract():
    """All rows are equal whatever the layer: no residual, no spread of cosines; NaN and no warning."""
    found = forecast(models.llama(), [[5] * 12])
    for name in ("clusters", "winning_mode", "effective_beta"):
        assert np.isnan(found[name]).all()
    assert np.isnan(found["contraction"].sel(side="measured")).all()


def test_a_part_of_a_composed_model():
    part = kd.checkpoints.load(models.t5(), part="encoder")
    assert np.isfinite(forecast(part, IDS)["contraction"]).all()
