"""People who read aloud: the recordings of ``DATA/readings``, readers apart.

Poems of Les Fleurs du mal, read in French for LibriVox (public domain). What some of the readers
read is kept to measure with, so that no voice is heard both there and in training.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from catalogs import Split

MEASURING_READERS = frozenset(
    ("Rémi", "Sonia", "Irene Alvarez Domenech", "Frédéric Surget", "Cocotte")
)


@dataclass(frozen=True)
class Reading:
    """A recording, who reads ("" if nobody is named), and what."""

    path: Path
    reader: str
    text: str


def read_texts(data: Path, split: Split) -> list[Reading]:
    """Readings of readers who measure ("test"), or of all others, in order."""
    rows = json.loads((data / "readings" / "readings.json").read_text(encoding="utf-8"))
    all_of_them = [
        Reading(data / "readings" / row["file"], row["reader"] or "", row["text"]) for row in rows
    ]
    wanted = [r for r in all_of_them if (r.reader in MEASURING_READERS) == (split == "test")]
    return sorted(wanted, key=lambda reading: reading.path)


def readings(data: Path, split: Split) -> list[Path]:
    """The recordings of ``read_texts`` alone."""
    return [reading.path for reading in read_texts(data, split)]
