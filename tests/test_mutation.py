"""The faults that `make mutation` puts in: each is one, none is in words for people, and a seed draws the same ones."""

from __future__ import annotations

import ast
from collections import Counter

from tests.mutation.choice import Map, join
from tests.mutation.coverage import ROOT
from tests.mutation.mutants import Mutant, folder_of, mutants_of, sample
from tests.mutation.reasons import REASONS, reason_of

SOURCE = '''"""A docstring with 1 + 1."""

__all__ = ["f"]


@cache(maxsize=2)
def f(x: int = 3) -> "1 < 2":
    """Words: 1 < 2."""
    if not x:
        raise ValueError(f"x must be {1 + 1}, got {x < 2}")
    logger.warning("about %d", 1 + x)
    check(x, closed=True)
    return x <= 2


@njit
def loop(x):
    return x + 1
'''


def test_faults_of_a_small_file(tmp_path):
    path = tmp_path / "krause_dynamics" / "f.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    found = {(mutant.line, mutant.kind, mutant.text) for mutant in mutants_of(tmp_path, path)}
    assert found == {
        (7, "constant", "4"),
        (9, "condition negated", "(not (not x))"),
        (9, "sign or not dropped", "(x)"),
        (12, "call removed", "pass"),
        (12, "keyword closed dropped", "check(x)"),
        (12, "constant", "False"),
        (13, "comparison", "((x) < (2))"),
        (13, "constant", "3"),
    }
    for mutant in mutants_of(tmp_path, path):
        changed = mutant.applied(SOURCE.encode()).decode()
        assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(SOURCE))


def test_a_sample_is_drawn_by_its_seed_and_leaves_no_folder_out(tmp_path):
    for folder, size in (("nn", 50), ("forms/near", 3), ("forms/attention/triton", 9), ("theory", 30)):
        path = tmp_path / "krause_dynamics" / folder / "f.py"
        path.parent.mkdir(parents=True)
        path.write_text("".join(f"x{i} = {i}\n" for i in range(size)))
    drawn = sample(tmp_path, 40, 12, seed=1)
    assert drawn == sample(tmp_path, 40, 12, seed=1) != sample(tmp_path, 40, 12, seed=2)
    assert len(set(drawn)) == 40
    rooms = Counter(folder_of(mutant.path) for mutant in drawn)
    assert rooms["forms/near"] == 3  # all that there are
    assert min(rooms["nn"], rooms["theory"]) >= 12
    assert set(rooms) == {"forms/near", "nn", "theory"}
    # Cut off anywhere, folders that had enough were tried alike.
    assert [folder_of(mutant.path) for mutant in drawn[9:15]] == ["nn", "theory"] * 3


def test_a_constant_of_a_module_is_tried_by_the_files_that_name_it(tmp_path):
    import gzip
    import json

    tests = {
        name: {"seconds": 1.0, "passed": True, "lines": {}}
        for name in ("tests/test_mean_field_maps.py::t", "tests/test_lattices.py::t", "tests/test_moved.py::t")
    }
    with gzip.open(tmp_path / "lines.json.gz", "wt") as stream:
        json.dump(tests, stream)
    chosen = Map(tmp_path / "lines.json.gz")
    for path, name, file in (
        ("theory/freezing.py", "UNIFORM_DENSITY_CLUSTERS", "test_mean_field_maps"),
        ("forms/lattice/lattices.py", "UNEVEN", "test_lattices"),
    ):
        lines = (ROOT / "krause_dynamics" / path).read_text().splitlines()
        (line,) = (number for number, text in enumerate(lines, 1) if text.startswith(f"{name} = "))
        fault = Mutant(f"krause_dynamics/{path}", line, 0, 1, "constant", "4", "")
        assert chosen.choose(fault) == [f"tests/{file}.py::t"]
        assert chosen.choose(fault._replace(line=1)) == []


def test_every_reason_is_of_a_line_that_is_there():
    for reason in REASONS:
        named = (ROOT / "krause_dynamics").rglob(reason.path.split("/")[-1])
        (path,) = (path for path in named if path.as_posix().endswith(f"/{reason.path}"))
        lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if reason.line in line]
        found = [m for m in mutants_of(ROOT, path) if m.line in lines and m.kind.startswith(reason.kind)]
        assert found, f"no such fault: {reason}"
        line = path.read_text().splitlines()[found[0].line - 1]
        assert reason_of(found[0]._asdict(), line) == reason.words
        assert reason_of(found[0]._asdict() | {"path": "other.py"}, line) is None


def test_faults_of_the_package_can_be_read():
    for mutant in sample(ROOT, 400, 20, seed=0)[::20]:
        ast.parse(mutant.applied((ROOT / mutant.path).read_bytes()))


def test_tests_are_chosen_by_the_line_of_the_fault_the_quick_ones_of_every_file_first(tmp_path):
    import gzip
    import json

    def test(seconds, *lines):
        return {"seconds": seconds, "passed": True, "lines": {"krause_dynamics/f.py": list(lines)}}

    parts = tmp_path / "parts"
    parts.mkdir()
    tests = {f"a.py::t{i}": test(1.0 + i, 9) for i in range(9)} | {
        "b.py::slow": test(30.0, 9),
        "c.py::no": test(0.1, 7),
    }
    tests |= {f"tests/{name}.py::all": test(100.0, 1) for name in ("test_public_names", "test_fused_kernels")}
    for number, names in enumerate((list(tests)[:5], list(tests)[5:])):
        with gzip.open(parts / f"{number}.json.gz", "wt") as stream:
            json.dump({name: tests[name] for name in names}, stream)
    assert join(parts, tmp_path / "map" / "lines.json.gz") == 13
    chosen = Map(tmp_path / "map" / "lines.json.gz")
    names = chosen.choose(Mutant("krause_dynamics/f.py", 9, 0, 1, "constant", "4", ""))
    assert names[:3] == ["a.py::t0", "b.py::slow", "a.py::t1"]
    assert "c.py::no" not in names
    assert names.pop() == "tests/test_public_names.py::all"  # of every fault, whatever it takes
    assert chosen.seconds(names) <= 90.0
    assert "c.py::no" in chosen.choose(Mutant("krause_dynamics/f.py", 3, 0, 1, "constant", "4", ""))
    assert chosen.choose(Mutant("krause_dynamics/g.py", 3, 0, 1, "constant", "4", "")) == []
