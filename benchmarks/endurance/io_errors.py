"""The system refuses one call, for every call there is.

A library of three songs gets four more, and every open, read, write, sync, rename and removal by
which that is done, of a file of the library or of the songs, fails once with EIO, each in a run of
its own (``faults``). Whatever the build then says, it says it in a sentence; the library opens and
answers as before it or as after it; the next build completes it. In the same way a query is asked:
it gives the one right answer, or says why there is none.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.endurance.faults import READING, WRITING, Point, failing, points, watching
from benchmarks.endurance.ground import (
    Told,
    beyond,
    build,
    catalogue,
    contents,
    difference,
    livi,
    timely,
)
from livi_index.errors import LiviError

ERROR = "EIO"
OLD, NEW = 3, 4
NEW_S = 4.0
# What a library may be by exit code. A song that could not be read is told by 3, a folder by 5, and
# both are missing until the next build.
LEFT = {0: ("after",), 1: ("before", "after"), 3: ("part", "before"), 5: ("part", "before")}


class Trial:
    """The same step from one state of a library to the next, over and over."""

    def __init__(self, place: Path) -> None:
        self.music, self.library, self.log = place / "music", place / "library", place / "calls"
        self.saved = place / "saved"
        self.violations: list[str] = []
        self.codes: Counter[str] = Counter()
        catalogue(self.music, OLD)
        assert build(self.music, self.saved).code == 0
        catalogue(self.music, NEW, NEW_S, first=OLD)
        self.renew()
        self.before = contents(self.library)
        watch = watching(self.log, (*WRITING, *READING))
        assert build(self.music, self.library, before=watch).code == 0
        self.building = points(self.log, self.library, self.music)
        self.after = contents(self.library)
        # Asked is one that no build of another trial has touched.
        asked = shutil.copytree(self.library, place / "asked")
        self.query = ("query", next(self.music.iterdir()), "--json", "--library", asked)
        self.answer = livi(*self.query)
        assert livi(*self.query, before=watch) == self.answer
        self.asking = points(self.log, asked, self.music)

    def renew(self) -> None:
        shutil.rmtree(self.library, ignore_errors=True)
        shutil.copytree(self.saved, self.library)

    def build_with(self, point: Point) -> None:
        self.renew()
        told = build(self.music, self.library, before=failing(point, ERROR))
        self.count("build", point, told)
        state = self.state()
        if state not in LEFT.get(told.code, ()):
            self.violations.append(f"{point}: ended with {told.code}, and the library is {state}")
        if state != "after":
            again = build(self.music, self.library)
            if again.code or (state := self.state()) != "after":
                self.violations.append(f"{point}: the next build ends with {again}: {state}")

    def state(self) -> str:
        """What the library is now: as before the step, as after it, or a part of that."""
        try:
            now = contents(self.library)
        except LiviError as error:
            return str(error)
        if not (told := difference(now, self.after)):
            return "after"
        if not difference(now, self.before):
            return "before"
        return beyond(now, self.after) or "part" if now["failures"] else told

    def ask_with(self, point: Point) -> None:
        told = livi(*self.query, before=failing(point, ERROR))
        self.count("query", point, told)
        if told.code == 0 and told.out != self.answer.out:
            self.violations.append(f"query, {point}: another answer")

    def count(self, what: str, point: Point, told: Told) -> None:
        self.codes[f"{what} {told.code}"] += 1
        if "Traceback" in told.err or (told.code and not told.err):
            self.violations.append(f"{what}, {point}: {told.code}, {told.err[-400:]}")


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """n of the points, all where n is 0, in an order from which any beginning is a fair sample."""
    trial = Trial(place)
    tried = Counter[str]()
    everywhere = [(trial.build_with, point) for point in trial.building]
    everywhere += [(trial.ask_with, point) for point in trial.asking]
    random.Random(0).shuffle(everywhere)
    for try_at, point in timely(everywhere[: n or None], end_s):
        try_at(point)
        tried[point.call] += 1
    return {
        "error": ERROR,
        "points": len(everywhere),
        "tried": tried.total(),
        "calls": dict(tried),
        "exit_codes": dict(trial.codes),
        "violations": trial.violations,
    }
