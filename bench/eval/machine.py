"""What is measured on: machine, build, engines; and how much of the CPU others took."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from typing import Any, Dict, List, Optional, Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))


def first_line(*command: str) -> Optional[str]:
    """What a program says first, None without it."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
                              timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.decode(errors="replace").strip().splitlines()
    return lines[0] if lines and done.returncode == 0 else None


def read_text(path: str) -> str:
    """A file of /proc or /sys, or nothing."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def cpu_model() -> str:
    """Of the first CPU, or of the board."""
    found = re.search(r"^(?:model name|Model)\s*:\s*(.*)$", read_text("/proc/cpuinfo"), re.M)
    return found.group(1).strip() if found else platform.machine()


def memory_bytes() -> int:
    """Of the machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def cache_of(build: str, name: str) -> str:
    """A value of CMakeCache.txt."""
    found = re.search(rf"^{name}:[A-Z]+=(.*)$", read_text(os.path.join(build, "CMakeCache.txt")), re.M)
    return found.group(1).strip() if found else ""


def compiler_flags(build: str) -> str:
    """Compiler, build type and flags."""
    kind = cache_of(build, "CMAKE_BUILD_TYPE")
    compiler = cache_of(build, "CMAKE_C_COMPILER")
    flags = " ".join(filter(None, (cache_of(build, "CMAKE_C_FLAGS"),
                                   cache_of(build, f"CMAKE_C_FLAGS_{kind.upper()}"))))
    return f"{first_line(compiler or 'cc', '--version') or compiler}; {kind}: {flags}"


def git_commit() -> str:
    """The commit of the tree, with a mark if it was changed."""
    commit = first_line("git", "-C", TOP, "rev-parse", "HEAD")
    if not commit:
        return "unknown"
    changed = subprocess.run(["git", "-C", TOP, "diff", "--quiet", "HEAD"], check=False).returncode
    return commit + ("-changed" if changed else "")


def medium(folder: str) -> Dict[str, Any]:
    """The file system below a folder."""
    line = first_line("findmnt", "-n", "-o", "SOURCE,FSTYPE,OPTIONS", "-T", folder) or "unknown"
    return {"file_system": line}


def describe(folder: str) -> Dict[str, Any]:
    """The machine, for results.json."""
    return {"architecture": platform.machine(), "kernel": platform.release(), "cpu": cpu_model(),
            "cpus": len(os.sched_getaffinity(0)), "memory_bytes": memory_bytes(),
            "governor": read_text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip()
                        or "unknown",
            "hypervisor": "hypervisor" in read_text("/proc/cpuinfo"),
            "medium": medium(folder), "python": platform.python_version(),
            "tools": {name: first_line(*command) for name, command in {
                "fio": ("fio", "--version"), "nbdkit": ("nbdkit", "--version"),
                "qemu-nbd": ("qemu-nbd", "--version"), "gnuplot": ("gnuplot", "--version"),
            }.items()}}


def engines(build: str) -> Dict[str, Dict[str, Any]]:
    """Engines that the build has, by name; empty without the command."""
    try:
        told = subprocess.run([os.path.join(build, "cli", "kvfs"), "engines", "--json"], check=True,
                              stdout=subprocess.PIPE).stdout
        return {engine["name"]: engine for engine in json.loads(told)}
    except (OSError, subprocess.CalledProcessError, ValueError):
        return {}


def engine_report(wanted: Sequence[str], built: Dict[str, Dict[str, Any]]) -> List[Dict[str, Any]]:
    """Each wanted engine: is it built, which version, what does it promise."""
    rows = []
    for name in wanted:
        base = name.split(":")[-1]
        here = base in built and (":" not in name or name.split(":")[0] in built)
        rows.append({"name": name, "built": here, "version": built.get(base, {}).get("version"),
                     "caps": built.get(base, {}).get("caps", [])})
    return rows


class Steal:
    """The share of CPU time that the hypervisor gave to others since `mark`."""

    def __init__(self) -> None:
        self.before = self.read()

    @staticmethod
    def read() -> List[int]:
        """Ticks of /proc/stat's first line."""
        line = read_text("/proc/stat").split("\n", 1)[0].split()[1:9]
        return [int(word) for word in line] or [0] * 8

    def mark(self) -> None:
        """Begin again."""
        self.before = self.read()

    def share(self) -> float:
        """Between 0 and 1."""
        ticks = [now - then for now, then in zip(self.read(), self.before)]
        return ticks[7] / sum(ticks) if len(ticks) > 7 and sum(ticks) > 0 else 0.0
