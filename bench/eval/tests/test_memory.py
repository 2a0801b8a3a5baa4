"""The memory limit: on cgroups that are files of a test, and for real where one can be set."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
from dataclasses import replace
from typing import Any, Dict, Iterator, List, Optional
from unittest import mock

from .. import cells, entries, machine, modes, plan, report, results, run, selftest
from ..drivers import Bench, Failed, memory, resources

MIB = 1 << 20
BUILD = os.environ.get("KVFS_BINARY_DIR", "")
FILES = {2: ("cgroup.procs", "cgroup.subtree_control", "memory.max", "memory.swap.max", "memory.peak", "memory.stat"),
         1: ("cgroup.procs", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max_usage_in_bytes",
             "memory.stat")}


class Fake:
    """A tree of folders that behaves like a cgroup file system, as far as is needed."""

    def __init__(self, version: int, own: str):
        holder = tempfile.TemporaryDirectory()
        self.close = holder.cleanup
        self.top, self.version = holder.name, version
        self.root = os.path.join(self.top, "cgroup")
        self.mkdir(self.root)
        path = self.root
        for part in own.strip("/").split("/"):
            path = os.path.join(path, part)
            self.mkdir(path)
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
        self.write("mounts", f"proc /proc proc rw 0 0\ncgroup {self.root} {kind} {options} 0 0\n")
        self.write("own", f"0::{own}\n" if version == 2 else f"4:memory:{own}\n0::/\n")

    def write(self, name: str, text: str) -> str:
        """A file of the test."""
        path = os.path.join(self.top, name)
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return path

    def mkdir(self, path: str, _mode: int = 0o777) -> None:
        """A group, which has its files from the beginning."""
        MKDIR(path)
        for name in FILES[self.version] + (("cgroup.controllers",) if self.version == 2 else ()):
            with open(os.path.join(path, name), "w", encoding="ascii") as file:
                file.write("memory" if name in ("cgroup.controllers", "cgroup.subtree_control") else "")

    def rmdir(self, path: str) -> None:
        """Of a group without children."""
        if any(os.path.isdir(os.path.join(path, name)) for name in os.listdir(path)):
            raise OSError(16, "busy", path)
        for name in os.listdir(path):
            os.unlink(os.path.join(path, name))
        RMDIR(path)

    @contextlib.contextmanager
    def mounted(self) -> Iterator[None]:
        """As if it were this machine's."""
        with mock.patch.object(memory, "MOUNTS", self.top + "/mounts"), \
                mock.patch.object(memory, "OWN", self.top + "/own"), \
                mock.patch.object(memory.os, "mkdir", self.mkdir), mock.patch.object(memory.os, "rmdir", self.rmdir):
            yield

    def groups(self) -> List[str]:
        """Of evaluations, anywhere."""
        return [os.path.join(top, name) for top, names, _ in os.walk(self.root) for name in names
                if name.startswith(memory.PREFIX)]


MKDIR, RMDIR = os.mkdir, os.rmdir


def text(path: str) -> str:
    """Of a file."""
    with open(path, encoding="ascii") as file:
        return file.read().strip()


