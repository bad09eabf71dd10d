"""The blocks of a module of somebody's own: modules of one class side by side, which hold attention."""

from __future__ import annotations

from torch import nn

from krause_dynamics.errors import UnsupportedModel
from krause_dynamics.nn import KrauseAttention

ALONE = (nn.TransformerEncoderLayer, KrauseAttention)  # one of them is a block where it is the whole model


def equal_blocks(model: nn.Module) -> list[nn.Module]:
    """The one row of equal blocks in a module.

    Candidates are the children of one class of one parent (a list, a sequence, attributes), outermost first; a row that
    holds attention by the names of its classes or attributes goes before rows that do not. Which order they run in is
    seen when they do.

    Raises:
        UnsupportedModel: None, or several.
    """
    if isinstance(model, ALONE):
        return [model]
    rows = _rows(model, "", 2)
    attending = {name: row for name, row in rows.items() if all(map(_attends, row))}
    found = attending or rows or {name: row for name, row in _rows(model, "", 1).items() if all(map(_attends, row))}
    if len(found) != 1:
        told = ", ".join(f"{name}: {len(row)} of {type(row[0]).__name__}" for name, row in found.items())
        raise UnsupportedModel(
            f"{type(model).__name__} has {len(found)} rows of equal blocks ({told or 'none'}) where one is "
            "expected; pass the modules that the tokens go through one after the other, such as "
            "blocks=list(model.layers)"
        )
    return next(iter(found.values()))


def _rows(module: nn.Module, path: str, least: int) -> dict[str, list[nn.Module]]:
    """Rows of at least so many children with parts of their own, by the path of their parent and their class."""
    by_class: dict[type, list[nn.Module]] = {}
    for child in module.children():
        by_class.setdefault(type(child), []).append(child)
    found: dict[str, list[nn.Module]] = {}
    inside: set[int] = set()
    for kind, children in by_class.items():
        containers = kind in (nn.ModuleList, nn.Sequential, nn.ModuleDict)
        if len(children) >= least and not containers and any(True for _ in children[0].children()):
            single = len(by_class) == 1 or least > 1
            if single:
                found[path or kind.__name__] = children
                inside |= {id(child) for child in children}
    for name, child in module.named_children():
        if id(child) not in inside:
            found |= _rows(child, f"{path}.{name}" if path else name, least)
    return found


def _attends(block: nn.Module) -> bool:
    """Whether attention is in a block, by the names of its modules' classes and attributes."""
    names = [f"{name} {type(part).__name__}".lower() for name, part in block.named_modules()]
    return any("attention" in name or "attn" in name for name in names)
