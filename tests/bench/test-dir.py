#!/usr/bin/env python3
"""kvdir: each phase on each layer does what it says, and says what it did."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

BIN = os.environ["KVFS_BINARY_DIR"] + "/bench/kvdir"
KVFS = os.environ["KVFS_BIN"]
ENGINE = os.environ.get("KVFS_TEST_ENGINE", "lmdb")
LAYERS = (["--layer=posix"], ["--layer=kvfs", f"--engine=log:{ENGINE}"])
SHAPES = ((["--files=60"], 60, 1), (["--branch=3", "--depth=2", "--items=4"], 52, 13))
folder = tempfile.mkdtemp(prefix="kvfs-dir-", dir=os.environ.get("TMPDIR", "/tmp"))


def kvdir(options, lines, status=0):
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    ran = subprocess.run([BIN, f"--dir={folder}", *options], input="\n".join(lines) + "\n",
                         capture_output=True, text=True, check=False)
    if ran.returncode != status:
        sys.exit(f"{options} {lines}: status {ran.returncode}: {ran.stderr}")
    if status != 0 and (ran.stderr.count("\n") != 1 or not ran.stderr.startswith("kvdir: ")):
        sys.exit(f"{options} {lines}: not one line: {ran.stderr!r}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def must(true, *what):
    if not true:
        sys.exit(" ".join(map(str, what)))


def names(layer):
    """All names below kvdir, by kind, without the tool's help."""
    if layer == LAYERS[0]:
        seen = [(path, entry) for path, folders, files in os.walk(folder + "/kvdir")
                for entry in folders + files]
        return sorted(entry for _, entry in seen)
    listed = subprocess.run([KVFS, "ls", "-R", "--json", folder, "kvdir"], check=True,
                            capture_output=True, text=True).stdout
    return sorted(os.path.basename(entry["path"]) for entry in json.loads(listed))


def whole(answer, line):
    latency = answer["latency_ns"]
    ops = answer["folders"] if answer["phase"] == "list" else answer["ops"]
    must(sum(count for _, count in latency["histogram"]) == ops, line, answer)
    must(0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"], line, latency)
    must(abs(answer["rate"] * answer["seconds"] - answer["ops"]) <= 0.01 * answer["ops"] + 1, line)
    must(answer["errors"] == 0 and answer["own_bytes_max"] > 0 and answer["cpu_seconds"] >= 0, line)
    changes = answer["phase"] not in ("stat", "read", "list")
    must((answer["rate_drained"] is not None) == changes, line)
    must(not changes or answer["drained"], line)


def phases():
    for layer in LAYERS:
        for shape, items, folders in SHAPES:
            lines = ["mktree"]
            for kind in ("dir", "file"):
                for sync in ("none", "end", "every"):
                    words = f"kind={kind} sync={sync} threads={2 if sync == 'end' else 1}"
                    lines += [f"{op} {words}" for op in
                              ("create", "stat", "read", "rename", "stat order=random", "remove")]
            lines += ["create", "list", "list repeat=3 threads=2 order=random", "rename", "rename",
                      "remove order=random threads=4", "rmtree sync=every"]
            answers = kvdir(layer + shape, lines)
            must(len(answers) == len(lines) + 1, layer, len(answers), len(lines))
            must(answers[0]["items"] == items and answers[0]["folders"] == folders, answers[0])
            for line, answer in zip(lines, answers[1:]):
                whole(answer, line)
                want = folders if "tree" in line else items
                if answer["phase"] == "list":
                    times = 3 if "repeat" in line else 1
                    must(answer["folders"] == times * folders, line, answer)
                    want = times * (items + folders - 1)
                must(answer["ops"] == want, line, answer["ops"], want)
                changes = answer["phase"] not in ("stat", "read", "list")
                flushes = 0 if not changes or "none" in line or "sync" not in line else \
                    1 if "sync=end" in line else want
                must(answer["flushes_acknowledged"] == flushes, line, answer)
            if layer == LAYERS[0]:
                must(os.listdir(folder) == [], "left:", os.listdir(folder))


def what_is_there():
    """Not only told, but done."""
    for layer in LAYERS:
        for shape, items, folders in SHAPES:
            tree = [f"t{node}" for node in range(1, folders)]
            for line, letter in (("create", "f"), ("create kind=dir", "d")):
                lines = ["mktree", line]
                want = sorted(tree + [f"{letter}{item:08}" for item in range(items)])
                kvdir(layer + shape, lines)
                must(names(layer) == want, layer, line, names(layer))
                lines.append(line.replace("create", "rename"))
                kvdir(layer + shape, lines)
                want = sorted(tree + [f"{chr(ord(letter) + 1)}{item:08}" for item in range(items)])
                must(names(layer) == want, layer, lines, names(layer))
                lines.append(line.replace("create", "remove"))
                kvdir(layer + shape, lines)
                must(names(layer) == sorted(tree), layer, lines, names(layer))
    answer = kvdir(["--layer=posix", "--branch=6", "--depth=3", "--items=8"], [])[0]
    must(answer["items"] == 2072 and answer["folders"] == 259, "mdtest's tree", answer)


def bad_input():
    for options in ([], ["--layer=posix", "--engine=lmdb"], ["--layer=kvfs"], ["--layer=x"],
                    ["--layer=posix", "--files=0"], ["--layer=posix", "--files=x"],
                    ["--layer=posix", "--branch=2"], ["--layer=posix", "--depth=2"],
                    ["--layer=posix", "--files=5", "--branch=2", "--items=1"],
                    ["--layer=posix", "--branch=1000", "--depth=8", "--items=1"],
                    ["--layer=posix", "--nonsense"], ["--layer=posix", "extra"]):
        kvdir(options, [], status=2)
    for line in ("nonsense", "create kind=link", "create threads=0", "create sync=often",
                 "create repeat=2", "mktree threads=2", "mktree order=random", "stat pattern=x"):
        kvdir(["--layer=posix"], [line], status=2)
    for layer in LAYERS:
        kvdir(layer, ["create"], status=1)
        kvdir(layer + ["--files=2"], ["mktree", "create", "create"], status=1)
    kvdir(["--layer=kvfs", "--engine=none"], [], status=1)
    ran = subprocess.run([BIN, "--layer=posix", f"--dir={folder}/none"], capture_output=True,
                         text=True, stdin=subprocess.DEVNULL, check=False)
    must(ran.returncode == 1 and ran.stderr.count("\n") == 1, ran)


def interrupted():
    for layer in LAYERS:
        shutil.rmtree(folder)
        os.mkdir(folder)
        with subprocess.Popen([BIN, f"--dir={folder}", *layer, "--files=10000000"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True) as p:
            p.stdin.write("mktree\ncreate\n")
            p.stdin.flush()
            p.stdout.readline()
            p.stdout.readline()
            p.send_signal(signal.SIGINT)
            _, said = p.communicate()
        must(p.returncode == -signal.SIGINT and said == "", p.returncode, said)
    must(subprocess.run([KVFS, "check", folder], check=False, capture_output=True).returncode == 0,
         "check")


try:
    phases()
    what_is_there()
    bad_input()
    interrupted()
finally:
    shutil.rmtree(folder, ignore_errors=True)
