"""Any systems on any catalogue: ``python -m benchmarks.run --systems NAME… --catalog [NAME] ROOT``

ROOT alone is a folder with ``works.csv`` or ``entries.csv`` such as ``catalogs/demo``; NAME is a
data set of ``catalogs`` whose audio lies below ROOT. Without ``--systems`` all are measured:
``livi`` (``--model``) and those of ``baselines.systems``, whose weights lie below ``--weights`` or
``LIVI_WEIGHTS``.

Every recording asks for the others of its work. It is decoded once and heard by all systems; those
that cannot be read, are not there, or of which a system has no vector, take no part and lower its
coverage. Scores are by the system's native comparison of segments, where it has one, and by mean
vectors and cosine. One result file for each system; without weights it says where they are to be
had, and holds no score.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.distances import Recordings
from benchmarks.baselines.systems import NOT_AVAILABLE, ROWS, Row, System, row_of
from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from catalogs import Entry
from catalogs.datasets import dataset
from livi_index.audio import decode
from livi_index.errors import BadInput, LiviError, UnreadableAudio
from livi_index.metrics import evaluate, rank_scores, summarise

LIVI = "livi"
MAX_S = 600.0  # of a recording that is heard, as the reference measures

FloatArray = NDArray[np.float32]


@dataclass
class Contestant:
    """A system at work: the vectors of the recordings it has heard, and the time it took."""

    row: Row | None  # None for LIVI
    system: System
    facts: dict[str, Any]
    vectors: dict[int, FloatArray] = field(default_factory=dict)  # (S, D) by number of the entry
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def name(self) -> str:
        return LIVI if self.row is None else self.row.name

    def hear(self, number: int, samples: FloatArray) -> None:
        with self.timed("front_end"):
            features = self.system.features(samples)
        with self.timed("network"):
            vectors = self.system.vectors(features)
        if len(vectors):
            self.vectors[number] = vectors

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - began


@dataclass
class Heard:
    """What became of the recordings of a catalogue."""

    audio_s: float = 0.0
    decode_s: float = 0.0
    without: Counter[str] = field(default_factory=Counter)  # recordings that gave no sound, by why


def contestant(name: str, options: argparse.Namespace) -> Contestant:
    """A system, opened. Raises BadInput, BadModel."""
    if name == LIVI:
        from benchmarks.baselines.livi import Livi

        bundle = bundle_of(options)
        return Contestant(None, Livi(bundle), {"model": model_facts(bundle)})
    row = row_of(name)
    facts: dict[str, Any] = {}
    if row.weights is not None and options.weights is not None:
        path = options.weights / row.weights
        with path.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        facts["weights"] = {"file": row.weights, "sha256": sha256}
    return Contestant(row, row.open(options.weights, options.device), facts)


def listen(entries: Sequence[Entry], contestants: Sequence[Contestant], max_s: float) -> Heard:
    """Decode every recording once and let all systems hear it."""
    heard = Heard()
    for number, entry in enumerate(entries):
        began = time.perf_counter()
        try:
            audio = decode(entry.path, max_s=max_s)
        except UnreadableAudio as error:
            heard.without[error.code] += 1
            continue
        heard.decode_s += time.perf_counter() - began
        heard.audio_s += audio.duration_s
        for one in contestants:
            one.hear(number, audio.samples)
    return heard


def figures_of(one: Contestant, entries: Sequence[Entry], heard: Heard) -> dict[str, Any]:
    """Scores both ways, coverage, and what they cost."""
    numbers = sorted(one.vectors)
    works = [entries[number].work_id for number in numbers]
    ids = [entries[number].recording_id for number in numbers]
    n_missing = len(entries) - len(numbers)
    scores: dict[str, Any] = {}
    with one.timed("ranking"):
        if numbers:
            recordings = Recordings([one.vectors[number] for number in numbers])
            mean = evaluate(recordings.means(), works, ids=ids, n_missing=n_missing)
            scores["mean cosine"] = mean.as_json()
        if numbers and one.row is not None and one.row.measure is not None:
            native = recordings.scores(one.row.measure)
            ranked = rank_scores(native, works, ids, works, ids)
            found = summarise(ranked, n_items=len(numbers), n_missing=n_missing)
            scores[str(one.row.measure)] = found.as_json()
    shapes = [vectors.shape for vectors in one.vectors.values()]
    return {
        "status": "measured",
        **one.facts,
        "n_parameters": one.system.n_parameters,
        "dim": shapes[0][1] if shapes else None,
        "segments_per_recording": float(np.mean([n for n, _ in shapes])) if shapes else None,
        "without_sound": dict(heard.without),
        "without_vectors": n_missing - heard.without.total(),
        "audio_s": heard.audio_s,
        "seconds": {"decode": heard.decode_s, **one.seconds},
        "scores": scores,
    }


def catalogue(words: Sequence[str], metadata: Path | None) -> tuple[str, list[Entry]]:
    """``[NAME] ROOT`` → what results are named after, and the recordings. Raises BadInput."""
    if len(words) > 2:
        raise BadInput(f"--catalog takes a folder, or a data set and its folder, not {words}")
    root = Path(words[-1])
    name = words[0] if len(words) == 2 else "plain"
    entries = dataset(name).read(root, metadata=metadata, whole=False)
    return (name if len(words) == 2 else root.resolve().name), entries


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The figures of each system by its name."""
    catalog, entries = catalogue(options.catalog, options.metadata)
    names = options.systems or [LIVI, *(row.name for row in ROWS)]
    known = [row_of(name) for name in names if name != LIVI]
    lacking = {row.name: row for row in known if row.missing(options.weights)}
    size = {"recordings": len(entries), "works": len({entry.work_id for entry in entries})}
    about = {"catalog": catalog, **size, "max_s": options.max_seconds, "device": options.device}
    contestants = [contestant(name, options) for name in names if name not in lacking]
    heard = listen(entries, contestants, options.max_seconds)
    figures = {one.name: figures_of(one, entries, heard) for one in contestants}
    for name, row in lacking.items():
        figures[name] = {"status": NOT_AVAILABLE, "get": row.missing(options.weights)}
    for name in names:
        system = {"system": name, **about, **figures[name]}
        write_result(f"run-{catalog}-{name}", system, options.out, program="run")
    return {name: figures[name] for name in names}


