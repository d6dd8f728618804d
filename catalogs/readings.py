"""People who read aloud: the recordings of ``DATA/readings``, readers apart.

Poems of Les Fleurs du mal, read in French for LibriVox (public domain). What some of the readers
read is kept to measure with, so that no voice is heard both there and in training.
"""

from __future__ import annotations

import json
from pathlib import Path

from catalogs import Split

MEASURING_READERS = frozenset(
    ("Rémi", "Sonia", "Irene Alvarez Domenech", "Frédéric Surget", "Cocotte")
)


def readings(data: Path, split: Split) -> list[Path]:
    """The recordings of readers who measure ("test"), or of all others, in order."""
    rows = json.loads((data / "readings" / "readings.json").read_text(encoding="utf-8"))
    return sorted(
        data / "readings" / row["file"]
        for row in rows
        if (row["reader"] in MEASURING_READERS) == (split == "test")
    )
