"""One writer, and any number of readers who never notice it.

Songs are added one by one, each by a build that publishes, while readers open the library and ask
it in a loop. No answer may fail, and each must be that of one generation: all songs that were there
when it was published, and no other. While a build is at work a second one is started: it must be
refused at once, and name the process that is in its way.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.endurance.ground import (
    PLAIN,
    READER,
    build,
    catalogue,
    command,
    environment_of,
    song,
    timely,
)
from benchmarks.results import ROOT
from livi_index.database import LOCK
from livi_index.errors import LiviError
from livi_index.library import SPACE, open_library
from livi_index.models import open_bundle

BASE = 5
READERS = 2
REFUSED = 11  # exit code


class Readers:
    """Threads that open a library, ask, and close it again."""

    def __init__(self, library: Path) -> None:
        self.library = library
        self.bundle = open_bundle(READER)
        self.answers: dict[int, set[frozenset[str]]] = {}
        self.problems: list[str] = []
        self.asked = 0
        self.stop = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.read) for _ in range(READERS)]

    def read(self) -> None:
        while not self.stop.is_set():
            try:
                self.ask()
            except (LiviError, OSError, KeyError) as error:
                self.problems.append(f"{type(error).__name__}: {error}")

    def ask(self) -> None:
        with open_library(self.library, model=self.bundle, threads=1) as opened:
            ids = opened.generation.recording_ids(SPACE).tolist()
            hits = opened.rank(opened.stored(ids[self.asked % len(ids)]), k=1000)
            names = frozenset(os.path.basename(hit.path) for hit in hits)
            with self.lock:
                self.asked += 1
                self.answers.setdefault(opened.info.generation, set()).add(names)
            if len(names) != len(ids):
                self.problems.append(f"{len(names)} hits in a generation of {len(ids)}")


def refused(music: Path, library: Path) -> str:
    """Start two builds; what is wrong with how the second one is refused."""
    first = command("build", music, "--library", library, *PLAIN)
    with subprocess.Popen(first, cwd=ROOT, env=environment_of({})) as holder:
        while str(holder.pid) not in _text(library / LOCK) and holder.poll() is None:
            time.sleep(0.01)
        told = build(music, library)
        if holder.poll() is not None:
            return "the first build was over before the second one began"
        holder.kill()
    if told.code != REFUSED or f"pid {holder.pid}" not in told.err:
        return f"the second build ended with {told}"
    return ""


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """n builds that publish."""
    music, library = place / "music", place / "library"
    catalogue(music, BASE, 8.0)
    build(music, library)
    readers = Readers(library)
    for thread in readers.threads:
        thread.start()
    expected = {1: frozenset(path.name for path in music.iterdir())}
    for i in timely(range(n), end_s):
        song(music / f"more-{i:03}.wav", 1000 + i, 8.0)
        told = build(music, library)
        expected[i + 2] = frozenset(path.name for path in music.iterdir())
        if told.code:
            readers.problems.append(f"a build ended with {told}")
    readers.stop.set()
    for thread in readers.threads:
        thread.join()
    for number, answers in readers.answers.items():
        if answers != {expected[number]}:
            readers.problems.append(f"generation {number} gave {len(answers)} answers")
    song(music / "long.wav", 9999, 1800.0)
    problem = refused(music, library)
    return {
        "builds": len(expected) - 1,
        "answers": readers.asked,
        "generations_seen": len(readers.answers),
        "second_build_refused": not problem,
        "violations": [*readers.problems, *([problem] if problem else [])],
    }
