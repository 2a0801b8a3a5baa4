"""Which figures the report has, from cells."""

from __future__ import annotations

from typing import Dict, List, Optional, Sequence, Tuple

from . import stats
from .figures import Figure, Point
from .results import Json

THREADS = ("1", "4", "16", "64")
SPANS = (("span_attach", "attach"), ("span_mount", "mount"), ("span_engine", "engine"), ("span_kvfs", "kvfs"),
         ("span_read", "first read"), ("span_write", "first write"))
ERRORS = "Bars: medians; error bars: 95 % intervals."


def point(values: Sequence[float]) -> Optional[Point]:
    """Median with its interval."""
    middle = stats.median(values)
    if middle is None:
        return None
    low, high = stats.interval(values)
    return middle, low, high


class Cells:
    """Entries by cell and peer."""

    def __init__(self, data: Json):
        self.table = {(c["name"], c["engine"]): c for c in data["cells"] if c["values"]}

    def peers(self, names: Sequence[str]) -> List[str]:
        """Peers with a value in any of the cells."""
        return list(dict.fromkeys(peer for cell, peer in self.table if cell in names))

    def point(self, cell: str, peer: str, scale: float = 1) -> Optional[Point]:
        """Of one cell and peer."""
        entry = self.table.get((cell, peer))
        return point([v * scale for v in entry["values"]]) if entry else None

    def part(self, cell: str, peer: str, key: str) -> Optional[Point]:
        """Of a further number of its visits."""
        entry = self.table.get((cell, peer))
        if not entry:
            return None
        return point([v[key] for v in entry["visits"]
                      if not v["rejected"] and isinstance(v.get(key), (int, float))])


def bars(cells: Cells, title: str, cell: str, unit: str, scale: float = 1) -> Figure:
    """One cell, a bar a peer."""
    peers = cells.peers([cell])
    return Figure(title, "bars", unit, peers, {"": [cells.point(cell, p, scale) for p in peers]},
                  note=f"{cell}. {ERRORS}")


def grouped(cells: Cells, title: str, names: Sequence[Tuple[str, str]], unit: str, log: bool = False) -> Figure:
    """Several cells, for each a bar a peer."""
    present = [(cell, label) for cell, label in names if cells.peers([cell])]
    peers = cells.peers([cell for cell, _ in present])
    return Figure(title, "bars", unit, [label for _, label in present],
                  {p: [cells.point(cell, p) for cell, _ in present] for p in peers}, log,
                  note=ERRORS)


def threads(cells: Cells, title: str, pattern: str) -> Figure:
    """A line a peer, over threads."""
    names = [pattern.replace("*", count) for count in THREADS]
    there = [(count, name) for count, name in zip(THREADS, names) if cells.peers([name])]
    if len(there) < 2:
        return Figure(title, "lines", "", [])
    peers = [p for p in cells.peers(names)
             if sum(cells.point(name, p) is not None for _, name in there) > 1]
    return Figure(title, "lines", "ops/s", [f"{count} threads" for count, _ in there],
                  {p: [cells.point(name, p) for _, name in there] for p in peers},
                  note=f"{pattern}. Points: medians; error bars: 95 % intervals.")


def recovery(cells: Cells) -> Figure:
    """Figure 3: spans of the way back."""
    cell = "recovery.total.nvme"
    peers = cells.peers([cell])
    series: Dict[str, List[Optional[Point]]] = {
        label: [cells.part(cell, p, key) for p in peers] for key, label in SPANS}
    series["total"] = [cells.point(cell, p) for p in peers]
    return Figure("The way back after a power cut", "stacks", "ms", peers, series,
                  note=f"{cell}; the medium is modelled. Medians of the spans, the error bar is of the total.")


def throughput(cells: Cells) -> List[Figure]:
    """Of the library and of disks."""
    found = [bars(cells, "Random writes of 4 KiB, 4 threads, a flush every 64", "kvfs.write.random.4k.t4.f64", "ops/s"),
             bars(cells, "Random reads of 4 KiB, 4 threads", "kvfs.read.random.4k.t4", "ops/s")]
    for layer in ("kvfs", "contract"):
        found.append(threads(cells, f"Writes by threads, layer {layer}", f"{layer}.write.random.4k.t*.f64"))
        found.append(threads(cells, f"Reads by threads, layer {layer}", f"{layer}.read.random.4k.t*"))
    found.append(grouped(cells, "How often a flush", [
        ("kvfs.write.random.4k.t4.f0", "no flush"), ("kvfs.write.random.4k.t4.f64", "every 64"),
        ("kvfs.write.random.4k.t4.f1", "every write")], "ops/s", log=True))
    found.append(grouped(cells, "Mixes", [
        ("kvfs.ycsb-a.zipfian.4k.t4.f64", "YCSB A"), ("kvfs.ycsb-b.zipfian.4k.t4.f64", "YCSB B"),
        ("kvfs.ycsb-f.zipfian.4k.t4.f64", "YCSB F")], "ops/s"))
    found.append(grouped(cells, "Disks over NBD", [
        ("nbd.read.random.4k.q4", "read 4K"), ("nbd.write.random.4k.q1.f64", "write 4K, flush/64"),
        ("nbd.write.random.4k.q1.f1", "write 4K, flush/1"), ("nbd.read.sequential.64k.q4", "seq read 64K"),
        ("nbd.write.sequential.64k.q4.f0", "seq write 64K")], "ops/s", log=True))
    return found


def of_workload(data: Json, workload: str) -> List[Figure]:
    """The figures of a section, without the empty ones."""
    cells = Cells(data)
    if workload == "throughput":
        found = throughput(cells)
    elif workload == "latency":
        found = [bars(cells, "p99 of a write at 70 % of the engine's peak",
                      "open-loop.write.random.4k.t4.f64", "us", 1e-3)]
    elif workload == "directories":
        found = [grouped(cells, f"Names, {shape}", [(f"directories.{shape}.{what}", what) for what in (
            "file-create", "file-stat", "file-list", "file-rename", "file-remove")], "ops/s", log=True)
            for shape in ("flat", "tree")]
    elif workload == "recovery":
        found = [recovery(cells)]
    elif workload == "sqlite":
        found = [grouped(cells, "SQLite", [(f"sqlite.{name}", name) for name in (
            "commit", "batch", "mixed", "point", "in-the-manner-of-speedtest1")], "ops/s", log=True)]
    elif workload == "resources":
        found = [bars(cells, f"Bytes written to the device for a byte overwritten, {size}",
                      f"resources.{size}", "bytes/byte") for size in ("2m", "small", "1g", "16g")]
        found.append(grouped(cells, "Writes with four times as much data as memory", [
            ("memory.unlimited", "no limit"), ("memory.256m", "256 MiB")], "ops/s", log=True))
    else:
        found = [grouped(cells, "Writes on modelled media", [
            (f"preset-{name}.write.random.4k.t4.f64", name) for name in ("sd", "usb-ssd", "nvme")], "ops/s", log=True)]
    return [figure for figure in found if not figure.empty()]
