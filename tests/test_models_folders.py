"""Folders of krausified and gated models: read by their own classes alone, bit for bit, and only whole."""

from __future__ import annotations

import json

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

import krause_dynamics as kd
from krause_dynamics.errors import UnsupportedModel
from tests import model_sizes as sizes
from tests.keywords.table_models_krausify import base, logits


def krausified(dtype=torch.float32):
    return kd.krausify(base().to(dtype), window=4, top_k=2, sigma=1.7)


def gated(dtype=torch.float32):
    return kd.models.add_krause_branch(base().to(dtype), window=4, top_k=2, sigma=1.7)


@pytest.mark.parametrize("kind", [krausified, gated])
def test_in_double_precision_a_folder_is_the_model_bit_for_bit(kind, tmp_path):
    """The bandwidth too: rounded to float32 in memory and not in the folder, logits were 3e-8 apart."""
    model = kind(torch.float64)
    model.save_pretrained(tmp_path)
    assert torch.equal(logits(hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype="auto")), logits(model))


@pytest.mark.parametrize("kind", [krausified, gated])
@pytest.mark.parametrize("how", [{}, {"attn_implementation": "sdpa"}])
def test_a_class_of_transformers_does_not_leave_the_rule_out(kind, how, tmp_path):
    model = kind()
    model.save_pretrained(tmp_path)
    for other in (hf.LlamaForCausalLM, hf.Qwen2ForCausalLM):
        with pytest.raises(UnsupportedModel, match=f"this {model.config.model_type} out"):
            other.from_pretrained(tmp_path, **how)
    # Where this package is not loaded: transformers knows no attention of this name, and stops.
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["attn_implementation"] not in hf.AttentionInterface()
    config = hf.AutoConfig.from_pretrained(tmp_path)
    assert type(config) is type(model.config)
    assert config._attn_implementation is None


@pytest.mark.parametrize("kind", [krausified, gated])
def test_a_configuration_comes_back_from_its_json_without_a_folder(kind):
    """`AutoConfig.for_model` took the mark against other classes for an attention that was asked for."""
    model = kind()
    content = json.loads(model.config.to_json_string())
    for config in (hf.AutoConfig.for_model(**content), type(model.config)(**content)):
        assert type(config) is type(model.config)
        assert config.to_dict() == model.config.to_dict()
        twin = hf.AutoModelForCausalLM.from_config(config).eval()
        twin.load_state_dict(model.state_dict())
        assert torch.equal(logits(twin), logits(model))


@pytest.mark.parametrize("name", ["KrauseLM", "KARM", "KrauseViT", "KrauseSwin"])
def test_a_configuration_takes_what_it_writes(name):
    small = {"KrauseLM": sizes.WORDS, "KARM": sizes.PICTURES, "KrauseViT": sizes.PATCHES, "KrauseSwin": sizes.WINDOWS}
    kind = getattr(kd.models, f"{name}Config")
    config = kind(**small[name])
    assert kind(**config.to_dict()).to_dict() == config.to_dict()
    assert kind(**json.loads(config.to_json_string())).to_dict() == config.to_dict()
    with pytest.raises(ValueError, match="unknown"):
        kind(**config.to_dict(), windows=3)


def without(folder, *ends):
    weights = load_file(folder / "model.safetensors")
    kept = {name: x for name, x in weights.items() if not name.endswith(ends)}
    assert 0 < len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("lost", ["layers.0.self_attn.log_sigma.weight", "layers.1.self_attn.q_proj.weight"])
@pytest.mark.parametrize("kind", [krausified, gated])
def test_files_that_lack_a_part_of_the_attention_are_refused(kind, lost, tmp_path):
    kind().save_pretrained(tmp_path)
    without(tmp_path, lost)
    with pytest.raises(ValueError, match=f"lack 1 weights of this model, such as model.{lost}"):
        hf.AutoModelForCausalLM.from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["KrauseLM", "KARM", "KrauseViT", "KrauseSwin"])
def test_files_that_lack_a_bandwidth_of_a_model_are_refused(name, tmp_path):
    small = {"KrauseLM": sizes.WORDS, "KARM": sizes.PICTURES, "KrauseViT": sizes.PATCHES, "KrauseSwin": sizes.WINDOWS}
    kind = getattr(kd.models, name)
    kind(getattr(kd.models, f"{name}Config")(**small[name])).save_pretrained(tmp_path)
    without(tmp_path, "log_sigma.weight")
    with pytest.raises(ValueError, match="weights of this model, such as .*log_sigma"):
        kind.from_pretrained(tmp_path)


def test_a_temperature_that_is_fixed_is_not_trained_after_loading(tmp_path):
    """transformers makes all that it fills trainable: softmax twins learned a temperature."""
    for name, score in (("fixed", "dot"), ("free", "dot+temperature")):
        model = kd.models.KrauseLM(kd.models.KrauseLMConfig(**{**sizes.WORDS, "score": score}))
        model.save_pretrained(tmp_path / name)
        expected = {key: w.requires_grad for key, w in model.named_parameters()}
        loaded = kd.models.KrauseLM.from_pretrained(tmp_path / name)
        assert {key: w.requires_grad for key, w in loaded.named_parameters()} == expected
        assert all(learned == (name == "free") for key, learned in expected.items() if "log_sigma" in key)


def test_a_head_of_other_classes_starts_afresh_where_that_is_asked_for(tmp_path):
    model = kd.models.KrauseViT(kd.models.KrauseViTConfig(**sizes.PATCHES))
    model.save_pretrained(tmp_path)
    other = kd.models.KrauseViT.from_pretrained(tmp_path, num_labels=7, ignore_mismatched_sizes=True)
    assert other.config.num_labels == 7
    kept = {name for name, x in other.state_dict().items() if torch.equal(x, model.state_dict().get(name, x[:0]))}
    assert set(model.state_dict()) - kept <= {"head.weight", "head.bias"}
