"""The cells: a base point and one axis at a time from it.

A *cell* is one workload that all its peers run; a *group* is what its cells share: layer, data
set, open stores.  `priority` is the order in which they are
taken while the budget lasts: the lowest number goes first.
To add a workload, add a cell to a group here (docs/EVALUATION.md has an example).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

from .modes import ALL, FEW, GIB, MIB, Mode

PLAIN = ("lmdb", "sqlite", "rocksdb", "jammdb", "sled")
KNOWN = PLAIN + tuple(f"log:{name}" for name in PLAIN)
# Bytes a store may take beside its data set at most, seen or reserved; else 3.
SPACE = {"lmdb": 2.5, "sqlite": 3.5, "rocksdb": 3.5, "jammdb": 4.0, "sled": 5.5}
LOG_BYTES = 64 * MIB

DIRECT = ("lmdb", "sqlite", "rocksdb")  # kvload has minimal programs for these

THROUGHPUT, LATENCY, DIRECTORIES = "throughput", "latency", "directories"
RECOVERY, SQLITE, RESOURCES, PRESETS = "recovery", "sqlite", "resources", "presets"
WORKLOADS = (THROUGHPUT, LATENCY, DIRECTORIES, RECOVERY, SQLITE, RESOURCES, PRESETS)


@dataclass(frozen=True)
class Cell:
    """One workload for all peers of its group."""
    name: str
    params: Dict[str, Any]
    priority: int
    seconds: float                      # of a visit, estimated
    unit: str = "ops/s"
    better: str = "higher"
    promised: str = "nothing"           # durable | ordered | nothing: of an acknowledged write
    cache: str = "warm"
    once: bool = False                  # a store can do it once: no repetition in the same round
    peers: Optional[Tuple[str, ...]] = None  # of the group's, or all


@dataclass(frozen=True)
class Group:
    """Cells over stores that are open side by side."""
    name: str
    driver: str
    workload: str
    layer: str
    dataset_bytes: int
    peers: Tuple[str, ...]
    setup_seconds: float                # of a peer in a round, estimated
    cells: Tuple[Cell, ...]
    params: Dict[str, Any] = field(default_factory=dict)
    rounds: Optional[int] = None
    side_by_side: bool = True           # else each peer's store is removed before the next
    keep_stores: bool = False           # for all rounds; else each round has fresh ones
    needs: Tuple[str, ...] = ()         # programs of the build, commands

    def peers_of(self, cell: Cell) -> List[str]:
        """Those that run a cell."""
        return [peer for peer in self.peers if cell.peers is None or peer in cell.peers]


def peer_engine(peer: str) -> str:
    """ENGINE of the peer ENGINE@LAYER, vfs:ENGINE or ENGINE."""
    return peer.split("@")[0].replace("vfs:", "").replace("(again)", "").strip()


def peer_layer(peer: str, layer: str) -> str:
    """LAYER of the peer ENGINE@LAYER, else the group's."""
    return peer.split("@")[1] if "@" in peer else layer


def engine_base(engine: str) -> str:
    """The engine behind an intent log."""
    return engine.split(":")[-1]


def load(name: str, priority: int, mode: Mode, op: str = "write", **more: Any) -> Cell:
    """A cell of kvload: the base point, but for what is given."""
    peers = more.pop("peers", None)
    params: Dict[str, Any] = {"op": op, "pattern": "random", "threads": 4, "seconds": mode.seconds,
                              "warmup": mode.warmup}
    if op != "read":
        params["flush"] = 64
    params.update(more)
    durable = op != "read" and params["flush"] != 0
    return Cell(name, params, priority, mode.seconds + mode.warmup + (0.03 if op == "read" else 0.15),
                promised="durable" if durable else "nothing",
                cache="cold" if params.get("cold") else "warm", peers=peers)


def fill(name: str, priority: int) -> Cell:
    """A fresh store filled at random; timed while it is made, so it costs nothing more."""
    return Cell(name, {"fill": True}, priority, 0.0, promised="durable", once=True)


AXES_LESSER = 42  # priorities from here on


