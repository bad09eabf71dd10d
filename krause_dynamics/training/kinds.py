"""Which models can be trained, and what of their configuration follows from the data.

Names only: the models themselves, which need transformers, are imported where one is built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from krause_dynamics._value import check_names
from krause_dynamics.training.adapted import adapted


@dataclass(frozen=True)
class Kind:
    """A kind of model.

    Attributes:
        task: What it learns: ``classes`` of pictures, ``levels`` of pictures one after the other, ``tokens`` of text.
        model: Name of its class in `krause_dynamics.models`; its configuration has the same with ``Config``. Empty for
            a pretrained model, which is not ours.
        settings: Name of a size -> name of the setting of `krause_dynamics.models.published`.
    """

    task: str
    model: str
    settings: Mapping[str, str]


KINDS = {
    "kvit": Kind(
        "classes",
        "KrauseViT",
        {"tiny": "kvit-tiny-cifar10", "small": "kvit-small-cifar10", "base": "kvit-base-cifar10"},
    ),
    "kswin": Kind("classes", "KrauseSwin", {"tiny": "kswin-tiny-cifar10"}),
    "karm": Kind("levels", "KARM", {"mnist": "karm-mnist", "cifar10": "karm-cifar10"}),
    "lm": Kind("tokens", "KrauseLM", {"100m": "lm-100m", "200m": "lm-200m"}),
    "gated": Kind("tokens", "", {}),
}


def build(table: Mapping[str, Any], drop_path: float, follows: Mapping[str, Any]) -> Any:
    """A fresh model.

    Args:
        table: ``[model]`` of the configuration.
        drop_path: Of ``[training]``.
        follows: Keys that the data decide.

    Raises:
        ValueError: An unknown size or key, or a key that contradicts the data.
    """
    from krause_dynamics import models

    keys = dict(table)
    kind = KINDS[keys.pop("kind")]
    if not kind.model:
        return adapted(keys, follows)
    size = keys.pop("size", None)
    if size is not None:
        check_names("model.size", [size], list(kind.settings))
    for name, value in follows.items():
        if keys.setdefault(name, value) not in (value, [value, value]):
            raise ValueError(f"model.{name} must be {value}, as the data are, got {keys[name]!r}; leave it out")
    if drop_path and keys.setdefault("drop_path", drop_path) != drop_path:
        raise ValueError(f"drop_path stands in [model] and [training]: {keys['drop_path']} and {drop_path}; keep one")
    if size is not None:
        config = models.published(kind.settings[size], **keys)
    else:
        config = getattr(models, f"{kind.model}Config")(**keys)
    return getattr(models, kind.model)(config)
