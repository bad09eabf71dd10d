"""Models of unlike kinds: taken rightly, or refused with a way out that works."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import load, record
from krause_dynamics.checkpoints.attention_pass import attend
from tests import checkpoint_models as models

IDS = [[3, 14, 15, 9, 26, 5, 35, 8, 9, 7]]
CLOSE = 2e-5
TINY = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def states(model, ids=IDS, **more):
    with torch.no_grad():
        return model(torch.tensor(ids), output_hidden_states=True, **more).hidden_states


def close_to(run, hidden):
    """All but the last, which transformers gives after the final norm."""
    expected = torch.stack(hidden[:-1]).numpy()
    np.testing.assert_allclose(run.positions[:-1], expected, atol=CLOSE * np.abs(expected).max())


# --- windows


def mistral(window):
    config = hf.MistralConfig(**TINY, num_key_value_heads=2, sliding_window=window, max_position_embeddings=64)
    model = models.build(hf.MistralForCausalLM, config, 0)
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()
    return model


def test_in_a_window_the_divisor_is_who_can_see_the_key():
    """Uniform attention in a window of 5: the first key has 1, 1/2, ... 1/5 of five queries, H_5/5; no key has more."""
    ids = np.random.default_rng(0).integers(0, 50, 40)
    run = record(mistral(5), ids)
    harmonic = sum(1 / i for i in range(1, 6)) / 5
    np.testing.assert_allclose(run.extras["importance"][..., 0], harmonic, atol=1e-6)
    np.testing.assert_allclose(run.extras["importance"][..., 10:30], 0.2, atol=1e-6)
    np.testing.assert_array_equal(run.extras["strongest_key"], 0)
    published = run.extras["published_importance"]
    np.testing.assert_allclose(published[..., 0], 5 * harmonic / 40, atol=1e-6)
    np.testing.assert_allclose(published[..., 20], 1.0 / 20, atol=1e-6)


def test_without_a_window_both_divisors_are_one():
    run = record(models.llama(), IDS)
    np.testing.assert_array_equal(run.extras["importance"], run.extras["published_importance"])


# --- learned sinks


def test_a_learned_sink_takes_its_share():
    """With A the softmax over keys and one logit more, shares of the keys and of the logit sum to 1."""
    g = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 3, 9, 4, generator=g) for _ in range(3))
    sink = torch.tensor([0.5, -1.0, 2.0])
    output, found = attend(q, k, v, torch.ones(9, 9, dtype=torch.bool).tril(), sink=sink, keep_weights=True)
    scores = (q.double() @ k.double().mT / 2).masked_fill(~torch.ones(9, 9, dtype=torch.bool).tril(), -torch.inf)
    logits = torch.cat([scores, sink.double()[:, None, None].expand(2, 3, 9, 1)], -1)
    share = logits.softmax(-1)
    np.testing.assert_allclose(found.weights, share[..., :9], atol=1e-6)
    np.testing.assert_allclose(output, share[..., :9] @ v.double(), atol=1e-6)
    np.testing.assert_allclose(found.learned_sink, share[..., 9].mean(-1), atol=1e-6)
    np.testing.assert_allclose(found.importance, share[..., :9].sum(-2) / (9 - torch.arange(9)), atol=1e-6)


def test_gpt_oss_says_how_much_its_sinks_take():
    config = hf.GptOssConfig(
        **TINY, num_key_value_heads=2, head_dim=8, num_local_experts=2, num_experts_per_tok=1, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    )  # fmt: skip
    model = models.build(hf.GptOssModel, config, 0)
    for layer in model.layers:
        layer.self_attn.sinks.data.normal_(generator=torch.Generator().manual_seed(1))
    run = record(model, IDS, attention="weights")
    model.set_attn_implementation("eager")
    close_to(run, states(model))
    sums = run.extras["attention"].sum(-1)
    np.testing.assert_allclose(run.extras["learned_sink"], 1 - sums.mean(-1), atol=1e-5)
    assert (run.extras["learned_sink"] > 0.01).all()


# --- hybrids, streams, widths


def test_a_hybrid_has_the_statistics_of_its_attention_and_nan_elsewhere():
    config = hf.Lfm2Config(
        **TINY | {"num_hidden_layers": 3}, num_key_value_heads=2, layer_types=["conv", "full_attention", "conv"]
    )
    model = models.build(hf.Lfm2Model, config, 0)
    run = record(model, IDS)
    close_to(run, states(model))
    alpha = run.extras["importance"]
    assert np.isnan(alpha[[0, 2]]).all()
    assert np.isfinite(alpha[1]).all()
    assert (run.extras["strongest_key"][[0, 2]] == -1).all()
    assert run.meta["blocks_without_attention"] == [1, 3]
    found = kd.analyze(model, IDS)
    assert np.isnan(found.sink_rate.sel(block=[1, 3])).all()
    assert np.isfinite(found.sink_rate.sel(block=2)).all()
    kd.report.findings(found)


def test_several_streams_are_refused_by_the_layer():
    class Streams(torch.nn.Module):
        def forward(self, hidden_states, **_):
            return hidden_states[None]

    model = models.llama()
    model.model.layers[1] = Streams()
    with pytest.raises(kd.UnsupportedModel, match="layer 2 has states of shape"):
        record(model, IDS, attention=None)


def test_a_model_that_ends_narrower_than_its_blocks():
    config = hf.OPTConfig(
        vocab_size=50, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=4, word_embed_proj_dim=16
    )
    model = models.build(hf.OPTModel, config, 0)
    run = record(model, IDS)
    assert run.extras["final_norm"].shape == (1, 10, 16)
    assert run.positions.shape == (3, 1, 10, 32)


def test_overflow_names_the_block_and_the_dtype():
    model = models.llama().half()
    for part in (model.model.layers[1].mlp.up_proj, model.model.layers[1].mlp.gate_proj):
        part.weight.data.mul_(1e3)
    with pytest.raises(ValueError, match=r"block 2 gives NaN or infinity in torch.float16; .*dtype='float32'"):
        record(model, IDS)


# --- encoder-decoders


@pytest.fixture(scope="module")
def t5():
    return models.t5()


def test_either_half_of_an_encoder_decoder(t5):
    with pytest.raises(kd.UnsupportedModel, match="part='encoder' or part='decoder'"):
        record(t5, IDS)
    run = record(t5, IDS, part="encoder")
    close_to(run, states(t5.get_encoder()))
    close_to(record(t5.get_encoder(), IDS), states(t5.get_encoder()))
    decoder = record(t5, IDS, part="decoder")
    assert len(decoder) == 4
    close_to(decoder, states(t5.get_decoder()))
    with pytest.raises(ValueError, match="part must name a model inside T5Model"):
        record(t5, IDS, part="middle")


def test_a_folder_of_an_encoder_decoder(t5, tmp_path):
    t5.save_pretrained(tmp_path)
    run = record(tmp_path, IDS, part="encoder", dtype="float64")
    assert run.meta["dtype"] == "float64"
    np.testing.assert_allclose(run.positions, record(t5, IDS, part="encoder").positions, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="dtype must be a type of torch"):
        record(tmp_path, IDS, dtype="float23")
    with pytest.raises(ValueError, match="models that are loaded here"):
        record(t5, IDS, part="encoder", dtype="float32")


@pytest.mark.parametrize("layers", [(2, 2), (2, 3)])
def test_bart_as_encoder_decoder_and_language_model(layers):
    config = hf.BartConfig(
        vocab_size=50, d_model=32, encoder_layers=layers[0], decoder_layers=layers[1], encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_position_embeddings=64,
    )  # fmt: skip
    model = models.build(hf.BartModel, config, 0)
    close_to(record(model, IDS, part="encoder"), states(model.get_encoder()))
    close_to(record(model.get_decoder(), IDS), states(model.get_decoder(), use_cache=False))
    language = models.build(hf.BartForCausalLM, config, 0)
    run = record(language, IDS)
    assert len(run) == layers[1] + 1
    close_to(run, states(language, use_cache=False))


def test_the_decoder_of_whisper_and_its_encoder():
    config = hf.WhisperConfig(
        vocab_size=60, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4, pad_token_id=0,
        decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, max_target_positions=64, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = models.build(hf.WhisperModel, config, 0)
    close_to(record(model, IDS, part="decoder"), states(model.get_decoder()))
    with pytest.raises(kd.UnsupportedModel, match="takes input_features"):
        record(model, IDS, part="encoder")


# --- wrappers and adapters


def lora(model, **options):
    import peft

    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj", "v_proj"], **options))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    return adapted.eval()


def test_adapters_are_in_what_is_analysed(tmp_path):
    plain = models.llama()
    plain.save_pretrained(tmp_path / "base")
    adapted = lora(hf.AutoModelForCausalLM.from_pretrained(tmp_path / "base"), task_type="CAUSAL_LM")
    run = record(adapted, IDS)
    assert np.abs(run.positions - record(plain, IDS).positions).max() > 0.1
    close_to(run, states(adapted))
    adapted.save_pretrained(tmp_path / "adapters")
    again = record(tmp_path / "adapters", IDS)
    np.testing.assert_allclose(again.positions, run.positions, atol=1e-5)
    (tmp_path / "adapters" / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="cannot be put together here"):
        load(tmp_path / "adapters")


def test_tokens_put_before_a_sequence_are_refused():
    import peft

    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    with pytest.raises(kd.UnsupportedModel, match="puts learned tokens before every sequence"):
        record(peft.get_peft_model(models.llama(), config), IDS)


def test_a_parallel_wrapper_is_looked_through():
    model = models.llama()
    run = record(torch.nn.DataParallel(model), IDS)
    np.testing.assert_array_equal(run.positions, record(model, IDS).positions)


def test_a_composed_model_names_its_parts():
    text = hf.Gemma3TextConfig(**TINY, num_key_value_heads=2, head_dim=8, layer_types=["full_attention"] * 2)
    vision = hf.SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=28, patch_size=14
    )
    model = models.build(
        hf.Gemma3Model, hf.Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4), 0
    )
    with pytest.raises(kd.UnsupportedModel, match="part='language_model'"):
        record(model, IDS)
    run = record(model, IDS, part="language_model")
    np.testing.assert_array_equal(run.positions, record(model.language_model, IDS).positions)
    close_to(run, states(model.language_model))


def test_a_configuration_replaced_after_the_model_was_built():
    model = models.bert()
    expected = record(model, IDS).extras["importance"]
    model.config = type(model.config).from_dict(model.config.to_dict())
    np.testing.assert_array_equal(record(model, IDS).extras["importance"], expected)


def test_blocks_can_be_named_to_analyze_and_are_counted():
    model = models.llama()
    found = kd.analyze(model, IDS, blocks=list(model.model.layers))
    assert found.sizes["block"] == 3
    model.model.layers = model.model.layers[:2]  # cut without editing the configuration
    model.config.num_hidden_layers = 2
    model.model.config.num_hidden_layers = 3
    with pytest.raises(kd.UnsupportedModel, match="pass the modules themselves as blocks="):
        record(model, IDS)


def test_no_length_limit():
    config = hf.XLNetConfig(vocab_size=50, d_model=32, n_layer=2, n_head=4, d_inner=48)
    model = models.build(hf.XLNetModel, config, 0)
    run = record(model, [IDS[0], IDS[0][::-1]], attention=None)
    close_to(
        run, [state.transpose(0, 1) if state.shape[0] == 10 else state for state in states(model, [*IDS, IDS[0][::-1]])]
    )


# --- passes that lie


def test_a_pass_that_changes_when_asked_for_its_weights_is_refused():
    config = hf.FalconConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        alibi=False,
        new_decoder_architecture=False,
    )
    model = models.build(hf.FalconModel, config, 0)
    with pytest.raises(kd.UnsupportedModel, match=r"other states when asked .*'sdpa'.*attn_implementation='eager'"):
        record(model, IDS, attention="weights")
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    eager = hf.FalconModel(config).eval()
    eager.load_state_dict(model.state_dict())
    run = record(eager, IDS, attention="weights")
    np.testing.assert_allclose(run.extras["attention"][0, 0, :, 0, 0], 1.0, atol=1e-6)
    np.testing.assert_allclose(run.positions, record(model, IDS, attention=None).positions, atol=1e-4)


def test_weights_of_another_shape_are_refused():
    config = hf.LongformerConfig(**TINY, attention_window=4, max_position_embeddings=64, pad_token_id=1)
    model = models.build(hf.LongformerModel, config, 0)
    with pytest.raises(kd.UnsupportedModel, match="not one weight for each query and key"):
        record(model, [IDS[0][:8]])
    with pytest.raises(kd.UnsupportedModel, match="12 tokens pass the blocks, .* such a multiple"):  # it pads them
        record(model, IDS, attention=None)
    assert record(model, IDS, attention=None, sequence_length=8).positions.shape == (3, 1, 8, 32)


def test_the_callers_autocast_stays_outside():
    model = models.llama()
    expected = record(model, IDS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        run = record(model, IDS)
    np.testing.assert_array_equal(run.positions, expected.positions)
    np.testing.assert_array_equal(run.extras["importance"], expected.extras["importance"])


def test_a_tensor_of_a_block_is_never_taken_for_a_head(tmp_path):
    from safetensors.torch import load_file, save_file

    config = hf.DeepseekV3Config(
        **TINY, moe_intermediate_size=16, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, kv_lora_rank=8, q_lora_rank=8, qk_rope_head_dim=4, qk_nope_head_dim=4, v_head_dim=8,
        first_k_dense_replace=1,
    )  # fmt: skip
    models.build(hf.DeepseekV3ForCausalLM, config, 0).save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    lost = [name for name in tensors if name.endswith("e_score_correction_bias")]
    save_file({name: x for name, x in tensors.items() if name not in lost}, file, metadata={"format": "pt"})
    assert lost
    with pytest.raises(ValueError, match="lacks 1 tensors .*e_score_correction_bias"):
        load(tmp_path)


# --- several threads


def test_two_threads_record_one_model_and_a_third_uses_it():
    model = models.llama()
    expected = record(model, IDS)
    with torch.no_grad():
        plain = model(torch.tensor(IDS)).logits
    wrong: list[BaseException | str] = []

    def recorder():
        for _ in range(4):
            run = record(model, IDS)
            if not np.array_equal(run.positions, expected.positions) or len(run) != len(expected):
                wrong.append("recorded states differ")

    def user():
        for _ in range(12):
            with torch.no_grad():
                logits = model(torch.tensor(IDS)).logits
            if not torch.allclose(logits, plain, atol=1e-4):
                wrong.append("a plain pass differs")

    def run(task):
        try:
            task()
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=run, args=(task,)) for task in (recorder, recorder, user)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("name", ["llama", "gemma2", "bert"])
def test_a_pass_of_another_thread_in_the_middle_of_a_block(name):
    """It goes through the recording function without being recorded, and through the hooks without being counted."""
    model = {"llama": models.llama, "gemma2": models.gemma2, "bert": models.bert}[name]()
    base = model.base_model
    expected = record(model, IDS)
    with torch.no_grad():
        plain = base(torch.tensor(IDS)).last_hidden_state
    inside: list[torch.Tensor] = []

    def other():
        with torch.no_grad():
            inside.append(base(torch.tensor(IDS)).last_hidden_state)

    def interrupt(module, args, kwargs):
        if not inside:
            inside.append(torch.empty(0))
            thread = threading.Thread(target=other)
            thread.start()
            thread.join()

    block = (base.layers if name != "bert" else base.encoder.layer)[0]
    handle = block.register_forward_pre_hook(interrupt, with_kwargs=True)
    run = record(model, IDS)
    handle.remove()
    np.testing.assert_array_equal(run.positions, expected.positions)
    assert len(run) == len(expected)
    torch.testing.assert_close(inside[1], plain, atol=1e-4, rtol=1e-4)


# --- text


def test_sequences_of_unlike_length_warn_of_their_sink_rate():
    with pytest.warns(UserWarning, match="sequences of 6 to 10 tokens share one sink rate"):
        kd.analyze(models.llama(), [*IDS, IDS[0][:6]])


def test_a_mark_of_byte_order_is_no_token(tmp_path):
    from krause_dynamics.checkpoints.inputs import prepare

    for name, content in (("marked.txt", b"\xef\xbb\xbfIn the beginning"), ("plain.txt", b"In the beginning")):
        (tmp_path / name).write_bytes(content)
    one, two = (prepare(tmp_path / name, Bytes()) for name in ("marked.txt", "plain.txt"))
    assert one.sequences == two.sequences
    (tmp_path / "ids.json").write_bytes(b"\xef\xbb\xbf[[1, 2]]")
    assert prepare(tmp_path / "ids.json").sequences == ((1, 2),)


class Bytes:
    """A tokenizer of bytes; ids from 250 on are unknown."""

    unk_token_id, unk_token, all_special_ids = 255, "[UNK]", (255,)

    def __len__(self):
        return 256

    def __call__(self, text, **_):
        return {"input_ids": [min(byte, 255) if byte < 128 else 255 for byte in text.encode()]}


def test_a_tokenizer_of_another_model_is_noticed():
    from krause_dynamics.checkpoints.inputs import prepare

    assert len(prepare("hello", Bytes(), vocabulary=300)) == 1
    with pytest.raises(ValueError, match="knows 256 tokens where the model has 50000"):
        prepare("hello", Bytes(), vocabulary=50_000)
    with pytest.raises(ValueError, match=r"100% of the text is unknown to the tokenizer \(\[UNK\]\)"):
        prepare("äöü", Bytes(), vocabulary=256)


def test_padding_that_may_be_the_first_token_is_refused():
    from krause_dynamics.checkpoints.inputs import prepare

    with pytest.raises(ValueError, match="begins and ends with pad_token=0"):
        prepare([[0, 5, 6, 0, 0]], pad_token=0)


def test_a_gguf_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="cannot read the configuration of .*model.gguf"):
        load(tmp_path / "model.gguf")


def test_attention_beside_another_mixer_is_attention():
    """Falcon-H1 calls its blocks "hybrid": each has both; until now all were taken for blocks without attention."""
    config = hf.FalconH1Config(
        **TINY, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8
    )
    model = models.build(hf.FalconH1Model, config, 0)
    run = record(model, IDS, attention="weights")
    with torch.no_grad():
        expected = models.eager(model)(torch.tensor(IDS), output_attentions=True).attentions
    np.testing.assert_allclose(run.extras["attention"], torch.stack(expected), atol=CLOSE)
    assert run.meta["blocks_without_attention"] == []


def test_tokens_that_a_model_puts_before_are_not_taken_for_those_of_the_text():
    """CPM-Ant puts 32 prompts before every sequence; what is told of the first token would be of a prompt."""
    sizes = {"vocab_size": 50, "hidden_size": 32, "num_attention_heads": 4, "dim_head": 8, "dim_ff": 48}
    model = models.build(hf.CpmAntModel, hf.CpmAntConfig(**sizes, num_hidden_layers=2), 0)
    for attention in ("statistics", None):
        with pytest.raises(kd.UnsupportedModel, match=r"42 tokens pass the blocks, and sequences have \[10\]"):
            kd.analyze(model, IDS, attention=attention)


def test_the_way_out_is_not_the_way_in():
    config = hf.BigBirdConfig(**TINY, max_position_embeddings=64)
    config._attn_implementation = "eager"
    model = models.build(hf.BigBirdModel, config, 0)
    with pytest.raises(kd.UnsupportedModel) as refused:
        record(model, IDS)
    assert "load it with" not in str(refused.value)
    assert record(model, IDS, attention=None).positions.shape == (3, 1, 10, 32)
