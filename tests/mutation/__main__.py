"""``python -m tests.mutation``; see the package."""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from tests.mutation.choice import Map, join
from tests.mutation.coverage import FOLDER, ROOT
from tests.mutation.mutants import Mutant, folder_of, sample
from tests.mutation.reasons import reason_of

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
PYTEST = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", "--tb=no"]
STARTUP = 90.0  # seconds for imports and for compiling what numba has not cached, on a loaded machine


def collect(path: Path, workers: int, only: list[str]) -> None:
    """Run the suite once and note who runs what."""
    with tempfile.TemporaryDirectory() as parts:
        several = ["-n", str(workers)] if workers > 1 else []
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.mutation.coverage"]
        environment = {
            **os.environ,
            **ONE_THREAD,
            FOLDER: parts,
            "PYTHONPATH": os.pathsep.join([str(ROOT), *_carried()]),
        }
        subprocess.run([*command, *several, *only], cwd=ROOT, env=environment, check=False)
        print(f"{join(Path(parts), path)} tests in {path}")


class Bench:
    """A copy of the tree in which one fault after the other is tried."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        kept = ("krause_dynamics", "evidence", "tests", "README.md", "pyproject.toml", "benchmarks", "figures")
        for name in kept:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, folder / name)  # with times: what numba cached stays valid
            elif source.exists():
                shutil.copy2(source, folder / name)

    def outcome(self, mutant: Mutant, tests: list[str], seconds: float) -> str:
        """``killed``, ``survived``, ``timeout``, or ``no test`` where nothing reaches the line."""
        if not tests:
            return "no test"
        path = self.root / mutant.path
        source, times = path.read_bytes(), path.stat()
        listed = self.root / "tests_to_run.txt"
        listed.write_text("\n".join(tests))
        path.write_bytes(mutant.applied(source))
        try:
            return self._run(f"@{listed}", 3 * seconds + STARTUP)
        finally:
            path.write_bytes(source)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def _run(self, listed: str, limit: float) -> str:
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(self.root), *_carried()])}
        process = subprocess.Popen(
            [*PYTEST, listed], cwd=self.root, env=environment, start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            return "timeout"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        return "survived" if code == 0 else "killed"


def _carried() -> list[str]:
    """Folders of the caller's PYTHONPATH but the checkout, which the copy stands for."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [part for part in given if part and Path(part).resolve() != ROOT]


def run(mutants: list[Mutant], tests: Map, out: Path, workers: int, limit: float) -> None:
    """Try the faults that have no outcome yet, until the time is over; every outcome is one line of the file."""
    done = {_key(line) for line in _outcomes(out)}
    waiting: queue.SimpleQueue[Mutant] = queue.SimpleQueue()
    for mutant in mutants:
        if _key(mutant._asdict()) not in done:
            waiting.put(mutant)
    out.parent.mkdir(parents=True, exist_ok=True)
    end, lock = time.monotonic() + limit, threading.Lock()

    def work(folder: Path) -> None:
        bench = Bench(folder)
        while time.monotonic() < end:
            try:
                mutant = waiting.get_nowait()
            except queue.Empty:
                return
            chosen = tests.choose(mutant)
            result = bench.outcome(mutant, chosen, tests.seconds(chosen))
            with lock, out.open("a") as stream:
                stream.write(json.dumps({**mutant._asdict(), "outcome": result, "tests": len(chosen)}) + "\n")

    with tempfile.TemporaryDirectory() as base:
        threads = [threading.Thread(target=work, args=(Path(base) / str(i),)) for i in range(workers)]
        for i, thread in enumerate(threads):
            (Path(base) / str(i)).mkdir()
            thread.start()
        for thread in threads:
            thread.join()


def _outcomes(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def _key(about: dict[str, object]) -> tuple[object, ...]:
    return tuple(about[name] for name in Mutant._fields)


def report(mutants: list[Mutant], out: Path) -> None:
    """The score by folder, then everything that was not noticed, with its line."""
    wanted = {_key(mutant._asdict()) for mutant in mutants}
    lines = [line for line in _outcomes(out) if _key(line) in wanted]
    rooms: dict[str, Counter[str]] = {}
    for line in lines:
        rooms.setdefault(folder_of(str(line["path"])), Counter())[str(line["outcome"])] += 1
    print(f"{'folder':<20} {'killed':>7} {'survived':>9} {'no test':>8} {'timeout':>8}")
    for name, count in [*sorted(rooms.items()), ("all", sum(rooms.values(), Counter()))]:
        print(f"{name:<20} {count['killed']:>7} {count['survived']:>9} {count['no test']:>8} {count['timeout']:>8}")
    total = sum(rooms.values(), Counter())
    judged = total["killed"] + total["survived"] + total["no test"]
    print(f"{total['killed']} of {judged} die ({100 * total['killed'] / max(judged, 1):.1f} %); "
          f"{total['timeout']} ran out of time; {len(wanted) - len(lines)} of {len(wanted)} not tried yet")  # fmt: skip
    unnoticed = [(line, _source(line)) for line in lines if line["outcome"] != "killed"]
    reasons = [reason_of(line, source) for line, source in unnoticed]
    excused = sum(
        reason is not None and line["outcome"] != "timeout"
        for reason, (line, _) in zip(reasons, unnoticed, strict=True)
    )
    print(f"{excused} of those that live change no answer, for the reasons below; "
          f"without them {100 * total['killed'] / max(judged - excused, 1):.1f} % die")  # fmt: skip
    for reason, (line, source) in zip(reasons, unnoticed, strict=True):
        print(f"{line['outcome']}: {line['path']}:{line['line']} {line['kind']}: {source}  ->  {line['text']}")
        if reason:
            print(f"    changes no answer: {reason}")


def _source(line: dict[str, object]) -> str:
    return (ROOT / str(line["path"])).read_text().splitlines()[int(str(line["line"])) - 1].strip()


def main() -> None:
    """Parse, then collect, run or report."""
    parser = argparse.ArgumentParser(description=sys.modules["tests.mutation"].__doc__.splitlines()[0])
    parser.add_argument("--collect", nargs="*", metavar="TESTS", help="make the map of lines, of all tests or of these")
    parser.add_argument("--report", action="store_true", help="print what is known")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--limit-seconds", type=float, default=3600.0, help="start no fault after this time")
    parser.add_argument("--count", type=int, default=400, help="faults in all")
    parser.add_argument("--least", type=int, default=20, help="faults of every folder at least")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="faults of paths that hold this text")
    parser.add_argument("--map", type=Path, default=ROOT / "results" / "mutation" / "lines.json.gz")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "mutation" / "outcomes.jsonl")
    given = parser.parse_args()
    if given.collect is not None:
        collect(given.map, given.workers, given.collect)
        return
    mutants = [m for m in sample(ROOT, given.count, given.least, given.seed) if given.only in m.path]
    if not given.report:
        run(mutants, Map(given.map), given.out, given.workers, given.limit_seconds)
    report(mutants, given.out)


if __name__ == "__main__":
    main()
