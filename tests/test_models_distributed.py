"""Whole models in two processes (gloo, or NCCL): a step under DDP and under FSDP2 is the step of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

hf = pytest.importorskip("transformers")

from krause_dynamics.models import (  # noqa: E402
    KrauseLM,
    KrauseLMConfig,
    add_krause_branch,
    krausify,
    lora_config,
    shard,
)
from tests.model_sizes import WORDS, gated_base, seeded, words  # noqa: E402

TWO_GPUS = (pytest.mark.gpu, pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs"))
DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=TWO_GPUS)]

MODELS = {
    "own": lambda: seeded(KrauseLM, KrauseLMConfig(**WORDS, gate=True, tie_word_embeddings=False), torch.float32),
    "krausified": lambda: krausify(gated_base("llama").float(), window=6, top_k=3),
    "gated": lambda: add_krause_branch(gated_base("llama").float(), window=6, top_k=3, sigma=1.5),
}


def with_adapter(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, lora_config(model, rank=2), autocast_adapter_dtype=False)


HALF = {
    "krausified": lambda: krausify(gated_base("llama").bfloat16(), window=6, top_k=3),
    "gated": lambda: add_krause_branch(gated_base("llama").bfloat16(), window=6, top_k=3, sigma=1.5),
    "adapter": lambda: with_adapter(HALF["gated"]()),
}


def made(name):
    torch.manual_seed(0)
    return MODELS[name]().train()


def blocks_of(model):
    return model.model.layers if hasattr(model, "model") else model.layers


def weights_after_a_step(model, x):
    """All weights after one step, whole, by their names in the plain model."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model(input_ids=x, labels=x, use_cache=False).loss.backward()
    optimizer.step()
    named = getattr(model, "module", model).named_parameters()
    return {name: getattr(p, "full_tensor", lambda p=p: p)().detach().clone() for name, p in named}


def started(rank, path, device):
    """One of two processes, on a device of its own."""
    torch.set_num_threads(1)
    if device == "cuda":
        torch.cuda.set_device(rank)
    backend = {"cpu": "gloo", "cuda": "nccl"}[device]
    dist.init_process_group(backend, init_method=f"file://{path}", rank=rank, world_size=2)


def ended():
    """Neither leaves while the other still talks to it."""
    dist.barrier()
    dist.destroy_process_group()


def work(rank, path, name, device):
    started(rank, path, device)
    x = words(16, batch=4).to(device)
    alone, before = made(name).to(device), {key: p.detach().clone() for key, p in made(name).named_parameters()}
    expected = weights_after_a_step(alone, x)
    moved = [key for key in expected if not torch.equal(expected[key].cpu(), before[key])]
    assert any("log_sigma" in key for key in moved)
    sharded = made(name).to(device)
    mesh = init_device_mesh(device, (2,))
    for block in blocks_of(sharded):
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for model in (DistributedDataParallel(made(name).to(device)), sharded):
        found = weights_after_a_step(model, x.chunk(2)[rank])
        assert found.keys() == expected.keys()
        for key in expected:
            # Means of two halves in float32: a few units of rounding of the largest entries.
            torch.testing.assert_close(
                found[key], expected[key], rtol=2e-4, atol=5e-6, msg=lambda m, k=key: f"{k}: {m}"
            )
    ended()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_two_processes_is_that_of_one(tmp_path, name, device):
    torch.multiprocessing.spawn(work, (str(tmp_path / "store"), name, device), nprocs=2)


def work_in_half(rank, path, device):
    started(rank, path, device)
    x = words(16, batch=4).to(device)
    for make in HALF.values():
        results = []
        for whole in (True, False):
            torch.manual_seed(0)
            model = make().train().to(device)
            before = {key: p.detach().clone() for key, p in model.named_parameters() if "log_sigma" in key}
            found = weights_after_a_step(model if whole else shard(model), x if whole else x.chunk(2)[rank])
            moves = {key: found[key] - before[key] for key in before if not torch.equal(found[key], before[key])}
            results.append((found, moves))
        assert results[0][0].keys() == results[1][0].keys()
        assert {value.dtype for value in results[1][1].values()} == {torch.float32}
        assert len(results[0][1]) == 2
        for (one, two), scale in zip(zip(*results, strict=True), (1.0, 0.05), strict=True):
            for key, value in one.items():
                # Forward passes of 4 and of 2 rows round alike, sums of gradients in bfloat16 (8 bits) do not.
                torch.testing.assert_close(two[key], value, rtol=0.05, atol=0.02 * scale, msg=key)
    ended()


@pytest.mark.parametrize("device", DEVICES)
def test_sharded_models_of_bfloat16_move_their_bandwidths_in_float32(tmp_path, device):
    torch.multiprocessing.spawn(work_in_half, (str(tmp_path / "store"), device), nprocs=2)


def llama():
    """A krausified Llama with heads as wide as those of large ones."""
    torch.manual_seed(0)
    config = hf.LlamaConfig(
        vocab_size=60, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    return krausify(hf.LlamaForCausalLM(config), window=32, top_k=8).train()


def trained(model, rows):
    """Losses of three steps."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-2), []
    for _ in range(3):
        loss = model(input_ids=rows, labels=rows, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


def work_and_save(rank, path, folder, device):
    started(rank, path, device)
    x = words(200, batch=4, vocabulary=60).to(device)
    sharded = shard(llama().to(device))
    losses = trained(sharded, x.chunk(2)[rank])
    dist.all_reduce(losses)
    # Means of two halves in float32; a step of AdamW (nearly lr times a sign) makes rounding of small gradients seen.
    torch.testing.assert_close(losses / 2, trained(llama().to(device), x), rtol=1e-3, atol=1e-4)
    whole = get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    with torch.no_grad():
        expected = sharded.eval()(input_ids=x, use_cache=False).logits
    if rank == 0:
        sharded.save_pretrained(folder, state_dict=whole)
        loaded = hf.AutoModelForCausalLM.from_pretrained(folder).eval().to(device)
        with torch.no_grad():
            # The same weights and kernels, whole instead of gathered.
            torch.testing.assert_close(loaded(input_ids=x, use_cache=False).logits, expected, rtol=1e-5, atol=1e-5)
    ended()


@pytest.mark.parametrize("device", DEVICES)
def test_a_sharded_llama_trains_as_one_and_its_folder_is_read_by_one_process(tmp_path, device):
    given = (str(tmp_path / "store"), str(tmp_path / "folder"), device)
    torch.multiprocessing.spawn(work_and_save, given, nprocs=2)


def test_a_loop_of_accelerate_trains_what_a_plain_loop_trains():
    """The gated model with gradient accumulation: two half batches a step are one whole one."""
    accelerate = pytest.importorskip("accelerate")
    x, results = words(12, batch=4), []
    for parts in (1, 2):
        model = made("gated")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        helper = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=parts)
        model, optimizer = helper.prepare(model, optimizer)
        losses = []
        for _ in range(4):
            for half in x.chunk(parts):
                with helper.accumulate(model):
                    loss = model(input_ids=half, labels=half).loss
                    helper.backward(loss)
                    optimizer.step()
                    optimizer.zero_grad()
            losses.append(loss.item())
        assert losses[-1] < losses[0]
        results.append(helper.unwrap_model(model).state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-3, atol=1e-5)
