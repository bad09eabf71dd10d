"""Folders of models that another class would read as something else, and folders that lack a part of their model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from krause_dynamics.nn.parts import PerHead

ATTENTION = "that of the package krause_dynamics"
"""What a saved configuration names as its attention: a class of transformers that shares the other weights (a Llama for
a krausified Llama) knows no such attention and does not load, instead of leaving the rule or the branch out."""


class OwnFolder:
    """Mixed into a configuration of transformers: what it writes is read by its own class alone."""

    def to_dict(self) -> dict[str, Any]:
        """As in transformers, with an attention that no other class knows."""
        return {**super().to_dict(), "attn_implementation": ATTENTION}  # type: ignore[misc]

    def __post_init__(self, **kwargs: Any) -> None:
        """As in transformers; what `to_dict` wrote is no attention that was asked for."""
        if kwargs.get("attn_implementation") == ATTENTION:
            del kwargs["attn_implementation"]
        super().__post_init__(**kwargs)  # type: ignore[misc]

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """As in transformers; the attention is that of the class."""
        named = config_dict.get("attn_implementation") == ATTENTION
        given = {k: v for k, v in config_dict.items() if k != "attn_implementation"} if named else config_dict
        return super().from_dict(given, **kwargs)  # type: ignore[misc]


def check_complete(info: dict[str, Any], wanted: Callable[[str], bool], advice: str) -> None:
    """Refuse files that lack weights, which transformers would start afresh and tell its log alone.

    Args:
        info: The loading info of transformers.
        wanted: Which names of weights the files must hold.
        advice: The way out, for the message.

    Raises:
        ValueError: Naming how many are missing, and one of them.
    """
    lost = sorted(name for name in info["missing_keys"] if wanted(name))
    if lost:
        raise ValueError(f"the files lack {len(lost)} weights of this model, such as {lost[0]}; {advice}")


def fix_what_is_not_learned(model: nn.Module) -> None:
    """Numbers of scores that are not trained: a loader of transformers makes whatever it fills trainable."""
    for part in model.modules():
        if isinstance(part, PerHead):
            part.weight.requires_grad_(part.learn)
