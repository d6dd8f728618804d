"""From scores to probabilities: ``python -m benchmarks.calibrate FOLDER --model BUNDLE``

FOLDER is a rendered catalogue of the *training* split with a manifest, as for ``benchmarks.words``.
Every sung recording asks for its versions, and typed lines for their songs; each of the ten best
hits is right or wrong, and a logistic curve is fitted to that by its scores. It is fitted on the
works with even numbers and judged on the others (Brier score, and the expected calibration error in
ten bins), then fitted on all; this is printed as a part of the card.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import arguments, bundle_of, model_facts, print_table, write_result
from benchmarks.sung import entries_of, library_of
from benchmarks.words import questions
from catalogs import Entry
from livi_index.library import Library

K = 10
ROUNDS = 50
RIDGE = 1e-3  # where scores part right from wrong, the best curve would be a step
BINS = 10

FloatArray = NDArray[np.float64]
Judged = tuple[float, bool, int]  # a hit's score, whether it is right, the number of the work


def fit(scores: FloatArray, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and offset of the logistic curve of greatest likelihood, by Newton's method."""
    scale = float(np.std(scores)) or 1.0
    rows = np.column_stack([scores / scale, np.ones(len(scores))])
    curve = np.zeros(2)
    for _ in range(ROUNDS):
        expected = 1 / (1 + np.exp(-np.clip(rows @ curve, -30, 30)))
        pull = rows.T @ (right - expected) - RIDGE * curve
        bend = (rows * (expected * (1 - expected))[:, None]).T @ rows + RIDGE * np.eye(2)
        curve = curve + np.linalg.solve(bend, pull)
    return float(curve[0] / scale), float(curve[1])


def judge(scores: FloatArray, right: NDArray[np.bool_], slope: float, offset: float) -> Any:
    """Brier score and expected calibration error of a curve."""
    told = 1 / (1 + np.exp(-np.clip(slope * scores + offset, -700, 700)))
    place = np.minimum((told * BINS).astype(int), BINS - 1)
    error = sum(
        abs(float(told[place == n].mean() - right[place == n].mean())) * float(np.mean(place == n))
        for n in np.unique(place)
    )
    return {"brier": float(np.mean((told - right) ** 2)), "ece": error, "hits": len(scores)}


def of_recordings(
    library: Library, entries: Sequence[Entry], works: dict[str, str]
) -> list[Judged]:
    """The best hits of every sung recording that is in the library."""
    numbers = {works_name: i for i, works_name in enumerate(sorted(set(works.values())))}
    known = set(library.generation.recording_ids("lyrics").tolist())
    found: list[Judged] = []
    for entry in entries:
        number = library.generation.recording_at(entry.path.absolute())
        if entry.kind == "sung" and number in known:
            heard = library.stored(number)
            for hit in library.rank(heard, k=K, space="lyrics", without=(number,)):
                right = works[hit.recording_id] == entry.work_id
                found.append((hit.score, right, numbers[entry.work_id]))
    return found


def of_lines(library: Library, folder: Path, works: dict[str, str]) -> list[Judged]:
    """The best hits of typed lines."""
    numbers = {work: i for i, work in enumerate(sorted(set(works.values())))}
    return [
        (hit.score, works[hit.recording_id] == question.work, numbers[question.work])
        for question in questions(folder)
        for hit in library.query_lyrics(question.text, k=K).hits
    ]


def calibrated(found: Sequence[Judged]) -> dict[str, Any]:
    """A curve, and how good it is on works that it was not fitted on."""
    scores = np.array([score for score, _, _ in found])
    right = np.array([is_right for _, is_right, _ in found])
    even = np.array([number % 2 == 0 for _, _, number in found])
    held = judge(scores[~even], right[~even], *fit(scores[even], right[even]))
    slope, offset = fit(scores, right)
    return {"slope": round(slope, 4), "offset": round(offset, 4), "held_out": held}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folder", type=Path, help="with entries.csv and manifest.jsonl")
    parser.add_argument("--library", type=Path, help="keep the folder's library here")
    options = parser.parse_args()
    bundle, entries = bundle_of(options), entries_of(options.folder)
    with library_of(options.folder, bundle, options.library) as library:
        works = {
            f"{number:016x}": entry.work_id if entry.kind == "sung" else entry.recording_id
            for entry in entries
            if (number := library.generation.recording_at(entry.path.absolute()))
        }
        curves = {
            "lyrics": calibrated(of_recordings(library, entries, works)),
            "words": calibrated(of_lines(library, options.folder, works)),
        }
        n_recordings = library.info.recordings
    figures = {"model": model_facts(bundle), "recordings": n_recordings, **curves}
    write_result("calibration", figures, options.out, program="calibrate")
    for question, curve in curves.items():
        print(f"[calibration.{question}]")
        print(f"slope = {curve['slope']}\noffset = {curve['offset']}")
        print(f"recordings = {n_recordings}\n")
    rows = [(name, c["held_out"]["brier"], c["held_out"]["ece"]) for name, c in curves.items()]
    print_table([("held out", "Brier", "ECE"), *rows])


if __name__ == "__main__":
    main()
