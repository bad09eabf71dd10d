"""What campaigns share: trials by number, each in a forked process that may crash or hang, and counts that add up."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

GOOD = ("kept", "refused", "same", "whole", "returned")  # outcomes; every other one is a fault
Trial = Callable[[np.random.Generator, Path], dict[str, Any]]


@dataclass(frozen=True)
class Campaign:
    """A kind of trial.

    Attributes:
        name: Of its module.
        trial: ``trial(rng, folder)`` in a folder of its own: a line with ``kind`` (what was tried) and ``outcome``.
        kind: Of the trial with this generator, for one that could not answer.
        limit: Seconds after which a trial counts as a hang.
    """

    name: str
    trial: Trial
    kind: Callable[[np.random.Generator], str]
    limit: float = 20.0

    def run(self, count: int, seed: int, out: Path, seconds: float = np.inf) -> list[dict[str, Any]]:
        """Trials 0 .. ``count`` - 1 that the file lacks, until the time is over; all lines of this seed."""
        lines = {line["trial"]: line for line in _lines(out) if line["seed"] == seed and line["trial"] < count}
        missing = [number for number in range(count) if number not in lines]
        until = time.monotonic() + seconds
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("a") as stream:
            if stream.tell() and not out.read_text().endswith("\n"):
                stream.write("\n")  # after a line that a kill tore
            while missing and time.monotonic() < until:
                for line in self._batch(missing, seed, until):
                    lines[line["trial"]] = line
                    stream.write(json.dumps(line) + "\n")
                    stream.flush()
                missing = [number for number in missing if number not in lines]
        return [lines[number] for number in sorted(lines)]

    def _batch(self, numbers: list[int], seed: int, until: float) -> Iterator[dict[str, Any]]:
        """Trials in one process, until one of them crashes or hangs: that is its line, and the last one."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._work(numbers, seed, writing, until)
        os.close(writing)
        done = 0
        with os.fdopen(reading, "rb", buffering=0) as stream:
            while select.select([stream], [], [], self.limit)[0] and (text := stream.readline()):
                yield json.loads(text)
                done += 1
            over = bool(select.select([stream], [], [], 0)[0])
        if not over:
            _end(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if done < len(numbers) and (status != 0 or not over):
            kind = self.kind(np.random.default_rng([seed, numbers[done]]))
            line = {"trial": numbers[done], "seed": seed, "kind": kind, "told": str(status)}
            yield line | {"outcome": "crash" if over else "hang"}

    def _work(self, numbers: list[int], seed: int, writing: int, until: float) -> None:
        """In the child: never returns."""
        os.setsid()  # so that whatever a trial leaves can be ended with it
        silence = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(silence, number)
        try:
            with os.fdopen(writing, "w") as stream:
                for number in numbers:
                    if time.monotonic() > until:
                        break
                    with tempfile.TemporaryDirectory() as folder:
                        line = self.trial(np.random.default_rng([seed, number]), Path(folder))
                    stream.write(json.dumps({"trial": number, "seed": seed, **line}) + "\n")
                    stream.flush()
            os._exit(0)
        except BaseException:
            os._exit(70)


def _end(child: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """Lines of a file; the last one may be torn."""
    for text in path.read_text().splitlines() if path.exists() else ():
        try:
            yield json.loads(text)
        except json.JSONDecodeError:
            continue


def faults(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines with an outcome that must not be."""
    return [line for line in lines if line["outcome"] not in GOOD]


def table(lines: list[dict[str, Any]], count: int) -> str:
    """Counts by kind and outcome, which add up to the number of trials that were made."""
    counts = Counter((line["kind"], line["outcome"]) for line in lines)
    kinds, outcomes = sorted({kind for kind, _ in counts}), sorted({outcome for _, outcome in counts})
    rows = [["kind", *outcomes, "all"]]
    rows += [
        [kind, *(str(counts[kind, o]) for o in outcomes), str(sum(counts[kind, o] for o in outcomes))] for kind in kinds
    ]
    totals = [sum(counts[kind, o] for kind in kinds) for o in outcomes]
    rows.append(["all", *map(str, totals), str(sum(totals))])
    text = [f"| {' | '.join(row)} |" for row in rows]
    text.insert(1, "|" + " --- |" * len(rows[0]))
    told = f"{len(lines)} of {count} trials" + (" (partial)" if len(lines) < count else "")
    return "\n".join([told, "", *text])


def main(campaign: Campaign, arguments: list[str] | None = None) -> None:
    """The command of a campaign; exit status 1 where there are faults."""
    parser = argparse.ArgumentParser(prog=f"python -m tests.campaigns.{campaign.name}")
    parser.add_argument("--count", type=int, required=True, help="number of trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True, help="lines of JSON; trials that it holds are not repeated")
    parser.add_argument("--seconds", type=float, default=np.inf, help="end after so many seconds")
    given = parser.parse_args(arguments)
    lines = campaign.run(given.count, given.seed, given.out, given.seconds)
    print(f"{campaign.name}, seed {given.seed}: {table(lines, given.count)}")  # noqa: T201
    for line in faults(lines)[:20]:
        print(json.dumps(line))  # noqa: T201
    sys.exit(bool(faults(lines)))


def forked(work: Callable[[], None], limit: float) -> int:
    """Exit status of a function in a process of its own; negative for a signal, -1000 for a hang."""
    child = start(work)
    return wait(child, limit)


def start(work: Callable[[], None]) -> int:
    """A process that does the work with the handlers of signals that a fresh Python has."""
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    status = 0
    try:
        work()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        status = 130
    except BaseException:
        status = 1
    os._exit(status)


def wait(child: int, limit: float) -> int:
    """Exit status of a process, which is ended after ``limit`` seconds: -1000."""
    until = time.monotonic() + limit
    while time.monotonic() < until:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return -1000
