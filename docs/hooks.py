"""What the site makes by itself: pages of the reference, the gallery, a list of benchmarks, formulas as MathML."""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "build" / "gallery"
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$\n]+?)\$(?!\w)", re.DOTALL)
CODE = re.compile(r"(```.*?```|``[^\n]*?``|`[^`\n]*`)", re.DOTALL)
TAGS = re.compile(r"(<pre\b.*?</pre>|<code\b.*?</code>|<script\b.*?</script>|<style\b.*?</style>|<[^>]*>)", re.DOTALL)
MATHJAX = re.compile(r"<script[^>]*mathjax[^>]*>\s*</script>", re.IGNORECASE)
PICTURE = re.compile(r'<p>(<img [^>]*?src="([^"]+)"[^>]*>)</p>')
NOTEBOOK = re.compile(r'(href="(?!\w+:)[^"#]+)\.ipynb')

# Tables of benchmarks/results, in the order in which the site shows them.
SUBJECTS = {
    "Attention": ("attention_cpu", "attention_h200", "attention_rows_h200", "attention_calls_h200", "host_share"),
    "Whole models": ("models_cpu", "models_gpu", "generation_cpu", "generation_h200", "cost", "training"),
    "Trained models under analysis": ("checkpoints", "large", "families", "every_family"),
    "Particles, opinions, densities": (
        "simulator", "simulator_h200", "bounded_confidence", "integrators", "mean_field", "clusters", "measures",
    ),
    "How choices were made, and how it is tested": (
        "choice", "by_hand", "before_and_after_rooms", "campaigns", "campaign_forms", "mutation",
    ),
}  # fmt: skip


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Add the pages that nobody writes."""
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(ROOT / "docs"))
    import toml_keys

    pages = {"benchmarks/index.md": benchmarks(), "how_to/tables.md": toml_keys.page()}
    pages |= {**evidence(), **reference(), **gallery(files, config)}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Formulas between dollars become MathML, which browsers draw themselves; code is left alone."""
    parts = CODE.split(markdown)
    return "".join(part if i % 2 else FORMULA.sub(_drawn, part) for i, part in enumerate(parts))


def on_page_content(html_of_page: str, page: Any, **rest: Any) -> str:
    """In notebooks too formulas become MathML, in place of a script from elsewhere, and links lead to pages.

    On other pages a picture that stands alone leads to itself, so that a telephone shows it large.
    """
    if not page.file.src_uri.endswith(".ipynb"):
        return PICTURE.sub(r'<p><a href="\2">\1</a></p>', html_of_page)
    parts = TAGS.split(MATHJAX.sub("", html_of_page))
    drawn = [part if i % 2 else FORMULA.sub(_drawn, part) for i, part in enumerate(parts)]
    return NOTEBOOK.sub(r"\1.html", "".join(drawn))


def _drawn(found: re.Match[str]) -> str:
    display = found[1] is not None
    formula = convert(html.unescape(found[1] or found[2]), display="block" if display else "inline")
    return f'<div class="formula">{formula}</div>' if display else formula


def reference() -> dict[str, str]:
    """A page for each public room, by the names that a user types."""
    from tests.keywords.public import callables

    rooms: dict[str, list[tuple[str, Any]]] = {}
    for path, thing in callables().items():
        rooms.setdefault(path.rpartition(".")[0], []).append((path, thing))
    pages, lines = {}, ["# Reference", "", "Every public name, with `import krause_dynamics as kd`.", ""]
    for room, things in sorted(rooms.items()):
        place = _module(room)
        parts = CODE.split((inspect.getdoc(place) or "").partition("\n")[0])
        words = "".join(part if i % 2 else html.escape(part) for i, part in enumerate(parts))
        pages[f"reference/{room}.md"] = "\n".join([f"# {room}", "", words, "", *_entries(things)])
        lines.append(f"- [`{room}`]({room}.md): {len(things)} name{'s' * (len(things) > 1)}. {words}")
    pages["reference/index.md"] = "\n".join(lines) + "\n"
    return pages


def _module(room: str) -> Any:
    import krause_dynamics as kd

    return kd if room == "kd" else getattr(kd, room.partition(".")[2])


def _entries(things: list[tuple[str, Any]]) -> list[str]:
    """Headings and what is to be read from the source; constants and things of other files are named only."""
    lines = []
    for _, thing in sorted(things, key=lambda item: item[0].lower()):
        if inspect.isclass(thing) or inspect.isfunction(inspect.unwrap(thing)):
            real = inspect.unwrap(thing)
            lines += [f"::: {real.__module__}.{real.__qualname__}", ""]
    return lines


def benchmarks() -> str:
    """All tables that benchmarks printed, by what they are about."""
    results = {path.stem: path for path in (ROOT / "benchmarks" / "results").glob("*.md")}
    lines = ["# Benchmarks", "", "Tables as the scripts of `benchmarks/` printed them, each with machine and command."]
    further = sorted(results.keys() - {name for names in SUBJECTS.values() for name in names})
    for subject, names in [*SUBJECTS.items(), *([("Further", further)] if further else [])]:
        lines += ["", f"## {subject}", ""]
        for name in names:
            title = results[name].read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
            lines.append(f"- [{title}]({name}.md)")
    return "\n".join(lines) + "\n"


def evidence() -> dict[str, str]:
    """What was found in training, as the logs say it, with its picture."""
    folder = ROOT / "evidence"
    names = {"README.md": "index.md", "krause_paper.md": "krause_paper.md", "PROTOCOL.md": "PROTOCOL.md"}
    pages = {f"evidence/{page}": (folder / name).read_text(encoding="utf-8") for name, page in names.items()}
    picture = "![Differences of the arms with their intervals](../figures/krause_paper.png)"
    pages["evidence/index.md"] += f"\n## All differences in one picture\n\n{picture}\n"
    return pages


def gallery(files: Files, config: Any) -> dict[str, str]:
    """Run each script of the gallery; its picture and its text make an entry."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    scripts = sorted((ROOT / "docs" / "gallery").glob("*.py"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # each draws in a process of its own
        list(pool.map(_draw, scripts))
    lines = ["# Gallery", "", "Each picture with the script that draws it; a click shows it large.", ""]
    for script in scripts:
        picture, text = PICTURES / f"{script.stem}.png", script.read_text(encoding="utf-8")
        files.append(File.generated(config, f"gallery/{picture.name}", content=picture.read_bytes()))
        title, _, rest = (_docstring(text)).partition("\n")
        lines += [f"## {title.rstrip('.')}", "", rest.strip(), "", f"[![{title}]({picture.name})]({picture.name})", ""]
        lines += ['??? note "Script"', "", "    ```python", *(f"    {line}" for line in _code(text)), "    ```", ""]
    return {"gallery/index.md": "\n".join(lines)}


def _draw(script: Path) -> None:
    """The picture of a script, unless it is newer."""
    picture = PICTURES / f"{script.stem}.png"
    if not picture.exists() or picture.stat().st_mtime < script.stat().st_mtime:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, script, picture], check=True, cwd=PICTURES, env=environment)


def _docstring(text: str) -> str:
    return text.split('"""')[1]


def _code(text: str) -> list[str]:
    return text.split('"""', 2)[2].strip().splitlines()
