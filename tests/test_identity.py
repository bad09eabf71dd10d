"""A run or sweep file knows all that decided its numbers: other code, constants or data are refused, and named."""

from __future__ import annotations

import functools
import subprocess
import sys

import numpy as np
import pytest

import krause_dynamics as kd
from krause_dynamics.runs.fingerprints import marks

TWO = np.array([[0.0], [1.0]])
FACTOR = 1.0


def pull(to):
    return lambda t, x: to - x


class Puller:
    """An external drift that is an object."""

    def __init__(self, to):
        self.to, self.calls = to, 0

    def __call__(self, t, x):
        self.calls += 1
        return self.to - x

    def method(self, t, x):
        return self(t, x)


def pull_far(t, x, to=5.0):
    return to - x


def far(t, x):
    return float(x[0, 0]) - 9.0


def scaled(phi):
    return kd.Interaction(kd.Radial(phi))


def run(path, dynamics=None, **rest):
    dynamics = dynamics or kd.Dynamics(kd.softmax(1.0))
    return kd.simulate(dynamics, TWO, 0.5, dt=0.1, checkpoint=path, **rest)


def external(function):
    return {"dynamics": kd.Dynamics(kd.softmax(1.0), external=function)}


def by_exec(body):
    """A function whose body was edited: same name, same module."""
    space: dict = {"np": np}
    exec(f"def edited(*args, **rest):\n    return {body}", space)
    return space["edited"]


PAIRS = {
    "closure": (external(pull(0.0)), external(pull(5.0)), r"dynamics.external \(closure: to\)"),
    "array in a closure": (
        external(pull(np.zeros((2, 1)))),
        external(pull(np.ones((2, 1)))),
        r"dynamics.external \(closure: to\)",
    ),
    "default": (external(pull_far), external(functools.partial(pull_far, to=0.0)), "dynamics"),
    "partial": (
        external(functools.partial(pull_far, to=1.0)),
        external(functools.partial(pull_far, to=2.0)),
        "dynamics",
    ),
    "object": (external(Puller(0.0)), external(Puller(5.0)), r"dynamics.external.to"),
    "bound method": (external(Puller(0.0).method), external(Puller(5.0).method), r"\(object\).to"),
    "edited body": (
        external(by_exec("5.0 - args[1]")),
        external(by_exec("4.0 - args[1]")),
        r"dynamics.external \(code\)",
    ),
    "score": (
        {"dynamics": kd.Dynamics(scaled(lambda r: 0.0 * r))},
        {"dynamics": kd.Dynamics(scaled(lambda r: 0.0 * r - r))},
        r"dynamics.rule.score.\w+ \(code\)",
    ),
    "event": (
        {"events": [kd.Event(lambda t, x: float(x[0, 0]) - 0.2)]},
        {"events": [kd.Event(lambda t, x: float(x[0, 0]) - 0.3)]},
        r"events\[0\]",
    ),
    "event's end": (
        {"events": [kd.Event(far, terminal=True)]},
        {"events": [kd.Event(far)]},
        r"events\[0\].terminal",
    ),
    "no event": ({}, {"events": [kd.Event(lambda t, x: float(x[0, 0]) - 0.3)]}, r"events"),
    "save": ({"save": lambda x: x.mean()}, {"save": lambda x: x.max()}, r"save \(code\)"),
    "stop": ({"stop": lambda t, x, p: None}, {"stop": lambda t, x, p: "now" if t > 0.2 else None}, "stop"),
    "stop rule": ({"stop": kd.stopping.Consensus(1e-9)}, {"stop": kd.stopping.Consensus(1e-3)}, "stop"),
}


@pytest.mark.parametrize(("first", "second", "named"), PAIRS.values(), ids=PAIRS)
def test_a_run_of_other_functions_is_refused_and_the_difference_named(first, second, named, tmp_path):
    before = run(tmp_path / "c.npz", **first)
    again = run(tmp_path / "c.npz", **first)
    np.testing.assert_array_equal(again.final, before.final)
    with pytest.raises(ValueError, match=rf"belongs to another run \(different: .*{named}"):
        run(tmp_path / "c.npz", **second)


