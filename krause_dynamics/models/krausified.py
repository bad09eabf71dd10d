"""A trained Transformer whose attention becomes the rule: `krausify`, and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from krause_dynamics._arguments import FLAG, reads
from krause_dynamics.interaction import Grid, TopK, krause
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.krausified_arguments import (
    check_first_tokens,
    check_model,
    chosen_layers,
    place_of,
    ranks_of,
    sigmas_of,
)
from krause_dynamics.models.krausified_becoming import become
from krause_dynamics.models.krausified_classes import Krausified, turn
from krause_dynamics.models.krausified_layers import attention_modules, remove
from krause_dynamics.models.krausified_sigma import starting_sigmas
from krause_dynamics.nn.hearing import within


@reads()
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
    chosen = chosen_layers(layers, len(parts))
    place = place_of(model, parts, neighbourhood, window, grid, prefix_tokens)
    check_first_tokens([parts[i] for i in chosen], place)
    ranks = ranks_of(top_k, len(chosen))
    if sigma is None and sample is not None:
        sigma = starting_sigmas(model, [parts[i] for i in chosen], sample, sigma_per_head)
    sigmas = sigmas_of(sigma, [parts[i] for i in chosen], model.config, sigma_per_head)
    rules: list[dict[str, Any] | None] = [None] * len(parts)
    for i, k, start in zip(chosen, ranks, sigmas, strict=True):
        rule = krause(start, place if k is None else place & TopK(k) if place is not None else TopK(k))
        within(rule.neighbourhood)
        rules[i] = rule.to_dict()
    turn(model, rules, learn_sigma)
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
    base = kind.krause_base
    before = getattr(model.config, "krause_base_attention", None)
    become(model, base)
    for name in ("krause", "krause_learns", "krause_base_attention"):
        vars(model.config).pop(name, None)
    model.config._attn_implementation_internal = before
    if before is None:
        model.config._attn_implementation_internal = model._check_and_adjust_attn_implementation(None)
    return model
