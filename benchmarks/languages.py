"""Versions in another language: ``python -m benchmarks.languages WORKS.CSV [--systems NAME…]``

WORKS.CSV is a list as for ``livi-index eval`` (``path``, ``work``) with a column ``language``, such
as "en". The paper leaves open how well a space of lyrics finds a song that is sung in another
language: its text encoder is multilingual, the bundled model's is not. For every pair of languages,
recordings in the first ask for versions in the second among all recordings in the second; the
recording itself is never an answer. Systems are those of ``benchmarks.run``.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.baselines.distances import Recordings
from benchmarks.baselines.systems import row_of
from benchmarks.results import arguments, print_table, write_result
from benchmarks.run import MAX_S, TEXT_ROWS, Catalogue, Contestant, Kept, contestant, listen
from catalogs import Entry, plain
from catalogs.datasets import rows_of
from livi_index.errors import BadInput, LiviError
from livi_index.metrics import FloatArray, rank_vectors, summarise

SYSTEMS = ("livi", "chroma-fourier")


def languages_in(listed: Path) -> list[str]:
    """The language of every row, in lower case. Raises BadInput where one has none."""
    found = [row["language"].strip().lower() for row in rows_of(listed, ("language",))]
    if "" in found:
        raise BadInput(f"{listed}: row {found.index('') + 1} below the first line has no language")
    return found


def pairs(
    vectors: FloatArray, entries: Sequence[Entry], languages: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """``en → fr``: unit vectors (N, dim) of recordings in one language ask those in another."""
    told = {}
    for asked, answered in product(sorted(set(languages)), repeat=2):
        queries, items = (
            [n for n, language in enumerate(languages) if language == wanted]
            for wanted in (asked, answered)
        )
        labels = [
            [[entries[n].work_id for n in part], [entries[n].recording_id for n in part]]
            for part in (queries, items)
        ]
        found = rank_vectors(vectors[queries], *labels[0], vectors[items], *labels[1])
        if found.answerable.any():
            scores = summarise(found, n_items=len(items)).as_json()
            told[f"{asked} → {answered}"] = {"items": len(items), "scores": scores}
    return told


def figures_of(
    one: Contestant, entries: Sequence[Entry], languages: Sequence[str]
) -> dict[str, Any]:
    numbers = sorted(one.vectors)
    told: dict[str, Any] = {
        **one.facts,
        "recordings": len(entries),
        "without": dict(one.without),
        "pairs": {},
    }
    if numbers:
        means = Recordings([one.vectors[n] for n in numbers]).means()
        chosen = [entries[n] for n in numbers], [languages[n] for n in numbers]
        told["pairs"] = pairs(means, *chosen)
    return told


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Raises BadInput where the list cannot be read, or a system cannot be measured."""
    entries, languages = plain.read(options.list), languages_in(options.list)
    rows = [row_of(name) for name in options.systems]
    for row in rows:
        if row.name == "livi-index" or row.name in TEXT_ROWS:
            raise BadInput(f"{row.name} has no vectors of sound to compare")
        if missing := row.missing(options.weights):
            raise BadInput(f"{row.name}: weights not available: {missing}")
    contestants = [contestant(row, options) for row in rows]
    catalogue = Catalogue(options.list.stem, entries, {})
    listen(catalogue, contestants, options.max_seconds, Kept(options.keep))
    return {one.row.name: figures_of(one, entries, languages) for one in contestants}


def main() -> None:
    parser = arguments(__doc__)
    place = os.environ.get("LIVI_WEIGHTS")
    parser.add_argument("list", type=Path, metavar="WORKS.CSV")
    parser.add_argument("--systems", nargs="+", default=[*SYSTEMS], metavar="NAME")
    parser.add_argument("--weights", type=Path, default=Path(place) if place else None)
    parser.add_argument("--device", default="cpu", help="of the networks, such as cuda")
    parser.add_argument("--keep", type=Path, help="vectors of recordings, to go on from")
    parser.add_argument("--max-seconds", type=float, default=MAX_S, help="of each recording")
    options = parser.parse_args()
    try:
        figures = measure(options)
    except LiviError as error:
        raise SystemExit(str(error)) from None
    write_result("languages", figures, options.out)
    rows: list[tuple[str | float | None, ...]] = [
        ("system", "languages", "queries", "items", "HR@1", "HR@10", "MAP@10", "MR1")
    ]
    for system, told in figures.items():
        for pair, found in told["pairs"].items():
            mean = found["scores"]["answerable"]
            sizes = found["scores"]["n_answerable"], found["items"]
            rows.append(
                (system, pair, *sizes, mean["hr1"], mean["hr10"], mean["map10"], mean["mr1_mean"])
            )
    print_table(rows)


if __name__ == "__main__":
    main()
