"""Child processes: one that answers lines, one that runs to its end.

Children are sessions of their own, so Ctrl-C reaches only us and we end them in order; if we are
killed the kernel ends them.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import time
from typing import Any, Dict, Optional, Sequence

from .base import Failed

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def _dies_with_us() -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def start(command: Sequence[str], **more: Any) -> "subprocess.Popen[bytes]":
    """A child that does not outlive us."""
    try:
        return subprocess.Popen(list(command), start_new_session=True, preexec_fn=_dies_with_us,
                                **more)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error


def end(child: "subprocess.Popen[bytes]", seconds: float = 10) -> None:
    """Ask it to end, and make it."""
    if child.poll() is None:
        child.terminate()
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream:
            stream.close()


def last_line(text: bytes) -> str:
    """What a program said last."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"


def run(command: Sequence[str], timeout: float = 600, env: Optional[Dict[str, str]] = None,
        statuses: Sequence[int] = (0,)) -> bytes:
    """Standard output of a program; Failed with its last line of error."""
    child = start(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                  env=env)
    name = os.path.basename(command[0])
    try:
        out, err = child.communicate(timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{name} did not end in {timeout:.0f} s") from error
    finally:
        end(child, 2)
    if child.returncode not in statuses:
        raise Failed(f"{name}: exit status {child.returncode}: {last_line(err or out)}")
    return out


class Lines:
    """A program that answers each line of its input with one line."""

    def __init__(self, command: Sequence[str], errors: str, **more: Any):
        self.name = os.path.basename(command[0])
        self.errors = errors
        with open(errors, "wb") as log:
            self.child = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                               bufsize=0, **more)
        self.rest = b""

    def read(self, seconds: float) -> str:
        """The next line; Failed if it ends or takes longer."""
        assert self.child.stdout
        until = time.monotonic() + seconds
        while b"\n" not in self.rest:
            wait = until - time.monotonic()
            if wait <= 0 or not select.select([self.child.stdout], [], [], wait)[0]:
                raise Failed(f"{self.name} gave no answer in {seconds:.0f} s")
            chunk = os.read(self.child.stdout.fileno(), 1 << 20)
            if not chunk:
                raise Failed(self.why())
            self.rest += chunk
        line, self.rest = self.rest.split(b"\n", 1)
        return line.decode()

    def why(self) -> str:
        """How it ended."""
        status = self.child.wait()
        with open(self.errors, "rb") as log:
            return f"{self.name}: exit status {status}: {last_line(log.read())}"

    def ask(self, line: str, seconds: float) -> str:
        """One line there, one line back."""
        assert self.child.stdin
        try:
            self.child.stdin.write(line.encode() + b"\n")
        except OSError as error:
            raise Failed(self.why()) from error
        return self.read(seconds)

    def close(self) -> None:
        """End of input, then the end of the program."""
        if self.child.stdin:
            try:
                self.child.stdin.close()
            except OSError:
                pass
        try:
            self.child.wait(20)
        except subprocess.TimeoutExpired:
            pass
        end(self.child)