class Files(unittest.TestCase):
    """What is written where."""

    def fake(self, version: int, own: str = "/a/b") -> Fake:
        """One for this test."""
        found = Fake(version, own)
        self.addCleanup(found.close)
        return found

    def test_both_versions(self) -> None:
        for version, (limit, swap, swap_text) in ((2, ("memory.max", "memory.swap.max", "0")),
                                                  (1, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "64"))):
            fake = self.fake(version)
            with fake.mounted():
                made = memory.Limit(64)
                self.assertEqual(os.path.dirname(made.path), os.path.join(fake.root, "a", "b"))
                self.assertEqual((text(f"{made.path}/{limit}"), text(f"{made.path}/{swap}")), ("64", swap_text))
                subprocess.run(made.wrap() + ["true"], check=True)
                self.assertTrue(text(made.path + "/cgroup.procs").isdigit())
                os.truncate(made.path + "/cgroup.procs", 0)
                made.close()
                self.assertEqual(fake.groups(), [])

    def test_numbers(self) -> None:
        for version, peak, stat in ((2, "memory.peak", "anon 1\nfile 5\ninactive_file 7\n"),
                                    (1, "memory.max_usage_in_bytes", "cache 1\nrss 2\ntotal_cache 5\n")):
            fake = self.fake(version)
            with fake.mounted():
                made = memory.Limit(64)
                for name, content in ((peak, "60\n"), ("memory.stat", stat), ("cgroup.procs", "")):
                    with open(os.path.join(made.path, name), "w", encoding="ascii") as file:
                        file.write(content)
                self.assertEqual(made.numbers(), {"limit_bytes": 64, "limit_peak_bytes": 60, "limit_page_cache_bytes": 5})
                self.assertFalse(made.killed())
                name = "memory.events" if version == 2 else "memory.oom_control"
                with open(os.path.join(made.path, name), "w", encoding="ascii") as file:
                    file.write("oom 3\noom_kill 1\n")
                self.assertTrue(made.killed())
                made.close()

    def test_own_group_has_processes_so_one_further_up_is_taken(self) -> None:
        fake = self.fake(2)
        for group in ("a", "a/b"):
            with open(f"{fake.root}/{group}/cgroup.subtree_control", "w", encoding="ascii") as file:
                file.write("")
        real = memory._write

        def write(path: str, content: str) -> None:
            if path.endswith("a/b/cgroup.subtree_control"):
                raise OSError(16, "busy", path)
            real(path, content)
        with fake.mounted(), mock.patch.object(memory, "_write", write):
            made = memory.Limit(64)
            self.assertEqual(os.path.dirname(made.path), os.path.join(fake.root, "a"))
            self.assertEqual(text(f"{fake.root}/a/cgroup.subtree_control"), "+memory")
            os.truncate(made.path + "/cgroup.procs", 0)
            made.close()

    def test_without_rights_it_says_so_and_leaves_nothing(self) -> None:
        for version, refused in ((2, "mkdir"), (1, "mkdir"), (2, "memory.max"), (1, "memory.limit_in_bytes"),
                                 (2, "memory.swap.max"), (2, "move")):
            fake = self.fake(version)
            real = memory._write

            def write(path: str, content: str, refused: str = refused) -> None:
                if path.endswith(refused):
                    raise PermissionError(13, "Permission denied", path)
                real(path, content)
            patches: List[Any] = [mock.patch.object(memory, "_write", write)]
            if refused == "mkdir":
                patches.append(mock.patch.object(memory.os, "mkdir", side_effect=PermissionError(13, "Permission denied", "x")))
            if refused == "move":
                patches.append(mock.patch.object(memory.Limit, "wrap", lambda self: ["false"]))
            with self.subTest(f"{version} {refused}"), fake.mounted(), contextlib.ExitStack() as stack:
                for patch in patches:
                    stack.enter_context(patch)
                self.assertRegex(memory.impossible() or "", "no memory limit can be set here .*(denied|moved)")
                self.assertEqual(fake.groups(), [])

    def test_no_controller(self) -> None:
        fake = self.fake(2)
        fake.write("mounts", "proc /proc proc rw 0 0\n")
        with fake.mounted():
            self.assertIn("no cgroup file system", memory.impossible() or "")

    def test_groups_of_the_dead_are_removed_and_no_others(self) -> None:
        fake = self.fake(1)
        dead = subprocess.Popen(["true"])
        dead.wait()
        with fake.mounted():
            for name in (f"{dead.pid}-1", "1-7", "x"):
                fake.mkdir(os.path.join(fake.root, "a", "b", memory.PREFIX + name))
            memory.Limit(64).close()
            self.assertEqual(sorted(os.path.basename(path) for path in fake.groups()),
                             [memory.PREFIX + "1-7", memory.PREFIX + "x"])


def group_of(limit: Optional[int], data: int) -> cells.Group:
    """A resources group of one cell with a limit."""
    cell = cells.Cell("memory.limited", {"memory": limit, "seconds": 0.2}, 0, 1, promised="durable", once=True)
    return cells.Group("memory", "resources", "resources", "kvfs", data, ("lmdb",), 0, (cell,),
                       {"data_bytes": data, "timed": True}, rounds=1, side_by_side=False)


class Holder(unittest.TestCase):
    """With a folder for an evaluation of one group."""

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR"))
        self.addCleanup(holder.cleanup)
        self.top = holder.name

    def run_group(self, group: cells.Group) -> Dict[str, Any]:
        """Through the runner; the entry of its cell."""
        mode = modes.mode_of("tiny", 1, 600)
        whole = plan.Plan(mode, [group], [])
        data = results.empty({}, {}, whole.as_json(), [])
        run.prepare(whole, data, {"seed": 1, "git_commit": "c", "compiler_flags": "f"})
        path = os.path.join(self.top, "results.json")
        run.Runner(whole, Bench(BUILD, self.top, mode, 1, {}), data, path, run.Progress(lambda text: None, False),
                   selftest.Quiet()).run()  # type: ignore[arg-type]
        self.assertEqual(results.problems(results.load(path)), [])
        self.data = data
        return data["cells"][0]

    def test_a_cell_that_cannot_be_limited_says_so(self) -> None:
        with mock.patch.object(memory, "MOUNTS", "/dev/null"):
            found = self.run_group(group_of(64 * MIB, MIB))
        self.assertEqual(found["status"], "impossible")
        self.assertIn("no memory limit can be set here", found["reason"])
        self.data.update(claims=[], decisions=[], machine={})
        self.assertIn("no memory limit can be set here", report.markdown.render("t", [report.not_measured(self.data)]))


