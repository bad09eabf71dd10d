"""Published weights under our names, and folders for transformers made of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from krause_dynamics._arguments import COUNT, FILE, FOLDER, Is, Maybe, reads
from krause_dynamics._files import regular
from krause_dynamics.models.blocks import KrauseModel
from krause_dynamics.models.swin import KrauseSwin, relative_positions
from krause_dynamics.models.variants import VARIANTS, State, Variant
from krause_dynamics.models.vision import KrauseViT
from krause_dynamics.models.weight_files import read, unwrapped


@reads(path=FILE, folder=Maybe(FOLDER))
def convert(path: str | Path, folder: str | Path | None = None, **keys: Any) -> KrauseModel:
    """The model whose weights a published file holds: KViT, KSwin, KARM and its twins, the gated language model.

    Sizes are read from the shapes. What the file lacks (heads, windows, k, the size of the picture) is asked for by
    name and never guessed; what it holds may be given and must agree. Buffers are checked and dropped.

    Args:
        path: A state dictionary, ``.pt`` or ``.pth`` (weights only) or ``.safetensors``; log sigma of shape (), (H,) or
            (H, 1, 1).
        folder: Where to write a folder for ``from_pretrained`` as well.
        **keys: Keys of the configuration. For KViT k of the last layer is twice the first's unless given, as published.

    Returns:
        The model, in evaluation mode.

    Raises:
        FileNotFoundError: No such file.
        ValueError: An unknown file, missing or disagreeing keys, weights or buffers that are not those of the module.

    Examples:
        ``convert("best_krause_vit_cifar10_vits16.pth", "kvit", num_attention_heads=6, attention_top_k=2, window=1,
        metric="manhattan")``
    """
    if folder is not None and Path(folder).is_file():
        raise ValueError(f"folder must be a folder, got the file {folder}")
    model = from_published(read(regular(path)), **keys)
    if folder is not None:
        model.save_pretrained(folder)
    return model


@reads(state=Is(Mapping, "model.state_dict()"))
def from_published(state: Mapping[str, Tensor], **keys: Any) -> KrauseModel:
    """As `convert`, of a state dictionary in memory.

    Args:
        state: Published names and weights; prefixes of wrappers are stripped.
        **keys: Keys of the configuration.

    Raises:
        ValueError: As `convert`.
    """
    found = _split(unwrapped(state))
    variant = _variant(found)
    kind: Any = variant.model
    model = kind(kind.config_class(**_keys(variant, found, keys)))
    _check_buffers(model, found)
    _load(model, _renamed(variant, found, model))
    return model.eval()


def _split(state: State) -> State:
    """Projections that torchvision keeps as one, apart."""
    for name in [name for name in state if re.search(r"\.attn\.qkv\.\w+$", name)]:
        if state[name].ndim == 0 or len(state[name]) % 3:
            raise ValueError(f"{name} must hold queries, keys and values, got {tuple(state[name].shape)} in the file")
        parts = state.pop(name).chunk(3)
        state.update({name.replace(".qkv.", f".{x}_proj."): part for x, part in zip("qkv", parts, strict=True)})
    return state


def _variant(state: State) -> Variant:
    for variant in VARIANTS.values():
        if any(re.fullmatch(variant.known_by, name) for name in state):
            return variant
    raise ValueError(
        f"the names are those of no published module ({', '.join(VARIANTS)}), they begin {sorted(state)[:3]}; a model "
        "saved by this package loads with from_pretrained"
    )


class _Asked(dict[str, Tensor]):
    """Weights, and which of them was asked for last."""

    last = ""

    def __getitem__(self, name: str) -> Tensor:
        self.last = name
        return super().__getitem__(name)


def _keys(variant: Variant, state: State, given: dict[str, Any]) -> dict[str, Any]:
    """The configuration: what the file says, and what was given for the rest."""
    state = _Asked(state)
    try:
        held = variant.reads(state)
    except KeyError as error:
        raise ValueError(f"weights of this module are missing: {error.args[0]}, which tells its sizes") from None
    except (IndexError, TypeError):  # the last weight that was asked for has fewer dimensions than tell a size
        raise ValueError(f"{state.last} tells sizes, got {tuple(state[state.last].shape)} in the file") from None
    missing = [name for name in variant.asks if name not in held and name not in given]
    if missing:
        raise ValueError(
            f"the file does not say {', '.join(missing)}; give them as keywords, such as "
            f"convert(path, {missing[0]}=...)"
        )
    for name in sorted(set(held) & set(given) - {"support", "image_size"}):
        if held[name] != (list(given[name]) if isinstance(given[name], tuple) else given[name]):
            raise ValueError(f"{name} is {held[name]!r} in the file, got {given[name]!r}; leave it out")
    if variant.model is KrauseViT:
        held["attention_top_k_last"] = 2 * COUNT.read("attention_top_k", given["attention_top_k"])
    return {**held, **given}


def _renamed(variant: Variant, state: State, model: KrauseModel) -> State:
    names = variant.names(state)
    ours: State = {}
    for name, weight in state.items():
        pattern, new = next(((p, n) for p, n in names if re.fullmatch(p, name)), (name, None))
        if new is None:
            raise ValueError(f"{name} is no weight of this module; the file holds something else as well")
        if new:
            ours[re.sub(pattern, new, name)] = weight
    if isinstance(model, KrauseSwin):  # maps smaller than the window have no bias of positions, though the file has
        known = set(model.state_dict())
        ours = {name: weight for name, weight in ours.items() if name in known or "position_bias" not in name}
    return ours


@torch.no_grad()
def _load(model: KrauseModel, state: State) -> None:
    """Fill the model; only fixed temperatures of dot products and tied heads may be missing."""
    fixed = {f"{name}.log_sigma.weight": module for name, module in model.named_modules()
             if getattr(module, "score", None) == "dot"}  # fmt: skip
    target = dict(model.named_parameters())  # a tied head stands here once
    missing = sorted(set(target) - set(state) - set(fixed))
    unknown = sorted(set(state) - set(model.state_dict()))
    if missing or unknown:
        raise ValueError(f"weights of this module are missing: {missing[:3]}, or unknown: {unknown[:3]}")
    damaged = sorted(name for name, weight in state.items() if not bool(weight.isfinite().all()))
    if damaged:
        raise ValueError(f"weights must be finite, got others in {', '.join(damaged[:3])}; the file is damaged")
    for name, weight in target.items():
        if name in fixed and name not in state:
            weight.fill_(0.25 * math.log(fixed[name].head_dim))
            continue
        if state[name].squeeze().shape != weight.squeeze().shape:
            raise ValueError(f"{name} must be {tuple(weight.shape)}, got {tuple(state[name].shape)} in the file")
        if not state[name].is_floating_point():
            raise ValueError(f"{name} must be floating numbers, got {state[name].dtype} in the file")
        weight.copy_(state[name].reshape(weight.shape))
    for name in set(state) - set(target):
        if not torch.equal(state[name].to(model.state_dict()[name]), model.state_dict()[name]):
            raise ValueError(f"{name} is tied to the table of tokens here, and differs from it in the file")


def _check_buffers(model: KrauseModel, state: State) -> None:
    """Buffers say what the configuration says; they hold nothing else.

    Raises:
        ValueError: They do not.
    """
    for name, buffer in state.items():
        if name.endswith("local_mask_buffer"):
            admitted = _admitted(model, buffer.shape[0] if buffer.ndim else 0)
            right = buffer.shape == admitted.shape and torch.equal(buffer.bool(), admitted)
        elif name.endswith("valid_i_indices"):
            right = _are_admitted(model, buffer, state.get(name.replace("valid_i", "valid_j")))
        elif name.endswith("valid_j_indices"):
            right = name.replace("valid_j", "valid_i") in state
        elif name.endswith("relative_position_index"):
            right = torch.equal(buffer.flatten(), relative_positions(model.config.window).flatten())
        else:
            continue
        if not right:
            raise ValueError(f"{name} is not the neighbourhood of this configuration; check window, metric, image_size")


def _are_admitted(model: KrauseModel, queries: Tensor, keys: Tensor | None) -> bool:
    """Whether lists of places are pairs that the window admits."""
    if keys is None or keys.shape != queries.shape or not queries.numel():
        return False
    if queries.is_floating_point() or keys.is_floating_point() or int(min(queries.min(), keys.min())) < 0:
        return False
    admitted = _admitted(model, 1 + int(max(queries.max(), keys.max())))
    return bool(admitted[queries.long(), keys.long()].all())


def _admitted(model: KrauseModel, tokens: int) -> Tensor:
    """Pairs of KViT's tokens that its window admits."""
    place, reach = torch.arange(tokens), model.config.nearby().reach
    near: Tensor = reach.near(place[:, None], place[None])
    return near
