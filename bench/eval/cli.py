"""The command line: run, report, check, timing, compare, selftest."""

from __future__ import annotations

import argparse
import fnmatch
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from typing import Any, Dict, List, NoReturn, Optional, Sequence, Tuple

from . import cells, claims, judge, machine, modes, plan, report, results, selftest, timing
from .drivers import DRIVERS, Bench, synthetic
from .run import Progress, Runner, free_bytes, prepare
from .tuning import load_tuning

USAGE = """./bootstrap bench [OPTION...]
       bench/eval.py [run] [OPTION...]
       bench/eval.py report|check|timing DIR
       bench/eval.py compare DIR DIR
       bench/eval.py selftest"""


class Refused(Exception):
    """What was asked for cannot be done; said in one line.  2: wrongly typed, 1: not possible."""

    def __init__(self, text: str, status: int = 1):
        super().__init__(text)
        self.status = status


class Parser(argparse.ArgumentParser):
    """One that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message} (--help says more)", 2)


def parser() -> Parser:
    """Options of a run."""
    new = Parser(
        prog="bench/eval.py", usage=USAGE, allow_abbrev=False,
        description="Measure every engine beside the others: plan, run, judge, report. "
                    "docs/EVALUATION.md tells the method.")
    size = new.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_const", const="quick", dest="mode",
                      help="less than 10 minutes: the base points and a few axes")
    size.add_argument("--long", action="store_const", const="long", dest="mode",
                      help="days: 16 GiB, 1,000,000 files, all presets")
    size.add_argument("--tiny", action="store_const", const="tiny", dest="mode",
                      help="a minute: only that it works; no figure means anything")
    new.add_argument("--engines", help="names with commas between (default: all)")
    new.add_argument("--out", default="kvfs-evaluation",
                     help="folder of results and report (kvfs-evaluation); stores lie in it too")
    new.add_argument("--dir", help="folder on the medium to measure (default: --out)")
    new.add_argument("--resume", action="store_true", help="go on with the run in --out")
    new.add_argument("--only", action="append", metavar="PATTERN",
                     help="only cells whose name matches the shell pattern; again for more")
    new.add_argument("--rounds", type=positive, default=0, help="repetitions of each cell (from 1)")
    new.add_argument("--budget", type=positive, default=0, metavar="SECONDS",
                     help="drop cells until the rest fits")
    new.add_argument("--seed", type=positive, default=1, help="of keys, data and orders (1)")
    new.add_argument("--plan", action="store_true", help="print the plan and end")
    new.add_argument("--build", default=os.path.join(machine.TOP, "build", "release"),
                     help="a build tree (build/release)")
    new.add_argument("--check-options", action="store_true", help=argparse.SUPPRESS)
    new.add_argument("--synthetic", action="store_true", help=argparse.SUPPRESS)
    new.set_defaults(mode="full")
    return new


def positive(text: str) -> int:
    """A number from 1."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10 ** 9:
        raise argparse.ArgumentTypeError(f"{text}: a number from 1 is wanted")
    return int(text)


def wanted_engines(text: Optional[str]) -> List[str]:
    """The engines asked for, or all."""
    if text is None:
        return list(cells.KNOWN)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        base = name.replace("hybrid:", "").split("+")[0].split(":")[-1]
        if base not in cells.PLAIN:
            raise Refused(f"--engines: there is no engine {name} (known are {', '.join(cells.KNOWN)})", 2)
    if not names:
        raise Refused("--engines: no engine is named", 2)
    return list(dict.fromkeys(names))


def writable_folder(path: str, what: str) -> str:
    """An existing or new folder in which files can be made."""
    path = os.path.abspath(path)
    try:
        os.makedirs(path, exist_ok=True)
        probe = os.path.join(path, f".probe-{os.getpid()}")
        with open(probe, "wb"):
            pass
        os.unlink(probe)
    except OSError as error:
        raise Refused(f"{what}={path}: cannot be written: {error.strerror}") from error
    return path


def could_write(path: str, what: str) -> None:
    """The same, looking only."""
    place = os.path.abspath(path)
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place) or not os.access(place, os.W_OK):
        raise Refused(f"{what}={path}: cannot be written: {place} is no folder, or not ours")


def check_options(options: argparse.Namespace) -> int:
    """What can be said before anything is built or installed, and without a change."""
    mode = modes.mode_of(options.mode)
    groups_of(options, mode, wanted_engines(options.engines))
    could_write(options.out, "--out")
    could_write(options.dir or options.out, "--dir")
    if options.resume and not os.path.exists(results_path(options.out)):
        raise Refused(f"--resume: there is no run in {options.out}")
    return 0


