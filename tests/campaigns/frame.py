"""What campaigns share: trials by number, each in a forked process that may crash or hang, and counts that add up."""

from __future__ import annotations

import argparse
import functools
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

WARM = 6  # limits that a trial may take once, where it had none of what is compiled
WAITING = (signal.SIGINT, signal.SIGTERM)
GOOD = ("kept", "refused", "same", "whole", "returned")  # outcomes; every other one is a fault
Trial = Callable[[np.random.Generator, Path], dict[str, Any]]


@dataclass(frozen=True)
class Campaign:
    """A kind of trial.

    Attributes:
        name: Of its module.
        trial: ``trial(rng, folder)`` in a folder of its own: a line with ``kind`` (what was tried) and ``outcome``.
        kind: Of the trial with this generator, for one that could not answer.
        limit: Seconds after which a trial counts as a hang, once everything is compiled.
        case: Of the trial with this generator, what it did, for one that could not answer.
    """

    name: str
    trial: Trial
    kind: Callable[[np.random.Generator], str]
    limit: float = 20.0
    case: Callable[[np.random.Generator], str] | None = None

    def run(self, count: int, seed: int, out: Path, seconds: float = np.inf, workers: int = 1) -> list[dict[str, Any]]:
        """Trials 0 .. ``count`` - 1 that the file lacks, until the time is over; all lines of this seed."""
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.exists() and out.read_bytes()[-1:] not in (b"", b"\n"):
            _append(out, "\n")  # after a line that a kill tore
        made = self._made(out, seed, count)
        missing = [number for number in range(count) if number not in made]
        until = time.monotonic() + seconds
        self.kind(np.random.default_rng(seed))  # loads what trials need, which is not the first one's time
        if workers == 1:
            self._share(missing, seed, out, until)
        else:
            work = [functools.partial(self._share, missing[k::workers], seed, out, until) for k in range(workers)]
            for child in [start(share) for share in work]:
                os.waitpid(child, 0)
        lines = self._made(out, seed, count)
        return [lines[number] for number in sorted(lines)]

    def _made(self, out: Path, seed: int, count: int) -> dict[int, dict[str, Any]]:
        return {line["trial"]: line for line in _lines(out) if line["seed"] == seed and line["trial"] < count}

    def _share(self, missing: list[int], seed: int, out: Path, until: float) -> None:
        """The trials of one worker, each a line of the common file."""
        while missing and time.monotonic() < until:
            made = set()
            for line in self._batch(missing, seed, until, self.limit):
                again = line
                if line["outcome"] == "hang":  # the first call of a form compiles it: once to the end, and once more
                    for limit in (WARM * self.limit, self.limit):
                        again = next(self._batch([line["trial"]], seed, until + WARM * self.limit, limit), line)
                made.add(line["trial"])
                _append(out, json.dumps(again) + "\n")
            missing = [number for number in missing if number not in made]

    def _batch(self, numbers: list[int], seed: int, until: float, limit: float) -> Iterator[dict[str, Any]]:
        """Trials in one process, until one of them crashes or hangs: that is its line, and the last one."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._work(numbers, seed, writing, until)
        os.close(writing)
        done = 0
        with os.fdopen(reading, "rb", buffering=0) as stream:
            while select.select([stream], [], [], limit)[0] and (text := stream.readline()):
                yield json.loads(text)
                done += 1
            over = bool(select.select([stream], [], [], 0)[0])
        if not over:
            _end(child)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if done < len(numbers) and (status != 0 or not over):
            line = {"trial": numbers[done], "seed": seed, "told": str(status)}
            line["kind"] = self.kind(np.random.default_rng([seed, numbers[done]]))
            if self.case is not None:
                line["given"] = self.case(np.random.default_rng([seed, numbers[done]]))
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


def _append(path: Path, text: str) -> None:
    """In one piece at the end, so that workers share a file."""
    stream = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(stream, text.encode())
    finally:
        os.close(stream)


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
    parser.add_argument("--workers", type=int, default=1, help="trials at a time; kills want an idle machine")
    parser.add_argument("--summary", type=Path, help="counts and all faults, as JSON; small where the lines are not")
    given = parser.parse_args(arguments)
    lines = campaign.run(given.count, given.seed, given.out, given.seconds, given.workers)
    print(f"{campaign.name}, seed {given.seed}: {table(lines, given.count)}")  # noqa: T201
    for line in faults(lines)[:20]:
        print(json.dumps(line))  # noqa: T201
    if given.summary:
        given.summary.write_text(json.dumps(summary(campaign.name, given.seed, lines, given.count), indent=1))
    sys.exit(bool(faults(lines)))


def summary(name: str, seed: int, lines: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Counts by kind and outcome, and the faults; of the others only how many, and their largest error."""
    counts: dict[str, Counter[str]] = {}
    for line in lines:
        counts.setdefault(line["kind"], Counter())[line["outcome"]] += 1
    found = {"campaign": name, "seed": seed, "asked": count, "made": len(lines), "counts": counts}
    answers = [line for line in lines if "worst" in line]
    if answers:
        found |= {"forms": sum(line["forms"] for line in answers), "worst": max(line["worst"] for line in answers)}
    return found | {"faults": faults(lines)}


def forked(work: Callable[[], None], limit: float) -> int:
    """Exit status of a function in a process of its own; negative for a signal, -1000 for a hang."""
    child = start(work)
    return wait(child, limit)


def start(work: Callable[[], None]) -> int:
    """A process that does the work with the handlers of signals that a fresh Python has.

    A signal waits until the work has begun, and is of no account once it has ended: between a fork and its first line
    it would be answered by what the parent was doing.
    """
    usual = signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, usual)
        return child
    status = 0
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WAITING)
        work()
        signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
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
