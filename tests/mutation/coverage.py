"""A pytest plugin that notes which test runs which lines of the package; ``-p tests.mutation.coverage``.

Lines that run while modules are imported belong to no test. Every process writes its own part (xdist starts several).
"""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

FOLDER = "KRAUSE_MUTATION_PARTS"  # environment variable: where the parts go
ROOT = Path(__file__).resolve().parents[2]
INSIDE = str(ROOT / "krause_dynamics") + os.sep
TOOL = 4  # a free number among the tools of sys.monitoring


class Lines:
    """Lines of the package that ran since `clear`; each is noticed once, so that loops cost nothing further."""

    def __init__(self) -> None:
        self.seen: set[tuple[str, int]] = set()
        if hasattr(sys, "monitoring"):
            self._monitor()

    def clear(self) -> None:
        """Forget, and notice every line once more."""
        self.seen.clear()
        if hasattr(sys, "monitoring"):
            sys.monitoring.restart_events()
        else:  # before Python 3.12; set again for every test, since libraries set tracers of their own
            sys.settrace(self._called)

    def stop(self) -> None:
        """Notice nothing further."""
        if hasattr(sys, "monitoring"):
            sys.monitoring.free_tool_id(TOOL)
        else:
            sys.settrace(None)

    def _monitor(self) -> None:
        monitoring = sys.monitoring
        monitoring.use_tool_id(TOOL, "lines of the package")

        # Bound here: lines still run while the interpreter ends, when the names of this module are gone.
        def noticed(code: CodeType, line: int, inside: str = INSIDE, disable: Any = monitoring.DISABLE) -> Any:
            if code.co_filename.startswith(inside):
                self.seen.add((code.co_filename, line))
            return disable

        monitoring.register_callback(TOOL, monitoring.events.LINE, noticed)
        monitoring.set_events(TOOL, monitoring.events.LINE)

    def _called(self, frame: Any, event: str, argument: Any) -> Any:
        name = frame.f_code.co_filename or ""
        if not name.startswith(INSIDE):
            return None
        self.seen.add((name, frame.f_lineno))
        return self._stepped

    def _stepped(self, frame: Any, event: str, argument: Any) -> Any:
        self.seen.add((frame.f_code.co_filename, frame.f_lineno))
        return self._stepped


class Plugin:
    """Tests that passed, their seconds, and the lines that they ran, fixtures included."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines = folder, Lines()
        self.found: dict[str, dict[str, Any]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Any:
        self.lines.clear()
        result = yield
        files: dict[str, list[int]] = {}
        for name, line in sorted(self.lines.seen):
            files.setdefault(Path(name).relative_to(ROOT).as_posix(), []).append(line)
        self.found.setdefault(item.nodeid, {"seconds": 0.0, "passed": False})["lines"] = files
        return result

    def pytest_runtest_logreport(self, report: Any) -> None:
        about = self.found.setdefault(report.nodeid, {"seconds": 0.0, "passed": False})
        about["seconds"] += report.duration
        if report.when == "call":
            about["passed"] = report.passed and not hasattr(report, "wasxfail")

    def pytest_sessionfinish(self) -> None:
        self.lines.stop()
        passed = {name: about for name, about in self.found.items() if about["passed"] and "lines" in about}
        with gzip.open(self.folder / f"{os.getpid()}.json.gz", "wt") as stream:
            json.dump(passed, stream)


def pytest_configure(config: Any) -> None:
    """Only the processes that run tests note lines."""
    main_of_several = not hasattr(config, "workerinput") and getattr(config.option, "numprocesses", None)
    if not main_of_several:
        config.pluginmanager.register(Plugin(Path(os.environ[FOLDER])), "lines of the package")
