"""Decoders: what is written of them as formulas, decoding, causality, padding, saving, and what they refuse."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

transformers = pytest.importorskip("transformers")

from krause_dynamics.models import KARM, KARMConfig, KrauseLM, KrauseLMConfig  # noqa: E402
from krause_dynamics.models.linear import causal_linear, features  # noqa: E402
from tests.model_sizes import PICTURES, WORDS, seeded, words  # noqa: E402

ARMS = {
    "Krause": {},
    "softmax": {"score": "dot", "support": "full"},
    "learned temperature": {"score": "dot+temperature", "support": "window", "sigma_per_head": True},
    "linear": {"score": "linear", "support": "full"},
    "gated": {"gate": True, "sigma": 1.5},
    "post-norm": {"norm": "post", "support": "top_k"},
}


@pytest.fixture(params=list(ARMS))
def model(request):
    return seeded(KrauseLM, KrauseLMConfig(**{**WORDS, **ARMS[request.param]}))


@torch.no_grad()
def test_decoding_in_any_portions_equals_the_full_pass(model):
    x = words()
    full = model(x).logits
    for portions in ([1] * 30, [13, 1, 1, 15]):
        cache, parts = model.new_cache(), x.split(portions, 1)
        logits = torch.cat([model(part, past_key_values=cache).logits for part in parts], 1)
        torch.testing.assert_close(logits, full, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_no_token_feels_a_later_one(model):
    x = words()
    changed = x.clone()
    changed[:, 20] = (changed[:, 20] + 1) % 23
    difference = (model(x).logits - model(changed).logits).abs().amax((0, 2))
    assert bool((difference[:20] == 0).all())
    assert difference[20] > 0


@torch.no_grad()
def test_padding_on_the_left_changes_no_logit_and_no_generated_token(model):
    x = words(20)
    padded = torch.cat([torch.zeros(2, 5, dtype=x.dtype), x], 1)
    mask = torch.cat([torch.zeros(2, 5, dtype=x.dtype), torch.ones_like(x)], 1)
    torch.testing.assert_close(model(padded, attention_mask=mask).logits[:, 5:], model(x).logits, rtol=1e-9, atol=1e-9)
    written = model.generate(x, max_new_tokens=8, do_sample=False)
    beside = model.generate(padded, attention_mask=mask, max_new_tokens=8, do_sample=False)
    assert torch.equal(beside[:, 5:], written)


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_generation_with_the_rolling_cache_is_that_without(model, beams):
    x, options = words(7), {"max_new_tokens": 12, "do_sample": False, "num_beams": beams, "pad_token_id": 0}
    assert torch.equal(model.generate(x, **options), model.generate(x, use_cache=False, **options))


@torch.no_grad()
def test_a_saved_folder_loads_by_the_auto_classes(model, tmp_path):
    model.save_pretrained(tmp_path)
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float64)
    assert type(back) is KrauseLM
    assert torch.equal(back(words()).logits, model(words()).logits)
    half = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {p.dtype for name, p in half.named_parameters() if "log_sigma" in name} <= {torch.float32}
    assert half.head.weight.data_ptr() == half.token_embedding.weight.data_ptr(), "the head is tied"


def test_the_room_alone_teaches_the_auto_classes(tmp_path):
    seeded(KARM, KARMConfig(**PICTURES)).save_pretrained(tmp_path)
    code = (
        "import krause_dynamics.models, transformers; "
        f"print(type(transformers.AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})).__name__)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "KARM"


def test_weights_are_those_of_the_seed_and_of_the_fields_width():
    torch.manual_seed(3)
    first = KrauseLM(KrauseLMConfig(**{**WORDS, "hidden_size": 64, "gate": True, "sigma": 2.0})).state_dict()
    torch.manual_seed(3)
    second = KrauseLM(KrauseLMConfig(**{**WORDS, "hidden_size": 64, "gate": True, "sigma": 2.0})).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    weight = first["layers.0.mlp.0.weight"]
    # A normal law cut at 2 standard deviations has 0.880 of its width; 16 384 draws know it to 0.6 %.
    assert abs(weight.std() / 0.02 - 0.880) < 0.02
    assert weight.abs().max() <= 0.04
    torch.testing.assert_close(first["layers.1.attention.krause.log_sigma.weight"].exp(), torch.tensor([2.0]))
    share = first["layers.0.attention.gate.bias"].softmax(0)
    torch.testing.assert_close(share, torch.tensor([0.8, 0.2]))


def test_small_features_of_linear_attention_survive_half_precision():
    """Features near exp(-7), as trained models have them: weights are those of float64 up to rounding."""
    torch.manual_seed(0)
    x = (torch.randn(1, 2, 40, 8) - 7.0).bfloat16()
    exact = torch.nn.functional.elu(x.double()) + 1.0
    found = features(x)
    torch.testing.assert_close(found.double(), exact, rtol=2**-8, atol=0.0)  # one rounding to bfloat16
    values = torch.randn(1, 2, 40, 4)
    expected = causal_linear(exact, exact, values.double())[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(features(x), found)  # in float32 all that follows would take twice as long
        out = causal_linear(found, found, values)[0]
    torch.testing.assert_close(out.double(), expected, rtol=0.0, atol=0.05)  # five roundings of numbers of about 1


def test_linear_attention_is_its_double_sum():
    """Equation 9 of 2006.16236 term by term, over more tokens than one chunk holds, and one less than two of a size."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.rand(1, 2, 151, 3, generator=draw, dtype=torch.float64) + 0.1 for _ in range(3))
    weights = torch.einsum("bhid,bhjd->bhij", q, k).tril()
    expected = weights @ v / (weights.sum(-1, keepdim=True) + 1e-6)
    torch.testing.assert_close(causal_linear(q, k, v)[0], expected, rtol=1e-12, atol=1e-12)


