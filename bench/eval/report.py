"""The report: results.json told as a document, written as report.html and report.md."""

from __future__ import annotations

import os
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

from . import charts, html, judge, markdown, plan, published, stats
from .document import Section, Table, Text, joined, number, unit_name, value
from .results import Json

MARKS = {stats.FASTER: "+", stats.SLOWER: "-", stats.SAME: "=", stats.UNKNOWN: ""}
TITLES = {"throughput": "Throughput", "latency": "Latency under a fixed load", "directories": "Directories",
          "recovery": "Recovery after a power cut", "sqlite": "SQLite", "resources": "Resources",
          "presets": "Modelled media"}


def write(data: Json, folder: str) -> List[str]:
    """Both files, each replaced whole; their paths."""
    title = f"KVFS: evaluation of the engines ({data['settings'].get('mode', '?')})"
    sections = document(data)
    paths = []
    for name, text in (("report.html", html.render(title, sections)),
                       ("report.md", markdown.render(title, sections))):
        path = os.path.join(folder, name)
        handle, temporary = tempfile.mkstemp(prefix=".report-", dir=folder)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        paths.append(path)
    return paths


def document(data: Json) -> List[Section]:
    """All sections in order."""
    sections = [summary(data), conditions(data)]
    for workload, title in TITLES.items():
        parts: List[Any] = list(charts.of_workload(data, workload))
        parts += tables_of(data, workload)
        if parts:
            sections.append(Section(title, parts))
    return sections + [ratios(data), latency(data), not_measured(data), claims(data), decisions(data)]


# --- what it was measured on ----------------------------------------------------------------------

def summary(data: Json) -> Section:
    """What this is, and how to read it."""
    measured = [c for c in data["cells"] if c["values"]]
    state = "complete" if data["complete"] else "NOT COMPLETE: interrupted, --resume goes on"
    return Section("Summary", [
        Text(f"{len({c['name'] for c in measured})} cells, {len(measured)} of cell and peer; "
             f"{plan.duration(data['elapsed_seconds'])}; {state}. "
             f"{data['rejected_rounds']} rounds were repeated because others took more than 2 % of the CPU, "
             f"{data['noisy_rounds']} were kept though they did."),
        Text(items=[f"not built: {e['name']}" for e in data["engines"] if not e["built"]]),
        Text("A number is the median of the rounds. A ratio is the median of the ratios of each round, with "
             "its 95 % bootstrap interval; + faster, - slower than the peer of the first column, "
             "= no difference shown (the interval holds 1). Rates of writes count the time until background "
             "work has drained. † marks a store that promises less than the cell's label says. "
             "docs/EVALUATION.md tells the method."),
        Table(["use", "engine", "no difference shown to", "cell"],
              [[d["use"], d["engine"] or "not measured", ", ".join(d["equal"]), d["cell"]]
               for d in data["decisions"]], "In short: which engine for which use (reasons at the end)")])


def conditions(data: Json) -> Section:
    """Machine, build, engines."""
    machine = data["machine"]
    rows = [[name.replace("_", " "), shown(machine[name])] for name in machine if name != "tools"]
    rows += [[name, text or "not installed"] for name, text in machine.get("tools", {}).items()]
    first = next(iter(data["cells"]), None)
    if first:
        rows += [["commit", first["git_commit"]], ["compiler", first["compiler_flags"]],
                 ["seed", str(first["seed"])]]
    rows.append(["tuning", "bench/eval/tuning.json: " + "; ".join(
        f"{name}: {row.get('params') or 'as built'} ({caches(row['cache_bytes'])})" for name, row in
        data["settings"].get("tuning", {}).get("engines", {}).items())])
    return Section("Conditions", [
        Table(["", ""], rows),
        Table(["engine", "version", "promises over a power cut"], [
            [e["name"], str(e["version"] or "-"),
             ", ".join(c for c in e["caps"] if c in ("ordered", "durable")) or "nothing"]
            for e in data["engines"] if e["built"]])])


