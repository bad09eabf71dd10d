"""The faults: one expression or one statement of a file replaced, everything else left where it is."""

from __future__ import annotations

import ast
import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = "krause_dynamics"
# Kernels: device code and its launches (Triton, FlexAttention: CUDA alone), files of loops that numba compiles.
KERNELS = (
    "forms/attention/triton/", "forms/attention/flex.py", "_kernels.py",
    *(f"attention/cpu/{name}.py" for name in ("arithmetic", "block_gradients", "block_tokens", "blocks", "compiled")),
    *(f"attention/cpu/{name}.py" for name in ("ranges", "row", "row_gradients", "rows", "selection")),
)  # fmt: skip
COMPILED = ("jit", "plain", "sums", "entry", "intrinsic")  # decorators of compiled loops elsewhere
COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not",
    ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "/", ast.Mod: "//", ast.Pow: "*",
    ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
# Words for people: a fault there changes no behaviour that a test should pin.
SILENT_CALLS = {"debug", "info", "warning", "warn", "getLogger", "TypeVar", "field", "_block_rows"}
# `pays` decides what is fastest: benchmarks judge it, and any answer of it computes the same numbers.
SILENT_FUNCTIONS = {"__repr__", "__str__", "extra_repr", "pays", "_block_rows", "_on_device"}
# Sizes of blocks, and those from which another exact way is taken: any value computes the same numbers.
SILENT_NAMES = {
    "BISECTIONS", "BLOCK", "BLOCK_PAIRS", "CHUNK", "COLUMNS", "CPU_PAIRS", "DEVICE_PAIRS", "DEVICE_TILE",
    "DEVICE_WORTH", "ENTRIES", "KEPT", "MOST_TILTS", "NEAR_SHARE", "PAIRS", "PER_CALL", "ROWS", "SMALLEST", "STEEPEST",
    "TILE", "WORTH",
}  # fmt: skip
# How a figure or a printed table looks, which eyes judge; what is drawn, and its words, take part.
LOOKS = {
    "alpha", "bbox_to_anchor", "box", "capsize", "cmap", "color", "colors", "columnspacing", "dpi", "ec",
    "edgecolor", "facecolor", "fc", "figsize", "fontsize", "frameon", "gridspec_kw", "ha", "handlelength",
    "height_ratios", "highlight", "justify", "labelcolor", "layout", "linestyle", "linewidth", "linewidths",
    "loc", "ls", "lw", "marker", "markersize", "ms", "ncols", "padding", "rasterized", "rotation", "soft_wrap",
    "style", "va", "width_ratios", "zorder",
}  # fmt: skip


# What is asserted, or saves a copy of what is the same already.
ASSERTED = {"strict", "copy"}


class Mutant(NamedTuple):
    """One fault.

    Attributes:
        path: File, relative to the checkout.
        line: First line of what is replaced (from 1).
        start: Offset of its first byte in the file.
        stop: One past its last byte.
        kind: What is done.
        text: What stands there instead.
        digest: Of the file for which the offsets hold.
    """

    path: str
    line: int
    start: int
    stop: int
    kind: str
    text: str
    digest: str

    def applied(self, source: bytes) -> bytes:
        """The file with the fault in it."""
        return source[: self.start] + self.text.encode() + source[self.stop :]


class Source:
    """A file's bytes and where its lines start, to cut out what a node stands for."""

    def __init__(self, content: bytes) -> None:
        self.content = content
        self._starts = [0]
        for line in content.split(b"\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    def span(self, node: ast.AST) -> tuple[int, int]:
        """Offsets of the first byte and one past the last."""
        first, last = self._starts[node.lineno - 1], self._starts[node.end_lineno - 1]
        return first + node.col_offset, last + node.end_col_offset

    def text(self, node: ast.AST) -> str:
        """What stands there."""
        start, stop = self.span(node)
        return self.content[start:stop].decode()


def mutants_of(root: Path, path: Path) -> list[Mutant]:
    """All faults of one file."""
    source = Source(path.read_bytes())
    digest, name = hashlib.sha256(source.content).hexdigest()[:12], path.relative_to(root).as_posix()
    found = []
    for node, kind, text in _faults(ast.parse(source.content), source):
        if source.text(node) != text:
            found.append(Mutant(name, node.lineno, *source.span(node), kind, text, digest))
    return found


def _faults(tree: ast.AST, source: Source) -> Iterator[tuple[ast.AST, str, str]]:
    for node in _visible(tree):
        yield from _of_expression(node, source)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            yield node, "call removed", "pass"
        if isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Constant):
            yield node.test, "condition negated", f"(not ({source.text(node.test)}))"


