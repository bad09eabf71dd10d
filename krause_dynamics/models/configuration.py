"""Configurations: size, score and support of a model as words and numbers that transformers keeps as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from transformers import PreTrainedConfig

from krause_dynamics._arguments import COUNT, COUNT_OR_ZERO, POSITIVE
from krause_dynamics._value import check_names
from krause_dynamics.interaction import Everyone, TopK
from krause_dynamics.interaction.neighbourhoods import Neighbourhood

# Words of a score, as keywords of the layer. Softmax attention has a fixed temperature.
Scores = Mapping[str, Mapping[str, Any]]
SCORES: Scores = {
    "dot": {"score": "dot", "learn_sigma": False},
    "dot+temperature": {"score": "dot"},
    "dot+temperature+key_norm": {"score": "dot", "norm": 0.0},
    "gaussian": {"score": "gaussian"},
}
SUPPORTS = ("full", "window", "window+first_tokens", "random", "top_k", "window+top_k")
# What transformers itself hands to a configuration beside its fields.
OF_THE_LIBRARY = {
    "attn_implementation", "experts_implementation", "output_attentions", "name_or_path", "model_type", "num_labels",
    "torch_dtype", "transformers_version", "_commit_hash", "_name_or_path", "_attn_implementation_internal",
    "_experts_implementation_internal",
}  # fmt: skip


class KrauseConfig(PreTrainedConfig):
    """What all models share: sizes, who is heard and how much, and regularisation.

    Any score goes with any support, so that arms of an experiment differ in one word. Numbers whose word `support` does
    not name are not used.

    Args:
        hidden_size: Width d of the tokens.
        num_hidden_layers: L.
        num_attention_heads: H, divides d.
        intermediate_size: Width of the feed-forward layer; default 4 d.
        score: ``"dot"`` (softmax attention at 1/sqrt(d_h)), ``"dot+temperature"`` (learned),
            ``"dot+temperature+key_norm"`` (beside it a learned term -c_h |k|^2 a head, from 0), or ``"gaussian"``.
        support: ``"full"``, ``"window"``, ``"window+first_tokens"``, ``"random"``, ``"top_k"`` or ``"window+top_k"``.
        window: W keys with the query's own; of a picture the radius of the neighbourhood in patches.
        first_tokens: How many tokens at the beginning stay visible beside the window; of a picture these are learned
            tokens of their own (registers).
        degree: How many random keys each token hears, its own counted, the same in all layers; default: as many as the
            window admits away from its ends.
        random_seed: Which random keys.
        attention_top_k: k of the first layer.
        attention_top_k_last: k of the last; between them ``round(linspace)`` (2602.11534 doubles k); default:
            the same k.
        sigma: Bandwidth at the start; default d_h^(1/4), the scale of dot products over sqrt(d_h).
        sigma_per_head: One bandwidth a head, instead of one a layer.
        norm: ``"pre"``, or ``"post"`` as in the published KViT.
        dropout: Of embeddings, attention's output and the feed-forward layer.
        attention_dropout: Of weights, after normalisation.
        drop_path: Probability to skip a branch, of the last layer; it rises linearly from 0.
        initializer_range: Standard deviation of the truncated normal weights.

    Raises:
        ValueError: Unknown keys and words, sizes that are not positive or do not divide.
    """

    scores: ClassVar[Scores] = SCORES
    supports: ClassVar[tuple[str, ...]] = SUPPORTS

    hidden_size: int = 384
    num_hidden_layers: int = 12
    num_attention_heads: int = 6
    intermediate_size: int | None = None
    score: str = "gaussian"
    support: str = "window+top_k"
    window: int = 1
    first_tokens: int = 4
    degree: int | None = None
    random_seed: int = 0
    attention_top_k: int = 2
    attention_top_k_last: int | None = None
    sigma: float | None = None
    sigma_per_head: bool = False
    norm: str = "pre"
    dropout: float = 0.0
    attention_dropout: float = 0.0
    drop_path: float = 0.0
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        known = sorted(field.name for field in fields(self))
        check_names(f"{type(self).__name__} key", sorted(set(kwargs) - OF_THE_LIBRARY), known)
        super().__post_init__(**kwargs)
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self.check()

    def check(self) -> None:
        """Refuse what no model could be built from.

        Raises:
            ValueError: Naming the key, what it must be, and what was given.
        """
        for name in self.counts():
            if getattr(self, name) is not None:
                COUNT.read(name, getattr(self, name))
        for name, known in (("score", tuple(self.scores)), ("support", self.supports), ("norm", ("pre", "post"))):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide hidden_size, got {self.num_attention_heads} and {self.hidden_size}"
            )
        for name in ("dropout", "attention_dropout", "drop_path"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must be a probability in [0, 1), got {value!r}")
        COUNT_OR_ZERO.read("random_seed", self.random_seed)
        POSITIVE.read("initializer_range", self.initializer_range)
        if self.sigma is not None:
            POSITIVE.read("sigma", self.sigma)

    def counts(self) -> tuple[str, ...]:
        """Names of the keys that are whole numbers of at least 1 (or left out)."""
        sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
        return (*sizes, "window", "first_tokens", "degree", "attention_top_k", "attention_top_k_last")

    def top_k_of(self, layer: int) -> int:
        """K of a layer: ``round(linspace(attention_top_k, attention_top_k_last, L))``, half to even, as published."""
        last = self.attention_top_k if self.attention_top_k_last is None else self.attention_top_k_last
        step = (last - self.attention_top_k) / max(self.num_hidden_layers - 1, 1)
        return round(self.attention_top_k + step * layer)

    def neighbourhood(self, layer: int) -> Neighbourhood:
        """Who is heard in a layer (counted from 0), as one value of the core."""
        joined = self.everyone()
        if self.hears("window"):
            joined = joined & self.nearby()
        if self.hears("random"):
            joined = joined & self.random()
        if self.hears("top_k"):
            joined = joined & TopK(self.top_k_of(layer), exempt=self.exempt)
        return joined

    def hears(self, word: str) -> bool:
        """Whether the support names a word."""
        return word in self.support.split("+")

    @property
    def exempt(self) -> int:
        """Leading tokens that select nobody."""
        return 0

    def everyone(self) -> Neighbourhood:
        """Who is heard without restriction."""
        return Everyone()

    def random(self) -> Neighbourhood:
        """The fixed random keys."""
        raise NotImplementedError(f"{type(self).__name__} has no random keys")

    def nearby(self) -> Neighbourhood:
        """The window."""
        raise NotImplementedError(f"{type(self).__name__} has no window")


def sides(image_size: Any) -> tuple[int, int]:
    """Height and width in pixels.

    Raises:
        ValueError: Neither two numbers nor one for a square.
    """
    if isinstance(image_size, int):
        return image_size, image_size
    if not isinstance(image_size, list | tuple) or len(image_size) != 2:
        raise ValueError(f"image_size must be (height, width), or one number for a square, got {image_size!r}")
    return image_size[0], image_size[1]
