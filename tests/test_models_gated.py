"""Pretrained decoders with a Krause branch: the base untouched, the branch as a formula, caches, saving, refusals."""

from __future__ import annotations

import pytest
import torch

transformers = pytest.importorskip("transformers")

from torch.nn.attention.flex_attention import create_block_mask  # noqa: E402

import krause_dynamics as kd  # noqa: E402
from krause_dynamics import UnsupportedModel  # noqa: E402
from krause_dynamics.models import add_krause_branch, branch_weights  # noqa: E402
from krause_dynamics.models.gated import FAMILIES  # noqa: E402
from krause_dynamics.models.gated_masks import heard_of  # noqa: E402
from krause_dynamics.nn.attention import WATCHERS  # noqa: E402
from tests.model_sizes import gated_base, words  # noqa: E402

# Compiling FlexAttention takes minutes.
IMPLEMENTATIONS = ["eager", "sdpa", pytest.param("flex_attention", marks=pytest.mark.slow)]
SETTINGS = {"window": 6, "top_k": 3, "sigma": 1.5}


def gated(family="llama", seed=0, **settings):
    """A tiny model of a family with the branch, its gate and projections spread so that they matter."""
    torch.manual_seed(seed)
    model = add_krause_branch(gated_base(family, seed), **{**SETTINGS, **settings}).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "_krause" in name:
                weight.add_(0.2 * torch.randn_like(weight))
    return model


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_a_closed_gate_is_the_base_bit_for_bit_and_an_open_one_is_not(family):
    x, base = words(20), gated_base(family)
    expected = base(x).logits
    model = add_krause_branch(base, **SETTINGS, gate="closed")
    assert torch.equal(model(x).logits, expected)
    model.config.krause_branch["gate"] = "learned"
    assert not torch.allclose(model(x).logits, expected, atol=1e-6)


@torch.no_grad()
def test_the_branch_is_the_published_formula():
    """Variant 4, written out with loops over heads in float64: distance, window, ties kept, softmax, gate."""
    model = gated("qwen2")
    part, x = model.model.layers[0].self_attn, words(12)
    caught = {}
    hook = part.register_forward_pre_hook(lambda m, a, k: caught.update(k), with_kwargs=True)
    outputs = branch_weights(model, x)
    hook.remove()
    hidden, (cos, sin) = caught["hidden_states"], caught["position_embeddings"]

    def turned(y):
        half = torch.cat([-y[..., 4:], y[..., :4]], -1)
        return y * cos[:, None] + half * sin[:, None]

    q, k, v = (p(hidden).unflatten(-1, (-1, 8)).transpose(1, 2) for p in
               (part.q_proj_krause, part.k_proj_krause, part.v_proj_krause))  # fmt: skip
    q, k, v = turned(q), turned(k).repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    score = -torch.cdist(q, k).square() / (2 * 1.5**2)
    i = torch.arange(12)
    score.masked_fill_((i[None] > i[:, None]) | (i[None] < i[:, None] - 5), -torch.inf)
    score.masked_fill_(score < score.topk(3).values[..., -1:], -torch.inf)
    weights = score.softmax(-1)
    # log sigma is float32, so that sigma is known to 6e-8.
    torch.testing.assert_close(outputs.krause[0], weights, rtol=1e-5, atol=1e-7)
    softmax = outputs.softmax[0] @ turned_values(part, hidden)
    both = [o(y.transpose(1, 2).flatten(2)) for o, y in ((part.o_proj, softmax), (part.o_proj_krause, weights @ v))]
    share = torch.nn.functional.linear(torch.cat(both, -1), part.gate_proj_krause.weight, part.gate_proj_krause.bias)
    torch.testing.assert_close(outputs.gate[0], share.softmax(-1), rtol=1e-5, atol=1e-6)
    mixed = (share.softmax(-1)[..., None, :] * torch.stack(both, -1)).sum(-1)
    torch.testing.assert_close(part(**caught)[0], mixed, rtol=1e-5, atol=1e-6)


def turned_values(part, hidden):
    return part.v_proj(hidden).unflatten(-1, (-1, 8)).transpose(1, 2).repeat_interleave(2, 1)


