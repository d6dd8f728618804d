"""A disk that is full stops a build in a sentence, and costs nothing that was there.

The library lies on a file system in memory that is made a little larger each time, so that it runs
full at every stage in turn: making the database, keeping the model, committing, publishing. First
a new library is built on it, then one that answers already gets new songs. After each failure the
library opens (or says that it holds nothing yet) and answers as before; after the disk has grown
the same command completes it. Needs root, to mount.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.endurance.ground import build, catalogue, contents, difference, timely
from livi_index.errors import LibraryNotFound, LiviError

STEP_KB = 64
ENOUGH_KB = 65_536


@contextlib.contextmanager
def disk(place: Path, size_kb: int) -> Iterator[Path]:
    """A file system of that size."""
    place.mkdir(exist_ok=True)
    kind = ["mount", "-t", "tmpfs", "-o", f"size={size_kb}k", "tmpfs", str(place)]
    subprocess.run(kind, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Trial:
    """Two steps of a library, on disks of every size."""

    def __init__(self, place: Path) -> None:
        self.place, self.music, self.more = place, place / "music", place / "more"
        catalogue(self.music, 3, 8.0)
        build(self.music, place / "first")
        self.before = contents(place / "first")
        shutil.copytree(place / "first", place / "second")
        catalogue(self.more, 3, 8.0, first=3)
        build(self.more, place / "second")
        self.after = contents(place / "second")
        self.said: Counter[str] = Counter()
        self.violations: list[str] = []
        self.tried = self.filled = 0

    def first(self, size_kb: int) -> bool:
        """Build a library where there is so much room; whether that was enough."""
        with disk(self.place / "disk", size_kb) as where:
            return self.step(where / "library", self.music, None, self.before, size_kb)

    def second(self, free_kb: int) -> bool:
        """Add songs where there is so much room left."""
        with disk(self.place / "disk", ENOUGH_KB) as where:
            library = Path(shutil.copytree(self.place / "first", where / "library"))
            status = os.statvfs(where)
            used_kb = (status.f_blocks - status.f_bfree) * status.f_bsize // 1024
            self.resize(where, used_kb + free_kb)
            return self.step(library, self.more, self.before, self.after, free_kb)

    def resize(self, where: Path, size_kb: int) -> None:
        subprocess.run(["mount", "-o", f"remount,size={size_kb}k", str(where)], check=True)

    def step(
        self,
        library: Path,
        music: Path,
        before: dict[str, Any] | None,
        after: dict[str, Any],
        size_kb: int,
    ) -> bool:
        told = build(music, library)
        self.tried += 1
        states = [state for state in (before, after) if state is not None]
        if told.code != 0:
            self.filled += 1
            self.said[told.err.split(": ", 2)[-1].strip()[:60]] += 1
            clear = "space" in told.err and str(library.parent) in told.err
            if told.code != 1 or "Traceback" in told.err or not clear:
                self.violations.append(f"{size_kb} kB: {told.code}, {told.err[-300:]}")
        self.opens(library, states, size_kb)
        self.resize(library.parent, ENOUGH_KB)
        again = build(music, library)
        if again.code or (says := difference(contents(library), after)):
            self.violations.append(f"{size_kb} kB: the rerun ends with {again}: {says}")
        return told.code == 0

    def opens(self, library: Path, states: list[dict[str, Any]], size_kb: int) -> None:
        try:
            now = contents(library)
        except LibraryNotFound:
            if len(states) > 1:
                self.violations.append(f"{size_kb} kB: what was published is gone")
        except LiviError as error:
            self.violations.append(f"{size_kb} kB: it does not open: {error}")
        else:
            if all(difference(now, state) for state in states):
                self.violations.append(f"{size_kb} kB: it answers as neither before nor after")


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """Disks of 1, 2, … n steps of 64 kB, until one is large enough."""
    if os.geteuid() != 0:
        raise SystemExit("this mounts small file systems, and needs root for it")
    trial = Trial(place)
    for step in (trial.first, trial.second):
        for size in timely(range(1, n + 1), end_s):
            if step(size * STEP_KB):
                break
    return {
        "sizes": trial.tried,
        "full": trial.filled,
        "step_kb": STEP_KB,
        "said": dict(trial.said),
        "violations": trial.violations,
    }
