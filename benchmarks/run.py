"""Any systems on any catalogue: ``python -m benchmarks.run --systems NAME… --catalog [NAME] ROOT``

ROOT alone is a folder with ``works.csv`` or ``entries.csv`` such as ``catalogs/demo``; NAME is a
data set of ``catalogs`` whose audio lies below ROOT. Without ``--systems`` all are measured: those
of ``baselines.systems``, whose weights lie below ``--weights`` or ``LIVI_WEIGHTS``; ``livi`` is the
bundle that ``--model`` names. The text rows read the words that the catalogue tells, in that
bundle's space of texts, or with ``--whisper`` and ``--text-encoder`` what is heard.

Every recording asks for the others of its work. It is decoded once and heard by all systems; those
that cannot be read, are not there, or of which a system has no vector, take no part and lower its
coverage. Scores are by the system's native comparison of segments, where it has one, and by mean
vectors and cosine. One result file for each system; without weights it says where they are to be
had, and holds no score.

With ``--keep FOLDER`` the vectors of every recording stay there, under the weights that made them:
a run that was stopped goes on, and loses the recording that it was at.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.baselines.distances import Recordings
from benchmarks.baselines.systems import NOT_AVAILABLE, ROWS, Row, System, row_of
from benchmarks.baselines.texts import Words
from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from catalogs import Entry
from catalogs.datasets import dataset, write_csv
from catalogs.jamendo_lyrics import Line
from catalogs.lyrics import lines_of
from livi_index.audio import decode
from livi_index.errors import BadInput, LiviError, UnreadableAudio
from livi_index.metrics import evaluate, rank_scores, summarise
from livi_index.models import open_bundle

if TYPE_CHECKING:
    from livi_index.build import BuildReport

MAX_S = 600.0  # of a recording that is heard, as the reference measures
TEXT_ROWS = {"t_global": False, "t_local": True}  # and whether by half minutes
LIVI = ("livi", "livi-paper")
PRODUCT = "livi-index"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Catalogue:
    """``name`` is what results are named after; ``lines`` are words by recording, where known."""

    name: str
    entries: list[Entry]
    lines: Mapping[str, Sequence[Line]]


@dataclass
class Contestant:
    """A system at work: the vectors of the recordings it has heard, and the time it took.

    ``weights`` tells apart what is kept; ``reads`` is for systems that want words, not sound.
    """

    row: Row
    system: System
    facts: dict[str, Any]
    weights: str
    reads: bool = False
    vectors: dict[int, FloatArray] = field(default_factory=dict)  # (S, D) by number of the entry
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    without: Counter[str] = field(default_factory=Counter)  # recordings that gave nothing, by why
    audio_s: float = 0.0
    kept: int = 0  # recordings that an earlier run heard

    def hear(self, heard: Any) -> dict[str, Any]:
        """What becomes of a recording, to be kept and counted."""
        seconds: defaultdict[str, float] = defaultdict(float)
        with timed(seconds, "front_end"):
            features = self.system.features(heard)
        with timed(seconds, "network"):
            vectors = self.system.vectors(features)
        return {"vectors": np.asarray(vectors, np.float32), **seconds}

    def count(self, number: int, told: dict[str, Any]) -> None:
        for stage in ("decode", "front_end", "network"):
            if stage in told:
                self.seconds[stage] += float(told[stage])
        self.audio_s += float(told.get("audio_s", 0.0))
        if len(told["vectors"]):
            self.vectors[number] = told["vectors"]
        else:
            self.without["no_vector"] += 1


@contextmanager
def timed(seconds: defaultdict[str, float], stage: str) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - began


@dataclass(frozen=True)
class Kept:
    """What systems made of recordings, in a folder, or nowhere."""

    folder: Path | None

    def place(self, one: Contestant, entry: Entry, max_s: float, words: Any) -> Path | None:
        """Where it is; a file that was changed, or other words, have another place."""
        if self.folder is None:
            return None
        try:
            about = entry.path.stat()
            what = (os.fspath(entry.path.absolute()), about.st_size, about.st_mtime_ns, max_s)
        except OSError:
            what = (os.fspath(entry.path.absolute()), 0, 0, max_s)
        name = hashlib.blake2b(repr((what, words)).encode(), digest_size=12).hexdigest()
        weights = hashlib.blake2b(one.weights.encode(), digest_size=6).hexdigest()
        return self.folder / f"{one.row.name}-{weights}" / f"{name}.npz"

    def read(self, place: Path | None) -> dict[str, Any] | None:
        if place is None or not place.is_file():
            return None
        with np.load(place) as found:
            return {name: found[name] for name in found.files}

    def write(self, place: Path | None, told: dict[str, Any]) -> None:
        if place is not None:
            place.parent.mkdir(parents=True, exist_ok=True)
            part = place.with_suffix(".part")
            with part.open("wb") as file:
                np.savez(file, **told)
            part.replace(place)


def contestant(row: Row, options: argparse.Namespace) -> Contestant:
    """A system, opened. Raises BadInput, BadModel."""
    if row.name in LIVI:
        from benchmarks.baselines.livi import Livi

        bundle = bundle_of(options)
        if row.weights is not None:
            bundle = open_bundle((options.weights / row.weights).parent)
        facts: dict[str, Any] = {"model": model_facts(bundle)}
        return Contestant(row, Livi(bundle), facts, bundle.card.model_id)
    if row.name in TEXT_ROWS:
        from benchmarks.baselines.texts import open_row

        texts = open_row(options, local=TEXT_ROWS[row.name])
        return Contestant(row, texts, texts.facts, texts.identity, reads=True)
    facts, digest = {}, "none"
    if row.weights is not None and options.weights is not None:
        with (options.weights / row.weights).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts["weights"] = {"file": row.weights, "sha256": digest}
    return Contestant(row, row.open(options.weights, options.device), facts, digest)


def listen(
    catalogue: Catalogue, contestants: Sequence[Contestant], max_s: float, kept: Kept
) -> None:
    """Let all systems hear every recording that they have not heard; it is decoded once."""
    for number, entry in enumerate(catalogue.entries):
        words = Words(entry.path, catalogue.lines.get(entry.recording_id, ()))
        new: list[tuple[Contestant, Path | None]] = []
        for one in contestants:
            place = kept.place(one, entry, max_s, words if one.reads else None)
            if (told := kept.read(place)) is not None:
                one.kept += 1
                one.count(number, told)
            else:
                new.append((one, place))
        listeners = [one for one, _ in new if not one.reads]
        sound = _decoded(entry, max_s, listeners) if listeners else None
        for one, place in new:
            if one.reads:
                told = one.hear(words)
            elif sound is not None:
                told = one.hear(sound["samples"]) | sound
                del told["samples"]
            else:
                continue
            kept.write(place, told)
            one.count(number, told)


def _decoded(entry: Entry, max_s: float, listeners: Sequence[Contestant]) -> dict[str, Any] | None:
    began = time.perf_counter()
    try:
        audio = decode(entry.path, max_s=max_s)
    except UnreadableAudio as error:
        for one in listeners:
            one.without[error.code] += 1
        return None
    seconds = time.perf_counter() - began
    return {"samples": audio.samples, "decode": seconds, "audio_s": audio.duration_s}


def figures_of(one: Contestant, entries: Sequence[Entry]) -> dict[str, Any]:
    """Scores both ways, coverage, and what they cost."""
    numbers = sorted(one.vectors)
    works = [entries[number].work_id for number in numbers]
    ids = [entries[number].recording_id for number in numbers]
    n_missing = len(entries) - len(numbers)
    scores: dict[str, Any] = {}
    with timed(one.seconds, "compare"):
        if numbers:
            recordings = Recordings([one.vectors[number] for number in numbers])
            mean = evaluate(recordings.means(), works, ids=ids, n_missing=n_missing)
            scores["mean cosine"] = mean.as_json()
        if numbers and one.row.measure is not None:
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
        "without": dict(one.without),
        "heard_by_an_earlier_run": one.kept,
        "audio_s": one.audio_s,
        "seconds": dict(one.seconds),
        "scores": scores,
    }


def product(catalogue: Catalogue, options: argparse.Namespace) -> dict[str, Any]:
    """A library is built and evaluated, as a user does it; stages of a build overlap."""
    from benchmarks.baselines.livi import Livi
    from livi_index.build import BuildOptions, build
    from livi_index.evaluation import evaluate_library, read_works
    from livi_index.library import open_library

    bundle = bundle_of(options)
    with tempfile.TemporaryDirectory() as place:
        files = Path(place) / "files.csv"
        with files.open("w", encoding="utf-8", errors="surrogateescape", newline="") as table:
            write_csv(catalogue.entries, table)
        name = f"library-{catalogue.name}-{bundle.card.model_id[:12]}"
        folder = (options.keep or Path(place)) / name
        report = build([], folder, BuildOptions(files=files, model=str(bundle.path)))
        seconds, audio_s = _with_earlier(folder.with_suffix(".json"), report)
        with open_library(folder, model=bundle) as library, timed(seconds, "compare"):
            found = evaluate_library(library, read_works(files), "query")
    return {
        "status": "measured",
        "model": model_facts(bundle),
        "n_parameters": Livi(bundle).n_parameters,
        "without": {why: n for why, n in found.missing.items() if n},
        "heard_by_an_earlier_run": report.reused,
        "audio_s": audio_s,
        "seconds": dict(seconds),
        "scores": {"query": found.scores.as_json()},
    }


def _with_earlier(place: Path, report: BuildReport) -> tuple[defaultdict[str, float], float]:
    """Seconds by stage and seconds of audio, those of earlier builds of the library too."""
    told = json.loads(place.read_text()) if place.exists() else {"seconds": {}, "audio_s": 0.0}
    seconds: defaultdict[str, float] = defaultdict(float, told["seconds"])
    for stage, more in report.stages.items():
        seconds[stage] += more
    audio_s: float = told["audio_s"] + report.audio_seconds
    place.write_text(json.dumps({"seconds": seconds, "audio_s": audio_s}))
    return seconds, audio_s


def catalogue_of(words: Sequence[str], metadata: Path | None, *, told: bool) -> Catalogue:
    """``[NAME] ROOT``; where ``told`` with the words, as far as they are known. Raises BadInput."""
    if len(words) > 2:
        raise BadInput(f"--catalog takes a folder, or a data set and its folder, not {words}")
    root = Path(words[-1])
    name = words[0] if len(words) == 2 else "plain"
    entries = dataset(name).read(root, metadata=metadata, whole=False)
    lines = lines_of(name, root, entries, metadata) if told else {}
    return Catalogue(name if len(words) == 2 else root.resolve().name, entries, lines)


def lacking(row: Row, catalogue: Catalogue, options: argparse.Namespace) -> str | None:
    """Why a system cannot be measured, with the remedy; None where it can."""
    if row.name in TEXT_ROWS and not catalogue.lines and options.whisper is None:
        return f"the words of {catalogue.name} are not known, and a transcriber is at {row.place}"
    return row.missing(options.weights)


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The figures of each system by its name; each is written when it is known."""
    rows = [row_of(name) for name in options.systems] or list(ROWS)
    told = any(row.name in TEXT_ROWS for row in rows)
    catalogue = catalogue_of(options.catalog, options.metadata, told=told)
    without = {row.name: why for row in rows if (why := lacking(row, catalogue, options))}
    heard = [row for row in rows if row.name not in {*without, PRODUCT}]
    contestants = [contestant(row, options) for row in heard]
    listen(catalogue, contestants, options.max_seconds, Kept(options.keep))
    found = {one.row.name: figures_of(one, catalogue.entries) for one in contestants}
    figures: dict[str, dict[str, Any]] = {}
    for row in rows:
        if row.name in without:
            figures[row.name] = {"status": NOT_AVAILABLE, "get": without[row.name]}
        else:
            figures[row.name] = found.get(row.name) or product(catalogue, options)
        _write(row.name, figures[row.name], catalogue, options)
    return figures


