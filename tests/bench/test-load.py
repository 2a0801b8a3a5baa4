#!/usr/bin/env python3
"""kvload: every combination answers whole and right; bad input is one line and the right status.

What a number is, is judged only where something was planted that bounds it from below.
"""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile

BIN = os.environ["KVFS_BINARY_DIR"] + "/bench/kvload"
BYTES = 1 << 19
BLOCKS = BYTES // 4096
MEMBERS = {"phase", "ops", "seconds", "rate", "rate_drained", "drain_seconds", "drained", "errors",
           "missed", "latency_ns", "cpu_seconds", "context_switches", "own_bytes_max",
           "file_bytes_max", "flushes_acknowledged", "device", "cold", "durable"}
folder = tempfile.mkdtemp(prefix="kvfs-load-", dir=os.environ.get("TMPDIR", "/tmp"))
done = 0


def kvload(options, lines, status=0):
    shutil.rmtree(folder, ignore_errors=True)
    os.mkdir(folder)
    ran = subprocess.run([BIN, f"--dir={folder}", *options], input="\n".join(lines) + "\n",
                         capture_output=True, text=True, check=False)
    if ran.returncode != status:
        sys.exit(f"{options} {lines}: status {ran.returncode}: {ran.stderr}")
    if status != 0 and (ran.stderr.count("\n") != 1 or not ran.stderr.startswith("kvload: ")):
        sys.exit(f"{options} {lines}: not one line: {ran.stderr!r}")
    return [json.loads(line) for line in ran.stdout.splitlines()]


def must(true, *what):
    global done
    done += 1
    if not true:
        sys.exit(" ".join(map(str, what)))


def whole(answer, line):
    """A load's answer has all it should, and its numbers fit one another."""
    must(MEMBERS - answer.keys() == set(), line, "lacks", MEMBERS - answer.keys())
    latency = answer["latency_ns"]
    must(sum(count for _, count in latency["histogram"]) == answer["ops"] + answer["missed"],
         line, answer)
    must(0 < latency["p50"] <= latency["p99"] <= latency["p999"] <= latency["max"], line, latency)
    must(answer["ops"] > 0 and answer["errors"] == 0 and answer["seconds"] > 0, line, answer)
    must(abs(answer["rate"] * answer["seconds"] - answer["ops"]) <= 0.01 * answer["ops"] + 1,
         line, answer)
    must(answer["own_bytes_max"] > 0 and answer["file_bytes_max"] > 0, line, answer)
    if answer["rate_drained"] is not None:
        must(answer["drained"] and answer["rate_drained"] <= answer["rate"] * 1.001, line, answer)


def every_combination(layer, batches):
    """Each flush, pattern, order, op and request size."""
    lines = [f"fill order={order} flush={flush} threads={threads}"
             for order in ("random", "sequential") for flush in (0, 1, 64) for threads in (1, 4)]
    lines += [f"load op={op} pattern={pattern} flush={flush} threads=2 seconds=0.02 warmup=0"
              for op in ("read", "write", "mix rmw=1", "mix read=95")
              for pattern in ("random", "sequential", "zipfian")
              for flush in ((64,) if op == "read" else (0, 1, 64))]
    lines += [f"load op={op} block=64K threads=2 seconds=0.02 warmup=0.01"
              for op in ("read", "write")]
    lines += ["load op=read cold=1 seconds=0.02 warmup=0", "load op=write drain=0 seconds=0.02"]
    lines += ["load op=read threads=64 seconds=0.05 warmup=0", "reopen", "space", "delete",
              "compact", "space", "load op=read seconds=0.02 warmup=0", "fill", "space", "quit"]
    options = layer + [f"--bytes={BYTES}"]
    answers = kvload(options, lines)
    must(len(answers) == len(lines), layer, "answered", len(answers), "of", len(lines))
    for line, answer in zip(lines, answers[1:]):
        must(answer["phase"] == line.split()[0], line, answer)
        if answer["phase"] not in ("fill", "load"):
            continue
        whole(answer, line)
        words = dict(word.split("=") for word in line.split()[1:])
        flush = int(words.get("flush", 64))
        if answer["phase"] == "fill":
            must(answer["ops"] == BLOCKS, line, answer["ops"])
            least = BLOCKS // flush - (0 if batches else 3 * (flush > 1)) if flush else 0
            must(answer["flushes_acknowledged"] in range(least, least + 4 if flush else 1)
                 if not batches or not flush else
                 answer["flushes_acknowledged"] == BLOCKS // flush, line,
                 answer["flushes_acknowledged"])
        elif words["op"] == "read" or flush == 0:
            must(answer["flushes_acknowledged"] == 0, line, answer["flushes_acknowledged"])
        elif words["op"] == "write" and flush == 1:
            must(answer["flushes_acknowledged"] == answer["ops"], line, answer)
        must((answer["cold"] is not None) == ("cold" in words), line, answer["cold"])
        must((answer["rate_drained"] is None) == (words.get("op") == "read" or "drain" in words),
             line)
    spaces = [a for a in answers if a["phase"] == "space"]
    must(spaces[0]["allocated_bytes"] >= BYTES and spaces[0]["dataset_bytes"] == BYTES, spaces)
    return spaces


