"""Models run block by block from their files: the numbers of the model in memory, resumed, and refused in words."""

from __future__ import annotations

import json
import os
import signal
import struct

import numpy as np
import pytest
import torch
import transformers as hf

import krause_dynamics as kd
from krause_dynamics.checkpoints import by_block, memory, one_block
from tests import checkpoint_models as models
from tests.campaigns.frame import start, wait

IDS = [list(range(1, 21)), list(range(5, 17)), [7, 3, 7, 3, 9, 9, 9, 1, 2, 3, 4, 5], list(range(20, 40))]
PICTURE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
PICTURE |= {"image_size": 24, "patch_size": 8}
PIXELS = np.random.default_rng(0).normal(size=(3, 3, 24, 24)).astype(np.float32)
HEADS = {"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def qwen2():
    return models.build(hf.Qwen2ForCausalLM, hf.Qwen2Config(**models.SMALL, **HEADS), 0)


def qwen3():
    return models.build(hf.Qwen3ForCausalLM, hf.Qwen3Config(**models.SMALL, **HEADS), 0)


def gemma3():
    """Windows in two of three blocks, and another rotation in those."""
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    config = hf.Gemma3TextConfig(**models.SMALL, **HEADS, sliding_window=4, layer_types=kinds)
    return models.build(hf.Gemma3ForCausalLM, config, 0)


def vit():
    return models.build(hf.ViTModel, hf.ViTConfig(**PICTURE), 0)


def dinov2():
    return models.build(hf.Dinov2Model, hf.Dinov2Config(**PICTURE), 0)


FAMILIES = {
    "llama": models.llama,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "mistral": models.mistral,
    "gemma2": models.gemma2,
    "gemma3": gemma3,
    "gpt2": models.gpt2,
    "bert": models.bert,
    "vit": vit,
    "dinov2": dinov2,
}


def same(one, other):
    """Bit for bit, whatever was measured."""
    assert set(one.data_vars) == set(other.data_vars)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def saved(model, folder, **options):
    """A folder of several shards, as small as transformers makes them."""
    model.save_pretrained(folder, max_shard_size="20KB", **options)
    return folder


@pytest.fixture
def least(monkeypatch):
    """A budget that holds one block and not the whole model: sizes without the process and its reserves."""
    monkeypatch.setattr(memory, "resident", lambda device=None: 0)
    monkeypatch.setattr(memory, "RESERVE", 0)

    def of(folder, inputs=IDS, **options):
        with pytest.raises(ValueError, match="memory must be at least") as refused:
            kd.analyze(folder, inputs, memory=1, **options)
        return str(refused.value).split()[5].rstrip(",")

    return of


def meta(dataset):
    return json.loads(dataset.attrs["meta"])


@pytest.mark.parametrize("family", FAMILIES)
def test_block_by_block_is_the_model_in_memory(tmp_path, least, family):
    model, inputs = FAMILIES[family](), PIXELS if family in ("vit", "dinov2") else IDS
    folder = saved(model, tmp_path)
    found = kd.analyze(folder, inputs, memory=least(folder, inputs))
    assert meta(found)["block_by_block"]
    same(found, kd.analyze(model, inputs))


def test_a_model_that_fits_is_loaded_whole(tmp_path):
    folder = saved(models.llama(), tmp_path)
    found = kd.analyze(folder, IDS, memory="64GB")  # what the process has by then counts too
    assert "block_by_block" not in meta(found)
    same(found, kd.analyze(folder, IDS))


def test_pictures_of_another_file_are_refused(tmp_path):
    model, file = vit(), tmp_path / "half.npz"
    same(kd.analyze(model, PIXELS, checkpoint=file), kd.analyze(model, PIXELS))
    with pytest.raises(ValueError, match="another run .*inputs"):
        kd.analyze(model, PIXELS + 1.0, checkpoint=file)


def test_several_devices_are_accelerates(tmp_path):
    """Here there is one; what is divided over several is tested where they are."""
    folder = saved(models.llama(), tmp_path)
    same(kd.analyze(folder, IDS, device="auto"), kd.analyze(folder, IDS))
    with pytest.raises(ValueError, match="memory is what one device may use"):
        kd.analyze(folder, IDS, device="auto", memory="1GB")


def test_one_block_that_is_called_many_times(tmp_path):
    model = models.albert()
    same(kd.analyze(model, IDS, checkpoint=tmp_path / "half.npz"), kd.analyze(model, IDS))


def test_another_dtype_is_that_of_the_loaded_model(tmp_path, least):
    folder = saved(models.llama(), tmp_path)
    budget = least(folder, dtype="bfloat16")
    found = kd.analyze(folder, IDS, memory=budget, dtype="bfloat16")
    assert meta(found)["dtype"] == "bfloat16"
    assert meta(found)["block_by_block"]
    same(found, kd.analyze(folder, IDS, dtype="bfloat16"))


def test_no_weight_of_a_block_stays_in_memory(tmp_path, least, monkeypatch):
    folder = saved(models.llama(), tmp_path)
    budget, seen = least(folder), []
    check = one_block.check_weights

    def watched(module, block):
        loaded = [all(not weight.is_meta for weight in layer.parameters()) for layer in network]
        seen.append((block, loaded))
        check(module, block)

    network = []
    of = by_block.ByBlock.__init__

    def begun(self, run, *rest):
        network.extend(run.blocks)
        of(self, run, *rest)

    monkeypatch.setattr(by_block.ByBlock, "__init__", begun)
    monkeypatch.setattr(one_block, "check_weights", watched)
    kd.analyze(folder, IDS, memory=budget)
    assert seen == [(i, [i == j for j in range(3)]) for i in range(3)]
    assert all(weight.is_meta for layer in network for weight in layer.parameters())


def test_a_budget_that_is_too_small_names_the_least(tmp_path, least):
    folder = saved(models.llama(), tmp_path)
    budget = least(folder)
    kd.analyze(folder, IDS, memory=budget)
    short = memory.amount(budget) - 2000
    with pytest.raises(ValueError, match=f"memory must be at least {budget} .* received {short}.* smaller batch_size"):
        kd.analyze(folder, IDS, memory=short)


@pytest.mark.parametrize("given", ["much", "0GB", -3, True, "3 horses", None.__class__, 0])
def test_amounts_that_are_none(tmp_path, given):
    with pytest.raises(ValueError, match="memory must be bytes or a text such as"):
        kd.analyze(saved(models.llama(), tmp_path), IDS, memory=given)


def test_amounts_in_words():
    assert [memory.amount(x) for x in ("24GB", "24 GiB", "1.5kb", 7)] == [24 * 10**9, 24 * 2**30, 1500, 7]
    assert all(memory.amount(memory.words(x)) >= x for x in (7, 1001, 123456, 24 * 10**9 + 1))


def killed(monkeypatch, after, do):
    """Run ``do`` and end it, as a kill would, once the file has been written ``after`` times."""
    write, count = by_block.RunFile.write, []

    def dying(self, *given):
        write(self, *given)
        count.append(1)
        if len(count) == after:
            raise SystemError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(by_block.RunFile, "write", dying)
        with pytest.raises(SystemError):
            do()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_killed_analysis_goes_on_bit_for_bit(tmp_path, least, monkeypatch, dtype):
    folder, file = saved(models.gemma2(), tmp_path / "model"), tmp_path / "half.npz"
    options = {"memory": least(folder, dtype=dtype), "dtype": dtype, "batch_size": 1}
    killed(monkeypatch, 1, lambda: kd.analyze(folder, IDS, checkpoint=file, **options))
    passed = []
    go_on = by_block.ByBlock._pass
    monkeypatch.setattr(by_block.ByBlock, "_pass", lambda self, block: passed.append(block) or go_on(self, block))
    same(kd.analyze(folder, IDS, checkpoint=file, **options), kd.analyze(folder, IDS, dtype=dtype, batch_size=1))
    assert passed == [1]
    for changed in ({"inputs": IDS[:2]}, {"radii": (0.5,)}, {"batch_size": 2}, {"min_queries": 2}):
        arguments = {"inputs": IDS} | options | changed
        with pytest.raises(ValueError, match="belongs to another run"):
            kd.analyze(folder, checkpoint=file, **arguments)
    other = saved(models.gemma2(1), tmp_path / "other")
    with pytest.raises(ValueError, match="belongs to another run .*model"):
        kd.analyze(other, IDS, checkpoint=file, **options)


def test_a_process_that_was_killed_goes_on_bit_for_bit_and_tells_where(tmp_path, least):
    """A real SIGKILL, which no handler hears, in a run that reads its blocks from files."""
    folder, file = saved(models.llama(), tmp_path / "model"), tmp_path / "half.npz"
    options = {"batch_size": 1, "memory": least(folder, batch_size=1)}

    def end(done, total):
        if done == 6:  # in the middle of the second of three blocks: sequence 2 of 4
            os.kill(os.getpid(), signal.SIGKILL)

    # Forked, as a new process would import torch and transformers for most of its time.
    child = start(lambda: kd.analyze(folder, IDS, checkpoint=file, progress=end, **options))
    assert wait(child, 60.0) == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["half.npz", "model"]  # nothing half written
    told = []
    found = kd.analyze(folder, IDS, checkpoint=file, progress=lambda *x: told.append(x), **options)
    same(found, kd.analyze(folder, IDS, batch_size=1))
    assert told == [(n, 12) for n in range(5, 13)]  # the second block from its beginning


def test_a_loaded_model_is_kept_after_every_block_too(tmp_path, monkeypatch):
    model, file = models.llama(), tmp_path / "half.npz"
    killed(monkeypatch, 2, lambda: kd.analyze(model, IDS, checkpoint=file))
    same(kd.analyze(model, IDS, checkpoint=file), kd.analyze(model, IDS))
    again = [one(torch.tensor([IDS[0]])).logits for one in (model, models.llama())]
    assert torch.equal(*again)  # its blocks are what they were


def test_states_whose_first_axis_are_tokens_go_on_from_a_file(tmp_path, monkeypatch):
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 48)
    model = torch.nn.TransformerEncoder(layer, 3, enable_nested_tensor=False).eval()
    vectors, file = np.random.default_rng(0).normal(size=(2, 12, 32)).astype(np.float32), tmp_path / "half.npz"
    killed(monkeypatch, 1, lambda: kd.analyze(model, vectors, checkpoint=file))
    same(kd.analyze(model, vectors, checkpoint=file), kd.analyze(model, vectors, checkpoint=tmp_path / "whole.npz"))


