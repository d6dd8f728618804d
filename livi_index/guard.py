"""Whether what is gone may leave a library: a disk that is away must not empty it.

Files are looked at in groups: each root, and each folder at the top of a root, from 20 known
recordings' files on. A group keeps every file when

    missing   the folder is not there
    empty     it is there, but none of its files is (a root: nothing that could be a song is)
    device    it is on another device than last time, and something of it is gone
    share     more than a tenth of its files are gone

A root that is missing or empty keeps its files however few they are. A file that was moved is not
gone: its recording was met in this run at a path that is new. While a run that was stopped early
has not opened every new file, a vanished file of the same size as one of them waits.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

MIN_KNOWN = 20
MAX_SHARE = 0.1

Reason = Literal["missing", "empty", "device", "share"]

_TOLD: dict[Reason, str] = {
    "missing": "is not there",
    "empty": "holds no audio any more",
    "device": "is on another device than last time",
    "share": "lacks more than a tenth of its files",
}


@dataclass(frozen=True)
class Held:
    """A folder that keeps its files, though some are gone."""

    folder: str
    reason: Reason
    known: int
    gone: int

    def __str__(self) -> str:
        files = f"{self.known:,} files known there are kept"
        gone = "" if self.gone == self.known else f", {self.gone:,} are gone"
        return (
            f"{self.folder} {_TOLD[self.reason]}{gone}; the {files}"
            " (--force-prune lets go of what is gone)"
        )


@dataclass(frozen=True)
class Absent:
    """A known file that a run did not find; no recording: it could not be used."""

    path: str
    recording_id: int | None
    size: int


@dataclass
class Census:
    """What a walk found of what is known, by folder (roots, and folders at their top)."""

    roots: Sequence[str]
    closed: set[str] = field(default_factory=set)  # roots that are not there
    empty: set[str] = field(default_factory=set)  # roots with no file that could be a song
    known: Counter[str] = field(default_factory=Counter)  # files of recordings before the walk
    seen: Counter[str] = field(default_factory=Counter)  # files that could be songs
    absent: list[Absent] = field(default_factory=list)

    def folders_of(self, path: str) -> Iterator[str]:
        """The groups that a file belongs to, none if it is below no root."""
        for root in self.roots:
            start = below(root)
            if path.startswith(start):
                yield root
                top, inside, _ = path[len(start) :].partition(os.sep)
                if inside:
                    yield start + top

    def devices(self) -> dict[str, int]:
        """On which device each group is that the guard would look at, of those that are there."""
        found = {}
        for folder, n in (self.seen | self.known).items():
            if n >= MIN_KNOWN and (device := _device(folder)) is not None:
                found[folder] = device
        return found


@dataclass(frozen=True)
class Leaving:
    """Files that leave: ``missing`` had a recording, ``forgotten`` could not be used."""

    missing: tuple[Path, ...] = ()
    forgotten: tuple[Path, ...] = ()
    held: tuple[Held, ...] = ()

    def may_go(self, roots: Sequence[str]) -> Callable[[str], bool]:
        """Whether a path lies below these roots and in no group that is held."""
        open_to, kept = tuple(map(below, roots)), tuple(below(held.folder) for held in self.held)
        return lambda path: path.startswith(open_to) and not path.startswith(kept)


def below(folder: str | Path) -> str:
    """What the paths of all that lies in a folder begin with."""
    return os.path.join(folder, "")


def leaving(
    census: Census,
    arrived: Collection[int],
    unopened_sizes: Collection[int],
    devices_before: Mapping[str, int],
    *,
    force: bool = False,
) -> Leaving:
    """What of the absent files may leave. ``arrived`` are the recordings met at new paths."""
    moved = [a for a in census.absent if a.recording_id in arrived]
    gone = [
        a
        for a in census.absent
        if a.recording_id not in arrived and not (a.recording_id and a.size in unopened_sizes)
    ]
    held = () if force else tuple(_held(census, gone, devices_before))
    kept = tuple(below(one.folder) for one in held)
    free = [a for a in gone if not a.path.startswith(kept)]
    return Leaving(
        missing=tuple(Path(a.path) for a in (*moved, *free) if a.recording_id is not None),
        forgotten=tuple(Path(a.path) for a in free if a.recording_id is None),
        held=held,
    )


def _held(
    census: Census, gone: Sequence[Absent], devices_before: Mapping[str, int]
) -> Iterator[Held]:
    every, songs = Counter[str](), Counter[str]()
    for a in gone:
        folders = list(census.folders_of(a.path))
        every.update(folders)
        songs.update(folders if a.recording_id is not None else ())
    lost_roots = tuple(map(below, census.closed | census.empty))
    for folder in sorted(every):
        if folder.startswith(lost_roots):
            continue  # said of its root
        if reason := _reason(census, folder, songs[folder], devices_before.get(folder)):
            # Where nothing but unusable files is known, those are what is kept.
            counts = census.known[folder], songs[folder]
            yield Held(folder, reason, *(counts if any(counts) else [every[folder]] * 2))


def _reason(census: Census, folder: str, n_gone: int, device_before: int | None) -> Reason | None:
    if folder in census.closed:
        return "missing"
    if folder in census.empty:
        return "empty"
    known = census.known[folder]
    if n_gone == 0 or known < MIN_KNOWN:
        return None
    device = _device(folder)
    if device is None:
        return "missing"
    if n_gone == known and not census.seen[folder]:
        return "empty"
    if device_before is not None and device != device_before:
        return "device"
    return "share" if n_gone > MAX_SHARE * known else None


def _device(folder: str) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None
