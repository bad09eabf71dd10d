"""What is asked of each model; the answers are stored small, so that pictures and numbers need no weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import krause_dynamics as kd
from evidence.trained_models import RESULTS, weights
from krause_dynamics.checkpoints import Checkpoint

if TYPE_CHECKING:
    import xarray

TEXT = Path(str(files("krause_dynamics") / "data" / "genesis.txt"))
LENGTH, TEXTS, LONG = 64, 24, 1024  # 64 tokens as published
REACTION = "CC(C)S.CN(C)C=O.Fc1cccnc1F.O=C([O-])[O-].[K+].[K+]>>CC(C)Sc1ncccc1F"
STATES = ("order_parameter", "mean_cosine", "effective_rank", "norm_ratio", "clusters", "length")
HEADS = ("importance_first", "entropy", "strongest_key", "sink_rate")
# Pixels of ImageNet: means and deviations that the model was trained with.
MEAN, SPREAD, SIDE = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224


def smollm2() -> xarray.Dataset:
    """Text, random tokens, one repeated token, and text after the token that begins a sequence."""
    return _decoder(weights.smollm2())


def gemma() -> xarray.Dataset:
    """The same, and three long texts, in which windows of 512 tokens are shorter than the text."""
    model = weights.gemma()
    found = _decoder(model)
    long = kd.analyze(model, TEXT, sequence_length=LONG, max_sequences=3, batch_size=1)
    rows = {f"long_{name}": long[name].rename(sequence="text") for name in ("importance_first", "mean_distance")}
    kinds = [kind.removesuffix("_attention") for kind in model.backbone.config.layer_types]
    return found.assign(rows | {"kind": ("block", kinds)})


def minilm() -> xarray.Dataset:
    """Sequences of text, each between the tokens that begin and end one, and the same in another order."""
    model = weights.minilm()
    ids = model.tokenizer(TEXT.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    rows = [ids[i : i + LENGTH - 2] for i in range(0, (LENGTH - 2) * TEXTS, LENGTH - 2)]
    first, last = model.tokenizer.cls_token_id, model.tokenizer.sep_token_id
    return kd.analyze(model, [[first, *row, last] for row in rows], controls=("shuffled", "random_weights"))


def albert() -> xarray.Dataset:
    """One reaction, and the same model with random weights."""
    return kd.analyze(weights.albert(), REACTION, controls=("shuffled", "random_weights"))


def dinov2() -> xarray.Dataset:
    """Squares cut from two photographs (CC BY 2.0, of scikit-learn), and the same model with random weights."""
    model, pixels = weights.dinov2(), _squares()
    found = kd.analyze(model, pixels, controls="random_weights")
    meta = json.loads(found.attrs["meta"]) | {"largest_difference_from_onnx": _from_graph(model, pixels[:1])}
    return found.assign_attrs(meta=json.dumps(meta))


ANALYSES: dict[str, Callable[[], xarray.Dataset]] = {
    "smollm2": smollm2,
    "gemma": gemma,
    "minilm": minilm,
    "albert": albert,
    "dinov2": dinov2,
}


def store(name: str) -> Path:
    """Analyse a model and keep the answer."""
    found = reduced(ANALYSES[name]())
    RESULTS.mkdir(exist_ok=True)
    return kd.report.write_dataset(found, RESULTS / f"{name}.nc")


def reduced(found: xarray.Dataset) -> xarray.Dataset:
    """What pictures and numbers need: four digits of it."""
    known = [*STATES, *HEADS, "value_norm", "kind", *(name for name in found if str(name).startswith("long_"))]
    return rounded(found[[name for name in known if name in found]])


def rounded(found: xarray.Dataset) -> xarray.Dataset:
    """Four digits of everything, which a compressed file holds in little."""
    small = found.copy()
    for name, values in found.data_vars.items():
        if values.dtype.kind == "f":
            exact = values.values.astype(np.float32)
            mantissa, exponent = np.frexp(exact)
            small[name] = values.copy(data=np.ldexp(np.round(mantissa * 2**13) / 2**13, exponent).astype(np.float32))
    return small


def _decoder(model: Checkpoint) -> xarray.Dataset:
    """Sinks under the published controls, norms of values, and whether the weights were read well."""
    rows = _rows(model)
    found = kd.analyze(model, rows, controls=("random", "repeated", "with_bos"))
    meta = json.loads(found.attrs["meta"]) | {"loss": _loss(model, rows)}
    return found.assign(value_norm=both_value_norms(model)).assign_attrs(meta=json.dumps(meta))


def _rows(model: Checkpoint) -> list[list[int]]:
    """Consecutive pieces of the text, without special tokens."""
    ids = model.tokenizer(TEXT.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    return [ids[i : i + LENGTH] for i in range(0, LENGTH * TEXTS, LENGTH)]


def both_value_norms(model: Checkpoint) -> Any:
    """`value_norms` of the text, and of the text after the token that begins a sequence in training."""
    rows, first = _rows(model), model.tokenizer.bos_token_id
    both = [value_norms(model, rows), value_norms(model, [[first, *row[:-1]] for row in rows])]
    return ("start", "sequence", "block", "value_head"), np.stack(both)


def value_norms(model: Checkpoint, rows: list[list[int]]) -> np.ndarray:
    """Norm of the first token's value over the median of the others', (sequences, blocks, heads of values)."""
    width = int(model.backbone.config.head_dim)
    found: list[torch.Tensor] = []

    def keep(module: Any, inputs: Any, values: torch.Tensor) -> None:
        norms = values.unflatten(-1, (-1, width)).norm(dim=-1)  # (sequences, T, heads)
        found.append(norms[:, 0] / norms[:, 1:].median(dim=1).values)

    hooks = [m.register_forward_hook(keep) for n, m in model.backbone.named_modules() if n.endswith("v_proj")]
    try:
        with torch.no_grad():
            model.backbone(torch.tensor(rows))
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(found, dim=1).numpy()


def _loss(model: Checkpoint, rows: list[list[int]]) -> float:
    """Nats a token, of the text after the first token of each row."""
    first = model.tokenizer.bos_token_id
    tokens = torch.tensor([[first, *row] for row in rows])
    with torch.no_grad():
        last = model.backbone(tokens).last_hidden_state[:, :-1]
        logits = last @ model.backbone.get_input_embeddings().weight.T  # both models tie them
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()))


def _squares() -> np.ndarray:
    from sklearn.datasets import load_sample_images

    corners = [(0, 0), (0, 208), (0, 416), (203, 0), (203, 208), (203, 416)]
    cut = [photo[y : y + SIDE, x : x + SIDE] for photo in load_sample_images().images for y, x in corners]
    scaled = (np.stack(cut) / 255.0 - MEAN) / SPREAD
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2), dtype=np.float32)


def _from_graph(model: Checkpoint, pixels: np.ndarray) -> float:
    """Largest difference of the last tokens from those of the file's own graph, by the reference of ONNX."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    whole = onnx.load(str(weights.dinov2_file()))
    graph = whole.graph
    end = next(i for i, node in enumerate(graph.node) if node.name == "/backbone/layernorm/Add_1")
    last = onnx.helper.make_tensor_value_info(graph.node[end].output[0], onnx.TensorProto.FLOAT, None)
    del graph.node[end + 1 :], graph.output[:]  # what a detector does with them
    graph.output.append(last)
    (known,) = ReferenceEvaluator(whole).run(None, {"input_image": pixels})
    with torch.no_grad():
        ours = model.model(torch.tensor(pixels)).last_hidden_state
    return float(np.abs(ours.numpy() - known).max())