def test_ctrl_c_keeps_the_layers_that_are_finished(tmp_path):
    model, file = models.llama(), tmp_path / "half.npz"

    def press(done, total):
        if done == 2:
            signal.raise_signal(signal.SIGINT)

    found = kd.analyze(model, IDS, checkpoint=file, batch_size=1, progress=press)
    whole = kd.analyze(model, IDS, batch_size=1)
    assert (meta(found)["stopped"], meta(found)["blocks_done"]) == ("interrupted", 1)
    same(found, whole.isel(layer=slice(2), block=slice(1)))
    told = []
    same(kd.analyze(model, IDS, checkpoint=file, batch_size=1, progress=lambda *x: told.append(x)), whole)
    assert told == [(n, 12) for n in range(5, 13)]


def test_weights_that_are_no_numbers_end_it_and_what_was_found_is_kept(tmp_path, least):
    model = models.llama()
    whole = kd.analyze(model, IDS)
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 4] = torch.nan
    folder = saved(model, tmp_path)
    found = kd.analyze(folder, IDS, memory=least(folder))
    assert "block 2: weight mlp.up_proj.weight holds NaN" in meta(found)["stopped"]
    same(found, whole.isel(layer=slice(2), block=slice(1)))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[3, 4] = torch.inf
    with pytest.raises(ValueError, match="block 1: weight mlp.up_proj.weight holds NaN or infinity"):
        kd.analyze(saved(model, tmp_path), IDS, memory=least(folder))


