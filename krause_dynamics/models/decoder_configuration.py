"""Configurations of decoders: language models, and autoregressive models of pictures."""

from __future__ import annotations

from math import prod
from typing import ClassVar

from krause_dynamics._arguments import COUNT, FLAG
from krause_dynamics.interaction import Causal, RandomKeys, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood
from krause_dynamics.models.configuration import SCORES, KrauseConfig, Scores, sides


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
        for name in ("gate", "head_bias"):
            FLAG.read(name, getattr(self, name))
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
            COUNT.read("image_size and num_channels", length)
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
        return (*sides(self.image_size), self.num_channels)
