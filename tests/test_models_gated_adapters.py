"""Adapters of gated models: what trains, an exact reload, the published names, and bases that are refused."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import Trainer, TrainingArguments  # noqa: E402

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
