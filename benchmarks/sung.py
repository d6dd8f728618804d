"""Are versions found? ``python -m benchmarks.sung FOLDER``

FOLDER was rendered by ``python -m catalogs render``, or is ``catalogs/demo`` (``works.csv`` alone;
its result is named after the folder). Every sung version asks for the other versions
of its work among all recordings of a library built from it: HR@1, MAP@10, MR1, over all queries
and by the engine of the query's voice. Rankings are by track vectors alone, by pairs of segments
alone, by both, by what was read alone, and as ``livi-index query`` does it; what is no candidate
comes after the candidates, in the order of the track vectors.

Recordings without singing are distractors, also where they play the tune of a work. A sung version
that the detector sets aside, or that cannot be read, can be neither found nor asked: it is the
last of all rankings, and its own query finds its versions last. Nothing is fitted here.
"""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from catalogs import Entry
from catalogs.sung import read_entries
from livi_index.build import BuildOptions, build
from livi_index.library import SPACE, Library, open_library
from livi_index.metrics import QueryResults, rank_scores, summarise
from livi_index.models import Bundle
from livi_index.ranking import Heard, RankOptions

LAST, NOT_LAST = -9e3, -8e3  # scores of what is not in the library, and of its non-versions
NEVER = 1e9  # a score that nothing has
BEHIND = 1e3  # what is no candidate scores its cosine less this

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Split:
    """The recordings that ask and answer, N of them, in the order of their ids.

    ``numbers`` are their recording ids in the library, 0 for those that it cannot find; ``works``
    are unique for what only distracts; ``asks`` marks the queries.
    """

    ids: list[str]
    works: list[str]
    engines: list[str]
    numbers: NDArray[np.int64]
    asks: NDArray[np.bool_]


@dataclass(frozen=True)
class Cosines:
    """Mean and standard deviation of cosines."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: FloatArray) -> Cosines:
        return cls(float(values.mean()), float(values.std()), len(values))


def split_of(library: Library, entries: Sequence[Entry], engines: dict[str, str]) -> Split:
    """Heard versions, found or not, and of the others those that the library took for sung."""
    known = set(library.generation.recording_ids(SPACE).tolist())
    rows = []
    for entry in sorted(entries, key=lambda entry: entry.recording_id):
        number = library.generation.recording_at(entry.path.absolute()) or 0
        number = number if number in known else 0
        if entry.kind == "sung" or number:
            rows.append((entry, number))
    return Split(
        ids=[entry.recording_id for entry, _ in rows],
        works=[e.work_id if e.kind == "sung" else f"none-{e.recording_id}" for e, _ in rows],
        engines=[engines.get(entry.recording_id, "") for entry, _ in rows],
        numbers=np.array([number for _, number in rows], np.int64),
        asks=np.array([entry.kind == "sung" for entry, _ in rows]),
    )


def rank(library: Library, split: Split, options: RankOptions) -> QueryResults:
    """Every query against all others."""
    there = np.flatnonzero(split.numbers)
    by_number = there[np.argsort(split.numbers[there])]
    tracks = library.generation.recording_vectors(split.numbers[there], SPACE)
    row_of = {int(row): place for place, row in enumerate(there)}
    queries = np.flatnonzero(split.asks)
    works = np.array(split.works)

    def scores(rows: NDArray[np.int64]) -> FloatArray:
        block = np.full((len(rows), len(split.ids)), LAST, np.float32)
        for line, query in zip(block, queries[rows], strict=True):
            if query not in row_of:
                line[works != works[query]] = NOT_LAST
                continue
            line[there] = tracks @ tracks[row_of[query]] - BEHIND
            number = int(split.numbers[query])
            heard = library.stored(number)
            found = library.score(heard, options, space=SPACE, without=(number,))
            place = np.searchsorted(split.numbers[by_number], found.recording_ids)
            line[by_number[place]] = found.scores
        return block

    asked = works[queries].tolist(), [split.ids[query] for query in queries]
    return rank_scores(scores, *asked, split.works, split.ids)


def figures_of(results: QueryResults, split: Split) -> dict[str, Any]:
    """Averages with their intervals, and by the engine of the query's voice."""
    scores = summarise(results, n_items=len(split.ids), n_missing=0)
    engines = np.array(split.engines)[split.asks]
    by_engine = {}
    for engine in sorted(set(engines.tolist()) - {""}):
        chosen = (engines == engine) & results.answerable
        by_engine[engine] = {
            "queries": int(chosen.sum()),
            "hr1": float(results.hit(1)[chosen].mean()),
            "map10": float(results.ap_at_cut[chosen].mean()),
            "mr1_mean": float(results.first_rank[chosen].mean()),
        }
    return {**scores.as_json(), "by_engine": by_engine}


