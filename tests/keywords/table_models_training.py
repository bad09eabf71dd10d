"""Groups of weights for an optimiser, and of those that are sharded."""

from __future__ import annotations

from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy

from krause_dynamics.models import KrauseLM, KrauseLMConfig, parameter_groups, shard
from tests.keywords.row import row
from tests.model_sizes import WORDS, seeded, words


def model(score="dot+temperature+key_norm"):
    return KrauseLM(KrauseLMConfig(**WORDS, score=score))


@row("kd.models.parameter_groups", "model", "dot", "gaussian", "every weight that learns stands once, vectors apart")
def groups(first, second):
    for score in (first, second):
        decaying, free = parameter_groups(model(score))
        assert {p.ndim for p in decaying["params"]} == {2}
        assert {p.ndim for p in free["params"]} == {1}
        learned = [p for p in model(score).parameters() if p.requires_grad]
        assert len(decaying["params"]) + len(free["params"]) == len(learned)


@row(
    "kd.models.parameter_groups", "weight_decay", 0.05, 0.5, "without gradients matrices shrink by it, log sigma stays"
)
def weight_decay(first, second):
    for decay in (first, second):
        network = model()
        before = {name: p.detach().clone() for name, p in network.named_parameters()}
        optimiser = torch.optim.AdamW(parameter_groups(network, decay), lr=0.1)
        for p in network.parameters():
            p.grad = torch.zeros_like(p)
        optimiser.step()
        for name, p in network.named_parameters():
            torch.testing.assert_close(p, before[name] * (1 - 0.1 * decay if p.ndim == 2 else 1.0))
    with pytest.raises(ValueError, match="weight_decay"):
        parameter_groups(model(), -first)


@contextmanager
def alone():
    """A group of one process."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


def network(dtype=torch.float32):
    return seeded(KrauseLM, KrauseLMConfig(**WORDS), torch.float32).to(dtype)


@row("kd.models.shard", "model", torch.float32, torch.bfloat16, "numbers stay, log sigma is a group of its own")
def sharded(first, second):
    with alone():
        for dtype in (first, second):
            model = shard(network(dtype))
            # Alike to a few roundings: q, k and v of a model that is not sharded are one product.
            torch.testing.assert_close(model(words(9)).logits, network(dtype)(words(9)).logits, rtol=1e-5, atol=2e-6)
            parts = [name for name, part in model.named_modules() if isinstance(part, FSDPModule)]
            assert len([name for name in parts if name.endswith("log_sigma")]) == len(model.layers)
            assert len([name for name in parts if name.startswith("layers") and name.count(".") == 1]) == 2


@row("kd.models.shard", "mesh", None, (1,), "of one process either way")
def mesh_of(first, second):
    with alone():
        results = [
            shard(network(), None if mesh is None else init_device_mesh("cpu", mesh))(words(9)).logits
            for mesh in (first, second)
        ]
    assert torch.equal(*results)


@row("kd.models.shard", "options", {}, {"half": True}, "a policy of FSDP holds for matrices, log sigma is float32")
def options_of(first, second):
    with alone():
        for given, dtype in ((first, torch.float32), (second, torch.bfloat16)):
            policy = {"mp_policy": MixedPrecisionPolicy(param_dtype=torch.bfloat16)} if given else {}
            model, seen = shard(network(), **policy), []
            layer = model.layers[0].attention
            layer.log_sigma.register_forward_hook(lambda m, x, out, into=seen: into.append(out.dtype))
            layer.q_proj.register_forward_hook(lambda m, x, out, into=seen: into.append(out.dtype))
            model(words(9))
            assert set(seen) == {torch.float32, dtype}
