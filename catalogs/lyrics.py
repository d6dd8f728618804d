"""What is sung in the recordings of a catalogue, line by line, where that is known.

JamendoLyrics says it in its annotations; what was rendered here says it in its manifest, whose rows
also tell when each line is sung; the demonstration is written in ``originals``. Of audio that
somebody else collected nobody knows, and it has no entry here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from catalogs import Entry, jamendo_lyrics
from catalogs.jamendo_lyrics import Line
from catalogs.manifest import Row
from catalogs.originals import demo_rows
from catalogs.sung import score_of
from catalogs.variants import read_rows

COVERED = 0.5  # of a window, by lines, for it to count as sung
CLEAR_S = 1.0  # to the next line, for it to count as not sung
DEMO = Path(__file__).parent / "demo"


def lines_of(
    name: str, root: Path, entries: Sequence[Entry], metadata: Path | None = None
) -> dict[str, list[Line]]:
    """The words of those recordings of the data set ``name`` of which they are known, by id.

    Raises BadInput where a file of words is damaged.
    """
    if name == "jamendo_lyrics":
        place = metadata or root
        known = {path.stem for path in (place / "annotations" / "lines").glob("*.csv")}
        return {
            entry.recording_id: jamendo_lyrics.lines(place, entry)
            for entry in entries
            if entry.recording_id in known
        }
    sung = _sung(_rows(metadata or root))
    return {e.recording_id: sung[e.path.stem] for e in entries if e.path.stem in sung}


def label_windows(
    lines_s: NDArray[np.floating], n_windows: int, window_s: float, duration_s: float
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which windows lines (n, 2) cover by half or more, and which have none within 1 s."""
    start_s = np.arange(n_windows) * window_s
    end_s = np.minimum(start_s + window_s, duration_s)
    covered_s = np.zeros(n_windows)
    clear = np.ones(n_windows, np.bool_)
    heard_until = 0.0
    # Lines may overlap: what was covered already counts once.
    for line_start_s, line_end_s in sorted(map(tuple, lines_s)):
        first_s = max(line_start_s, heard_until)
        inside_s = np.minimum(end_s, line_end_s) - np.maximum(start_s, first_s)
        covered_s += np.maximum(inside_s, 0)
        heard_until = max(heard_until, line_end_s)
        clear &= (line_end_s + CLEAR_S <= start_s) | (line_start_s - CLEAR_S >= end_s)
    return covered_s >= COVERED * (end_s - start_s), clear


def _rows(folder: Path) -> Iterable[Row]:
    if (folder / "manifest.jsonl").is_file():
        return read_rows(folder)
    return demo_rows() if folder.resolve() == DEMO else ()


def _sung(rows: Iterable[Row]) -> Mapping[str, list[Line]]:
    """Files are named after their rows."""
    found = {}
    for row in rows:
        if row.kind == "sung":
            score = score_of(row)
            found[row.recording_id] = [
                Line(float(p.onsets[0]) * score.slot_s, p.end * score.slot_s, p.text)
                for p in score.phrases
            ]
    return found
