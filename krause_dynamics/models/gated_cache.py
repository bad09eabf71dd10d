"""Keys and values of the Krause branches in the cache of the model that they belong to."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicSlidingWindowLayer

from krause_dynamics.models.padding import check_cache


class KrauseLayer(DynamicSlidingWindowLayer):
    """Keys and values of the branch in a cache of transformers: the last W - 1, beside the model's own.

    To the mask functions it is no sliding layer and as static as the model's own, since masks follow those.
    """

    is_sliding = False
    missed = False  # whether tokens went by while the gate was closed

    def __init__(self, window: int, is_compileable: bool) -> None:
        super().__init__(window)
        self.is_compileable = is_compileable

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """As its parent's, with the window written on the device: no CUDA graph holds a copy from the host."""
        self._sliding_window_tensor = torch.full((), self.sliding_window, dtype=torch.long, device=key_states.device)
        super().lazy_initialization(key_states, value_states)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """As its parent's; the first tokens, all that there are in training, are handed back without a copy."""
        if self.is_initialized or self.record_past:
            return super().update(key_states, value_states, *args, **kwargs)
        self.lazy_initialization(key_states, value_states)
        self.cumulative_length += key_states.shape[-2]
        self.keys, self.values = (x[:, :, -self.sliding_window + 1 :] for x in (key_states, value_states))
        return key_states, value_states

    def reset(self) -> None:
        """As its parent's; what was missed is forgotten with the rest."""
        super().reset()
        self.missed = False

    def get_max_length(self) -> int:
        """No limit: the cache of the model decides."""
        return -1


def add_layers(cache: Any, count: int, window: int) -> None:
    """Append a `KrauseLayer` for each of the `count` layers of a model to its cache, once.

    Raises:
        TypeError: Not a cache of transformers.
        ValueError: A cache that has seen tokens without the branch, or one that is offloaded.
    """
    check_cache(cache)
    if len(cache.layers) > count:
        return
    if cache.offloading:
        raise ValueError("an offloaded cache does not serve the Krause branch; use DynamicCache or StaticCache")
    if seen := int(cache.get_seq_length()):
        raise ValueError(f"the cache holds {seen} tokens that the Krause branch has not seen; start with an empty one")
    while len(cache.layers) < count and cache.layer_class_to_replicate is not None:
        cache.layers.append(cache.layer_class_to_replicate())
    if len(cache.layers) != count:
        raise ValueError(f"past_key_values must have {count} layers, got {len(cache.layers)}; make it for this model")
    static = cache.is_compileable
    cache.layers.extend(KrauseLayer(window, static) for _ in range(count))


def layer_of(cache: Any, count: int, index: int) -> KrauseLayer:
    """The layer of a branch in a cache.

    Args:
        cache: With the branch's layers behind the `count` of the model.
        count: Layers of the model.
        index: Of the branch.

    Raises:
        ValueError: Tokens went by while the gate was closed.
    """
    layer: KrauseLayer = cache.layers[count + index]
    if layer.missed:
        raise ValueError(
            "the cache holds tokens that the Krause branch has not seen: its gate was closed meanwhile; start with "
            "an empty one"
        )
    return layer


def miss(cache: Any, count: int, index: int) -> None:
    """Note that tokens go by a branch whose gate is closed: its keys of a cache stay behind the model's."""
    if len(cache.layers) > count:
        cache.layers[count + index].missed = True