def test_it_starts_at_the_published_shares_with_the_bases_projections():
    torch.manual_seed(0)
    model = add_krause_branch(gated_base("qwen2"))
    for part in (layer.self_attn for layer in model.model.layers):
        assert torch.equal(part.k_proj_krause.weight, part.k_proj.weight)
        assert torch.equal(part.k_proj_krause.bias, part.k_proj.bias)
        assert part.o_proj_krause.bias is None
        torch.testing.assert_close(part.gate_proj_krause.bias.softmax(0), part.gate_proj_krause.bias.new([0.8, 0.2]))
        assert 0.005 < part.gate_proj_krause.weight.std() < 0.015
        torch.testing.assert_close(part.sigma, torch.full((4,), 5.5, dtype=torch.float64))
    llama = add_krause_branch(gated_base("llama"), projections="fresh").model.layers[0].self_attn
    assert bool((llama.q_proj_krause.bias == 0).all())
    assert not torch.equal(llama.q_proj_krause.weight, llama.q_proj.weight)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning")  # of transformers' flex mask
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_every_implementation_is_causal_and_gives_the_same(implementation):
    model, x = gated().float(), words(20)
    expected = model(x).logits
    model.set_attn_implementation(implementation)
    changed = x.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 23
    logits, other = model(x).logits, model(changed).logits
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert bool((logits[:, :12] == other[:, :12]).all())
    assert not torch.equal(logits[:, 12], other[:, 12])


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:_compile flag:DeprecationWarning")  # of transformers' flex mask
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_on_the_left_and_packed_rows_are_not_heard(implementation):
    model, x = gated().float(), words(20)
    model.set_attn_implementation(implementation)
    expected = model(x).logits
    pad = torch.zeros(2, 5, dtype=x.dtype)
    mask = torch.cat([pad, torch.ones_like(x)], 1)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    padded = model(torch.cat([pad + 7, x], 1), attention_mask=mask, position_ids=positions).logits
    torch.testing.assert_close(padded[:, 5:], expected, rtol=1e-4, atol=1e-5)
    packed = torch.cat([x[:1, :8], x[1:, :12]], 1)
    places = torch.cat([torch.arange(8), torch.arange(12)])[None]
    logits = model(packed, position_ids=places, use_cache=False).logits
    torch.testing.assert_close(logits[:, :8], model(x[:1, :8]).logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits[:, 8:], model(x[1:, :12]).logits, rtol=1e-4, atol=1e-5)


@pytest.fixture
def flash():
    """An attention that is told of packed rows as the kernels of flash attention are: beside a mask that is None."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import flash_attention_mask

    def attend(module, q, k, v, mask, scaling, position_ids=None, cu_seq_lens_q=None, **rest):
        n, m = q.shape[2], k.shape[2]
        ends = torch.arange(1) if cu_seq_lens_q is None else cu_seq_lens_q.long()
        places = torch.arange(n) - ends[torch.searchsorted(ends, torch.arange(n), right=True) - 1]
        places = position_ids[0] if cu_seq_lens_q is None else places
        number = (places == 0).cumsum(0) if n == m else torch.zeros(1)
        visible = (number[:, None] == number) & torch.ones(n, m, dtype=torch.bool).tril(m - n)
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v, visible, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None

    AttentionInterface.register("flash_of_this_test", attend)
    AttentionMaskInterface.register("flash_of_this_test", flash_attention_mask)
    return "flash_of_this_test"


@torch.no_grad()
@pytest.mark.parametrize("told", ["positions", "lengths"])
def test_rows_that_flash_attention_packs_without_a_mask_are_cut_for_the_branch_too(flash, told, monkeypatch):
    model, x = gated().float(), words(20)
    packed = torch.cat([x[:1, :8], x[1:, :12]], 1)
    places = torch.cat([torch.arange(8), torch.arange(12)])[None]
    ends = torch.tensor([0, 8, 20], dtype=torch.int32)
    beside = {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends} if told == "lengths" else {}
    expected = [model(x[:1, :8]).logits, model(x[1:, :12]).logits]
    model.config._attn_implementation_internal = flash  # set by its name the library would look for such kernels
    for cached in (False, True):
        logits = model(packed, position_ids=places, use_cache=cached, **beside).logits
        torch.testing.assert_close(logits, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    with monkeypatch.context() as patched:  # as where a graph is captured
        patched.setattr("krause_dynamics.models.gated_masks.may_wait", lambda _: False)
        logits = model(packed, position_ids=places.clone(), use_cache=False, **beside).logits
    torch.testing.assert_close(logits, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(x[:1, :8]).logits, expected[0], rtol=1e-4, atol=1e-5)
    if told == "lengths":
        with pytest.raises(ValueError, match="one row of tokens, got 2"):
            model(x, **beside)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["dynamic", "static", "without configuration"])
def test_decoding_in_any_portions_equals_the_full_pass(kind):
    model, x = gated(), words(30)
    expected = model(x).logits
    for portions in ([1] * 30, [13, 1, 1, 15]):
        cache = {
            "dynamic": lambda: transformers.DynamicCache(config=model.config),
            "static": lambda: transformers.StaticCache(config=model.config, max_cache_len=40),
            "without configuration": transformers.DynamicCache,
        }[kind]()
        logits = torch.cat([model(part, past_key_values=cache).logits for part in x.split(portions, 1)], 1)
        torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-9)
    assert max(layer.keys.shape[2] for layer in cache.layers[2:]) == 6 - 1


@torch.no_grad()
@pytest.mark.parametrize("window", [4, 9])
def test_a_models_own_sliding_window_narrows_the_branch(window):
    """Narrower and wider than the branch's 6: decoding equals the full pass, whose rows end at the narrower one."""
    model, x = gated("mistral"), words(20)
    model.config.sliding_window = window
    full = model(x).logits
    for cache in (
        transformers.DynamicCache(config=model.config),
        transformers.StaticCache(config=model.config, max_cache_len=30),
    ):
        logits = torch.cat([model(part, past_key_values=cache).logits for part in x.split([7, 1, 1, 11], 1)], 1)
        torch.testing.assert_close(logits, full, rtol=1e-9, atol=1e-9)
    heard = branch_weights(model, x).krause[0] > 0
    i = torch.arange(20)
    assert not heard[..., i[:, None] - i >= min(window, 6)].any()


