"""``python -m catalogs``: make catalogues, and what training needs of them.

``sung`` writes sung covers as audio files; ``manifest`` writes what they would be, without a
sound, and prints its sha256; ``backings`` renders accompaniments for training; ``demo`` writes the
small original catalogue that is part of this repository.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np

from catalogs.backing import training_backings
from catalogs.manifest import TEST_SEED, TEST_WORKS, Row, first_works, make_split, manifest_sha256
from catalogs.originals import write_demo
from catalogs.sung import write_catalogue


def sung(arguments: argparse.Namespace) -> None:
    """Write the first works of a split and their entries; an interrupted run goes on."""
    rows = first_works(_rows(arguments), arguments.works, arguments.instrumentals)
    entries = write_catalogue(arguments.out, rows, arguments.data, arguments.workers)
    print(f"{arguments.out}: {len(entries)} recordings, see entries.csv")


def manifest(arguments: argparse.Namespace) -> None:
    """Write the rows of a split as JSON lines."""
    rows = _rows(arguments)
    arguments.out.write_text("".join(row.to_json() + "\n" for row in rows))
    print(manifest_sha256(rows))


def backings(arguments: argparse.Namespace) -> None:
    """Write 16 kHz int16 arrays, one file a backing."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name, audio in training_backings(arguments.seed, arguments.n, arguments.seconds):
        target = arguments.out / f"{name}.npy"
        part = target.with_suffix(".part")
        with part.open("wb") as file:
            np.save(file, np.round(audio * 32767).astype(np.int16))
        part.replace(target)


def demo(arguments: argparse.Namespace) -> None:
    """Write the demo catalogue."""
    write_demo(arguments.out)


def _rows(arguments: argparse.Namespace) -> list[Row]:
    if arguments.data is None:
        raise SystemExit("the words are in the development data: give --data or set LIVI_DATA")
    works = TEST_WORKS
    if arguments.split == "train":
        works = arguments.works
    return make_split(arguments.data, arguments.split, seed=arguments.seed, works=works)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m catalogs", description=__doc__)
    commands = parser.add_subparsers(required=True)
    place = os.environ.get("LIVI_DATA")
    for run in (sung, manifest, backings, demo):
        command = commands.add_parser(run.__name__, help=run.__doc__)
        command.add_argument("out", type=Path)
        command.set_defaults(run=run)
        if run in (sung, manifest):
            command.add_argument("--split", choices=("train", "test"), default="test")
            command.add_argument("--works", type=int, default=TEST_WORKS)
            command.add_argument("--data", type=Path, default=Path(place) if place else None)
            command.add_argument("--seed", type=int, default=TEST_SEED)
        if run is sung:
            command.add_argument("--instrumentals", type=int, default=0)
            command.add_argument("--workers", type=int, default=1)
        if run is backings:
            command.add_argument("-n", type=int, default=150)
            command.add_argument("--seconds", type=float, default=60.0)
            command.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    main()
