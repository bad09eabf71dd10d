"""Krausified models in the tools of their trade: files, generation, compiling, checkpoints, half types, adapters."""

from __future__ import annotations

import copy
import importlib
import pickle
import subprocess
import sys

import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.errors import UnsupportedModel
from tests import checkpoint_models as models
from tests.families.table import FAMILIES, inputs
from tests.keywords.table_models_krausify import X, base, logits, parts


def krausified(layers_in_all=2, **how):
    return kd.krausify(base(layers_in_all), **{"window": 4, "top_k": (2, 3), "sigma": 1.5, **how})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A trained-looking model on disk."""
    model = krausified(sigma_per_head=True)
    with torch.no_grad():
        for part in parts(model):
            part.log_sigma.weight += torch.tensor([0.1, -0.2, 0.3, 0.4])
    path = tmp_path_factory.mktemp("krausified")
    model.save_pretrained(path)
    return path, model


def test_the_auto_classes_load_it_without_loss(folder):
    path, model = folder
    loaded = hf.AutoModelForCausalLM.from_pretrained(path)
    assert type(loaded) is type(model)
    assert type(loaded).__name__ == "KrauseLlamaForCausalLM"
    assert torch.equal(logits(loaded), logits(model))
    assert type(hf.AutoModel.from_pretrained(path)).__name__ == "KrauseLlamaModel"


@pytest.mark.slow
@pytest.mark.parametrize(("first", "loads"), [("pass", False), ("import krause_dynamics.models", True)])
def test_a_process_without_the_package_refuses_the_folder_and_one_with_it_loads(folder, first, loads):
    code = f"{first}; import transformers as hf; hf.AutoModelForCausalLM.from_pretrained({str(folder[0])!r})"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode == 0) == loads
    assert loads or "krause_llama" in run.stderr


def test_a_base_folder_in_the_krause_class_gets_the_sigma_of_the_configuration(tmp_path):
    base().save_pretrained(tmp_path)
    model = krausified(sigma=[[1.0, 2.0, 3.0, 4.0], [5.0] * 4])
    loaded = type(model).from_pretrained(tmp_path, config=copy.deepcopy(model.config))
    assert torch.equal(logits(loaded), logits(model))
    assert parts(loaded)[0].log_sigma().tolist() == pytest.approx([1.0, 2.0, 3.0, 4.0])


def test_back_from_a_folder_it_is_the_base_bit_for_bit(folder):
    model = kd.unkrausify(hf.AutoModelForCausalLM.from_pretrained(folder[0]))
    assert type(model) is hf.LlamaForCausalLM
    assert type(model.config) is hf.LlamaConfig
    assert torch.equal(logits(model), logits(base()))
    assert set(model.state_dict()) == set(base().state_dict())


def test_another_model_of_the_same_configuration_keeps_its_own():
    model = base()
    twin = hf.LlamaForCausalLM(model.config)
    kd.krausify(model, window=4)
    assert type(twin.config) is hf.LlamaConfig
    assert twin.config._attn_implementation == "sdpa"


@torch.no_grad()
@pytest.mark.parametrize("how", [{}, {"num_beams": 2}, {"cache_implementation": "static", "disable_compile": True}])
def test_generation_with_a_cache_equals_generation_without(how):
    model = krausified()
    options = {"max_new_tokens": 8, "min_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    free = model.generate(X, use_cache=False, num_beams=how.get("num_beams", 1), **options)
    assert torch.equal(model.generate(X, **options, **how), free)


def test_first_tokens_stay_visible_also_when_decoding():
    """The window has moved on, the first token is heard all the same; a window alone has forgotten it."""
    other = X.clone()
    other[:, 0] = (other[:, 0] - 3 + 7) % 47 + 3
    for prefix in (0, 1):
        model = kd.krausify(base(), window=3, prefix_tokens=prefix)
        with torch.no_grad():
            change = (model(X).logits - model(other).logits).abs().amax((0, 2))
            steps, cache = [], hf.DynamicCache()
            for i in range(12):
                steps.append(model(X[:, i : i + 1], past_key_values=cache, use_cache=True).logits)
        assert (float(change[-1]) > 0) == (prefix == 1)
        torch.testing.assert_close(torch.cat(steps, 1), logits(model), rtol=1e-4, atol=1e-5)


def test_gradients_under_checkpointing_are_the_same():
    found = []
    for checkpointed in (False, True):
        model = krausified().train()
        if checkpointed:
            model.activation_checkpointing_enable()
        model(X, labels=X, use_cache=False).loss.backward()
        found.append({name: weight.grad for name, weight in model.named_parameters()})
    for name, grad in found[0].items():
        torch.testing.assert_close(found[1][name], grad, rtol=1e-4, atol=1e-7, msg=name)


def test_bandwidths_stay_float32_in_half_precision(tmp_path):
    model = krausified().to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for each in (model, loaded):
        assert {part.log_sigma.weight.dtype for part in parts(each)} == {torch.float32}
        assert each.model.layers[0].self_attn.q_proj.weight.dtype == torch.bfloat16
    assert torch.equal(logits(loaded), logits(model))


def test_the_trainer_moves_the_bandwidths_and_saves_them(tmp_path):
    model = krausified()
    how = {"max_steps": 6, "per_device_train_batch_size": 2, "learning_rate": 0.02, "lr_scheduler_type": "constant"}
    quiet = {"report_to": [], "use_cpu": True, "logging_steps": 1, "save_steps": 6, "disable_tqdm": True, "seed": 0}
    data = [{"input_ids": x, "labels": x} for x in X]
    trainer = hf.Trainer(model, hf.TrainingArguments(str(tmp_path), **how, **quiet), train_dataset=data)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert float(losses[-1]) < float(losses[0]) - 0.5
    loaded = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-6")
    assert torch.equal(logits(loaded), logits(model.eval()))
    assert all(abs(float(part.log_sigma().detach()) - 1.5) > 1e-3 for part in parts(loaded))


def test_adapters_train_and_keep_the_bandwidths(tmp_path):
    peft = pytest.importorskip("peft")
    importlib.import_module("krause_dynamics.models")
    config = peft.LoraConfig(target_modules=["q_proj"], modules_to_save=["log_sigma"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(krausified(), config)
    moved = [weight for name, weight in model.named_parameters() if "log_sigma" in name and weight.requires_grad]
    assert len(moved) == 2
    optimiser = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=1.0)
    model(input_ids=X, labels=X).loss.backward()
    optimiser.step()
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(krausified(), tmp_path)
    torch.testing.assert_close(logits(loaded), logits(model.eval()), rtol=0, atol=0)
    with pytest.raises(ValueError, match="the base has none"):  # peft would drop the bandwidths
        peft.PeftModel.from_pretrained(base(), tmp_path)


def test_a_folder_loads_as_the_twin_that_was_asked_for_and_as_no_other(folder):
    path, model = folder
    twin = hf.AutoModelForCausalLM.from_pretrained(path, attn_implementation="krause_softmax")
    assert float((logits(twin) - logits(model)).abs().max()) > 1e-3
    twin.set_attn_implementation("krause")
    assert torch.equal(logits(twin), logits(model))
    with pytest.raises(UnsupportedModel, match="got 'eager'"):
        hf.AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")


def test_models_travel_to_other_processes():
    for model in (krausified(), models.llama()):
        model = model if hasattr(model.config, "krause") else kd.models.add_krause_branch(model, window=4, top_k=2)
        assert torch.equal(logits(pickle.loads(pickle.dumps(model))), logits(model))


def test_what_stops_halfway_leaves_the_model(monkeypatch):
    model = base()
    monkeypatch.setattr("krause_dynamics.models.krausified_classes.grow", lambda model: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        kd.krausify(model, window=4)
    assert type(model) is hf.LlamaForCausalLM
    assert torch.equal(logits(model), logits(base()))


def test_a_sigma_of_a_layer_is_one_number_or_one_a_head():
    model = kd.krausify(base(), sigma=[1.5, torch.tensor([1.0, 2.0, 3.0, 4.0])])
    assert [part.log_sigma().detach().tolist() for part in parts(model)] == [[1.5], pytest.approx([1, 2, 3, 4])]


def test_a_twin_on_the_same_keys_is_there_but_no_other_attention():
    model = krausified(top_k=None)
    model.set_attn_implementation("krause_softmax")
    with pytest.raises(UnsupportedModel, match=r"kd.unkrausify\(model\)"):
        model.set_attn_implementation("sdpa")
    wide = kd.krausify(base())
    wide.set_attn_implementation("krause_softmax")
    torch.testing.assert_close(logits(wide), logits(base()), rtol=1e-5, atol=1e-6)


def refused():
    bart = next(family for family in FAMILIES if family.name == "Bart").build("eager")
    return [
        (models.bloom(), "outside the attention registry"), (krausified(), "a Krause model already"),
        (bart, "cross-attention"),
        (hf.CLIPModel(hf.CLIPConfig(text_config={"hidden_size": 24, "num_hidden_layers": 1},
                                    vision_config={"hidden_size": 24, "num_hidden_layers": 1})), "several models"),
    ]  # fmt: skip


def test_what_cannot_be_served_is_refused_with_the_reason_and_left_alone():
    for model, reason in refused():
        kind, config = type(model), model.config
        content, names = copy.deepcopy(config.to_dict()), list(model.state_dict())
        with pytest.raises(UnsupportedModel, match=reason):
            kd.krausify(model, window=4)
        assert type(model) is kind
        assert model.config is config
        assert (config.to_dict(), list(model.state_dict())) == (content, names)


WRONG = [
    {"window": 0}, {"top_k": 0}, {"top_k": 1.5}, {"top_k": (2, None)}, {"sigma": [1.0]}, {"sigma": 0.0}, {"sigma": "1"},
    {"layers": []}, {"layers": 1.0}, {"layers": slice(9, 12)}, {"grid": 3}, {"learn_sigma": 3}, {"sigma_per_head": 1},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_bad_arguments_change_nothing(wrong):
    model = base()
    with pytest.raises((TypeError, ValueError), match="got"):
        kd.krausify(model, **wrong)
    assert type(model) is hf.LlamaForCausalLM
    assert not hasattr(model.config, "krause")
    assert torch.equal(logits(model), logits(base()))


NAMES = {"BertModel", "AlbertModel", "ViTModel", "GPT2LMHeadModel", "ModernBertModel", "Qwen3ForCausalLM"}


@torch.no_grad()
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name + f.model in NAMES], ids=lambda f: f.name + f.model)
def test_other_families_save_and_load_too(family, tmp_path):
    """Windows are centred in models that look both ways; one module that is called by all layers has one rule."""
    given = inputs(family.kind)
    model = kd.krausify(family.build("eager"), top_k=3) if family.kind == "picture" else kd.krausify(
        family.build("eager"), window=5
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    auto = hf.AutoModelForCausalLM if family.kind == "text" else hf.AutoModel
    loaded = auto.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    torch.testing.assert_close(loaded(**given)[0], model(**given)[0], rtol=0, atol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["Bert", "LayoutLM", "Splinter"])
def test_a_window_of_an_encoder_is_centred_though_its_layers_do_not_say_what_they_are(name):
    """Two layers of 3 keys: token 10 is felt two places around, on both sides."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    config = getattr(hf, f"{name}Config")(**sizes, num_attention_heads=4, pad_token_id=0)
    model = kd.krausify(getattr(hf, f"{name}Model")(config).eval(), window=3)
    x = torch.arange(20)[None] + 3
    changed = x.clone()
    changed[0, 10] = 40
    felt = (model(x).last_hidden_state != model(changed).last_hidden_state).any(-1)[0]
    assert felt.nonzero()[:, 0].tolist() == [8, 9, 10, 11, 12]


