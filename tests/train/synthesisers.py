"""What these tests need of the system, and a pitch tracker that knows nothing of the singing."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from catalogs.backing import MissingSynthesiser, sound_font
from catalogs.engines import missing_packages

SAMPLE_RATE = 16_000


def need_band() -> None:
    """Skip without fluidsynth and its sound font; fail where CI=true."""
    try:
        sound_font()
    except MissingSynthesiser as error:
        _absent(str(error))


def need_voices() -> None:
    """Skip without all three engines; fail where CI=true."""
    if packages := missing_packages():
        _absent(f"no voices: apt-get install {' '.join(packages)}")


def data_folder() -> Path:
    """The development data; skip without it, fail where CI=true."""
    place = os.environ.get("LIVI_DATA")
    if not place or not Path(place, "poems.jsonl.gz").is_file():
        _absent("LIVI_DATA does not name the development data")
    return Path(str(place))


def _absent(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def track_pitch(
    audio: NDArray[np.float32], low_hz: float = 70.0, high_hz: float = 900.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """YIN (de Cheveigné and Kawahara 2002): times in s and Hz of frames every 10 ms, 0 unvoiced."""
    size, hop = 1024, 160
    shortest, longest = int(SAMPLE_RATE / high_hz), int(SAMPLE_RATE / low_hz)
    n = max(0, (len(audio) - size - longest) // hop)
    pitch = np.zeros(n)
    for k in range(n):
        frame = audio[k * hop : k * hop + size + longest].astype(np.float64)
        if np.mean(np.square(frame[:size])) > 1e-4:
            pitch[k] = _yin(frame, size, shortest, longest)
    return (np.arange(n) * hop + size / 2) / SAMPLE_RATE, pitch


def _yin(frame: NDArray[np.float64], size: int, shortest: int, longest: int) -> float:
    spectrum = np.fft.rfft(frame, 4096) * np.conj(np.fft.rfft(frame[:size], 4096))
    correlation = np.fft.irfft(spectrum)[:longest]
    energy = np.concatenate([[0.0], np.cumsum(np.square(frame))])
    energy = energy[size : size + longest] - energy[:longest]
    difference = energy[0] + energy - 2 * correlation
    mean = np.cumsum(difference[1:]) / np.arange(1, longest)
    normal = np.concatenate([[1.0], difference[1:] / np.maximum(mean, 1e-12)])
    below = np.flatnonzero(normal[shortest:] < 0.15)
    if not len(below):
        return 0.0
    lag = shortest + int(below[0])
    while lag + 1 < longest and normal[lag + 1] < normal[lag]:
        lag += 1
    if lag + 1 == longest:
        return SAMPLE_RATE / lag
    left, here, right = normal[lag - 1 : lag + 2]
    return SAMPLE_RATE / (lag + 0.5 * (left - right) / max(left - 2 * here + right, 1e-9))
