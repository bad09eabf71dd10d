"""Adapters of pretrained decoders: a step that asks nothing of the host, which a CUDA graph can hold."""

from __future__ import annotations

from unittest import mock

import pytest
import torch

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

from krause_dynamics.models import gated_attention  # noqa: E402
from krause_dynamics.training import adapted  # noqa: E402
from tests.capture import captured  # noqa: E402

FOLLOWS = {"vocab_size": 31, "max_position_embeddings": 16}


def base(family, folder):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=31,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=None,
        use_cache=False,
        **sizes,
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return {"base": str(folder)}


@pytest.mark.parametrize("branch", [{"branch": False}, {"window": 4, "top_k": 2}], ids=["lora", "branch"])
@pytest.mark.parametrize("family", adapted.CAPTURED)
def test_a_step_of_adapters_waits_for_nothing_and_writes_no_mask(family, branch, tmp_path):
    """As in a capture, which transformers notices: no read, no mask of pairs, and the same loss."""
    model = adapted.adapted(base(family, tmp_path) | branch, FOLLOWS).train()
    assert adapted.can_be_captured(model)
    x = torch.arange(32).reshape(2, 16) % 31
    free = model(input_ids=x, labels=x).loss
    sdpa, krause = torch.nn.functional.scaled_dot_product_attention, gated_attention.krause_attention
    with (
        captured(),
        mock.patch("torch.nn.functional.scaled_dot_product_attention", side_effect=sdpa) as softmax,
        mock.patch.object(gated_attention, "krause_attention", side_effect=krause) as beside,
    ):
        assert transformers.utils.import_utils.is_tracing()
        loss = model(input_ids=x, labels=x).loss
        loss.backward()
    assert torch.equal(loss, free)
    assert softmax.call_count == 2
    assert all(call.kwargs.get("attn_mask") is None and call.kwargs["is_causal"] for call in softmax.call_args_list)
    assert beside.call_count == (0 if "branch" in branch else 2)
    assert all("pair_bias" not in call.kwargs and "key_valid" not in call.kwargs for call in beside.call_args_list)


def test_other_families_are_not_captured():
    """Experts of mixtral are routed by the host."""
    config = transformers.MixtralConfig(num_hidden_layers=1)
    assert not adapted.can_be_captured(mock.Mock(config=config))