def test_states_that_are_no_numbers_end_it_too(tmp_path, least):
    model = models.llama()
    with torch.no_grad():
        model.model.layers[2].mlp.down_proj.weight.fill_(6e4)  # float16 ends at 65504
    folder = saved(model, tmp_path)
    found = kd.analyze(folder, IDS, memory=least(folder, dtype="float16"), dtype="float16")
    assert "block 3" in meta(found)["stopped"]
    assert dict(found.sizes)["layer"] == 3


def test_a_missing_and_a_truncated_shard_are_named(tmp_path, least):
    folder = saved(models.llama(), tmp_path)
    budget = least(folder)
    shard = sorted(folder.glob("model-*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-8])
    for options in ({}, {"memory": budget}):
        with pytest.raises(ValueError, match=f"the shard {shard.name} .* is truncated or damaged"):
            kd.analyze(folder, IDS, **options)
    shard.write_bytes(struct.pack("<Q", 2**40) + content[8:])
    with pytest.raises(ValueError, match=f"the shard {shard.name} .* is truncated or damaged"):
        kd.analyze(folder, IDS)
    shard.unlink()
    with pytest.raises(ValueError, match=f"lacks the shard {shard.name}"):
        kd.analyze(folder, IDS, memory=budget)
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ValueError, match="index.json cannot be read"):
        kd.analyze(folder, IDS)


def written_as_gguf(model, path):
    """A GGUF file of a Llama: rows of queries and keys lie in pairs of the rotation, as llama.cpp has them."""
    import gguf

    config, weights = model.config, dict(model.model.state_dict())
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in weights.items():
        rows, heads = weight.numpy(), {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        for part, count in heads.items():
            if part in name:
                rows = rows.reshape(count, 2, -1, rows.shape[1]).swapaxes(1, 2).reshape(rows.shape)
        stem, _, ending = f"model.{name}".rpartition(".")
        writer.add_tensor(f"{names.get_name(stem)}.{ending}", np.ascontiguousarray(rows))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_a_gguf_file_whole_and_block_by_block(tmp_path, least, dtype):
    model = models.llama(rms_norm_eps=1e-5)
    file = written_as_gguf(model, tmp_path / "model.gguf")
    whole = kd.analyze(file, IDS, dtype=dtype)
    same(whole, kd.analyze(saved(model, tmp_path / "folder"), IDS, dtype=dtype))
    found = kd.analyze(file, IDS, dtype=dtype, memory=least(file, dtype=dtype))
    assert meta(found)["block_by_block"]
    same(found, whole)
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ValueError, match="model.gguf.* cut or damaged"):
        kd.analyze(file, IDS, dtype=dtype)


def test_a_model_with_a_device_map_is_read_once_a_block(tmp_path):
    """Half of its blocks on disk, by accelerate: the numbers are those of the model in memory."""
    folder = saved(models.llama(), tmp_path)
    places = {"embed_tokens": "cpu", "norm": "cpu", "rotary_emb": "cpu", "layers.0": "cpu"}
    places |= {"layers.1": "disk", "layers.2": "disk"}
    mapped = hf.AutoModel.from_pretrained(folder, device_map=places)
    found = kd.analyze(mapped, IDS)
    assert meta(found)["block_by_block"]
    same(found, kd.analyze(folder, IDS))
    np.testing.assert_array_equal(
        kd.checkpoints.record(mapped, IDS).positions, kd.checkpoints.record(folder, IDS).positions
    )


def test_attention_of_a_familys_own_is_read_from_disk_batch_by_batch(tmp_path, least):
    folder = saved(models.bloom(), tmp_path)
    found = kd.analyze(folder, IDS, memory=least(folder))
    assert "block_by_block" not in meta(found)
    same(found, kd.analyze(folder, IDS))


def test_what_cannot_be_run_block_by_block_is_refused(tmp_path, least):
    with pytest.raises(kd.UnsupportedModel, match=r"Bloom.* cannot be run block by block .*attention=None"):
        kd.analyze(models.bloom(), IDS, checkpoint=tmp_path / "half.npz")
    with pytest.raises(kd.UnsupportedModel, match="hands on more than its state"):
        kd.analyze(models.t5(), IDS, part="encoder", attention=None, checkpoint=tmp_path / "other.npz")
    model = models.llama()
    model.config.save_pretrained(tmp_path / "old")
    torch.save(model.state_dict(), tmp_path / "old" / "pytorch_model.bin")
    with pytest.raises(ValueError, match="holds no safetensors"):
        kd.analyze(tmp_path / "old", IDS, memory=memory.amount(least(tmp_path / "old")))


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "int32", "complex64"])
def test_a_type_that_the_device_cannot_compute_with(tmp_path, dtype):
    with pytest.raises(ValueError, match=f"dtype '{dtype}' cannot be computed with on 'cpu'"):
        kd.analyze(saved(models.llama(), tmp_path), IDS, dtype=dtype)


