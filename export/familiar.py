"""What is usual of what the reader reads: ``python -m export.familiar BUNDLE --library LIBRARY``

Writes ``familiar.npy`` into a bundle and prints the section of its card. How phones follow each
other comes from lines of training poems, as espeak pronounces them; what is usual and what is far,
from the sung recordings of training works that a library holds, built with that bundle. Far is what
a tenth of those are, mostly such as have a voice that the band drowns.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from catalogs.engines import Voice, pronounce
from catalogs.poems import load_poems, training_poems
from export.phones import PHONES, phone_number
from livi_index.calibration import Familiar
from livi_index.familiarity import STEPS_PER_NAT, Figures, Language, distance
from livi_index.library import SPACE, Library, open_library
from livi_index.models import open_bundle

FILE = "familiar.npy"
VOICE = Voice("espeak", "en-us+f1")
LINES = 24_000
AT_ONCE = 200
# What a phone is worth that was never seen there counts as much as so many that were.
AFTER_TWO, AFTER_ONE = 10, 20
NEAR_SHARE = 0.9  # of the training recordings, which are not far
Counts = npt.NDArray[np.float64]


def spoken(lines: Sequence[str]) -> list[list[int]]:
    """The phones of each line."""
    said = [
        pronounce(VOICE, lines[first : first + AT_ONCE]) for first in range(0, len(lines), AT_ONCE)
    ]
    numbers = ([phone_number(phone.name) for phone in line] for part in said for line in part)
    return [[number for number in line if number > 0] for line in numbers]


def language_of(lines: Iterable[Sequence[int]]) -> npt.NDArray[np.uint8]:
    """The content of the file: a trigram model of phones that a reader can tell apart.

    Each order falls back on the one below it by pseudo-counts (MacKay & Peto 1995).
    """
    n = len(PHONES)
    threes: Counts = np.zeros((n, n, n))
    for line in lines:
        # A reader hears one phone where two of the same follow each other.
        phones = np.array([b for a, b in zip([0, *line], line, strict=False) if a != b], np.int64)
        np.add.at(threes, (phones[:-2], phones[1:-1], phones[2:]), 1)
    twos = threes.sum(axis=0)
    ones = threes.sum(axis=(0, 1)) + 1
    ones[0] = 1e-6
    alone = ones / ones.sum()
    after_one = (twos + AFTER_ONE * alone) / (twos.sum(axis=1, keepdims=True) + AFTER_ONE)
    after_two = (threes + AFTER_TWO * after_one) / (threes.sum(axis=2, keepdims=True) + AFTER_TWO)
    after_two[0] = after_one
    after_two[0, 0] = alone
    return np.clip(np.round(-STEPS_PER_NAT * np.log(after_two)), 0, 255).astype(np.uint8)


def figures_of(library: Library, language: Language, folder: Path) -> list[Figures]:
    """Those of the recordings below a folder of which enough was read."""
    numbers = library.recording_ids(SPACE)
    paths = library.generation.paths(numbers.tolist())
    inside = [n for n in numbers.tolist() if paths[n][0].is_relative_to(folder)]
    transcripts = library.generation.transcripts_of(np.array(inside), SPACE)
    found = map(language.figures, transcripts)
    return [figures for figures in found if figures is not None]


def usual_of(found: Sequence[Figures], fitted_on: str) -> Familiar:
    """What is usual among so many, and what is far."""
    table = np.array(found)
    (order, shares), (order_spread, shares_spread) = table.mean(axis=0), table.std(axis=0)
    usual = Familiar(FILE, order, order_spread, shares, shares_spread, 0.0, 0.0, fitted_on)
    distances = [distance(figures, usual) for figures in found]
    far, farthest = np.quantile(distances, (NEAR_SHARE, 1.0))
    numbers = (order, order_spread, shares, shares_spread, far, farthest)
    return Familiar(FILE, *(round(float(x), 4) for x in numbers), fitted_on)


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn what is usual of what a reader reads.")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--poems", type=Path, required=True)
    parser.add_argument("--library", type=Path, required=True, help="holds the training recordings")
    parser.add_argument("--folder", type=Path, required=True, help="where they lie")
    arguments = parser.parse_args()
    poems = training_poems(load_poems(arguments.poems))
    every = [line for poem in poems for line in poem.lines]
    chosen = np.random.default_rng(0).permutation(len(every))[:LINES]
    steps = language_of(spoken([every[i] for i in sorted(chosen.tolist())]))
    path = arguments.bundle / FILE
    np.save(path, steps)
    card_path = arguments.bundle / "card.json"
    card = json.loads(card_path.read_text())
    content = path.read_bytes()
    card["files"][FILE] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    card_path.write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    language = Language.open(open_bundle(arguments.bundle), FILE)
    with open_library(arguments.library) as library:
        found = figures_of(library, language, arguments.folder.resolve())
    usual = usual_of(found, f"{len(found)} sung recordings of the training split")
    print("[familiar]")
    for name, value in vars(usual).items():
        print(f"{name} = {json.dumps(value)}")


if __name__ == "__main__":
    main()