def caches(parts: Dict[str, Optional[int]]) -> str:
    """What an engine caches, and how much."""
    return ", ".join(f"{name}: {plan.size(amount) if amount else 'as much as the kernel gives'}"
                     for name, amount in parts.items())


def shown(node: Any) -> str:
    """A value of the machine's description."""
    if isinstance(node, dict):
        return ", ".join(str(v) for v in node.values())
    return plan.size(node) if isinstance(node, int) and node > 1 << 20 else str(node)


# --- the cells ------------------------------------------------------------------------------------

def peers_in_order(entries: Sequence[Json]) -> List[str]:
    """As they came first."""
    return list(dict.fromkeys(e["engine"] for e in entries))


def shown_value(entry: Optional[Json], marks: Dict[Tuple[str, str], str]) -> str:
    """Median with its mark."""
    if entry is None or entry["median"] is None:
        return "" if entry is None else {"impossible": "n/a", "not run": "-"}.get(entry["status"], entry["status"])
    weaker = "†" if entry["durability"]["weaker"] else ""
    mark = marks.get((entry["name"], entry["engine"]), "")
    return f"{value(entry['median'], entry['unit'])}{weaker} {mark}".strip()


def tables_of(data: Json, workload: str) -> List[Any]:
    """A table a group: rows are cells, columns peers."""
    marks = {(r["cell"], r["engine"]): MARKS[r["verdict"]] for r in data["ratios"]}
    parts: List[Any] = []
    for group in dict.fromkeys(c["group"] for c in data["cells"] if c["workload"] == workload):
        entries = [c for c in data["cells"] if c["group"] == group]
        if not any(e["values"] for e in entries):
            continue
        peers = peers_in_order(entries)
        table = {(e["name"], e["engine"]): e for e in entries}
        names = [n for n in dict.fromkeys(e["name"] for e in entries)
                 if any(table[n, p]["values"] for p in peers if (n, p) in table)]
        extra = published.columns(group)
        rows = []
        for name in names:
            unit = next(e["unit"] for e in entries if e["name"] == name)
            label = " ".join(filter(None, (name, f"({unit_name(unit)})" if unit_name(unit) else "")))
            rows.append([label] + [shown_value(table.get((name, p)), marks) for p in peers]
                        + [published.shown(column, name) for column in extra])
        parts.append(Table(["cell"] + [heading(p, entries) for p in peers] + extra, rows,
                           f"{group}, {caption(entries)}"))
        parts += details(group, entries)
    return parts


def heading(peer: str, entries: Sequence[Json]) -> str:
    """A peer; a mount is another layer than a library."""
    entry = next(e for e in entries if e["engine"] == peer)
    return peer + (" (different layer)" if entry["workload"] == "directories" and "@" in peer else "")


def caption(entries: Sequence[Json]) -> str:
    """Layer and data."""
    size = plan.size(entries[0]["dataset_bytes"])
    data = "2:1 compressible data" if entries[0]["params"].get("data") == "half" else "incompressible data"
    caches = joined(sorted({e["cache"] for e in entries if e["values"]}))
    note = next((e["note"] for e in entries if e.get("note")), "")
    return f"layer {entries[0]['layer']}, {size} of {data}, page cache {caches}" + (f", {note}" if note else "")


