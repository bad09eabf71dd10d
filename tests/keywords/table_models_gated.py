"""Gated models: the branch that is added, what is recorded of it, and its adapters."""

from __future__ import annotations

import tempfile

import pytest
import torch

from krause_dynamics.models import add_krause_branch, branch_weights, load_adapter, lora_config
from tests.keywords.row import row
from tests.model_sizes import gated_base, words

SMALL = {"window": 5, "top_k": 2, "sigma": 1.5}


@row("kd.models.add_krause_branch", "model", "llama", "qwen2", "biases of the base's projections, or zeros without any")
def model(first, second):
    part = add_krause_branch(gated_base(first)).model.layers[0].self_attn
    assert bool((part.q_proj_krause.bias == 0).all())
    part = add_krause_branch(gated_base(second)).model.layers[0].self_attn
    assert torch.equal(part.q_proj_krause.bias, part.q_proj.bias)


@row("kd.models.add_krause_branch", "settings", SMALL, {**SMALL, "gate": "closed"}, "a closed gate is the base")
@torch.no_grad()
def settings(first, second):
    x, base = words(9), gated_base("llama")(words(9)).logits
    torch.manual_seed(0)
    model = add_krause_branch(gated_base("llama"), **first)
    assert not torch.allclose(model(x).logits, base, atol=1e-6)
    assert {int((row > 0).sum()) for row in branch_weights(model, x).krause[0][0, 0]} == {1, 2}
    assert torch.equal(add_krause_branch(gated_base("llama"), **second)(x).logits, base)


@row("kd.models.branch_weights", "model", "llama", "mistral", "rows of both branches and of the gate sum to one")
def weights_of(first, second):
    for family in (first, second):
        for kind in branch_weights(add_krause_branch(gated_base(family), **SMALL), words(9)):
            assert len(kind) == 2
            for weights in kind:
                torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)), rtol=1e-5, atol=1e-6)


@row("kd.models.branch_weights", "args", (), (words(4),), "the tokens, by position or by name")
@row("kd.models.branch_weights", "inputs", {"input_ids": words(4)}, {}, "the tokens, by position or by name")
def inputs(first, second):
    model = add_krause_branch(gated_base("llama"), **SMALL)
    found = [
        branch_weights(model, *(x if isinstance(x, tuple) else ()), **(x if isinstance(x, dict) else {}))
        for x in (first, second)
        if x
    ]
    assert torch.equal(found[0].krause[1], branch_weights(model, input_ids=words(4)).krause[1])


def configured(**options):
    return lora_config(add_krause_branch(gated_base("llama"), **SMALL), **options)


@row("kd.models.lora_config", "model", "pretrained", "fresh", "projections that no base has are saved whole")
def lora_model(first, second):
    for projections, whole in ((first, False), (second, True)):
        config = lora_config(add_krause_branch(gated_base("llama"), **SMALL, projections=projections))
        assert ("v_proj_krause" in config.modules_to_save) is whole
        assert ("v_proj_krause" in config.target_modules) is not whole


@row("kd.models.lora_config", "rank", 8, 3, "rows of the first matrix of each update")
@row("kd.models.lora_config", "alpha", 16, 4, "scale of an update, times the rank")
@row("kd.models.lora_config", "dropout", 0.0, 0.5, "share of the inputs that an update loses")
def lora_numbers(first, second):
    import peft

    for value in (first, second):
        for name in ("rank", "alpha", "dropout"):
            if type(value) is not (float if name == "dropout" else int):
                continue
            base = add_krause_branch(gated_base("llama"), **SMALL)
            part = peft.get_peft_model(base, lora_config(base, **{name: value})).base_model.model.model.layers[0]
            layer = part.self_attn.k_proj_krause
            found = {
                "rank": lambda at=layer: at.lora_A["default"].weight.shape[0],
                "alpha": lambda at=layer: at.scaling["default"] * 8,
                "dropout": lambda at=layer: getattr(at.lora_dropout["default"], "p", 0.0),
            }[name]()
            assert found == value


@row("kd.models.lora_config", "rest", {}, {"use_rslora": True}, "arguments of peft go on to it")
def lora_rest(first, second):
    assert configured(**first).use_rslora is False
    assert configured(**second).use_rslora is True


def saved(folder):
    """An adapter whose updates are not zero; the logits with it."""
    import peft

    torch.manual_seed(1)
    base = add_krause_branch(gated_base("llama"), **SMALL)
    model = peft.get_peft_model(base, lora_config(base, rank=2)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    return model(words(9)).logits


@row("kd.models.load_adapter", "base", 0, 4, "the model as it was saved, and another base is refused")
@row("kd.models.load_adapter", "path", "adapter", "nothing", "a folder of an adapter, or an error")
@row("kd.models.load_adapter", "trainable", False, True, "whether the updates go on to train")
@row("kd.models.load_adapter", "settings", {}, {"window": 7}, "they come from the adapter and may not contradict it")
def load(first, second):
    with tempfile.TemporaryDirectory() as folder:
        expected = saved(f"{folder}/adapter")
        path = f"{folder}/adapter"
        back = load_adapter(gated_base("llama"), path)
        torch.testing.assert_close(back(words(9)).logits, expected, rtol=1e-5, atol=1e-6)
        if second is True:
            for value in (first, second):
                model = load_adapter(gated_base("llama"), path, trainable=value)
                assert any(p.requires_grad for p in model.parameters()) is value
        elif second == "nothing":
            with pytest.raises(FileNotFoundError, match=second):
                load_adapter(gated_base("llama"), f"{folder}/{second}")
        elif second == {"window": 7}:
            with pytest.raises(ValueError, match="window"):
                load_adapter(gated_base("llama"), path, **second)
        else:
            with pytest.raises(ValueError, match="another base"):
                load_adapter(gated_base("llama", seed=second), path)
