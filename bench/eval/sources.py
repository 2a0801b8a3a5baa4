"""Lines of the engines' sources that claims cite: what they say, and whether they still say so."""

from __future__ import annotations

import glob
import json
import os
from typing import Any, Dict, List, Optional

HERE = os.path.dirname(os.path.abspath(__file__))


def citations() -> Dict[str, Dict[str, Any]]:
    """sources.json by id."""
    with open(os.path.join(HERE, "sources.json"), encoding="utf-8") as file:
        return {row["id"]: row for row in json.load(file)}


def crate_folder(crate: str) -> Optional[str]:
    """Where cargo keeps the source of a crate, after a build of the Rust engines."""
    home = os.environ.get("CARGO_HOME") or os.path.expanduser("~/.cargo")
    found = sorted(glob.glob(os.path.join(glob.escape(home), "registry", "src", "*", crate)))
    return found[-1] if found else None


def check(row: Dict[str, Any]) -> Optional[bool]:
    """Whether the cited line says what is cited; None where the source is not here."""
    folder = crate_folder(row["crate"])
    if not folder:
        return None
    try:
        with open(os.path.join(folder, row["file"]), encoding="utf-8") as file:
            lines = file.read().splitlines()
    except OSError:
        return False
    return row["line"] <= len(lines) and lines[row["line"] - 1].strip() == row["text"]


def cited(ids: List[str]) -> List[Dict[str, Any]]:
    """Citations for a claim, each with the result of its check."""
    rows = citations()
    state = {None: "source not here", True: "checked", False: "the line says something else now"}
    return [{"where": f"{rows[i]['crate']}/{rows[i]['file']}:{rows[i]['line']}",
             "text": rows[i]["text"], "says": rows[i]["says"], "state": state[check(rows[i])]}
            for i in ids]
