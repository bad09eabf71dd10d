"""One new token by functions of rows: the model's own answer, whatever happens to the model between two tokens."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

pytest.importorskip("transformers")

from krause_dynamics.models import KARM, KARMConfig, KrauseLM, KrauseLMConfig, decoder  # noqa: E402
from krause_dynamics.nn import attention  # noqa: E402
from tests.model_sizes import PICTURES, WORDS, seeded, words  # noqa: E402

BEFORE, AFTER = 4, 3  # tokens on either side of a change


@pytest.fixture(autouse=True)
def one_thread():
    """A few rows meet a matrix by our own loop with one thread only."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(dtype=torch.float64, **options):
    return seeded(KrauseLM, KrauseLMConfig(**{**WORDS, **options}), dtype)


@torch.no_grad()
def decode(model, change, monkeypatch, *, by_rows):
    """Logits of tokens one by one, where ``change(model)`` happens in between."""
    monkeypatch.setattr(decoder, "one_token", decoder.one_token if by_rows else lambda *_: None)
    model, x = copy.deepcopy(model), words(BEFORE + AFTER, batch=1)
    caches, logits = model.new_cache(), []
    for i in range(x.shape[1]):
        if i == BEFORE:
            assert (caches.step is not None) == by_rows
            change(model)
        logits.append(model(x[:, i : i + 1], past_key_values=caches).logits)
    return torch.cat(logits, 1)


@pytest.mark.parametrize(
    "options", [{}, {"gate": True}, {"score": "linear", "support": "full"}, {"norm": "post"}], ids=str
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@torch.no_grad()
def test_one_row_is_the_whole_pass(options, dtype):
    model, x = model_of(dtype, **options), words(batch=1)
    caches = model.new_cache()
    found = torch.cat([model(x[:, i : i + 1], past_key_values=caches).logits for i in range(30)], 1)
    whole, rounding = model(x).logits, 100 * torch.finfo(dtype).eps  # two layers of sums of 64 terms
    torch.testing.assert_close(found, whole, rtol=rounding, atol=rounding * float(whole.abs().max()))


def _set(module, name, factor):
    setattr(module, name, torch.nn.Parameter(factor * getattr(module, name).detach(), requires_grad=False))


class Twice(torch.nn.Linear):
    """A layer of another type."""

    def forward(self, x):
        return 2.0 * super().forward(x)


def _replaced(model):
    layer = model.layers[0].attention
    other = Twice(16, 16).double()
    other.load_state_dict(layer.q_proj.state_dict())
    layer.q_proj = other


def _forward_of_the_object(model):
    part = model.layers[1].mlp[0]
    part.forward = lambda x: 1.5 * torch.nn.functional.linear(x, part.weight, part.bias)


def _other_data(model):
    weight = model.layers[0].mlp[3].weight
    weight.data = 1.5 * weight.data


CHANGES = {
    "a weight in place": lambda model: model.layers[0].attention.k_proj.weight.mul_(1.5),
    "a bandwidth in place": lambda model: model.layers[0].attention.log_sigma.weight.add_(0.5),
    "another weight": lambda model: _set(model.layers[1].norm2, "weight", 1.5),
    "a weight elsewhere": _other_data,
    "another module": _replaced,
    "another forward": _forward_of_the_object,
    "a hook on a layer": lambda model: model.layers[0].attention.v_proj.register_forward_hook(lambda m, x, y: 2.0 * y),
    "a hook before a norm": lambda model: model.layers[1].norm1.register_forward_pre_hook(lambda m, x: (2.0 * x[0],)),
    "a hook on a block": lambda model: model.layers[1].register_forward_hook(lambda m, x, y: 2.0 * y),
    "a hook on the head": lambda model: model.head.register_forward_hook(lambda m, x, y: 2.0 * y),
    "a block taken out": lambda model: model.layers.__setitem__(1, model.layers[0]),
    "another epsilon": lambda model: setattr(model.norm, "eps", 0.5),
    "another score": lambda model: setattr(model.layers[0].attention, "score", "dot"),
}


@pytest.fixture(scope="module")
def unchanged():
    """Logits of a model to which nothing happens."""
    with pytest.MonkeyPatch.context() as patch:
        return decode(model_of(), lambda _: None, patch, by_rows=True)


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_change_between_two_tokens_is_seen(name, unchanged, monkeypatch):
    model = model_of()
    with monkeypatch.context() as patch:
        expected = decode(model, CHANGES[name], patch, by_rows=False)
    found = decode(model, CHANGES[name], monkeypatch, by_rows=True)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert not torch.allclose(found[:, BEFORE:], unchanged[:, BEFORE:]), "the change matters"


@torch.no_grad()
def test_training_mode_drops_out_as_ever():
    model, x = model_of(dropout=0.9), words(12, batch=1)
    caches = model.new_cache()
    for i in range(10):
        model(x[:, i : i + 1], past_key_values=caches)
    model.train()
    logits = [model(x[:, 10:11], past_key_values=copy.deepcopy(caches)).logits for _ in range(2)]
    assert not torch.allclose(*logits)


@torch.no_grad()
def test_whoever_watches_attention_is_told_of_every_token():
    model, x, told = model_of(), words(8, batch=1), []
    caches = model.new_cache()
    model(x[:, :6], past_key_values=caches)
    model(x[:, 6:7], past_key_values=caches)
    attention.WATCHERS.append(told.append)
    try:
        model(x[:, 7:8], past_key_values=caches)
    finally:
        attention.WATCHERS.pop()
    assert len(told) == 2, "one call a layer"


@torch.no_grad()
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda caches: pickle.loads(pickle.dumps(caches))])
def test_copies_of_caches_go_ways_of_their_own(copied):
    model, x = model_of(), words(12, batch=1)
    caches = model.new_cache()
    for i in range(8):
        model(x[:, i : i + 1], past_key_values=caches)
    other = copied(caches)
    for past, tokens in ((caches, x), (other, (x + 1) % 23)):
        whole = model(torch.cat([x[:, :8], tokens[:, 8:]], 1)).logits
        found = torch.cat([model(tokens[:, i : i + 1], past_key_values=past).logits for i in range(8, 12)], 1)
        torch.testing.assert_close(found, whole[:, 8:], rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_logits_of_a_token_are_not_overwritten_by_the_next():
    model, x = seeded(KARM, KARMConfig(**PICTURES)), torch.randint(16, (1, 6))
    caches = model.new_cache()
    found = [model(x[:, i : i + 1], past_key_values=caches).logits for i in range(6)]
    kept = [y.clone() for y in found]
    model(x[:, :1], past_key_values=caches)
    assert all(torch.equal(a, b) for a, b in zip(found, kept, strict=True))


@torch.no_grad()
def test_half_precision_and_autocast_call_the_modules():
    x = words(6, batch=1)
    for model, cast in ((model_of(torch.bfloat16), False), (model_of(torch.float32), True)):
        caches = model.new_cache()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            for i in range(6):
                model(x[:, i : i + 1], past_key_values=caches)
        assert caches.step is None
