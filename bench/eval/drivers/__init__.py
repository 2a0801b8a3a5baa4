"""Drivers by the names that groups use.  A new way of measuring is one module and one line here."""

from __future__ import annotations

from typing import Dict, Type

from .base import Bench, Driver, Failed, Measured, Session
from .kvload import KvloadDriver
from .synthetic import SyntheticDriver

DRIVERS: Dict[str, Type[Driver]] = {
    "kvload": KvloadDriver,
    "synthetic": SyntheticDriver,
}

__all__ = ["DRIVERS", "Bench", "Driver", "Failed", "Measured", "Session"]
