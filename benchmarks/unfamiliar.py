"""Does the model know what it does not know? ``python -m benchmarks.unfamiliar SUNG ODD``

SUNG is a rendered folder, of which the first works are heard, one version each; ODD is what
``python -m catalogs wordless`` made of such a folder. Real songs, in English and in other
languages, and the anthems that nobody sings and that only measure, are in ``DATA``. Of each group:
how many have enough read of them to tell, how many of those are far from what the model was trained
on or farther than all of it (doubted), and their distances (``livi_index.familiarity``); and how
well the distance tells real songs in English from others, as the area under its curve.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.detector import auc
from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.sung import entries_of
from catalogs.backing import anthems
from livi_index.errors import NoSinging
from livi_index.familiarity import Familiarity
from livi_index.hearing import Ear
from livi_index.library import SPACE


@dataclass(frozen=True)
class Group:
    """Recordings of one kind, with their distances; None where too little is read."""

    name: str
    distances: list[float | None]

    @property
    def told(self) -> list[float]:
        return [distance for distance in self.distances if distance is not None]

    def figures(self, far: float, farthest: float) -> dict[str, Any]:
        found = self.told
        shares = np.quantile(found, (0.1, 0.5, 0.9)).round(2).tolist() if found else None
        return {
            "recordings": len(self.distances),
            "told": len(found),
            "far": sum(distance > far for distance in found),
            "doubted": sum(distance > farthest for distance in found),
            "deciles_1_5_9": shares,
        }


def groups(options: Any, data: Path) -> Iterator[tuple[str, list[Path]]]:
    """The recordings of each kind."""
    entries = [entry for entry in entries_of(options.sung) if entry.kind == "sung"]
    first = {entry.work_id: entry.path for entry in reversed(entries)}
    yield "test split", [first[work] for work in sorted(first)][: options.works]
    odd = [entry.path for entry in entries_of(options.odd)]
    for kind in ("wordless", "whispered"):
        yield kind, [path for path in odd if path.stem.endswith(kind)]
    languages = {
        path: json.loads(path.with_suffix(".json").read_text())["language"]
        for path in sorted((*data.glob("sung/*.mp3"), *data.glob("sung/*.ogg")))
    }
    yield "real English", [path for path, language in languages.items() if language == "en"]
    yield "real other", [path for path, language in languages.items() if language != "en"]
    yield "anthems", anthems(data, "test")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("sung", type=Path)
    parser.add_argument("odd", type=Path)
    parser.add_argument("--works", type=int, default=100, help="of the folder of sung ones")
    options = parser.parse_args()
    data, bundle = data_folder(options, "sung", "instrumental"), bundle_of(options)
    usual = bundle.card.familiar
    if usual is None:
        raise SystemExit(f"the card of {bundle.card.name} does not say what is usual")
    ear, familiarity = Ear(bundle), Familiarity(bundle, usual)

    def distance(path: Path) -> float | None:
        try:
            read = ear.hear_file(path, (SPACE,)).heard[SPACE].transcript
        except NoSinging:
            return None
        return None if read is None else familiarity.distance(read)

    found = [Group(name, [distance(p) for p in paths]) for name, paths in groups(options, data)]
    by_name = {group.name: group for group in found}
    rows = {group.name: group.figures(usual.far, usual.farthest) for group in found}
    columns = ("recordings", "told", "far", "doubted")
    print_table(
        [("", *columns), *((name, *(row[c] for c in columns)) for name, row in rows.items())]
    )
    english, other = by_name["real English"].told, by_name["real other"].told
    figures = {
        "model": model_facts(bundle),
        "far": usual.far,
        "farthest": usual.farthest,
        "groups": rows,
        "auc_language": round(auc(np.array(other), np.array(english)), 3),
    }
    write_result("unfamiliar", figures, options.out)


if __name__ == "__main__":
    main()