def groups_of(options: argparse.Namespace, mode: modes.Mode, engines: Sequence[str]) -> List[cells.Group]:
    """All groups for the engines, or those asked for."""
    if options.synthetic:
        groups = [synthetic.group(mode, sleep=0.02)]
    else:
        groups = cells.all_groups(mode, engines)
    if options.only:
        groups = [replace(g, cells=tuple(c for c in g.cells if any(
            fnmatch.fnmatch(c.name, pattern) for pattern in options.only))) for g in groups]
        if not any(g.cells for g in groups):
            raise Refused(f"--only={' '.join(options.only)}: no cell is called so (--plan names them)", 2)
    return [g for g in groups if g.cells]


def split_possible(groups: Sequence[cells.Group], bench: Bench) -> Tuple[List[cells.Group], List[cells.Group],
                                                                      List[Dict[str, str]]]:
    """Groups that can run here, those that cannot, and why."""
    can, cannot, why = [], [], []
    for group in groups:
        reason = DRIVERS[group.driver](bench).impossible(group) if group.driver in DRIVERS \
            else f"there is no driver {group.driver}"
        if reason:
            cannot.append(group)
            why += [{"name": cell.name, "reason": reason} for cell in group.cells]
        else:
            can.append(group)
    return can, cannot, why


def common_of(options: argparse.Namespace) -> Dict[str, Any]:
    """What every cell carries."""
    return {"seed": options.seed, "git_commit": machine.git_commit(),
            "compiler_flags": machine.compiler_flags(options.build), "tuning": load_tuning()}


def settings_of(options: argparse.Namespace, mode: modes.Mode) -> Dict[str, Any]:
    """What a resumed run must have in common with the one before."""
    return {"mode": mode.name, "rounds": mode.rounds, "seed": options.seed,
            "engines": options.engines, "only": options.only, "tuning": load_tuning()}


def start_data(options: argparse.Namespace, path: str, fresh: Dict[str, Any]) -> Dict[str, Any]:
    """The results to go on with, or empty ones."""
    if not os.path.exists(path):
        if options.resume:
            raise Refused(f"--resume: there is no run in {os.path.dirname(path)}")
        return fresh
    try:
        old = results.load(path)
    except results.Bad as error:
        raise Refused(str(error)) from error
    if not options.resume:
        raise Refused(f"{path} is there: --resume goes on with it, another --out begins anew")
    for key, value in fresh["settings"].items():
        if old["settings"].get(key) != value:
            raise Refused(f"--resume: the run in {os.path.dirname(path)} had another {key}: "
                          f"{old['settings'].get(key)}")
    commits = {cell["git_commit"] for cell in old["cells"] if cell["values"]}
    if commits - {machine.git_commit()}:
        raise Refused(f"--resume: the run was of commit {sorted(commits)[0]}, this tree is another")
    old["complete"] = False
    return old


def make_plan(options: argparse.Namespace, engines: Sequence[str], bench: Bench) -> Tuple[
        plan.Plan, List[cells.Group], List[Dict[str, str]]]:
    """The plan, what is impossible here, and why."""
    mode = bench.mode
    can, cannot, why = split_possible(groups_of(options, mode, engines), bench)
    fitting = plan.fit(mode, can)
    if not options.synthetic:
        plan.narrow(fitting, cells.left_out(mode, engines))
    return fitting, cannot, why


def show_engines(rows: Sequence[Dict[str, Any]]) -> None:
    """Those that are not built are said first."""
    for row in rows:
        if not row["built"]:
            print(f"not built: {row['name']} (./bootstrap packages; docs/ENGINES.md)")


def resume_plan(whole: plan.Plan, data: Dict[str, Any]) -> None:
    """Cells that the run before dropped stay dropped."""
    dropped = {row["name"] for row in data["plan"]["dropped"]}
    whole.groups = [replace(g, cells=tuple(c for c in g.cells if c.name not in dropped))
                    for g in whole.groups]


def run(options: argparse.Namespace) -> int:
    """Plan, measure, report."""
    if options.check_options:
        return check_options(options)
    wanted = wanted_engines(options.engines)
    options.build = os.path.abspath(options.build)
    mode = modes.mode_of(options.mode, options.rounds, options.budget)
    built = machine.engines(options.build)
    rows = machine.engine_report(wanted, built)
    if not built and not options.synthetic:
        raise Refused(f"{options.build}: no build there; ./bootstrap bench makes one, or "
                      "cmake --preset release && cmake --build --preset release")
    show_engines(rows)
    engines = [row["name"] for row in rows if row["built"]]
    if not engines and not options.synthetic:
        raise Refused("none of the engines asked for is built")
    out = os.path.abspath(options.out) if options.plan else writable_folder(options.out, "--out")
    base = out if options.dir is None else writable_folder(options.dir, "--dir")
    work = os.path.join(base, "work")
    bench = Bench(options.build, work, mode, options.seed, load_tuning())
    whole, cannot, why = make_plan(options, engines, bench)
    print(plan.text(whole, why), flush=True)
    if options.plan:
        return 0
    path = os.path.join(out, "results.json")
    data = start_data(options, path, results.empty(
        machine.describe(base), settings_of(options, mode), whole.as_json(), rows))
    if options.resume:
        resume_plan(whole, data)
    need, free = whole.disk_bytes(), free_bytes(base)
    if need > free:
        raise Refused(f"{base}: too little disk: {plan.size(need)} are needed, {plan.size(free)} are "
                      "free (fewer --engines need less, --dir=DIR is another medium)")
    common = common_of(options)
    prepare(plan.Plan(mode, whole.groups + cannot, []), data, common)
    mark_impossible(data, why)
    return measure(whole, bench, data, path)


