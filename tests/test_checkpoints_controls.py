"""Controls whose outcome is known: repeated tokens, shuffles, other weights; and theory beside measurement."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.checkpoints import Tokens, analyze, load, predictions
from krause_dynamics.checkpoints.controls import changed, untrained
from tests import checkpoint_models as models

IDS = [[1, 12, 30, 4, 25, 6, 17, 8, 9, 40, 11, 2], [1, 7, 33, 9, 20, 45, 3, 8, 41, 5, 6, 13]]


@pytest.fixture(scope="module")
def model():
    """Its first token is 1."""
    return models.llama(bos_token_id=1, eos_token_id=2)


def test_one_repeated_token_is_one_direction_in_a_rotary_model(model):
    """All positions have the same state (issue of Gu et al.: repeated tokens give no sink), so c = R = 1."""
    found = analyze(model, IDS, controls=("repeated", "shuffled"))
    assert found["control"].values.tolist() == ["as given", "repeated", "shuffled"]
    assert json.loads(found.attrs["meta"])["controls"] == ["repeated", "shuffled"]
    one = found.sel(control="repeated")
    np.testing.assert_allclose(one["order_parameter"], 1.0, atol=1e-6)
    np.testing.assert_allclose(one["mean_cosine"], 1.0, atol=1e-6)
    plain = analyze(model, IDS)
    for name in plain.data_vars:
        np.testing.assert_array_equal(found[name].sel(control="as given"), plain[name], err_msg=name)
    # Embeddings are the same tokens in another order: what does not look at order is as it was.
    shuffled = found.sel(control="shuffled", layer=0, tokens="all")["mean_cosine"]
    np.testing.assert_allclose(shuffled, plain["mean_cosine"].sel(layer=0, tokens="all"), atol=1e-6)
    assert not np.allclose(found["entropy"].sel(control="shuffled"), plain["entropy"])


def test_tokens_are_changed_as_their_control_says(model):
    checkpoint, inputs, rng = load(model), Tokens(tuple(map(tuple, IDS)), "token ids"), np.random.default_rng(0)
    shuffled = changed(inputs, "shuffled", checkpoint, rng)
    assert [sorted(row) for row in shuffled.sequences] == [sorted(row) for row in IDS]
    assert shuffled.sequences != inputs.sequences
    assert all(len(set(row)) == 1 for row in changed(inputs, "repeated", checkpoint, rng).sequences)
    drawn = np.array(changed(inputs, "random", checkpoint, rng).sequences)
    assert drawn.shape == (2, 12)
    assert drawn.min() >= 0
    assert drawn.max() < models.VOCABULARY
    without = changed(inputs, "without_bos", checkpoint, rng)
    assert [list(row) for row in without.sequences] == [row[1:] for row in IDS]
    again = changed(without, "with_bos", checkpoint, rng)
    assert [list(row) for row in again.sequences] == [row[:-1] for row in IDS]
    with pytest.raises(ValueError, match="no sequence begins with the first token"):
        changed(without, "without_bos", checkpoint, rng)


def test_special_tokens_stay_in_place(model):
    class Tokenizer:
        all_special_ids = (1, 13)

    checkpoint = load(model, tokenizer=Tokenizer())
    inputs, rng = Tokens(tuple(map(tuple, IDS)), "token ids"), np.random.default_rng(0)
    for name in ("shuffled", "random", "repeated"):
        rows = np.array(changed(inputs, name, checkpoint, rng).sequences)
        assert (rows[:, 0] == 1).all()
        assert rows[1, -1] == 13
        assert not np.isin(rows[0, 1:], (1, 13)).any()


def test_random_weights_are_others_of_the_same_shape_and_repeatable(model):
    one, again, other = (untrained(load(model), seed).model for seed in (0, 0, 1))
    for (name, x), y, z in zip(one.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(x, y), name
        assert x.shape == model.get_parameter(name).shape
        assert x.ndim == 1 or not torch.equal(x, z)
    found = analyze(model, IDS, controls="random_weights", rng=3)
    assert not np.allclose(*(found["entropy"].sel(control=name) for name in ("as given", "random_weights")))


def test_a_control_that_does_not_exist_here_is_named(model):
    with pytest.raises(ValueError, match="controls must be among"):
        analyze(model, IDS, controls="text")
    with pytest.raises(ValueError, match="without memory="):
        analyze(model, IDS, controls="random", memory="4GB")
    own = torch.nn.Sequential(torch.nn.Linear(4, 4))
    with pytest.raises(ValueError, match="changes token ids"):
        analyze(own, np.zeros((1, 5, 4), np.float32), blocks=[own[0]], attention=None, controls="random")


def test_independent_scores_do_what_theory_predicts_of_them():
    """Participation of attention with drawn scores, T = 256, below and above freezing."""
    from krause_dynamics.checkpoints.attention_pass import attend

    g = torch.Generator().manual_seed(0)
    length, mask = 256, torch.ones(256, 256, dtype=torch.bool).tril()[None, None]
    for spread in (0.5, 2.0, 5.0):
        scores = spread * torch.randn(1, 64, length, length, generator=g)
        q = torch.zeros(1, 64, length, 4)
        _, found = attend(q, q, q, mask, bias=scores)
        assert float(found.score_spread.mean()) == pytest.approx(spread, rel=0.05)
        exact = predicted(found.score_spread, length)
        assert float(found.participation.mean()) == pytest.approx(float(exact.mean()), rel=0.05)


def predicted(spread, length):
    import xarray

    dims = ("sequence", "block", "head")
    values = {name: (dims, spread[:, None].numpy()) for name in ("score_spread", "participation", "importance_first")}
    dataset = xarray.Dataset(values | {"length": (("sequence",), [length])}, coords={d: [0] for d in dims[:2]})
    found = predictions(dataset.assign_coords(head=np.arange(spread.shape[-1])))
    ratio = float(found["freezing_ratio"].mean())
    assert ratio == pytest.approx(float(spread.mean()) / np.sqrt(2 * np.log(length)), rel=1e-4)
    harmonic = np.sum(1 / np.arange(1, length + 1)) / length
    np.testing.assert_allclose(found["importance_first"].sel(side="predicted"), harmonic)
    return found["participation"].sel(side="predicted")


def test_predictions_of_an_untrained_model_hold_and_need_attention(model):
    """Random weights look at nothing: their scores are nearly flat, the first token gets Cesaro's share."""
    found = predictions(analyze(model, [list(range(1, 41))]))
    assert float(found["freezing_ratio"].max()) < 0.2
    for name in ("importance_first", "participation"):
        sides = (found[name].sel(side=side) for side in ("predicted", "measured"))
        np.testing.assert_allclose(*sides, rtol=0.2)  # twelve heads, whose scores are few
    with pytest.raises(ValueError, match="score_spread"):
        predictions(kd.analyze(model, IDS, attention=None))


@pytest.mark.parametrize("spread", [0.02, 0.08, 0.12, 0.5])
@pytest.mark.parametrize("tokens", [8, 200])
def test_expected_participation_of_nearly_flat_scores(spread, tokens):
    """Against drawn scores, on both sides of where the second moment takes over."""
    weights = np.exp(spread * np.random.default_rng(0).normal(size=(4000, tokens)))
    weights /= weights.sum(1, keepdims=True)
    predicted = kd.theory.expected_participation(tokens=tokens, beta=spread / np.sqrt(np.log(tokens)))
    assert predicted == pytest.approx((weights**2).sum(1).mean(), rel=5e-3)