def cosines(library: Library, split: Split) -> dict[str, Any]:
    """Cosines within and between works: of tracks, and of segments.

    Within a work, a segment is compared with the best one of another version; between works, with
    all segments of a recording drawn at random.
    """
    chosen = np.flatnonzero(split.asks & (split.numbers > 0))
    of = [library.stored(int(number))[SPACE] for number in split.numbers[chosen]]
    tracks = library.generation.recording_vectors(split.numbers[chosen], SPACE)
    works = np.array(split.works)[chosen]
    same = works[:, None] == works
    above = np.triu(np.ones_like(same), 1).astype(bool)
    track = tracks @ tracks.T
    rng = np.random.default_rng(0)
    within = [_best(of[a], of[b]) for a, b in np.argwhere(same & above)]
    others = np.argwhere(~same & above)
    drawn = rng.permutation(others)[:2000]
    between = [(of[a].vectors @ of[b].vectors.T).ravel() for a, b in drawn]
    return {
        "track_within": asdict(Cosines.of(track[same & above])),
        "track_between": asdict(Cosines.of(track[~same & above])),
        "segment_within_best": asdict(Cosines.of(np.concatenate(within))),
        "segment_between": asdict(Cosines.of(np.concatenate(between))),
        "segments_per_recording": float(np.mean([len(sung.vectors) for sung in of])),
    }


def phones_per_s(library: Library, split: Split) -> float:
    """How many phones are read in a second of the sung versions, from start to end."""
    numbers = split.numbers[split.asks & (split.numbers > 0)]
    known = library.generation.metadata(numbers.tolist())
    read = library.generation.transcripts_of(numbers, SPACE)
    return sum(map(len, read)) / sum(info.duration_s for info in known.values())


def _best(one: Heard, other: Heard) -> FloatArray:
    best: FloatArray = (one.vectors @ other.vectors.T).max(axis=1)
    return best


def list_of(folder: Path) -> Path:
    """The table of a folder's recordings, for ``livi-index build --list`` too."""
    entries = folder / "entries.csv"
    return entries if entries.exists() else folder / "works.csv"


def entries_of(folder: Path) -> list[Entry]:
    """What a folder holds; where there are only works, everything is sung."""
    listed = list_of(folder)
    if listed.name == "entries.csv":
        return read_entries(listed)
    with listed.open(newline="", encoding="utf-8") as rows:
        return [
            Entry(Path(row["path"]).stem, row["work"], folder / row["path"], "", "", "test")
            for row in csv.DictReader(rows)
        ]


def engines_of(folder: Path) -> dict[str, str]:
    """The voice's engine of each recording, from the manifest; nothing where there is none."""
    if not (folder / "manifest.jsonl").exists():
        return {}
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["recording_id"]: row["voice"]["engine"] for row in rows if row["voice"]}


@contextmanager
def library_of(folder: Path, bundle: Bundle, kept: Path | None) -> Iterator[Library]:
    """The library of a rendered folder, built where it is not there yet."""
    with tempfile.TemporaryDirectory() as place:
        library = kept or Path(place) / "library"
        files = BuildOptions(files=list_of(folder), model=str(bundle.path))
        build([], library, files)
        with open_library(library, model=bundle) as opened:
            yield opened


def rankings() -> dict[str, RankOptions]:
    """The ablation: what each ranking counts; all are candidates where only one kind counts."""
    everything = 1_000_000
    return {
        "tracks": RankOptions(everything, align=False, track_weight=1.0, crowding=0.0),
        "pairs": RankOptions(everything, align=False, track_weight=0.0, crowding=0.0),
        "vectors": RankOptions(align=False),
        "transcripts": RankOptions(everything, relay_from=NEVER),
        "default": RankOptions(),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "folder", type=Path, help="with entries.csv and manifest.jsonl, or works.csv"
    )
    parser.add_argument("--library", type=Path, help="keep the library here")
    options = parser.parse_args()
    bundle = bundle_of(options)
    entries = entries_of(options.folder)
    with library_of(options.folder, bundle, options.library) as library:
        split = split_of(library, entries, engines_of(options.folder))
        found = {
            name: figures_of(rank(library, split, how), split) | {"options": asdict(how)}
            for name, how in rankings().items()
        }
        figures = {"model": model_facts(bundle), **_coverage(entries, split), "rankings": found}
        figures["cosines"] = cosines(library, split)
        figures["phones_per_s"] = phones_per_s(library, split)
    whole = list_of(options.folder).name == "entries.csv"
    name = "sung" if whole else options.folder.name
    write_result(name, figures, options.out, program="sung")
    _print(figures)


def _coverage(entries: Sequence[Entry], split: Split) -> dict[str, int]:
    return {
        "works": len({entry.work_id for entry in entries if entry.kind == "sung"}),
        "queries": int(split.asks.sum()),
        "sung_not_indexed": int((split.numbers[split.asks] == 0).sum()),
        "without_singing": sum(entry.kind != "sung" for entry in entries),
        "without_singing_not_set_aside": int((~split.asks).sum()),
    }


def _print(figures: dict[str, Any]) -> None:
    rows: list[tuple[str | float, ...]] = [("ranking", "HR@1", "MAP@10", "MR1")]
    for name, found in figures["rankings"].items():
        mean = found["answerable"]
        rows.append((name, mean["hr1"], mean["map10"], mean["mr1_mean"]))
        for engine, part in found["by_engine"].items():
            rows.append((f"  {engine}", part["hr1"], part["map10"], part["mr1_mean"]))
    print_table(rows)
    print_table([(name, figures[name]) for name in figures if isinstance(figures[name], int)])
    kinds = [
        (k, v["mean"], v["std"]) for k, v in figures["cosines"].items() if "_w" in k or "_b" in k
    ]
    print_table([("cosines", "mean", "std"), *kinds])


if __name__ == "__main__":
    main()
