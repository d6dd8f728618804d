"""What all trials stand on: songs that a tiny model can read, a library of them, and what it says.

The model (``tests/data/tiny-reader``) takes tones for phones, so a song is a row of tones, a build
of a dozen takes two seconds, and an answer is the same as from a large model in everything but its
sense. Two libraries are the same when they hold the same rows, vectors that agree within 1e-5 and
transcripts that agree entirely, and when every recording of them is answered by the same ten.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.results import ROOT
from livi_index.generations import Generation, current
from livi_index.library import SPACE, open_library
from livi_index.models import open_bundle

READER = ROOT / "tests" / "data" / "tiny-reader"
RATE = 16_000
PITCHES = np.geomspace(200, 6000, 24)  # of the phones 1 to 24 of the tiny reader
PLAIN = ("--model", READER, "--jobs", "1", "--quiet", "--normal-priority")
KINDS = ("wav", "ogg", "flac", "mp3")
TOLERANCE = 1e-5
TOP = 10

Item = TypeVar("Item")


@dataclass(frozen=True)
class Told:
    """How a command ended."""

    code: int
    out: str
    err: str


def timely(items: Iterable[Item], end_s: float) -> Iterator[Item]:
    """The items, until it is that late by the monotonic clock."""
    return takewhile(lambda _: time.monotonic() < end_s, items)


def melody(seed: int, n: int) -> NDArray[np.int64]:
    """(n,) phones from 1 to 24, none twice in a row."""
    steps = np.random.default_rng(seed).integers(1, 24, n)
    return np.asarray(np.cumsum(steps) % 24 + 1, np.int64)


def tones(phones: NDArray[np.int64], tone_s: float = 0.4) -> NDArray[np.float32]:
    """(T, 1) what the tiny reader takes for these phones; 0 is silence."""
    each = np.repeat(phones, round(tone_s * RATE))
    phases = np.cumsum(2 * np.pi * np.append(0.0, PITCHES)[each] / RATE)
    return (0.3 * (each > 0) * np.sin(phases))[:, None].astype(np.float32)


def song(path: Path, seed: int, seconds: float = 20.0) -> Path:
    """A song of its own for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = tones(melody(seed, round(seconds / 0.4)))
    with soundfile.SoundFile(path, "w", RATE, 1) as file:
        # At most a second at once: libsndfile overflows its stack on long Ogg writes.
        for start in range(0, len(samples), RATE):
            file.write(samples[start : start + RATE])
    return path


def catalogue(folder: Path, n: int, seconds: float = 20.0, first: int = 0) -> list[Path]:
    """n songs, of several kinds."""
    names = [f"song-{i:03}.{KINDS[i % len(KINDS)]}" for i in range(first, first + n)]
    return [song(folder / name, first + i, seconds) for i, name in enumerate(names)]


def livi(*arguments: str | Path, before: Sequence[str | Path] = (), **environment: str) -> Told:
    """Run a command of the product, under the program ``before`` if there is one."""
    done = subprocess.run(
        command(*arguments, before=before),
        env=environment_of(environment),
        capture_output=True,
        text=True,
        errors="replace",
        cwd=ROOT,
        timeout=600,
    )
    return Told(done.returncode, done.stdout, done.stderr)


def command(*arguments: str | Path, before: Sequence[str | Path] = ()) -> list[str]:
    program = [sys.executable, "-m", "livi_index"]
    return [*map(os.fspath, before), *program, *map(os.fspath, arguments)]


def environment_of(more: Mapping[str, str]) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def build(folder: Path | None, library: Path, *options: str | Path, **how: Any) -> Told:
    """``livi-index build`` with the tiny model."""
    folders = [] if folder is None else [folder]
    return livi("build", *folders, "--library", library, *PLAIN, *options, **how)


def contents(library: Path) -> dict[str, Any]:
    """All that a library answers from, and its answers: the same for libraries that are the same.

    Opened as a reader does, so whatever is damaged raises LibraryDamaged.
    """
    with current(library) as generation:
        found: dict[str, Any] = {"recordings": _recordings(generation)}
        for name, query in _TABLES.items():
            found[name] = generation.ask(query)
    found["answers"] = _answers(library)
    return found


_TABLES = {
    "files": "SELECT path, recording_id, size, mtime_ns, inode, title FROM files ORDER BY path",
    "failures": "SELECT path, code FROM failures ORDER BY path",
    "analyses": "SELECT recording_id, sung, truncated, n_segments FROM analyses ORDER BY ALL",
}


def _recordings(generation: Generation) -> dict[int, tuple[Any, ...]]:
    held = {}
    for number in generation.recording_ids(SPACE).tolist():
        key = np.array([number])
        table = generation.segments_of(key, SPACE)
        times = [tuple(row)[2:] for row in table.tolist()]
        vectors = generation.segment_vectors(table["segment_id"], SPACE)
        whole = generation.recording_vectors(key, SPACE)
        transcript = generation.transcripts_of(key, SPACE)[0].tobytes()
        held[number] = (times, transcript, np.concatenate([whole, vectors]))
    return held


def _answers(library: Path) -> dict[int, list[tuple[str, int]]]:
    """The best ten for each recording, with their scores to a thousandth."""
    with open_library(library, model=open_bundle(READER), threads=1) as opened:
        if opened.info.recordings == 0:
            return {}
        ids = opened.generation.recording_ids(SPACE).tolist()
        ranked = {number: opened.rank(opened.stored(number), k=TOP) for number in ids}
    return {
        number: [(hit.recording_id, round(1000 * hit.score)) for hit in hits]
        for number, hits in ranked.items()
    }


def difference(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """In what two ``contents`` are not the same; empty where they are."""
    for name in one:
        if name != "recordings" and one[name] != other[name]:
            return f"other {name}"
    if one["recordings"].keys() != other["recordings"].keys():
        return "other recordings"
    return beyond(one, other)


def beyond(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """What one ``contents`` holds that is not so in the other; empty if it is a part of it."""
    if not set(one["files"]) <= set(other["files"]):
        return "other files"
    if not one["recordings"].keys() <= other["recordings"].keys():
        return "more recordings"
    for number, (times, transcript, vectors) in one["recordings"].items():
        its_times, its_transcript, its_vectors = other["recordings"][number]
        if (times, transcript) != (its_times, its_transcript):
            return f"other segments or transcript of {number:016x}"
        if vectors.shape != its_vectors.shape:
            return f"other vectors of {number:016x}"
        if (far := float(np.abs(vectors - its_vectors).max())) > TOLERANCE:
            return f"vectors of {number:016x} differ by {far:.1e}"
    return ""
