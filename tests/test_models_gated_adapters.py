"""Adapters of gated models: what trains, an exact reload, the published names, and bases that are refused."""

from __future__ import annotations

import copy
import subprocess
import sys

import pytest
import torch

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments  # noqa: E402

import krause_dynamics as kd  # noqa: E402
from krause_dynamics.models import add_krause_branch, load_adapter, lora_config  # noqa: E402
from tests.model_sizes import gated_base, words  # noqa: E402

SETTINGS = {"window": 6, "top_k": 3, "sigma": 1.5}


def trained(settings=SETTINGS, family="llama", steps=8):
    """An adapter after a few steps, and the losses before them."""
    torch.manual_seed(0)
    base = add_krause_branch(gated_base(family).float(), **settings)
    model = peft.get_peft_model(base, lora_config(base, rank=4, alpha=8))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=0.02)
    x, losses = words(12), []
    for _ in range(steps):
        loss = model(x, labels=x).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.eval(), losses


@pytest.mark.parametrize("projections", ["pretrained", "fresh"])
def test_both_branches_learn_and_the_adapter_reloads_exactly(tmp_path, projections):
    model, losses = trained({**SETTINGS, "projections": projections})
    assert losses[-1] < 0.9 * losses[0]
    moved = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for part in ("q_proj.lora_B", "o_proj_krause", "gate_proj_krause", "log_sigma", "down_proj.lora_B"):
        assert any(part in name for name in moved), part
    sigma = model.base_model.model.model.layers[0].self_attn.sigma
    assert (sigma - 1.5).abs().min() > 1e-3
    model.save_pretrained(tmp_path)
    torch.manual_seed(7)  # what is not in the adapter must not depend on a draw
    back = load_adapter(gated_base("llama").float(), tmp_path)
    assert torch.equal(back(words(12)).logits, model(words(12)).logits)
    assert not any(p.requires_grad for p in back.parameters())
    again = load_adapter(add_krause_branch(gated_base("llama").float(), **back.config.krause_branch), tmp_path,
                         trainable=True)  # fmt: skip
    assert {n for n, p in again.named_parameters() if p.requires_grad} == set(moved)


def test_published_names_load_and_what_they_lack_is_asked_for(tmp_path):
    """No settings, no sample of the base, log sigma of shape (H, 1, 1), gate whole."""
    model, _ = trained(family="qwen2", steps=3)
    config = model.peft_config["default"]
    config.auto_mapping, config.modules_to_save = None, ["gate_proj_krause"]
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    held = load_file(path)
    for i, layer in enumerate(model.base_model.model.model.layers):
        held.pop(f"base_model.model.model.layers.{i}.self_attn.log_sigma.weight", None)
        held[f"base_model.model.model.layers.{i}.self_attn.log_sigma"] = layer.self_attn.log_sigma.weight.reshape(
            -1, 1, 1
        )
    save_file({name: value.contiguous() for name, value in held.items()}, path)
    with pytest.raises(ValueError, match="sigma, top_k, window"):
        load_adapter(gated_base("qwen2").float(), tmp_path)
    back = load_adapter(gated_base("qwen2").float(), tmp_path, **SETTINGS)
    assert torch.equal(back(words(12)).logits, model(words(12)).logits)


def test_an_adapter_of_another_base_is_refused_and_the_base_left_alone(tmp_path):
    model, _ = trained(steps=1)
    model.save_pretrained(tmp_path / "gated")
    other = gated_base("llama", seed=5).float()
    kind = type(other)
    with pytest.raises(ValueError, match="another base"):
        load_adapter(other, tmp_path / "gated")
    with pytest.raises(ValueError, match="another base"):
        load_adapter(gated_base("llama", wider=2).float(), tmp_path / "gated")
    with pytest.raises(ValueError, match="window of the Krause branch is 6"):
        load_adapter(gated_base("llama").float(), tmp_path / "gated", window=9)
    assert type(other) is kind
    load_adapter(gated_base("llama").bfloat16(), tmp_path / "gated")  # the same base in another precision
    plain = peft.get_peft_model(copy.deepcopy(other), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    plain.save_pretrained(tmp_path / "plain")
    with pytest.raises(ValueError, match="no weights of a Krause branch"):
        load_adapter(other, tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="adapter_config"):
        load_adapter(other, tmp_path)
    with pytest.raises(TypeError, match="add_krause_branch"):
        lora_config(other)


def test_the_trainer_of_transformers_trains_and_resumes_an_adapter(tmp_path):
    """Four steps at once are two, a stop and two more, bit for bit."""

    def run(folder, steps, resume=None):
        torch.manual_seed(0)
        base = add_krause_branch(gated_base("llama").float(), **SETTINGS)
        model = peft.get_peft_model(base, lora_config(base, rank=2))
        data = [{"input_ids": row, "labels": row} for row in words(10, batch=8)]
        arguments = TrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=4, save_steps=2, use_cpu=True,
            learning_rate=0.01, lr_scheduler_type="constant", report_to=[], disable_tqdm=True, logging_steps=1,
        )  # fmt: skip
        trainer = Trainer(model, arguments, train_dataset=data)
        trainer.train(resume_from_checkpoint=resume)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        return {n: p.detach() for n, p in model.named_parameters()}, losses

    whole, losses = run(tmp_path / "whole", 4)
    assert losses[-1] < losses[0]
    run(tmp_path / "parts", 2)
    parts, _ = run(tmp_path / "parts", 4, resume=str(tmp_path / "parts" / "checkpoint-2"))
    assert all(torch.equal(parts[name], whole[name]) for name in whole)


