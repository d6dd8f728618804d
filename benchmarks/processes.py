"""A program and all its children, timed, with the memory that they hold together.

Memory is the proportional set size (PSS): what several processes share counts once in the sum.
It is read ten times a second from ``/proc/PID/smaps_rollup`` (Linux only).
"""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PERIOD_S = 0.1


@dataclass(frozen=True)
class Measured:
    """How a program ended; ``peak_pss_bytes`` is the largest sum over its processes, ``cpu_s`` the
    processor time of all: where others are at work as well, it says more than ``seconds``."""

    returncode: int
    stdout: str
    stderr: str
    seconds: float
    peak_pss_bytes: int
    n_samples: int
    cpu_s: float = 0.0


def run_measured(
    command: Sequence[str], *, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> Measured:
    """Run a program to its end."""
    began, used_s = time.perf_counter(), children_s()
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, env=env, cwd=cwd, text=True, stdout=pipe, stderr=pipe
    ) as program:
        sampler = _Sampler(program.pid)
        sampler.start()
        stdout, stderr = program.communicate()
        seconds = time.perf_counter() - began
        sampler.stop()
    return Measured(
        program.returncode,
        stdout,
        stderr,
        seconds,
        sampler.peak_bytes,
        sampler.n_samples,
        children_s() - used_s,
    )


def children_s() -> float:
    """Processor time of all children of this process that have ended, and of theirs."""
    times = psutil.Process().cpu_times()
    return float(times.children_user + times.children_system)


def pss_bytes(pid: int) -> int:
    """The PSS of a process and its descendants; those that end meanwhile count nothing."""
    total = 0
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in (root, *root.children(recursive=True)):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                total += _pss_of(process.pid)
    return total


def _pss_of(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class _Sampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.n_samples = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        due = time.monotonic()
        while not self._done.is_set():
            self.peak_bytes = max(self.peak_bytes, pss_bytes(self._pid))
            self.n_samples += 1
            due = max(due + PERIOD_S, time.monotonic())
            self._done.wait(due - time.monotonic())

    def stop(self) -> None:
        self._done.set()
        self.join()