def main() -> None:
    parser = arguments(__doc__)
    place = os.environ.get("LIVI_WEIGHTS")
    known = ", ".join([LIVI, *(row.name for row in ROWS)])
    parser.add_argument("--systems", nargs="*", default=[], metavar="NAME", help=known)
    parser.add_argument("--catalog", nargs="+", required=True, metavar="[NAME] ROOT")
    parser.add_argument("--metadata", type=Path, help="where its lists lie, if not below ROOT")
    parser.add_argument("--weights", type=Path, default=Path(place) if place else None)
    parser.add_argument("--device", default="cpu", help="of the networks, such as cuda")
    parser.add_argument("--max-seconds", type=float, default=MAX_S, help="of each recording")
    try:
        figures = measure(parser.parse_args())
    except LiviError as error:
        raise SystemExit(str(error)) from None
    table: list[tuple[str | float | None, ...]] = [
        ("system", "comparison", "MR1", "HR@1", "MAP@10", "coverage")
    ]
    for name, found in figures.items():
        for kind, scores in found.get("scores", {}).items():
            mean = scores["answerable"]
            cells = mean["mr1_mean"], mean["hr1"], mean["map10"], scores["coverage"]
            table.append((name, kind, *cells))
    print_table(table)
    for name, found in figures.items():
        if found["status"] == NOT_AVAILABLE:
            print(f"{name}: {NOT_AVAILABLE}: {found['get']}")


if __name__ == "__main__":
    main()
