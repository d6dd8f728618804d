"""What nights cost at size: ``python -m benchmarks.nights --folder PLACE [PART …]``

    night      100 new songs on real audio, in a library of 200,000 recordings (``large``)
    cold       ``livi-index query`` there as a new process, and answers of one that runs
    damage     what is noticed of a flipped byte there, by whom, and how fast
    upkeep     status, check, rollback, export, dry run there
    groups     version groups and news there, by the recording
    long       50,000 short tracks in one build: memory and descriptors (``shorts``)
    unchanged  the next night over these

Everything is the product itself, in processes of its own; times are of whole processes, memory is
the PSS of a process and its children. Each part has a result file of its own. PLACE is kept:
filling it takes an hour.

What is "the songs' own" in a night is measured beside it: the same songs in a library of their own,
without its walk, commits and publishing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from benchmarks import large, shorts
from benchmarks.processes import Measured, run_measured
from benchmarks.query import Made, Shape, measured_shape, song_of_three_minutes
from benchmarks.results import (
    ROOT,
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from livi_index.generations import CURRENT, VERIFIED
from livi_index.groups import PairOptions, neighbours
from livi_index.library import open_library
from livi_index.models import Bundle

NEW_S = 20.0
QUERIES = 30

Figures = dict[str, Any]


class Place:
    """Where the large library lies, with its files."""

    def __init__(
        self, folder: Path, bundle: Bundle, songs: Path, options: argparse.Namespace
    ) -> None:
        self.folder = folder
        self.tracks: int = options.tracks
        self.max_hours: float = options.max_hours
        self.new_songs: int = options.new_songs
        self.library = folder / "library"
        self.music = folder / "music"
        self.songs = songs
        self.bundle = bundle
        self.shape = replace(measured_shape(options.recordings), segments=options.segments)

    def fill(self) -> Made:
        return large.make_library(self.library, self.music, self.bundle, self.shape)

    def run(self, *words: str | Path, expected: Sequence[int] = (0,)) -> Measured:
        """One command of the product, on this library."""
        told = run_product(*words, "--library", self.library)
        if told.returncode not in expected:
            raise SystemExit(f"livi-index {' '.join(map(str, words))} failed:\n{told.stderr}")
        return told

    @property
    def generation(self) -> Path:
        name = (self.library / CURRENT).read_text().split()[0]
        return self.library / "published" / name


def run_product(*words: str | Path) -> Measured:
    return run_measured([sys.executable, "-m", "livi_index", *map(str, words)], cwd=ROOT)


def of(told: Measured) -> Figures:
    """What is written down of a process."""
    return {
        "seconds": round(told.seconds, 2),
        "cpu_s": round(told.cpu_s, 2),
        "peak_pss_bytes": told.peak_pss_bytes,
        "load_1min": round(os.getloadavg()[0], 1),
    }


def night(place: Place) -> Figures:
    """New songs in a large library, and a night without any."""
    place.fill()
    before = quiet_night(place.library)
    songs = place.music / f"new {time.time():.0f}"
    new_songs(place.songs, songs, place.new_songs)
    alone = run_product("build", songs, "--json", "--normal-priority", "--library", songs / "own")
    own = json.loads(alone.stdout)
    own_s = own["seconds"] - sum(own["stages"][name] for name in ("walk", "commit", "publish"))
    told = place.run("build", "--json", "--normal-priority")
    report = json.loads(told.stdout)
    return {
        "recordings": place.shape.recordings,
        "segments_of_a_recording": place.shape.segments,
        "bytes": sum(file.stat().st_size for file in place.generation.iterdir()),
        "new_songs": place.new_songs,
        "indexed": report["indexed"],
        "instrumental": report["instrumental"],
        "audio_s": report["audio_seconds"],
        "own_s": round(own_s, 2),
        "own_cpu_s": round(alone.cpu_s, 2),
        "beyond_own_s": round(told.seconds - own_s, 2),
        **of(told),
        "stages_s": report["stages"],
        "unchanged": before,
    }


def new_songs(real: Path, folder: Path, n: int) -> None:
    """Stretches of real songs, each other ones than all before."""
    folder.mkdir(parents=True)
    paths = sorted((*real.glob("*.mp3"), *real.glob("*.ogg")))
    rng = np.random.default_rng()
    for number in range(n):
        path = paths[number % len(paths)]
        with soundfile.SoundFile(path) as song:
            length = int(NEW_S * song.samplerate)
            song.seek(int(rng.integers(0, max(1, song.frames - length))))
            samples = song.read(length, dtype="float32", always_2d=True)
            soundfile.write(folder / f"{number:03}.flac", samples, song.samplerate)


def cold(place: Place) -> Figures:
    """Queries by new processes, the library's bytes in memory or not; then by one that runs."""
    made = place.fill()
    with song_of_three_minutes(place.songs) as song:
        ask = ("query", song, "--json")
        place.run(*ask)
        figures: Figures = {"warm_pages": [of(place.run(*ask)) for _ in range(3)]}
        drop_pages(place.library)
        figures["cold_pages"] = of(place.run(*ask))
        (place.library / VERIFIED).unlink()
        figures["never_compared_warm_pages"] = of(place.run(*ask))
        (place.library / VERIFIED).unlink()
        drop_pages(place.library)
        figures["never_compared_cold_pages"] = of(place.run(*ask))
        drop_pages(place.library)
        figures["lyrics_cold_pages"] = of(place.run("lyrics", "the sun goes down on me tonight"))
    return {**figures, "recordings": place.shape.recordings, "answers": answers(place, made)}