def mark_impossible(data: Dict[str, Any], why: Sequence[Dict[str, str]]) -> None:
    """Cells that cannot be measured here say so."""
    reasons = {row["name"]: row["reason"] for row in why}
    for cell in data["cells"]:
        if cell["name"] in reasons:
            cell.update(status="impossible", reason=reasons[cell["name"]])


def interrupt(number: int, _frame: Any) -> None:
    """SIGTERM is like Ctrl-C."""
    del number
    raise KeyboardInterrupt


def measure(whole: plan.Plan, bench: Bench, data: Dict[str, Any], path: str) -> int:
    """The run, and the report of whatever was finished."""
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    shutil.rmtree(bench.work, ignore_errors=True)
    os.makedirs(bench.work)
    progress = Progress(lambda text: (sys.stderr.write(text), sys.stderr.flush())[0],
                        sys.stderr.isatty())
    runner = Runner(whole, bench, data, path, progress)
    status = 0
    try:
        runner.run()
    except KeyboardInterrupt:
        progress.line("interrupted: what is finished is kept, --resume goes on")
        status = 130
    except OSError as error:
        progress.line(f"bench/eval.py: {error}")
        status = 1
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    judge.finish(data, claims.TABLES)
    results.save(path, data)
    written = report.write(data, os.path.dirname(path))
    print(f"{plan.duration(time.monotonic() - runner.began)} used; "
          + ", ".join([path, *written]))
    return status


def results_path(argument: str) -> str:
    """A results file, or the one in a folder."""
    return os.path.join(argument, "results.json") if os.path.isdir(argument) else argument


def command_report(arguments: Sequence[str]) -> int:
    """Judge and write again from results.json."""
    for argument in arguments:
        path = results_path(argument)
        data = results.load(path)
        judge.finish(data, claims.TABLES)
        print("\n".join(report.write(data, os.path.dirname(os.path.abspath(path)))))
    return 0


def command_check(arguments: Sequence[str]) -> int:
    """Is it a results file of this format?"""
    for argument in arguments:
        data = results.load(results_path(argument))
        print(f"{argument}: schema {data['schema']}, {len(data['cells'])} cells of peers, "
              f"{'complete' if data['complete'] else 'not complete'}")
    return 0


def command_timing(arguments: Sequence[str]) -> int:
    """What took longer than planned?"""
    for argument in arguments:
        print(timing.text(results.load(results_path(argument))))
    return 0


def command_compare(arguments: Sequence[str]) -> int:
    """How two evaluations agree."""
    if len(arguments) != 2:
        raise Refused("compare: two folders are wanted", 2)
    found = judge.agreement(*(results.load(results_path(a)) for a in arguments))
    print(f"{found['ratios']} ratios, {100 * found['overlapping']:.1f} % of the intervals overlap "
          f"(90 % wanted), {found['only_in_one']} in one only")
    for name, mean in found["group_means"].items():
        print(f"  {name:20} geometric mean {mean:.3f} of the first{'' if 1 / 1.15 <= mean <= 1.15 else '  BEYOND 15 %'}")
    for name in found["apart"]:
        print(f"  apart: {name}")
    print("they agree" if found["agree"] else "they do not agree")
    return 0 if found["agree"] else 1


def main(arguments: Sequence[str]) -> int:
    """Status: 0 done, 1 cannot be done, 2 wrongly typed, 130 interrupted."""
    others = {"report": command_report, "check": command_check, "timing": command_timing,
              "compare": command_compare,
              "selftest": selftest.command}
    try:
        if arguments and arguments[0] in others:
            rest = list(arguments[1:])
            if "--help" in rest or "-h" in rest:
                parser().print_help()
                return 0
            if any(word.startswith("-") for word in rest):
                raise Refused(f"{arguments[0]}: unknown option {rest[0]}", 2)
            if not rest and arguments[0] != "selftest":
                raise Refused(f"{arguments[0]}: which folder?", 2)
            return others[arguments[0]](rest)
        return run(parser().parse_args([a for a in arguments if a != "run"]))
    except (Refused, results.Bad) as error:
        print(f"bench/eval.py: {error}", file=sys.stderr)
        return getattr(error, "status", 1)
    except BrokenPipeError:
        return 1
