"""Families that use the attention registry in a part of them, and models of which a part was krausified."""

from __future__ import annotations

import warnings

import pytest
import torch

import krause_dynamics as kd
import krause_dynamics.nn  # noqa: F401  the names of the attention
from krause_dynamics.errors import UnsupportedModel

hf = pytest.importorskip("transformers")

STACKS = {
    "vocab_size": 60, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 40, "decoder_ffn_dim": 40,
}  # fmt: skip
TEXT = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}
PICTURE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4,
           "image_size": 16, "patch_size": 8}  # fmt: skip


def mixed(name):
    """Configurations of families whose encoder, or whose text, attends with code of its own."""
    sizes = {
        "LongT5": {"vocab_size": 60, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4},
        "Informer": {**STACKS, "prediction_length": 4, "context_length": 8, "lags_sequence": [1]},
        "MaskFormer": {},
        "SamVision": {**PICTURE, "output_channels": 8, "global_attn_indexes": [0]},
        "Git": {**TEXT, "vision_config": PICTURE, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    }
    return getattr(hf, f"{name}Config")(**sizes.get(name, STACKS))


MIXED = {
    "BigBirdPegasus": "BigBirdPegasusBlockSparseAttention", "PegasusX": "PegasusXGlobalLocalAttention",
    "LongT5": "LongT5LocalAttention", "Informer": "InformerProbSparseAttention", "Git": "GIT_SELF_ATTENTION_CLASSES",
    "MaskFormer": "MaskFormerSwinSelfAttention", "SamVision": "SAM_VISION_ATTENTION_CLASSES",
}  # fmt: skip


@pytest.mark.parametrize(("name", "part"), MIXED.items())
def test_a_family_that_runs_the_rule_in_a_part_of_it_is_refused_with_the_other_part_named(name, part):
    """The other part would go on with softmax; that of BigBird-Pegasus also added our mask, of booleans, to scores."""
    kind = getattr(hf, f"{name}Model")
    with torch.device("meta"), pytest.raises(UnsupportedModel, match=part):
        kind._from_config(mixed(name), attn_implementation="krause")
    with torch.device("meta"):
        model = kind._from_config(mixed(name), attn_implementation="eager")
    with pytest.raises(UnsupportedModel, match="attention code of its own"):
        model.set_attn_implementation("krause_softmax")
    assert {part.config._attn_implementation for part in model.modules() if hasattr(part, "config")} <= {"eager", None}


def reader():
    """A model that reads pictures, its text part first."""
    torch.manual_seed(0)
    config = hf.LlavaConfig(text_config=hf.LlamaConfig(**TEXT), vision_config=hf.CLIPVisionConfig(**PICTURE))
    model = hf.LlavaForConditionalGeneration(config).eval()
    return model, torch.arange(3, 15)[None]


@torch.no_grad()
def test_a_krausified_part_keeps_its_rule_whatever_the_model_around_it_is_set_to():
    """Set to sdpa as a whole it dropped the rule without a word."""
    model, x = reader()
    softmax = model(input_ids=x).logits
    kd.krausify(model.model.language_model, window=3, sigma=1.5)
    heard = model(input_ids=x).logits
    assert float((heard - softmax).abs().max()) > 1e-3
    with pytest.raises(UnsupportedModel, match="holds a KrauseLlamaModel"):
        model.set_attn_implementation("sdpa")
    assert torch.equal(model(input_ids=x).logits, heard)
    model.set_attn_implementation({"vision_config": "eager"})
    assert model.model.vision_tower.config._attn_implementation == "eager"
    assert torch.equal(model(input_ids=x).logits, heard)
    how = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(input_ids=x, **how), model.generate(input_ids=x, use_cache=False, **how))
    kd.unkrausify(model.model.language_model)
    model.set_attn_implementation("sdpa")
    torch.testing.assert_close(model(input_ids=x).logits, softmax, rtol=1e-5, atol=1e-6)


def written(model, path):
    """The model as any process reads it, through the Auto classes; the model that was saved is what it was."""
    kind, config = type(model), model.config
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        model.save_pretrained(path)
    assert type(model) is kind
    assert model.config is config
    auto = hf.AutoModelForImageTextToText if hasattr(model, "generate") else hf.AutoModel
    return (hf.AutoModelForCausalLM if isinstance(model, hf.LlamaForCausalLM) else auto).from_pretrained(path).eval()


@torch.no_grad()
def test_krausified_parts_of_a_model_are_saved_and_loaded_with_it(tmp_path):
    """They were saved with a warning and came back as softmax."""
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    model = hf.CLIPModel(hf.CLIPConfig(text_config={**TEXT, **special}, vision_config=PICTURE)).eval()
    given = {"input_ids": torch.arange(3, 12)[None], "pixel_values": torch.randn(1, 3, 16, 16)}
    softmax = model(**given).logits_per_image
    kd.krausify(model.text_model, window=3, sigma=1.3)
    kd.krausify(model.vision_model, top_k=2, learn_sigma=False)
    heard = model(**given).logits_per_image
    assert float((heard - softmax).abs().max()) > 1e-4
    loaded = written(model, tmp_path / "one")
    # The same weights elsewhere in memory: products round differently.
    torch.testing.assert_close(loaded(**given).logits_per_image, heard, rtol=1e-5, atol=2e-6)
    learned = {name: w.requires_grad for name, w in loaded.named_parameters() if "log_sigma" in name}
    assert sorted(learned.values()) == [False, True, True]
    with pytest.raises(UnsupportedModel, match="Auto classes"):
        hf.CLIPModel.from_pretrained(tmp_path / "one")
    kd.unkrausify(loaded.text_model)
    half = written(loaded, tmp_path / "two")
    assert type(half.text_model) is hf.CLIPTextModel
    kd.unkrausify(half.vision_model)
    none = written(half, tmp_path / "three")
    assert type(none) is hf.CLIPModel
    torch.testing.assert_close(none(**given).logits_per_image, softmax, rtol=1e-5, atol=2e-6)


