"""Kills at random moments (KILL, TERM, INT), up to three a run, then resumed: the numbers of a run never stopped."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tests.campaigns.frame import Campaign, main, start, wait
from tests.campaigns.producers import PRODUCERS, result_of

SIGNALS = {signal.SIGKILL: (-9,), signal.SIGTERM: (143,), signal.SIGINT: (0, 130)}
LIMIT = 20.0  # seconds


@functools.cache
def whole(name: str) -> tuple[dict[str, np.ndarray], float]:
    """The numbers of a producer that nobody disturbs, and the seconds that it takes."""
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(SystemExit):
        PRODUCERS[name](Path(folder))  # here, so that processes that are forked find everything loaded and compiled
    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        status = wait(start(lambda: PRODUCERS[name](Path(folder))), LIMIT)
        found = result_of(Path(folder))
        assert status == 0, (name, status)
        assert found is not None, name
        return found, time.monotonic() - began


def kind(rng: np.random.Generator) -> str:
    """Which producer is killed."""
    return str(rng.choice(list(PRODUCERS)))


def trial(rng: np.random.Generator, folder: Path) -> dict[str, Any]:
    """One producer, kills, and a last run to the end."""
    name = kind(rng)
    expected, seconds = whole(name)
    sent = [int(number) for number in rng.choice(list(SIGNALS), size=rng.integers(1, 4))]
    line = {"kind": name, "signals": [signal.Signals(number).name for number in sent]}
    for number in sent:
        child = start(lambda: PRODUCERS[name](folder))
        time.sleep(rng.uniform(0.0, 1.1 * seconds))
        os.kill(child, number)
        status = wait(child, LIMIT)
        if status == -1000:
            return line | {"outcome": "hang"}
        # Before a run has begun TERM ends Python itself; after its end it is too late for any signal.
        if status not in (0, *SIGNALS[number], -number):  # type: ignore[index]
            return line | {"outcome": "lost", "told": f"status {status} after {signal.Signals(number).name}"}
    status = wait(start(lambda: PRODUCERS[name](folder)), LIMIT)
    found = result_of(folder)
    if status != 0 or found is None:
        return line | {"outcome": "hang" if status == -1000 else "lost", "told": f"status {status} at the end"}
    equal = found.keys() == expected.keys() and all(found[key].tobytes() == expected[key].tobytes() for key in expected)
    return line | {"outcome": "kept" if equal else "silent"}


CAMPAIGN = Campaign("kills", trial, kind, limit=6 * LIMIT)

if __name__ == "__main__":
    main(CAMPAIGN)
