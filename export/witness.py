"""How far what is read tells of a voice: the ``witness`` of a bundle's detector.

    python -m export.witness BUNDLE --sung TRAINING_CATALOGUE … --played FOLDER …

A reader that finds phones in a window has found a voice, and a detector that takes instruments for
voices is told otherwise by a reader that finds none. What both say of the windows of 3 s is weighed
by a logistic curve, learned from rendered training songs, whose lines have known times, and from
training recordings without singing. Prints the part of the card that says so.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from catalogs.copies import recordings
from catalogs.lyrics import label_windows, lines_of
from catalogs.sung import read_entries
from livi_index.audio import Audio, decode
from livi_index.errors import LiviError
from livi_index.hearing import Ear
from livi_index.models import Bundle, Witness, find_model
from livi_index.vocals import evidence

FloatArray = NDArray[np.float64]


def windows_of(
    bundle: Bundle, sung: Sequence[Path], played: Sequence[Path]
) -> Iterator[tuple[FloatArray, NDArray[np.bool_]]]:
    """Of each recording what detector and reader say of its windows (n, 2), and whether somebody
    sings in them (n,); windows of which nobody knows are left out."""
    ear, window_s = Ear(bundle), bundle.card.vocals.window_s
    for folder in sung:
        entries = [e for e in read_entries(folder / "entries.csv") if e.kind == "sung"]
        lines = lines_of("sung", folder, entries)
        for entry in entries:
            audio = decode(entry.path)
            told = _told(ear, audio, window_s)
            spans = np.array([(line.start_s, line.end_s) for line in lines[entry.recording_id]])
            covered, clear = label_windows(spans, len(told), window_s, audio.duration_s)
            yield told[covered | clear], covered[covered | clear]
    for path in recordings(played):
        told = _told(ear, decode(path), window_s)
        yield told, np.zeros(len(told), np.bool_)


def _told(ear: Ear, audio: Audio, window_s: float) -> FloatArray:
    return np.stack(evidence(*ear.listen(audio), window_s), axis=1)


def weigh(told: FloatArray, sung: NDArray[np.bool_]) -> tuple[float, float, float]:
    """Weights of detector and phones, and the offset, of the likeliest logistic curve."""
    rows, signs = np.column_stack([told, np.ones(len(told))]), np.where(sung, -1.0, 1.0)

    def loss(curve: FloatArray) -> tuple[float, FloatArray]:
        odds = signs * (rows @ curve)
        share = signs / (1 + np.exp(-odds))
        return float(np.logaddexp(0, odds).mean()), rows.T @ share / len(rows)

    found = minimize(loss, np.array([0.5, 0.5, 0.0]), jac=True, method="BFGS").x
    return float(found[0]), float(found[1]), float(found[2])


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn how far what is read tells of a voice.")
    parser.add_argument("bundle", help="name or folder")
    parser.add_argument("--sung", type=Path, nargs="+", required=True, help="rendered folders")
    parser.add_argument("--played", type=Path, nargs="+", required=True, help="without singing")
    arguments = parser.parse_args()
    try:
        parts = list(windows_of(find_model(arguments.bundle), arguments.sung, arguments.played))
    except (LiviError, OSError) as error:
        parser.exit(1, f"{error}\n")
    told = np.concatenate([part for part, _ in parts])
    sung = np.concatenate([part for _, part in parts])
    detector, phones, offset = weigh(told, sung)
    on = f"{len(told):,} windows of {len(parts)} recordings of the training split"
    witness = Witness(round(detector, 4), round(phones, 4), round(offset, 4), on)
    print("[witness]")
    for name, value in vars(witness).items():
        print(f"{name} = {json.dumps(value)}")


if __name__ == "__main__":
    main()
