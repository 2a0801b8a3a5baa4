"""Disks over NBD, loaded by fio: ours beside nbdkit's memory and file, and qemu-nbd's qcow2."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Dict, List

from ..cells import Cell, Group
from .base import Bench, Driver, Failed, Measured, Session
from .process import run
from .servers import serve

SYNC_FUDGE = 5  # seconds that fio may take beyond its clock, times ten


def fio_command(uri: str, size: int, number: int, params: Dict[str, Any]) -> List[str]:
    """fio for a cell."""
    command = ["fio", "--name=cell", "--ioengine=nbd", f"--uri={uri}", f"--size={size}",
               "--time_based", f"--runtime={int(1000 * params['seconds'])}ms", "--thread",
               "--norandommap", f"--randseed={number}", "--refill_buffers", "--output-format=json",
               f"--rw={params['rw']}", f"--bs={params['bs']}", f"--iodepth={params['iodepth']}"]
    return command + ([f"--fsync={params['fsync']}"] if params["fsync"] else [])


def fio_measured(out: bytes) -> Measured:
    """The rate of all jobs, and the latencies of one."""
    text = out.decode(errors="replace")
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"]:
        raise Failed(f"fio: error {job['error']}")
    side = job["read"] if job["read"]["total_ios"] else job["write"]
    wait = side["clat_ns"]
    extra = {name: wait.get("percentile", {}).get(key) for name, key in
             (("p50", "50.000000"), ("p99", "99.000000"), ("p999", "99.900000"))}
    extra.update(max=wait.get("max"), seconds=side["runtime"] / 1000, ops=side["total_ios"])
    return Measured(side["iops"], {k: v for k, v in extra.items() if v is not None})


class NbdSession(Session):
    """A server with a full disk."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str, number: int):
        self.size, self.folder = group.dataset_bytes, folder
        self.server = serve(bench, folder, peer, self.size)
        try:
            run(["fio", "--name=fill", "--ioengine=nbd", f"--uri={self.server.uri()}", "--rw=write",
                 "--bs=256k", "--iodepth=4", f"--size={self.size}", "--end_fsync=1", "--thread",
                 "--refill_buffers", f"--randseed={number}"])
        except BaseException:
            self.close()
            raise

    def visit(self, cell: Cell, number: int) -> Measured:
        out = run(fio_command(self.server.uri(), self.size, number, cell.params),
                  cell.params["seconds"] + 10 * SYNC_FUDGE)
        found = fio_measured(out)
        if "write" in cell.params["rw"]:
            # Nothing of this cell may be going on in the next.
            run(["fio", "--name=settle", "--ioengine=nbd", f"--uri={self.server.uri()}", "--rw=write",
                 "--bs=4k", "--size=4k", "--end_fsync=1", "--thread"])
        return found

    def close(self) -> None:
        self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class NbdDriver(Driver):
    """See the top of the file."""

    def open(self, group: Group, peer: str, number: int) -> Session:
        folder = self.folder(group, peer, number)
        if len(os.path.join(folder, "memory.sock")) > 100:
            raise Failed("the path of --dir is too long for a socket")
        return NbdSession(self.bench, group, peer, folder, number)
