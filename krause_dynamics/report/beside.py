"""Further results of a model on its page: what they are, a sentence of each, its pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from krause_dynamics.report import sentences
from krause_dynamics.report.panels import SIZE, Panel

SPREAD = "Line: mean over sequences; band: the middle 80 per cent of them."


@dataclass(frozen=True)
class Kind:
    """A further result that a page shows.

    Attributes:
        title: Of its section.
        source: The function that makes one.
        holds: Variables by which a Dataset of it is known.
        slug: Of the files with its numbers.
        sentence: Its numbers in words.
        panels: Its pictures.
    """

    title: str
    source: str
    holds: tuple[str, ...]
    slug: str
    sentence: Callable[[Any], str]
    panels: tuple[Panel, ...]

    def named(self, result: Any) -> dict[str, Any]:
        """Its Datasets by slug."""
        return {self.slug: result} if hasattr(result, "data_vars") else {name: result[name] for name in self.holds}

    def is_of(self, result: Any) -> bool:
        """Whether a result is of this kind; the pairs of an encoder-decoder are three Datasets by name."""
        if hasattr(result, "data_vars"):
            return all(name in result for name in self.holds)
        return isinstance(result, Mapping) and set(self.holds) <= set(result)


def _panel(
    title: str, words: str, plot: str, *, of: str = "", size: Any = SIZE, shows: tuple[str, ...] = (), **options: Any
) -> Panel:
    """One of ``kd.plots`` with options; ``of``: of a part of it; ``shows``: left out without these variables."""

    def draw(plots: Any, result: Any, ax: Any) -> None:
        getattr(plots, plot)(result[of] if of else result, ax=ax, **options)

    return Panel(title, words, shows, draw, size=size)


def _high_enough(data: Any) -> tuple[float, float]:
    """A row for each token in letters that can be read, as long as there are not too many."""
    rows = data.sizes["token"]
    return SIZE[0], 2.6 + (0.135 * rows if rows <= 64 else 4.0)


FORECAST = (
    _panel(
        "Contraction of blocks",
        f"Below 1 a block draws tokens together. Predicted from its derivative at the mean of the tokens. {SPREAD}",
        "forecast",
    ),
    _panel(
        "Clusters, predicted and measured",
        "A dot a sequence (larger: several); on the dotted line theory is right.",
        "forecast",
        quantity="clusters",
    ),
    _panel(
        "Winning mode",
        "Degree that grows most from the uniform law: 1 draws to one side, 2 to two opposite ones.",
        "forecast",
        quantity="winning_mode",
    ),
    _panel(
        "Effective beta by head",
        "How sharply a head chooses: mean over sequences.",
        "head_map",
        quantity="effective_beta",
    ),
    _panel(
        "What heads write of what they hear",
        "Eigenvalues of the OV circuits, a dot each: right of the line a head draws tokens to what it hears.",
        "ov_spectra",
        shows=("ov_real", "ov_imaginary"),
    ),
)
CONFIDENCE = (
    _panel("Hypotheses of the theorem", "Tokens that satisfy each; means over sequences and heads.", "confidence"),
    _panel("How far is heard", "From query to heard key, in units of sigma.", "head_map", quantity="distance"),
)
BRANCHES = (
    _panel(
        "The first token, against even attention",
        "1: as even attention within the reach of that branch.",
        "branches",
        relative=True,
    ),
    _panel("What the gate gives", "Mean over tokens and sequences.", "branches", quantity="gate"),
    _panel(
        "Entropy of each branch",
        "1: spread evenly over what it reaches; 0: all on one token.",
        "branches",
        quantity="entropy",
    ),
)
TRACKS = (
    _panel(
        "Who is with whom",
        "A row is a token, those that end together side by side; a colour is a cluster, blank is alone.",
        "tracks",
        size=_high_enough,
        named=6,
    ),
)
PAIRS = (
    _panel("Alignment of both stacks", "Without the first token of each.", "stacks"),
    _panel("Sinks of both stacks", "Attention of each to its own first token.", "stacks", quantity="importance_first"),
    _panel(
        "Cross-attention to the strongest source",
        "Block of the decoder by head.",
        "head_map",
        of="cross",
        quantity="strongest_importance",
    ),
    _panel("Where the decoder looks", "A decoder that reads along climbs along the dotted line.", "cross_places"),
)
KINDS = (
    Kind(
        "Predicted beside measured", "kd.checkpoints.forecast", ("winning_mode", "contraction"), "forecast",
        sentences.of_forecast, FORECAST,
    ),
    Kind(
        "Bounded confidence", "kd.checkpoints.confidence", ("share_theorem", "distance"), "confidence",
        sentences.of_confidence, CONFIDENCE,
    ),
    Kind(
        "Branches", "kd.models.branch_statistics", ("branch", "gate"), "branches", sentences.of_branches, BRANCHES,
    ),
    Kind(
        "Clusters followed", "kd.checkpoints.tracks", ("number", "words"), "tracks", sentences.of_tracks, TRACKS,
    ),
    Kind(
        "Encoder and decoder", "kd.checkpoints.encoder_decoder", ("encoder", "decoder", "cross"), "pairs",
        sentences.of_pairs, PAIRS,
    ),
)  # fmt: skip


def kind_of(result: Any) -> Kind | None:
    """Of which kind a result is; ``None`` of others."""
    return next((kind for kind in KINDS if kind.is_of(result)), None)


@dataclass(frozen=True)
class Beside:
    """Further results: a sequence of them, each of a kind that a page shows."""

    def read(self, name: str, value: Any) -> list[tuple[Kind, Any]]:
        """Each with its kind."""
        single = hasattr(value, "data_vars") or isinstance(value, Mapping)
        if not isinstance(value, Sequence) or isinstance(value, str) or single:
            raise TypeError(f"{name} must be a list of further results, such as [kd.checkpoints.forecast(...)]")
        found = []
        for i, result in enumerate(value):
            kind = kind_of(result)
            if kind is None:
                known = ", ".join(one.source for one in KINDS)
                raise ValueError(
                    f"{name}[{i}] must be a result of {known}, got {type(result).__name__} of another kind"
                )
            found.append((kind, result))
        return found


def not_beside(given: list[Kind]) -> list[tuple[str, str]]:
    """Kinds that a page does not show, and who makes them; those of other architectures are left out."""
    general = ("forecast", "tracks")
    return [
        (kind.title[:1].lower() + kind.title[1:], f"not asked for; beside=[{kind.source}(...)] of kd.report.write_page")
        for kind in KINDS
        if kind.slug in general and kind not in given
    ]
