"""The table of families: ``python -m tests.families > benchmarks/results/families.md``."""

from __future__ import annotations

import math
import sys
import warnings

import torch
import transformers
from tqdm import tqdm

from tests.families.checks import CHECKS, GENERATED, GRADIENT_TOLERANCE, TOLERANCE
from tests.families.table import FAMILIES, Family

INTRODUCTION = f"""Tiny random models in float32, `attn_implementation="krause_softmax"` without a window against the
model's own eager attention: `equal` is a relative difference of at most {TOLERANCE:g} (gradients
{GRADIENT_TOLERANCE:g}); generation has a padded prompt. Written by `python -m tests.families`.
"""


def cell(family: Family, name: str) -> str:
    """One number of the table, or the reason why there is none."""
    kinds, check = CHECKS[name]
    if family.kind not in kinds or (
        name in GENERATED and not hasattr(getattr(transformers, family.name + family.model), "generate")
    ):
        return ""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = check(family)
    except Exception as error:  # the table says which model fails, and why
        return f"{type(error).__name__}: {str(error)[:90]}".replace("\n", " ").replace("|", "/")
    tolerance = GRADIENT_TOLERANCE if name == "gradients" else TOLERANCE
    return "differs" if math.isnan(found) else f"{found:.0e}" if found > tolerance else "equal"


def main() -> None:
    """Print the table."""
    transformers.logging.set_verbosity_error()
    print(f"# Families of transformers {transformers.__version__} under our attention\n")
    print(INTRODUCTION)
    print("| family | " + " | ".join(CHECKS) + " |\n|" + " --- |" * (1 + len(CHECKS)))
    for family in tqdm([f for f in FAMILIES if hasattr(transformers, f.name + f.model)], file=sys.stderr):
        cells = [cell(family, name) for name in CHECKS]
        print(f"| {family.name}{family.model} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
