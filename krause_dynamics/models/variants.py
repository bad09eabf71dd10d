"""What the paper's published modules call their weights, and what their files say about the model."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from krause_dynamics.models.blocks import KrauseModel
from krause_dynamics.models.decoder import KARM, KrauseLM
from krause_dynamics.models.swin import KrauseSwin
from krause_dynamics.models.vision import CLS, KrauseViT

State = dict[str, Tensor]
Names = list[tuple[str, str]]


@dataclass(frozen=True)
class Variant:
    """One published module.

    Attributes:
        known_by: Regular expression that one of its names matches, and none of another variant's.
        model: What it becomes.
        asks: Keys of the configuration that no file of it holds.
        reads: Keys that the file holds.
        names: Published names (regular expressions) and ours; an empty one of ours is a buffer, checked and dropped.
    """

    known_by: str
    model: type[KrauseModel]
    asks: tuple[str, ...]
    reads: Callable[[State], dict[str, Any]]
    names: Callable[[State], Names]


def count(state: State, before: str) -> int:
    """How many numbered parts there are below a name."""
    return len({name.removeprefix(before).split(".")[0] for name in state if name.startswith(before)})


def projections(theirs: str, ours: str, letters: str = "qkv", form: str = "{}_proj") -> Names:
    """Names of the projections of an attention below ``theirs``, such as ``W_q`` or ``q_proj``."""
    return [(rf"{theirs}\.{form.format(x)}\.(\w+)", rf"{ours}.{x}_proj.\2") for x in letters]


def heads(log_sigma: Tensor) -> dict[str, Any]:
    """What log sigma says: the number of heads, unless there is one for all of them."""
    number = log_sigma.numel()
    return {"sigma_per_head": number > 1} | ({"num_attention_heads": number} if number > 1 else {})


def vit(state: State) -> dict[str, Any]:
    """KViT: all but the heads, k and the neighbourhood; the grid where it is a square."""
    kernel, patches = state["patch_embed.proj.weight"], state["pos_embed"].shape[-2] - CLS
    side = math.isqrt(patches)
    return {
        "hidden_size": kernel.shape[0], "num_channels": kernel.shape[1], "patch_size": kernel.shape[-1],
        "num_hidden_layers": count(state, "blocks."), "intermediate_size": len(state["blocks.0.ffn.0.weight"]),
        "num_labels": len(state["head.weight"]), "norm": "post", "support": "window+top_k",
        **heads(state["blocks.0.attention.log_sigma"]),
    } | ({"image_size": side * kernel.shape[-1]} if side**2 == patches else {})  # fmt: skip


def vit_names(_: State) -> Names:
    """KViT."""
    theirs, ours = r"blocks\.(\d+)\.attention", r"layers.\1.attention"
    return [
        (r"cls_token", "prefix_embedding.weight"),
        (r"pos_embed", "position_embedding.weight"),
        (r"patch_embed\.proj\.(\w+)", r"patch_embedding.\1"),
        (rf"{theirs}\.(local_mask_buffer|valid_[ij]_indices)", ""),
        (rf"{theirs}\.log_sigma", rf"{ours}.log_sigma.weight"),
        (rf"{theirs}\.out_proj\.(\w+)", rf"{ours}.out_proj.\2"),
        *projections(theirs, ours, form="W_{}"),
        (r"blocks\.(\d+)\.ffn\.([03])\.(\w+)", r"layers.\1.mlp.\2.\3"),
        (r"blocks\.(\d+)\.(norm[12])\.(\w+)", r"layers.\1.\2.\3"),
        (r"(norm|head)\.(\w+)", r"\1.\2"),
    ]


def picture(state: State) -> dict[str, Any]:
    """KARM and its softmax and linear twins: all but the picture, the window and k (or, of a twin, which it is)."""
    keys = {
        "levels": len(state["token_emb.weight"]), "hidden_size": state["token_emb.weight"].shape[1],
        "max_position_embeddings": len(state["pos_emb.weight"]), "num_hidden_layers": count(state, "layers."),
        "intermediate_size": len(state["layers.0.mlp.0.weight"]), "norm": "pre", "head_bias": True,
        "tie_word_embeddings": False,
    }  # fmt: skip
    if "layers.0.attn.log_sigma" not in state:
        return {**keys, "support": "full"}
    return {**keys, "support": "window+top_k", **heads(state["layers.0.attn.log_sigma"])}


def picture_names(_: State) -> Names:
    """KARM, ARM and LARM."""
    theirs, ours = r"layers\.(\d+)\.attn", r"layers.\1.attention"
    return [
        (r"token_emb\.weight", "token_embedding.weight"),
        (r"pos_emb\.weight", "position_embedding.weight"),
        (rf"{theirs}\.log_sigma", rf"{ours}.log_sigma.weight"),
        *projections(theirs, ours, form="W_{}"),
        *projections(theirs, ours, "qkv"),
        (rf"{theirs}\.out_proj\.(\w+)", rf"{ours}.out_proj.\2"),
        (r"layers\.(\d+)\.ln([12])\.(\w+)", r"layers.\1.norm\2.\3"),
        (r"layers\.(\d+)\.mlp\.0\.(\w+)", r"layers.\1.mlp.0.\2"),
        (r"layers\.(\d+)\.mlp\.2\.(\w+)", r"layers.\1.mlp.3.\2"),
        (r"ln_f\.(\w+)", r"norm.\1"),
        (r"head\.(\w+)", r"head.\1"),
    ]


def language(state: State) -> dict[str, Any]:
    """The gated language model: all but the window and k; a head that the file lacks is tied."""
    return {
        "vocab_size": len(state["token_emb.weight"]), "hidden_size": state["token_emb.weight"].shape[1],
        "max_position_embeddings": len(state["pos_emb.weight"]), "num_hidden_layers": count(state, "blocks."),
        "gate": True, **heads(state["blocks.0.attn.log_sigma"]),
        "intermediate_size": len(state["blocks.0.ffn.0.weight"]), "norm": "pre", "support": "window+top_k",
        "head_bias": "lm_head.bias" in state, "tie_word_embeddings": True,
    }  # fmt: skip


def language_names(_: State) -> Names:
    """The gated language model; the biased projections of both branches end in ``o_proj``."""
    theirs, ours = r"blocks\.(\d+)\.attn", r"layers.\1.attention"
    branches = (("softmax", "{}_proj"), ("krause", "{}_proj_krause"))
    out = [(rf"{theirs}\.{form.format('o')}\.(\w+)", rf"{ours}.{name}.out_proj.\2") for name, form in branches]
    return [
        (r"token_emb\.weight", "token_embedding.weight"),
        (r"pos_emb\.weight", "position_embedding.weight"),
        (rf"{theirs}\.log_sigma", rf"{ours}.krause.log_sigma.weight"),
        (rf"{theirs}\.gate_proj_krause\.(\w+)", rf"{ours}.gate.\2"),
        *out,
        *(pair for name, form in branches for pair in projections(theirs, f"{ours}.{name}", form=form)),
        (r"blocks\.(\d+)\.ln([12])\.(\w+)", r"layers.\1.norm\2.\3"),
        (r"blocks\.(\d+)\.ffn\.0\.(\w+)", r"layers.\1.mlp.0.\2"),
        (r"blocks\.(\d+)\.ffn\.2\.(\w+)", r"layers.\1.mlp.3.\2"),
        (r"final_ln\.(\w+)", r"norm.\1"),
        (r"lm_head\.(\w+)", r"head.\1"),
    ]


def swin_depths(state: State) -> list[int]:
    """Blocks of each stage: torchvision's features 1, 3, 5, ... are stages, those between them merge."""
    stages = sorted({int(m[1]) for name in state if (m := re.match(r"features\.(\d+)\.\d+\.attn\.", name))})
    return [count(state, f"features.{stage}.") for stage in stages]


