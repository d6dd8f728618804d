"""A library of several folders, and which of its recordings are versions of which.

A folder is a rendered catalogue (``entries.csv``), has a list of its own (``works.csv``), or holds
plain audio, of which every file is a recording of a work named after it. A work may have versions
in several folders. What a rendered catalogue has as a distractor may be an anthem as it is: that is
another recording of the anthem's work.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.sung import entries_of, list_of
from catalogs import Entry
from catalogs.copies import recordings
from livi_index.build import BuildOptions, build
from livi_index.library import Library, open_library
from livi_index.models import Bundle


@dataclass(frozen=True)
class Truth:
    """The work of each recording of a library, by its number; and its id in the lists, which is
    that of other mixes of the same performance too: these do not ask for each other."""

    of: dict[int, str]
    ids: dict[int, str]

    def right(self, number: int, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of others (n,) are versions of a recording."""
        work = self.of[number]
        return np.array([self.of[other] == work for other in others.tolist()], np.bool_)

    def same(self, number: int) -> list[int]:
        """The recording, and all other mixes of it."""
        return [other for other, name in self.ids.items() if name == self.ids[number]]


def entries_in(folders: Sequence[Path]) -> list[Entry]:
    """The recordings of some folders; what only distracts is a work of its own."""
    found = []
    for folder in folders:
        anthems = _anthems(folder)
        for entry in entries_of(folder) if list_of(folder).exists() else _plain(folder):
            work = entry.work_id
            if entry.kind == "distractor":
                work = anthems.get(entry.recording_id) or f"none-{entry.recording_id}"
            path = entry.path.absolute()
            found.append(Entry(entry.recording_id, work, path, "", "", entry.split, entry.kind))
    return found


def _anthems(folder: Path) -> dict[str, str | None]:
    """The anthem in each recording of a rendered folder."""
    manifest = folder / "manifest.jsonl"
    lines = manifest.read_text().splitlines() if manifest.exists() else []
    return {row["recording_id"]: row["anthem"] for row in map(json.loads, lines)}


def _plain(folder: Path) -> Iterator[Entry]:
    for path in recordings([folder]):
        yield Entry(path.stem, path.stem, path, "", "", "test")


@contextmanager
def truth_of(
    entries: Sequence[Entry], bundle: Bundle, kept: Path | None = None
) -> Iterator[tuple[Library, Truth]]:
    """The library of some recordings, built where it is not there yet."""
    with tempfile.TemporaryDirectory() as place:
        library, listed = kept or Path(place) / "library", Path(place) / "files.csv"
        with listed.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path",), *((entry.path,) for entry in entries)])
        build([], library, BuildOptions(files=listed, model=str(bundle.path)))
        with open_library(library, model=bundle) as opened:
            numbered = [
                (opened.generation.recording_at(entry.path) or 0, entry) for entry in entries
            ]
            of = {number: entry.work_id for number, entry in numbered if number}
            ids = {number: entry.recording_id for number, entry in numbered if number}
            yield opened, Truth(of, ids)