@torch.no_grad()
def test_parts_under_a_head_and_heads_over_a_part_are_found_by_either_class(tmp_path):
    model, x = reader()
    kd.krausify(model.model.language_model, window=3, sigma=1.5)
    heard = model(input_ids=x).logits
    loaded = written(model, tmp_path / "reader")
    torch.testing.assert_close(loaded(input_ids=x).logits, heard, rtol=1e-5, atol=2e-6)
    base = hf.AutoModel.from_pretrained(tmp_path / "reader")  # its part has a shorter name
    torch.testing.assert_close(loaded.lm_head(base(input_ids=x)[0]), heard, rtol=1e-5, atol=2e-6)
    whole = hf.LlamaForCausalLM(hf.LlamaConfig(**TEXT)).eval()
    kd.krausify(whole.model, window=3)
    torch.testing.assert_close(
        written(whole, tmp_path / "whole")(input_ids=x).logits, whole(input_ids=x).logits, rtol=1e-5, atol=2e-6
    )


@torch.no_grad()
def test_modules_that_hold_a_copy_of_the_configuration_hear_of_the_rule(tmp_path):
    """This model replaces its encoder's configuration by an equal one: its layers went on with softmax."""
    torch.manual_seed(0)
    words = hf.GPT2Config(vocab_size=60, n_embd=32, n_layer=1, n_head=4, add_cross_attention=True, eos_token_id=1,
                          bos_token_id=1)  # fmt: skip
    encoder, decoder = hf.ViTModel(hf.ViTConfig(**PICTURE)), hf.GPT2LMHeadModel(words)
    model = hf.VisionEncoderDecoderModel(encoder=encoder, decoder=decoder).eval()
    given = {"pixel_values": torch.randn(1, 3, 16, 16), "decoder_input_ids": torch.arange(3, 12)[None]}
    softmax = model(**given).logits
    with pytest.raises(UnsupportedModel, match=r"ViTAttention in ViTModel holds another configuration"):
        model.set_attn_implementation("krause")
    assert torch.equal(model(**given).logits, softmax)
    kd.krausify(model.encoder, top_k=2)
    heard = model(**given).logits
    assert float((heard - softmax).abs().max()) > 1e-4
    torch.testing.assert_close(written(model, tmp_path)(**given).logits, heard, rtol=1e-5, atol=2e-6)
    kd.unkrausify(model.encoder)
    assert torch.equal(model(**given).logits, softmax)


def test_a_decoder_with_a_krause_branch_is_not_saved_without_it(tmp_path):
    class Around(hf.LlamaPreTrainedModel):
        def __init__(self, config):
            super().__init__(config)
            self.decoder = hf.LlamaForCausalLM(config)
            self.post_init()

    model = Around(hf.LlamaConfig(**TEXT))
    kd.models.add_krause_branch(model.decoder, window=4, top_k=2)
    with pytest.raises(UnsupportedModel, match="save the decoder alone"):
        model.save_pretrained(tmp_path)


@torch.no_grad()
@pytest.mark.parametrize("per_head", [False, True])
def test_stages_have_their_own_numbers_of_heads(per_head):
    """A configuration with a list of them was read as one number: TypeError."""
    sizes = {"depths": [1, 1], "hidden_sizes": [8, 16], "num_attention_heads": [1, 2], "sr_ratios": [2, 1]}
    sizes |= {"num_encoder_blocks": 2, "patch_sizes": [3, 3], "strides": [2, 2], "mlp_ratios": [2, 2]}
    config = hf.SegformerConfig(**sizes)
    model = kd.krausify(hf.SegformerModel(config).eval(), top_k=3, sigma_per_head=per_head)
    widths = [weight.numel() for name, weight in model.named_parameters() if "log_sigma" in name]
    assert widths == ([1, 2] if per_head else [1, 1])
    assert bool(torch.isfinite(model(torch.randn(1, 3, 16, 16)).last_hidden_state).all())


SLIDING = {**TEXT, "num_key_value_heads": 2, "sliding_window": 6}
KINDS = {"layer_types": ["sliding_attention", "full_attention"]}


LATE = {"use_sliding_window": True, "max_window_layers": 1}


@pytest.mark.parametrize(
    ("name", "sizes", "wide"), [("Gemma3Text", KINDS, [1]), ("Mistral", {}, []), ("Qwen2", LATE, [0])]
)
def test_first_tokens_are_refused_before_the_change_where_the_model_hides_them(name, sizes, wide):
    config = getattr(hf, f"{name}Config")(**{**SLIDING, **sizes})
    model = hf.AutoModelForCausalLM.from_config(config)
    kind = type(model)
    with pytest.raises(UnsupportedModel, match=r"window of their own, 6 keys.*prefix_tokens=1"):
        kd.krausify(model, window=4, prefix_tokens=1)
    assert type(model) is kind
    if wide:
        kd.krausify(model, window=4, prefix_tokens=1, layers=wide)
        assert model(torch.arange(3, 15)[None]).logits.shape == (1, 12, 60)
