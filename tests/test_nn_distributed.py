"""Two processes with gloo: gradients of replicated (DDP) and of sharded (FSDP2) layers equal those of one process."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from krause_dynamics.nn import KrauseAttention


def layer():
    torch.manual_seed(0)
    return KrauseAttention(32, 4, window=8, top_k=4, sigma_per_head=True)


def loss_of(model, x):
    return model(x).square().mean()


def work(rank, path):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{path}", rank=rank, world_size=2)
    x = torch.randn(4, 20, 32, generator=torch.Generator().manual_seed(1))
    alone = layer()
    loss_of(alone, x).backward()
    expected = {name: p.grad for name, p in alone.named_parameters()}
    replicated, sharded = DistributedDataParallel(layer()), layer()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (2,)))
    for model in (replicated, sharded):
        loss_of(model, x.chunk(2)[rank]).backward()
        named = getattr(model, "module", model).named_parameters()
        found = {name: getattr(p.grad, "full_tensor", lambda p=p: p.grad)() for name, p in named}
        assert found.keys() == expected.keys()
        for name in expected:
            # Means of two halves in float32: a few units of rounding.
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
    # Neither leaves while the other still talks to it.
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    torch.multiprocessing.spawn(work, (str(tmp_path / "store"),), nprocs=2)
