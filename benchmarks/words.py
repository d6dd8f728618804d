"""Are songs found by their words? ``python -m benchmarks.words FOLDER --data DATA``

FOLDER is as for ``benchmarks.sung``, with a manifest. From each work some lines of five words and
more are typed, as they are and with one word in five misspelt; found is the rank of the best
version of the work, among works, by ``Library.query_lyrics`` in a library of the whole folder.

Then real singing: a library of the songs in ``DATA/sung``, and every three consecutive lines of a
song: is that song first, and among the first three? English songs, which the model's text side
knows, and the others apart. The times that an answer takes are those of this machine.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.sung import entries_of, library_of
from livi_index.build import BuildOptions, build
from livi_index.errors import BadInput
from livi_index.library import Library, open_library
from livi_index.models import Bundle

LINES = 4  # of a work
MIN_WORDS = 5
LOOKED_AT = 100  # hits, of which several may be of one work
RUN = 3  # consecutive lines of a real song


@dataclass(frozen=True)
class Question:
    """Words, and the work they are from."""

    text: str
    work: str


def questions(folder: Path, seed: int = 0) -> list[Question]:
    """Lines of the sung works of a rendered folder."""
    rng = np.random.default_rng(seed)
    lines: dict[str, list[str]] = defaultdict(list)
    for row in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines()):
        if row["kind"] == "sung":
            lines[row["work_id"]] += [line for part in row["form"] for line in part["lines"]]
    found = []
    for work, sung in sorted(lines.items()):
        long = [line for line in dict.fromkeys(sung) if len(line.split()) >= MIN_WORDS]
        chosen = rng.permutation(len(long))[:LINES]
        found += [Question(long[i], work) for i in chosen]
    return found


def misspelt(text: str, rng: np.random.Generator) -> str:
    """One word in five has a letter left out, swapped with the next, or replaced."""
    return " ".join(
        _spoilt(word, rng) if len(word) > 2 and rng.random() < 0.2 else word
        for word in text.split()
    )


def _spoilt(word: str, rng: np.random.Generator) -> str:
    at = int(rng.integers(1, len(word)))
    swapped = word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]
    other = "aeioulnrst"[int(rng.integers(10))]
    kinds = (word[:at] + word[at + 1 :], swapped, word[:at] + other + word[at + 1 :])
    return kinds[int(rng.integers(3))]


def ranks(
    library: Library,
    asked: Sequence[Question],
    work_of: dict[str, str],
    spoil: Callable[[str], str] = str,
) -> tuple[list[float], float]:
    """The rank of the right work for each question, and the seconds of an answer."""
    found, seconds = [], 0.0
    for question in asked:
        began = time.perf_counter()
        try:
            hits = library.query_lyrics(spoil(question.text), k=LOOKED_AT).hits
        except BadInput:
            hits = ()
        seconds += time.perf_counter() - began
        works = dict.fromkeys(work_of[hit.recording_id] for hit in hits)
        found.append(float([*works].index(question.work) + 1) if question.work in works else np.inf)
    return found, seconds / max(1, len(asked))


def hits_at(found: Sequence[float], *cuts: int) -> dict[str, float]:
    return {f"hr{cut}": float(np.mean(np.array(found) <= cut)) for cut in cuts}


def rendered(folder: Path, bundle: Bundle, kept: Path | None) -> dict[str, Any]:
    """Typed lines of a rendered folder."""
    with library_of(folder, bundle, kept) as library:
        work_of = {
            f"{number:016x}": entry.work_id if entry.kind == "sung" else entry.recording_id
            for entry in entries_of(folder)
            if (number := library.generation.recording_at(entry.path.absolute()))
        }
        asked = questions(folder)
        rng = np.random.default_rng(1)
        plain, answer_s = ranks(library, asked, work_of)
        spoilt, _ = ranks(library, asked, work_of, lambda text: misspelt(text, rng))
        recordings = library.info.recordings
    return {
        "works": len({question.work for question in asked}),
        "recordings": recordings,
        "lines": len(asked),
        "plain": hits_at(plain, 1, 10),
        "misspelt": hits_at(spoilt, 1, 10),
        "answer_ms": 1000 * answer_s,
    }


def songs_of(folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The real songs, with what is known of each."""
    for path in sorted(folder.glob("*.json")):
        audio = next(p for p in folder.glob(f"{path.stem}.*") if p.suffix != ".json")
        yield audio, json.loads(path.read_bytes())


def real(folder: Path, bundle: Bundle) -> dict[str, Any]:
    """Three consecutive lines of real songs."""
    songs = list(songs_of(folder))
    with tempfile.TemporaryDirectory() as place:
        build([path for path, _ in songs], place, BuildOptions(model=str(bundle.path)))
        with open_library(place, model=bundle) as library:
            work_of = {
                f"{number:016x}": path.stem
                for path, _ in songs
                if (number := library.generation.recording_at(path.absolute()))
            }
            found: dict[str, list[float]] = {"english": [], "others": []}
            for path, song in songs:
                lines = [line["text"] for line in song["lines"]]
                asked = [
                    Question(" ".join(lines[i : i + RUN]), path.stem)
                    for i in range(len(lines) - RUN + 1)
                ]
                kind = "english" if song["language"] == "en" else "others"
                found[kind] += ranks(library, asked, work_of)[0]
    return {
        "songs": len(songs),
        **{kind: {"runs": len(r), **hits_at(r, 1, 3)} for kind, r in found.items()},
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path, help="with entries.csv and manifest.jsonl")
    parser.add_argument("--library", type=Path, help="keep the folder's library here")
    options = parser.parse_args()
    bundle = bundle_of(options)
    figures = {
        "model": model_facts(bundle),
        "rendered": rendered(options.folder, bundle, options.library),
        "real": real(data_folder(options, "sung") / "sung", bundle),
    }
    write_result("words", figures, options.out)
    rows = [(kind, part["hr1"], part["hr10"]) for kind in ("plain", "misspelt")
            if (part := figures["rendered"][kind])]  # fmt: skip
    print_table([("typed lines", "HR@1", "HR@10"), *rows])
    songs = [(kind, figures["real"][kind]["hr1"], figures["real"][kind]["hr3"])
             for kind in ("english", "others")]  # fmt: skip
    print_table([("three lines of real songs", "HR@1", "HR@3"), *songs])


if __name__ == "__main__":
    main()
