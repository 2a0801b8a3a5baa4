"""The run: rounds of all cells of a group, peers in random order, side by side in time.

In each round every peer gets a fresh store, or goes on with its own where the group keeps stores;
then each cell goes round its peers before the next begins.  A round of a cell in which others took more than 2 % of the CPU is repeated.  After each
round of a cell the results are written, so nothing that is finished can be lost.
"""

from __future__ import annotations

import os
import random
import time
from dataclasses import replace
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from . import entries, results
from .cells import Cell, Group
from .drivers import DRIVERS, Bench, Driver, Failed, Measured, Session
from .machine import Steal
from .plan import OVERHEAD, REPORT_SECONDS, Plan, cell_seconds, duration, fit, group_seconds
from .results import Json

STEAL_MAX = 0.02
REPEATS = 2          # of a noisy round of a cell
OPENS_FAILED_MAX = 2  # in a row, then a peer is left alone for the rest of its group

Visit = Tuple[Json, Optional[Measured]]


class Progress:
    """Where the run is, and the time left; on one line of a terminal, else a line a round."""

    def __init__(self, write: Callable[[str], None], terminal: bool):
        self.write, self.terminal = write, terminal

    def cell(self, text: str) -> None:
        """A cell begins."""
        if self.terminal:
            self.write(f"\r\x1b[K{text}")

    def line(self, text: str) -> None:
        """Something that stays."""
        self.write(("\r\x1b[K" if self.terminal else "") + text + "\n")


