"""Analyses at their edges: reach, underflow, equal tokens, runs that end early; what is told of them is true."""

from __future__ import annotations

import io
import json
import re

import numpy as np
import pytest
import torch
import transformers as hf
from rich.console import Console

import krause_dynamics as kd
from krause_dynamics.checkpoints import predictions
from krause_dynamics.checkpoints.attention_pass import attend
from krause_dynamics.checkpoints.attention_statistics import statistics_of
from krause_dynamics.report.summary import headlines
from tests import checkpoint_models as models

TOKENS = 40
IDS = [[(3 + 7 * i * s) % 50 for i in range(TOKENS)] for s in (1, 2)]
PLACE = torch.arange(TOKENS)
LAG = PLACE[:, None] - PLACE
# By name: who sees whom, and what even attention then gives the first token (H_W is the sum of 1/i up to W).
REACH = {
    "past": (LAG >= 0, sum(1 / i for i in range(1, 41)) / 40),
    "window of 5": ((LAG >= 0) & (LAG < 5), sum(1 / i for i in range(1, 6)) / 5),
    "chunks of 8": ((LAG >= 0) & (PLACE[:, None] // 8 == PLACE // 8), sum(1 / i for i in range(1, 9)) / 8),
    "all": (LAG == LAG, 1 / 40),
    "3 to both sides": (LAG.abs() <= 3, (1 / 4 + 1 / 5 + 1 / 6 + 1 / 7) / 4),
}


@pytest.mark.parametrize("name", REACH)
def test_even_attention_within_reach(name):
    visible, share = REACH[name]
    q = torch.zeros(1, 2, TOKENS, 4)
    _, found = attend(q, q, q, visible, keep_weights=True)
    np.testing.assert_allclose(found.even_importance_first, share, rtol=1e-6)
    np.testing.assert_allclose(found.importance[..., 0], share, rtol=1e-5)  # of scores that are 0 the measured one
    np.testing.assert_allclose(statistics_of(found.weights).even_importance_first, share, rtol=1e-6)


def flat(config, kind):
    """A model whose attention does not look at the tokens."""
    model = models.build(kind, config, 0)
    for name, weight in model.named_parameters():
        if "q_proj" in name or ".query." in name:
            weight.data.zero_()
    return model


@pytest.mark.parametrize("name", ["past", "window of 12", "all"])
def test_predictions_are_of_who_is_within_reach(name):
    """All scores are 0: of n keys that are heard each has 1/n, and the sum of their squares is 1/n."""
    sizes = {**models.SMALL, "num_hidden_layers": 2, "num_attention_heads": 4}
    if name == "all":
        model, rows = flat(hf.BertConfig(**sizes), hf.BertModel), np.full(32, TOKENS)
    else:
        window = None if name == "past" else 12
        model = flat(hf.MistralConfig(**sizes, sliding_window=window, num_key_value_heads=2), hf.MistralModel)
        rows = np.minimum(np.round(np.linspace(0, TOKENS - 1, 32)) + 1, window or TOKENS)
    found = predictions(kd.analyze(model, IDS))
    first, squares = found["importance_first"], found["participation"]
    np.testing.assert_allclose(first.sel(side="predicted"), first.sel(side="measured"), rtol=1e-5)
    np.testing.assert_allclose(squares.sel(side="measured"), (1 / rows[rows >= 8]).mean(), rtol=1e-5)
    # The law of independent scores is interpolated between lengths, and its table begins at a spread above 0.
    np.testing.assert_allclose(squares.sel(side="predicted"), squares.sel(side="measured"), rtol=0.02)


def test_a_reach_that_is_not_known_has_no_prediction():
    sizes = {**models.SMALL, "num_hidden_layers": 2, "num_attention_heads": 4, "pad_token_id": 0}
    special = {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
    both = hf.ModernBertConfig(**sizes, **special, local_attention=6, global_attn_every_n_layers=2)
    found = predictions(kd.analyze(hf.ModernBertModel(both).eval(), IDS))
    known = found["participation"].sel(side="predicted").notnull().all(("sequence", "head"))
    assert known.values.tolist() == [True, False]  # all; 3 to both sides


def test_scores_that_underflow_are_not_taken_for_a_narrow_spread():
    """Scores 0, -40, -80, ...: beyond 103 weights are 0 in float32. Their squares are there; the spread is lost."""
    q, away = torch.zeros(1, 1, 12, 4), -40.0 * torch.arange(12.0)
    _, found = attend(q, q, q, None, bias=away.expand(1, 1, 12, 12))
    np.testing.assert_allclose(found.participation, 1.0, rtol=1e-6)
    assert found.score_spread.isnan().all()
    _, found = attend(q, q, q, None, bias=away.expand(1, 1, 12, 12) / 10)
    np.testing.assert_allclose(found.score_spread, 4 * np.arange(12).std(), rtol=1e-5)
    # What a window leaves out is not heard: nothing of it was lost.
    _, found = attend(q, q, q, (LAG[:12, :12] >= 0) & (LAG[:12, :12] < 9), bias=away.expand(1, 1, 12, 12) / 10)
    mean = (np.arange(8).std() + 4 * np.arange(9).std()) / 5  # of one row that hears 8 keys, and four that hear 9
    np.testing.assert_allclose(found.score_spread, 4 * mean, rtol=1e-5)


def test_what_rounding_leaves_of_equal_tokens_is_no_shape():
    """One token repeated: all states are equal but for rounding, of which likeness and dimension were told."""
    shapes = ["cka", "cka_null", "procrustes", "intrinsic_dimension"]
    found = kd.analyze(models.llama(), [[5] * 20, IDS[0]], measures=shapes)
    for name in shapes:
        assert np.isnan(found[name][0]).all(), name
        assert np.isfinite(found[name][1, 1:]).all(), name
    forecast = kd.checkpoints.forecast(models.llama(), [[5] * 20])
    assert np.isnan(forecast["contraction"]).all()


def test_tokens_that_differ_by_rounding_count_once_in_their_dimension():
    points = torch.randn(1, 60, 6, generator=torch.Generator().manual_seed(0))
    noise = 1e-7 * torch.randn(1, 60, 6, generator=torch.Generator().manual_seed(1))
    measure = next(m for m in kd.checkpoints.measures.MEASURES if m.name == "intrinsic_dimension")

    def dimension(tokens):
        from krause_dynamics.checkpoints.layer_state import LayerState

        return measure.told(LayerState(tokens, None, np.array([1.0])), 1)[0, 0]

    np.testing.assert_allclose(dimension(torch.cat([points, points + noise], 1)), dimension(points), rtol=1e-4)


# --- words


def told(dataset):
    """What a report says in words and numbers, without pictures."""
    stream = io.StringIO()
    kd.report.print_report(dataset, Console(file=stream, width=160))
    return "\n".join([stream.getvalue(), str(headlines(dataset)), *kd.report.findings(dataset)])


def test_sinks_of_a_narrow_window_are_told_as_those_of_even_attention():
    """Even attention in a window of 4 gives the first token 0.52 of those who see it, more than any threshold."""
    sizes = {**models.SMALL, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    model = flat(hf.MistralConfig(**sizes, sliding_window=4), hf.MistralModel)
    found = kd.analyze(model, IDS)
    assert (found["sink_rate"].sel(eps=0.3) == 100).all()
    words = kd.report.findings(found)
    assert any("In 100.0 % of (sequence, block, head) even attention, too" in line for line in words)
    assert "even attention, too" in told(found)
    whole = kd.report.findings(kd.analyze(models.llama(), IDS))
    assert not any("even attention" in line for line in whole)


@pytest.mark.parametrize("case", ["two tokens", "hybrid", "one measure"])
def test_there_are_words_for_what_is_not_there(case, tmp_path):
    if case == "hybrid":
        kinds = ["conv", "full_attention", "conv"]
        sizes = {**models.SMALL, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
        found = kd.analyze(models.build(hf.Lfm2Model, hf.Lfm2Config(**sizes, layer_types=kinds), 0), IDS)
    elif case == "two tokens":
        found = kd.analyze(models.llama(), [[1, 2], [3, 4]])
    else:
        found = kd.analyze(models.llama(), IDS, measures="clusters", attention=None)
        text = kd.report.write_html(found, tmp_path / "page.html").read_text()
        assert "clusters after the last block, within 47 degrees" in text
    assert not re.search(r"\bnan\b", told(found), flags=re.I)


def test_a_run_that_ended_early_is_not_told_as_the_whole():
    model = models.llama()
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    found = kd.analyze(model, IDS)
    assert "block 2" in json.loads(found.attrs["meta"])["stopped"]
    text = told(found)
    assert "alignment R after block 1 of 3" in text
    assert "after the last block" not in text
    assert "after the last block" in told(kd.analyze(models.llama(), IDS))


def test_a_sequence_of_which_a_measure_says_nothing_does_not_hide_the_others():
    """Seven tokens have no spread of scores; the line is the mean of the other sequences, as in the words."""
    with pytest.warns(UserWarning, match="share one sink rate"):
        found = kd.analyze(models.llama(), [*IDS, IDS[0][:7]])
    expected = found["score_spread"][:2].mean(("sequence", "head"))
    for band in ("spread", "interval"):
        ax = kd.plots.synchronization(found, quantity="score_spread", band=band)
        np.testing.assert_allclose(ax.lines[0].get_ydata(), expected, rtol=1e-6)
        edges = ax.collections[0].get_paths()[0].vertices
        assert np.isfinite(edges).all()


def test_an_encoder_of_sound_itself():
    """Moonshine reads samples (n, samples); statistics are those of the weights that it returns."""
    halves = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    sizes = {f"{stack}_{name}": 2 for stack in ("encoder", "decoder") for name in halves}
    config = hf.MoonshineConfig(vocab_size=50, hidden_size=16, intermediate_size=24, **sizes)
    model = models.build(hf.MoonshineModel, config, 0)
    sound = torch.randn(2, 6000, generator=torch.Generator().manual_seed(0))
    shown = torch.tensor([IDS[0][:9], IDS[1][:9]])
    found = kd.checkpoints.encoder_decoder(model, sound, shown)
    with torch.no_grad():
        out = models.eager(model)(sound, decoder_input_ids=shown, output_attentions=True)
    importance = torch.stack([weights.mean(-2) for weights in out.cross_attentions], 1)
    np.testing.assert_allclose(found["cross"]["importance"], importance, atol=1e-5)
    with pytest.raises(ValueError, match=r"takes input_values \(2 axes or more"):
        kd.checkpoints.encoder_decoder(model, sound[0], shown)
