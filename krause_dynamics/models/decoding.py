"""The caches of a model's layers as one object that ``generate`` of transformers understands; paged ones are not."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from krause_dynamics.errors import UnsupportedModel


class Unpaged:
    """Mixed into models whose attention, or a branch of it, does not read the paged cache of continuous batching."""

    config: Any

    def init_continuous_batching(self, *args: Any, **kwargs: Any) -> Any:
        """As in transformers where a gate is closed.

        Raises:
            UnsupportedModel: Everywhere else; a branch would hear tokens of other requests, and none of the past.
        """
        if (getattr(self.config, "krause_branch", None) or {}).get("gate") == "closed":
            return super().init_continuous_batching(*args, **kwargs)  # type: ignore[misc]
        raise UnsupportedModel(
            f"continuous batching (generate_batch, cache_implementation='paged') does not serve {type(self).__name__}: "
            "Krause attention reads no paged cache; use generate, which takes batches padded on the left"
        )


class Caches(list[Any]):
    """One rolling cache a layer (or a branch), advanced together.

    Attributes:
        seen: Number of tokens ever appended.
        step: What a model has prepared to continue these caches by one token (`stepping`), or ``None``.
    """

    step: Any = None
    is_compileable = False  # the host counts; `static=True` caches are captured by our own loop

    @property
    def seen(self) -> Any:
        """Number of tokens ever appended: the position of the next one."""
        return self[0].seen

    def __getstate__(self) -> None:
        """Nothing beside the caches: a step belongs to these buffers and to one model, so that copies begin anew."""

    def reset(self) -> None:
        """Forget everything."""
        for cache in self:
            cache.reset()

    def reorder(self, beams: Tensor) -> None:
        """Batch element b becomes the former element ``beams[b]``."""
        for cache in self:
            cache.reorder(beams)

    reorder_cache = reorder  # the names of transformers

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of tokens ever appended, as transformers asks for it."""
        return int(self[layer_idx].seen)