class Runner:
    """One run over a plan, new or resumed."""

    def __init__(self, plan: Plan, bench: Bench, data: Json, path: str, progress: Progress,
                 steal: Optional[Steal] = None):
        self.plan, self.bench, self.data, self.path, self.progress = plan, bench, data, path, progress
        self.drivers: Dict[str, Driver] = {}
        self.entries = {(e["name"], e["engine"]): e for e in data["cells"]}
        self.before = data["elapsed_seconds"]
        self.began = time.monotonic()
        self.steal = steal or Steal()
        self.planned_done = 0.0   # estimated seconds of what was done in this process
        self.failed_opens: Dict[str, int] = {}
        self.kept: Dict[str, Session] = {}  # of a group that keeps its stores

    # --- time -------------------------------------------------------------------------------

    def elapsed(self) -> float:
        """Of all processes that worked on these results."""
        return self.before + time.monotonic() - self.began

    def slowness(self) -> float:
        """Measured time beside estimated time."""
        if self.planned_done < 5:
            return 1.0
        return min(10.0, max(0.3, (time.monotonic() - self.began) / self.planned_done))

    def left(self, rest: Sequence[Group]) -> float:
        """Seconds to go, as it looks now."""
        return self.slowness() * sum(group_seconds(g, self.plan.mode) for g in rest) + REPORT_SECONDS

    def shorten(self, rest: List[Group]) -> List[Group]:
        """Drop what no longer fits, in the plan's order."""
        budget = (self.plan.mode.budget_seconds - self.elapsed()) / self.slowness()
        names = {cell.name for group in rest for cell in group.cells}
        shorter = fit(replace(self.plan.mode, budget_seconds=budget), rest)
        kept = {cell.name for group in shorter.groups for cell in group.cells}
        for name in sorted(names - kept):
            self.drop(name)
        return [replace(group, cells=tuple(c for c in group.cells if c.name in kept))
                for group in rest]

    def drop(self, name: str) -> None:
        """Say that a cell is not run (further) for want of time."""
        reason = "dropped while running: slower than planned"
        self.data["plan"]["dropped"].append({"name": name, "reason": reason})
        for (cell, _), entry in self.entries.items():
            if cell == name and entry["status"] in ("not run", "partial"):
                entry["reason"] = reason

    # --- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """All groups; raises KeyboardInterrupt after what was open is closed and saved."""
        rest = list(self.plan.groups)
        try:
            while rest:
                rest = self.shorten(rest)
                group = rest[0]
                self.group(group, rest)
                rest = rest[1:]
            self.data["complete"] = True
        finally:
            self.save()

    def save(self) -> None:
        """Write what there is."""
        self.data["elapsed_seconds"] = round(self.elapsed(), 1)
        results.save(self.path, self.data)

    def driver(self, name: str) -> Driver:
        """One a run."""
        if name not in self.drivers:
            self.drivers[name] = DRIVERS[name](self.bench)
        return self.drivers[name]

    def impossible(self, group: Group) -> bool:
        """Mark what cannot be measured here; whether that is all."""
        driver = self.driver(group.driver)
        whole = driver.impossible(group)
        for cell in group.cells:
            for peer in group.peers_of(cell):
                why = whole or driver.cell_impossible(group, cell, peer)
                if why:
                    self.entries[cell.name, peer].update(status="impossible", reason=why)
        return bool(whole)

    def peers(self, group: Group, cell: Cell) -> List[str]:
        """Those that can run a cell."""
        return [p for p in group.peers_of(cell)
                if self.entries[cell.name, p]["status"] != "impossible"]

    def done(self, group: Group, cell: Cell, number: int) -> bool:
        """Whether a round of a cell is in the results."""
        return all(entries.has_round(self.entries[cell.name, p], number)
                   for p in self.peers(group, cell))

    def group(self, group: Group, rest: List[Group]) -> None:
        """All rounds of a group.  Changes `rest` when time runs short."""
        if not group.cells or self.impossible(group):
            return
        rounds = group.rounds or self.plan.mode.rounds
        self.failed_opens = {}
        try:
            self.rounds(group, rounds, rest)
        finally:
            for session in self.kept.values():
                session.close()
            self.kept = {}
        self.repeat_once_cells(group, rest)
        for cell in group.cells:
            for peer in self.peers(group, cell):
                entries.close(self.entries[cell.name, peer], rounds)

    def rounds(self, group: Group, rounds: int, rest: List[Group]) -> None:
        """One after the other, those that are there already left out."""
        setup = True
        for number in range(1, rounds + 1):
            cells = [c for c in rest[0].cells if not self.done(group, c, number)]
            if cells:
                self.round(group, cells, number, rest)
                one = replace(group, cells=tuple(cells), rounds=1)
                self.planned_done += group_seconds(one, self.plan.mode, setup)
                setup = not group.keep_stores
            if number < rounds:
                now = replace(rest[0], rounds=rounds - number)
                rest[:] = [replace(g, rounds=group.rounds) if g.name == group.name else g
                           for g in self.shorten([now] + rest[1:])]

    def round(self, group: Group, cells: Sequence[Cell], number: int, rest: List[Group],
              again: bool = False) -> None:
        """Cells of one round."""
        peers = sorted({p for cell in cells for p in self.peers(group, cell)})
        shuffle = random.Random(f"{self.bench.seed} {group.name} {number} {again}")
        batches = [peers] if group.side_by_side else [[p] for p in shuffle.sample(peers, len(peers))]
        for batch in batches:
            sessions: Dict[str, Session] = self.kept if group.keep_stores else {}
            errors: Dict[str, str] = {}
            try:
                for peer in shuffle.sample(batch, len(batch)):
                    if peer not in sessions:
                        self.tell(group, number, f"making {peer}", rest)
                        self.open(group, peer, number, sessions, errors)
                for cell in cells:
                    self.tell(group, number, cell.name, rest)
                    order = [p for p in self.peers(group, cell) if p in batch]
                    shuffle.shuffle(order)
                    self.cell_round(cell, number, order, sessions, errors, again)
                    self.save()
            finally:
                if not group.keep_stores:
                    for session in sessions.values():
                        session.close()
        if not self.progress.terminal:
            self.progress.line(f"{group.name}: round {number} done, "
                               f"{duration(self.left(rest))} left")

    def tell(self, group: Group, number: int, what: str, rest: Sequence[Group]) -> None:
        """Progress and time left."""
        self.progress.cell(f"{duration(self.left(rest))} left  {group.name} "
                           f"round {number}/{group.rounds or self.plan.mode.rounds}  {what}")

    def open(self, group: Group, peer: str, number: int, sessions: Dict[str, Session],
             errors: Dict[str, str]) -> None:
        """A store for a peer, or the reason why not."""
        if self.failed_opens.get(peer, 0) >= OPENS_FAILED_MAX:
            errors[peer] = "its store could not be opened in the rounds before"
            return
        clock = time.monotonic()
        try:
            sessions[peer] = self.driver(group.driver).open(group, peer, number)
            self.failed_opens[peer] = 0
            self.data.setdefault("setup_seconds", {}).setdefault(group.name, []).append(
                round(time.monotonic() - clock, 3))
        except (Failed, OSError) as error:
            errors[peer] = str(error)
            self.failed_opens[peer] = self.failed_opens.get(peer, 0) + 1
            self.progress.line(f"{group.name}, {peer}: {error}")

    def visit(self, cell: Cell, number: int, place: int, peer: str, sessions: Dict[str, Session],
              errors: Dict[str, str]) -> Visit:
        """One visit; a failure ends the peer's session for this round."""
        start, clock, steal = time.time(), time.monotonic(), Steal()
        found = None
        if peer in sessions:
            try:
                found = sessions[peer].visit(cell, number)
            except (Failed, OSError) as error:
                errors[peer] = f"{error} (in {cell.name})"
                self.progress.line(f"{peer}: {errors[peer]}")
                sessions.pop(peer).close()
        return entries.visit_of(number, place, start, time.monotonic() - clock, steal.share(), found,
                                "" if found else errors.get(peer, "no store")), found

    def cell_round(self, cell: Cell, number: int, order: Sequence[str],
                   sessions: Dict[str, Session], errors: Dict[str, str], again: bool) -> None:
        """One round of one cell: all peers, repeated while others took the CPU."""
        for attempt in range(REPEATS + 1):
            self.steal.mark()
            visits = {peer: self.visit(cell, number, place, peer, sessions, errors)
                      for place, peer in enumerate(order)}
            noisy = self.steal.share() > STEAL_MAX
            last = cell.once or attempt == REPEATS or \
                self.elapsed() > self.plan.mode.budget_seconds
            if not noisy or last:
                break
            self.data["rejected_rounds"] += 1
            for peer, (visit, _) in visits.items():
                visit["rejected"] = True
                self.entries[cell.name, peer]["visits"].append(visit)
        self.keep(cell, number, visits, noisy, again)

    def keep(self, cell: Cell, number: int, visits: Dict[str, Visit], noisy: bool,
             again: bool) -> None:
        """The visits of a round go into their entries, in the place of noisier ones."""
        if again and noisy:
            self.data["rejected_rounds"] += 1
        elif noisy:
            self.data["noisy_rounds"] += 1
        elif again:
            self.data["noisy_rounds"] -= 1
            self.data["rejected_rounds"] += 1
        for peer, (visit, found) in visits.items():
            entry = self.entries[cell.name, peer]
            if again and noisy:
                entry["visits"].append({**visit, "rejected": True})
                continue
            if again:
                self.forget(entry, number)
            visit["noisy"] = noisy
            entry["noisy_rounds"] += 1 if noisy else 0
            entries.accept(entry, visit, found, cell)

    def forget(self, entry: Json, number: int) -> None:
        """A noisy round is replaced by a quiet one."""
        for visit in entry["visits"]:
            if visit["round"] == number and not visit["rejected"]:
                entries.reject(entry, visit)

    def repeat_once_cells(self, group: Group, rest: List[Group]) -> None:
        """Noisy rounds of cells that a store can do only once get a store of their own."""
        once = [cell for cell in rest[0].cells if cell.once and group.side_by_side]
        repeats = 0
        for cell in once:
            for number in range(1, (group.rounds or self.plan.mode.rounds) + 1):
                noisy = any(v.get("noisy") and v["round"] == number and not v["rejected"]
                            for p in self.peers(group, cell)
                            for v in self.entries[cell.name, p]["visits"])
                cost = cell_seconds(group, cell, self.plan.mode) + OVERHEAD * group.setup_seconds * len(group.peers)
                if noisy and repeats < REPEATS and self.left(rest[1:]) + cost + self.elapsed() < \
                        self.plan.mode.budget_seconds:
                    repeats += 1
                    self.round(group, [cell], number, rest, again=True)
        if repeats:
            self.save()


def prepare(plan: Plan, data: Json, common: Json) -> None:
    """Entries for every cell and peer of the plan that are not there yet."""
    there = {(e["name"], e["engine"]) for e in data["cells"]}
    for group, cell in plan.cells():
        for peer in group.peers_of(cell):
            if (cell.name, peer) not in there:
                data["cells"].append(entries.new_entry(group, cell, peer, common, data["engines"]))


def free_bytes(folder: str) -> int:
    """What can be written there."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
