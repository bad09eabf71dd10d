"""Names that go with the next release."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

from krause_dynamics._progress import ProgressBar

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress_bar(label: str, console: Console | None = None) -> Iterator[Callable[[float, float], None]]:
    """Deprecated: pass ``progress=True`` to what takes long, such as ``kd.analyze``; ``console`` has no effect.

    Args:
        label: Words before the bar.
        console: Without effect.

    Yields:
        A function ``progress(done, total)`` that draws a bar on the standard error.
    """
    warnings.warn("report.progress_bar goes; pass progress=True to kd.analyze", DeprecationWarning, stacklevel=3)
    with closing(ProgressBar(label)) as bar:
        yield bar
