"""Weights of a model spread over processes (FSDP2), the learned numbers of a score in groups of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from krause_dynamics._arguments import Is, reads
from krause_dynamics.nn.parts import PerHead


@reads(model=Is(nn.Module, "a model of this package, krausified or with a Krause branch"))
def shard(model: Any, mesh: Any = None, **options: Any) -> Any:
    """``torch.distributed.fsdp.fully_shard`` of every block and of the model, which may be in half precision.

    A group of FSDP2 holds one dtype. Log sigma and coefficients of key norms stay float32 in a model of bfloat16 (their
    steps would be lost to rounding), so that a block as a whole is refused by FSDP2; here they are groups of their own,
    a few bytes each, and are computed with in float32 whatever ``mp_policy`` says.

    Args:
        model: On this process, before any optimiser; it is changed where it stands. What frozen LoRA bases need beside
            is peft's: adapters in the dtype of the base (``autocast_adapter_dtype=False``).
        mesh: Of the processes, a ``DeviceMesh``; default: all of them.
        **options: Further arguments of ``fully_shard``, such as ``mp_policy`` and ``reshard_after_forward``.

    Returns:
        The model.

    Raises:
        TypeError: An option that ``fully_shard`` does not have.

    Examples:
        >>> from krause_dynamics.models import krausify, shard
        >>> shard(krausify(model.bfloat16(), window=128, top_k=64))  # doctest: +SKIP
    """
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    blocks = set(getattr(model, "_no_split_modules", None) or ())
    modules = list(model.modules())
    exact = {**options, "mp_policy": MixedPrecisionPolicy()}
    for part in modules:
        if isinstance(part, PerHead) and part.weight.dtype == torch.float32:
            fully_shard(part, mesh=mesh, **exact)
    for part in modules:
        if type(part).__name__ in blocks:
            fully_shard(part, mesh=mesh, **options)
    fully_shard(model, mesh=mesh, **options)
    return model
