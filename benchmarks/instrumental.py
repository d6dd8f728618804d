"""What a space of lyrics cannot do: ``python -m benchmarks.instrumental FOLDER INSTRUMENTALS``

FOLDER is a catalogue that was sung, such as ``python -m catalogs render`` writes; INSTRUMENTALS
holds versions of its works in which nobody sings, such as ``python -m catalogs instrumentals FOLDER
INSTRUMENTALS`` writes, or anybody's with ``entries.csv``. The paper leaves open what becomes of
them. Each instrumental version asks for the sung ones of its work, in three ways:

- as a build does it: without singing there is no vector, and the question is set aside;
- with the detector overruled: every half minute is heard as if it were sung, so that what the space
  itself makes of it is seen, beside what chance would find;
- by chroma, which needs no words.

Sung versions ask beside them, in the same ways.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.distances import Recordings
from benchmarks.baselines.livi import Livi
from benchmarks.baselines.systems import row_of
from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from benchmarks.run import MAX_S, Catalogue, Contestant, Kept, contestant, listen
from catalogs import Entry, plain
from livi_index.errors import BadInput, LiviError
from livi_index.metrics import rank_vectors, summarise
from livi_index.vocals import SegmentOptions

OVERRULED = "livi, detector overruled"
EVERYTHING = SegmentOptions(min_vocalness=0.0, window_threshold=0.0)


def ways(options: argparse.Namespace) -> list[Contestant]:
    """The three, each under a name of its own."""
    bundle = bundle_of(options)
    as_built = contestant(row_of("livi"), options)
    overruled = Contestant(
        replace(as_built.row, name="livi-overruled", title=OVERRULED),
        Livi(bundle, rule=EVERYTHING),
        as_built.facts,
        as_built.weights,
    )
    return [as_built, overruled, contestant(row_of("chroma-fourier"), options)]


def figures_of(one: Contestant, entries: Sequence[Entry], kind: str) -> dict[str, Any]:
    """How queries of a kind find the sung versions of their works, and how chance would."""
    items = [n for n in sorted(one.vectors) if entries[n].kind == "sung"]
    asked = [n for n, entry in enumerate(entries) if entry.kind == kind]
    queries = [n for n in asked if n in one.vectors]
    told: dict[str, Any] = {
        "queries": len(asked),
        "set_aside": len(asked) - len(queries),
        "items": len(items),
    }
    if not queries or not items:
        return told
    vectors = [Recordings([one.vectors[n] for n in part]).means() for part in (queries, items)]
    labels = [
        [[entries[n].work_id for n in part], [entries[n].recording_id for n in part]]
        for part in (queries, items)
    ]
    found = rank_vectors(vectors[0], *labels[0], vectors[1], *labels[1])
    n_others = found.n_relevant + found.n_negatives
    chance = np.where(found.answerable, found.n_relevant / np.maximum(n_others, 1), 0.0)
    scores = summarise(found, n_items=len(items), n_missing=told["set_aside"])
    return {**told, "hr1_by_chance": float(chance.mean()), "scores": scores.as_json()}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Raises BadInput where there is nothing to ask, or nothing to find."""
    entries = [e for e in plain.read(options.folder) if e.kind == "sung"]
    chosen = list(dict.fromkeys(entry.work_id for entry in entries))[: options.works]
    entries = [entry for entry in entries if entry.work_id in chosen]
    more = [replace(e, kind="instrumental") for e in plain.read(options.instrumentals)]
    works = {entry.work_id for entry in entries}
    if not any(entry.work_id in works for entry in more):
        raise BadInput(f"{options.instrumentals} holds no version of a work of {options.folder}")
    every = [*entries, *(entry for entry in more if entry.work_id in works)]
    contestants = ways(options)
    catalogue = Catalogue(options.folder.name, every, {})
    listen(catalogue, contestants, options.max_seconds, Kept(options.keep))
    return {
        "model": model_facts(bundle_of(options)),
        "works": len(works),
        "ways": {
            one.row.title: {kind: figures_of(one, every, kind) for kind in ("sung", "instrumental")}
            for one in contestants
        },
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("instrumentals", type=Path)
    parser.add_argument("--works", type=int, help="so many of the catalogue's; default: all")
    parser.add_argument("--keep", type=Path, help="vectors of recordings, to go on from")
    parser.add_argument("--max-seconds", type=float, default=MAX_S, help="of each recording")
    parser.set_defaults(weights=None, device="cpu")
    options = parser.parse_args()
    try:
        figures = measure(options)
    except LiviError as error:
        raise SystemExit(str(error)) from None
    write_result("instrumental", figures, options.out)
    rows: list[tuple[str | float | None, ...]] = [
        ("way", "queries", "", "set aside", "HR@1", "by chance", "MAP@10", "MR1")
    ]
    for way, kinds in figures["ways"].items():
        for kind, told in kinds.items():
            mean = told["scores"]["answerable"] if "scores" in told else {}
            cells = mean.get("hr1"), told.get("hr1_by_chance"), mean.get("map10")
            asked = told["queries"], told["set_aside"]
            rows.append((way, kind, *asked, *cells, mean.get("mr1_mean")))
    print_table(rows)


if __name__ == "__main__":
    main()
