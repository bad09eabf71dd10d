"""Every model type of transformers: ``python -m tests.families.every > benchmarks/results/every_family.md``.

Nobody has written their sizes down: what can be made small by guesses is compared with its own attention, the rest is
told apart from it (of hybrids that need many layers for one of attention a small model has none, and is refused as
such). What must not be is a difference without a word.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import warnings
from collections import defaultdict
from typing import Any

import torch
import transformers
from tqdm import tqdm
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from krause_dynamics.errors import UnsupportedModel
from tests.families.checks import KRAUSE, TOLERANCE, distance
from tests.families.small import LEVELS, guesses, small

LARGEST = 60e6  # weights
MEANINGS = {
    "equal": "Equal to their own eager attention",
    "equal to sdpa": "Equal to their own attention under sdpa, from which their eager attention differs",
    "refused": "Refused, with the reason",
    "unknown": "Not compared: no guess of sizes or of inputs fits, or a package is missing",
    "differs": "Different without a word",
}


def class_of(kind: Any) -> Any:
    """The model class of a configuration: the one of `AutoModel`, else the first of its files; ``None``: none."""
    if kind in MODEL_MAPPING:
        found = MODEL_MAPPING[kind]
        return found[0] if isinstance(found, list | tuple) else found
    package, found = importlib.import_module(kind.__module__.rpartition(".")[0]), []
    for info in pkgutil.iter_modules(package.__path__):
        if info.name.startswith("modeling_"):
            found += vars(importlib.import_module(f"{package.__name__}.{info.name}")).values()
    models = [x for x in found if isinstance(x, type) and issubclass(x, PreTrainedModel) and _takes(x, kind)]
    return min(models, key=lambda x: (not x.__name__.endswith("Model"), len(x.__name__)), default=None)


def _takes(model: Any, kind: Any) -> bool:
    said = str(model.__dict__.get("__annotations__", {}).get("config", "")).rpartition(".")[2].strip("'>")
    return (model.config_class is kind or said == kind.__name__) and not model.__name__.endswith("PreTrainedModel")


def _told(config: Any, name: str) -> Any:
    """A configuration that asks for an attention, and those inside it."""
    config._attn_implementation, config.krause = name, KRAUSE
    for inside in config.sub_configs:
        part = getattr(config, inside, None)
        if isinstance(part, PreTrainedConfig):
            _told(part, name)
    return config


def _made(model: Any, kind: Any, sizes: dict[str, Any], name: str) -> Any:
    torch.manual_seed(0)
    made = model(_told(small(kind, sizes), name)).eval()
    with torch.no_grad():
        for which, weight in made.named_parameters():
            if weight.ndim == 2 and "embed" not in which:
                weight.mul_(2.0)
    return made


def _numbers(output: Any, name: str = "") -> dict[str, torch.Tensor]:
    """All floating tensors of an output but those of caches."""
    if isinstance(output, torch.Tensor):
        return {name: output} if output.is_floating_point() else {}
    inside = (
        output.items() if hasattr(output, "items") else enumerate(output) if isinstance(output, list | tuple) else ()
    )
    parts = [_numbers(x, f"{name}.{k}") for k, x in inside if not any(w in str(k) for w in ("past_key", "cache"))]
    return {key: x for part in parts for key, x in part.items()}


@torch.no_grad()
def _passed(model: Any, given: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return _numbers(model(**given))


def _differ(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    if one.keys() != other.keys() or any(one[k].shape != other[k].shape for k in one):
        return True
    pairs = ((one[k][there], other[k][there]) for k in one if (there := other[k].abs() < 1e30).any())
    return any(bool(b.any()) and not distance(a, b) <= TOLERANCE for a, b in pairs)


def outcome(kind: Any) -> tuple[str, str]:
    """One of `MEANINGS`, and a reason."""
    model = class_of(kind)
    if model is None:
        return "unknown", "no class of its own"
    reason = ""
    for sizes in LEVELS:
        try:
            with torch.device("meta"):
                _told(small(kind, sizes), "eager")
                count = sum(w.numel() for w in model(_told(small(kind, sizes), "eager")).parameters())
                model(_told(small(kind, sizes), "krause_softmax"))
            if count > LARGEST:
                reason = reason or f"{count / 1e6:.0f} million weights"
                continue
            plain = _made(model, kind, sizes, "eager")
        except UnsupportedModel as refusal:
            return "refused", str(refusal)
        except Exception as error:  # sizes that do not fit are no finding
            reason = reason or f"{type(error).__name__}: {error}"
            continue
        for given in guesses(plain):
            try:
                expected = _passed(plain, given)
            except Exception as error:  # nor are inputs
                reason = reason or f"{type(error).__name__}: {error}"
                continue
            if expected:
                return _compared(model, kind, sizes, given, expected)
    return "unknown", reason


def _compared(model: Any, kind: Any, sizes: dict[str, Any], given: Any, expected: Any) -> tuple[str, str]:
    try:
        found = _passed(_made(model, kind, sizes, "krause_softmax"), given)
    except UnsupportedModel as refusal:
        return "refused", str(refusal)
    if not _differ(found, expected):
        return "equal", ""
    try:
        other = _passed(_made(model, kind, sizes, "sdpa"), given)
    except Exception:  # a model without sdpa
        return "differs", ""
    return ("differs" if _differ(found, other) else "equal to sdpa"), ""


def main() -> None:
    """Print the lists."""
    transformers.logging.set_verbosity_error()
    warnings.simplefilter("ignore")
    found: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for name in tqdm(CONFIG_MAPPING_NAMES, file=sys.stderr):
        try:
            word, reason = outcome(CONFIG_MAPPING[name])
        except Exception as error:  # a file that cannot be imported here
            word, reason = "unknown", f"{type(error).__name__}: {error}"
        found[word].append((name, " ".join(reason.replace("|", "/").split())))
    page(found)


def page(found: dict[str, list[tuple[str, str]]]) -> None:
    """The lists, the reasons of refusals beside their names."""
    print(f"# Every model type of transformers {transformers.__version__} under our attention\n")
    print(inspect.cleandoc(__doc__ or "").partition("\n\n")[2].replace("\n", " ") + "\n")
    print("`attn_implementation=\"krause_softmax\"` without a window, one pass in float32, tolerance "
          f"{TOLERANCE:g}. Written by `python -m tests.families.every`.")  # fmt: skip
    for word, title in MEANINGS.items():
        names = found.get(word, [])
        print(f"\n## {title}: {len(names)}\n")
        if word == "refused":
            print("\n".join(f"- {name}: {reason.partition(',')[0]}" for name, reason in names))
        else:
            print(", ".join(name for name, _ in names) or "none")


if __name__ == "__main__":
    main()
