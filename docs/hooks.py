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
CODE = re.compile(r"(```.*?```|`[^`\n]*`)", re.DOTALL)
TAGS = re.compile(r"(<pre\b.*?</pre>|<code\b.*?</code>|<script\b.*?</script>|<style\b.*?</style>|<[^>]*>)", re.DOTALL)
MATHJAX = re.compile(r"<script[^>]*mathjax[^>]*>\s*</script>", re.IGNORECASE)
NOTEBOOK = re.compile(r'(href="(?!\w+:)[^"#]+)\.ipynb')


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Add the pages that nobody writes."""
    sys.path.insert(0, str(ROOT))
    sys.path.insert(0, str(ROOT / "docs"))
    import toml_keys

    pages = {"benchmarks/index.md": benchmarks(), "how_to/tables.md": toml_keys.page()}
    pages |= {**reference(), **gallery(files, config)}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **rest: Any) -> str:
    """Formulas between dollars become MathML, which browsers draw themselves; code is left alone."""
    parts = CODE.split(markdown)
    return "".join(part if i % 2 else FORMULA.sub(_drawn, part) for i, part in enumerate(parts))


def on_page_content(html_of_page: str, page: Any, **rest: Any) -> str:
    """In notebooks too formulas become MathML, in place of a script from elsewhere, and links lead to pages."""
    if not page.file.src_uri.endswith(".ipynb"):
        return html_of_page
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
        words = (inspect.getdoc(place) or "").partition("\n")[0]
        pages[f"reference/{room}.md"] = "\n".join([f"# {room}", "", html.escape(words), "", *_entries(things)])
        lines.append(f"- [`{room}`]({room}.md): {len(things)} names. {html.escape(words)}")
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
    """All tables that benchmarks printed."""
    lines = [
        "# Benchmarks",
        "",
        "Tables as the scripts of `benchmarks/` printed them, each with machine and command.",
        "",
    ]
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.md")):
        title = path.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ")
        lines.append(f"- [{title}]({path.name})")
    return "\n".join(lines) + "\n"


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
