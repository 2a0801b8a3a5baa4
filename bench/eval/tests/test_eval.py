"""Statistics, plan, interruptions and bad input of the evaluation; nothing is measured."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from typing import Any, Dict, List, Sequence, Tuple
from unittest import mock

from .. import cells, claims, cli, entries, judge, machine, modes, plan, report, results, run, selftest, sources, stats
from .. import timing, tuning as tuning_file
from ..drivers import Bench, Measured, kvload, synthetic

PROGRAM = os.path.join(machine.TOP, "bench", "eval.py")


def typed(*arguments: str) -> Tuple[int, str]:
    """Status and all output of a command, in this process."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        status = cli.main(list(arguments))
    return status, out.getvalue()


def started(folder: str, *more: str) -> "subprocess.Popen[str]":
    """A run of values without meaning, as a process."""
    return subprocess.Popen([sys.executable, "-B", PROGRAM, "--tiny", "--synthetic", "--rounds=6", "--out=" + folder,
                             *more], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_round(child: "subprocess.Popen[str]", number: int) -> None:
    """Until a round is done."""
    assert child.stderr
    for line in child.stderr:
        if f"round {number} done" in line:
            return
    raise AssertionError("it ended before")


def values(data: Dict[str, Any]) -> Dict[Tuple[str, str], List[float]]:
    """By cell and peer, in the order of rounds."""
    return {(c["name"], c["engine"]): [v for _, v in sorted(results.by_round(c).items())] for c in data["cells"]}


class Folder(unittest.TestCase):
    """With a folder that goes away."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.top = holder.name
        self.out = os.path.join(holder.name, "out")

    def load(self) -> Dict[str, Any]:
        """Results of `out`."""
        return results.load(os.path.join(self.out, "results.json"))


class Truth(unittest.TestCase):
    """Values whose truth is known."""

    def test_selftest(self) -> None:
        for check in selftest.CHECKS:
            with self.subTest(check.__name__):
                check()

    def test_interval_holds_the_median_as_often_as_it_says(self) -> None:
        draw = __import__("random").Random(1)
        for rounds, least in ((5, 0.90), (6, 0.94), (7, 0.94), (12, 0.94)):
            held = 0
            for trial in range(300):
                low, high = stats.interval([draw.gauss(0, 1) for _ in range(rounds)], trial)
                held += low <= 0 <= high
            self.assertGreater(held / 300, least, rounds)

    def test_few_rounds_have_no_verdict(self) -> None:
        self.assertEqual(stats.verdict(2, 3, True, 4), stats.UNKNOWN)

    def test_coarse_histogram_keeps_counts_and_bounds(self) -> None:
        fine = [[float(n), 1.0] for n in range(1, 5000)]
        coarse = entries.coarse(fine)
        self.assertEqual(sum(count for _, count in coarse), 4999)
        p99 = stats.histogram_percentile(coarse, 0.99) or 0
        self.assertTrue(4949 <= p99 <= 4949 * 1.13, p99)
        self.assertLess(len(coarse), 80)


class Plans(unittest.TestCase):
    """What fits and what is dropped."""

    def whole(self, name: str, engines: Sequence[str] = cells.KNOWN) -> plan.Plan:
        """A plan of everything."""
        mode = modes.MODES[name]
        return plan.fit(mode, cells.all_groups(mode, engines))

    def test_quick_and_full_fit(self) -> None:
        for name, limit in (("quick", 600), ("full", 7200), ("tiny", 60)):
            with self.subTest(name):
                self.assertLess(self.whole(name).seconds(), limit)

    def test_base_points_stay_and_what_goes_is_named(self) -> None:
        quick = self.whole("quick")
        names = {cell.name for _, cell in quick.cells()}
        for name in ("kvfs.write.random.4k.t4.f64", "kvfs.read.random.4k.t4", "recovery.total.nvme"):
            self.assertIn(name, names)
        everything = {c.name for g in cells.all_groups(quick.mode, cells.KNOWN) for c in g.cells}
        self.assertEqual(everything - names, {row["name"] for row in quick.dropped})
        self.assertTrue(quick.dropped)

    def test_dropped_in_order_of_priority(self) -> None:
        quick = self.whole("quick")
        groups = cells.all_groups(quick.mode, cells.KNOWN)
        by_name = {c.name: c.priority for g in groups for c in g.cells}
        for row in quick.dropped:  # not even beside those alone that came before it
            names = {c.name for _, c in quick.cells() if c.priority <= by_name[row["name"]]}
            names.add(row["name"])
            tight = plan.fit(replace(quick.mode, budget_seconds=1e9), [
                replace(g, cells=tuple(c for c in g.cells if c.name in names)) for g in groups])
            self.assertGreater(tight.seconds(), quick.mode.budget_seconds, row["name"])

    def test_log_engines_take_part(self) -> None:
        full, logs = self.whole("full"), {name for name in cells.KNOWN if name.startswith("log:")}
        for name in ("kvfs", "contract", "open-loop", "nbd", "sqlite", "interface", "resources-small"):
            group = next(g for g in full.groups if g.name == name)
            peers = {cells.peer_engine(p) for cell in group.cells for p in group.peers_of(cell)}
            self.assertLessEqual(logs, peers, name)

    def test_peers_that_a_smaller_plan_leaves_out_are_named(self) -> None:
        for name in ("quick", "full"):
            whole = self.whole(name)
            plan.narrow(whole, cells.left_out(whole.mode, cells.KNOWN))
            named = {(row["name"], peer) for row in whole.narrowed for peer in row["peers"]}
            everything = {(c.name, p) for g in cells.all_groups(replace(whole.mode, width=modes.ALL), cells.KNOWN)
                          for c in g.cells for p in g.peers_of(c) if "(again)" not in p}
            there = {(c.name, p) for g, c in whole.cells() for p in g.peers_of(c) if "(again)" not in p}
            dropped = {row["name"] for row in whole.dropped}
            self.assertEqual({pair for pair in everything - there if pair[0] not in dropped}, named)
            self.assertTrue(named)
            for row in whole.narrowed:
                self.assertIn("\n    " + row["name"], plan.text(whole).partition("  without ")[2])

    def test_names_are_unique_and_only_long_has_the_huge(self) -> None:
        for mode in modes.MODES.values():
            names = [c.name for g in cells.all_groups(mode, cells.KNOWN) for c in g.cells]
            self.assertEqual(len(names), len(set(names)), mode.name)
            self.assertEqual(mode.long, any("16g" in name or "flat1m" in name for name in names))

    def test_disk_is_that_of_the_largest_group(self) -> None:
        full = self.whole("full")
        self.assertGreaterEqual(full.disk_bytes(), max(plan.group_bytes(g) for g in full.groups))
        self.assertGreater(plan.group_bytes(full.groups[0]), len(cells.KNOWN) * full.mode.dataset_bytes)


class Runs(Folder):
    """The loop itself."""

    def runner(self, group: cells.Group, budget: float = 60, steal: Any = None) -> run.Runner:
        """Over a synthetic group."""
        mode = modes.mode_of("tiny", group.rounds or 5, budget)
        os.makedirs(self.out, exist_ok=True)
        whole = plan.Plan(mode, [group], [])
        data = results.empty({}, {}, whole.as_json(), [])
        run.prepare(whole, data, {"seed": 1, "git_commit": "c", "compiler_flags": "f"})
        return run.Runner(whole, Bench(self.out, self.out, mode, 1, {}), data, os.path.join(self.out, "results.json"),
                          run.Progress(lambda text: None, False), steal or selftest.Quiet())

    def test_order_is_random_within_a_round_and_rounds_interleave(self) -> None:
        runner = self.runner(synthetic.group(modes.mode_of("tiny", 6)))
        runner.run()
        orders = {}
        for cell in self.load()["cells"]:
            for visit in cell["visits"]:
                orders.setdefault((visit["round"], cell["name"]), {})[visit["order"]] = cell["engine"]
        self.assertGreater(len({tuple(sorted(o.items())) for o in orders.values()}), 3)
        times = sorted((v["start"], v["round"]) for c in self.load()["cells"] for v in c["visits"])
        self.assertEqual([number for _, number in times], sorted(number for _, number in times))

    def test_what_took_longer_than_planned_is_told(self) -> None:
        group = replace(synthetic.group(modes.mode_of("tiny", 5), cells=2, sleep=0.01), setup_seconds=0.5)
        self.runner(group).run()
        rows = {row[0]: row for row in timing.rows(self.load())}
        times = 5 * len(group.peers)
        stores = rows[f"making a store: {group.name}"]
        self.assertEqual((stores[1], stores[3]), (0.5, times))
        self.assertLess(stores[2], 0.5)
        for cell in group.cells:
            self.assertEqual((rows[cell.name][1], rows[cell.name][3]), (0.01, times))
            self.assertGreaterEqual(rows[cell.name][2], 0.01)

    def test_noisy_rounds_are_repeated_and_counted(self) -> None:
        shares = iter([0.5, 0.0] + [0.0] * 1000)
        steal = mock.Mock(mark=lambda: None, share=lambda: next(shares))
        runner = self.runner(synthetic.group(modes.mode_of("tiny", 5)), steal=steal)
        runner.run()
        data = self.load()
        self.assertEqual((data["rejected_rounds"], data["noisy_rounds"]), (1, 0))
        rejected = [v for c in data["cells"] for v in c["visits"] if v["rejected"]]
        self.assertEqual(len(rejected), 3)
        self.assertTrue(all(len(c["values"]) == 5 for c in data["cells"]))

    def test_a_round_that_is_rejected_is_in_no_histogram(self) -> None:
        for once in (False, True):
            group = synthetic.group(modes.mode_of("tiny", 5), cells=2)
            group = replace(group, cells=tuple(replace(c, once=once) for c in group.cells))
            shares = iter([0.5] + [0.0] * 1000)
            steal = mock.Mock(mark=lambda: None, share=lambda shares=shares: next(shares))
            self.runner(group, steal=steal).run()
            data = self.load()
            self.assertEqual((data["rejected_rounds"], data["noisy_rounds"]), (1, 0))
            for cell in data["cells"]:
                self.assertEqual(sum(count for _, count in cell["latency_histogram"]), 5 * 1000)
                self.assertEqual(len(cell["values"]), 5)
                self.assertFalse([v for v in cell["visits"] if "latency_histogram" in v])
            self.assertEqual(results.problems(data), [])

    def test_always_noisy_ends_and_says_so(self) -> None:
        steal = mock.Mock(mark=lambda: None, share=lambda: 0.5)
        self.runner(synthetic.group(modes.mode_of("tiny", 5), cells=2), steal=steal).run()
        data = self.load()
        self.assertEqual(data["noisy_rounds"], 10)
        self.assertEqual(data["cells"][0]["noisy_rounds"], 5)

    def test_a_peer_that_fails_is_said_and_others_go_on(self) -> None:
        self.runner(synthetic.group(modes.mode_of("tiny", 5), cells=2, peers=("same", "broken"))).run()
        data = self.load()
        self.assertEqual([c["status"] for c in data["cells"]], ["measured", "failed"] * 2)
        judge.finish(data, claims.TABLES)
        self.assertIn("planted failure", report.markdown.render("t", report.document(data)))

    def test_slower_than_planned_drops_by_name(self) -> None:
        group = synthetic.group(modes.mode_of("tiny", 5), cells=6)
        group = replace(group, cells=tuple(replace(c, seconds=0.9) for c in group.cells))
        runner = self.runner(group, budget=60)
        runner.run()
        dropped = [row["name"] for row in self.load()["plan"]["dropped"]]
        self.assertEqual(dropped, ["synthetic.5", "synthetic.4", "synthetic.3"][:len(dropped)][::-1]
                         if len(dropped) < 2 else sorted(dropped))
        self.assertTrue(dropped)
        self.assertNotIn("synthetic.0", dropped)


class Interrupted(Folder):
    """What is finished is kept."""

    def whole(self) -> Dict[Tuple[str, str], List[float]]:
        """Values of a run that was let alone."""
        folder = os.path.join(self.top, "alone")
        child = started(folder)
        child.communicate()
        return values(results.load(os.path.join(folder, "results.json")))

    def test_ctrl_c_then_resume(self) -> None:
        child = started(self.out)
        wait_round(child, 2)
        child.send_signal(signal.SIGINT)
        rest = child.communicate()[1]
        self.assertEqual(child.returncode, 130, rest)
        self.assertIn("--resume goes on", rest)
        before = self.load()
        self.assertFalse(before["complete"])
        self.assertTrue(os.path.exists(os.path.join(self.out, "report.html")))
        self.assertFalse(os.path.exists(os.path.join(self.out, "work")))
        self.resumed(before)

    def test_kill_then_resume(self) -> None:
        child = started(self.out)
        wait_round(child, 2)
        child.kill()
        child.communicate()
        before = self.load()
        self.assertGreaterEqual(min(len(v) for v in values(before).values()), 2)
        self.resumed(before)

    def resumed(self, before: Dict[str, Any]) -> None:
        """It ends as one that was let alone, and what was there has not been measured again."""
        child = started(self.out, "--resume")
        child.communicate()
        self.assertEqual(child.returncode, 0)
        after = self.load()
        self.assertTrue(after["complete"])
        self.assertEqual(values(after), self.whole())
        for old, new in zip(before["cells"], after["cells"]):
            self.assertEqual(old["visits"], new["visits"][:len(old["visits"])])
        self.assertGreater(after["elapsed_seconds"], before["elapsed_seconds"])


class BadInput(Folder):
    """Said in one line, before anything is done."""

    def refused(self, status: int, text: str, *arguments: str) -> None:
        """The command is refused with a line that has the text."""
        found, out = typed(*arguments)
        last = out.strip().splitlines()[-1]
        self.assertEqual(found, status, out)
        self.assertIn(text, last)
        self.assertTrue(last.startswith("bench/eval.py: "), out)

    def run_once(self) -> None:
        """A run into `out`."""
        self.assertEqual(typed("--tiny", "--synthetic", "--out=" + self.out)[0], 0)

    def test_unknown_option(self) -> None:
        self.refused(2, "--fast", "--fast")
        self.refused(2, "--nosuch", "report", "--nosuch")
        self.refused(2, "not allowed with", "--quick", "--long")
        self.refused(2, "a number from 1", "--rounds=x")

    def test_unknown_engine_and_cell(self) -> None:
        self.refused(2, "there is no engine nosuch", "--engines=nosuch", "--out=" + self.out)
        self.refused(2, "no cell is called so", "--tiny", "--synthetic", "--only=nosuch", "--out=" + self.out)

    def test_unwritable_folder(self) -> None:
        path = os.path.join(self.top, "file")
        with open(path, "wb"):
            pass
        self.refused(1, "cannot be written", "--tiny", "--synthetic", f"--out={path}/sub")
        self.refused(1, "cannot be written", "--tiny", "--synthetic", "--out=" + self.out, f"--dir={path}")

    def test_too_little_disk(self) -> None:
        with mock.patch.object(cli, "free_bytes", lambda folder: 1 << 20):
            self.refused(1, "64.0 MiB are needed, 1.0 MiB are free", "--tiny", "--synthetic", "--out=" + self.out)
        self.assertFalse(os.path.exists(os.path.join(self.out, "results.json")))

    def test_no_build(self) -> None:
        self.refused(1, "no build there", "--tiny", "--build=" + self.top, "--out=" + self.out)

    def test_engine_not_built_is_said_and_in_the_report(self) -> None:
        status, out = typed("--tiny", "--synthetic", "--engines=lmdb,jammdb", "--build=" + self.top, "--out=" + self.out)
        self.assertEqual(status, 0)
        self.assertIn("not built: jammdb", out)
        with open(os.path.join(self.out, "report.md"), encoding="utf-8") as file:
            self.assertIn("not built: jammdb", file.read())

    def test_results_are_not_overwritten(self) -> None:
        self.run_once()
        self.refused(1, "--resume goes on", "--tiny", "--synthetic", "--out=" + self.out)
        self.refused(1, "had another seed", "--tiny", "--synthetic", "--seed=9", "--resume", "--out=" + self.out)

    def test_older_newer_and_broken_results(self) -> None:
        self.run_once()
        path = os.path.join(self.out, "results.json")
        whole = self.load()
        for change, text in (({"schema": 0}, "an older format"), ({"schema": 99}, "a newer format"),
                             ({"schema": "kvfs-bench-nbd/1", "format": None}, "before schema 1"),
                             ({"cells": 3}, "cells is of another type"), ({"machine": None}, "machine is of another")):
            with open(path, "w", encoding="utf-8") as file:
                json.dump({**whole, **change}, file)
            with self.subTest(text):
                self.refused(1, text, "report", self.out)
                self.refused(1, text, "--tiny", "--synthetic", "--resume", "--out=" + self.out)
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"schema": 1, "cel')
        self.refused(1, "no JSON", "check", self.out)
        os.unlink(path)
        self.refused(1, "No such file", "check", self.out)

    def test_a_value_that_no_visit_has_is_found(self) -> None:
        self.run_once()
        data = self.load()
        data["cells"][0]["values"][0] += 1
        self.assertIn("values are not those of its visits", results.problems(data)[0])


def entry(name: str, engine: str, numbers: Sequence[float], better: str = "higher", **extra: Any) -> Dict[str, Any]:
    """A cell of a peer with these values."""
    cell = cells.Cell(name, {}, 0, 0, better=better)
    group = cells.Group("g", "synthetic", "throughput", "contract", 0, (engine,), 0, (cell,))
    new = entries.new_entry(group, cell, engine, {"seed": 1, "git_commit": "", "compiler_flags": ""}, [])
    for number, amount in enumerate(numbers, 1):
        visit = entries.visit_of(number, 0, 0, 0, 0, Measured(amount, {k: v[number - 1] for k, v in extra.items()}))
        entries.accept(new, visit, Measured(amount), cell)
    entries.close(new, len(numbers))
    return new


class Claims(unittest.TestCase):
    """From cells to verdicts."""

    def judged(self, *found: Dict[str, Any]) -> Dict[str, str]:
        """Verdict of each claim."""
        data = results.empty({"cpus": 2}, {}, {"dropped": []}, [])
        data["cells"] = list(found)
        self.rows = {row["claim"]: row for row in claims.judge_all(data)}
        self.data = data
        return {claim: row["verdict"] for claim, row in self.rows.items()}

    def test_nothing_measured_nothing_judged(self) -> None:
        self.assertEqual(set(self.judged().values()), {claims.UNKNOWN})

    def test_ratio_claim(self) -> None:
        claim = "JammDB is 35 to 38 % faster than Sled in concurrent writes at 64 threads"
        sled = entry(claims.WRITE64, "sled", [100, 101, 99, 100, 102])
        for factor, verdict in ((1.37, claims.CONFIRMED), (1.1, claims.REFUTED), (0.5, claims.REFUTED)):
            jammdb = entry(claims.WRITE64, "jammdb", [v * factor for v in sled["values"]])
            self.assertEqual(self.judged(sled, jammdb)[claim], verdict, factor)
        self.assertEqual(self.judged(sled, jammdb)["JammDB reaches 12K ops/s there"], claims.UNKNOWN)

    def test_recovery_is_judged_by_time(self) -> None:
        claim = "Sled recovers twice as fast thanks to its CRC"
        jammdb = entry(claims.RECOVER, "jammdb", [100] * 5, "lower")
        for time, verdict in ((40, claims.CONFIRMED), (90, claims.REFUTED), (400, claims.REFUTED)):
            sled = entry(claims.RECOVER, "sled", [time] * 5, "lower")
            self.assertEqual(self.judged(sled, jammdb)[claim], verdict, time)
        self.assertEqual(self.judged(sled, jammdb)["Sled for recovery"], claims.REFUTED)

    def test_interface_table_ends_with_sqlite(self) -> None:
        costs = {"engine_us": [100] * 5, "kvfs": [105] * 5, "vfs": [111] * 5, "sql": [150] * 5}
        table = report.interface_percent([entry(claims.INTERFACE, "log:lmdb", [111] * 5, "lower", **costs)])
        self.assertEqual([cell.split(" [")[0] for cell in table.rows[0]],
                         ["log:lmdb", "100 us", "+5.0 %", "+11.0 %", "+50.0 %"])
        self.assertEqual(len(table.head), 5)

    def test_layer_cost(self) -> None:
        costs = {"engine_us": [100] * 5, "vfs": [111, 111, 111, 111, 111], "kvfs": [105] * 5}
        found = self.judged(entry(claims.INTERFACE, "log:lmdb", [111] * 5, "lower", **costs))
        self.assertEqual([found[f"the SQLite layer costs under {n} %"] for n in (10, 12, 15)],
                         [claims.REFUTED, claims.CONFIRMED, claims.CONFIRMED])

    def test_promise(self) -> None:
        found = self.judged(entry(claims.PROMISE, "jammdb", [3], "lower"), entry(claims.PROMISE, "sled", [0], "lower"))
        self.assertEqual(found["JammDB keeps what it acknowledged"], claims.REFUTED)
        self.assertEqual(found["Sled keeps what it acknowledged"], claims.UNKNOWN)

    def test_structure_has_a_source_and_a_cell(self) -> None:
        found = self.judged(entry(claims.READ64, "jammdb", [200] * 5), entry(claims.READ1, "jammdb", [100] * 5),
                            entry(claims.WARM_READ, "sled", [9] * 5))
        for claim in ("JammDB's reads scale because it is lock-free", "Sled's cache is ARC"):
            self.assertEqual(found[claim], claims.REFUTED)
            self.assertTrue(self.rows[claim]["sources"] and self.rows[claim]["cells"], claim)

    def test_cited_lines_say_what_is_cited(self) -> None:
        for name, row in sources.citations().items():
            if sources.crate_folder(row["crate"]) is None:
                self.skipTest(f"{row['crate']} is not here")
            self.assertTrue(sources.check(row), name)
            self.assertFalse(sources.check({**row, "line": row["line"] + 1}), name)

    def test_decision_leaves_out_the_careless(self) -> None:
        cell = "kvfs.write.random.4k.t4.f64"
        fast, slow = entry(cell, "sled", [200] * 5), entry(cell, "lmdb", [100] * 5)
        for row, weaker in ((fast, True), (slow, False)):
            row["durability"] = {"promised": "durable", "declared": "", "weaker": weaker}
        self.judged(fast, slow)
        row = next(d for d in claims.decide_all(self.data) if d["cell"] == cell)
        self.assertEqual((row["engine"], row["excluded"]), ("lmdb", ["sled"]))

    def test_no_ratio_between_layers_of_names(self) -> None:
        one, other = entry("d", "lmdb", [1] * 5), entry("d", "ext4@kernel", [2] * 5)
        for row, layer in ((one, "library"), (other, "kernel")):
            row.update(workload="directories", layer=layer)
        self.assertIsNone(judge.ratio(one, other))


class Tuning(unittest.TestCase):
    """tuning.json keeps its word."""

    def test_every_engine_has_the_same_cache(self) -> None:
        tuning = tuning_file.load_tuning()
        self.assertEqual(set(tuning["engines"]), set(cells.PLAIN))
        for name, row in tuning["engines"].items():
            parts = row["cache_bytes"]
            bounded = [amount for amount in parts.values() if amount is not None]
            if bounded:
                self.assertEqual(sum(bounded), tuning["cache_bytes"], name)
                self.assertEqual(row["params"], f"cache-bytes={next(iter(parts.values()))}", name)
            else:
                self.assertTrue(all("page cache" in what for what in parts) and not row["params"], name)

    def test_an_entry_has_what_its_engine_is_opened_with(self) -> None:
        tuning = tuning_file.load_tuning()
        sled = tuning["engines"]["sled"]["params"]
        for peer, workload, params in (("sled", "throughput", sled), ("log:sled", "throughput", sled),
                                       ("vfs:log:sled", "sqlite", sled), ("sled@direct", "throughput", sled),
                                       ("sled", "recovery", ""), ("lmdb", "throughput", ""), ("raw@raw", "throughput", ""),
                                       ("stock:wal-full", "sqlite", "")):
            group = cells.Group("g", "kvload", workload, "kvfs", 0, (peer,), 0, ())
            new = entries.new_entry(group, cells.Cell("c", {"op": "read"}, 0, 0), peer,
                                    {"seed": 1, "git_commit": "", "compiler_flags": "", "tuning": tuning}, [])
            self.assertEqual(new["params"], {"op": "read", "engine_params": params}, peer)
            if workload != "recovery":
                self.assertEqual(tuning_file.params_of(tuning, cells.peer_engine(peer)), params)


class Lines(unittest.TestCase):
    """What kvload is told and what it tells."""

    def test_phase_line(self) -> None:
        cell = cells.load("x", 0, modes.FULL, "mix", read=50, pattern="zipfian", rmw=1)
        self.assertEqual(kvload.phase_line(cell.params), "load op=mix read=50 rmw=1 pattern=zipfian threads=4 flush=64 "
                                                         "seconds=0.8 warmup=0.2")

    def test_open_loop_offers_a_share_of_the_closed_loop_of_its_round(self) -> None:
        peak, cell = cells.open_loop(modes.FULL, "write", "w", 1)
        asked = []

        def answer(line: str, _seconds: float) -> Dict[str, Any]:
            asked.append(line)
            return {"rate": 1000.0 * len(asked), "latency_ns": {"p99": 5, "histogram": []}}
        session = kvload.KvloadSession.__new__(kvload.KvloadSession)
        session.rates, session.opened = {}, {}
        session.ask = answer  # type: ignore[method-assign]
        session.visit(peak, 1)                            # 1000
        found = session.visit(cell, 1)
        self.assertEqual((len(asked), found.extra["peak"], found.extra["offered"]), (2, 1000.0, 700))
        self.assertEqual(found.value, 5)
        self.assertIn("rate=700", asked[-1])
        found = session.visit(cell, 2)                    # of another round: 3000 is measured first
        self.assertEqual((len(asked), found.extra["peak"], found.extra["offered"]), (4, 3000.0, 2100))

    def test_value_is_the_drained_rate(self) -> None:
        found = kvload.measured({"rate": 10.0, "rate_drained": 7.0, "latency_ns": {"p50": 1, "histogram": [[1, 2]]}})
        self.assertEqual((found.value, found.extra["rate"], found.latency), (7.0, 10.0, [[1, 2]]))


if __name__ == "__main__":
    unittest.main()
