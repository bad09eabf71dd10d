"""Keys of decoders: each against a count of weights, a closed form, or another model."""

from __future__ import annotations

from math import prod

import pytest
import torch

from krause_dynamics.models import KARMConfig, KrauseLM, KrauseLMConfig
from tests.keywords.model_kinds import CLOSE, DECODERS, each, logits, size
from tests.keywords.row import row
from tests.model_sizes import PICTURES, WORDS, seeded, words


@row("kd.models.KrauseLMConfig", "vocab_size", 5, 23, "so many logits, and no other token")
def vocab_size(first, second):
    for value in (first, second):
        model = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, "vocab_size": value}))
        assert logits(model, words(4, vocabulary=value)).shape == (2, 4, value)
        with pytest.raises(IndexError):
            model(torch.tensor([[value]]))


@row("kd.models.KrauseLMConfig", "max_position_embeddings", 4, 9, "so many tokens fit, and one more does not")
def max_position_embeddings(first, second):
    for value in (first, second):
        model = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, "max_position_embeddings": value}))
        assert logits(model, words(value)).shape[1] == value
        with pytest.raises(ValueError, match="max_position_embeddings"):
            model(words(value + 1))


@row("kd.models.KARMConfig", "vocab_size", None, 16, "follows from the levels")
@row("kd.models.KARMConfig", "max_position_embeddings", None, 48, "follows from the picture")
def follows(first, second):
    config = KARMConfig(**PICTURES, vocab_size=16, max_position_embeddings=48)
    assert config.to_dict() == KARMConfig(**PICTURES).to_dict()
    assert second in (config.vocab_size, config.max_position_embeddings)
    for name in ("vocab_size", "max_position_embeddings"):
        with pytest.raises(ValueError, match=name):
            KARMConfig(**PICTURES, **{name: second + 1})


@row("kd.models.KARMConfig", "image_size", 4, (3, 5), "height and width; their product with the channels is the length")
def image_size(first, second):
    for value, picture in ((first, (4, 4, 3)), (second, (3, 5, 3))):
        config = KARMConfig(**{**PICTURES, "image_size": value})
        assert config.picture == picture
        assert config.max_position_embeddings == prod(picture)


@row("kd.models.KARMConfig", "num_channels", 1, 3, "so many tokens a pixel")
def num_channels(first, second):
    lengths = [KARMConfig(**{**PICTURES, "num_channels": n}).max_position_embeddings for n in (first, second)]
    assert lengths == [16 * first, 16 * second]


@row("kd.models.KARMConfig", "levels", 2, 16, "the vocabulary")
def levels(first, second):
    for value in (first, second):
        assert KARMConfig(**{**PICTURES, "levels": value}).vocab_size == value


@each(
    DECODERS, "gate", False, True, "a gate that is shut leaves the Krause branch, one that is open the softmax branch"
)
def gate(build, first, second):
    plain = build(gate=first)
    model = build(gate=second)
    kept = {k: v for k, v in plain.state_dict().items() if ".attention." not in k}
    for branch, open_to in (("krause", (-200.0, 0.0)), ("softmax", (200.0, 0.0))):
        alone = plain if branch == "krause" else build(gate=first, score="dot", support="full")
        state = {k.replace(".attention.", f".attention.{branch}."): v for k, v in alone.state_dict().items()}
        model.load_state_dict({**state, **kept}, strict=False)
        alone.load_state_dict(kept, strict=False)
        with torch.no_grad():
            for layer in model.layers:
                layer.attention.gate.weight.zero_()
                layer.attention.gate.bias.copy_(torch.tensor(open_to))
        torch.testing.assert_close(logits(model), logits(alone), **CLOSE)


@each(DECODERS, "head_bias", False, True, "a bias that is added to all logits")
def head_bias(build, first, second):
    assert build(head_bias=first).head.bias is None
    model = build(head_bias=second)
    before = logits(model)
    with torch.no_grad():
        model.head.bias += 1.5
    torch.testing.assert_close(logits(model), before + 1.5, **CLOSE)


@each(DECODERS, "tie_word_embeddings", False, True, "the head is the table of tokens, or a matrix of its own")
def tie_word_embeddings(build, first, second):
    models = [build(tie_word_embeddings=value) for value in (first, second)]
    assert models[1].head.weight is models[1].token_embedding.weight
    assert size(models[0]) - size(models[1]) == models[0].head.weight.numel()


@each(DECODERS, "eos_token_id", None, 3, "generation stops there")
def eos_token_id(build, first, second):
    assert build(eos_token_id=first).generation_config.eos_token_id is None
    model = build(eos_token_id=second, head_bias=True, tie_word_embeddings=False)
    with torch.no_grad():
        model.head.bias[second] += 1e6
    assert model.generate(words(3, vocabulary=16), max_new_tokens=9, do_sample=False).shape[1] == 4


@each(DECODERS, "bos_token_id", None, 2, "generation without a prompt begins with it")
def bos_token_id(build, first, second):
    assert build(bos_token_id=first).generation_config.bos_token_id is None
    assert build(bos_token_id=second).generate(max_new_tokens=2, do_sample=False)[0, 0] == second


@each(DECODERS, "pad_token_id", None, 5, "a row that has ended is filled with it")
def pad_token_id(build, first, second):
    assert build(pad_token_id=first).generation_config.pad_token_id is None
    model = build(pad_token_id=second, head_bias=True, tie_word_embeddings=False)
    x = words(3, vocabulary=16)
    free = model.generate(x, max_new_tokens=6, do_sample=False)
    end = int(free[0, 3])
    rows = model.generate(x, max_new_tokens=6, do_sample=False, eos_token_id=end)
    assert (rows[0, 4:] == second).all()


@each(DECODERS, "use_cache", True, False, "generation asks for a cache, or not; the tokens are the same")
def use_cache(build, first, second):
    texts = []
    for value in (first, second):
        model = build(use_cache=value)
        out = model.generate(words(3, vocabulary=16), max_new_tokens=5, do_sample=False, return_dict_in_generate=True)
        assert (out.past_key_values is not None) == value
        texts.append(out.sequences)
    assert torch.equal(*texts)