def test_a_text_of_one_token_is_refused(tmp_path):
    class Letters:
        def __call__(self, text, add_special_tokens=True, verbose=True):
            return {"input_ids": [ord(letter) - 87 for letter in text]}

    with pytest.raises(ValueError, match="no sequence has two tokens"):
        kd.analyze(models.llama(), "a", tokenizer=Letters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_was_found_before_a_block_that_is_not_finite_is_kept_in_memory_too(dtype):
    """One weight of the second of three blocks: without a file and in one go, the block and the weight are named."""
    model = models.llama().to(getattr(torch, dtype))
    whole = kd.analyze(model, IDS, batch_size=1)
    model.model.layers[1].mlp.up_proj.weight.data[0, 0] = torch.nan
    found = kd.analyze(model, IDS, batch_size=1)
    assert meta(found)["blocks_done"] == 1
    assert meta(found)["stopped"].startswith("block 2: weight mlp.up_proj.weight holds NaN")
    same(found, whole.isel(layer=slice(2), block=slice(1)))
    kd.report.findings(found)


def test_states_that_overflow_in_one_sequence_alone_end_all_at_that_block():
    """Only the third sequence has the token; the others are cut to the same layers, and no weight is blamed."""
    model = models.llama()
    whole = kd.analyze(model, IDS, batch_size=1)

    def overflow(module, args, output):
        state = output[0] if isinstance(output, tuple) else output
        return (state * torch.inf, *output[1:]) if isinstance(output, tuple) else state * torch.inf

    calls = []
    model.model.layers[2].register_forward_hook(
        lambda m, args, out: calls.append(1) or (overflow(m, args, out) if len(calls) == 3 else out)
    )
    found = kd.analyze(model, IDS, batch_size=1)
    assert meta(found)["stopped"].startswith("model must have finite hidden states, but block 3 gives NaN")
    same(found, whole.isel(layer=slice(3), block=slice(2)))
