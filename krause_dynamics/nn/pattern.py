"""Who hears whom in an attention layer, as day-to-day options; they say no more than a `Neighbourhood` of the core."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

from krause_dynamics.forms.attention.lowering import Rule, lower_neighbourhood
from krause_dynamics.interaction import Causal, Everyone, Grid, TopK, Window
from krause_dynamics.interaction.neighbourhoods import Neighbourhood

_OTHERS = {"sigma", "score", "scale", "key_bias", "pair_bias", "key_valid", "cu_seqlens", "query_offset", "dropout"}


@dataclass(frozen=True)
class Pattern:
    """Index rules and ranking of a layer.

    Attributes:
        window: W keys, the query's own counted; ``None``: no window.
        side: ``"past"``: the last W keys; ``"both"``: odd W, centred.
        top_k: The k largest scores among those which the other rules admit; ``None``: all.
        ties: ``"index"``: exactly k, the earlier key wins; ``"keep"``: all that tie with the k-th stay.
        causal: No later keys.
        grid: (height, width) of a picture in raster order; ``None``: a sequence.
        radius: Cells within this distance are heard, fewer at the edges; used with ``grid`` only.
        metric: ``"chebyshev"`` (squares; radius 2 is the 5 x 5 of ImageNet) or ``"manhattan"`` (radius 1 is the cross
            of CIFAR).
        prefix_tokens: Leading tokens (CLS, registers) that hear all and are heard by all; needs ``grid``.

    Raises:
        ValueError: A size below one, an even W with ``side="both"``, an unknown word, or a prefix without a grid.
    """

    window: int | None = None
    side: Literal["past", "both"] = "past"
    top_k: int | None = None
    ties: Literal["index", "keep"] = "index"
    causal: bool = False
    grid: tuple[int, int] | None = None
    radius: int = 2
    metric: Literal["chebyshev", "manhattan"] = "chebyshev"
    prefix_tokens: int = 0

    def __post_init__(self) -> None:
        if self.side not in ("past", "both"):
            raise ValueError(f"side must be 'past' or 'both', got {self.side!r}")
        if self.ties not in ("index", "keep"):
            raise ValueError(f"ties must be 'index' or 'keep', got {self.ties!r}")
        if self.metric not in ("chebyshev", "manhattan"):
            raise ValueError(f"metric must be 'chebyshev' or 'manhattan', got {self.metric!r}")
        if self.grid is not None and not (isinstance(self.grid, tuple) and len(self.grid) == 2):
            raise ValueError(f"grid must be (height, width), got {self.grid!r}")
        if self.prefix_tokens and self.grid is None:
            raise ValueError(
                f"prefix_tokens={self.prefix_tokens} needs grid=(height, width); without a grid all hear all already, "
                "and a window has no prefix"
            )
        self.neighbourhood  # noqa: B018  (built once here, so that its own checks run at the border)

    @cached_property
    def neighbourhood(self) -> Neighbourhood:
        """The same as a neighbourhood of the core."""
        joined: Neighbourhood = Everyone()
        if self.window is not None:
            joined = joined & Window(self.window, two_sided=self.side == "both")
        if self.causal:
            joined = joined & Causal()
        if self.grid is not None:
            joined = joined & Grid(*self.grid, self.radius, self.metric, self.prefix_tokens)
        return joined if self.top_k is None else joined & TopK(self.top_k, self.ties)

    @cached_property
    def rule(self) -> Rule:
        """The same in lowered form."""
        rule = lower_neighbourhood(self.neighbourhood.parts)
        assert isinstance(rule, Rule), rule
        return rule

    @property
    def looks_back(self) -> bool:
        """Whether no key after the query is heard, so that decoding with a cache makes sense."""
        return self.causal or (self.window is not None and (self.side == "past" or self.window == 1))


@lru_cache(maxsize=256)
def cached_pattern(*options: object) -> Pattern:
    """One `Pattern` per content, in the order of its fields."""
    return Pattern(*options)  # type: ignore[arg-type]


def split_options(options: dict[str, Any]) -> tuple[Pattern, dict[str, Any]]:
    """Options of `krause_attention`: the pattern, and what is left to say about scores, padding and dropout.

    Raises:
        TypeError: An option that it does not have.
        ValueError: An impossible pattern.
    """
    names = Pattern.__dataclass_fields__
    unknown = options.keys() - names - _OTHERS
    if unknown:
        raise TypeError(f"krause_attention has no option {sorted(unknown)[0]!r} to give here; see its signature")
    grid = options.get("grid")
    chosen = {name: value for name, value in options.items() if name in names}
    pattern = Pattern(**chosen | ({"grid": tuple(grid)} if isinstance(grid, list) else {}))
    return pattern, {name: value for name, value in options.items() if name not in names}
