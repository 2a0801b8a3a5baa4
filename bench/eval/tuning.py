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
