"""Workers of the commands here, and what they say."""

from __future__ import annotations

import os
import sys
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from typing import Any


def workers(count: int, cards: int = 1) -> Executor:
    """Processes, started afresh as CUDA wants, in turn on so many cards; one worker is a thread of this process."""
    if count == 1:
        return ThreadPoolExecutor(1)
    context = get_context("spawn")
    places = context.Queue()
    for i in range(count):
        places.put(i % cards)
    return ProcessPoolExecutor(count, context, _take, (places, cards))


def _take(places: Any, cards: int) -> None:
    """A process sees one card alone, if there are several; before torch is imported."""
    if cards > 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = str(places.get())


def say(words: str) -> None:
    """A line, at once."""
    sys.stdout.write(words + "\n")
    sys.stdout.flush()