@torch.no_grad()
def test_a_cache_that_the_branch_has_not_seen_is_refused():
    model, x, cache = gated(gate="closed"), words(8), transformers.DynamicCache()
    model(x, past_key_values=cache)
    model.config.krause_branch["gate"] = "learned"
    with pytest.raises(ValueError, match="holds 8 tokens"):
        model(x[:, :1], past_key_values=cache)


@torch.no_grad()
def test_a_gate_that_is_closed_for_some_tokens_of_a_cache_stays_closed():
    """The branch would go on without their keys."""
    model, x = gated(), words(8)
    cache = transformers.DynamicCache(config=model.config)
    model(x[:, :4], past_key_values=cache)
    model.config.krause_branch["gate"] = "closed"
    model(x[:, 4:6], past_key_values=cache)
    model.config.krause_branch["gate"] = "learned"
    with pytest.raises(ValueError, match="its gate was closed meanwhile; start with an empty one"):
        model(x[:, 6:], past_key_values=cache)
    cache.reset()
    torch.testing.assert_close(model(x, past_key_values=cache).logits, model(x, use_cache=False).logits)


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "qwen2"])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 3}, {"prompt_lookup_num_tokens": 3}, {"cache_implementation": "static"}],
    ids=["greedy", "beams", "assisted", "static"],
)
def test_generation_with_the_cache_is_that_without(family, options):
    model, x = gated(family), words(9, batch=1 if "prompt_lookup_num_tokens" in options else 2)
    rest = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": 0}
    again = {name: value for name, value in options.items() if name == "num_beams"}
    expected = model.generate(x, **rest, **again, use_cache=False)
    assert torch.equal(model.generate(x, **rest, **options), expected)
    if not options:
        padded = torch.cat([torch.zeros(2, 4, dtype=x.dtype), x], 1)
        mask = torch.cat([torch.zeros(2, 4, dtype=x.dtype), torch.ones_like(x)], 1)
        assert torch.equal(model.generate(padded, attention_mask=mask, **rest)[:, 4:], expected)


def test_a_mask_of_flex_attention_is_read_as_pairs():
    """The last 4 of 7 keys, of which padding is taken out, for 3 queries at the end."""
    mask = create_block_mask(lambda b, h, i, j: (j <= i + 4) & (j != 5 - b), 2, None, 3, 7, device="cpu")
    q, k = torch.zeros(2, 4, 3, 8), torch.zeros(2, 2, 4, 8)
    i, j = torch.arange(3)[:, None], torch.arange(3, 7)
    expected = torch.stack([(j <= i + 4) & (j != 5 - b) for b in range(2)])[:, None]
    # Of a window of 7 keys the queries see other ones than the last does; 2 of them show padding alone.
    assert torch.equal(heard_of(mask, q, k, 7, 7)["key_valid"], expected[:, 0, -1])
    odd = torch.ones(2, 1, 3, 7, dtype=torch.bool).tril(4)
    odd[0, 0, 0, 3] = False  # one query alone does not see one key, which a window of 1 does not reach
    pairs = torch.where(odd[..., 3:], 0.0, -torch.inf)
    assert torch.equal(heard_of(odd, q, k, 7, 7)["pair_bias"], pairs)
    assert heard_of(odd.clone(), q, k, 7, 1) == {}


