"""What `krausify` is given: whether a model can be served, which layers, who is heard in them, and how widely."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from krause_dynamics._arguments import COUNT
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import Grid, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.krausified_classes import PREFIX
from krause_dynamics.models.krausified_layers import attention_modules
from krause_dynamics.models.krausified_sigma import head_count, head_size
from krause_dynamics.nn.hearing import RADIUS, within
from krause_dynamics.nn.huggingface.first_tokens import own_window
from krause_dynamics.nn.huggingface.options import is_causal, masks_are_causal
from krause_dynamics.nn.huggingface.own_code import own_attention


def check_model(model: Any) -> None:
    """The model can be served.

    Raises:
        TypeError: Not a model of transformers.
        UnsupportedModel: It cannot; the message says why.
    """
    who = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        way = "; krausify the model inside it first" if hasattr(model, "get_base_model") else ""
        way = "; krausify its .module" if isinstance(getattr(model, "module", None), PreTrainedModel) else way
        raise TypeError(f"model must be a model of transformers, got {who}{way}")
    config, kind, reason = model.config, str(model.config.model_type), None
    if kind.startswith(PREFIX):
        reason = f"it is a Krause model already ({kind}); kd.unkrausify(model) first"
    elif (own := own_attention(model)) is not None:
        part = "" if own == who else f" in a part of it ({own})"
        reason = f"it has attention code of its own{part}, outside the attention registry of transformers"
    elif config.is_encoder_decoder or getattr(config, "add_cross_attention", False):
        reason = "its cross-attention has no common places of queries and keys"
    elif config.sub_configs:
        reason = f"it is made of several models ({', '.join(config.sub_configs)}); krausify one of them, in its place"
    elif kind not in CONFIG_MAPPING or type(config) is not CONFIG_MAPPING[kind]:
        reason = f"the Auto classes do not know its configuration ({type(config).__name__}), so that it could not load"
    elif not attention_modules(model):
        reason = "none of its modules calls the attention registry"
    if reason:
        raise UnsupportedModel(f"{who} cannot be krausified: {reason}")


def chosen_layers(layers: Iterable[int] | slice | None, count: int) -> list[int]:
    """Indices of the chosen layers, ascending.

    Raises:
        ValueError: None, or one that does not exist.
    """
    if layers is None or isinstance(layers, slice):
        layers = list(range(count))[layers or slice(None)]
    several = isinstance(layers, Iterable) and not isinstance(layers, str)
    given: list[Any] = list(layers) if several else [layers]  # type: ignore[arg-type]
    wrong = [i for i in given if isinstance(i, bool) or not isinstance(i, int | np.integer) or not -count <= i < count]
    if wrong or not given:
        raise ValueError(
            f"layers must be among {-count}, ..., {count - 1}, got {layers!r}; range(-2, 0) are the last two"
        )
    return sorted({int(i) % count for i in given})


def place_of(
    model: Any, parts: list[Any], heard: Neighbourhood | None, window: int | None, grid: Any, prefix: int
) -> Neighbourhood | None:
    """Who is heard by place; ``None``: everyone that the model lets."""
    if prefix and window is None and grid is None:
        raise ValueError(f"prefix_tokens={prefix} stay visible beside a window or a grid; give one of them")
    found = [] if heard is None else [heard]
    if window is not None:
        causal = all(is_causal(part) for part in parts) or masks_are_causal(model)
        found.append(Window(window, two_sided=not causal, prefix_tokens=prefix))
    if grid is not None:
        if not isinstance(grid, Grid):
            if not isinstance(grid, tuple | list) or len(grid) != 2:
                raise ValueError(
                    f"grid must be (height, width), or a kd.Grid of another radius or metric, got {grid!r}"
                )
            grid = Grid(grid[0], grid[1], radius=RADIUS, prefix=prefix)
        image, patch = (getattr(model.config, name, None) for name in ("image_size", "patch_size"))
        if isinstance(image, int) and isinstance(patch, int) and grid.height * grid.width != (image // patch) ** 2:
            raise ValueError(
                f"grid must be the picture of the model, {image // patch} x {image // patch} patches, got "
                f"{grid.height} x {grid.width}"
            )
        found.append(grid)
    joined: Neighbourhood | None = None
    for part in found:
        joined = part if joined is None else joined & part
    return joined


def check_first_tokens(parts: list[Any], place: Neighbourhood | None) -> None:
    """The windows that layers have of their own do not hide the first tokens.

    Raises:
        UnsupportedModel: They would, at every call.
    """
    first = 0 if place is None else within(place)[0].first
    windows = [own_window(part) for part in parts] if first else []
    narrow = [window for window in windows if window is not None]
    if narrow:
        raise UnsupportedModel(
            f"{len(narrow)} of the chosen layers have a window of their own, {narrow[0]} keys, which hides the {first} "
            f"first tokens; leave out prefix_tokens={first}, or these layers (layers=)"
        )


def ranks_of(top_k: int | Sequence[int] | None, count: int) -> list[int | None]:
    """K of each layer."""
    if top_k is None or not isinstance(top_k, Iterable) or isinstance(top_k, str):
        return [None if top_k is None else COUNT.read("top_k", top_k)] * count
    given = [COUNT.read("top_k", k) for k in top_k]
    if len(given) == count:
        return list(given)
    if len(given) != 2:
        raise ValueError(f"top_k must be a number, a pair (first, last) or {count} numbers, one a layer, got {top_k!r}")
    return [int(k) for k in np.linspace(given[0], given[1], count).round()]


def sigmas_of(sigma: Any, parts: list[Any], config: Any, per_head: bool) -> list[Any]:
    """The starting bandwidth of each layer: a number, or (heads, 1)."""
    if sigma is None:
        sigma = [head_size(part, config) ** 0.25 for part in parts]
    several = isinstance(sigma, list | tuple) or getattr(sigma, "ndim", 0) > 0
    values = list(sigma) if several else [sigma] * len(parts)
    if len(values) != len(parts):
        raise ValueError(f"sigma must be a number or one for each of the {len(parts)} layers, got {len(values)}")
    found: list[Any] = []
    for part, value in zip(parts, values, strict=True):
        heads = head_count(part, config)
        entries = np.asarray(_plain(value)).reshape(-1)
        entries = entries.astype(float) if entries.dtype.kind in "iuf" else np.empty(0)
        if len(entries) not in (1, heads) or not (entries > 0).all() or not np.isfinite(entries).all():
            raise ValueError(
                f"sigma of a layer must be positive, one number or one for each of {heads} heads, got {value}"
            )
        many = per_head or len(entries) > 1
        found.append(np.broadcast_to(entries, heads)[:, None].copy() if many else float(entries[0]))
    return found


def _plain(x: Any) -> Any:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x
