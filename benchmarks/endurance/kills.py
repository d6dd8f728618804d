"""Nothing that was acknowledged is lost, whenever a build is killed.

Half of the kills come at random moments, half at named points (``faults``): before any write, sync
and rename of commit and publish. After each the library is opened and looked through
by ``check``; what was said to be kept must be there; of what was done but not yet kept, no more
than one batch may be gone. Then the build is run again, until it ends, and what it made is compared
with what an uninterrupted one makes.
"""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

from benchmarks.endurance.faults import WRITING, killing, points, watching
from benchmarks.endurance.ground import (
    READER,
    catalogue,
    contents,
    difference,
    environment_of,
    timely,
)
from benchmarks.endurance.victim import BATCH
from benchmarks.results import ROOT
from livi_index.check import check
from livi_index.generations import CURRENT
from livi_index.store import DATABASE, Store

SONGS = 14
# What a killed build may leave behind: it comes with the next publication.
BEHIND = ("the database holds what is not published yet", "what the database holds was never publ")
UNNAMED = f"{CURRENT} is missing"  # killed before the first generation was named


class Trial:
    """Builds of one catalogue, killed and looked at."""

    def __init__(self, place: Path, music: Path) -> None:
        self.music = music
        self.library = place / "library"
        self.violations: list[str] = []
        self.kills = self.resumed = self.most_recomputed = 0

    def start(self, before: Sequence[str] = ()) -> subprocess.Popen[str]:
        program = [sys.executable, "-m", "benchmarks.endurance.victim"]
        words = [*before, *program, str(self.music), str(self.library), str(READER)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            words, cwd=ROOT, env=environment_of({}), stdout=pipe, stderr=pipe, text=True
        )

    def killed(self, before: Sequence[str] = (), after_s: float | None = None) -> bool:
        """Run the build until it is killed, after a time or by ``before``; False if it ended."""
        named = (self.library / CURRENT).exists()
        with self.start(before) as process:
            if after_s is not None:
                time.sleep(after_s)
                workers = psutil.Process(process.pid).children(recursive=True)
                process.kill()
                _, alive = psutil.wait_procs(workers, timeout=10)
                self.violations += [f"a worker outlived its build by {after_s:.2f} s"] * len(alive)
            said, errors = process.communicate()
        if process.returncode == 0:
            return False
        if process.returncode not in (-signal.SIGKILL, 128 + signal.SIGKILL):
            self.violations.append(f"ended with {process.returncode}: {errors[-300:]}")
        self.kills += 1
        self.look(said, named=named)
        return True

    def look(self, said: str, *, named: bool) -> None:
        """Whether all is there that should be; ``named``: a generation was, before this run."""
        lines = [line.split() for line in said.splitlines() if line.count(" ") == 1]
        done = max((int(n) for _, n in lines), default=0)
        kept = max((int(n) for word, n in lines if word == "kept"), default=0)
        if not (self.library / DATABASE).exists():
            self.violations += ["what was kept is gone"] * bool(kept)
            return
        with Store(self.library) as store:
            there = len(store.known_files())
            heard = store.ask("SELECT count(*) FROM analyses")[0][0]
        self.most_recomputed = max(self.most_recomputed, done - heard)
        if min(there, heard) < kept:
            self.violations.append(f"{kept} were kept, {there} are there, {heard} of them heard")
        if done - heard > BATCH:
            self.violations.append(f"{done} were done, only {heard} are there")
        for problem in check(self.library).problems:
            if UNNAMED in problem.what and not named:
                continue
            if not problem.what.startswith(BEHIND):
                self.violations.append(str(problem))

    def finish(self, whole: dict[str, Any]) -> None:
        """Run it to its end, compare, and begin anew."""
        with self.start() as process:
            errors = process.communicate()[1]
        self.resumed += 1
        if process.returncode:
            self.violations.append(f"the rerun ended with {process.returncode}: {errors[-300:]}")
        elif told := difference(contents(self.library), whole):
            self.violations.append(f"after the rerun: {told}")
        elif problems := check(self.library, read_percent=100).problems:
            self.violations.append(f"after the rerun: {problems[0]}")
        litter = [p.name for p in self.library.rglob("*") if p.name.startswith(".")]
        self.violations += [f"after the rerun {name} is still there" for name in litter]
        shutil.rmtree(self.library)


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """n kills, at named points and at random moments in turn.

    The build that is killed at a point begins anew, the one that is killed at a moment goes on
    from there, and then it is run to its end.
    """
    music = place / "music"
    catalogue(music, SONGS)
    trial = Trial(place, music)
    log = place / "calls"
    with trial.start(watching(log, WRITING)) as process:
        process.communicate()
    every = points(log, trial.library)
    shutil.rmtree(trial.library)
    began = time.monotonic()
    with trial.start() as process:
        process.communicate()
    whole_s, whole = time.monotonic() - began, contents(trial.library)
    shutil.rmtree(trial.library)
    rng = random.Random(0)
    rng.shuffle(every)
    named = at_random = 0
    for point in timely(every, end_s):
        if trial.kills >= n:
            break
        if trial.killed(before=killing(point)):
            named += 1
        else:
            trial.violations.append(f"not killed at {point}")
        at_random += trial.killed(after_s=rng.uniform(0, whole_s))
        trial.finish(whole)
    return {
        "kills": trial.kills,
        "at_random_moments": at_random,
        "at_named_points": named,
        "named_points": len(every),
        "songs": SONGS,
        "batch": BATCH,
        "most_recomputed": trial.most_recomputed,
        "finished_and_compared": trial.resumed,
        "violations": trial.violations,
    }
