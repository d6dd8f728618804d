"""Catalogues of recordings: one data set, one module of the same shape.

A catalogue gives entries: where a recording lies, which work it is a version of, and in which
split it may be used. ``sung`` makes sung covers from a seed; the others describe audio that the
user has (``datasets`` says what they share). What the recordings of a work share is its
``work_id``, nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "val", "test"]
Kind = Literal["sung", "instrumental", "distractor"]


@dataclass(frozen=True)
class Entry:
    """One recording of a catalogue.

    ``path`` is where it lies or, where its audio is not there, where it was looked for. ``kind``
    is "instrumental" for a version of its work in which nobody sings, and "distractor" for a
    recording without singing whose work has no other version.
    """

    recording_id: str
    work_id: str
    path: Path
    title: str
    artist: str
    split: Split
    kind: Kind = "sung"
