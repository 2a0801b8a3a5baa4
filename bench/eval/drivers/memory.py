"""A memory limit for a child: a cgroup of our own, of version 2 or 1, page cache counted.

The group is made below our own one, else below one further up: where the memory controller is on for
children, a limit can be written, and a process can be moved in; all three are tried before anything is promised.
Groups that a killed evaluation left are removed by the next one.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from typing import Dict, Iterator, List, Optional, Tuple

PREFIX = "kvfs-eval-"
MOUNTS, OWN = "/proc/self/mounts", "/proc/self/cgroup"
_NUMBERS = itertools.count(1)
PATIENCE = 5.0  # seconds until processes that were ended have left their group


class Impossible(Exception):
    """No limit can be set here; the text says why."""


@dataclass(frozen=True)
class Version:
    """The files of a version of cgroups."""
    number: int
    limit: str
    swap: Tuple[str, bool]  # file, and whether it counts memory too
    peak: str
    cache: str              # its name in memory.stat


V2 = Version(2, "memory.max", ("memory.swap.max", False), "memory.peak", "file")
V1 = Version(1, "memory.limit_in_bytes", ("memory.memsw.limit_in_bytes", True), "memory.max_usage_in_bytes",
             "total_cache")


def _read(path: str) -> str:
    try:
        with open(path, encoding="ascii") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    """To a file that is there: the kernel's, not one of ours."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _mounted() -> Iterator[Tuple[Version, str, str]]:
    """Where there is a memory controller: version, mount point, our own group in it."""
    own: Dict[str, str] = {}
    for line in _read(OWN).splitlines():
        _, controllers, path = line.split(":", 2)
        for name in controllers.split(","):
            own[name] = path
    for line in _read(MOUNTS).splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2" and "memory" in _read(os.path.join(point, "cgroup.controllers")).split():
            yield V2, point, own.get("", "/")
        elif kind == "cgroup" and "memory" in options.split(","):
            yield V1, point, own.get("memory", "/")


def _parents() -> Iterator[Tuple[Version, str]]:
    """Groups below which one of ours might be made, the nearest first."""
    for version, point, own in _mounted():
        parts = [part for part in own.split("/") if part and part != ".."]
        for depth in range(len(parts), -1, -1):
            path = os.path.join(point, *parts[:depth])
            if os.path.isdir(path):
                yield version, path


def _sweep(parent: str) -> None:
    """Remove empty groups of evaluations that are no more."""
    for name in os.listdir(parent):
        found = re.fullmatch(PREFIX + r"(\d+)-\d+", name)
        if found and not os.path.exists(f"/proc/{found.group(1)}"):
            try:
                os.rmdir(os.path.join(parent, name))
            except OSError:
                pass


class Limit:
    """A group with a limit; `wrap` puts a command into it, `close` removes it."""

    def __init__(self, limit_bytes: int):
        self.path, self.version = "", V2
        why = "no cgroup file system with a memory controller is mounted"
        for version, parent in _parents():
            try:
                self._make(version, parent, limit_bytes)
                return
            except OSError as error:
                why = f"{error.filename or parent}: {error.strerror or error}"
                self.close()
            except BaseException:
                self.close()
                raise
        raise Impossible(f"no memory limit can be set here ({why})")

    def _make(self, version: Version, parent: str, limit_bytes: int) -> None:
        _sweep(parent)
        if version is V2 and "memory" not in _read(os.path.join(parent, "cgroup.subtree_control")).split():
            _write(os.path.join(parent, "cgroup.subtree_control"), "+memory")
        path = os.path.join(parent, f"{PREFIX}{os.getpid()}-{next(_NUMBERS)}")
        self.path, self.version = path, version  # first: who is interrupted behind mkdir() removes it
        os.mkdir(path)
        _write(os.path.join(path, version.limit), str(limit_bytes))
        swap, with_memory = version.swap
        if os.path.exists(os.path.join(path, swap)):  # the kernel may account no swap
            _write(os.path.join(path, swap), str(limit_bytes if with_memory else 0))
        tried = subprocess.run(self.wrap() + ["true"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, check=False)
        if tried.returncode != 0:
            raise OSError(0, "no process can be moved there", path)

    def wrap(self) -> List[str]:
        """To put before a command."""
        return ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", self.path]

    def _number(self, name: str) -> Optional[int]:
        text = _read(os.path.join(self.path, name)).strip()
        return int(text) if text.isdigit() else None

    def _of(self, file: str, name: str) -> Optional[int]:
        """NAME's number in a file of names and numbers."""
        found = re.search(rf"^{name} (\d+)$", _read(os.path.join(self.path, file)), re.M)
        return int(found.group(1)) if found else None

    def numbers(self) -> Dict[str, Optional[int]]:
        """Limit, the most that was charged at once, the page cache in it now: what the kernel says."""
        return {"limit_bytes": self._number(self.version.limit), "limit_peak_bytes": self._number(self.version.peak),
                "limit_page_cache_bytes": self._of("memory.stat", self.version.cache)}

    def killed(self) -> bool:
        """Whether the kernel ended a process because the limit was too small for it."""
        return bool(self._of("memory.events" if self.version is V2 else "memory.oom_control", "oom_kill"))

    def close(self) -> None:
        """Remove the group; whatever is still in it was started here, and ends."""
        until = time.monotonic() + PATIENCE
        while self.path:
            try:
                os.rmdir(self.path)
                self.path = ""
            except FileNotFoundError:
                self.path = ""
            except OSError:
                if time.monotonic() > until:
                    return
                for word in _read(os.path.join(self.path, "cgroup.procs")).split():
                    try:
                        os.kill(int(word), signal.SIGKILL)
                    except ProcessLookupError:
                        pass
                time.sleep(0.01)  # the last one leaves a moment after it was waited for


def impossible() -> Optional[str]:
    """Why no limit can be set here, None if one can."""
    try:
        Limit(64 << 20).close()
        return None
    except Impossible as error:
        return str(error)
