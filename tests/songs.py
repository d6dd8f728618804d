"""Songs for tests of whole builds: what the tiny bundles call sung, and can tell apart or read."""

from __future__ import annotations

from pathlib import Path

import audio_files
import numpy as np

from livi_index.models import open_bundle

TINY = Path(__file__).parent / "data" / "tiny-bundle"
READER = Path(__file__).parent / "data" / "tiny-reader"
RATE = 16_000
PITCHES = np.geomspace(200, 6000, 24)  # of the phones 1 to 24 of the tiny reader


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


def reader_bundle():
    """The bundle that takes tones for phones."""
    return open_bundle(READER)


def melody(seed, n):
    """(n,) phones from 1 to 24, none twice in a row."""
    steps = np.random.default_rng(seed).integers(1, 24, n)
    return np.cumsum(steps) % 24 + 1


def tones(phones, tone_s=0.4):
    """(T, 1) float32: what the tiny reader takes for these phones; 0 is silence."""
    n = round(tone_s * RATE)
    phones = np.repeat(phones, n)
    phases = np.cumsum(2 * np.pi * np.append(0.0, PITCHES)[phones] / RATE)
    return (0.3 * (phones > 0) * np.sin(phases))[:, None].astype(np.float32)


def sung(path, phones, tone_s=0.4):
    path.parent.mkdir(parents=True, exist_ok=True)
    return audio_files.write(path, tones(phones, tone_s), RATE)


def hum(path, seconds=40.0):
    """As loud as singing, and without a tone that the tiny reader knows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * RATE)) / RATE
    return audio_files.write(
        path, 0.2 * np.sin(2 * np.pi * 20 * t)[:, None].astype(np.float32), RATE
    )
