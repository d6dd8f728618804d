"""The system refuses one call, for every call there is.

A library of three songs gets two more, and every open, read, write, sync, rename and removal by
which that is done, of a file of the library or of the songs, fails once with EIO, each in a run of
its own (``faults``). Whatever the build then says, it says it in a sentence; the library opens and
answers as before it or as after it; the next build completes it. In the same way a query is asked:
it gives the one right answer, or says why there is none.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.endurance.faults import READING, WRITING, Point, failing, points, sample, watching
from benchmarks.endurance.ground import Told, build, catalogue, contents, difference, livi
from livi_index.errors import LiviError

ERROR = "EIO"
OLD, NEW = 3, 2


class Trial:
    """The same step from one state of a library to the next, over and over."""

    def __init__(self, place: Path) -> None:
        self.music, self.library, self.log = place / "music", place / "library", place / "calls"
        self.saved = place / "saved"
        self.violations: list[str] = []
        self.codes: Counter[str] = Counter()
        catalogue(self.music, OLD)
        assert build(self.music, self.saved).code == 0
        catalogue(self.music, NEW, first=OLD)
        self.renew()
        self.before = contents(self.library)
        watch = watching(self.log, (*WRITING, *READING))
        assert build(self.music, self.library, before=watch).code == 0
        self.building = points(self.log, self.library, self.music)
        self.after = contents(self.library)
        self.query = ("query", next(self.music.iterdir()), "--json", "--library", self.library)
        self.answer = livi(*self.query)
        assert livi(*self.query, before=watch) == self.answer
        self.asking = points(self.log, self.library, self.music)

    def renew(self) -> None:
        shutil.rmtree(self.library, ignore_errors=True)
        shutil.copytree(self.saved, self.library)

    def build_with(self, point: Point) -> None:
        self.renew()
        told = build(self.music, self.library, before=failing(point, ERROR))
        self.count("build", point, told)
        states = {"before": self.before, "after": self.after}
        now = self.state(point, states)
        if told.code == 0 and now != "after":
            self.violations.append(f"{point}: the build said nothing, and {now or 'neither'}")
        if now != "after":
            again = build(self.music, self.library)
            if again.code or self.state(point, {"after": self.after}) != "after":
                self.violations.append(f"{point}: the next build ends with {again}")

    def state(self, point: Point, states: dict[str, dict[str, Any]]) -> str | None:
        try:
            now = contents(self.library)
        except LiviError as error:
            self.violations.append(f"{point}: the library does not open: {error}")
            return None
        differences = {name: difference(now, state) for name, state in states.items()}
        for name, told in differences.items():
            if not told:
                return name
        self.violations.append(f"{point}: neither before nor after: {differences}")
        return None

    def ask_with(self, point: Point) -> None:
        told = livi(*self.query, before=failing(point, ERROR))
        self.count("query", point, told)
        if told.code == 0 and told.out != self.answer.out:
            self.violations.append(f"query, {point}: another answer")

    def count(self, what: str, point: Point, told: Told) -> None:
        self.codes[f"{what} {told.code}"] += 1
        if told.code not in (0, 1, 3) or "Traceback" in told.err or (told.code and not told.err):
            self.violations.append(f"{what}, {point}: {told.code}, {told.err[-400:]}")


def measure(place: Path, n: int) -> dict[str, Any]:
    """n of the points, all where n is 0."""
    trial = Trial(place)
    building, asking = trial.building, trial.asking
    if n:
        building, asking = sample(building, min(n, len(building))), sample(asking, n // 5)
    for point in building:
        trial.build_with(point)
    for point in asking:
        trial.ask_with(point)
    calls = Counter(point.call for point in building)
    return {
        "error": ERROR,
        "points_of_a_build": len(building),
        "points_of_a_query": len(asking),
        "calls": dict(calls),
        "exit_codes": dict(trial.codes),
        "violations": trial.violations,
    }
