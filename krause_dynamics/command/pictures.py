"""``krause generate`` and ``krause complete``: pictures from an autoregressive model, written as a grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_type_hints

import typer

from krause_dynamics.command.options import answered, check_paths, free, unfinished
from krause_dynamics.command.output import Answer, Output, gathered, options
from krause_dynamics.runs.interrupting import Terminated

Model = Annotated[Path, typer.Argument(help="Folder of an autoregressive model of pictures (KARM, ARM, LARM).")]
Out = Annotated[Path, typer.Option(help="PNG of all pictures side by side; a .npy beside it holds their levels.")]


class Drawing(NamedTuple):
    """Options of both commands, their help and defaults."""

    seed: Annotated[int, typer.Option(help="Of the random numbers: picture i depends on it and on i alone.")] = 0
    temperature: Annotated[float, typer.Option(help="Divides the logits; 1 draws from the model itself.")] = 1.0
    batch_size: Annotated[
        int | None, typer.Option(help="Pictures at a time (default: 64 at most; on a GPU as many as fit).")
    ] = None
    device: Annotated[str, typer.Option(help="Where the model runs, such as cuda.")] = "cpu"

    @property
    def options(self) -> dict[str, Any]:
        """Those that the functions of `models` take."""
        return {name: value for name, value in self._asdict().items() if name != "device"}


_hints = get_type_hints(Drawing, include_extras=True)
draws = gathered("drawing", Drawing, {name: (_hints[name], Drawing._field_defaults[name]) for name in Drawing._fields})


@draws
@options("json", "quiet", "force")
def generate(
    model: Model,
    out: Out = Path("pictures.png"),
    count: Annotated[int, typer.Option("--count", "-n", help="Number of pictures.")] = 16,
    *,
    output: Output,
    drawing: Drawing,
) -> None:
    """Draw pictures from a trained autoregressive model, one value after the other."""
    answered(partial(_generate, model, out, count, drawing, output), output)


@draws
@options("json", "quiet", "force")
def complete(
    model: Model,
    pictures: Annotated[
        Path, typer.Argument(help="What is given: a .npy of levels (count, height, width[, channels]), or a PNG.")
    ],
    out: Out = Path("completed.png"),
    rows: Annotated[int | None, typer.Option(help="Rows that are given, from above (default: half).")] = None,
    *,
    output: Output,
    drawing: Drawing,
) -> None:
    """Keep the upper rows of pictures and let a trained autoregressive model draw the rest."""
    answered(partial(_complete, model, pictures, out, rows, drawing, output), output)


def _generate(folder: Path, out: Path, count: int, drawing: Drawing, output: Output) -> Answer:
    _check(folder, out, output)
    from krause_dynamics import models

    model = _loaded(folder, drawing.device)
    told = {"command": "krause generate", "model": str(folder), "count": count} | drawing.options
    draw = partial(models.generate_pictures, model, count, progress=output.progress, **drawing.options)
    return _written(_drawn(draw, out, model, told), out, model, told)


def _complete(folder: Path, source: Path, out: Path, rows: int | None, drawing: Drawing, output: Output) -> Answer:
    _check(folder, out, output, source)
    from krause_dynamics import models

    model = _loaded(folder, drawing.device)
    given = _read(source)
    told = {"command": "krause complete", "model": str(folder), "pictures": str(source), "rows": rows}
    told |= drawing.options
    draw = partial(models.complete_pictures, model, given, rows, progress=output.progress, **drawing.options)
    return _written(_drawn(draw, out, model, told), out, model, told)


def _check(folder: Path, out: Path, output: Output, source: Path | None = None) -> None:
    """Tell what is mistyped before seconds of imports.

    Raises:
        ValueError: No model or pictures there, or no place for the answer.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(f"model must be a folder that save_pretrained wrote, with config.json, got {str(folder)!r}")
    if source is not None and not source.is_file():
        raise ValueError(f"pictures: no such file {str(source)!r}")
    check_paths(out)
    from krause_dynamics.plots.pictures import picture_path

    picture_path(out)
    output.may_write(out, out.with_suffix(".npy"))


def _loaded(folder: Path, device: str) -> Any:
    from transformers import AutoConfig

    from krause_dynamics.checkpoints import shards
    from krause_dynamics.checkpoints.quiet import quiet_transformers
    from krause_dynamics.checkpoints.sources import place_of
    from krause_dynamics.models import KARM, KARMConfig

    place, config = place_of(device), AutoConfig.from_pretrained(folder)
    if not isinstance(config, KARMConfig):
        raise ValueError(
            f"model must be an autoregressive model of pictures (KARM, ARM, LARM), got {str(folder)!r}, which is a "
            f"{config.model_type}"
        )
    shards.check(folder)
    with quiet_transformers():
        return KARM.from_pretrained(folder, config=config).to(place).eval()


def _read(source: Path) -> Any:
    import numpy as np

    if source.suffix == ".npy":
        try:
            return np.load(source, allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise ValueError(f"pictures: {str(source)!r} is no array of numbers of numpy ({error})") from None
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(source) as picture:
            if picture.mode == "P":
                raise ValueError(
                    f"pictures: {str(source)!r} holds places in a palette, no levels; write it as grey or RGB"
                )
            return np.array(picture)[None]
    except UnidentifiedImageError:
        raise ValueError(f"pictures must be a .npy file or a picture, got {str(source)!r}") from None


def _drawn(draw: Callable[[], Any], out: Path, model: Any, told: dict[str, Any]) -> Any:
    """What is drawn; after a signal the finished batches lie beside the place of all.

    Raises:
        KeyboardInterrupt, Terminated: A signal, with what was kept in words.
    """
    try:
        return draw()
    except (KeyboardInterrupt, Terminated) as error:
        finished, words = getattr(error, "result", None), "no batch of pictures is finished, nothing was written"
        if finished is not None:
            from krause_dynamics.plots.pictures import picture_path

            place = free(unfinished(picture_path(out), "interrupted"))
            words = _written(finished, place, model, told | {"stopped": "interrupted"}).words
        raise type(error)(f"{words}; parts are kept from one batch to the next (--batch-size)") from error


def _written(drawn: Any, out: Path, model: Any, told: dict[str, Any]) -> Answer:
    import io

    import numpy as np

    from krause_dynamics import plots
    from krause_dynamics._files import write_bytes

    raw = io.BytesIO()
    np.save(raw, drawn, allow_pickle=False)
    written = plots.save_pictures(drawn, out, told, levels=model.config.levels)
    write_bytes(written.with_suffix(".npy"), raw.getvalue())
    words = f"wrote {written} and {written.with_suffix('.npy').name}: {len(drawn)} pictures"
    return Answer(words, told | {"out": written, "levels": written.with_suffix(".npy"), "shape": drawn.shape})