def _write(
    system: str, figures: dict[str, Any], catalogue: Catalogue, options: argparse.Namespace
) -> None:
    entries = catalogue.entries
    about = {
        "system": system,
        "catalog": catalogue.name,
        "recordings": len(entries),
        "works": len({entry.work_id for entry in entries}),
        "max_s": options.max_seconds,
        "device": options.device,
    }
    name = f"run-{catalogue.name}-{system}"
    write_result(name, {**about, **figures}, options.out, program="run")


def main() -> None:
    parser = arguments(__doc__)
    place = os.environ.get("LIVI_WEIGHTS")
    known = ", ".join(row.name for row in ROWS)
    parser.add_argument("--systems", nargs="*", default=[], metavar="NAME", help=known)
    parser.add_argument("--catalog", nargs="+", required=True, metavar="[NAME] ROOT")
    parser.add_argument("--metadata", type=Path, help="where its lists lie, if not below ROOT")
    parser.add_argument("--weights", type=Path, default=Path(place) if place else None)
    parser.add_argument("--whisper", help="what hears the words of text rows: a folder or a name")
    parser.add_argument("--text-encoder", help="their space: a folder, a name, a bundle")
    parser.add_argument("--device", default="cpu", help="of the networks, such as cuda")
    parser.add_argument("--max-seconds", type=float, default=MAX_S, help="of each recording")
    parser.add_argument("--keep", type=Path, help="vectors of recordings, to go on from")
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