def axes(prefix: str, mode: Mode, few: Tuple[str, ...]) -> List[Cell]:
    """The base point through one layer, and its axes, in the order they are run."""
    def cell(name: str, priority: int, op: str = "write", **more: Any) -> Cell:
        all_peers = mode.width == ALL or (mode.width > FEW and priority < AXES_LESSER)
        return load(f"{prefix}.{name}", priority, mode, op, peers=None if all_peers else few, **more)
    return [
        load(f"{prefix}.read.random.4k.t4", 0, mode, "read"),
        load(f"{prefix}.write.random.4k.t4.f64", 0, mode),
        cell("read.random.4k.t64", 10, "read", threads=64),
        cell("read.random.4k.t1", 12, "read", threads=1),
        cell("read.random.4k.t16", 42, "read", threads=16),
        cell("write.random.4k.t64.f64", 11, threads=64),
        cell("write.random.4k.t1.f64", 13, threads=1),
        cell("write.random.4k.t16.f64", 43, threads=16),
        cell("write.random.4k.t4.f1", 20, flush=1),
        cell("write.random.4k.t4.f0", 30, flush=0),
        cell("read.sequential.4k.t4", 44, "read", pattern="sequential"),
        cell("write.sequential.4k.t4.f64", 45, pattern="sequential"),
        cell("read.random.64k.t4", 46, "read", block=65536),
        cell("write.random.64k.t4.f64", 47, block=65536),
        cell("read.sequential.64k.t4", 48, "read", pattern="sequential", block=65536),
        cell("write.sequential.64k.t4.f64", 49, pattern="sequential", block=65536),
        cell("ycsb-a.zipfian.4k.t4.f64", 31, "mix", read=50, pattern="zipfian"),
        cell("ycsb-b.zipfian.4k.t4.f64", 32, "mix", read=95, pattern="zipfian"),
        cell("ycsb-f.zipfian.4k.t4.f64", 50, "mix", read=50, rmw=1, pattern="zipfian"),
        cell("read.random.4k.t4.cold", 41, "read", cold=1),
    ]


def throughput(mode: Mode, engines: Sequence[str], few: Sequence[str]) -> List[Group]:
    """Groups of kvload."""
    wide = tuple(engines if mode.width > FEW else few)
    widest = tuple(engines if mode.width == ALL else few)
    size, setup = mode.dataset_bytes, 0.15 + mode.dataset_bytes / (60 * MIB)
    axis = tuple(few) + ("raw@raw",)
    again = (f"{few[0]} (again)",) if few else ()
    plain = [e for e in engines if ":" not in e]
    layers = tuple(f"{e}@{layer}" for e in plain for layer in ("direct", "contract", "kvfs")
                   if layer != "direct" or e in DIRECT)
    kvfs = tuple(engines) + ("raw@raw",) + again

    def group(name: str, layer: str, peers: Tuple[str, ...], cells: Sequence[Cell],
              **params: Any) -> Group:
        keep = not any(cell.once for cell in cells)
        return Group(name, "kvload", params.pop("workload", THROUGHPUT), layer, size, peers,
                     setup * params.pop("setup", 1), tuple(cells), params, needs=("bench/kvload",),
                     keep_stores=keep)
    return [
        group("kvfs-fill", "kvfs", kvfs, [fill("kvfs.fill.random.4k.f64", 1)]),
        group("kvfs", "kvfs", kvfs, axes("kvfs", mode, axis)),
        group("contract-fill", "contract", tuple(engines), [fill("contract.fill.random.4k.f64", 40)]),
        group("contract", "contract", tuple(engines), axes("contract", mode, axis)[:8]),
        group("layers", "-", layers, [load("layers.write.random.4k.t4.f64", 14, mode),
                                      load("layers.read.random.4k.t4", 15, mode, "read")]),
        group("ageing", "kvfs", widest, [
            load("ageing.write.random.4k.t4.f64", 52, mode),
            load("ageing.read.random.4k.t4", 53, mode, "read")], age=3, setup=4),
        group("compressible", "kvfs", widest, [
            load("compressible.write.random.4k.t4.f64", 54, mode),
            load("compressible.read.random.4k.t4", 55, mode, "read")], data="half"),
        group("open-loop", "kvfs", wide, [cell for priority, op, name in (
            (21, "write", "write.random.4k.t4.f64"), (22, "read", "read.random.4k.t4"))
            for cell in open_loop(mode, op, name, priority)], workload=LATENCY),
    ]


def open_loop(mode: Mode, op: str, name: str, priority: int) -> List[Cell]:
    """The closed loop that shows a peer's peak, and behind it the open loop that offers 70 % of it."""
    peak = load(f"open-loop.peak.{name}", priority, mode, op)
    params = dict(peak.params, share=0.7, percentile="p99", peak=peak.name)
    return [peak, Cell(f"open-loop.{name}", params, priority, peak.seconds, "ns", "lower", peak.promised)]