DETAILS = {
    "resources": (("written", "written, overwrite"), ("fill_written", "written, fill"),
                  ("overwrite_device_flushes", "device flushes a commit"),
                  ("space_fill", "space, full"), ("space_overwrite", "overwritten"),
                  ("space_delete", "deleted"), ("space_compact", "compacted"),
                  ("overwrite_own_bytes", "own memory"), ("overwrite_file_bytes", "mapped"),
                  ("overwrite_cpu_us", "CPU us an op"), ("overwrite_switches", "switches an op"),
                  ("overwrite_rate", "ops/s")),
    "memory": (("limit_bytes", "memory limit"), ("limit_peak_bytes", "most memory, with page cache"),
               ("limit_page_cache_bytes", "page cache of it"), ("overwrite_own_bytes", "own memory"),
               ("fill_rate", "fill, ops/s"), ("overwrite_rate", "writes/s"), ("read_rate", "reads/s"),
               ("overwrite_written", "written, overwrite")),
    "recovery": (("span_attach", "attach"), ("span_mount", "mount"), ("span_engine", "engine"),
                 ("span_kvfs", "kvfs"), ("span_read", "read"), ("span_write", "write"),
                 ("after_clean_end", "total after a clean end"), ("verify", "verify all")),
    "promise": (("states", "states"), ("distinct", "distinct"), ("cuts", "cuts"),
                ("acknowledged", "acknowledged")),
    "interface": (("engine_us", "engine us"), ("kvfs", "libkvfs us"), ("vfs", "VFS us"), ("sql", "SQLite us"),
                  ("read_engine", "read: engine us"), ("read_kvfs", "libkvfs us"), ("read_vfs", "VFS us"),
                  ("read_sqlite", "SQLite us")),
    "open-loop": (("peak", "peak ops/s"), ("offered", "offered"), ("rate", "served"), ("p50", "p50"),
                  ("p99", "p99"), ("p999", "p99.9"), ("max", "max")),
}


def kept(entry: Json, key: str) -> List[float]:
    """Numbers of the visits that count."""
    return [v[key] for v in entry["visits"] if not v["rejected"] and isinstance(v.get(key), (int, float))]


def detail(entry: Json, key: str) -> List[float]:
    """The numbers of a column of an entry."""
    return entry["values"] if key == "written" else kept(entry, key)


def entry_of(entries: Sequence[Json], name: str) -> Json:
    """One of a cell's."""
    return next(e for e in entries if e["name"] == name)


def details(group: str, entries: Sequence[Json]) -> List[Any]:
    """Further numbers of the groups that have them."""
    wanted = next((columns for name, columns in DETAILS.items() if group.startswith(name)), ())
    parts = []
    for name in dict.fromkeys(e["name"] for e in entries):
        if group == "open-loop" and "peak" not in entry_of(entries, name)["params"]:
            continue
        measured = [e for e in entries if e["name"] == name and e["values"]]
        columns = [(key, title) for key, title in wanted if any(detail(e, key) for e in measured)]
        rows = [[entry["engine"]] + [shown_detail(key, stats.median(detail(entry, key))) for key, _ in columns]
                for entry in measured]
        if rows and columns:
            parts.append(Table(["peer"] + [title for _, title in columns], rows, name))
    if group == "interface":
        parts.append(interface_percent(entries))
    return parts


def shown_detail(key: str, amount: Optional[float]) -> str:
    """In the unit of its column."""
    if amount is None:
        return "-"
    if key.endswith("_bytes"):
        return plan.size(amount)
    return value(amount, "ns") if key in ("p50", "p99", "p999", "max") else number(amount)


def interface_percent(entries: Sequence[Json]) -> Table:
    """Table 1: what each interface adds to the engine's own commit."""
    rows = []
    for entry in entries:
        engine = stats.median(kept(entry, "engine_us"))
        if not engine:
            continue
        cells = [entry["engine"], f"{number(engine)} us"]
        for key in ("kvfs", "vfs", "sql"):
            costs = [100 * (v[key] / v["engine_us"] - 1) for v in entry["visits"]
                     if not v["rejected"] and key in v]
            if not costs:
                cells.append("-")
                continue
            low, high = stats.interval(costs)
            cells.append(f"{stats.median(costs):+.1f} % [{low:+.1f}, {high:+.1f}]")
        rows.append(cells)
    return Table(["engine", "engine alone", "+ KVFS", "+ KVFS + VFS", "+ KVFS + VFS + SQLite"], rows,
                 "Table 1: cost of the interfaces of a commit (the last: the same rows, changed by SQL statements)")


