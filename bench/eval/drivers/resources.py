"""What a store takes: written bytes, flushes, space, memory, CPU; on a loop device of its own.

One visit is a life: fill, overwrite each block once, delete, compact.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from typing import Any, Dict, Optional

from ..cells import LOG_BYTES, Cell, Group, space_factor
from . import memory
from .base import Bench, Driver, Failed, Measured, Session
from .kvload import KvloadSession, measured
from .servers import Mounted

HOUR = 3600.0


class Disk:
    """A loop device with ext4 over a sparse file on the measured medium."""

    def __init__(self, folder: str, size: int, direct: bool):
        self.image = os.path.join(folder, "image")
        with open(self.image, "wb") as file:
            file.truncate(size)
        self.mounted = Mounted(folder, self.image, direct=direct)

    def close(self) -> None:
        """Give all back."""
        self.mounted.close()
        os.unlink(self.image)


def number(answer: Dict[str, Any], *path: str) -> float:
    """A number in an answer, 0 where it is missing."""
    node: Any = answer
    for key in path:
        node = (node or {}).get(key)
    return float(node or 0)


def per(total: float, count: float) -> Optional[float]:
    """A quotient, None of nothing."""
    return total / count if count else None


class Life:
    """Phases of one store, and the numbers they leave."""

    def __init__(self, session: KvloadSession, data: int):
        self.session, self.data = session, data
        self.found: Dict[str, Any] = {}

    def space(self, after: str) -> None:
        """Bytes of the store's files beside those of its data."""
        answer = self.session.ask("space", HOUR)
        self.found[f"space_{after}"] = answer["allocated_bytes"] / self.data

    def write(self, name: str, line: str) -> Dict[str, Any]:
        """A phase that writes: costs for each operation, byte and flush."""
        answer = self.session.ask(line, HOUR)
        ops = answer["ops"]
        costs = {"written": per(number(answer, "device", "written"), 4096 * ops),
                 "device_flushes": per(number(answer, "device", "flushes"),
                                       number(answer, "flushes_acknowledged")),
                 "cpu_us": per(1e6 * number(answer, "cpu_seconds"), ops),
                 "switches": per(number(answer, "context_switches"), ops),
                 "own_bytes": answer.get("own_bytes_max"), "file_bytes": answer.get("file_bytes_max"),
                 "rate": answer.get("rate_drained") or answer.get("rate")}
        self.found.update({f"{name}_{key}": value for key, value in costs.items() if value is not None})
        return answer

    def timed(self, seconds: float) -> Dict[str, Any]:
        """Writes and reads for a time, since under a memory limit each may wait for the device; the answer of the writes."""
        load = f"pattern=random threads=4 seconds={seconds} warmup=0"
        self.write("fill", "fill order=sequential flush=64 drain=1")
        last = self.write("overwrite", f"load op=write flush=64 {load}")
        self.found["read_rate"] = self.session.ask(f"load op=read {load}", HOUR).get("rate")
        return last

    def live(self, sparse: bool) -> Dict[str, Any]:
        """All of it; the answer of the overwrite."""
        if sparse:
            last = self.write("overwrite", "load op=write pattern=random threads=4 flush=64 seconds=2 warmup=0")
            self.space("fill")
            return last
        self.write("fill", "fill order=random flush=64 drain=1")
        self.space("fill")
        last = self.write("overwrite", "fill order=random flush=64 drain=1")
        self.space("overwrite")
        read = self.session.ask("load op=read pattern=random threads=4 seconds=0.3 warmup=0", HOUR)
        self.found["read_own_bytes"] = read.get("own_bytes_max")
        self.found["read_cpu_us"] = per(1e6 * number(read, "cpu_seconds"), read["ops"])
        self.session.ask("delete", HOUR)
        self.space("delete")
        if self.session.ask("compact", HOUR).get("supported"):
            self.space("compact")
        return last


class ResourcesSession(Session):
    """Holds the disk; the store lives within a visit."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str, number_: int):
        self.bench, self.group, self.peer, self.number = bench, group, peer, number_
        self.folder = folder
        self.data = int(group.params["data_bytes"])
        room = int(self.data * space_factor(peer)) + LOG_BYTES + (256 << 20)
        # Beside a limit the image is read past the page cache: that copy would be outside of it.
        self.disk = Disk(folder, room, any(cell.params["memory"] for cell in group.cells))

    def visit(self, cell: Cell, number: int) -> Measured:
        if not cell.params["memory"]:
            return self.life(cell, None)
        try:
            limit = memory.Limit(cell.params["memory"])
        except memory.Impossible as error:
            raise Failed(str(error)) from error
        try:
            return self.life(cell, limit)
        except Failed as error:
            if limit.killed():
                raise Failed(f"did not get along with {cell.params['memory'] >> 20} MiB: the kernel ended it") from error
            raise
        finally:
            limit.close()

    def life(self, cell: Cell, limit: Optional[memory.Limit]) -> Measured:
        """In a folder on the disk of this session."""
        place = os.path.join(self.disk.mounted.point, cell.name)
        os.makedirs(place)
        session = KvloadSession(self.bench, replace(self.group), self.peer, place, self.number,
                                self.disk.mounted.device, limit.wrap() if limit else None)
        try:
            session.begin(fill=False)
            life = Life(session, self.data)
            timed = bool(self.group.params.get("timed"))
            answer = life.timed(cell.params["seconds"]) if timed else life.live(self.data < self.group.dataset_bytes)
            if limit:
                life.found.update(limit.numbers())
            found = measured(answer)
            found.extra = {key: round(value, 5) for key, value in life.found.items() if value is not None}
            found.value = life.found.get("overwrite_rate" if timed else "overwrite_written")
            return session.finish(found)
        finally:
            session.close()

    def close(self) -> None:
        self.disk.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class ResourcesDriver(Driver):
    """See the top of the file."""

    def __init__(self, bench: Bench):
        super().__init__(bench)
        self.no_limit: Optional[str] = None
        self.tried = False

    def cell_impossible(self, group: Group, cell: Cell, peer: str) -> Optional[str]:
        if not cell.params["memory"]:
            return None
        if not self.tried:
            self.no_limit, self.tried = memory.impossible(), True
        return self.no_limit

    def open(self, group: Group, peer: str, number: int) -> Session:
        return ResourcesSession(self.bench, group, peer, self.folder(group, peer, number), number)
