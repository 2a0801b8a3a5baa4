"""SQLite: the stock VFS beside the VFS `kvfs`, and what the interfaces cost (bench/sqlite)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import List, Optional

from ..cells import Cell, Group, peer_engine
from ..tuning import params_of, tuned
from .base import Bench, Driver, Failed, Measured, Session
from .process import run
from .servers import Fused, Mounted, kvfs_disk


def pragmas(peer: str) -> str:
    """Of a stock peer stock:JOURNAL-SYNCHRONOUS."""
    if not peer.startswith("stock:"):
        return ""
    journal, synchronous = peer[len("stock:"):].split("-")
    return f"PRAGMA journal_mode={journal.upper()}; PRAGMA synchronous={synchronous.upper()}"


class SqliteSession(Session):
    """A database of a peer with its rows."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str):
        self.bench, self.group, self.peer, self.folder = bench, group, peer, folder
        self.closers: List = []
        try:
            self.uri, self.setup = self.place(), pragmas(peer)
            self.load("fill", ["--dbs=1"])
        except BaseException:
            self.close()
            raise

    def place(self) -> str:
        """Where its database is."""
        if self.peer.startswith("vfs:"):
            engine = peer_engine(self.peer)
            params = params_of(self.bench.tuning, engine)
            return (f"file:one.db?vfs=kvfs&volume={self.folder}/volume&engine={engine}&create=1&durability=durable"
                    + (f"&engine_params={params}" if params else ""))
        if self.peer != "ext4-on-kvfs":
            return f"file:{self.folder}/one.db"
        size = max(64 << 20, 4 * self.group.dataset_bytes)
        server = kvfs_disk(self.bench, self.folder, "log:lmdb", size)
        self.closers.append(server.close)
        fused = Fused(self.folder, server.uri())
        self.closers.append(fused.close)
        mounted = Mounted(self.folder, fused.path)
        self.closers.append(mounted.close)
        return f"file:{mounted.point}/one.db"

    def load(self, cell: str, options: List[str]) -> bytes:
        """Run sqlload."""
        setup = self.setup or ("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL"
                               if self.peer == "ext4-on-kvfs" else "")
        params = self.group.params
        return run([self.bench.program("bench/sqlload"), f"--setup={setup}",
                    f"--rows={params['rows']}", f"--seconds={params['seconds']}", *options, cell,
                    self.uri], 600)

    def visit(self, cell: Cell, number: int) -> Measured:
        found = json.loads(self.load(cell.params["cell"], cell.params["options"]))
        extra = {name: found[f"{name}_us"] * 1000 for name in ("p50", "p99", "max")
                 if f"{name}_us" in found}
        return Measured(found["rate"], extra)

    def close(self) -> None:
        for closer in reversed(self.closers):
            closer()
        shutil.rmtree(self.folder, ignore_errors=True)


class SqliteDriver(Driver):
    """sqlload over each peer."""

    def cell_impossible(self, group: Group, cell: Cell, peer: str) -> Optional[str]:
        if peer == "ext4-on-kvfs":
            if os.geteuid() != 0:
                return "needs root, to mount"
            if not shutil.which("nbdfuse"):
                return "nbdfuse is not installed"
        return None

    def open(self, group: Group, peer: str, number: int) -> Session:
        return SqliteSession(self.bench, group, peer, self.folder(group, peer, number))


class InterfaceSession(Session):
    """pagecost: pages that SQLite was seen to read and write, replayed in three ways."""

    def __init__(self, bench: Bench, peer: str, folder: str):
        self.bench, self.peer, self.folder = bench, peer, folder

    def visit(self, cell: Cell, number: int) -> Measured:
        folder = tempfile.mkdtemp(dir=self.folder)
        try:
            out = run([self.bench.program("bench/pagecost"), f"--engine={tuned(self.bench.tuning, self.peer)}",
                       f"--seconds={cell.params['seconds']}", "--no-cold", folder], 900)
        finally:
            shutil.rmtree(folder)
        ways = {(row["cell"], row["way"]): row["us"] for row in map(json.loads, out.splitlines())}
        name = cell.params["cell"]
        if (name, "vfs") not in ways:
            raise Failed(f"pagecost told nothing of {name}")
        extra = {"engine_us": ways[name, "engine"], "kvfs": ways[name, "kvfs"], "vfs": ways[name, "vfs"],
                 "sql": ways[name, "sqlite"]}
        for way in ("engine", "kvfs", "vfs", "sqlite"):
            if ("read", way) in ways:
                extra[f"read_{way}"] = ways["read", way]
        return Measured(ways[name, "vfs"], extra)

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class InterfaceDriver(Driver):
    """See InterfaceSession."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        return InterfaceSession(self.bench, peer, self.folder(group, peer, number))