def swin(state: State) -> dict[str, Any]:
    """KSwin: all but the size of the picture and k."""
    kernel, depths = state["features.0.0.weight"], swin_depths(state)
    first = [f"features.{2 * stage + 1}.0" for stage in range(len(depths))]
    sigmas = [state[f"{name}.attn.log_sigma"].numel() for name in first]
    return {
        "hidden_size": len(kernel), "num_channels": kernel.shape[1], "patch_size": kernel.shape[-1], "depths": depths,
        "norm": "pre", "sigma_per_head": sigmas[-1] > 1,
        "window": (math.isqrt(len(state[f"{first[0]}.attn.relative_position_bias_table"])) + 1) // 2,
        "intermediate_size": len(state[f"{first[0]}.mlp.0.weight"]), "num_labels": len(state["head.weight"]),
        "support": "window",
    } | ({"heads": sigmas} if sigmas[-1] > 1 else {})  # fmt: skip


def swin_names(state: State) -> Names:
    """KSwin: blocks are counted over all stages here, and a merging layer stands between two of them."""
    names = [
        (r"features\.0\.0\.(\w+)", r"patch_embedding.\1"),
        (r"features\.0\.2\.(\w+)", r"patch_norm.\1"),
        (r"features\.\d+\.\d+\.attn\.relative_position_index", ""),
        (r"(norm|head)\.(\w+)", r"\1.\2"),
    ]
    place = 0
    for stage, depth in enumerate(swin_depths(state)):
        for block in range(depth):
            theirs, ours = rf"features\.{2 * stage + 1}\.{block}", f"layers.{place}"
            names += [
                (rf"{theirs}\.attn\.log_sigma", f"{ours}.attention.rule.log_sigma.weight"),
                (rf"{theirs}\.attn\.([qkv]_proj)\.(\w+)", rf"{ours}.attention.rule.\1.\2"),
                (rf"{theirs}\.attn\.proj\.(\w+)", rf"{ours}.attention.rule.out_proj.\1"),
                (rf"{theirs}\.attn\.relative_position_bias_table", f"{ours}.attention.position_bias.weight"),
                (rf"{theirs}\.(norm[12]|mlp\.[03])\.(\w+)", rf"{ours}.\1.\2"),
            ]
            place += 1
        names.append((rf"features\.{2 * stage + 2}\.([\w.]+)", rf"layers.{place}.\1"))
        place += 1
    return names


PICTURE, HEADS = ("image_size", "num_channels"), ("num_attention_heads",)
VARIANTS = {
    "KViT": Variant(
        r"blocks\.0\.attention\.W_q\.weight", KrauseViT,
        (*HEADS, "attention_top_k", "window", "metric", "image_size"), vit, vit_names,
    ),
    "KARM": Variant(
        r"layers\.0\.attn\.W_q\.weight", KARM, ("window", "attention_top_k", *PICTURE, *HEADS), picture, picture_names
    ),
    "ARM or LARM": Variant(
        r"layers\.0\.attn\.q_proj\.weight", KARM, ("score", *HEADS, *PICTURE), picture, picture_names
    ),
    "KSwin": Variant(r"features\.1\.0\.attn\.log_sigma", KrauseSwin, ("image_size", "heads"), swin, swin_names),
    "gated language model": Variant(
        r"blocks\.0\.attn\.q_proj_krause\.weight", KrauseLM, ("window", "attention_top_k", *HEADS), language,
        language_names,
    ),
}  # fmt: skip
