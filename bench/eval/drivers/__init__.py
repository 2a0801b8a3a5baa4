"""Drivers by the names that groups use.  A new way of measuring is one module and one line here."""

from __future__ import annotations

from typing import Dict, Type

from .base import Bench, Driver, Failed, Measured, Session
from .crashsim import PromiseDriver, RecoveryDriver
from .directories import DirectoriesDriver
from .kvload import KvloadDriver
from .nbd import NbdDriver
from .preset import PresetDriver
from .resources import ResourcesDriver
from .sqlite import InterfaceDriver, SqliteDriver
from .synthetic import SyntheticDriver

DRIVERS: Dict[str, Type[Driver]] = {
    "kvload": KvloadDriver,
    "nbd": NbdDriver,
    "sqlite": SqliteDriver,
    "interface": InterfaceDriver,
    "recovery": RecoveryDriver,
    "promise": PromiseDriver,
    "directories": DirectoriesDriver,
    "resources": ResourcesDriver,
    "preset": PresetDriver,
    "synthetic": SyntheticDriver,
}

__all__ = ["DRIVERS", "Bench", "Driver", "Failed", "Measured", "Session"]