def test_opinions_and_densities_ask_the_same(tmp_path):
    for to in (0.0, 5.0):
        options = {"max_steps": 3, "checkpoint": tmp_path / f"o{to}.npz"}
        kd.hegselmann_krause([0.0, 1.0], 0.5, external=lambda t, x, to=to: 0.1 * (to - x), **options)
    with pytest.raises(ValueError, match=r"external \(defaults\)"):
        kd.hegselmann_krause(
            [0.0, 1.0], 0.5, external=lambda t, x, to=1.0: 0.1 * (to - x), max_steps=3, checkpoint=tmp_path / "o5.0.npz"
        )
    cells = kd.mean_field.LineCells(20, 0.0, 1.0)
    density = kd.mean_field.Density(cells, np.full(20, 1 / 20))
    for to, refused in ((0.4, False), (0.6, True)):
        dynamics = kd.Dynamics(kd.softmax(1.0), kd.Interval(0.0, 1.0), external=pull(to))
        options = {"save_at": 2, "checkpoint": tmp_path / "m.npz"}
        if refused:
            with pytest.raises(ValueError, match=r"dynamics.external \(closure: to\)"):
                kd.mean_field.solve(dynamics, density, 0.1, **options)
        else:
            kd.mean_field.solve(dynamics, density, 0.1, **options)


def total(x0, rng):
    return x0.sum()


def test_a_sweep_of_other_code_or_data_is_refused(tmp_path):
    long, other = np.zeros(2000), np.zeros(2000)
    other[1000] = 5.0  # where its repr shows dots
    for name, first, second, points, others in (
        ("lambda", lambda a, rng: a, lambda a, rng: 10 * a, {"a": [1.0, 2.0]}, None),
        ("array", total, total, {"x0": [long]}, {"x0": [other]}),
        ("partial", functools.partial(total, x0=long), functools.partial(total, x0=other), {}, None),
        ("closure", (lambda k: lambda a, rng: a + k)(0), (lambda k: lambda a, rng: a + k)(1), {"a": [1.0]}, None),
        ("method", Adder(1.0).add, Adder(2.0).add, {"a": [1.0]}, None),
    ):
        points = points or {"y": [0.0]}
        first, second = (_with_y(f) if name == "partial" else f for f in (first, second))
        kd.sweep(first, points, workers=0, path=tmp_path / f"{name}.npz")
        kd.sweep(first, points, workers=0, path=tmp_path / f"{name}.npz")
        with pytest.raises(ValueError, match=r"belongs to another sweep \(different: "):
            kd.sweep(second, others or points, workers=0, path=tmp_path / f"{name}.npz")
        assert kd.sweep(second, others or points, workers=0).sizes  # without a file nothing is refused


def _with_y(function):
    return lambda y, rng: function(rng=rng)


class Adder:
    def __init__(self, k):
        self.k = k

    def add(self, a, rng):
        return a + self.k


def test_what_code_changes_itself_is_memory_and_no_input(tmp_path):
    seen, counts = [], {}

    def counted(a, rng):
        seen.append(a)
        counts["calls"] = counts.get("calls", 0) + 1
        return a * FACTOR

    for _ in range(2):
        kd.sweep(counted, {"a": [1.0, 2.0]}, workers=0, path=tmp_path / "s.npz")
    assert seen == [1.0, 2.0]
    assert counts == {"calls": 2}


def test_globals_count(tmp_path, monkeypatch):
    def factored(a, rng):
        return a * FACTOR

    kd.sweep(factored, {"a": [1.0]}, workers=0, path=tmp_path / "s.npz")
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    with pytest.raises(ValueError, match=r"function \(global: FACTOR\)"):
        kd.sweep(factored, {"a": [1.0]}, workers=0, path=tmp_path / "s.npz")


def test_what_cannot_be_read_is_refused_with_the_way_out(tmp_path):
    with (tmp_path / "open").open("w") as stream:
        with pytest.raises(TypeError, match=r"function \(closure: stream\) holds a TextIOWrapper.*fingerprint"):
            kd.sweep(lambda a, rng: (stream.name, a)[1], {"a": [1.0]}, workers=0, path=tmp_path / "s.npz")
        assert not (tmp_path / "s.npz").exists()

        class Told:
            fingerprint = "the stream of today"

            def __init__(self, stream):
                self.stream = stream

        told = Told(stream)
        kd.sweep(lambda a, rng: (told.stream.name, a)[1], {"a": [1.0]}, workers=0, path=tmp_path / "s.npz")


def test_marks_are_the_same_in_every_process():
    code = (
        "import numpy as np, functools\nfrom krause_dynamics.runs.fingerprints import marks\nW = {'b', 'a'}\n"
        "class P:\n    def __init__(self): self.w = {'x': np.eye(2)}\n    def __call__(self, x): return x in W\n"
        "print(marks('f', [P(), functools.partial(P(), 1), lambda x: np.sin(x) if x in {'p', 'q'} else W]))"
    )
    found = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
                       capture_output=True, text=True, check=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(found) == 1
    assert marks("f", float("nan")) == marks("f", float("nan"))
