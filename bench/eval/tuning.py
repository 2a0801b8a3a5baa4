"""tuning.json: how every engine is opened."""

from __future__ import annotations

import json
import os
from typing import Any, Dict


def load_tuning() -> Dict[str, Any]:
    """The committed file."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tuning.json")
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def params_of(tuning: Dict[str, Any], engine: str) -> str:
    """Parameters of an engine, or of the one behind its log."""
    return tuning.get("engines", {}).get(engine.split(":")[-1], {}).get("params", "")


def tuned(tuning: Dict[str, Any], engine: str) -> str:
    """ENGINE,PARAMS as the programs of bench/ take it."""
    params = params_of(tuning, engine)
    return f"{engine},{params}" if params else engine
