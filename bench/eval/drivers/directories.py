"""Names: kvdir makes, looks at, lists, renames and removes them, by library calls or on a mount."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, Callable, Dict, List, Optional

from ..cells import Cell, Group, peer_engine
from ..tuning import tuned
from .base import Bench, Driver, Failed, Measured, Session
from .kvload import declared_text, measured
from .process import Lines, run
from .servers import Mounted, Served

PHASES = ("dir-create", "dir-stat", "dir-rename", "dir-remove", "file-create", "file-stat",
          "file-read", "file-list", "file-rename", "file-remove")
PATIENCE = 1800.0


def phase_line(phase: str) -> str:
    """As kvdir takes it: all that is changed is made durable once at the end, within the time."""
    kind, name = phase.split("-")
    sync = " sync=end" if name in ("create", "rename", "remove") else ""
    return f"list{sync}" if name == "list" else f"{name} kind={kind}{sync}"


class FuseExt4:
    """An ext4 image served by fuse2fs."""

    def __init__(self, folder: str, size: int):
        self.point = os.path.join(folder, "mnt")
        image = os.path.join(folder, "image")
        os.makedirs(self.point)
        with open(image, "wb") as file:
            file.truncate(size)
        run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image])
        self.server = Served(["fuse2fs", "-f", "-o", "rw,fakeroot", image, self.point], "",
                             os.path.join(folder, "fuse2fs.log"), os.path.join(self.point, "lost+found"))

    def close(self) -> None:
        """Unmount, and wait until the image is written."""
        try:
            run(["fusermount3", "-u", self.point], 60)
            self.server.child.wait(60)
        except (Failed, OSError):
            pass
        self.server.close()


class DirectoriesSession(Session):
    """One kvdir on one place; its phases build on one another."""

    def __init__(self, bench: Bench, group: Group, peer: str, folder: str):
        self.folder, self.tuning = folder, bench.tuning
        self.closers: List[Callable[[], None]] = []
        self.done = 0
        params = group.params
        shape = [f"--files={params['files']}"] if params["shape"] == "flat" else \
            ["--branch=6", "--depth=3", "--items=8"]
        try:
            self.process = Lines([bench.program("bench/kvdir"), *self.place(group, peer), *shape],
                                 os.path.join(folder, "errors"))
            self.closers.append(self.process.close)
            self.opened = json.loads(self.process.read(PATIENCE))
            self.process.ask("mktree", PATIENCE)
        except BaseException:
            self.close()
            raise

    def place(self, group: Group, peer: str) -> List[str]:
        """Where the names are, as kvdir takes it."""
        if "@" not in peer:
            volume = os.path.join(self.folder, "volume")
            os.makedirs(volume)
            return ["--layer=kvfs", f"--engine={tuned(self.tuning, peer_engine(peer))}", f"--dir={volume}"]
        size = group.dataset_bytes + 512 * int(group.params["files"])
        if peer.endswith("@kernel"):
            image = os.path.join(self.folder, "image")
            with open(image, "wb") as file:
                file.truncate(size)
            mounted: Any = Mounted(self.folder, image)
        else:
            mounted = FuseExt4(self.folder, size)
        self.closers.append(mounted.close)
        return ["--layer=posix", f"--dir={mounted.point}"]

    def visit(self, cell: Cell, number: int) -> Measured:
        wanted = PHASES.index(cell.params["what"])
        answer: Dict[str, Any] = {}
        while self.done <= wanted:
            answer = json.loads(self.process.ask(phase_line(PHASES[self.done]), PATIENCE))
            self.done += 1
        if not answer:
            raise Failed(f"{cell.params['what']} comes before what was done")
        found = measured(answer)
        found.declared = declared_text(self.opened.get("caps")) if self.opened.get("caps") else None
        found.version = self.opened.get("version")
        return found

    def close(self) -> None:
        while self.closers:
            self.closers.pop()()
        shutil.rmtree(self.folder, ignore_errors=True)


class DirectoriesDriver(Driver):
    """See the top of the file."""

    def cell_impossible(self, group: Group, cell: Cell, peer: str) -> Optional[str]:
        if peer == "ext4@fuse2fs" and not shutil.which("fuse2fs"):
            return "fuse2fs is not installed"
        if "@" in peer and os.geteuid() != 0:
            return "needs root, to mount"
        return None

    def open(self, group: Group, peer: str, number: int) -> Session:
        return DirectoriesSession(self.bench, group, peer, self.folder(group, peer, number))
