"""Makes the Auto classes of transformers know the models of this room."""

from __future__ import annotations

import importlib
import importlib.util

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageClassification

from krause_dynamics.models.decoder import KARM, KrauseLM
from krause_dynamics.models.decoder_configuration import KARMConfig, KrauseLMConfig
from krause_dynamics.models.gated import FAMILIES, gated_classes
from krause_dynamics.models.krausified_classes import know_all
from krause_dynamics.models.swin import KrauseSwin, KrauseSwinConfig
from krause_dynamics.models.vision import KrauseViT, KrauseViTConfig

MODELS = (
    (AutoModelForCausalLM, KrauseLMConfig, KrauseLM),
    (AutoModelForCausalLM, KARMConfig, KARM),
    (AutoModelForImageClassification, KrauseViTConfig, KrauseViT),
    (AutoModelForImageClassification, KrauseSwinConfig, KrauseSwin),
)

for auto, config, model in MODELS:
    AutoConfig.register(config.model_type, config)
    auto.register(config, model)
    AutoModel.register(config, model)  # by which an analysis loads any folder

know_all()
for family in FAMILIES:
    gated_classes(family)
if importlib.util.find_spec("peft") is not None:
    importlib.import_module("krause_dynamics.models.gated_peft").register()
