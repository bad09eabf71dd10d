"""First tokens beside a window are those of each sequence: behind padding, in packed rows, in trained models."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

import krause_dynamics as kd
from krause_dynamics.aggregate.calls import ATTEND
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.forms.attention import by_tiles, kernels
from krause_dynamics.nn import KrauseAttention, krause_attention
from krause_dynamics.nn.arguments import call_of
from krause_dynamics.nn.first_tokens import beside_of
from krause_dynamics.nn.hearing import within
from tests.test_nn_supports import SUPPORTS, gradients

transformers = pytest.importorskip("transformers")

from tests import checkpoint_models as models  # noqa: E402
from tests.test_nn_huggingface import Largest, tiny, tokens  # noqa: E402


def rows_of_their_own(packed):
    """Three rows that begin elsewhere, or packed sequences of one row: options of a call, and where each begins."""
    if packed:
        return {"segments": torch.tensor([0, 2, 11, 21])}, {0: [(0, 2), (2, 11), (11, 21)]}
    valid = torch.arange(21) >= torch.tensor([[0], [6], [19]])
    return {"key_valid": valid}, {row: [(begin, 21)] for row, begin in enumerate((0, 6, 19))}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", [name for name in SUPPORTS if "first tokens" in name])
def test_first_tokens_are_those_of_each_sequence_in_every_form(name, packed, monkeypatch):
    """By definition each sequence hears what it hears alone; the forms equal the definition, gradients too."""
    generator = torch.Generator().manual_seed(4)
    q, k, v = (torch.randn(3, 2, 21, 4, generator=generator, dtype=torch.float64) for _ in range(3))
    reach, (given, sequences) = within(SUPPORTS[name])[0], rows_of_their_own(packed)
    call = call_of(q, k, v, reach, sigma=1.3, **given)
    beside = beside_of(reach, (21, 21), 0, given.get("key_valid"), given.get("segments"))
    call = call._replace(beside=beside, scale=call.coefficients() + 0.0)
    exact = ATTEND["reference"](call)
    for row, places in sequences.items():
        for a, b in places:
            alone = krause_attention(*(x[row, None, :, a:b] for x in (q, k, v)), SUPPORTS[name], sigma=1.3)
            torch.testing.assert_close(exact[0][row, None, :, a:b], alone, rtol=1e-11, atol=1e-11)

    def of(attend):
        return gradients(lambda *x: attend(call._replace(q=x[0], k=x[1], v=x[2])), q, k, v)

    def check(found, expected):
        for mine, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-11, atol=1e-11)  # sums of 21 terms of order one

    expected = of(ATTEND["reference"])
    check(of(ATTEND["banded"]), expected)
    check(by_tiles.forward(call), exact)
    weights = torch.randn(q.shape, generator=torch.Generator().manual_seed(3), dtype=q.dtype)
    heard = torch.where(exact[1] > -torch.inf, 2 * exact[1], 0.0)
    check(by_tiles.backward(call, weights, heard)[:3], expected[2:])
    if name == "first tokens" and not packed:
        monkeypatch.setattr(kernels, "_attend", ATTEND["reference"])  # the kernels' pass by definition
        check(of(kernels.attend), expected)


@torch.no_grad()
def test_a_packed_sequence_has_its_own_first_tokens():
    torch.manual_seed(0)
    layer, x = KrauseAttention(8, 2, kd.Window(3, prefix_tokens=2)).double(), torch.randn(2, 16, 8, dtype=torch.float64)
    packed = layer(x, segments=kd.Segments(np.array([0, 1, 7, 16])))
    alone = torch.cat([layer(x[:, a:b]) for a, b in ((0, 1), (1, 7), (7, 16))], 1)
    torch.testing.assert_close(packed, alone, rtol=1e-11, atol=1e-11)


@torch.no_grad()
@pytest.mark.parametrize("top_k", [None, 3])
def test_first_tokens_are_those_of_the_sequence_not_of_the_row(top_k):
    """Behind padding, packed alike or differently, in chunks from a cache: what each sequence hears alone."""
    model = kd.krausify(tiny("eager"), window=4, top_k=top_k, prefix_tokens=2, sigma=2.0)
    x, close = tokens(20), {"rtol": 1e-9, "atol": 1e-9}
    mask = (torch.arange(20) >= torch.tensor([[6], [0]])).long()
    places, alone = (mask.cumsum(-1) - 1).clamp(min=0), model(x[:1, 6:]).logits
    torch.testing.assert_close(model(x, attention_mask=mask, position_ids=places).logits[:1, 6:], alone, **close)
    for cache in (transformers.DynamicCache(), transformers.StaticCache(config=model.config, max_cache_len=24)):
        cached, parts = {"past_key_values": cache, "use_cache": True}, []
        for a, b in ((0, 4), (4, 7), (7, 15), (15, 16), (16, 20)):
            rows = {"attention_mask": mask[:, :b], "position_ids": places[:, a:b]}
            parts.append(model(x[:, a:b], **rows, **cached).logits)
        torch.testing.assert_close(torch.cat(parts, 1)[:1, 6:], alone, **close)
    restart = torch.tensor([[*range(8), *range(5), *range(7)], [*range(3), *range(17)]])
    apart = torch.cat([model(x[:1, a:b]).logits for a, b in ((0, 8), (8, 13), (13, 20))], 1)
    for rows in (1, 2):
        packed = model(x[:rows], position_ids=restart[:rows], use_cache=False).logits
        torch.testing.assert_close(packed[:1], apart, **close)


@torch.no_grad()
def test_first_tokens_under_a_written_mask_of_both_sides():
    """As without a mask, which is then the same: nearby keys on both sides, and the first two."""
    model = kd.krausify(models.bert(attn_implementation="eager").double(), window=3, prefix_tokens=2, sigma=2.0)
    everyone = torch.ones(2, 1, 24, 24, dtype=torch.bool)
    written, plain = (model(tokens(), attention_mask=mask).last_hidden_state for mask in (everyone, None))
    torch.testing.assert_close(written, plain, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_first_tokens_that_the_model_hides_are_refused():
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "intermediate_size_mlp": 48, "head_dim": 8}
    counts = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "num_local_experts": 2}
    chunked = transformers.Llama4TextConfig(**sizes, **counts, attention_chunk_size=6, pad_token_id=0)
    for model in (models.mistral(), transformers.Llama4ForCausalLM(chunked)):
        kind = type(model)
        with pytest.raises(UnsupportedModel, match="hides the 2 first tokens"):
            kd.krausify(model, window=3, prefix_tokens=2)
        assert type(model) is kind
        assert model(tokens()).logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("how", [{}, {"window": 3, "top_k": 2}, {"window": 3, "prefix_tokens": 2}])
def test_rows_that_are_packed_differently_write_no_mask_of_pairs(how):
    """Each sequence hears what it hears alone, and so say the weights where they are asked for."""
    model, x = kd.krausify(tiny("eager"), sigma=2.0, **how), tokens(600)
    edges = [(0, 40, 41, 600), (0, 150, 590, 600)]
    places = torch.stack([torch.cat([torch.arange(b - a) for a, b in pairwise(row)]) for row in edges])
    with Largest() as largest:
        found = model(x, position_ids=places, use_cache=False)
    assert largest.size < 2 * 600 * 600  # booleans of the pairs of both rows; a token has 50 logits of 8 bytes
    asked = model(x, position_ids=places, use_cache=False, output_attentions=True)
    torch.testing.assert_close(asked.logits, found.logits, rtol=1e-9, atol=1e-9)
    for row, (ends, weights) in enumerate(zip(edges, asked.attentions[0], strict=True)):
        for a, b in pairwise(ends):
            alone = model(x[row : row + 1, a:b], output_attentions=True)
            torch.testing.assert_close(found.logits[row, a:b], alone.logits[0], rtol=1e-9, atol=1e-9)
            torch.testing.assert_close(weights[:, a:b, a:b], alone.attentions[0][0], rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("packed", [False, True])
def test_first_tokens_behind_padding_and_of_packed_rows_write_no_mask_of_pairs(packed):
    n, model = 4096, kd.krausify(tiny("eager", num_hidden_layers=1).float(), window=8, prefix_tokens=2, top_k=4)
    place = torch.arange(n)[None]
    how = {"position_ids": place % 1000, "use_cache": False} if packed else {"attention_mask": (place >= 9).long()}
    with Largest() as largest:
        model.model(torch.full((1, n), 3), **how)
    assert largest.size < n * n / 4  # booleans of all pairs would be n * n bytes; a token has 48 floats at most
