"""A memory limit for a child: cgroup v2, or v1, where we may make one."""

from __future__ import annotations

import os
from typing import List, Optional

V1 = "/sys/fs/cgroup/memory"
ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return True
    except OSError:
        return False


def _v2_root() -> Optional[str]:
    for root in ROOTS:
        try:
            with open(os.path.join(root, "cgroup.controllers"), encoding="ascii") as file:
                if "memory" in file.read().split():
                    _write(os.path.join(root, "cgroup.subtree_control"), "+memory")
                    return root
        except OSError:
            continue
    return None


class Limit:
    """A cgroup of our own with a limit of memory, page cache counted."""

    def __init__(self, limit_bytes: int):
        self.path = ""
        name = f"kvfs-eval-{os.getpid()}"
        root = _v2_root()
        places = [(root, "memory.max")] if root else []
        places += [(V1, "memory.limit_in_bytes")] if os.path.isdir(V1) else []
        for parent, knob in places:
            path = os.path.join(parent, name)
            try:
                os.makedirs(path, exist_ok=True)
            except OSError:
                continue
            if _write(os.path.join(path, knob), str(limit_bytes)):
                _write(os.path.join(path, "memory.swap.max"), "0")
                self.path = path
                return
            self._remove(path)
        raise PermissionError("no memory cgroup can be made here")

    def wrap(self) -> List[str]:
        """To put before a command."""
        return ["sh", "-c", 'echo $$ >"$1/cgroup.procs" && shift && exec "$@"', "sh", self.path]

    @staticmethod
    def _remove(path: str) -> None:
        try:
            os.rmdir(path)
        except OSError:
            pass

    def close(self) -> None:
        """Remove it; it must be empty."""
        self._remove(self.path)


def possible() -> bool:
    """Whether a limit can be set here."""
    try:
        Limit(64 << 20).close()
        return True
    except OSError:
        return False
