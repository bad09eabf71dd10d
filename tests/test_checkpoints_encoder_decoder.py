"""Encoder-decoders: both stacks and the attention between them, against what transformers returns in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import encoder_decoder
from tests import checkpoint_models as models

SOURCES = [[3, 14, 15, 9, 26, 5, 35], [5, 35, 8, 9, 7, 9, 3], [2, 7, 1]]
TARGETS = [[1, 14, 15, 9, 26], [1, 8, 8], [1, 8, 2, 8, 1, 8]]
SOUND = torch.randn(3, 80, 40, generator=torch.Generator().manual_seed(0))


def bart(kind=hf.BartModel):
    config = hf.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    return models.build(kind, config, 0)


def whisper():
    config = hf.WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4, pad_token_id=0,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_target_positions=64, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1, max_source_positions=20,
    )  # fmt: skip
    return models.build(hf.WhisperModel, config, 0)


def theirs(model, source, target):
    """Outputs in float64 with eager attention."""
    model = models.eager(model, torch.float64)
    given = source[None].double() if torch.is_tensor(source) else torch.tensor([source])
    with torch.no_grad():
        return model(given, decoder_input_ids=torch.tensor([target]), output_attentions=True, output_hidden_states=True)


def stacked(maps):
    return torch.stack(maps)[:, 0].numpy()  # (blocks, heads, queries, keys)


CASES = {
    "T5": (models.t5, SOURCES),
    "BART": (bart, SOURCES),
    "BART with its head": (lambda: bart(hf.BartForConditionalGeneration), SOURCES),
    "Whisper": (whisper, SOUND),
}


@pytest.mark.parametrize("kind", CASES)
def test_all_three_are_those_of_transformers(kind):
    build, sources = CASES[kind]
    model = build().double()  # so that what is compared is the arithmetic of sums and not of a model's layers
    found = encoder_decoder(model, sources, TARGETS, batch_size=2)
    cross = found["cross"]
    assert cross.sizes["block"] == 3
    for i, target in enumerate(TARGETS):
        out = theirs(model, sources[i], target)
        weights, here = stacked(out.cross_attentions), cross.isel(sequence=i)
        count = weights.shape[-1]
        assert (int(here["sources"]), int(here["length"])) == (count, len(target))
        alpha = weights.mean(-2)
        np.testing.assert_allclose(here["importance"][..., :count], alpha, atol=2e-6)
        assert np.isnan(here["importance"][..., count:]).all()
        np.testing.assert_allclose(here["importance_first"], alpha[..., 0], atol=2e-6)
        np.testing.assert_allclose(here["importance_last"], alpha[..., -1], atol=2e-6)
        np.testing.assert_array_equal(here["strongest_source"], alpha.argmax(-1))
        np.testing.assert_allclose(here["strongest_importance"], alpha.max(-1), atol=2e-6)
        entropy = -(weights * np.log(weights)).sum(-1).mean(-1) / np.log(count)
        np.testing.assert_allclose(here["entropy"], entropy, atol=5e-6)
        np.testing.assert_allclose(here["participation"], (weights**2).sum(-1).mean(-1), atol=5e-6)
        quarter, places = 4 * np.arange(len(target)) // len(target), weights @ np.arange(count) / (count - 1)
        for number in range(4):
            mean = places[..., quarter == number].mean(-1) if (quarter == number).any() else np.nan
            np.testing.assert_allclose(here["place_by_quarter"][..., number], mean, atol=5e-6)
        order = np.argsort(-weights, -1, kind="stable")[..., :8]
        top = here["top_sources"].values[:, :, : len(target)]
        picked = np.take_along_axis(weights, top[..., : order.shape[-1]], -1)
        np.testing.assert_allclose(picked, np.take_along_axis(weights, order, -1), atol=1e-6)
        for name, maps, states in (
            ("encoder", out.encoder_attentions, out.encoder_hidden_states),
            ("decoder", out.decoder_attentions, out.decoder_hidden_states),
        ):
            half, weights = found[name].isel(sequence=i), stacked(maps)
            queries = np.full(weights.shape[-1], weights.shape[-1])
            queries = queries - np.arange(len(queries)) if name == "decoder" else queries
            np.testing.assert_allclose(half["importance_first"], weights.sum(-2)[..., 0] / queries[0], atol=5e-6)
            unit = torch.nn.functional.normalize(torch.stack(states[:-1])[:, 0], dim=-1)  # the last is normalised
            order = unit.mean(-2).norm(dim=-1)
            np.testing.assert_allclose(half["order_parameter"].sel(tokens="all")[:-1], order, atol=5e-6)
    alphas = np.stack([here["strongest_importance"].values for here in (cross.isel(sequence=i) for i in range(3))])
    rates = 100 * (alphas[..., None] > cross["eps"].values).mean(0)
    np.testing.assert_allclose(cross["sink_rate"].sel(which="strongest"), rates)


def test_the_output_and_the_model_are_as_before():
    """What stands in for attention computes it: states after a pass equal those of a plain one."""
    model = models.t5()
    before = model.config._attn_implementation
    record = encoder_decoder(model, SOURCES[:1], TARGETS[:1])["decoder"]
    assert model.config._attn_implementation == before
    with torch.no_grad():
        plain = model(torch.tensor(SOURCES[:1]), decoder_input_ids=torch.tensor(TARGETS[:1]), output_hidden_states=True)
    norms = torch.stack(plain.decoder_hidden_states)[:-1, 0].norm(dim=-1)
    ratio = norms[:, 0] / torch.from_numpy(np.median(norms.numpy(), -1))
    np.testing.assert_allclose(record["norm_ratio"][0, :-1], ratio, rtol=1e-4)


def test_every_report_of_one_stack_takes_each_half():
    found = encoder_decoder(models.t5(), SOURCES, TARGETS)
    for name in ("encoder", "decoder"):
        assert kd.report.findings(found[name])
        assert kd.report.legend(found[name])


def test_what_is_no_pair_is_named():
    with pytest.raises(kd.UnsupportedModel, match="is no encoder-decoder"):
        encoder_decoder(models.llama(), SOURCES, TARGETS)
    model = models.t5()
    with pytest.raises(ValueError, match="one for each of the 3 inputs, got 2"):
        encoder_decoder(model, SOURCES, TARGETS[:2])
    with pytest.raises(
        ValueError, match=r"takes input_ids \(token ids or text\), received torch.float32 of shape \(3, 80, 40\)"
    ):
        encoder_decoder(model, SOUND, TARGETS)
    with pytest.raises(ValueError, match="takes input_features; pass the floating array"):
        encoder_decoder(whisper(), SOURCES, TARGETS)
    with pytest.raises(ValueError, match="must be finite"):
        encoder_decoder(whisper(), torch.full((3, 80, 40), torch.nan), TARGETS)
    with pytest.raises(ValueError, match="outside 0..49"):
        encoder_decoder(model, SOURCES, [[50]] * 3)
    with pytest.raises(ValueError, match="centred on a corpus"):
        encoder_decoder(model, SOURCES, TARGETS, measures="mean_cosine_centred")


def test_experts_that_read_the_mask_of_attention_are_given_the_models_own():
    """NLLB-MoE leaves padding out by its mask, which eager attention adds: as truths it would leave all tokens out."""
    layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes = {"vocab_size": 50, "d_model": 32, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "num_experts": 2}
    more = {"encoder_sparse_step": 2, "decoder_sparse_step": 2, "pad_token_id": 0, "decoder_start_token_id": 2}
    model = models.build(hf.NllbMoeModel, hf.NllbMoeConfig(**layers, **sizes, **more), 0)
    found = encoder_decoder(model, SOURCES[:1], TARGETS[:1])
    with torch.no_grad():
        out = model(
            input_ids=torch.tensor(SOURCES[:1]), decoder_input_ids=torch.tensor(TARGETS[:1]), output_attentions=True
        )
    across = torch.stack(out.cross_attentions)[..., 0].mean(-1)
    np.testing.assert_allclose(found["cross"]["importance_first"].values.swapaxes(0, 1), across, atol=1e-5)