def stall():
    """An open loop shows a pause in all that had to wait; a closed one in a single operation."""
    line = "load op=read threads=1 seconds=0.5 warmup=0 stall=200"
    answers = kvload(["--layer=raw", f"--bytes={BYTES}"], [
        "fill flush=0", line + " rate=1000", line, line.replace("stall=200", "rate=1000"),
        line.replace("stall=200", "rate=50000000")])
    for answer in answers[2:]:
        whole(answer, line)
    paused, closed, steady, beyond = answers[2:]
    # 200 of 500 were due during the pause: of those, evenly late, 195 by more than 5 ms.
    late = sum(count for upper, count in paused["latency_ns"]["histogram"] if upper > 5_000_000)
    must(late >= 190, "open loop: only", late, "were late")
    must(paused["latency_ns"]["p99"] > 150_000_000, paused["latency_ns"])
    must(paused["ops"] + paused["missed"] == 500, paused["ops"], paused["missed"])
    must(closed["latency_ns"]["max"] >= 200_000_000, closed["latency_ns"]["max"])
    late = sum(count for upper, count in closed["latency_ns"]["histogram"] if upper > 195_000_000)
    must(late == 1, "closed loop:", late, "took as long as the pause")
    must(steady["ops"] + steady["missed"] == 500, steady["ops"])
    must(beyond["missed"] > 0, "50 million a second were reached")


def compression():
    for data, least, most in (("half", 0.47, 0.53), ("random", 0.99, 1.01)):
        kvload(["--layer=raw", f"--bytes={8 * BYTES}", f"--data={data}"], ["fill flush=0"])
        packed = subprocess.run(["zstd", "-q", "-c", f"{folder}/raw"], capture_output=True,
                                check=True).stdout
        ratio = len(packed) / (8 * BYTES)
        must(least < ratio < most, data, "data compresses to", ratio)


