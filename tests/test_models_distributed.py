"""Whole models in two processes with gloo: a step under DDP and under FSDP2 is the step of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

pytest.importorskip("transformers")

from krause_dynamics.models import (  # noqa: E402
    KrauseLM,
    KrauseLMConfig,
    add_krause_branch,
    krausify,
    lora_config,
    shard,
)
from tests.model_sizes import WORDS, gated_base, seeded, words  # noqa: E402

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


def work(rank, path, name):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x = words(16, batch=4)
    alone, before = made(name), {key: p.detach().clone() for key, p in made(name).named_parameters()}
    expected = weights_after_a_step(alone, x)
    moved = [key for key in expected if not torch.equal(expected[key], before[key])]
    assert any("log_sigma" in key for key in moved)
    sharded = made(name)
    mesh = init_device_mesh("cpu", (2,))
    for block in blocks_of(sharded):
        fully_shard(block, mesh=mesh)
    fully_shard(sharded, mesh=mesh)
    for model in (DistributedDataParallel(made(name)), sharded):
        found = weights_after_a_step(model, x.chunk(2)[rank])
        assert found.keys() == expected.keys()
        for key in expected:
            # Means of two halves in float32: a few units of rounding of the largest entries.
            torch.testing.assert_close(
                found[key], expected[key], rtol=2e-4, atol=5e-6, msg=lambda m, k=key: f"{k}: {m}"
            )
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_a_step_of_two_processes_is_that_of_one(tmp_path, name):
    torch.multiprocessing.spawn(work, (str(tmp_path / "store"), name), nprocs=2)


def work_in_half(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x = words(16, batch=4)
    for make in HALF.values():
        results = []
        for whole in (True, False):
            torch.manual_seed(0)
            model = make().train()
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
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_sharded_models_of_bfloat16_move_their_bandwidths_in_float32(tmp_path):
    torch.multiprocessing.spawn(work_in_half, (str(tmp_path / "store"),), nprocs=2)


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
