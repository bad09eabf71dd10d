"""Scores against sums that are made one sequence at a time, in float64, token by token."""

import json
from math import log

import numpy as np
import pytest
import torch

transformers = pytest.importorskip("transformers")

from evidence import scorers  # noqa: E402
from krause_dynamics.models import KrauseLM, KrauseLMConfig  # noqa: E402


@pytest.fixture(params=["krause", "llama"])
def model(request):
    torch.manual_seed(0)
    if request.param == "krause":
        return KrauseLM(KrauseLMConfig(
            vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, window=6, attention_top_k=4,
            max_position_embeddings=64, initializer_range=0.3,
        )).eval()  # fmt: skip
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        initializer_range=0.3, max_position_embeddings=64,
    )).eval()  # fmt: skip


def encode(text):
    """A token a character."""
    return [ord(letter) % 59 + 1 for letter in text]


def by_hand(model, context, continuation):
    """log p of each token after all before it: one pass a token, nothing padded, nothing batched."""
    total, likeliest, seen = 0.0, True, list(context)
    for token in continuation:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([seen])).logits[0, -1].double()
        total += float(logits[token] - torch.logsumexp(logits, 0))
        likeliest &= int(logits.argmax()) == token
        seen.append(token)
    return total, likeliest


TEXTS = [("the cat sat on", "mat"), ("a", "stone"), ("one two three four five six", "seven"), ("x", "y")]


def test_continuations_are_sums_of_single_steps_in_any_batch(model, monkeypatch):
    requests = [(encode(context), encode(" " + word)) for context, word in TEXTS]
    expected = [by_hand(model, *request) for request in requests]
    for at_once in (1, 40, 8192):
        monkeypatch.setattr(scorers, "AT_ONCE", at_once)
        found = scorers.continuations(model, requests)
        # The model's own float32 in another order of sums.
        np.testing.assert_allclose(found.sums, [total for total, _ in expected], atol=2e-5)
        assert found.greedy.tolist() == [likeliest for _, likeliest in expected]


def test_a_continuation_that_the_model_would_write_is_greedy(model):
    context = encode("once")
    own = model.generate(torch.tensor([context]), max_new_tokens=3, do_sample=False)[0, len(context) :].tolist()
    assert scorers.continuations(model, [(context, own), (context, [*own[:2], (own[2] + 1) % 60])]).greedy.tolist() == [
        True, False,
    ]  # fmt: skip


def test_lambada_is_a_perplexity_a_word(model):
    rows = [{"context": context, "continuation": word} for context, word in TEXTS]
    found = scorers.lambada(model, encode, rows)
    by = [by_hand(model, encode(context), encode(" " + word)) for context, word in TEXTS]
    assert found["perplexity"] == pytest.approx(np.exp(-np.mean([total for total, _ in by])), rel=1e-4)
    assert found["accuracy"] == np.mean([likeliest for _, likeliest in by])


def test_pairs_compare_whole_sentences_and_average_paradigms(model):
    rows = [
        {"paradigm": "a", "good": "cats sleep", "bad": "cats sleeps"}, {"paradigm": "a", "good": "b", "bad": "dcba"},
        {"paradigm": "b", "good": "dogs run far", "bad": "d"},
    ]  # fmt: skip
    found = scorers.pairs(model, encode, 0, rows)
    right = [by_hand(model, [0], encode(r["good"]))[0] > by_hand(model, [0], encode(r["bad"]))[0] for r in rows]
    assert found == {"a": np.mean(right[:2]), "b": float(right[2]), "": (np.mean(right[:2]) + right[2]) / 2}


def test_bits_a_byte_of_pieces(model):
    text = "the quick brown fox jumps"
    tokens = encode(text)
    total = sum(by_hand(model, [0], tokens[i : i + 10])[0] for i in range(0, len(tokens), 10))
    found = scorers.bits_per_byte(model, encode, 0, text, length=10)
    assert found == pytest.approx(-total / log(2) / len(text), rel=1e-5)


def test_an_empty_request_is_refused(model):
    with pytest.raises(ValueError, match="request 1 must have a context"):
        scorers.continuations(model, [([1], [2]), ([], [2])])


def test_files_are_read_up_to_a_number_of_each_kind(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps({"paradigm": name, "n": i}) + "\n" for name in "ab" for i in range(3)))
    assert [row["n"] for row in scorers.lines(path, 2, each="paradigm")] == [0, 1, 0, 1]
    assert len(scorers.lines(path)) == 6