def drop_pages(folder: Path) -> None:
    """Let the system forget what files in a folder hold, as a start of the machine would."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
                os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(handle)


def answers(place: Place, made: Made) -> Figures:
    """Times of ``Library.rank`` for versions that are not in the library."""
    shape = place.shape
    works = np.random.default_rng(3).integers(1, shape.recordings // shape.versions, QUERIES + 3)
    queries = [made.heard(work, shape.versions) for work in works.tolist()]
    times_ms, cpu_ms, found = [], [], 0
    with open_library(place.library) as library:
        for work, query in zip(works.tolist(), queries, strict=True):
            began, used = time.perf_counter(), time.process_time()
            hits = library.rank(query, k=1)
            times_ms.append(1000 * (time.perf_counter() - began))
            cpu_ms.append(1000 * (time.process_time() - used))
            found += hits[0].recording_id in _ids_of(work, shape)
    return {
        "queries": QUERIES,
        "first_ms": round(times_ms[0], 1),
        "median_ms": round(float(np.median(times_ms[3:])), 1),
        "p95_ms": round(float(np.quantile(times_ms[3:], 0.95)), 1),
        "median_cpu_ms": round(float(np.median(cpu_ms[3:])), 1),
        "hr1": round(found / len(works), 3),
    }


def _ids_of(work: int, shape: Shape) -> set[str]:
    numbers = range(work * shape.versions, (work + 1) * shape.versions)
    return {f"{large.recording_id(large.content(number)):016x}" for number in numbers}


def damage(place: Place) -> Figures:
    """A flipped byte in a large library: who notices, and when."""
    place.fill()
    names = ("segments.lyrics.00.vectors.npy", "transcripts.lyrics.npy", "catalog.duckdb")
    figures: Figures = {}
    with song_of_three_minutes(place.songs) as song:
        for name in names:
            path = place.generation / name
            flip(path)
            told = place.run("query", song, expected=(1,))
            if name not in told.stderr:
                raise SystemExit(f"the query failed of something else: {told.stderr}")
            figures[name] = of(told)
            flip(path)
        place.run("query", song)  # compares again what was mended, and remembers
        # A disk that forgets changes no times: to the system the file is as it was.
        path = place.generation / names[0]
        with forgotten(place.library, path):
            figures["without_trace"] = {
                "query": of(place.run("query", song)),
                "check": of(told := place.run("check", "--json", expected=(1,))),
                "check_named_it": names[0] in told.stderr,
            }
        place.run("query", song)
    return {**figures, "recordings": place.shape.recordings}


def flip(path: Path) -> None:
    """Change one byte in the middle of a file, or change it back."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


@contextmanager
def forgotten(library: Path, path: Path) -> Iterator[None]:
    """A byte is another one, and the library's note of what was compared believes the file."""
    before = (library / VERIFIED).read_bytes()
    flip(path)
    status = path.stat()
    notes = json.loads(before)
    looks = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    notes[f"{path.parent.name}/{path.name}"][:4] = looks
    (library / VERIFIED).write_text(json.dumps(notes))
    try:
        yield
    finally:
        flip(path)