@torch.no_grad()
def test_a_window_of_a_text_tower_is_of_the_past_though_its_layers_are_those_of_pictures():
    """Two layers of 3 keys under a causal mask: token 10 is felt by the four after it; centred ones felt two."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
    model = hf.CLIPTextModel(hf.CLIPTextConfig(**sizes, num_attention_heads=4)).eval()
    kd.krausify(model, window=3)
    x = torch.arange(20)[None] + 3
    changed = x.clone()
    changed[0, 10] = 40
    felt = (model(x).last_hidden_state != model(changed).last_hidden_state).any(-1)[0]
    assert felt.nonzero()[:, 0].tolist() == [10, 11, 12, 13, 14]


def test_the_dimension_of_heads_is_found_wherever_it_stands():
    """At the attention module, else in the configuration, else the width by the number of heads."""
    from krause_dynamics.models.krausified_sigma import head_size

    config = hf.LlamaConfig(hidden_size=24, num_attention_heads=4, head_dim=10)
    part = torch.nn.Module()
    assert head_size(part, config) == 10
    part.attention_head_size = 5
    assert head_size(part, hf.BertConfig(hidden_size=24, num_attention_heads=4)) == 5
    assert head_size(torch.nn.Module(), hf.BertConfig(hidden_size=24, num_attention_heads=4)) == 6
