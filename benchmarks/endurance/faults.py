"""Death and failure at named points, by ``strace``: the kernel's answers, and nothing of ours.

A point is one call to the system, named by what is called, on which file, and for how many times
the process has by then called that there: ``fsync published/.tmp-1/manifest.json 1``. All points
of a command are found by running it once; then it can be run again with any of them killing it, or
answering with an error.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

WRITING = (
    "write", "pwrite64", "fsync", "fdatasync", "rename", "unlink", "unlinkat", "mkdir", "rmdir",
    "ftruncate", "link",
)  # fmt: skip
READING = ("openat", "read", "pread64")

_CALL = re.compile(r"^(\d+) +(\w+)\(")


@dataclass(frozen=True)
class Point:
    """A call to the system; ``file`` as it was named by the process."""

    call: str
    file: str
    time: int

    def __str__(self) -> str:
        return f"{self.call} {os.path.basename(self.file)} {self.time}"


def strace() -> str:
    """Where it is; leaves the program where it is not."""
    found = shutil.which("strace")
    if found is None:
        raise SystemExit("this needs the program strace (Debian package of that name), on Linux")
    return found


def watching(log: Path, calls: Iterable[str]) -> list[str]:
    """What to put before a command so that its calls are written down."""
    given = f"trace={','.join(calls)}"
    return [strace(), "-f", "--seccomp-bpf", "-qq", "-y", "-s", "0", "-o", str(log), "-e", given]


def points(log: Path, *folders: Path) -> list[Point]:
    """The calls in a log that are about files below the folders, in their order."""
    inside = "|".join(re.escape(os.fspath(folder)) for folder in folders)
    named = re.compile(rf'["<]((?:{inside})(?:/[^">]*)?)[">]')
    times: Counter[tuple[str, str, str]] = Counter()
    found = []
    for line in log.read_text(errors="replace").splitlines():
        call, file = _CALL.match(line), named.search(line)
        if call is None or file is None or "(deleted)" in line:
            continue
        key = (call[1], call[2], file[1])
        times[key] += 1  # strace counts for each thread
        found.append(Point(call[2], file[1], times[key]))
    return list(dict.fromkeys(found))


def killing(point: Point) -> list[str]:
    """What to put before a command so that it is killed before it comes to the point."""
    return _at(point, "signal=SIGKILL")


def failing(point: Point, error: str) -> list[str]:
    """What to put before a command so that the system answers with this error there."""
    # The filter makes it faster, and signals are lost with it.
    return _at(point, f"error={error}", "--seccomp-bpf")


def _at(point: Point, does: str, *options: str) -> list[str]:
    given = [f"trace={point.call}", f"inject={point.call}:{does}:when={point.time}"]
    told = ["-f", *options, "-qq", "-o", os.devnull, "-P", point.file]
    return [strace(), *told, *(word for each in given for word in ("-e", each))]
