"""kvload on a modelled medium: ext4 on a loop device over nbdfuse over the crash simulator's filter."""

from __future__ import annotations

import os
import shutil
from typing import Callable, List

from ..cells import LOG_BYTES, Cell, Group, space_factor
from .base import Bench, Driver, Measured, Session
from .kvload import KvloadSession
from .servers import Fused, Mounted, nbdkit


class PresetSession(Session):
    """The medium and the store on it."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str, number: int):
        self.folder = folder
        self.closers: List[Callable[[], None]] = []
        size = int(group.dataset_bytes * space_factor(peer)) + 2 * LOG_BYTES + (64 << 20)
        try:
            server = nbdkit(folder, "medium", "memory", str(size),
                            "--filter=" + bench.program("crashsim/nbdkit-crashsim-filter.so"),
                            f"crashsim-latency={group.params['latency']}", "crashsim-cache=16M")
            self.closers.append(server.close)
            fused = Fused(folder, server.uri(""))
            self.closers.append(fused.close)
            mounted = Mounted(folder, fused.path)
            self.closers.append(mounted.close)
            place = os.path.join(mounted.point, "place")
            os.makedirs(place)
            self.load = KvloadSession(bench, group, peer, place, number, mounted.device)
            self.closers.append(self.load.close)
            self.load.begin()
        except BaseException:
            self.close()
            raise

    def visit(self, cell: Cell, number: int) -> Measured:
        found = self.load.visit(cell, number)
        found.note = "modelled medium"
        return found

    def close(self) -> None:
        while self.closers:
            self.closers.pop()()
        shutil.rmtree(self.folder, ignore_errors=True)


class PresetDriver(Driver):
    """See the top of the file."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        return PresetSession(self.bench, group, peer, self.folder(group, peer, number), number)