@torch.no_grad()
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_padding_on_either_side_leaves_the_fast_form_its_work(implementation):
    """The mask of pairs is read as padding, once a pass, and gives what it gives written out."""
    model, x, seen = gated().float(), words(20), []
    model.set_attn_implementation(implementation)
    for mask in (torch.arange(20) >= torch.tensor([[0], [7]]), torch.arange(20) < torch.tensor([[20], [11]])):
        pairs = torch.ones(20, 20, dtype=torch.bool).tril() & mask[:, None, None, :]
        pairs[:, :, 0, 1:] = True  # beyond causality, where no window of the branch looks
        seen.clear()
        WATCHERS.append(lambda call: seen.append((call.pair_bias is None, call.log_mass is None)))
        try:
            padded = model(x, attention_mask=mask.long(), use_cache=False).logits
            model(x, use_cache=False)
        finally:
            WATCHERS.pop()
        assert seen == [(True, False)] * 2 + [(True, True)] * 2
        as_pairs = torch.where(pairs, 0.0, torch.finfo(torch.float32).min)
        as_pairs[:, :, 0, 1:] = torch.finfo(torch.float32).min
        with_pairs = model(x, attention_mask=as_pairs, use_cache=False).logits
        torch.testing.assert_close(padded[mask], with_pairs[mask], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_saved_folder_loads_by_the_auto_classes_and_a_base_folder_does_not(tmp_path):
    model = gated("qwen2")
    model.save_pretrained(tmp_path / "gated")
    back = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gated", dtype=torch.float64)
    assert type(back) is type(model)
    assert back.config.krause_branch == model.config.krause_branch
    # Rotary frequencies and log sigma are float32 in one, float64 in the other.
    torch.testing.assert_close(back(words()).logits, model(words()).logits, rtol=1e-6, atol=1e-6)
    half = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "gated", dtype=torch.bfloat16)
    assert {p.dtype for name, p in half.named_parameters() if "log_sigma" in name} == {torch.float32}
    assert half(words()).logits.isfinite().all()
    gated_base("qwen2").save_pretrained(tmp_path / "base")
    with pytest.raises(ValueError, match="add_krause_branch"):
        type(model).from_pretrained(tmp_path / "base")


def test_an_analysis_says_that_it_saw_the_softmax_branch():
    base, ids = gated_base("llama").float(), words(24).tolist()
    alone = kd.analyze(base, ids)
    both = kd.analyze(add_krause_branch(base, **SETTINGS, gate="closed"), ids)
    assert (both["entropy"] == alone["entropy"]).all()
    lines = [[x for x in kd.report.legend(found) if "softmax branch" in x] for found in (alone, both)]
    assert [len(found) for found in lines] == [0, 1]
    assert "branch_weights" in lines[1][0]


def test_what_cannot_be_served_is_refused_and_left_as_it_was():
    base = gated_base("llama")
    kind, config = type(base), base.config
    for settings, says in (({"windwo": 3}, "window"), ({"top_k": 0}, "top_k"), ({"gate": "open"}, "gate")):
        with pytest.raises(ValueError, match=says):
            add_krause_branch(base, **settings)
    assert (type(base), base.config) == (kind, config)
    with pytest.raises(UnsupportedModel, match="has a Krause branch already"):
        add_krause_branch(add_krause_branch(base))
    other = transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=5, n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(UnsupportedModel, match="gpt2"):
        add_krause_branch(other)
    with pytest.raises(TypeError, match="branch"):
        branch_weights(other, words(3))


def test_checkpointed_gradients_are_the_plain_ones_and_reach_log_sigma():
    model, x = gated().train(), words(12)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.activation_checkpointing_enable()
        model.zero_grad()
        model(x, labels=x, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters()})
    assert all(grad.abs().max() > 0 for name, grad in gradients[0].items() if "sigma" in name or "gate" in name)
    for name, plain in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], plain, rtol=1e-9, atol=1e-12)


def test_padding_of_one_row_serves_every_sequence():
    """Padding (1, keys) is that of each of the two sequences; three heads, so that an axis taken for another shows."""
    q, k = torch.zeros(2, 3, 4, 8), torch.zeros(2, 3, 4, 8)
    valid = heard_of(torch.tensor([[False, True, True, True]]), q, k, 4, 4)["key_valid"]
    assert valid.tolist() == [[False, True, True, True]] * 2


def test_a_base_that_was_read_from_a_file_is_of_the_gated_kind(tmp_path):
    """A configuration read from a file holds its ``model_type`` itself, before that of its class."""
    gated_base("llama").save_pretrained(tmp_path)
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert add_krause_branch(base, window=4, top_k=2).config.model_type == "krause_gated_llama"
