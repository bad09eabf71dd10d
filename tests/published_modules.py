"""The paper's modules, written again from their description (one formula a line), in float64 on state dictionaries.

Independent of the package: weights are drawn under the published names, and the forward pass reads nothing else.
"""

from __future__ import annotations

import math

import torch
from torch.nn import functional

INFINITY = float("inf")


def draw(shapes, seed=0):
    source = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        weight = torch.randn(shape, generator=source, dtype=torch.float64)
        is_norm = name.endswith("weight") and len(shape) == 1
        state[name] = 1 + 0.1 * weight if is_norm else weight * (0.4 if len(shape) > 1 else 0.1)
    return state


def linear(names, out, into, bias=True):
    return {f"{names}.weight": (out, into), **({f"{names}.bias": (out,)} if bias else {})}


def affine(state, name, x):
    return functional.linear(x, state[f"{name}.weight"], state.get(f"{name}.bias"))


def normed(state, name, x):
    return functional.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def split(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(-3, -2)


def join(x):
    return x.transpose(-3, -2).flatten(-2)


def gaussian(q, k, log_sigma):
    """-|q - k|^2 / (2 sigma^2) by direct differences."""
    return -0.5 * torch.exp(-2 * log_sigma) * (q[..., :, None, :] - k[..., None, :, :]).square().sum(-1)


def strongest(s, k):
    """torch.topk a row: exactly k positions."""
    if k >= s.shape[-1]:
        return s
    return torch.full_like(s, -INFINITY).scatter(-1, s.topk(k).indices, s.topk(k).values)


# KViT ----------------------------------------------------------------------------------------------------------------


def vit_mask(height, width, image_net):
    n = height * width + 1
    mask = torch.zeros(n, n, dtype=torch.bool)
    for i in range(n):
        for j in range(n):
            dr, dc = abs((i - 1) // width - (j - 1) // width), abs((i - 1) % width - (j - 1) % width)
            near = max(dr, dc) <= 2 if image_net else dr + dc == 1
            mask[i, j] = i == 0 or j == 0 or i == j or near
    return mask


def vit_state(d=8, layers=3, ff=12, patch=2, grid=(3, 3), classes=4, image_net=False, seed=0):
    n = grid[0] * grid[1] + 1
    shapes = {"cls_token": (1, 1, d), "pos_embed": (1, n, d), "patch_embed.proj.weight": (d, 3, patch, patch),
              "patch_embed.proj.bias": (d,), "norm.weight": (d,), "norm.bias": (d,),
              **linear("head", classes, d)}  # fmt: skip
    for i in range(layers):
        for name in ("W_q", "W_k", "W_v", "out_proj"):
            shapes |= linear(f"blocks.{i}.attention.{name}", d, d)
        shapes |= {f"blocks.{i}.{norm}.{part}": (d,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
        shapes |= linear(f"blocks.{i}.ffn.0", ff, d) | linear(f"blocks.{i}.ffn.3", d, ff)
    state = draw(shapes, seed)
    mask = vit_mask(*grid, image_net)
    for i in range(layers):
        state[f"blocks.{i}.attention.log_sigma"] = torch.tensor(0.3 + 0.1 * i, dtype=torch.float64)
        state[f"blocks.{i}.attention.local_mask_buffer"] = mask
        state[f"blocks.{i}.attention.valid_i_indices"], state[f"blocks.{i}.attention.valid_j_indices"] = (
            mask.nonzero().T
        )
    return state


def vit_forward(state, pixels, heads, k, layers=3):
    kernel = state["patch_embed.proj.weight"]
    patches = functional.conv2d(pixels, kernel, state["patch_embed.proj.bias"], kernel.shape[-1])
    x = torch.cat([state["cls_token"].expand(len(pixels), -1, -1), patches.flatten(2).transpose(1, 2)], 1)
    x = x + state["pos_embed"]
    for i in range(layers):
        name, block = f"blocks.{i}.attention", f"blocks.{i}"
        q, key, v = (split(affine(state, f"{name}.W_{letter}", x), heads) for letter in "qkv")
        s = gaussian(q, key, state[f"{name}.log_sigma"]).masked_fill(~state[f"{name}.local_mask_buffer"], -INFINITY)
        k_layer = round(k + k * i / (layers - 1))  # linspace(k, 2k, L).round()
        out = affine(state, f"{name}.out_proj", join(strongest(s, k_layer).softmax(-1) @ v))
        x = normed(state, f"{block}.norm1", x + out)
        hidden = functional.gelu(affine(state, f"{block}.ffn.0", x))
        x = normed(state, f"{block}.norm2", x + affine(state, f"{block}.ffn.3", hidden))
    return affine(state, "head", normed(state, "norm", x)[:, 0])


# KARM, ARM, LARM -----------------------------------------------------------------------------------------------------


def karm_state(d=8, layers=2, heads=2, ff=12, length=27, levels=6, twin=False, seed=0):
    letters = ("q_proj", "k_proj", "v_proj") if twin else ("W_q", "W_k", "W_v")
    shapes = {"token_emb.weight": (levels, d), "pos_emb.weight": (length, d), "ln_f.weight": (d,), "ln_f.bias": (d,),
              **linear("head", levels, d)}  # fmt: skip
    for i in range(layers):
        for name in (*letters, "out_proj"):
            shapes |= linear(f"layers.{i}.attn.{name}", d, d)
        shapes |= {f"layers.{i}.{norm}.{part}": (d,) for norm in ("ln1", "ln2") for part in ("weight", "bias")}
        shapes |= linear(f"layers.{i}.mlp.0", ff, d) | linear(f"layers.{i}.mlp.2", d, ff)
        shapes |= {} if twin else {f"layers.{i}.attn.log_sigma": (heads, 1, 1)}
    return draw(shapes, seed)


def karm_forward(state, tokens, heads, window=None, k=None, score="gaussian", layers=2):
    n = tokens.shape[1]
    i, j = torch.arange(n)[:, None], torch.arange(n)
    hidden = (j > i) if window is None else (j > i) | (j < i - window + 1)
    x = state["token_emb.weight"][tokens] + state["pos_emb.weight"][:n]
    for layer in range(layers):
        name, block = f"layers.{layer}.attn", f"layers.{layer}"
        y = normed(state, f"{block}.ln1", x)
        forms = [f"{name}.W_{x}" if score == "gaussian" else f"{name}.{x}_proj" for x in "qkv"]
        q, key, v = (split(affine(state, form, y), heads) for form in forms)
        if score == "linear":
            w = ((functional.elu(q) + 1) @ (functional.elu(key) + 1).transpose(-1, -2)).masked_fill(hidden, 0.0)
            w = w / (w.sum(-1, keepdim=True) + 1e-6)
        elif score == "dot":
            w = (q @ key.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(hidden, -INFINITY).softmax(-1)
        else:
            w = strongest(gaussian(q, key, state[f"{name}.log_sigma"]).masked_fill(hidden, -INFINITY), k).softmax(-1)
        x = x + affine(state, f"{name}.out_proj", join(w @ v))
        y = functional.gelu(affine(state, f"{block}.mlp.0", normed(state, f"{block}.ln2", x)))
        x = x + affine(state, f"{block}.mlp.2", y)
    return affine(state, "head", normed(state, "ln_f", x))


# The gated language model --------------------------------------------------------------------------------------------


def language_state(d=8, layers=2, heads=2, ff=12, length=24, vocabulary=11, seed=0):
    shapes = {"token_emb.weight": (vocabulary, d), "pos_emb.weight": (length, d), "final_ln.weight": (d,),
              "final_ln.bias": (d,)}  # fmt: skip
    for i in range(layers):
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes |= linear(f"blocks.{i}.attn.{name}", d, d) | linear(f"blocks.{i}.attn.{name}_krause", d, d)
        shapes |= linear(f"blocks.{i}.attn.gate_proj_krause", 2, 2 * d)
        shapes |= {f"blocks.{i}.attn.log_sigma": (heads, 1, 1)}
        shapes |= {f"blocks.{i}.{norm}.{part}": (d,) for norm in ("ln1", "ln2") for part in ("weight", "bias")}
        shapes |= linear(f"blocks.{i}.ffn.0", ff, d) | linear(f"blocks.{i}.ffn.2", d, ff)
    return draw(shapes, seed)


def language_forward(state, tokens, heads, window, k, layers=2):
    n, least = tokens.shape[1], torch.finfo(torch.float64).min
    i, j = torch.arange(n)[:, None], torch.arange(n)
    x = state["token_emb.weight"][tokens] + state["pos_emb.weight"][:n]
    for layer in range(layers):
        name, block = f"blocks.{layer}.attn", f"blocks.{layer}"
        y = normed(state, f"{block}.ln1", x)
        q, key, v = (split(affine(state, f"{name}.{x}_proj", y), heads) for x in "qkv")
        plain = (q @ key.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(i < j, least).softmax(-1)
        first = affine(state, f"{name}.o_proj", join(plain @ v))
        q, key, v = (split(affine(state, f"{name}.{x}_proj_krause", y), heads) for x in "qkv")
        s = gaussian(q, key, state[f"{name}.log_sigma"]).masked_fill((i < j) | (i - j >= window), least)
        s = s.masked_fill(s < s.topk(min(k, n)).values[..., -1:], least)  # all that tie with the k-th stay
        second = affine(state, f"{name}.o_proj_krause", join(s.softmax(-1) @ v))
        share = affine(state, f"{name}.gate_proj_krause", torch.cat([first, second], -1)).softmax(-1)
        x = x + share[..., :1] * first + share[..., 1:] * second
        y = functional.gelu(affine(state, f"{block}.ffn.0", normed(state, f"{block}.ln2", x)))
        x = x + affine(state, f"{block}.ffn.2", y)
    return functional.linear(normed(state, "final_ln", x), state["token_emb.weight"])


# KSwin ---------------------------------------------------------------------------------------------------------------


def swin_state(d=8, depths=(2, 2, 1), heads=(2, 4, 4), patch=2, w=4, classes=5, seed=0):
    shapes = {"features.0.0.weight": (d, 3, patch, patch), "features.0.0.bias": (d,), "features.0.2.weight": (d,),
              "features.0.2.bias": (d,)}  # fmt: skip
    for stage, depth in enumerate(depths):
        c = d * 2**stage
        for b in range(depth):
            name = f"features.{2 * stage + 1}.{b}"
            shapes |= linear(f"{name}.attn.qkv", 3 * c, c) | linear(f"{name}.attn.proj", c, c)
            shapes |= {f"{name}.attn.relative_position_bias_table": ((2 * w - 1) ** 2, heads[stage])}
            shapes |= {f"{name}.attn.log_sigma": (heads[stage],)}
            shapes |= {f"{name}.{norm}.{part}": (c,) for norm in ("norm1", "norm2") for part in ("weight", "bias")}
            shapes |= linear(f"{name}.mlp.0", 4 * c, c) | linear(f"{name}.mlp.3", c, 4 * c)
        if stage + 1 < len(depths):
            name = f"features.{2 * stage + 2}"
            shapes |= linear(f"{name}.reduction", 2 * c, 4 * c, bias=False)
            shapes |= {f"{name}.norm.{part}": (4 * c,) for part in ("weight", "bias")}
    shapes |= {"norm.weight": (c,), "norm.bias": (c,), **linear("head", classes, c)}
    state = draw(shapes, seed)
    for name in [name for name in state if name.endswith("relative_position_bias_table")]:
        state[name.replace("bias_table", "index")] = swin_index(w).flatten()
    return state


def swin_index(w):
    index = torch.zeros(w * w, w * w, dtype=torch.int64)
    for a in range(w * w):
        for b in range(w * w):
            index[a, b] = (a // w - b // w + w - 1) * (2 * w - 1) + a % w - b % w + w - 1
    return index


def swin_attention(state, name, x, w, shift):
    """x (batch, height, width, c), pixel by pixel: who shares my window after the shift, and the region of each."""
    batch, height, width, c = x.shape
    fits = height >= w and width >= w
    shift = shift if fits else 0
    heads = state[f"{name}.log_sigma"].numel()
    q, k, v = (split(part, heads) for part in affine(state, f"{name}.qkv", x.flatten(1, 2)).chunk(3, -1))
    scale = (c // heads) ** -0.5
    s = gaussian(q * scale, k * scale, state[f"{name}.log_sigma"][:, None, None])
    row, column = torch.arange(height).repeat_interleave(width), torch.arange(width).repeat(height)
    moved = [(row - shift) % height, (column - shift) % width]  # where a place stands in the shifted map
    sides = [w, w] if fits else [height, width]
    together = torch.ones(len(row), len(row), dtype=torch.bool)
    for place, side in zip(moved, sides, strict=True):
        together &= (place // side)[:, None] == (place // side)
    if fits:
        table = state[f"{name}.relative_position_bias_table"]
        inside = moved[0] % w * w + moved[1] % w
        s = s + table[swin_index(w)[inside[:, None], inside]].permute(2, 0, 1)
    if shift:
        regions = []
        for place, length in zip(moved, (height, width), strict=True):
            regions.append((place >= length - w).int() + (place >= length - shift).int())
        apart = (regions[0][:, None] != regions[0]) | (regions[1][:, None] != regions[1])
        s = s + torch.where(apart, -100.0, 0.0)
    weights = s.masked_fill(~together, -INFINITY).softmax(-1)
    return affine(state, f"{name}.proj", join(weights @ v)).unflatten(1, (height, width))


def swin_forward(state, pixels, depths=(2, 2, 1), w=4):
    kernel = state["features.0.0.weight"]
    x = functional.conv2d(pixels, kernel, state["features.0.0.bias"], kernel.shape[-1]).permute(0, 2, 3, 1)
    x = normed(state, "features.0.2", x)
    for stage, depth in enumerate(depths):
        for b in range(depth):
            name = f"features.{2 * stage + 1}.{b}"
            x = x + swin_attention(state, f"{name}.attn", normed(state, f"{name}.norm1", x), w, w // 2 if b % 2 else 0)
            y = functional.gelu(affine(state, f"{name}.mlp.0", normed(state, f"{name}.norm2", x)))
            x = x + affine(state, f"{name}.mlp.3", y)
        if stage + 1 < len(depths):
            name = f"features.{2 * stage + 2}"
            parts = [x[:, 0::2, 0::2], x[:, 1::2, 0::2], x[:, 0::2, 1::2], x[:, 1::2, 1::2]]
            x = affine(state, f"{name}.reduction", normed(state, f"{name}.norm", torch.cat(parts, -1)))
    return affine(state, "head", normed(state, "norm", x).mean((1, 2)))
