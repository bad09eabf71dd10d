"""Makes the Auto classes of transformers know the models of this room."""

from __future__ import annotations

from transformers import AutoConfig, AutoModelForCausalLM

from krause_dynamics.models.decoder import KARM, KARMConfig, KrauseLM, KrauseLMConfig

CAUSAL = {KrauseLMConfig: KrauseLM, KARMConfig: KARM}

for config, model in CAUSAL.items():
    AutoConfig.register(config.model_type, config)
    AutoModelForCausalLM.register(config, model)