def served(mode: Mode, few: Sequence[str]) -> List[Group]:
    """Through NBD, by fio."""
    def fio(name: str, rw: str, block: str, depth: int, flush: int, priority: int) -> Cell:
        return Cell(f"nbd.{name}", {"rw": rw, "bs": block, "iodepth": depth, "fsync": flush,
                                    "seconds": max(mode.seconds, 0.3)}, priority,
                    max(mode.seconds, 0.3) + 0.6, promised="durable" if flush else "nothing")
    ours = few if mode.width > FEW else [e for e in few if engine_base(e) == "lmdb"]
    peers = tuple(ours or few) + ("nbdkit-memory", "nbdkit-file", "qcow2")
    return [Group("nbd", "nbd", THROUGHPUT, "nbd", mode.dataset_bytes, peers,
                  0.6 + mode.dataset_bytes / (60 * MIB), (
                      fio("read.random.4k.q4", "randread", "4k", 4, 0, 16),
                      fio("write.random.4k.q1.f64", "randwrite", "4k", 1, 64, 17),
                      fio("write.random.4k.q1.f1", "randwrite", "4k", 1, 1, 56),
                      fio("read.sequential.64k.q4", "read", "64k", 4, 0, 57),
                      fio("write.sequential.64k.q4.f0", "write", "64k", 4, 0, 58)),
                  needs=("plugin/nbdkit-kvfs-plugin.so", "nbdkit", "fio", "qemu-nbd"))]


def directories(mode: Mode, few: Sequence[str]) -> List[Group]:
    """Names: library calls, and beside them a kernel's and a FUSE's ext4."""
    peers = tuple(few) + ("ext4@kernel", "ext4@fuse2fs")
    sizes = [("flat", mode.files, 23), ("tree", 0, 60)]
    if mode.long:
        sizes.append(("flat1m", 1000000, 90))
    groups = []
    for shape, files, priority in sizes:
        cost = 0.2 + 5 * (files or 4680) / 5000
        cells = tuple(Cell(f"directories.{shape}.{what}", {"what": what}, priority, cost / 10,
                           once=True)
                      for what in ("dir-create", "dir-stat", "dir-rename", "dir-remove",
                                   "file-create", "file-stat", "file-read", "file-list",
                                   "file-rename", "file-remove"))
        groups.append(Group(f"directories-{shape}", "directories", DIRECTORIES, "library", 256 * MIB,
                            peers, 0.5, cells, {"shape": shape.replace("1m", ""), "files": files},
                            side_by_side=False, needs=("bench/kvdir",)))
    return groups


def recovery(mode: Mode, engines: Sequence[str]) -> List[Group]:
    """After a power cut, simulated."""
    persistent = tuple(engines)
    cut = 0.5 + mode.recovery_bytes / (128 * MIB)
    plain = tuple(e for e in engines if ":" not in e)
    return [
        Group("recovery", "recovery", RECOVERY, "kvfs", mode.recovery_bytes, persistent, 0.0, (
            Cell("recovery.total.nvme", {"latency": "nvme", "cuts": mode.cuts}, 5,
                 2 * cut * mode.cuts + 1.0, "ms", "lower", "durable", "cold"),),
            needs=("crashsim/crashsim", "root")),
        Group("promise", "promise", RECOVERY, "kvfs", 16 * MIB, plain, 0.0, (
            Cell("promise.violations", {"states": mode.states}, 6, 1.5 + mode.states / 20,
                 "violations", "lower", "durable", "cold"),), rounds=1,
            needs=("crashsim/crashsim", "root"))]


STOCK = ("stock:delete-full", "stock:delete-normal", "stock:wal-full", "stock:wal-normal")


def sqlite(mode: Mode, few: Sequence[str]) -> List[Group]:
    """Applications' databases."""
    seconds = max(mode.seconds, 0.1)
    peers = STOCK + tuple(f"vfs:{engine}" for engine in few) + ("ext4-on-kvfs",)

    def cell(name: str, priority: int, *options: str, promised: str = "durable", sql: str = "") -> Cell:
        return Cell(f"sqlite.{name}", {"cell": sql or name, "options": list(options)}, priority,
                    seconds + 0.2, promised=promised, unit="passes/s" if sql else "ops/s")
    return [
        Group("sqlite", "sqlite", SQLITE, "sqlite", mode.rows * 200, peers, 0.6,
              (cell("commit", 7), cell("point", 61, promised="nothing"), cell("batch", 62),
               cell("mixed", 24, "--threads=4", "--dbs=1"),
               cell("in-the-manner-of-speedtest1", 19, sql="mix")),
              {"rows": mode.rows, "seconds": seconds}, needs=("bench/sqlload",)),
        Group("interface", "interface", SQLITE, "engine, kvfs, vfs, sqlite", 64 * MIB, tuple(few), 0.0,
              (Cell("interface.commit", {"cell": "commit", "seconds": max(mode.seconds / 2, 0.1)}, 8,
                    2 * mode.seconds + 2.5, "us", "lower", "durable"),),
              needs=("bench/pagecost",)),
    ]


