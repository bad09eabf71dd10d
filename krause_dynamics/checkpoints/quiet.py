"""Loading through transformers without its bars and reports."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No loading bar and no report on standard error; what matters is checked and raised by the caller."""
    from transformers.utils import logging as their

    level, bars = their.get_verbosity(), their.is_progress_bar_enabled()
    placing = logging.getLogger("accelerate.big_modeling")  # says which weights lie on disk
    before = placing.level
    placing.setLevel(logging.ERROR)
    their.set_verbosity_error()
    their.disable_progress_bar()
    try:
        yield
    finally:
        placing.setLevel(before)
        their.set_verbosity(level)
        if bars:
            their.enable_progress_bar()
