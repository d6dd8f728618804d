"""Two rows that need no weights: melody and harmony without learning, the floor of every table.

``ChromaFourier``: chroma per beat, magnitudes of the two-dimensional Fourier transform of patches
of 75 beats, their median (Ellis and Bertin-Mahieux, ISMIR 2012). Magnitudes forget where a pattern
begins, in time and in pitch, so a transposed version keeps its vector; beats take out the tempo
(Ellis, "Beat tracking by dynamic programming", JNMR 2007).

``ChromaMeans``: mean chroma and mean MFCC side by side. It knows the key and the sound of a
recording and nothing of its course: what lies above it has heard more than that.

Both read (T,) float32 samples at 16 kHz and give one unit vector; that of silence is zero.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from benchmarks.baselines.distances import unit
from benchmarks.baselines.frontend import (
    BINS_PER_OCTAVE,
    SAMPLE_RATE,
    FloatArray,
    exact_cqt,
    mean_frames,
)

CQT_HOP = 320  # samples: 50 frames a second
FRAMES_PER_S = SAMPLE_RATE / CQT_HOP
PATCH_BEATS = 75
CHROMA_POWER = 1.96  # makes strong notes of a beat stand out
MAGNITUDE_GAIN = 5.0  # before the logarithm
TEMPO_HZ = 2.0  # beats are most often 120 a minute,
TEMPO_OCTAVES = 0.9  # give or take
STEADINESS = 100.0  # how dearly an uneven beat must be paid with onsets

MFCC_FRAME, MFCC_HOP = 512, 160  # samples
MEL_BANDS = 40
MFCC = slice(1, 21)  # without loudness
CHROMA_S = 0.5  # of one chroma vector in the means


class ChromaFourier:
    """Chroma per beat → median magnitudes of their two-dimensional spectrum."""

    n_parameters = 0

    def features(self, samples: FloatArray) -> FloatArray:
        """(12, beats) chroma, the strongest note of each beat 1."""
        spectrum = exact_cqt(samples, CQT_HOP)
        chroma, beats = folded(spectrum), beat_frames(spectrum)
        edges = np.unique([0, *beats.tolist(), chroma.shape[1]])
        sums = np.add.reduceat(chroma, edges[:-1], axis=1)
        return _strongest_is_one(sums / np.diff(edges))

    def vectors(self, features: FloatArray) -> FloatArray:
        """(1, 456): half of 12 × 75 magnitudes, as the other half mirrors it."""
        n_lacking = max(0, PATCH_BEATS - features.shape[1])
        beats = np.pad(features**CHROMA_POWER, ((0, 0), (0, n_lacking)))
        patches = sliding_window_view(beats, PATCH_BEATS, axis=1).transpose(1, 0, 2)
        magnitudes = np.abs(np.fft.rfft2(patches))
        loudest = np.maximum(magnitudes.max(axis=(1, 2), keepdims=True), 1e-9)
        median = np.median(np.log1p(MAGNITUDE_GAIN * magnitudes / loudest), axis=0)
        return unit(median.reshape(1, -1))

    def embed(self, samples: FloatArray) -> FloatArray:
        """(T,) samples → (456,) unit vector."""
        vector: FloatArray = self.vectors(self.features(samples))[0]
        return vector


class ChromaMeans:
    """Mean chroma and mean MFCC, each of unit length."""

    n_parameters = 0

    def features(self, samples: FloatArray) -> FloatArray:
        """(32,) means over the recording."""
        frames = round(CHROMA_S * FRAMES_PER_S)
        spectrum = exact_cqt(samples, CQT_HOP)
        if spectrum.shape[1] > frames:
            spectrum = mean_frames(spectrum, frames, frames)
        chroma = _strongest_is_one(folded(spectrum)).mean(axis=1)
        return np.concatenate([chroma, mfcc(samples).mean(axis=1)])

    def vectors(self, features: FloatArray) -> FloatArray:
        """(1, 32)"""
        chroma, cepstrum = np.split(features[None], [BINS_PER_OCTAVE], axis=1)
        return unit(np.hstack([unit(chroma), unit(cepstrum)]))

    def embed(self, samples: FloatArray) -> FloatArray:
        """(T,) samples → (32,) unit vector."""
        vector: FloatArray = self.vectors(self.features(samples))[0]
        return vector


def folded(spectrum: FloatArray) -> FloatArray:
    """(84, T) constant-Q magnitudes → (12, T) chroma, C first."""
    octaves = spectrum.reshape(-1, BINS_PER_OCTAVE, spectrum.shape[1])
    chroma: FloatArray = octaves.sum(axis=0)
    return chroma


def beat_frames(spectrum: FloatArray) -> NDArray[np.int64]:
    """(bins, T) magnitudes at 50 frames a second → ascending frames at which beats fall."""
    onsets = _onsets(spectrum)
    period = _beat_period(onsets)
    lags = np.arange(max(1, round(period / 2)), round(2 * period) + 1)
    evenness = -STEADINESS * np.log(lags / period) ** 2
    longest = int(lags[-1])
    # ``longest`` steps before the first frame stand for "no beat yet".
    best = np.zeros(longest + len(onsets))
    before = np.zeros(len(onsets), np.int64)
    for t, onset in enumerate(onsets):
        earlier = best[longest + t - lags] + evenness
        choice = int(np.argmax(earlier))
        best[longest + t] = onset + earlier[choice]
        before[t] = t - lags[choice]
    t = len(onsets) - longest + int(np.argmax(best[-longest:]))
    beats = []
    while t >= 0:
        beats.append(t)
        t = int(before[t])
    return np.array(beats[::-1], np.int64)


def _onsets(spectrum: FloatArray) -> NDArray[np.float64]:
    """(T,) how much louder each frame is than the one before, of unit deviation."""
    level = np.log1p(1000 * spectrum.astype(np.float64) / max(float(spectrum.max()), 1e-9))
    rises = np.maximum(np.diff(level, axis=1, prepend=level[:, :1]), 0).sum(axis=0)
    smooth = np.convolve(rises, np.hanning(7) / np.hanning(7).sum(), mode="same")
    scaled: NDArray[np.float64] = smooth / max(float(smooth.std()), 1e-9)
    return scaled


def _beat_period(onsets: NDArray[np.float64]) -> float:
    """Frames from beat to beat, from the autocorrelation of the onsets."""
    size = 2 ** int(np.ceil(np.log2(2 * len(onsets))))
    spectrum = np.fft.rfft(onsets - onsets.mean(), size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2)[: len(onsets)]
    lags = np.arange(1, min(len(onsets), round(4 * FRAMES_PER_S)))
    octaves = np.log2(lags * TEMPO_HZ / FRAMES_PER_S)
    likely = np.exp(-0.5 * (octaves / TEMPO_OCTAVES) ** 2)
    return float(lags[np.argmax(correlation[lags] * likely)])


def mfcc(samples: FloatArray) -> FloatArray:
    """(T,) samples → (20, frames) cepstral coefficients of 40 mel bands."""
    padded = np.pad(samples, (0, max(0, MFCC_FRAME - len(samples))))
    frames = sliding_window_view(padded, MFCC_FRAME)[::MFCC_HOP]
    energies = []
    for first in range(0, len(frames), 4096):
        windowed = frames[first : first + 4096] * np.hanning(MFCC_FRAME).astype(np.float32)
        energies.append(np.abs(np.fft.rfft(windowed)) ** 2 @ _mel_bands())
    level = 10 * np.log10(np.maximum(np.concatenate(energies), 1e-10))
    level = np.maximum(level, level.max() - 80)
    bands = np.arange(MEL_BANDS)
    cosines = np.cos(np.pi * np.outer(bands + 0.5, np.arange(MEL_BANDS)) / MEL_BANDS)
    coefficients: FloatArray = (level @ cosines[:, MFCC]).T.astype(np.float32)
    return coefficients


@lru_cache(maxsize=1)
def _mel_bands() -> NDArray[np.float64]:
    """(frequencies, bands) triangles, evenly spaced on the mel scale."""
    top = 2595 * np.log10(1 + SAMPLE_RATE / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, MEL_BANDS + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(MFCC_FRAME, 1 / SAMPLE_RATE)[:, None]
    rising = (hz - corners[:-2]) / np.diff(corners)[:-1]
    falling = (corners[2:] - hz) / np.diff(corners)[1:]
    return np.maximum(np.minimum(rising, falling), 0)


def _strongest_is_one(chroma: NDArray[np.floating[Any]]) -> FloatArray:
    scaled: FloatArray = (chroma / np.maximum(chroma.max(axis=0), 1e-9)).astype(np.float32)
    return scaled
