"""A picture with a slider for each of its parameters; it moves wherever HTML is shown, without a kernel or widgets."""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt

from krause_dynamics._arguments import Called, Whole, reads
from krause_dynamics._progress import Progress, drawn
from krause_dynamics.plots.style import small_png

MOST = 500  # pictures: some 10 kB each
# The one picture is shown whose number is that of the places of all sliders.
_MOVED = (
    "const all=this.closest('figure'),at=[...all.querySelectorAll('input')].map(s=>s.value).join('-');"
    "for(const picture of all.querySelectorAll('img'))picture.hidden=picture.dataset.at!==at;"
    "this.nextElementSibling.value=JSON.parse(this.dataset.values)[this.value]"
)


@dataclass(frozen=True, repr=False)
class Sliders:
    """What `sliders` gives: a notebook shows one picture at a time, under its sliders.

    Attributes:
        values: Values of each parameter, by name, as words.
        pictures: PNG files, the last parameter fastest.
    """

    values: dict[str, list[str]]
    pictures: list[bytes]

    def __repr__(self) -> str:
        over = ", ".join(f"{name} ({len(values)})" for name, values in self.values.items())
        return f"Sliders: {len(self.pictures)} pictures over {over}"

    def _repr_html_(self) -> str:
        places = itertools.product(*(range(len(values)) for values in self.values.values()))
        lines = ['<figure style="margin:0">', *(_slider(name, values) for name, values in self.values.items())]
        for number, (place, picture) in enumerate(zip(places, self.pictures, strict=True)):
            words = ", ".join(f"{name} = {v[i]}" for i, (name, v) in zip(place, self.values.items(), strict=True))
            source = base64.b64encode(picture).decode()
            lines.append(
                f'<img data-at="{"-".join(map(str, place))}" alt="{html.escape(words)}" '
                f'src="data:image/png;base64,{source}"{" hidden" if number else ""}>'
            )
        return "\n".join([*lines, "</figure>"])


def _slider(name: str, values: list[str]) -> str:
    words, first, held = (html.escape(text) for text in (name, values[0], json.dumps(values)))
    return (
        f'<label style="display:block">{words} <input type="range" min="0" max="{len(values) - 1}" value="0" '
        f'aria-label="{words}" data-values="{held}" oninput="{_MOVED}"> <output>{first}</output></label>'
    )


@reads(draw=Called(), dpi=Whole(10, 1000))
def sliders(
    draw: Callable[..., Any], *, dpi: int = 75, progress: bool | Progress = False, **values: Sequence[Any]
) -> Sliders:
    """Draw a picture for every combination of values and put a slider for each parameter above it.

    All pictures are made at once and lie in the page, so that the sliders move in a notebook, on a static site and in a
    saved HTML file alike. ``ipywidgets.interact(draw, ...)`` takes the same function where a kernel may draw each anew.

    Args:
        draw: ``draw(**point)`` returns Axes or a Figure, which is closed afterwards.
        dpi: Dots per inch of the pictures.
        progress: ``True`` draws a bar over the pictures; or a function ``progress(done, total)``.
        **values: Values of each parameter of ``draw``, by name.

    Returns:
        What a notebook shows when it ends a cell.

    Raises:
        TypeError: ``draw`` returns neither Axes nor a Figure.
        ValueError: No parameter, one without values, or more than 500 pictures.
    """
    if not values or any(len(several) == 0 for several in values.values()):
        raise ValueError(f"values must hold at least one value for at least one parameter, got {dict(values)}")
    points = list(itertools.product(*values.values()))
    Whole(1, MOST).read("values (their combinations)", len(points))
    pictures = []
    with drawn(progress, "sliders") as bar:
        for done, point in enumerate(points):
            bar(done, len(points))
            pictures.append(_picture(draw(**dict(zip(values, point, strict=True))), dpi))
        bar(len(points), len(points))
    return Sliders({name: [_word(value) for value in several] for name, several in values.items()}, pictures)


def _picture(made: Any, dpi: int) -> bytes:
    figure = made if hasattr(made, "savefig") else getattr(made, "figure", None)
    if figure is None:
        raise TypeError(f"draw must return Axes or a Figure, got {type(made).__name__}")
    raw = io.BytesIO()
    figure.savefig(raw, format="png", dpi=dpi)
    plt.close(figure)
    return small_png(raw)


def _word(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
