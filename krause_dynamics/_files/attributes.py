"""Metadata as attributes of a Dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def attributes(meta: Mapping[str, Any]) -> dict[str, Any]:
    """Every fact that is a number or a word under its own name, and all of them as JSON under ``"meta"``.

    Readers elsewhere find ``dataset.attrs["model"]``. What is read back here is ``json.loads(dataset.attrs["meta"])``,
    which has the nested ones too: files of earlier releases, which held it alone, are files like others.
    """
    plain = {name: _plain(value) for name, value in sorted(meta.items()) if isinstance(value, str | int | float)}
    return {name: value for name, value in plain.items() if value != ""} | {"meta": json.dumps(meta, sort_keys=True)}


def _plain(value: str | int | float) -> str | int | float:
    """Of the plain type itself: netCDF knows neither truth values nor numpy's kinds of text."""
    if isinstance(value, str):
        return str(value)
    return int(value) if isinstance(value, int) else float(value)
