"""Decoders: language models and autoregressive models of pictures, one architecture with another vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from krause_dynamics._array import may_look
from krause_dynamics.models.blocks import KrauseModel, Trail, attention, blocks
from krause_dynamics.models.branches import GatedAttention
from krause_dynamics.models.decoder_configuration import KARMConfig, KrauseLMConfig
from krause_dynamics.models.decoding import Caches, Unpaged
from krause_dynamics.models.linear import LinearAttention
from krause_dynamics.models.stepping import one_token


class KrauseLM(Unpaged, KrauseModel, GenerationMixin):
    """A decoder with a language modelling head; ``forward`` and ``generate`` as in transformers.

    Args:
        config: Sizes, score and support.

    Examples:
        >>> model = KrauseLM(KrauseLMConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2))
        >>> model(torch.randint(50, (1, 7))).logits.shape
        torch.Size([1, 7, 50])
    """

    config_class = KrauseLMConfig
    config: KrauseLMConfig
    _is_stateful = True  # a window cannot take tokens back, which assisted generation would ask for
    _tied_weights_keys = {"head.weight": "token_embedding.weight"}

    def __init__(self, config: KrauseLMConfig) -> None:
        super().__init__(config)
        self.token_embedding = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = blocks(config, (_mixer(config, i) for i in range(config.num_hidden_layers)))
        self.norm = nn.LayerNorm(config.hidden_size)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, config.head_bias)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The table of tokens."""
        return self.token_embedding

    def get_output_embeddings(self) -> nn.Module:
        """The head."""
        return self.head

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table of tokens, as ``resize_token_embeddings`` gives it."""
        self.token_embedding = value  # type: ignore[assignment]

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Another head, likewise."""
        self.head = new_embeddings  # type: ignore[assignment]

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        """``generate`` leaves the cache to `forward`: a window of the past, not all of it."""
        return False

    def new_cache(self, *, static: bool = False) -> Caches:
        """Empty caches, one a layer.

        Args:
            static: In fixed memory, for a step that is captured; see `KrauseAttention.new_cache`.
        """
        mixers: list[Any] = [layer.attention for layer in self.layers]
        return Caches(mixer.new_cache(static=static) for mixer in mixers)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Caches | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Logits of the next token.

        Args:
            input_ids: Tokens (batch, n).
            attention_mask: (batch, all tokens seen so far and these), 0 for padding on either side.
            position_ids: (batch or 1, n); default: counted from the cache, padding left out.
            past_key_values: From `new_cache`, or from the output of the last call; only without gradients.
            inputs_embeds: Instead of input_ids, (batch, n, hidden_size).
            labels: (batch, n), not shifted; -100 is left out of the mean.
            use_cache: Whether to keep keys and values to go on from (only without gradients).
            logits_to_keep: Only for this many last tokens; 0: all.
            output_attentions: Return the weights of each layer before dropout, (batch, heads, n, keys), the keys those
                that the cache holds; of a model with a gate those of its softmax branch (see `branch_weights`).
            output_hidden_states: Return the tokens before each layer and after the last.
            return_dict: A dictionary (default) or a tuple.

        Raises:
            TypeError: A cache of another kind.
            ValueError: Both or no inputs, a sequence too long, a mask of another length, a cache with gradients.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of them")
        if input_ids is not None and (input_ids.ndim != 2 or input_ids.is_floating_point()):
            raise ValueError(
                f"input_ids must be whole numbers (batch, n), got {input_ids.dtype} {tuple(input_ids.shape)}"
            )
        x = self.token_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        cache = self._cache(past_key_values, use_cache)
        positions, valid = self._places(x, attention_mask, position_ids, cache)
        x = self.dropout(x + self.position_embedding(positions))
        trail = Trail(self.config, output_hidden_states, output_attentions, x)
        logits = None if cache is None or valid is not None or trail.is_wanted else one_token(self, x, cache)
        if logits is None:
            for i, layer in enumerate(self.layers):
                x = trail.through(layer, x, key_valid=valid, cache=None if cache is None else cache[i])
            logits = self.head(self.norm(x[:, -logits_to_keep:]))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        kept: Any = cache  # ours, not a Cache of the library
        output = CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=kept, **trail.outputs)  # type: ignore[arg-type]
        return output.to_tuple() if return_dict is False else output

    def _cache(self, given: Caches | None, use_cache: bool | None) -> Caches | None:
        if given is None and not use_cache:
            return None
        if torch.is_grad_enabled():
            raise ValueError("a cache passes no gradients on; train with use_cache=False, decode under torch.no_grad()")
        if given is None:
            return self.new_cache()
        if not isinstance(given, Caches):
            raise TypeError(f"past_key_values must come from this model's new_cache(), got {type(given).__name__}")
        if len(given) != len(self.layers):
            raise ValueError(f"past_key_values must hold {len(self.layers)} caches, one a layer, got {len(given)}")
        return given

    def _places(
        self, x: Tensor, mask: Tensor | None, positions: Tensor | None, cache: Caches | None
    ) -> tuple[Tensor, Tensor | None]:
        """Positions (batch or 1, n) of the new tokens, and which of them are no padding (``None``: all)."""
        n, seen = x.shape[1], 0 if cache is None else cache.seen
        total = n + seen
        longest = self.config.max_position_embeddings
        if isinstance(total, int) and total > longest:
            raise ValueError(f"a sequence must have at most max_position_embeddings = {longest} tokens, got {total}")
        if mask is not None:
            check_padding(mask, x.shape[0], total)
        if mask is not None and may_look(mask) and bool((mask != 0).all()):
            mask = None
        if positions is None:
            if mask is None:
                positions = torch.arange(n, device=x.device)[None] + seen
            else:
                positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -n:]
        return positions, None if mask is None else mask[:, -n:].bool()


def check_padding(mask: Tensor, batch: int, total: int) -> None:
    """A mask tells tokens from padding.

    Raises:
        ValueError: Another shape, or numbers other than 0 and 1: a mask to be added means the opposite.
    """
    if mask.ndim != 2 or mask.shape[0] not in (1, batch) or mask.shape[1] != total:
        raise ValueError(f"attention_mask must be ({batch}, {total}), cached tokens included, got {tuple(mask.shape)}")
    if mask.dtype != torch.bool and may_look(mask) and not bool(((mask == 0) | (mask == 1)).all()):
        raise ValueError("attention_mask must hold 1 for tokens and 0 for padding, got other numbers")


class KARM(KrauseLM):
    """An autoregressive model of pictures (2602.11534): `KrauseLM` over the levels of a picture in raster order."""

    config_class = KARMConfig
    config: KARMConfig

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Another table of as many levels.

        Raises:
            ValueError: Of more or fewer: levels belong to the pictures.
        """
        count, levels = len(value.weight), self.config.levels  # type: ignore[arg-type]
        if count != levels:
            raise ValueError(f"the vocabulary of a {type(self).__name__} are its {levels} levels, got {count} tokens")
        super().set_input_embeddings(value)


def _mixer(config: KrauseLMConfig, layer: int) -> nn.Module:
    if config.score == "linear":
        return LinearAttention(config.hidden_size, config.num_attention_heads)
    krause = attention(config, layer)
    if not config.gate:
        return krause
    return GatedAttention(attention(config, layer, score="dot", neighbourhood=config.everyone()), krause)
