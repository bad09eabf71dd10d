"""kd.checkpoints.record on tiny models, against what transformers itself returns with eager attention."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row
from tests.keywords.table_checkpoints_inputs import Letters
from tests.keywords.table_checkpoints_load import CODE, tiny

RECORD = "kd.checkpoints.record"
IDS = [list(range(1, 21)), list(range(5, 17))]
LONG = [[3 + (7 * i) % 40 for i in range(70)]]


def record(inputs=IDS, model="llama", **options):
    return kd.checkpoints.record(tiny(model), inputs, **options)


@cache
def plain():
    return record()


@cache
def theirs(model, ids):
    """Hidden states (layers, T, d) before the final norm and attention (blocks, heads, T, T), by transformers."""
    import torch

    from tests import checkpoint_models

    with torch.no_grad():
        out = checkpoint_models.eager(tiny(model))(
            torch.tensor([ids]), output_attentions=True, output_hidden_states=True
        )
    states = np.stack([state[0].numpy() for state in out.hidden_states])[:-1]  # the last one is normed
    return states, np.stack([block[0].numpy() for block in out.attentions])


def equals_theirs(kind, inputs):
    run = record(inputs, kind)
    for i, ids in enumerate(inputs):
        states, _ = theirs(kind, tuple(ids))
        np.testing.assert_allclose(run.positions[:-1, i, : len(ids)], states, atol=1e-5)
        np.testing.assert_array_equal(run.log_mass[i] > -np.inf, np.arange(run.positions.shape[2]) < len(ids))


def same(one, other):
    """Two records agree, float32 arithmetic in another order allowed for."""
    np.testing.assert_allclose(one.positions, other.positions, atol=1e-5)
    np.testing.assert_array_equal(one.log_mass, other.log_mass)
    assert set(one.extras) == set(other.extras)
    for name in one.extras:
        np.testing.assert_allclose(one.extras[name], other.extras[name], atol=1e-5)


@row(RECORD, "model", "llama", "gpt2", "the hidden states that transformers returns for that model")
def model(first, second):
    for kind in (first, second):
        equals_theirs(kind, IDS)


@row(
    RECORD,
    "inputs",
    IDS,
    [IDS[1], IDS[0][:7]],
    "the hidden states that transformers returns for those sequences; padding has no mass",
)
def inputs(first, second):
    for sequences in (first, second):
        equals_theirs("llama", sequences)


@row(RECORD, "tokenizer", None, Letters(), "text becomes its ids, special ones included; without one text is refused")
def tokenizer(first, second):
    same(record("abcab", tokenizer=second), record([[1, 10, 11, 12, 10, 11, 2]]))
    with pytest.raises(ValueError, match="tokenizer"):
        record("abcab", tokenizer=first)


@row(
    RECORD,
    "attention",
    "statistics",
    "weights",
    "weights are those of transformers, statistics their means over queries; None has none",
)
def attention(first, second):
    found, whole = record(IDS[:1], attention=first), record(IDS[:1], attention=second)
    _, expected = theirs("llama", tuple(IDS[0]))
    np.testing.assert_allclose(whole.extras["attention"][:, 0], expected, atol=1e-5)
    importance = expected.sum(axis=-2) / np.arange(20, 0, -1)
    for run in (found, whole):
        np.testing.assert_allclose(run.extras["importance"][:, 0], importance, atol=1e-5)
    assert "attention" not in found.extras
    assert "importance" not in record(IDS[:1], attention=None).extras


class Heard:
    """A callback that remembers its arguments."""

    def __init__(self):
        self.calls = []

    def __call__(self, done, total):
        self.calls.append((done, total))


THREE = [*IDS, IDS[1][::-1]]


@row(RECORD, "batch_size", 8, 1, "so many sequences of one length at a time; the numbers do not depend on it")
def batch_size(first, second):
    for size, done in ((first, [2, 3]), (second, [1, 2, 3])):  # of lengths 20, 12 and 12
        heard = Heard()
        same(record(THREE, batch_size=size, progress=heard), record(THREE))
        assert [calls for calls, _ in heard.calls] == done


@row(RECORD, "progress", False, Heard(), "is told after each batch how many sequences of how many are done, to the end")
def progress(first, second):
    second.calls.clear()
    same(record(THREE, progress=second, batch_size=1), record(THREE, progress=first))
    assert second.calls == [(1, 3), (2, 3), (3, 3)]


@row(RECORD, "sequence_length", None, 8, "consecutive pieces of that many tokens are sequences of their own")
def sequence_length(first, second):
    same(record(IDS[:1], sequence_length=second), record([IDS[0][:8], IDS[0][8:16]]))
    assert record(IDS[:1], sequence_length=first).positions.shape[1:3] == (1, 20)


@row(RECORD, "max_sequences", None, 1, "the first ones, with the states that they have among all")
def max_sequences(first, second):
    same(record(max_sequences=second), record(IDS[:1]))
    assert record(max_sequences=first).positions.shape[1] == 2


@row(RECORD, "truncate", False, True, "beyond the context of 64 tokens: refused, or the states of the first 64")
def truncate(first, second):
    same(record(LONG, truncate=second), record([LONG[0][:64]]))
    for options in ({}, {"truncate": first}):
        with pytest.raises(ValueError, match="truncate"):
            record(LONG, **options)


@row(RECORD, "pad_token", None, 0, "padding at either end changes no number; by default the id is a token like others")
def pad_token(first, second):
    padded = [[0, 0, *IDS[1]], [*IDS[1][::-1], 0, 0]]
    same(record(padded, pad_token=second), record([IDS[1], IDS[1][::-1]]))
    assert record(padded, pad_token=first).extras["lengths"].tolist() == [14, 14]


@row(RECORD, "min_queries", 8, 1, "the strongest key is the argmax of importance over keys that so many queries see")
def min_queries(first, second):
    expected = theirs("llama", tuple(IDS[0]))[1].sum(axis=-2) / np.arange(20, 0, -1)
    for least in (first, second):
        found = record(IDS[:1], min_queries=least).extras["strongest_key"][:, 0]
        np.testing.assert_array_equal(found, expected[..., : 21 - least].argmax(axis=-1))
    assert (record(IDS[:1], min_queries=21).extras["strongest_key"] == -1).all()


@row(
    RECORD, "blocks", None, "layers", "given by hand they are those that the search finds; fewer end the record earlier"
)
def blocks(first, second):
    by_hand = list(getattr(tiny("llama").model, second))
    same(record(blocks=by_hand), record(blocks=first))
    begun = record(blocks=by_hand[:2], attention=None)  # states up to the last block given
    np.testing.assert_allclose(begun.positions, plain().positions[:3], atol=1e-5)


@row(RECORD, "dtype", None, "float64", "of the weights of a folder: those of the file, or as asked")
def dtype(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        for given, stored in ((first, "float32"), (second, "float64")):
            run = kd.checkpoints.record(folder, IDS, dtype=given)
            assert run.meta["dtype"] == stored
            same(run, plain())


@row(RECORD, "part", "encoder", "decoder", "of an encoder-decoder: one stack, as if given by itself")
def part(first, second):
    model = tiny("t5")
    for name, stack in ((first, model.get_encoder()), (second, model.get_decoder())):
        same(kd.checkpoints.record(model, IDS, part=name), kd.checkpoints.record(stack, IDS))


@row(
    RECORD,
    "device",
    None,
    "cpu",
    "a model of a folder runs there with the states of the loaded one; what is no device is refused",
)
def device(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        for where in (first, second):
            same(kd.checkpoints.record(folder, IDS, device=where), plain())
        with pytest.raises(ValueError, match="device 'nonsense'"):
            kd.checkpoints.record(folder, IDS, device="nonsense")


@row(
    RECORD,
    "trust_remote_code",
    False,
    True,
    "Python files of a checkpoint are refused unless trusted; then its states are those of its weights",
)
def trust_remote_code(first, second):
    with tempfile.TemporaryDirectory() as folder:
        tiny("llama").save_pretrained(folder)
        described = json.loads((Path(folder) / "config.json").read_text())
        classes = {"AutoConfig": "code.Config", "AutoModel": "code.Model"}
        described |= {"model_type": "keyword_row_load", "auto_map": classes}
        (Path(folder) / "config.json").write_text(json.dumps(described))
        (Path(folder) / "code.py").write_text(CODE)
        for options in ({}, {"trust_remote_code": first}):
            with pytest.raises(ValueError, match="cannot load"):
                kd.checkpoints.record(folder, IDS, **options)
        same(kd.checkpoints.record(folder, IDS, trust_remote_code=second), plain())
