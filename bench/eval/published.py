"""Figures that others published: a column of their own, labelled, never in a ratio."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List

from .document import number


def load() -> Dict[str, Dict[str, Any]]:
    """published.json."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "published.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def columns(group: str) -> List[str]:
    """Columns that a group gets."""
    return list(load()) if group.startswith("directories") else []


def shown(column: str, cell: str) -> str:
    """The figure for a cell; the shape is theirs, so flat folders have the same one."""
    row = load()[column]
    figure = row.get(cell.replace("flat1m", "tree").replace("flat", "tree"))
    return number(figure) if figure else ""
