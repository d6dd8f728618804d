"""Songs for tests of whole builds: chords that the tiny bundle calls sung and can tell apart."""

from __future__ import annotations

from pathlib import Path

import audio_files
import numpy as np

from livi_index.models import open_bundle

TINY = Path(__file__).parent / "data" / "tiny-bundle"
RATE = 16_000


def tiny_bundle():
    return open_bundle(TINY)


def chord(seed, seconds=8.0):
    """(T, 1) float32: a few partials, other ones for every seed."""
    rng = np.random.default_rng(seed)
    t = np.arange(4 * RATE) / RATE
    pitches = rng.uniform(150, 5000, 5)
    sound = np.sin(2 * np.pi * pitches[:, None] * t).sum(axis=0)
    return np.resize(0.1 * sound, (round(seconds * RATE), 1)).astype(np.float32)


def song(path, seed, seconds=8.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    return audio_files.write(path, chord(seed, seconds), RATE)


def silence(path, seconds=8.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    return audio_files.write(path, np.zeros((round(seconds * RATE), 1), np.float32), RATE)


def catalogue(folder, n=6, seconds=8.0, kinds=("wav", "ogg", "flac", "mp3")):
    """n songs, song-0 to song-(n-1), of several kinds."""
    return [song(folder / f"song-{i}.{kinds[i % len(kinds)]}", i, seconds) for i in range(n)]
