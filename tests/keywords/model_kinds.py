"""Rows that hold for several kinds of models: a decorator which makes one for each."""

from __future__ import annotations

import torch

from krause_dynamics.models import (
    KARM,
    KARMConfig,
    KrauseLM,
    KrauseLMConfig,
    KrauseSwin,
    KrauseSwinConfig,
    KrauseViT,
    KrauseViTConfig,
)
from krause_dynamics.nn import KrauseAttention
from tests.keywords.row import row
from tests.model_sizes import PATCHES, PICTURES, WINDOWS, WORDS, pixels, seeded, words

KINDS = {
    "LM": (KrauseLM, KrauseLMConfig, WORDS),
    "KARM": (KARM, KARMConfig, PICTURES),
    "ViT": (KrauseViT, KrauseViTConfig, PATCHES),
    "Swin": (KrauseSwin, KrauseSwinConfig, WINDOWS),
}
ALL, DECODERS, VISION = tuple(KINDS), ("LM", "KARM"), ("ViT", "Swin")
FLAT = ("LM", "KARM", "ViT")  # one width for all layers
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def each(kinds, parameter, first, second, states):
    """A row for each kind of model; the check is called with a function that builds one from changed keys."""

    def register(check):
        for kind in kinds:

            def build(kind=kind, **changes):
                model, config, small = KINDS[kind]
                return seeded(model, config(**{**small, **changes}))

            path = f"kd.models.{KINDS[kind][1].__name__}"
            row(path, parameter, first, second, states)(lambda a, b, build=build: check(build, a, b))
        return check

    return register


def sample(model):
    """An input that fits."""
    return pixels(model.config) if hasattr(model.config, "pixels") else words(20, vocabulary=16)


def logits(model, x=None):
    with torch.no_grad():
        return model(sample(model) if x is None else x).logits


def rules(model):
    """Its attention layers, in order."""
    return [module for module in model.modules() if isinstance(module, KrauseAttention)]


def size(model):
    return sum(weight.numel() for weight in model.parameters())
