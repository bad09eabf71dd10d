"""kd.checkpoints.encoder_decoder: against what transformers itself returns with eager attention."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

import krause_dynamics as kd
from tests.keywords.row import row

PAIRS = "kd.checkpoints.encoder_decoder"
SOURCES = [list(range(1, 15)), [5, 35, 8, 9]]
TARGETS = [[1, 14, 15, 9, 26, 4, 4, 8, 9], [1, 8, 8]]


@cache
def t5(seed=0):
    pytest.importorskip("transformers")
    from tests import checkpoint_models

    return checkpoint_models.t5(seed)


def analyzed(model=0, inputs=SOURCES, targets=TARGETS, **options):
    return kd.checkpoints.encoder_decoder(t5(model) if isinstance(model, int) else model, inputs, targets, **options)


@cache
def crossing(seed, source, target):
    """Weights (blocks, heads, queries, sources) across, as transformers returns them."""
    import torch

    from tests import checkpoint_models

    with torch.no_grad():
        out = checkpoint_models.eager(t5(seed))(
            torch.tensor([source]), decoder_input_ids=torch.tensor([target]), output_attentions=True
        )
    return torch.stack(out.cross_attentions)[:, 0].numpy()


def hears(found, seed, sources, targets):
    """The attention across is that of transformers."""
    for i, (source, target) in enumerate(zip(sources, targets, strict=True)):
        alpha = crossing(seed, tuple(source), tuple(target)).mean(-2)
        np.testing.assert_allclose(found["cross"]["importance"][i][..., : len(source)], alpha, atol=2e-5)


def same(one, other):
    for name in one:
        assert set(one[name]) == set(other[name])
        for key in one[name]:
            np.testing.assert_allclose(one[name][key], other[name][key], rtol=1e-4, atol=1e-5)


@row(PAIRS, "model", 0, 1, "attention across is that model's own")
def model(first, second):
    for seed in (first, second):
        hears(analyzed(seed), seed, SOURCES, TARGETS)


@row(PAIRS, "inputs", SOURCES, SOURCES[::-1], "what the encoder read, in that order")
def inputs(first, second):
    for sources in (first, second):
        found = analyzed(inputs=sources)
        hears(found, 0, sources, TARGETS)
        assert found["encoder"]["length"].values.tolist() == [len(ids) for ids in sources]


@row(PAIRS, "targets", TARGETS, TARGETS[::-1], "what the decoder was shown, in that order")
def targets(first, second):
    for shown in (first, second):
        found = analyzed(targets=shown)
        hears(found, 0, SOURCES, shown)
        assert found["decoder"]["length"].values.tolist() == [len(ids) for ids in shown]


class Letters:
    """Tokenizer of one id a letter, a = 10, which puts 1 behind a sequence."""

    def __call__(self, text, add_special_tokens=True, verbose=True):
        ids = [ord(letter) - 87 for letter in text]
        return {"input_ids": [*ids, 1] if add_special_tokens else ids}


@row(PAIRS, "tokenizer", None, Letters(), "text for the encoder as it is, for the decoder moved behind its start token")
def tokenizer(first, second):
    from tests import checkpoint_models

    model = checkpoint_models.t5(decoder_start_token_id=0)
    found = analyzed(model, ["abc"], ["cab"], tokenizer=second)
    same(found, analyzed(model, [[10, 11, 12, 1]], [[0, 12, 10, 11]]))
    with pytest.raises(ValueError, match="tokenizer"):
        analyzed(model, ["abc"], ["cab"], tokenizer=first)
    with pytest.raises(ValueError, match="names no decoder_start_token_id"):
        analyzed(0, ["abc"], ["cab"], tokenizer=second)


@row(PAIRS, "eps", (0.1, 0.2, 0.3, 0.5), (0.05, 0.12), "per cent of pairs whose first source receives more")
def eps(first, second):
    alpha = np.stack([crossing(0, tuple(s), tuple(t)).mean(-2)[..., 0] for s, t in zip(SOURCES, TARGETS, strict=True)])
    for thresholds in (first, second):
        rates = analyzed(eps=thresholds)["cross"]["sink_rate"].sel(which="first")
        np.testing.assert_allclose(rates, 100 * (alpha[..., None] > np.array(thresholds)).mean(0))


@row(PAIRS, "radii", (0.5, 1.0), (0.1, 1.9), "clusters of both stacks are counted at these chords")
def radii(first, second):
    for chords in (first, second):
        found = analyzed(radii=chords)
        for name in ("encoder", "decoder"):
            assert found[name]["radius"].values.tolist() == list(chords)
    assert (analyzed(radii=second)["encoder"]["clusters"][..., -1] == 1).all()  # no chord is longer than 2


@row(PAIRS, "min_queries", 8, 1, "keys of the decoder with fewer queries are no strongest key")
def min_queries(first, second):
    keys = analyzed(min_queries=first)["decoder"]["strongest_key"]
    assert (keys[0] <= 9 - first).all()
    assert (keys[1] == -1).all()  # three tokens
    assert (analyzed(min_queries=second)["decoder"]["strongest_key"] >= 0).all()


@row(PAIRS, "measures", "default", ("entropy", "cka"), "those of both stacks; what is left has the same numbers")
def measures(first, second):
    whole, some = analyzed(measures=first), analyzed(measures=second)
    for name in ("encoder", "decoder"):
        assert {"entropy", "cka"} <= set(some[name])
        assert "residual" not in some[name]
        np.testing.assert_allclose(some[name]["entropy"], whole[name]["entropy"])
        assert "cka" not in whole[name]


@row(PAIRS, "batch_size", 8, 1, "pairs one by one or together: the same numbers")
def batch_size(first, second):
    sources, shown = [SOURCES[0], SOURCES[0][::-1], SOURCES[1]], [TARGETS[0], TARGETS[0][::-1], TARGETS[1]]
    same(*(analyzed(0, sources, shown, batch_size=size) for size in (first, second)))


@row(PAIRS, "progress", False, None, "a function is told of the pairs that are done")
def progress(first, second):
    told = []
    analyzed(progress=lambda *numbers: told.append(numbers))
    assert told == [(1, 2), (2, 2)]
    for nobody in (first, second):
        analyzed(progress=nobody)
    assert len(told) == 2
