"""A report as sections of text, tables and figures, whatever it is written as."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Sequence, Union

from .figures import Figure


@dataclass
class Table:
    """Cells are text; the first column is its rows' names."""
    head: List[str]
    rows: List[List[str]]
    caption: str = ""


@dataclass
class Text:
    """A paragraph, or items of a list."""
    text: str = ""
    items: List[str] = field(default_factory=list)


Part = Union[Table, Figure, Text]


@dataclass
class Section:
    """A heading and what stands below it."""
    title: str
    parts: List[Part] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """For links."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def number(value: Union[float, int, None]) -> str:
    """Three digits that mean something."""
    if value is None:
        return "-"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M" if size < 1e9 else f"{value / 1e9:.3g}G"
    if size >= 1000:
        digits = len(str(int(size)))
        return f"{round(value, 3 - digits):,.0f}"
    if size == 0:
        return "0"
    return f"{value:.3g}"


def value(amount: Union[float, None], unit: str) -> str:
    """A number in its unit; times in ns are shown in us."""
    if amount is None:
        return "-"
    return f"{number(amount / 1000)} us" if unit == "ns" else number(amount)


def unit_name(unit: str) -> str:
    """As in headings."""
    return "" if unit == "ns" else unit


def joined(names: Sequence[str]) -> str:
    """A, B and C."""
    names = list(names)
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