def three_ways(base, folder):
    """How users load an adapter without asking this package."""

    def by_auto():
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def in_place():
        model = base()
        model.load_adapter(str(folder))
        return model

    return [lambda: peft.PeftModel.from_pretrained(base(), folder), in_place, by_auto]


@pytest.mark.parametrize("projections", ["pretrained", "fresh"])
def test_peft_alone_gives_the_base_the_branch_of_the_adapter(tmp_path, projections):
    model, _ = trained({**SETTINGS, "projections": projections}, steps=3)
    gated_base("llama").float().save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    expected = model(words(12)).logits
    torch.manual_seed(7)
    for load in three_ways(lambda: gated_base("llama").float(), tmp_path / "adapter"):
        assert torch.equal(load().eval()(words(12)).logits, expected)
    two = peft.PeftModel.from_pretrained(gated_base("llama").float(), tmp_path / "adapter")
    two.load_adapter(tmp_path / "adapter", "second")
    two.set_adapter("second")
    assert torch.equal(two(words(12)).logits, expected)


def test_peft_alone_refuses_what_it_would_load_without_a_branch(tmp_path):
    """A published adapter, another base, weights without content, a base that has an adapter already."""
    model, _ = trained(steps=1)
    model.save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match="another base"):
        peft.PeftModel.from_pretrained(gated_base("llama", seed=5).float(), tmp_path / "ours")
    with pytest.raises(ValueError, match="low_cpu_mem_usage"):
        peft.PeftModel.from_pretrained(gated_base("llama").float(), tmp_path / "ours", low_cpu_mem_usage=True)
    plain = peft.get_peft_model(gated_base("llama").float(), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    with pytest.raises(kd.UnsupportedModel, match="add the branch to the base first"):
        plain.load_adapter(tmp_path / "ours", "second")
    wider = add_krause_branch(gated_base("llama").float(), **{**SETTINGS, "window": 9})
    with pytest.raises(ValueError, match="window of the Krause branch is 6"):
        peft.PeftModel.from_pretrained(wider, tmp_path / "ours")
    ours = model.peft_config["default"]
    published = peft.LoraConfig(r=ours.r, target_modules=ours.target_modules, modules_to_save=["gate_proj_krause"])
    published.save_pretrained(tmp_path / "ours")  # with neither settings nor a type of its own
    for load in three_ways(lambda: gated_base("llama").float(), tmp_path / "ours")[:2]:
        with pytest.raises(ValueError, match="load_adapter"):
            load()


STRANGER = """
import sys, peft, transformers
base, adapter = sys.argv[1:]
ways = [
    lambda: peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), adapter),
    lambda: transformers.AutoModelForCausalLM.from_pretrained(base).load_adapter(adapter),
    lambda: transformers.AutoModelForCausalLM.from_pretrained(adapter),
]
for way in ways:
    try:
        way()
    except KeyError as error:
        print(error)
assert "krause_dynamics" not in sys.modules
"""


def test_a_process_without_this_package_cannot_load_an_adapter(tmp_path):
    """A process of its own, since registration in this one cannot be undone."""
    model, _ = trained(steps=1)
    gated_base("llama").float().save_pretrained(tmp_path / "base")
    model.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
    model.save_pretrained(tmp_path / "adapter")
    arguments = [sys.executable, "-c", STRANGER, str(tmp_path / "base"), str(tmp_path / "adapter")]
    run = subprocess.run(arguments, check=True, capture_output=True, text=True)
    assert run.stdout.splitlines() == ["'KRAUSE_LORA: import krause_dynamics.models first'"] * 3