def device():
    """What a loop device of the test's own was given: where one can be had."""
    image, mount = folder + ".img", folder + ".mnt"
    with open(image, "wb") as file:
        file.truncate(128 << 20)
    loop = subprocess.run(["losetup", "-f", "--show", image], capture_output=True, text=True,
                          check=False).stdout.strip()
    mounted = False
    try:
        os.mkdir(mount)
        mounted = loop != "" and all(
            subprocess.run(command, check=False, capture_output=True).returncode == 0
            for command in (["mkfs.ext4", "-q", loop], ["mount", loop, mount]))
        if not mounted:
            print("no loop device of our own: the device's counters are not judged")
            return
        os.mkdir(mount + "/store")
        ran = subprocess.run([BIN, "--layer=raw", f"--bytes={BYTES}", f"--dir={mount}/store",
                              f"--device={loop}"], capture_output=True, text=True, check=True,
                             input="fill flush=0\nfill flush=1 threads=1\nload op=read\n")
        written, flushed, read = (json.loads(line)["device"]
                                  for line in ran.stdout.splitlines()[1:])
        # ext4's journal comes on top.
        must(BYTES <= written["written"] <= 3 * BYTES, written)
        must(BYTES <= flushed["written"] and flushed["flushes"] >= BLOCKS, flushed)
        must(read["written"] < BYTES // 4 and read["flushes"] < 10, read)
    finally:
        if mounted:
            subprocess.run(["umount", mount], check=True)
        if loop != "":
            subprocess.run(["losetup", "-d", loop], check=True)
        os.rmdir(mount)
        os.remove(image)


def bad_input():
    good = ["--layer=raw", f"--bytes={BYTES}"]
    for options in ([], ["--layer=raw"], ["--layer=none", "--bytes=4096"],
                    ["--layer=contract", "--bytes=4096"], good + ["--engine=lmdb"],
                    good + ["--block=5000"], good + ["--block=512"], good + ["--bytes=4097"],
                    good + ["--bytes=-1"], good + ["--data=some"], good + ["--seed=x"],
                    good + ["--device=/dev/nothing"], good + ["--device=/etc/passwd"],
                    good + ["--nonsense"], good + ["extra"],
                    ["--layer=direct", "--engine=mem", "--bytes=4096"],
                    ["--layer=contract", "--engine=lmdb,nonsense=1", "--bytes=4096"]):
        kvload(options, [], status=2)
    for line in ("nonsense", "quit now", "fill order=zipfian", "fill rate=5", "fill threads=0",
                 "fill threads=1000", "load", "load op=erase", "load op=read pattern=none",
                 "load op=read seconds=-1", "load op=read seconds=nan", "load op=mix read=101",
                 "load op=read block=5000", "load op=read block=2M", "load op=read rate=1",
                 "load op=read threads", "x" * 5000):
        kvload(good, [line], status=2)
    kvload(["--layer=contract", "--engine=none", "--bytes=4096"], [], status=1)
    ran = subprocess.run([BIN, "--dir=/proc/nothing", *good], capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, check=False)
    must(ran.returncode == 1 and ran.stderr.count("\n") == 1, ran)
    open(f"{folder}/mine", "w", encoding="utf-8").close()
    ran = subprocess.run([BIN, f"--dir={folder}", *good], capture_output=True, text=True,
                         stdin=subprocess.DEVNULL, check=False)
    must(ran.returncode == 1 and os.listdir(folder) == ["mine"], ran)


def interrupted():
    """SIGINT, during a load and between two: the store is closed, and the signal is seen."""
    for line in ("load op=write seconds=60 warmup=0", ""):
        shutil.rmtree(folder)
        os.mkdir(folder)
        with subprocess.Popen([BIN, f"--dir={folder}", "--layer=kvfs", f"--engine={ENGINE}",
                               f"--bytes={BYTES}"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as p:
            p.stdout.readline()
            p.stdin.write(line + "\n")
            p.stdin.flush()
            p.send_signal(signal.SIGINT)
            _, said = p.communicate()
        must(p.returncode == -signal.SIGINT and said == "", p.returncode, said)
        check = subprocess.run([os.environ["KVFS_BIN"], "check", folder], check=False,
                               capture_output=True)
        must(check.returncode == 0, check)


ENGINE = os.environ.get("KVFS_TEST_ENGINE", "lmdb")
try:
    every_combination(["--layer=raw"], False)
    every_combination(["--layer=contract", f"--engine={ENGINE}"], True)
    every_combination(["--layer=kvfs", f"--engine=log:{ENGINE}"], False)
    stall()
    compression()
    if os.geteuid() == 0:
        device()
    bad_input()
    interrupted()
finally:
    shutil.rmtree(folder, ignore_errors=True)
print(done, "assertions")