@unittest.skipUnless(os.geteuid() == 0 and os.path.exists(os.path.join(BUILD, "bench/kvload")), "needs root and a build")
@unittest.skipIf(memory.impossible(), f"{memory.impossible()}")
class Real(Holder):
    """A store on a loop device, by a process under a limit."""

    LIMIT = 16 * MIB

    def setUp(self) -> None:
        super().setUp()
        self.assertEqual(self.left(), [])

    @staticmethod
    def left() -> List[str]:
        """Groups of this process."""
        return [os.path.join(parent, name) for _, parent in memory._parents() for name in os.listdir(parent)
                if name.startswith(f"{memory.PREFIX}{os.getpid()}-")]

    def test_the_limit_holds_and_page_cache_counts(self) -> None:
        found = self.run_group(group_of(self.LIMIT, 4 * self.LIMIT))
        self.assertEqual((found["status"], found["reason"]), ("measured", ""))
        visit = found["visits"][0]
        self.assertEqual(visit["limit_bytes"], self.LIMIT)
        self.assertLessEqual(visit["limit_peak_bytes"], self.LIMIT)
        self.assertGreater(visit["limit_peak_bytes"], self.LIMIT * 0.9)    # data is four times that: it is used up
        self.assertGreater(visit["limit_page_cache_bytes"], self.LIMIT / 4)
        self.assertGreater(visit["read_rate"], 0)
        self.assertEqual(self.left(), [])
        text_ = report.markdown.render("t", [report.Section("x", report.details("memory", [found]))])
        self.assertIn("most memory, with page cache", text_)
        self.assertIn("16.0 MiB", text_)

    def test_a_limit_that_is_too_small_is_said(self) -> None:
        found = self.run_group(group_of(2 * MIB, 8 * MIB))
        self.assertEqual(found["status"], "failed")
        self.assertIn("did not get along with 2 MiB", found["reason"])
        self.assertEqual(self.left(), [])

    def test_ctrl_c_leaves_no_group_no_mount_and_no_loop_device(self) -> None:
        script = ("import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
                  "from eval.tests import test_memory as t; import unittest.mock as m\n"
                  "case = t.Holder('test_a_cell_that_cannot_be_limited_says_so'); case.setUp(); print(case.top, flush=True)\n"
                  "ask = t.resources.KvloadSession.ask\n"
                  "def told(self, line, seconds):\n"
                  "    print(line.split()[0], flush=True); return ask(self, line, seconds)\n"
                  "try:\n"
                  "    with m.patch.object(t.resources.KvloadSession, 'ask', told):\n"
                  "        case.run_group(t.group_of(64 << 20, 1 << 30))\n"
                  "except KeyboardInterrupt:\n"
                  "    sys.exit(130)\n"
                  "finally:\n"
                  "    case.doCleanups()\n")
        child = subprocess.Popen([sys.executable, "-B", "-c", script], stdout=subprocess.PIPE, text=True,
                                 cwd=os.path.join(machine.TOP, "bench"))
        assert child.stdout
        top = child.stdout.readline().strip()
        self.assertEqual(child.stdout.readline().strip(), "fill")
        groups = [os.path.join(parent, name) for _, parent in memory._parents() for name in os.listdir(parent)
                  if name.startswith(f"{memory.PREFIX}{child.pid}-")]
        self.assertEqual(len(groups), 1)
        self.assertTrue(text(groups[0] + "/cgroup.procs"))
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        self.assertEqual(child.returncode, 130)
        self.assertFalse(os.path.exists(groups[0]))
        self.assertFalse(os.path.exists(top))
        with open("/proc/mounts", encoding="ascii") as file:
            self.assertNotIn(top, file.read())
        loops = json.loads(subprocess.run(["losetup", "--json", "--list"], stdout=subprocess.PIPE, check=True).stdout or "{}")
        self.assertFalse([loop for loop in loops.get("loopdevices", []) if top in loop["back-file"]])


if __name__ == "__main__":
    unittest.main()
