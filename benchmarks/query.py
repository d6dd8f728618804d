"""How long does an answer take? ``python -m benchmarks.query``

A library of 10,000 recordings is made of vectors with the cosines that ``benchmarks.sung`` measured
within and between works, and, for a model that reads, of transcripts as dense as it measured, half
of whose phones are not those of the work; where a model has a space of whole recordings, of vectors
in that too. Versions that are not in it ask it: from what is encoded of a query to its hits, with
metadata, in one process; median and 95th percentile. Then the whole of
``livi-index query`` on a file of 3 minutes: start, decoding, finding the singing, encoding,
answering. "Cold" means a new process; the system may hold the files in memory.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from benchmarks.processes import run_measured
from benchmarks.results import (
    RESULTS,
    ROOT,
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    read_result,
    write_result,
)
from livi_index.encoders import pool
from livi_index.errors import LibraryNotFound
from livi_index.generations import current
from livi_index.keeping import keep_bundle
from livi_index.library import SPACE, Library, open_library
from livi_index.models import Bundle
from livi_index.models import Space as ModelSpace
from livi_index.publishing import PublishedModel, PublishOptions, Space, publish
from livi_index.ranking import Heard
from livi_index.records import Analysis, Batch, FileRow, Recording
from livi_index.store import Store
from livi_index.transcripts import PHONE_DTYPE, Transcript

SONG_S = 180.0
BATCH = 500
PHONES = 40

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Shape:
    """What the vectors of the library are like; cosines are those of segments."""

    recordings: int = 10_000
    versions: int = 3  # of a work
    segments: int = 16  # of a recording: 3 minutes, a slice of 30 s every 10 s
    phones_per_s: float = 2.7  # read of a recording
    misread: float = 0.5  # mean share of the phones; a third of these is not read at all
    within: float = 0.6  # mean cosine of a segment with its counterpart in another version
    within_std: float = 0.0  # of the same from version to version: some are clearer than others
    between: float = 0.1  # mean cosine of segments of two works
    between_std: float = 0.1
    alike: float = 0.4  # mean cosine of windows of two versions in a space of whole recordings

    @property
    def seconds(self) -> float:
        """Of a recording."""
        return 30.0 + 10.0 * (self.segments - 1)

    def dim_used(self, dim: int) -> int:
        """The dimension in which chance alone gives that standard deviation."""
        spread = self.between_std / max(1e-6, 1 - self.between)
        return int(np.clip(1 / max(spread, 1e-3) ** 2, 8, dim))


class Made:
    """Vectors of any version of any work, each made when asked for and always the same."""

    def __init__(self, shape: Shape, dim: int, whole: ModelSpace | None = None) -> None:
        rng = np.random.default_rng(0)
        n_used = shape.dim_used(dim)
        self._shape, self._n_used, self.whole = shape, n_used, whole
        self._basis = np.linalg.qr(rng.normal(size=(dim, n_used)))[0].T.astype(np.float32)
        self._common = _unit(rng.normal(size=(1, n_used)))
        odds = 1 / np.arange(4, PHONES + 3)  # some phones are ten times as common as others
        self._odds = odds / odds.sum()

    @property
    def seconds(self) -> float:
        """Of a version."""
        return self._shape.seconds

    def clarity(self, work: int, version: int) -> float:
        """How clear a version is, 1 on average; a cosine has those of both as factors."""
        spread = min(
            0.95, np.sqrt(3 * (np.sqrt(1 + (self._shape.within_std / self._shape.within) ** 2) - 1))
        )
        return float(np.random.default_rng((5, work, version)).uniform(1 - spread, 1 + spread))

    def version(self, work: int, version: int) -> Heard:
        """Cosines are about ``within`` to the same segment of other versions, else ``between``."""
        shape = self._shape
        size = (shape.segments, self._n_used)
        words = _unit(np.random.default_rng((1, work)).normal(size=size))
        noise = _unit(np.random.default_rng((2, work, version)).normal(size=size))
        between = max(0.0, shape.between)
        within = min(0.95, between + (shape.within - between) * self.clarity(work, version) ** 2)
        mixed = (
            np.sqrt(between) * self._common
            + np.sqrt(max(0.0, within - between)) * words
            + np.sqrt(1 - within) * noise
        )
        start_s = 10 * np.arange(shape.segments, dtype=np.float32)
        ones = np.ones(shape.segments, np.float32)
        vectors = _unit(mixed @ self._basis)
        return Heard(vectors, start_s, start_s + 30, ones, self.transcript(work, version))

    def heard(self, work: int, version: int) -> dict[str, Heard]:
        """A version in every space."""
        found = {SPACE: self.version(work, version)}
        if self.whole is not None:
            found[self.whole.name] = self._played(work, version, self.whole)
        return found

    def _played(self, work: int, version: int, space: ModelSpace) -> Heard:
        last_s = self.seconds - space.window_s
        start_s = np.arange(0, last_s + 1, space.hop_s, dtype=np.float32)
        size = (len(start_s), space.dim)
        tune = _unit(np.random.default_rng((6, work)).normal(size=size))
        noise = _unit(np.random.default_rng((7, work, version)).normal(size=size))
        alike = self._shape.alike
        vectors = _unit(np.sqrt(alike) * tune + np.sqrt(1 - alike) * noise)
        return Heard(vectors, start_s, start_s + space.window_s, np.ones(len(start_s), np.float32))

    def transcript(self, work: int, version: int) -> Transcript:
        """What is read of a version: phones of its work, of which many are others or missing."""
        shape = self._shape
        n = round(shape.phones_per_s * shape.seconds)
        of_work, of_version = (
            np.random.default_rng(key) for key in ((3, work), (4, work, version))
        )
        read = np.zeros(n, PHONE_DTYPE)
        read["time_s"] = np.linspace(0, shape.seconds, n, endpoint=False)
        read["phone"] = of_work.choice(np.arange(1, PHONES), n, p=self._odds)
        wrong = of_version.random(n) < 1 - (1 - shape.misread) * self.clarity(work, version)
        others = of_version.choice(np.arange(1, PHONES), int(wrong.sum()), p=self._odds)
        read["phone"][wrong] = others
        return read[~wrong | (of_version.random(n) < 2 / 3)]


def make_library(folder: Path, bundle: Bundle, shape: Shape) -> Made:
    """Fill and publish a library, unless it is there already."""
    card = bundle.card
    dim = card.space(SPACE).dim
    clips = card.space(SPACE).clips
    reads = clips is not None and clips.alignment != ""
    whole = next((space for space in card.spaces if space.hop_s), None)
    made = Made(shape, dim, whole)
    try:
        with current(folder) as generation:
            if generation.counts["recordings"] == shape.recordings:
                return made
    except LibraryNotFound:
        pass
    keep_bundle(folder, bundle)
    with Store(folder) as store:
        for first in range(1, shape.recordings + 1, BATCH):
            last = min(first + BATCH, shape.recordings + 1)
            numbers = range(first, last)
            store.commit(made_batch(made, numbers, card.model_id, shape.versions, reads=reads))
        spaces = [Space(SPACE, dim), *([Space(whole.name, whole.dim)] if whole else [])]
        model = PublishedModel(card.model_id, card.name, card.version, tuple(spaces))
        publish(store, folder, model, PublishOptions(threads=1))
    return made


def made_batch(made: Made, numbers: range, model_id: str, versions: int, *, reads: bool) -> Batch:
    """Recordings of these numbers, which are also their ids, each at a path of its own."""
    files, recordings, analyses = [], [], []
    for number in numbers:
        path, title = Path(f"/music/{number:06}.mp3"), f"Song {number}"
        files.append(FileRow(path, Path("/music"), 1, 1, number, 1, number, title=title))
        recordings.append(Recording(number, number.to_bytes(32, "big"), made.seconds))
        for space, heard in made.heard(*divmod(number, versions)).items():
            read = heard.transcript if reads and space == SPACE else None
            vocal = np.full(len(heard.vectors), 0.9)
            vector = pool(heard.vectors, heard.weights)
            fixed = (number, model_id, space, 0.9, space == SPACE, False, "")
            times = (heard.start_s, heard.end_s, vocal, heard.weights)
            analyses.append(Analysis(*fixed, vector, *times, heard.vectors, read))
    return Batch(files=files, recordings=recordings, analyses=analyses)


def measure_answers(library: Library, made: Made, shape: Shape, n_queries: int) -> dict[str, Any]:
    """Times of ``Library.rank`` for versions that are not in the library."""
    n_works = shape.recordings // shape.versions
    works = np.random.default_rng(3).integers(1, n_works, size=n_queries + 5)
    # All made beforehand: threads that shared in making one would still be spinning in the next.
    queries = [made.heard(work, shape.versions) for work in works.tolist()]
    time.sleep(1)
    times_ms, found = [], 0
    for count, (work, query) in enumerate(zip(works.tolist(), queries, strict=True)):
        began = time.perf_counter()
        hits = library.rank(query)
        ended = time.perf_counter()
        if count >= 5:  # the first ones open the catalog and touch every page
            times_ms.append(1000 * (ended - began))
            found += int(hits[0].recording_id, 16) // shape.versions == work
    return {
        "queries": n_queries,
        "median_ms": float(np.median(times_ms)),
        "p95_ms": float(np.quantile(times_ms, 0.95)),
        "hr1": found / n_queries,
    }


@contextmanager
def song_of_three_minutes(sung: Path) -> Iterator[Path]:
    """The first 3 minutes of the first song that is so long, as an mp3 file."""
    for path in sorted(sung.glob("*.mp3")) + sorted(sung.glob("*.ogg")):
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
        if len(samples) >= SONG_S * rate:
            with tempfile.TemporaryDirectory() as place:
                song = Path(place) / "song.mp3"
                with soundfile.SoundFile(song, "w", rate, samples.shape[1]) as file:
                    file.write(samples[: round(SONG_S * rate)])
                yield song
            return
    raise SystemExit(f"{sung} holds no song of {SONG_S} s")


def measure_cold(library: Path, song: Path, times: int) -> dict[str, Any]:
    """Whole processes of ``livi-index query``."""
    command = [sys.executable, "-m", "livi_index", "query", str(song), "--json"]
    runs = [run_measured([*command, "--library", str(library)], cwd=ROOT) for _ in range(times)]
    if failed := [run for run in runs if run.returncode]:
        raise SystemExit(f"the query failed:\n{failed[0].stderr}")
    seconds = [run.seconds for run in runs]
    peak = max(run.peak_pss_bytes for run in runs)
    return {
        "times": times,
        "median_s": float(np.median(seconds)),
        "min_s": min(seconds),
        "max_s": max(seconds),
        "peak_pss_bytes": peak,
    }


def measured_shape(recordings: int, results: Path = RESULTS) -> Shape:
    """The cosines that ``benchmarks.sung`` found, the defaults where it has not run."""
    result = read_result("sung", results)
    if result is None:
        return Shape(recordings)
    found = result["figures"]["cosines"]
    within, between = found["segment_within_best"], found["segment_between"]
    shape = Shape(
        recordings,
        within=within["mean"],
        within_std=within["std"],
        between=between["mean"],
        between_std=between["std"],
    )
    density = result["figures"].get("phones_per_s")
    return replace(shape, phones_per_s=density) if density else shape


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--recordings", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--times", type=int, default=5, help="cold starts")
    parser.add_argument("--library", type=Path, help="keep the library here")
    options = parser.parse_args()
    songs = data_folder(options, "sung") / "sung"
    bundle, shape = bundle_of(options), measured_shape(options.recordings)
    with tempfile.TemporaryDirectory() as place:
        folder = options.library or Path(place) / "library"
        made = make_library(folder, bundle, shape)
        with open_library(folder) as library:
            answers = measure_answers(library, made, shape, options.queries)
        print_table([("ms", "median", "p95"), ("answer", answers["median_ms"], answers["p95_ms"])])
        figures = {"model": model_facts(bundle), "vectors": asdict(shape), "answer": answers}
        with song_of_three_minutes(songs) as song:
            figures["cold"] = measure_cold(folder, song, options.times)
    cold = figures["cold"]
    print_table([("s", "median", "max"), ("cold process", cold["median_s"], cold["max_s"])])
    write_result("query", figures, options.out)


def _unit(vectors: NDArray[Any]) -> FloatArray:
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


if __name__ == "__main__":
    main()
