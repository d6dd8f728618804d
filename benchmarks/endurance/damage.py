"""Damage to what is on the disk is found before it is searched, and mended from what is whole.

Bits are flipped, files cut short, blocks zeroed, files deleted: in every published file, in
``CURRENT``, and in the database with its log. Of what is published all damage must be told by
``open_library``; the next build then makes it anew, and the library answers as before. A damaged
database must be refused, or prove whole; never is anything deleted for it; ``check --repair`` then
restores it. Damaging a file here changes its times, as every program does that writes; a disk that
forgets in silence is found by ``check`` (which compares every byte), and that is tried as well.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.endurance.ground import READER, catalogue, contents, difference, timely
from livi_index.build import BuildOptions, build
from livi_index.check import check
from livi_index.errors import LibraryDamaged, LibraryNotFound
from livi_index.library import open_library
from livi_index.models import open_bundle
from livi_index.store import DATABASE

KINDS = ("flip", "cut", "zero", "delete")
SONGS = 12
BLOCK = 4096


class Trial:
    """One library, damaged over and over."""

    def __init__(self, place: Path) -> None:
        self.saved, self.library = place / "saved", place / "library"
        self.music = place / "music"
        self.options = BuildOptions(model=os.fspath(READER), jobs=1, threads=1)
        catalogue(self.music, SONGS - 2, 8.0)
        build([self.music], self.library, self.options)
        catalogue(self.music, 2, 8.0, first=SONGS - 2)
        build([self.music], self.library, self.options)
        (self.music / "song-000.wav").unlink()
        build([self.music], self.library, self.options)
        self.whole = contents(self.library)
        self.library.rename(self.saved)
        self.rng = random.Random(0)
        self.found: Counter[str] = Counter()
        self.tried: Counter[str] = Counter()
        self.violations: list[str] = []

    def renew(self) -> None:
        shutil.rmtree(self.library, ignore_errors=True)
        shutil.copytree(self.saved, self.library)

    def files(self) -> list[str]:
        """What is published, as paths inside the library."""
        newest = max((self.saved / "published").iterdir())
        names = sorted(path.name for path in newest.iterdir())
        return [*(f"published/{newest.name}/{name}" for name in names), "CURRENT"]

    def damage(self, name: str, kind: str) -> None:
        path = self.library / name
        content = bytearray(path.read_bytes())
        at = self.rng.randrange(len(content))
        if kind == "delete":
            return path.unlink()
        if kind == "flip":
            content[at] ^= 1 << self.rng.randrange(8)
        elif kind == "cut":
            del content[at:]
        else:
            first = at // BLOCK * BLOCK
            zeroed = bytes(len(content[first : first + BLOCK]))
            if zeroed == content[first : first + BLOCK]:
                first, zeroed = 0, bytes(min(BLOCK, len(content)))  # an empty block is no damage
            content[first : first + len(zeroed)] = zeroed
        path.write_bytes(content)
        return None

    def published(self, name: str, kind: str, *, in_silence: bool = False) -> None:
        self.renew()
        self.damage(name, kind)
        what = f"{kind} {Path(name).name}"
        self.tried["published"] += 1
        if in_silence:
            told = any(problem.part == "published" for problem in check(self.library).problems)
        else:
            told = not self.opens()
        if not told:
            self.violations.append(f"{what}: not found")
            return
        self.found["published"] += 1
        build([], self.library, self.options)
        if says := difference(contents(self.library), self.whole):
            self.violations.append(f"{what}: rebuilt to {says}")

    def opens(self) -> bool:
        try:
            open_library(self.library, model=open_bundle(READER)).close()
        except (LibraryDamaged, LibraryNotFound):
            return False
        return True

    def database(self, kind: str) -> None:
        self.renew()
        self.damage(DATABASE, kind)
        self.tried["database"] += 1
        before = set(os.listdir(self.library))
        try:
            build([], self.library, self.options)
        except LibraryDamaged as error:
            self.found["database"] += 1
            if DATABASE not in str(error) or "check --repair" not in str(error):
                self.violations.append(f"{kind} database: told as {error}")
        if not before <= set(os.listdir(self.library)):
            self.violations.append(f"{kind} database: something was deleted")
        if says := difference(contents(self.library), self.whole):
            self.violations.append(f"{kind} database: the library answers with {says}")
        report = check(self.library, repair=True)
        if report.problems:
            self.violations.append(f"{kind} database: after the repair {report.problems}")
        if says := difference(contents(self.library), self.whole):
            self.violations.append(f"{kind} database: repaired to {says}")


def measure(place: Path, n: int, end_s: float) -> dict[str, Any]:
    """n times each kind of damage to each file, once in silence, and 5 n times to the database."""
    trial = Trial(place)
    names = trial.files()
    for _ in timely(range(n), end_s):
        for name, kind in product(names, KINDS):
            trial.published(name, kind)
        for kind in KINDS * 5:
            trial.database(kind)
    for name in names:
        trial.published(name, "flip", in_silence=True)
    return {
        "files": len(names),
        "kinds": list(KINDS),
        "damaged_published": trial.tried["published"],
        "found_published": trial.found["published"],
        "damaged_database": trial.tried["database"],
        "refused_database": trial.found["database"],
        "silent_wrong_answers": sum("answers with" in v for v in trial.violations),
        "violations": trial.violations,
    }