# --- appendices -----------------------------------------------------------------------------------

def ratios(data: Json) -> Section:
    """Each ratio with its interval."""
    rows = [[r["cell"], r["engine"] + (" †" if r["weaker"] else ""), r["beside"], f"{r['ratio']:.3f}",
             f"[{r['low']:.3f}, {r['high']:.3f}]", str(r["rounds"]), r["verdict"]] for r in data["ratios"]]
    means = [[name, f"{mean:.3f}"] for name, mean in judge.group_means(data).items()]
    return Section("Ratios", [
        Text("† : one of the two promises less than the other; the comparison is not of equals."),
        Table(["cell", "peer", "beside", "ratio", "95 % interval", "rounds", "verdict"], rows),
        Table(["group", "geometric mean of its ratios"], means)])


def latency(data: Json) -> Section:
    """Percentiles of each cell."""
    rows = []
    for entry in data["cells"]:
        numbers = [stats.median(kept(entry, key)) for key in ("p50", "p99", "p999")]
        if entry["values"] and any(n is not None for n in numbers):
            rows.append([entry["name"], entry["engine"]] + [value(n, "ns") for n in numbers]
                        + [value(max(kept(entry, "max"), default=None), "ns"),
                           number(stats.median(kept(entry, "rate"))),
                           number(stats.median(kept(entry, "rate_drained")))])
    return Section("Latency of every cell", [
        Text("Medians of the rounds; the maximum is of all rounds. A write's latency is its call's, with the "
             "flush where it has one. Rates before and after background work has drained."),
        Table(["cell", "peer", "p50", "p99", "p99.9", "max", "ops/s before", "drained"], rows)])


def not_measured(data: Json) -> Section:
    """What was dropped, impossible, failed."""
    rows = [[d["name"], "all", d["reason"]] for d in data["plan"]["dropped"]]
    rows += [[d["name"], ", ".join(d["peers"]), d["reason"]] for d in data["plan"].get("narrowed", [])]
    grouped: Dict[Tuple[str, str], List[str]] = {}
    dropped = {d["name"] for d in data["plan"]["dropped"]}
    for entry in data["cells"]:
        if entry["status"] != "measured" and not (entry["name"] in dropped and not entry["values"]):
            key = (entry["name"], f"{entry['status']}: {entry['reason']}")
            grouped.setdefault(key, []).append(entry["engine"])
    rows += [[name, ", ".join(peers), why] for (name, why), peers in grouped.items()]
    parts: List[Any] = [Table(["cell", "peers", "why"], rows)] if rows else [Text("Nothing was left out.")]
    return Section("Not measured", parts)


def claims(data: Json) -> Section:
    """The study's claims."""
    rows = [[c["claim"], c["verdict"], c["why"], ", ".join(c["cells"]),
             "; ".join(f"{s['where']} \"{s['text']}\" ({s['state']}): {s['says']}" for s in c["sources"])]
            for c in data["claims"]]
    return Section("The study's claims", [Table(["claim", "verdict", "why", "cells", "source"], rows)])


def decisions(data: Json) -> Section:
    """Which engine for which use, and why."""
    rows = [[d["use"], d["engine"] or "not measured",
             f"{value(d['value'], d['unit'])} {unit_name(d['unit'])}".strip() if d["engine"] else "",
             ", ".join(d["equal"]) or "-", d["why"], ", ".join(d["excluded"]) or "-", d["cell"]]
            for d in data["decisions"]]
    return Section("Which engine for which use", [
        Text("From the cells alone. An engine that does not promise what the use needs is excluded, "
             "however fast it is."),
        Table(["use", "best", "its figure", "no difference shown to", "ratios to the others",
               "excluded: promises less", "cell"], rows)])
