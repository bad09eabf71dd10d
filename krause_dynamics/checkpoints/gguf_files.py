"""GGUF files, written out as safetensors tensor by tensor, so that they are loaded and run block by block as others."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from krause_dynamics.checkpoints.quiet import quiet_transformers


def named(source: str | Path) -> tuple[str | Path, dict[str, str]]:
    """What ``from_pretrained`` of transformers is called with: a place, and for a GGUF file its name in it."""
    if isinstance(source, Path) and source.suffix == ".gguf":
        return source.parent, {"gguf_file": source.name}
    return source, {}


def as_shards(source: Path, outline: Any) -> tempfile.TemporaryDirectory[str]:
    """A folder of safetensors with the weights of a GGUF file in the types of ``outline``, which gives their names.

    It takes as much of the disk as the weights in that type, and of memory one tensor; it goes when it is let go.

    Raises:
        ValueError: A weight of the model is not in the file.
    """
    from safetensors.torch import save_file

    folder = tempfile.TemporaryDirectory(prefix="krause-gguf-")
    types, places, sizes = outline.state_dict(), {}, 0
    for number, (name, weights) in enumerate(_tensors(source, outline)):
        if name in types:
            tensor = torch.from_numpy(weights).to(types[name].dtype)
            places[name] = f"model-{number:05d}.safetensors"
            sizes += tensor.nbytes
            save_file({name: tensor.contiguous()}, Path(folder.name) / places[name], metadata={"format": "pt"})
    if lacking := sorted(set(types) - set(places)):
        folder.cleanup()
        raise ValueError(f"model: the file {source} lacks {len(lacking)} tensors that it needs, such as {lacking[0]!r}")
    index = {"metadata": {"total_size": sizes}, "weight_map": places}
    (Path(folder.name) / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    outline.config.save_pretrained(folder.name)
    return folder


def _tensors(source: Path, outline: Any) -> Any:
    """(name in transformers, numbers in float32) of every tensor of a file; orders of rows are transformers' own."""
    import numpy as np
    from gguf import GGUFReader, dequantize
    from transformers import modeling_gguf_pytorch_utils as theirs

    reader = GGUFReader(source)
    with quiet_transformers():
        parsed = theirs.load_gguf_checkpoint(str(source))
    kind = theirs.TENSOR_PROCESSORS.get(reader.fields["general.architecture"].contents(), theirs.TensorProcessor)
    processor = kind(config=parsed["config"])
    names = theirs.get_gguf_hf_weights_map(outline, processor)
    for tensor in reader.tensors:
        done = processor.process(
            weights=dequantize(tensor.data, tensor.tensor_type),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters=parsed,
        )
        if done.name in names:
            yield names[done.name], np.array(done.weights, dtype=np.float32)