def test_the_loss_is_the_cross_entropy_of_the_next_token():
    model, x = seeded(KrauseLM, KrauseLMConfig(**WORDS)), words()
    labels = x.clone()
    labels[0, 5] = -100
    log_share = model(x).logits.log_softmax(-1)[:, :-1].gather(2, x[:, 1:, None])[..., 0]
    kept = labels[:, 1:] != -100
    torch.testing.assert_close(model(x, labels=labels).loss, -log_share[kept].mean(), rtol=1e-12, atol=0)


def test_checkpointed_gradients_are_the_plain_ones():
    model, x = seeded(KrauseLM, KrauseLMConfig(**WORDS)), words()
    model.train()
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            newer = getattr(model, "activation_checkpointing_enable", None)  # the older name warns where both exist
            (newer or model.gradient_checkpointing_enable)()
        model.zero_grad()
        model(x, labels=x).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"hiden_size": 16}, "did you mean 'hidden_size'"),
        ({"hidden_size": 15}, "num_attention_heads must divide hidden_size"),
        ({"window": 0}, "window must be at least 1"),
        ({"attention_top_k": 2.0}, "attention_top_k must be an integer"),
        ({"score": "cosine"}, "score must be one of"),
        ({"support": "everyone"}, "support must be one of"),
        ({"norm": "none"}, "norm must be one of pre, post"),
        ({"dropout": 1.0}, "dropout must be a probability"),
        ({"dropout": "0.1"}, "dropout must be a probability"),
        ({"sigma": float("inf")}, "sigma must be positive"),
        ({"sigma": -1.0}, "sigma must be positive"),
        ({"initializer_range": -0.02}, "initializer_range must be positive"),
        ({"gate": "yes"}, "gate must be True or False"),
        ({"score": "linear"}, "needs support='full'"),
    ],
)
def test_a_configuration_refuses_what_no_model_can_be(change, says):
    with pytest.raises((TypeError, ValueError), match=says):
        KrauseLMConfig(**{**WORDS, **change})


def test_a_configuration_that_was_changed_is_checked_again():
    config = KrauseLMConfig(**WORDS)
    config.num_attention_heads = 3
    with pytest.raises(ValueError, match="num_attention_heads must divide hidden_size, got 3 and 16"):
        KrauseLM(config)


def test_a_picture_gives_vocabulary_and_length():
    config = KARMConfig(**{**PICTURES, "image_size": [4, 5]})
    assert (config.vocab_size, config.max_position_embeddings) == (16, 60)
    with pytest.raises(ValueError, match="max_position_embeddings follows from the picture and must be 60"):
        KARMConfig(**{**PICTURES, "image_size": (4, 5), "max_position_embeddings": 50})
    with pytest.raises(ValueError, match="image_size"):
        KARMConfig(**{**PICTURES, "image_size": 0})


def test_a_pass_refuses_what_does_not_fit():
    model, x = seeded(KrauseLM, KrauseLMConfig(**WORDS)), words()
    with pytest.raises(ValueError, match="at most max_position_embeddings = 40"):
        model(words(41))
    with pytest.raises(ValueError, match="input_ids or inputs_embeds"):
        model()
    with pytest.raises(ValueError, match="cached tokens included"):
        model(x, attention_mask=torch.ones(2, 29))
    for mask in (torch.ones(2, 30, 30), torch.ones(3, 30)):
        with pytest.raises(ValueError, match=r"attention_mask must be \(2, 30\)"):
            model(x, attention_mask=mask)
    added = torch.zeros(2, 30)
    added[0, :4] = -torch.inf  # a mask to be added hides what this one would show
    with pytest.raises(ValueError, match="1 for tokens and 0 for padding"):
        model(x, attention_mask=added)
    for given in (x[0], x.float()):
        with pytest.raises(ValueError, match="input_ids must be whole numbers"):
            model(given)
    with pytest.raises(TypeError, match="new_cache"), torch.no_grad():
        model(x, past_key_values=transformers.DynamicCache())
    with pytest.raises(ValueError, match="must hold 2 caches, one a layer, got 1"), torch.no_grad():
        model(x, past_key_values=type(model.new_cache())(model.new_cache()[:1]))
    with pytest.raises(ValueError, match="assisted generation is not supported"):
        model.generate(x, assistant_model=model, max_new_tokens=2)
    with pytest.raises(ValueError, match="passes no gradients"):
        model(x, use_cache=True)


@pytest.mark.parametrize("change", [{}, {"tie_word_embeddings": False, "head_bias": True}])
def test_a_vocabulary_grows_as_that_of_any_decoder(change, tmp_path):
    """As fine-tuning with added tokens asks for; a picture's levels do not grow."""
    model, x = seeded(KrauseLM, KrauseLMConfig(**{**WORDS, **change})), words(9)
    before, count = model(x).logits, model.config.vocab_size
    model.resize_token_embeddings(count + 5)
    torch.testing.assert_close(model(x).logits[..., :count], before)
    assert model(torch.full((1, 3), count + 4)).logits.shape == (1, 3, count + 5)
    model.save_pretrained(tmp_path)
    back = KrauseLM.from_pretrained(tmp_path)
    assert all(torch.equal(back.state_dict()[name], weight) for name, weight in model.state_dict().items())
    torch.testing.assert_close(back(x).logits, model(x).logits)
    karm = seeded(KARM, KARMConfig(**PICTURES)) if not change else None
    if karm is not None:
        with pytest.raises(ValueError, match=f"its {karm.config.levels} levels, got 300 tokens"):
            karm.resize_token_embeddings(300)
        assert karm(words(5, vocabulary=karm.config.levels)).logits.shape[-1] == karm.config.levels
