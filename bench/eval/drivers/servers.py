"""NBD servers and what is attached to them; each is ended by its own process."""

from __future__ import annotations

import os
import select
import subprocess
import time
from typing import Any, List, Optional, Sequence

from ..tuning import params_of
from .base import Bench, Failed
from .process import end, last_line, run, start


class Served:
    """A server that listens on a Unix socket."""

    def __init__(self, command: Sequence[str], socket: str, log: str, ready: Optional[str] = None,
                 **more: Any):
        self.socket, self.log = socket, log
        with open(log, "wb") as errors:
            self.child = start(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, **more)
        self.wait(ready or socket)

    def wait(self, path: str, seconds: float = 60) -> None:
        """Until PATH is there; Failed if the server ends before."""
        descriptor = os.pidfd_open(self.child.pid)
        until = time.monotonic() + seconds
        try:
            while not os.path.exists(path):
                if select.select([descriptor], [], [], 0.02)[0] or time.monotonic() > until:
                    with open(self.log, "rb") as errors:
                        why = last_line(errors.read())
                    end(self.child)
                    raise Failed(f"the server did not start: {why}")
        finally:
            os.close(descriptor)

    def uri(self, export: str = "disk0") -> str:
        """For clients."""
        return f"nbd+unix:///{export}?socket={self.socket}"

    def close(self) -> None:
        """End it."""
        end(self.child, 30)


def nbdkit(folder: str, name: str, *arguments: str) -> Served:
    """An nbdkit; it has written its process id when it listens."""
    pid = os.path.join(folder, f"{name}.pid")
    socket = os.path.join(folder, f"{name}.sock")
    return Served(["nbdkit", "-f", "--exit-with-parent", "-U", socket, "-P", pid, *arguments], socket,
                  os.path.join(folder, f"{name}.log"), pid)


def kvfs_disk(bench: Bench, folder: str, engine: str, size: int) -> Served:
    """A disk in a new volume of an engine."""
    volume = os.path.join(folder, "volume")
    run([bench.program("cli/kvfs"), "format", volume, f"--engine={engine}"])
    return nbdkit(folder, "kvfs", bench.program("plugin/nbdkit-kvfs-plugin.so"), f"volume={volume}",
                  "file=disk0", f"create={size}",
                  *([f"engine-params={params}"] if (params := params_of(bench.tuning, engine)) else []))


def serve(bench: Bench, folder: str, peer: str, size: int) -> Served:
    """The server of a peer, with a disk of its own."""
    if peer == "nbdkit-memory":
        return nbdkit(folder, "memory", "memory", str(size))
    if peer == "nbdkit-file":
        path = os.path.join(folder, "disk")
        with open(path, "wb") as file:
            file.truncate(size)
        return nbdkit(folder, "file", "file", path)
    if peer == "qcow2":
        path, socket = os.path.join(folder, "disk.qcow2"), os.path.join(folder, "qemu.sock")
        run(["qemu-img", "create", "-q", "-f", "qcow2", path, str(size)])
        return Served(["qemu-nbd", f"--socket={socket}", "--persistent", "--shared=8",
                       "--export-name=disk0", "--format=qcow2", "--cache=writeback",
                       f"--pid-file={folder}/qemu.pid", path], socket,
                      os.path.join(folder, "qemu.log"), f"{folder}/qemu.pid")
    return kvfs_disk(bench, folder, peer, size)


class Fused:
    """An NBD disk as a file, by nbdfuse."""

    def __init__(self, folder: str, uri: str):
        self.point = os.path.join(folder, "nbd")
        self.path = os.path.join(self.point, "nbd")
        os.makedirs(self.point, exist_ok=True)
        pid = os.path.join(folder, "nbdfuse.pid")
        self.server = Served(["nbdfuse", f"--pidfile={pid}", self.point, uri], "",
                             os.path.join(folder, "nbdfuse.log"), pid)

    def close(self) -> None:
        """Unmount, and wait for it."""
        try:
            run(["fusermount3", "-u", self.point], 30)
        except Failed:
            pass
        self.server.close()


class Mounted:
    """An ext4 of its own on a loop device of its own, over a file."""

    def __init__(self, folder: str, image: str, options: str = "noatime", direct: bool = False):
        self.point = os.path.join(folder, "mnt")
        os.makedirs(self.point, exist_ok=True)
        self.device = run(["losetup", "--find", "--show", *(["--direct-io=on"] if direct else []), image]).decode().strip()
        try:
            run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.device])
            run(["mount", "-t", "ext4", "-o", options, self.device, self.point])
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        """Give the loop device back."""
        quietly(["losetup", "--detach", self.device])

    def close(self) -> None:
        """Unmount and detach."""
        quietly(["umount", self.point])
        self.detach()


def quietly(command: List[str]) -> None:
    """For cleaning up: its failure changes nothing."""
    try:
        run(command, 60)
    except Failed:
        pass