def upkeep(place: Place) -> Figures:
    """The other commands, on a large library."""
    place.fill()
    figures: Figures = {
        "status": of(place.run("status", "--json")),
        "dry_run": of(place.run("build", "--dry-run", "--json")),
        "check": of(place.run("check", "--json")),
        # Of the made files no one is audio, and every one is looked at.
        "check_read_5": of(place.run("check", "--read-data", "5", "--json", expected=(0, 1))),
    }
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        tables = Path(folder) / "tables"
        figures["export_tables"] = of(place.run("export", tables, "--no-vectors"))
        vectors = Path(folder) / "vectors"
        figures["export_all"] = of(place.run("export", vectors))
        figures["exported_bytes"] = sum(file.stat().st_size for file in vectors.iterdir())
    if len(list((place.library / "published").iterdir())) > 1:
        number = place.generation.name
        figures["rollback"] = of(place.run("rollback"))
        place.run("rollback", str(int(number)))
    return {**figures, "recordings": place.shape.recordings}


def groups(place: Place) -> Figures:
    """What groups and news take for a recording."""
    place.fill()
    with open_library(place.library) as library:
        ids = np.random.default_rng(0).permutation(library.recording_ids())[:QUERIES].tolist()
        began_s, used_s = time.perf_counter(), time.process_time()
        near = neighbours(library, ids, PairOptions())
        used_s = time.process_time() - used_s
        seconds = time.perf_counter() - began_s
    return {
        "recordings": place.shape.recordings,
        "asked": len(ids),
        "partners": sum(map(len, near.values())),
        "cpu_s_a_recording": round(used_s / len(ids), 4),
        "seconds_a_recording": round(seconds / len(ids), 4),
        "cpu_hours_for_all": round(used_s / len(ids) * place.shape.recordings / 3600, 2),
    }


def long(place: Place) -> Figures:
    """Short tracks without end, and the next night over them."""
    folder, library = place.folder / "shorts", place.folder / "short-library"
    shorts.make_tracks(place.songs, folder, place.tracks)
    shutil.rmtree(library, ignore_errors=True)
    log = place.folder / "shorts.log"
    return shorts.watch(folder, library, log, jobs=2, max_hours=place.max_hours).figures()


def unchanged(place: Place) -> Figures:
    """A night over what ``long`` indexed."""
    return quiet_night(place.folder / "short-library")


def quiet_night(library: Path) -> Figures:
    """A night without anything new, and whether it left everything as it was."""
    files = (library / "library.duckdb", library / CURRENT)
    before = [(path.stat().st_mtime_ns, path.stat().st_size) for path in files]
    told = run_product("build", "--json", "--normal-priority", "--library", library)
    if told.returncode != 0:
        raise SystemExit(f"the build failed:\n{told.stderr}")
    report = json.loads(told.stdout)
    return {
        **of(told),
        **{name: report[name] for name in ("seen", "indexed", "instrumental", "reused")},
        "decodes": report["stages"].get("decode", 0),
        "untouched": before == [(path.stat().st_mtime_ns, path.stat().st_size) for path in files],
        "stages_s": report["stages"],
    }


PARTS: dict[str, Callable[[Place], Figures]] = {
    part.__name__: part for part in (night, cold, damage, upkeep, groups, long, unchanged)
}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="for libraries; it is kept")
    parser.add_argument("--recordings", type=int, default=200_000)
    parser.add_argument("--segments", type=int, default=4, help="of a made recording")
    parser.add_argument("--new-songs", type=int, default=100, help="of a night")
    parser.add_argument("--tracks", type=int, default=50_000, help="of the long run")
    parser.add_argument("--max-hours", type=float, default=24.0, help="of the long run")
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="all, unless named")
    options = parser.parse_args()
    songs = data_folder(options, "sung") / "sung"
    bundle = bundle_of(options)
    place = Place(options.folder.absolute(), bundle, songs, options)
    for name in options.parts or PARTS:
        found = PARTS[name](place)
        print_table([(name, ""), *((key, str(value)) for key, value in found.items())])
        figures = {"model": model_facts(bundle), **found}
        write_result(f"nights-{name}", figures, options.out, program="nights")


if __name__ == "__main__":
    main()
