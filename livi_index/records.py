"""What a library keeps, as values: files, recordings, analyses, failures, runs, batches.

These are handed to and by ``store``; nothing here knows how they are kept. Times in songs are
seconds, times of day seconds since 1970.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from livi_index.answers import SPOKEN
from livi_index.transcripts import Transcript

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

# A segment as readers get it; sorted by segment_id, which also groups it by recording.
SEGMENT_DTYPE = np.dtype(
    [
        ("segment_id", "<i8"),
        ("recording_id", "<i8"),
        ("start_s", "<f4"),
        ("end_s", "<f4"),
        ("vocalness", "<f4"),
        ("weight", "<f4"),
    ]
)


@dataclass(frozen=True, slots=True)
class Root:
    """A folder (or a file) that is walked, and how; ``exclude`` are globs as in .gitignore."""

    path: Path
    exclude: tuple[str, ...] = ()
    follow_symlinks: bool = False


@dataclass(frozen=True)
class FileRow:
    """A place where a recording lies, with the tags found there; no recording: unreadable."""

    path: Path
    root: Path
    size: int
    mtime_ns: int
    inode: int
    device: int
    recording_id: int | None
    title: str | None = None
    artist: str | None = None
    album: str | None = None
    year: int | None = None
    isrc: str | None = None
    work: str | None = None


@dataclass(frozen=True)
class Recording:
    """A content; ``recording_id`` > 0 is made from ``content_hash``."""

    recording_id: int
    content_hash: bytes
    duration_s: float


@dataclass(frozen=True, eq=False)
class Analysis:
    """What one model found in one recording, for one space.

    ``start_s``, ``end_s``, ``vocalness``, ``weight`` are (n,), ``vectors`` (n, D) unit, and
    ``vector`` (D,) is the unit vector of the whole. In a space of what is sung an instrumental has
    none of them; in another one, which nobody asked for singing, nothing is ``sung``. What was read
    on the way is ``transcript``, if the model reads; ``speech`` is how much of the voice is plain
    speech, 0…1, if the model tells.
    """

    recording_id: int
    model_id: str
    space: str
    track_vocalness: float
    sung: bool
    truncated: bool
    decoder: str
    vector: FloatArray | None = None
    start_s: Sequence[float] | FloatArray = ()
    end_s: Sequence[float] | FloatArray = ()
    vocalness: Sequence[float] | FloatArray = ()
    weight: Sequence[float] | FloatArray = ()
    vectors: FloatArray | None = None
    transcript: Transcript | None = None
    speech: float | None = None

    @property
    def spoken(self) -> bool:
        """Whether there are words that somebody reads or talks instead of singing."""
        return self.sung and (self.speech or 0.0) >= SPOKEN


@dataclass(frozen=True)
class Failure:
    """A file that could not be indexed; ``decoder`` names what is at hand to decode.

    ``commit`` adds attempts up and keeps ``first_at`` while the content is not another.
    """

    path: Path
    code: str
    message: str
    decoder: str = ""
    content_hash: bytes | None = None
    attempts: int = 1
    first_at: float = field(default_factory=time.time)
    last_at: float = field(default_factory=time.time)


@dataclass(frozen=True)
class Run:
    """A finished build."""

    started_at: float
    ended_at: float
    model_id: str
    counts: Mapping[str, int | float | str | None]


@dataclass(frozen=True)
class Batch:
    """What is written in one transaction; a path or recording occurs at most once in each.

    ``missing``: files that are gone (they leave the answers, their rows stay); ``forgotten``:
    paths whose rows go too; ``recovered``: known files whose failure is over. What is known of a
    recording outlives its files.
    """

    files: Sequence[FileRow] = ()
    recordings: Sequence[Recording] = ()
    analyses: Sequence[Analysis] = ()
    failures: Sequence[Failure] = ()
    missing: Sequence[Path] = ()
    forgotten: Sequence[Path] = ()
    recovered: Sequence[Path] = ()


class KnownFile(NamedTuple):
    """What a file looked like when it was last read (a tuple: there are many of them)."""

    size: int
    mtime_ns: int
    inode: int
    device: int
    recording_id: int | None
    missing: bool


class ModelChoice(NamedTuple):
    """By model_id: whose vectors answer, and whose are to, once there are all (else the same).

    ``since``: when that was decided, in seconds since 1970.
    """

    answers: str
    target: str
    since: float


class Pruned(NamedTuple):
    """How many rows were deleted."""

    files: int
    recordings: int


class StoreState(NamedTuple):
    """A point in the history of a database; the token tells apart histories of equal length."""

    version: int
    token: int


@dataclass(frozen=True, eq=False)
class VectorChunk:
    """ids (n,) int64 and their vectors (n, D) float16."""

    ids: IntArray
    vectors: NDArray[np.float16]
