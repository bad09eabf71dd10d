"""A trained Transformer whose attention becomes the rule: `krausify`, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils.output_capturing import _CAN_RECORD_REGISTRY

from krause_dynamics._arguments import COUNT, FLAG
from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.interaction import Grid, TopK, Window, krause
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.krausified_classes import (
    PREFIX,
    Krausified,
    attention_modules,
    grow,
    krause_class,
    remove,
)
from krause_dynamics.models.krausified_sigma import head_size, starting_sigmas
from krause_dynamics.nn.hearing import RADIUS, within
from krause_dynamics.nn.huggingface.options import is_causal


def krausify(
    model: Any,
    neighbourhood: Neighbourhood | None = None,
    *,
    window: int | None = None,
    top_k: int | Sequence[int] | None = None,
    sigma: float | Sequence[Any] | None = None,
    grid: tuple[int, int] | Grid | None = None,
    prefix_tokens: int = 0,
    layers: Iterable[int] | slice | None = None,
    sigma_per_head: bool = False,
    learn_sigma: bool = True,
    sample: Any = None,
) -> Any:
    """Give a model of transformers the attention of the Krause model, with a learnable bandwidth in every layer.

    The model is changed where it stands and returned: it becomes a subclass with its own ``model_type`` (such as
    ``krause_llama``), which `save_pretrained` and the Auto classes store and load without loss; a class of transformers
    (`LlamaForCausalLM`) refuses the folder. Its own mask, options and caches are kept
    (`krause_dynamics.nn.huggingface`); weights are shared out to nobody. A model that is refused is left as it was.

    Args:
        model: A model that dispatches its attention through the registry of transformers, not an encoder-decoder.
        neighbourhood: Who is heard, as in `nn.krause_attention`; the short forms below join it.
        window: W keys, the query's own counted; of the past in causal models, centred on the query in others (odd).
        top_k: Keys that stay. One number is that number in every layer, as ``TopK(k)`` and ``top_k=`` mean it
            everywhere else here: a rank that grew unasked would show in no configuration that the user wrote. A pair
            (first layer, last layer) has equal steps between, rounded half to even; ``(k, 2 * k)`` is the schedule
            of 2602.11534. Or one number a chosen layer.
        sigma: Starting bandwidth: one number, or one a chosen layer, each a number or one per head. Default: from the
            norms of the keys of ``sample`` (see `starting_sigmas`), else head_dim^(1/4).
        grid: (height, width) of a picture with radius 2, or a `Grid`.
        prefix_tokens: First tokens that stay visible: beside the window, or beside the picture (CLS, registers). Each
            sequence has its own, behind padding and in packed rows too.
        layers: Which layers; negative ones count from the end, ``range(-6, 0)`` are the last six. Default all;
            the others keep their softmax.
        sigma_per_head: One bandwidth per head rather than one per layer.
        learn_sigma: Whether log sigma is trained.
        sample: Input of one forward pass, a tensor or a dictionary, to start sigma from the norms of the keys.

    Returns:
        The model.

    Raises:
        UnsupportedModel: The model cannot be served; the message says why.
        ValueError: Impossible sizes, layers that do not exist, lists of another length, a grid that is not the picture.

    Source: Krause Synchronization Transformers, 2602.11534.

    Examples:
        >>> from transformers import LlamaConfig, LlamaForCausalLM
        >>> base = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16,
        ...                                     num_hidden_layers=2, num_attention_heads=2))
        >>> krausify(base, window=4, top_k=2).config.model_type
        'krause_llama'
    """
    check_model(model)
    FLAG.read("sigma_per_head", sigma_per_head)
    FLAG.read("learn_sigma", learn_sigma)
    parts = attention_modules(model)
    chosen = _chosen(layers, len(parts))
    place = _place(model, parts, neighbourhood, window, grid, prefix_tokens)
    ranks = _ranks(top_k, len(chosen))
    if sigma is None and sample is not None:
        sigma = starting_sigmas(model, [parts[i] for i in chosen], sample, sigma_per_head)
    sigmas = _sigmas(sigma, [parts[i] for i in chosen], model.config, sigma_per_head)
    rules: list[dict[str, Any] | None] = [None] * len(parts)
    for i, k, start in zip(chosen, ranks, sigmas, strict=True):
        rule = krause(start, place if k is None else place & TopK(k) if place is not None else TopK(k))
        within(rule.neighbourhood)
        rules[i] = rule.to_dict()
    base, before = type(model), model.config
    _become(model, krause_class(base))
    config = model.config
    config.krause, config.krause_learns = rules, learn_sigma
    config.krause_base_attention, config._attn_implementation_internal = config._attn_implementation, "krause"
    try:
        grow(model)
    except Exception:
        remove(model)
        _become(model, base, before)
        raise
    return model


def unkrausify(model: Any) -> Any:
    """The model as it was before `krausify`: its class, its configuration, its attention, its outputs bit for bit.

    Weights that were trained meanwhile stay as they are; the bandwidths are dropped.

    Args:
        model: A krausified model, loaded from a folder or not; it is changed where it stands.

    Returns:
        The model.

    Raises:
        TypeError: It is not krausified.
    """
    kind: Any = type(model)
    if not issubclass(kind, Krausified):
        raise TypeError(f"model must be a krausified one, got {kind.__name__}; see kd.krausify")
    remove(model)
    base = kind.__mro__[2]
    before = getattr(model.config, "krause_base_attention", None)
    _become(model, base)
    for name in ("krause", "krause_learns", "krause_base_attention"):
        vars(model.config).pop(name, None)
    model.config._attn_implementation_internal = before
    if before is None:
        model.config._attn_implementation_internal = model._check_and_adjust_attn_implementation(None)
    return model


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
    elif not model._can_set_attn_implementation():
        reason = "it has attention code of its own, outside the attention registry of transformers"
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


def _become(model: Any, kind: Any, config: Any = None) -> None:
    """Another class, with a configuration of its own unless one is given: configurations are shared between models."""
    shared = model.config
    if config is None:
        config = copy.deepcopy(shared)
        config.__class__ = kind.config_class
        vars(config).pop("model_type", None)  # of a file that was loaded: it would hide the class's own
    for module in model.modules():
        if getattr(module, "config", None) is shared:
            module.config = config
    model.__class__ = kind
    _CAN_RECORD_REGISTRY[model] = model._can_record_outputs  # transformers keeps it by the name of the class


def _chosen(layers: Iterable[int] | slice | None, count: int) -> list[int]:
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


def _place(
    model: Any, parts: list[Any], heard: Neighbourhood | None, window: int | None, grid: Any, prefix: int
) -> Neighbourhood | None:
    """Who is heard by place; ``None``: everyone that the model lets."""
    if prefix and window is None and grid is None:
        raise ValueError(f"prefix_tokens={prefix} stay visible beside a window or a grid; give one of them")
    found = [] if heard is None else [heard]
    if window is not None:
        causal = all(is_causal(part) for part in parts)
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


def _ranks(top_k: int | Sequence[int] | None, count: int) -> list[int | None]:
    """K of each layer."""
    if top_k is None or not isinstance(top_k, Iterable) or isinstance(top_k, str):
        return [None if top_k is None else COUNT.read("top_k", top_k)] * count
    given = [COUNT.read("top_k", k) for k in top_k]
    if len(given) == count:
        return list(given)
    if len(given) != 2:
        raise ValueError(f"top_k must be a number, a pair (first, last) or {count} numbers, one a layer, got {top_k!r}")
    return [int(k) for k in np.linspace(given[0], given[1], count).round()]


def _sigmas(sigma: Any, parts: list[Any], config: Any, per_head: bool) -> list[Any]:
    """The starting bandwidth of each layer: a number, or (heads, 1)."""
    heads = int(config.num_attention_heads)
    if sigma is None:
        sigma = [head_size(part, config) ** 0.25 for part in parts]
    several = isinstance(sigma, list | tuple) or getattr(sigma, "ndim", 0) > 0
    values = list(sigma) if several else [sigma] * len(parts)
    if len(values) != len(parts):
        raise ValueError(f"sigma must be a number or one for each of the {len(parts)} layers, got {len(values)}")
    found: list[Any] = []
    for value in values:
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