def resources(mode: Mode, engines: Sequence[str], few: Sequence[str]) -> List[Group]:
    """What a store takes, on a loop device of the run's own."""
    sizes = [("small", 64 * MIB, 9), ("1g", GIB, 63), ("16g", 16 * GIB, 91), ("1t-sparse", 1 << 40, 92)]
    if mode.name == "quick":
        sizes = [("small", 16 * MIB, 9)]
    elif mode.name == "tiny":
        sizes = [("2m", 2 * MIB, 9)]
    elif not mode.long:
        sizes = sizes[:2]
    groups = []
    for label, size, priority in sizes:
        data = 64 * MIB if "sparse" in label else size
        cells = [Cell(f"resources.{label}", {"memory": None}, priority, 3.0 + 5 * data / (50 * MIB),
                      "bytes/byte", "lower", "durable", once=True)]
        peers = tuple(few if mode.width < ALL and size >= GIB else engines)
        groups.append(Group(f"resources-{label}", "resources", RESOURCES, "kvfs", size, peers,
                            0.5, tuple(cells), {"data_bytes": data},
                            rounds=None if data <= 64 * MIB else 1, side_by_side=False,
                            needs=("bench/kvload", "root")))
    return groups


def memory(mode: Mode, few: Sequence[str]) -> List[Group]:
    """The base point with four times as much data as memory, and beside it without a limit."""
    if mode.name == "tiny":
        return []  # KVFS and the engine have more memory than tiny data
    limit, seconds = 256 * MIB, 5 * mode.seconds

    def cell(name: str, amount: Optional[int]) -> Cell:
        return Cell(f"memory.{name}", {"memory": amount, "seconds": seconds}, 18,
                    2.0 + 2 * seconds + 4 * limit / (60 * MIB), promised="durable", once=True)
    return [Group("memory", "resources", RESOURCES, "kvfs", 4 * limit, tuple(few), 0.5,
                  (cell("unlimited", None), cell(f"{limit >> 20}m", limit)), {"data_bytes": 4 * limit, "timed": True},
                  rounds=1, side_by_side=False, needs=("bench/kvload", "root"))]


def presets(mode: Mode, few: Sequence[str]) -> List[Group]:
    """The base point on modelled media."""
    groups = []
    for number, preset in enumerate(("sd", "usb-ssd", "nvme") if mode.long else ("sd",)):
        size = min(mode.dataset_bytes, 16 * MIB)
        groups.append(Group(f"preset-{preset}", "preset", PRESETS, "kvfs", size, tuple(few),
                            3.0 if preset == "sd" else 1.5, (
                                load(f"preset-{preset}.write.random.4k.t4.f64", 25 + number, mode),
                                load(f"preset-{preset}.read.random.4k.t4.cold", 64 + number, mode,
                                     "read", cold=1)), {"latency": preset},
                            needs=("bench/kvload", "crashsim/nbdkit-crashsim-filter.so", "nbdfuse",
                                   "root")))
    return groups


def all_groups(mode: Mode, engines: Sequence[str]) -> List[Group]:
    """Everything there is for these engines, in the order of the run."""
    few = [e for e in engines if ":" not in e or e == "log:lmdb"] or list(engines)
    wide = list(engines) if mode.width > FEW else few
    return (throughput(mode, engines, few) + recovery(mode, wide) + sqlite(mode, wide)
            + served(mode, wide) + directories(mode, few) + resources(mode, wide, few)
            + memory(mode, few) + presets(mode, few))


def left_out(mode: Mode, engines: Sequence[str]) -> List[Tuple[str, List[str]]]:
    """Cells that a mode does not run over all peers, with those that it lacks."""
    here = {cell.name: group.peers_of(cell) for group in all_groups(mode, engines) for cell in group.cells}
    return [(cell.name, lacking) for group in all_groups(replace(mode, width=ALL), engines)
            for cell in group.cells
            if (lacking := [p for p in group.peers_of(cell) if p not in here[cell.name] and "(again)" not in p])]


def space_factor(peer: str) -> float:
    """Bytes on the medium for a byte of the data set, at most."""
    return SPACE.get(engine_base(peer_engine(peer)), 3.0)