def _of_expression(node: ast.AST, source: Source) -> Iterator[tuple[ast.AST, str, str]]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        left, right = source.text(node.left), source.text(node.comparators[0])
        yield node, "comparison", f"(({left}) {COMPARISONS[type(node.ops[0])]} ({right}))"
    elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
        left, right = source.text(node.left), source.text(node.right)
        yield node, "arithmetic", f"(({left}) {ARITHMETIC[type(node.op)]} ({right}))"
    elif isinstance(node, ast.BoolOp):
        word = " or " if isinstance(node.op, ast.And) else " and "
        yield node, "and, or", "(" + word.join(f"({source.text(value)})" for value in node.values) + ")"
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
        yield node, "sign or not dropped", f"({source.text(node.operand)})"
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        yield node, "constant", str(not node.value) if isinstance(node.value, bool) else repr(node.value + 1)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        for dropped in node.keywords:
            if dropped.arg is not None and not _is_silent(dropped):
                kept = [source.text(x) for x in (*node.args, *(k for k in node.keywords if k is not dropped))]
                yield node, f"keyword {dropped.arg} dropped", f"{source.text(node.func)}({', '.join(kept)})"


def _visible(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that say what the program does: no annotations, messages, docstrings, type checks, compiled loops."""
    for child in _children(node):
        if not _is_silent(child):
            yield child
            yield from _visible(child)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    skipped = {"annotation", "returns", "type_params", "decorator_list", "type_comment"}
    for name, value in ast.iter_fields(node):
        if name not in skipped:
            yield from (x for x in (value if isinstance(value, list) else [value]) if isinstance(x, ast.AST))


def _is_silent(node: ast.AST) -> bool:
    if isinstance(node, ast.Raise | ast.Assert | ast.JoinedStr | ast.Import | ast.ImportFrom):
        return True
    if isinstance(node, ast.keyword):
        return node.arg in LOOKS | ASSERTED
    if isinstance(node, ast.FunctionDef):
        words = [ast.unparse(decorator).split("(")[0] for decorator in node.decorator_list]
        return any(word.endswith(COMPILED) for word in words) or node.name in SILENT_FUNCTIONS
    if isinstance(node, ast.If):
        return ast.unparse(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        names = {name.strip(" ()") for name in ast.unparse(node.targets[0]).split(",")}
        return "__all__" in names or bool(names & SILENT_NAMES)
    call = node.value if isinstance(node, ast.Expr) else node
    called = call.func if isinstance(call, ast.Call) else None
    return getattr(called, "attr", getattr(called, "id", "")) in SILENT_CALLS


def folder_of(path: str) -> str:
    """The room of a file: its folder, two deep below `forms`; ``top`` for modules beside them."""
    parts = path.split("/")[1:-1]
    return "/".join(parts[: 2 if parts[:1] == ["forms"] else 1]) or "top"


def sample(root: Path, count: int, least: int, seed: int) -> list[Mutant]:
    """So many faults of every folder at least, and `count` in all, drawn with a seed.

    Their order goes round the folders, so that whoever is cut off has tried as many of each.
    """
    rooms: dict[str, list[Mutant]] = {}
    for path in sorted((root / PACKAGE).rglob("*.py")):
        if not any(part in path.as_posix() for part in KERNELS):
            rooms.setdefault(folder_of(path.relative_to(root).as_posix()), []).extend(mutants_of(root, path))
    draw = random.Random(seed)
    first: list[tuple[int, Mutant]] = []
    left: list[Mutant] = []
    for _, mutants in sorted(rooms.items()):
        draw.shuffle(mutants)
        first += enumerate(mutants[:least])
        left += mutants[least:]
    draw.shuffle(left)
    rounds = [mutant for _, mutant in sorted(first, key=lambda ranked: ranked[0])]
    return rounds + left[: max(0, count - len(rounds))]
