"""The document as Markdown: the tables, and what the figures show by name."""

from __future__ import annotations

from typing import List, Sequence

from .document import Section, Table, Text


def escape(text: str) -> str:
    """Inside a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def table(part: Table) -> str:
    """A pipe table."""
    lines = [f"**{part.caption}**\n"] if part.caption else []
    lines.append("| " + " | ".join(map(escape, part.head)) + " |")
    lines.append("|" + "---|" * len(part.head))
    lines += ["| " + " | ".join(map(escape, row)) + " |" for row in part.rows]
    return "\n".join(lines)


def render(title: str, sections: Sequence[Section]) -> str:
    """The text."""
    out: List[str] = [f"# {title}"]
    for section in sections:
        out.append(f"## {section.title}")
        for part in section.parts:
            if isinstance(part, Table):
                out.append(table(part))
            elif isinstance(part, Text):
                out += [text for text in (part.text, "\n".join(f"- {i}" for i in part.items)) if text]
            elif not part.empty():
                out.append(f"*Figure in report.html: {part.title}.*")
    return "\n\n".join(out) + "\n"
