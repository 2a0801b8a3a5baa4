"""kvload: an interactive load generator, so that rounds of all peers interleave (bench/load)."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Dict, List, Optional, Tuple

from ..cells import Cell, Group, peer_engine, peer_layer
from ..tuning import tuned
from .base import Bench, Driver, Failed, Measured, Session
from .process import Lines

PATIENCE = 120.0    # seconds beyond the clock, for draining and slow media
KEYS = ("read", "rmw", "pattern", "threads", "flush", "seconds", "warmup", "rate", "cold", "drain", "block")


def phase_line(params: Dict[str, Any]) -> str:
    """`load ...` from a cell's parameters."""
    return f"load op={params['op']} " + " ".join(
        f"{key}={params[key]}" for key in KEYS if key in params)


def measured(answer: Dict[str, Any]) -> Measured:
    """A visit from kvload's answer; the value is the rate once background work has drained."""
    latency = answer.get("latency_ns") or {}
    extra = {key: answer[key] for key in (
        "ops", "seconds", "rate", "rate_drained", "drain_seconds", "errors", "cpu_seconds",
        "context_switches", "own_bytes_max", "file_bytes_max", "flushes_acknowledged", "device",
        "cold") if answer.get(key) is not None}
    extra.update({key: latency[key] for key in ("p50", "p99", "p999", "max") if key in latency})
    if answer.get("errors"):
        raise Failed(f"{answer['errors']} operations failed")
    value = answer.get("rate_drained") or answer.get("rate")
    return Measured(value, extra, latency.get("histogram") or [],
                    cache=f"cold ({answer['cold']})" if answer.get("cold") else None)


class KvloadSession(Session):
    """A process with an open store."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str, number: int,
                 device: Optional[str] = None, wrap: Optional[List[str]] = None, **more: Any):
        self.bench, self.peer, self.folder = bench, peer, folder
        store = os.path.join(folder, "store")
        os.makedirs(store)
        engine = peer_engine(peer)
        command = list(wrap or []) + [
            bench.program("bench/kvload"), f"--layer={peer_layer(peer, group.layer)}",
            *([] if engine == "raw" else [f"--engine={tuned(bench.tuning, engine)}"]), f"--dir={store}",
            f"--bytes={group.dataset_bytes}", "--block=4096",
            f"--data={group.params.get('data', 'random')}", f"--seed={bench.seed + number}"]
        command += [f"--device={device}"] if device else []
        self.process = Lines(command, os.path.join(folder, "errors"), **more)
        self.opened: Dict[str, Any] = {}
        self.filled: Dict[str, Any] = {}
        self.rates: Dict[Tuple[int, str], float] = {}  # by round and cell

    def begin(self, fill: bool = True) -> None:
        """Wait for the store, and fill it."""
        self.opened = json.loads(self.process.read(PATIENCE))
        if fill:
            self.filled = self.ask("fill order=random flush=64", 3600)

    def ask(self, line: str, seconds: float) -> Dict[str, Any]:
        """One phase."""
        try:
            return json.loads(self.process.ask(line, seconds))
        except ValueError as error:
            raise Failed(f"kvload: its answer is no JSON: {error}") from error

    def age(self, volumes: int) -> None:
        """Overwrite at random, as many blocks as that many volumes."""
        blocks = volumes * self.filled.get("ops", 0)
        while blocks > 0:
            done = self.ask("load op=write pattern=random threads=4 flush=64 seconds=1 warmup=0 "
                            "drain=0", 1 + PATIENCE)
            blocks -= max(1, done.get("ops", 0))

    def finish(self, found: Measured) -> Measured:
        """With what the store said of itself."""
        found.declared = declared_text(self.opened.get("caps"))
        found.version = self.opened.get("version")
        return found

    def visit(self, cell: Cell, number: int) -> Measured:
        if cell.params.get("fill"):
            return self.finish(measured(self.filled))
        if "peak" in cell.params:
            return self.finish(self.offered(dict(cell.params), number))
        found = self.load(cell.params)
        self.rates[number, cell.name] = found.value or 0
        return self.finish(found)

    def load(self, params: Dict[str, Any]) -> Measured:
        """One load phase."""
        return measured(self.ask(phase_line(params), params["seconds"] + PATIENCE))

    def offered(self, params: Dict[str, Any], number: int) -> Measured:
        """A share of the rate that the closed-loop cell of this round reached; where that is not there
        (a run that goes on after an interruption), it is measured first."""
        peak = self.rates.get((number, params["peak"]))
        if peak is None:
            peak = self.load(params).value or 0
        params["rate"] = max(1, int(peak * params["share"]))
        found = self.load(params)
        found.extra["peak"], found.extra["offered"] = peak, params["rate"]
        found.value = found.extra[params["percentile"]]
        return found

    def close(self) -> None:
        self.process.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def declared_text(caps: Any) -> Optional[str]:
    """Caps as words with commas."""
    return ",".join(caps) if isinstance(caps, list) else caps


class KvloadDriver(Driver):
    """Layers that are called as a library."""

    def cell_impossible(self, group: Group, cell: Cell, peer: str) -> Optional[str]:
        if peer.startswith("raw@") and cell.params.get("rmw"):
            return "a file has no transactions"
        if peer.endswith("@direct") and cell.params.get("op") == "read":
            return "the minimal programs only write"
        return None

    def open(self, group: Group, peer: str, number: int) -> Session:
        session = KvloadSession(self.bench, group, peer, self.folder(group, peer, number), number)
        try:
            session.begin()
            if group.params.get("age"):
                session.age(group.params["age"])
        except BaseException:
            session.close()
            raise
        return session
