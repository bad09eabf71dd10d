"""Decoders: language models and autoregressive models of pictures, one architecture with another vocabulary."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin
from transformers.modeling_outputs import CausalLMOutputWithPast

from krause_dynamics._array import may_look
from krause_dynamics._value import check_count
from krause_dynamics.interaction import Causal, RandomKeys, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.blocks import KrauseModel, attention, blocks
from krause_dynamics.models.branches import GatedAttention
from krause_dynamics.models.configuration import SCORES, KrauseConfig, Scores
from krause_dynamics.models.decoding import Caches
from krause_dynamics.models.linear import LinearAttention


class KrauseLMConfig(KrauseConfig):
    """A decoder: learned positions, pre-norm, GELU.

    Args:
        vocab_size: Number of tokens.
        max_position_embeddings: Longest sequence.
        gate: A branch of softmax attention over all earlier tokens beside the attention that `score` and `support`
            name, mixed by a gate per token (`krause_dynamics.models.branches`).
        head_bias: Whether the head has a bias.
        tie_word_embeddings: Whether the head has the embedding's weights.
        bos_token_id: First token of a text.
        eos_token_id: Last token; generation stops there.
        pad_token_id: Padding.
        use_cache: Whether ``generate`` keeps keys and values.

    `KrauseConfig` has the other keys; the score may also be ``"linear"`` (attention with the features elu + 1, on
    ``support="full"``).

    Raises:
        ValueError: As `KrauseConfig`, or a linear score on another support or beside a gate.
    """

    model_type = "krause_lm"
    scores: ClassVar[Scores] = {**SCORES, "linear": {}}

    hidden_size: int = 768
    num_hidden_layers: int = 8
    num_attention_heads: int = 12
    window: int = 256
    attention_top_k: int = 192
    vocab_size: int = 32000
    max_position_embeddings: int = 1024
    gate: bool = False
    head_bias: bool = False
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None
    use_cache: bool = True

    def counts(self) -> tuple[str, ...]:
        """Names of the keys that are whole numbers of at least 1."""
        return (*super().counts(), "vocab_size", "max_position_embeddings")

    def check(self) -> None:
        """As `KrauseConfig.check`, and that linear attention stands alone."""
        super().check()
        if self.score == "linear" and (self.support != "full" or self.gate):
            raise ValueError(
                f"score='linear' sums over all earlier tokens: it needs support='full' and gate=False, got "
                f"support={self.support!r}, gate={self.gate}"
            )

    def everyone(self) -> Neighbourhood:
        """The token itself and all earlier ones."""
        return Causal()

    def nearby(self) -> Neighbourhood:
        """The last W tokens, and the first ones where the support names them."""
        return Window(self.window, prefix_tokens=self.first_tokens if self.hears("first_tokens") else 0)

    def random(self) -> Neighbourhood:
        """Random earlier tokens."""
        return RandomKeys(self.window if self.degree is None else self.degree, self.random_seed)


class KARMConfig(KrauseLMConfig):
    """An autoregressive model of pictures: a token is one level of one channel of one pixel, in raster order.

    Args:
        image_size: (height, width), or one number for a square.
        num_channels: Channels a pixel, the fastest index.
        levels: Levels of a channel, the vocabulary.

    The vocabulary and the length follow from these. ``score="dot", support="full"`` is ARM (softmax attention),
    ``score="linear", support="full"`` LARM (linear attention); the default is KARM on MNIST (2602.11534).
    """

    model_type = "krause_karm"

    image_size: int | list[int] | tuple[int, int] = 28
    num_channels: int = 1
    levels: int = 256
    hidden_size: int = 256
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    window: int = 128
    attention_top_k: int = 96
    sigma: float | None = 2.5
    sigma_per_head: bool = True
    vocab_size: int | None = None  # type: ignore[assignment]
    max_position_embeddings: int | None = None  # type: ignore[assignment]
    head_bias: bool = True
    tie_word_embeddings: bool = False

    def counts(self) -> tuple[str, ...]:
        """Names of the keys that are whole numbers of at least 1."""
        return (*super().counts(), "num_channels", "levels")

    def check(self) -> None:
        """As for a decoder, and that vocabulary and length are those of the picture."""
        for length in self.picture:
            check_count("image_size and num_channels", length)
        for name, follows in (("vocab_size", self.levels), ("max_position_embeddings", prod(self.picture))):
            if getattr(self, name) not in (None, follows):
                raise ValueError(
                    f"{name} follows from the picture and must be {follows} or left out, got {getattr(self, name)}"
                )
            setattr(self, name, follows)
        super().check()

    @property
    def picture(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        size = self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return height, width, self.num_channels


class KrauseLM(KrauseModel, GenerationMixin):
    """A decoder with a language modelling head; ``forward`` and ``generate`` as in transformers.

    Args:
        config: Sizes, score and support.

    Example:
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
            output_hidden_states: Return the tokens before each layer and after the last.
            return_dict: A dictionary (default) or a tuple.

        Raises:
            TypeError: A cache of another kind.
            ValueError: Both or no inputs, a sequence too long, a mask of another length, a cache with gradients.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, one of them")
        x = self.token_embedding(input_ids) if inputs_embeds is None else inputs_embeds
        cache = self._cache(past_key_values, use_cache)
        positions, valid = self._places(x, attention_mask, position_ids, cache)
        x = self.dropout(x + self.position_embedding(positions))
        states = [x]
        for i, layer in enumerate(self.layers):
            x = layer(x, key_valid=valid, cache=None if cache is None else cache[i])
            states.append(x)
        logits = self.head(self.norm(x[:, -logits_to_keep:]))
        loss = None
        if labels is not None:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        wanted = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        output = CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=tuple(states) if wanted else None,
            past_key_values=cache,  # type: ignore[arg-type]  # ours, not a Cache of the library
        )
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
        if mask is not None and mask.shape[1] != total:
            raise ValueError(
                f"attention_mask must be (batch, {total}), cached tokens included, got {tuple(mask.shape)}"
            )
        if mask is not None and may_look(mask) and bool((mask != 0).all()):
            mask = None
        if positions is None:
            if mask is None:
                positions = torch.arange(n, device=x.device)[None] + seen
            else:
                positions = (mask.long().cumsum(-1) - 1).clamp_min(0)[:, -n:]
        return positions, None if mask is None else mask[:, -n:].bool()


class KARM(KrauseLM):
    """An autoregressive model of pictures (2602.11534): `KrauseLM` over the levels of a picture in raster order."""

    config_class = KARMConfig
    config: KARMConfig


def _mixer(config: KrauseLMConfig, layer: int) -> nn.Module:
    if config.score == "linear":
        return LinearAttention(config.hidden_size, config.num_attention_heads)
    krause = attention(config, layer)
    if not config.gate:
        return krause
    return GatedAttention(attention(config, layer, score="dot", neighbourhood=config.everyone()), krause)
