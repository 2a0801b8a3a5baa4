"""The document as one self-contained page: no script, no other file, readable in print."""

from __future__ import annotations

from html import escape
from typing import List, Sequence

from . import figures
from .document import Section, Table, Text

STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 72rem;
       margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
nav ul { columns: 3 14rem; padding-left: 1.2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; margin: .6rem 0 1.2rem; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; }
th, td { border: 1px solid #ddd; padding: .2rem .45rem; text-align: right; vertical-align: top; }
th:first-child, td:first-child, td.text, caption { text-align: left; }
thead th { background: #f3f3f3; }
figure { margin: 1rem 0; break-inside: avoid; } figure svg { width: min(100%, 56rem); height: auto; }
figcaption { font-size: .9rem; }
.confirmed, .faster { color: #00662b; } .refuted, .slower { color: #a31515; }
@media print {
  body { font-size: 9.5pt; max-width: none; padding: 0; } nav { display: none; }
  h2 { break-after: avoid; } tr { break-inside: avoid; } thead { display: table-header-group; }
  .wide { overflow: visible; } table { font-size: 7pt; } a { color: inherit; text-decoration: none; }
}
"""
MARKED = ("confirmed", "refuted", "faster", "slower")


def prose(column: Sequence[str]) -> bool:
    """Whether a column holds words, which stand on the left."""
    return any(text[:1].isalpha() and text not in ("n/a", "failed", "partial") for text in column)


def cell(text: str, words: bool) -> str:
    """A cell of a table."""
    classes = ([text] if text in MARKED else []) + (["text"] if words else [])
    mark = f' class="{" ".join(classes)}"' if classes else ""
    return f"<td{mark}>{escape(text)}</td>"


def table(part: Table) -> str:
    """A table that scrolls by itself where it is too wide."""
    caption = f"<caption>{escape(part.caption)}</caption>" if part.caption else ""
    head = "".join(f"<th>{escape(name)}</th>" for name in part.head)
    words = [prose(column) for column in zip(*part.rows)]
    rows = "\n".join("<tr>" + "".join(map(cell, row, words)) + "</tr>" for row in part.rows)
    return (f'<div class="wide"><table>{caption}<thead><tr>{head}</tr></thead>\n'
            f"<tbody>{rows}</tbody></table></div>")


def text(part: Text) -> str:
    """Paragraph and list."""
    out = f"<p>{escape(part.text)}</p>" if part.text else ""
    if part.items:
        out += "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in part.items) + "</ul>"
    return out


def figure(part: figures.Figure, identity: str) -> str:
    """A drawing with its caption."""
    drawn = figures.svg(part, identity)
    if drawn is None:
        return f"<p>{escape(part.title)}: no figure, gnuplot is not installed.</p>"
    note = f" {escape(part.note)}" if part.note else ""
    return f"<figure>{drawn}<figcaption><b>{escape(part.title)}.</b>{note}</figcaption></figure>"


def render(title: str, sections: Sequence[Section]) -> str:
    """The page."""
    links = "".join(f'<li><a href="#{s.anchor}">{escape(s.title)}</a></li>' for s in sections)
    body: List[str] = [f"<h1>{escape(title)}</h1>", f"<nav><ul>{links}</ul></nav>"]
    count = 0
    for section in sections:
        body.append(f'<h2 id="{section.anchor}">{escape(section.title)}</h2>')
        for part in section.parts:
            if isinstance(part, Table):
                body.append(table(part))
            elif isinstance(part, Text):
                body.append(text(part))
            elif not part.empty():
                count += 1
                body.append(figure(part, f"f{count}_"))
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            '<link rel="icon" href="data:,">'
            f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>\n"
            + "\n".join(body) + "\n</body></html>\n")
