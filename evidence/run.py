"""Carry out experiments in the order of the protocol, several runs at once on one card, within a time limit.

``python -m evidence.run fashion pair cifar --workers 3 --limit-seconds 560 --data DATA --out OUT``

What is in OUT or in `evidence/logs` already is not run again; what the time does not reach is left for the next call
(unfinished runs go on from their files in the folder of ``--work``, where it is still there). OUT holds three small
tables for each experiment and the weights of a few models; ``python -m evidence.logs OUT`` joins them into the logs.
Weights are not in the repository: ``--only fashion-dot.full-0 fashion-gaussian.window+top_k-0`` trains two runs again.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import traceback
from collections.abc import Iterable
from concurrent.futures import Future, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from evidence import logs
from evidence.experiments import EXPERIMENTS, runs, tuning_runs
from evidence.plan import Experiment, Run
from evidence.pool import say, workers
from evidence.worker import Order, carry_out

MARGIN = 20.0  # seconds before the limit at which runs stop


class Session:
    """One call: its workers, its time and the tables that it fills.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.deadline = time.time() + options.limit_seconds - MARGIN
        self.work, self.out = Path(options.work), Path(options.out)
        if options.compile:  # each worker's compiler would start as many helpers as there are cores
            threads = max(1, (os.cpu_count() or 1) // options.workers)
            os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", str(threads))
        self.pool = workers(options.workers, options.cards)

    def rows(self, experiment: str, kind: str = "results") -> list[logs.Row]:
        """What is known of an experiment, kept or of this call."""
        kept = [] if self.options.small else logs.read(logs.FOLDER, experiment, kind)
        return logs.joined(kept, logs.read(self.out, experiment, kind), kind)

    def submit(self, wanted: Iterable[Run], rate: float) -> dict[Future[Any], Run]:
        """Hand runs that are not known to the workers."""
        wanted = list(wanted)
        known = {row["run"] for row in self.rows(wanted[0].experiment)} if wanted else set()
        known -= set(self.options.only or ())
        found = {}
        for run in wanted:
            if run.name not in known:
                order = Order(
                    run, rate, self.options.data, self.work, self.out, self.deadline, small=self.options.small,
                    threads=self.options.threads, workers=self.options.workers, compiled=self.options.compile,
                )  # fmt: skip
                found[self.pool.submit(carry_out, order)] = run
        return found

    def collect(self, futures: dict[Future[Any], Run]) -> None:
        """Write the rows of runs as they end; one that fails must not cost the card's time of the others."""
        for future in as_completed(futures):
            run, words = futures[future], "left for the next call"
            try:
                rows = future.result() or {}
            except Exception:
                rows, words = {}, traceback.format_exc()
            for kind, new in rows.items():
                here = logs.read(self.out, run.experiment, kind)
                logs.write(self.out, run.experiment, kind, logs.joined(here, new, kind))
            if rows and self.options.pack:
                logs.pack(self.out, Path(self.options.pack))
            for row in rows.get("results", ()):
                words = row.get("failed") or took(row)
            say(f"{self.deadline - time.time():6.0f} s left  {run.name}: {words}")


def took(row: logs.Row) -> str:
    """What a run found and how long it took, in words."""
    how = [name for name in ("captured", "compiled") if row[name] is True] or ["eager"]
    first, step = row["startup_seconds"], 1e3 * row["seconds_per_step"]
    words = f"{row['wall_seconds']:.1f} s, {first:.1f} s to the first step, {step:.2f} ms a step"
    return f"test {row['test']:.4f}, {words} ({', '.join(how)})"


def chosen_rate(experiment: Experiment, rows: list[logs.Row]) -> float | None:
    """The learning rate with the best mean validation metric over the tuning arms; ``None`` until all are there."""
    wanted = {run.name: run for run in tuning_runs(experiment)}
    found = {row["run"]: row for row in rows if row["run"] in wanted}
    if len(found) < len(wanted):
        return None
    sign = 1.0 if experiment.larger_is_better else -1.0
    failed = float("-inf")  # a rate at which an arm diverges is not taken
    scores = {
        rate: mean(
            sign * found[name]["validation"] if "validation" in found[name] else failed
            for name, run in wanted.items() if run.learning_rate == rate
        )
        for rate in sorted(experiment.learning_rates)
    }  # fmt: skip
    return max(scores, key=scores.__getitem__)  # of equal ones the first, which is the smallest


def rate_of(session: Session, experiment: Experiment) -> float | None:
    """The learning rate of an experiment: fixed, that of the experiment beside which it stands, or the chosen one."""
    if "learning_rate" in experiment.tables["training"]:
        return float(experiment.tables["training"]["learning_rate"])
    tuned = EXPERIMENTS[experiment.beside or experiment.name]
    return chosen_rate(tuned, session.rows(tuned.name))


def carry_out_all(session: Session, experiments: list[Experiment]) -> int:
    """Tune and run the experiments; workers that are done with one go on to the next's tuning. Returns runs left."""
    ahead = session.submit(tuning_runs(experiments[0]), 0.0)
    for i, experiment in enumerate(experiments):
        session.collect(ahead)
        rate = rate_of(session, experiment)
        say(f"{experiment.name}: " + ("no learning rate yet" if rate is None else f"learning rate {rate:g}"))
        only = session.options.only
        reported = [run for run in runs(experiment)[: session.options.runs] if not only or run.name in only]
        pending = {} if rate is None else session.submit(reported, rate)
        ahead = session.submit(tuning_runs(experiments[i + 1]), 0.0) if i + 1 < len(experiments) else {}
        session.collect(pending)
    total = 0
    for experiment in experiments:
        known = {row["run"] for row in session.rows(experiment.name)}
        left = sum(run.name not in known for run in runs(experiment))
        say(f"{experiment.name}: {left} of {len(runs(experiment))} runs left")
        total += left
    return total


def main(arguments: list[str] | None = None) -> int:
    """The command; 0 also where runs are left for the next call."""
    parser = argparse.ArgumentParser(prog="python -m evidence.run", description=__doc__)
    parser.add_argument("experiments", nargs="+", choices=list(EXPERIMENTS), metavar="experiment")
    parser.add_argument("--workers", type=int, default=1, help="runs at a time")
    parser.add_argument("--cards", type=int, default=1, help="GPUs over which the workers are spread")
    parser.add_argument("--threads", type=int, default=1, help="of torch on the CPU, a worker")
    parser.add_argument("--limit-seconds", type=float, default=3e7, help="of the whole call")
    parser.add_argument("--data", required=True, help="folder that holds fashion, cifar-10, mnist, novels")
    parser.add_argument("--out", required=True, help="folder for tables and weights")
    parser.add_argument("--pack", help="folder for one file of tables beside the weights, written after each run")
    parser.add_argument("--work", default=str(Path(tempfile.gettempdir()) / "krause_runs"), help="folder of the runs")
    parser.add_argument("--compile", action="store_true", help="fuse the models with torch.compile, where it can")
    parser.add_argument("--runs", type=int, help="only so many runs of each experiment")
    parser.add_argument("--only", nargs="+", help="these runs alone, also where the logs know them: for their weights")
    parser.add_argument("--small", action="store_true", help="tiny models on few examples, to try the machinery")
    session = Session(parser.parse_args(arguments))
    session.out.mkdir(parents=True, exist_ok=True)
    with session.pool:
        carry_out_all(session, [EXPERIMENTS[name] for name in session.options.experiments])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
