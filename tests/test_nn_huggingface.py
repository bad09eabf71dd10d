"""Models of transformers with the rule as their attention: the library's own softmax, locality, padding, decoding."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import krause_dynamics as kd
from krause_dynamics.errors import UnsupportedModel

transformers = pytest.importorskip("transformers")

from krause_dynamics.nn.huggingface import register_attention  # noqa: E402
from krause_dynamics.nn.huggingface.masks import PairMask, pair_mask  # noqa: E402
from tests import checkpoint_models as models  # noqa: E402
from tests.families.__main__ import cell  # noqa: E402
from tests.families.checks import CHECKS  # noqa: E402
from tests.families.every import outcome  # noqa: E402
from tests.families.table import FAMILIES, inputs  # noqa: E402


def tiny(name, **more):
    torch.manual_seed(0)
    sizes = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = transformers.LlamaConfig(**{**sizes, **special, "attn_implementation": name, **more})
    return transformers.LlamaForCausalLM(config).double().eval()


def tokens(n=24, seed=0):
    return torch.randint(3, 50, (2, n), generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_dot_products_are_the_softmax_of_the_library():
    register_attention("krause_as_softmax", score="dot")
    mine, theirs = tiny("krause_as_softmax"), tiny("eager")
    torch.testing.assert_close(mine(tokens()).logits, theirs(tokens()).logits, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_window_bounds_what_a_token_can_feel():
    """Two layers of 4 keys reach 6 tokens back; the seventh cannot be felt, the sixth can."""
    register_attention("krause_window", sigma=2.0, window=4)
    model, x = tiny("krause_window"), tokens()
    changed = x.clone()
    changed[:, 5] = (changed[:, 5] - 3 + 7) % 47 + 3
    difference = (model(x).logits - model(changed).logits).abs().amax((0, 2))
    assert bool((difference[:5] == 0).all())
    assert bool((difference[5:12] > 0).all())
    assert bool((difference[12:] == 0).all())


@torch.no_grad()
def test_decoding_with_the_cache_of_the_library_equals_the_full_pass():
    register_attention("krause_top_k", sigma=2.0, window=6, top_k=3)
    model, x = tiny("krause_top_k"), tokens()
    cache, steps = transformers.DynamicCache(), []
    for i in range(x.shape[1]):
        steps.append(model(x[:, i : i + 1], past_key_values=cache, use_cache=True).logits)
    torch.testing.assert_close(torch.cat(steps, 1), model(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_left_padding_changes_nothing_but_positions():
    register_attention("krause_top_k", sigma=2.0, window=6, top_k=3)
    model, x = tiny("krause_top_k"), tokens()
    padded = torch.cat([torch.zeros(2, 5, dtype=torch.long), x], 1)
    mask = (torch.arange(29) >= 5).long().expand(2, -1)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(padded, attention_mask=mask, position_ids=positions).logits[:, 5:]
    torch.testing.assert_close(logits, model(x).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
def test_a_bandwidth_of_a_layer_overrides_that_of_the_registration():
    register_attention("krause_wide", sigma=50.0, window=6)
    register_attention("krause_narrow", sigma=0.5, window=6)
    wide, narrow = tiny("krause_wide"), tiny("krause_narrow")
    assert float((wide(tokens()).logits - narrow(tokens()).logits).abs().max()) > 1e-3
    for layer in wide.model.layers:
        layer.self_attn.krause_sigma = torch.full((4,), 0.5)
    torch.testing.assert_close(wide(tokens()).logits, narrow(tokens()).logits, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_a_mask_of_pairs_of_the_caller_is_kept():
    """Written out, in booleans or in numbers to add: the same as the causal mask that it holds."""
    register_attention("krause_top_k", sigma=2.0, window=6, top_k=3)
    model, causal = tiny("krause_top_k"), torch.ones(2, 1, 24, 24, dtype=torch.bool).tril()
    for mask in (causal, torch.zeros(causal.shape).masked_fill(~causal, torch.finfo(torch.float32).min)):
        logits = model(tokens(), attention_mask=mask).logits
        torch.testing.assert_close(logits, model(tokens()).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(("window", "narrowest"), [(None, 4), (9, 4), (2, 2)])
def test_the_narrower_of_two_windows_holds(window, narrowest):
    """The model's own window is 4 tokens wide; what is heard is the library's softmax in the narrower of the two."""
    register_attention("krause_sliding", score="dot", window=window)
    mine, theirs = (models.mistral(attn_implementation=name).double() for name in ("krause_sliding", "eager"))
    theirs.config.sliding_window = narrowest
    for layer in theirs.model.layers:
        layer.self_attn.sliding_window = narrowest
    torch.testing.assert_close(mine(tokens()).logits, theirs(tokens()).logits, rtol=1e-6, atol=1e-6)


def test_without_a_rule_the_names_raise():
    for name in ("krause", "krause_softmax"):
        with pytest.raises(UnsupportedModel, match="config.krause holds no rule"):
            tiny(name)(tokens())


@torch.no_grad()
def test_the_configuration_holds_one_rule_or_one_a_layer():
    rules = [kd.krause(s, kd.Window(w) & kd.TopK(3)) for s, w in ((1.0, 4), (2.0, 6))]
    model = tiny("krause", krause=[rule.to_dict() for rule in rules])
    register_attention("krause_pieces", sigma=1.0, window=4, top_k=3)
    for i, rule in enumerate(rules):
        one = tiny("krause", krause=rule.to_dict())
        register_attention("krause_one", rule.neighbourhood, sigma=rule.score.sigma)
        torch.testing.assert_close(one(tokens()).logits, tiny("krause_one")(tokens()).logits, rtol=0, atol=0)
        assert float((one(tokens()).logits - model(tokens()).logits).abs().max()) > 1e-3, i
    model.config.krause = model.config.krause[:1]
    with pytest.raises(UnsupportedModel, match="2, one a layer, got 1"):
        model(tokens())


@torch.no_grad()
def test_packed_rows_hear_their_own_sequence():
    """Positions that restart: the second half equals the half alone, with a Gaussian as well."""
    model, x = tiny("krause", krause=kd.krause(2.0, kd.TopK(3)).to_dict()), tokens(8)[:1]
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3]])
    both = model(x, position_ids=positions, use_cache=False).logits
    torch.testing.assert_close(both[:, 4:], model(x[:, 4:]).logits, rtol=1e-9, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("padded", [0, 3])
def test_a_static_cache_hides_what_it_does_not_hold(padded):
    """A window of the rule counts from the query's own place, not from the end of the buffer."""
    model = tiny("krause", krause=kd.krause(2.0, kd.Window(4) & kd.TopK(3)).to_dict())
    x, mask = tokens(8), torch.ones(2, 8, dtype=torch.long)
    mask[0, :padded] = 0
    how = {"attention_mask": mask, "max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
    static = model.generate(x, cache_implementation="static", disable_compile=True, **how)
    assert torch.equal(static, model.generate(x, **how))
    assert torch.equal(static, model.generate(x, use_cache=False, **how))


@torch.no_grad()
def test_a_static_cache_under_a_written_mask_keeps_the_window():
    """While compiling the mask is written out; the place of a query is then that of its last key."""
    model = tiny("krause", krause=kd.krause(2.0, kd.Window(4)).to_dict())
    x, cache = tokens(8), transformers.StaticCache(model.config, max_cache_len=16)
    mask = torch.arange(16)[None] <= torch.arange(8)[:, None]
    logits = model(x, attention_mask=mask.expand(2, 1, 8, 16), past_key_values=cache).logits
    torch.testing.assert_close(logits, model(x).logits, rtol=1e-9, atol=1e-9)


class Largest(TorchDispatchMode):
    """Remembers the size of the largest tensor that an operation gave."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in tree_leaves(out):
            if isinstance(x, torch.Tensor) and not isinstance(x, PairMask):
                self.size = max(self.size, x.untyped_storage().nbytes())
        return out


@torch.no_grad()
def test_a_window_of_65536_tokens_writes_no_mask_of_pairs():
    n, model = 65536, tiny("krause", num_hidden_layers=1, krause=kd.krause(2.0, kd.Window(8)).to_dict())
    with Largest() as largest:
        model.float().model(torch.full((1, n), 3), use_cache=False)
    assert largest.size < n * n / 64  # booleans of all pairs would be n * n bytes


def test_asked_for_weights_every_layer_gives_them():
    """GPT-2 hands the flag not on to its layers; without the flag there is nothing to pay for."""
    model = models.gpt2(attn_implementation="eager")
    x = tokens(8)
    expected = model(x, output_attentions=True).attentions
    model.config.krause = kd.softmax().to_dict()
    model.set_attn_implementation("krause_softmax")
    found = model(x, output_attentions=True).attentions
    assert len(found) == 2
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    assert model(x).attentions is None


def test_an_option_that_nobody_knows_is_refused():
    with pytest.raises(UnsupportedModel, match="block_indices: blocks of keys"):
        tiny("krause", krause=kd.krause().to_dict())(tokens(), block_indices=torch.zeros(1))


def test_a_model_outside_the_registry_is_refused_by_name():
    with pytest.raises(UnsupportedModel, match="BloomForCausalLM has attention code of its own"):
        models.bloom(attn_implementation="krause")
    with pytest.raises(UnsupportedModel, match="has attention code of its own"):
        models.bloom().set_attn_implementation("krause_softmax")


WITHOUT = {
    "Mamba": {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1},
    "ConvNext": {"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1]},
    "FNet": {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "intermediate_size": 16},
}


@pytest.mark.parametrize("name", WITHOUT)
def test_a_model_without_attention_is_refused_and_not_taken_for_one_that_runs_the_rule(name):
    kind, config = (getattr(transformers, name + end) for end in ("Model", "Config"))
    with pytest.raises(UnsupportedModel, match=f"{name}Model has no attention"):
        kind._from_config(config(**WITHOUT[name]), attn_implementation="krause")
    model = kind(config(**WITHOUT[name]))
    with pytest.raises(UnsupportedModel, match=f"{name}Model has no attention"):
        model.set_attn_implementation("krause_softmax")
    assert model.config._attn_implementation not in ("krause", "krause_softmax")


def detector():
    """Attention over what a convolutional network sees."""
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 1], "out_features": ["stage4"]}
    stacks = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in (("layers", 1), ("ffn_dim", 16))}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    given = {**stacks, **heads, "d_model": 16, "use_timm_backbone": False, "backbone": None}
    return transformers.DetrConfig(backbone_config=transformers.ResNetConfig(**sizes), **given)


def test_a_part_without_attention_is_no_reason_to_refuse_the_whole_but_by_its_name():
    assert transformers.DetrModel._from_config(detector(), attn_implementation="krause")
    model = transformers.DetrModel(detector())
    with pytest.raises(UnsupportedModel, match="ResNetBackbone has no attention"):
        model.set_attn_implementation({"backbone_config": "krause"})
    model.set_attn_implementation("krause")
    assert model.config._attn_implementation == "krause"


def test_saving_a_model_that_was_only_registered_warns(tmp_path):
    with pytest.warns(UserWarning, match=r"kd.krausify"):
        tiny("krause", krause=kd.krause().to_dict()).save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny("eager").save_pretrained(tmp_path)


def test_saving_a_model_of_which_a_part_was_told_by_name_warns(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.CLIPConfig(text_config=sizes, vision_config={**sizes, "image_size": 16, "patch_size": 4})
    named = transformers.CLIPModel(config)
    named.set_attn_implementation({"text_config": "krause"})
    with pytest.warns(UserWarning, match=r"kd.krausify"):
        named.save_pretrained(tmp_path)


def test_windows_do_not_fit_cross_attention():
    family = next(family for family in FAMILIES if family.name == "Bart")
    with pytest.raises(UnsupportedModel, match="cross-attention"):
        family.build("krause", kd.krause(1.0, kd.Window(4)).to_dict())(**inputs("pair"))


def test_the_names_come_with_transformers_which_is_not_imported_for_them():
    code = """import sys, krause_dynamics.nn
assert "transformers" not in sys.modules
from transformers import AttentionInterface, AttentionMaskInterface
for interface in (AttentionInterface, AttentionMaskInterface):
    assert {"krause", "krause_softmax"} <= set(interface._global_mapping)"""
    subprocess.run([sys.executable, "-c", code], check=True)


CI = {"Gemma2ForCausalLM", "GptOssForCausalLM", "Llama4ForCausalLM", "ModernBertModel", "T5Model", "UMT5Model",
      "Gemma3TextModel", "BartModel", "ViTModel", "OPTForCausalLM"}  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name + f.model in CI], ids=lambda f: f.name + f.model)
def test_a_family_equals_its_own_eager_attention(family):
    """All forms of masks and options once: soft cap, sinks, chunks, two-sided windows, biases, cross-attention."""
    for name in ("forward", "gradients", "weights", "left padding"):
        assert cell(family, name) in ("", "equal"), name


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES, ids=lambda f: f.name + f.model)
def test_every_check_of_every_family(family):
    for name in CHECKS:
        assert cell(family, name) in ("", "equal"), name


@pytest.mark.parametrize(
    ("kind", "word", "reason"),
    [("deepseek_v4", "refused", "has a compressor that is not served"), ("lfm3_vl_vision", "equal", "")],
)
def test_a_model_type_that_nobody_described_is_equal_or_refused(kind, word, reason):
    """DeepSeek V4 joins numbers to our mask of booleans: what it hid was heard, and what was to be heard hidden."""
    found = outcome(transformers.CONFIG_MAPPING[kind])
    assert found[0] == word
    assert reason in found[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", transformers.models.auto.configuration_auto.CONFIG_MAPPING_NAMES)
def test_no_model_type_differs_without_a_word(kind):
    try:
        config = transformers.CONFIG_MAPPING[kind]
    except ImportError as error:
        pytest.skip(str(error))
    assert outcome(config)[0] != "differs"


def test_a_mask_held_as_a_rule_has_the_shape_of_the_one_it_writes():
    """One axis for all heads, as every attention function of transformers expects."""
    mask = pair_mask(2, 3, 5, q_offset=2, attention_mask=torch.ones(2, 5, dtype=torch.bool))
    assert isinstance(mask, PairMask)
    assert mask.shape == mask.write().shape == (2, 1, 3, 5)
