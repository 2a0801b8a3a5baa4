"""results.json: its schema, a check of it, and how it is read and written.

The file is replaced whole, by rename, so a run that is killed leaves the last one that was written.
"""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, Iterator, List, Optional

SCHEMA = 1
FORMAT = "kvfs-evaluation"

Json = Dict[str, Any]

CELL_FIELDS = {
    "name": str, "group": str, "workload": str, "layer": str, "engine": str, "params": dict,
    "unit": str, "better": str, "values": list, "median": (int, float, type(None)),
    "durability": dict, "cache": str, "dataset_bytes": int, "seed": int, "visits": list,
    "latency_histogram": list, "git_commit": str, "compiler_flags": str, "versions": dict,
    "status": str, "reason": str,
}
VISIT_FIELDS = {"round": int, "order": int, "start": (int, float), "seconds": (int, float),
                "steal": (int, float), "value": (int, float, type(None)), "rejected": bool}
TOP_FIELDS = {"machine": dict, "settings": dict, "plan": dict, "engines": list, "cells": list,
              "ratios": list, "claims": list, "decisions": list, "complete": bool,
              "elapsed_seconds": (int, float), "rejected_rounds": int, "noisy_rounds": int}
CLAIM_FIELDS = {"claim": str, "verdict": str, "cells": list}
STATUSES = ("measured", "partial", "failed", "impossible", "not run")
VERDICTS = ("confirmed", "refuted", "not measurable here")


class Bad(Exception):
    """The file cannot be used; the text says why."""


def _fields(what: str, node: Any, fields: Json) -> Iterator[str]:
    if not isinstance(node, dict):
        yield f"{what} is no object"
        return
    for name, kind in fields.items():
        if name not in node:
            yield f"{what}: {name} is missing"
        elif not isinstance(node[name], kind):
            yield f"{what}: {name} is of another type"


def _cell_problems(cell: Json) -> Iterator[str]:
    what = f"cell {cell.get('name', '?')}, {cell.get('engine', '?')}"
    found = list(_fields(what, cell, CELL_FIELDS))
    yield from found
    if found:
        return
    if cell["status"] not in STATUSES:
        yield f"{what}: status {cell['status']} is not known"
    for visit in cell["visits"]:
        yield from _fields(f"{what}, visit", visit, VISIT_FIELDS)
    kept = [v.get("value") for v in cell["visits"] if not v.get("rejected")]
    if [v for v in kept if v is not None] != cell["values"]:
        yield f"{what}: values are not those of its visits"
    if cell["status"] == "measured" and not cell["values"]:
        yield f"{what}: measured, and no value"
    if cell["status"] != "measured" and not cell["reason"]:
        yield f"{what}: {cell['status']}, and no reason"


def problems(data: Any) -> List[str]:
    """What is wrong with results that have the right schema number."""
    found = list(_fields("results", data, TOP_FIELDS))
    if found:
        return found
    for cell in data["cells"]:
        found += _cell_problems(cell)
    for claim in data["claims"]:
        found += _fields("claim", claim, CLAIM_FIELDS)
        if claim.get("verdict") not in VERDICTS:
            found.append(f"claim {claim.get('claim')}: verdict {claim.get('verdict')}")
    return found


def load(path: str) -> Json:
    """Read and check; Bad if it is not a results file of this format."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise Bad(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise Bad(f"{path}: no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Bad(f"{path}: no results of this evaluation, or of a format before schema {SCHEMA}: "
                  "measure again into another folder")
    if data.get("schema") != SCHEMA:
        age = "an older" if isinstance(data.get("schema"), int) and data["schema"] < SCHEMA \
            else "a newer"
        raise Bad(f"{path}: schema {data.get('schema')} is {age} format, this program reads "
                  f"{SCHEMA}: measure again into another folder")
    wrong = problems(data)
    if wrong:
        raise Bad(f"{path}: {wrong[0]}" + (f" (and {len(wrong) - 1} more)" if wrong[1:] else ""))
    return data


def save(path: str, data: Json) -> None:
    """Replace PATH atomically; one line a cell, so that the file is small and still has a diff."""
    folder = os.path.dirname(path) or "."
    handle, temporary = tempfile.mkstemp(prefix=".results-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(render(data))
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def render(data: Json) -> str:
    """The text of the file: lists of objects one to a line, all else indented."""
    parts = []
    for key, value in data.items():
        if isinstance(value, list) and value:
            lines = ",\n".join("  " + json.dumps(item, separators=(",", ":")) for item in value)
            parts.append(f" {json.dumps(key)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(key)}: " + json.dumps(value, indent=1).replace("\n", "\n "))
    return "{\n" + ",\n".join(parts) + "\n}\n"


def empty(machine: Json, settings: Json, plan: Json, engines: List[Json]) -> Json:
    """Results before the first cell."""
    return {"schema": SCHEMA, "format": FORMAT, "complete": False, "elapsed_seconds": 0.0,
            "rejected_rounds": 0, "noisy_rounds": 0, "machine": machine, "settings": settings,
            "plan": plan, "engines": engines, "claims": [], "decisions": [], "ratios": [],
            "cells": []}


def find(data: Json, name: str, engine: str) -> Optional[Json]:
    """The entry of one cell and one peer."""
    for cell in data["cells"]:
        if cell["name"] == name and cell["engine"] == engine:
            return cell
    return None


def by_round(cell: Json) -> Dict[int, float]:
    """Value of each round that was kept."""
    return {v["round"]: v["value"] for v in cell["visits"]
            if not v["rejected"] and v["value"] is not None}
