"""Constant-Q spectra as the networks of the field take them, and the segments cut from them.

Three transforms, each the one that its networks were trained on: ``exact_cqt`` (time-domain kernels
at 16 kHz: CLEWS, ByteCover2, CQTNet, DViNet), ``recursive_cqt`` (octave by octave at 22,050 Hz, as
librosa does it: Discogs-VINet and the original CQTNet) and ``decibel_cqt`` (thresholded spectral
kernels: CoverHunter). Each gives magnitudes (bins, frames) float32.

Kernels of one octave have about the same length, so each octave is one matrix product over frames
just as wide: a tenth of the work of products with padded kernels, and equal to them in float32.
Segments that overlap share one transform of the track; ``exact=True`` transforms each by itself, as
the reference does, and differs where the mirrored edges of a segment reach in (half a second at
each end), and in that segments that share a transform begin at a multiple of its hop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import soxr
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
ComplexArray = NDArray[np.complex128]

SAMPLE_RATE = 16_000  # Hz, of all samples that a system is given
LIBROSA_RATE = 22_050  # Hz, of recursive_cqt
BINS_PER_OCTAVE = 12
N_BINS = 84
HOP_S = 5.0  # between segments
FMIN_HZ = 32.70
C1_HZ = 440 * 2 ** (-45 / 12)
Q = 1 / (2 ** (1 / BINS_PER_OCTAVE) - 1)
DECIBEL_BINS = 96
DECIBEL_WIDTH = 16_384  # samples in a frame of decibel_cqt
BLOCK_FRAMES = 256


@dataclass(frozen=True, eq=False)
class Octave:
    """The kernels of neighbouring bins, without the zeros that all of them have around them.

    A frame is ``parts`` hops long, and each hop of the signal is part of as many frames: it is
    multiplied with all parts of the kernels at once, and a frame is the sum of its own.
    """

    bins: slice
    start: int  # of the kernels within a frame
    hop: int
    kernels: FloatArray  # (hop, parts * 2 * bins), of a part first the real, then the imaginary

    def response(self, padded: FloatArray, first: int, n: int) -> FloatArray:
        """(bins, n) magnitudes of the frames from ``first`` on."""
        width = 2 * (self.bins.stop - self.bins.start)
        parts = self.kernels.shape[1] // width
        start = self.start + first * self.hop
        hops = padded[start : start + (n + parts - 1) * self.hop].reshape(-1, self.hop)
        products = (hops @ self.kernels).reshape(-1, parts, width)
        both = np.stack([products[part : part + n, part] for part in range(parts)]).sum(axis=0).T
        magnitudes: FloatArray = np.hypot(both[: width // 2], both[width // 2 :])
        return magnitudes


def frequencies(fmin_hz: float, n_bins: int) -> NDArray[np.float64]:
    return fmin_hz * 2.0 ** (np.arange(n_bins) / BINS_PER_OCTAVE)


@lru_cache(maxsize=4)
def exact_kernels(
    n_bins: int = N_BINS, fmin_hz: float = FMIN_HZ, rate: int = SAMPLE_RATE
) -> tuple[NDArray[np.complex64], FloatArray]:
    """(bins, width) kernels with unit sum of magnitudes, and their lengths (bins,) in samples."""
    hz = frequencies(fmin_hz, n_bins)
    lengths = np.ceil(Q * rate / hz).astype(int)
    width = 2 ** math.ceil(math.log2(lengths[0]))
    kernels = np.zeros((n_bins, width), np.complex64)
    for kernel, length, f in zip(kernels, lengths, hz, strict=True):
        n = np.arange(length)
        wave = _hann(length) * np.exp(2j * np.pi * f / rate * (n - (length + 1) // 2))
        start = width // 2 - length // 2 - length % 2
        kernel[start : start + length] = wave / np.abs(wave).sum()
    return kernels, lengths.astype(np.float32)


@lru_cache(maxsize=4)
def _octaves(n_bins: int, hop: int) -> tuple[tuple[Octave, ...], int]:
    kernels, lengths = exact_kernels(n_bins)
    scaled = kernels * np.sqrt(lengths)[:, None]
    octaves = []
    for first in range(0, n_bins, BINS_PER_OCTAVE):
        rows = scaled[first : first + BINS_PER_OCTAVE]
        used = np.flatnonzero(rows.any(axis=0))
        start, n_parts = int(used[0]), math.ceil((used[-1] + 1 - used[0]) / hop)
        both = np.zeros((2 * len(rows), n_parts * hop), np.float32)
        both[:, : used[-1] + 1 - start] = np.concatenate([rows.real, rows.imag])[:, used]
        by_sample = both.reshape(-1, n_parts, hop).transpose(2, 1, 0).reshape(hop, -1)
        bins = slice(first, first + len(rows))
        octaves.append(Octave(bins, start, hop, np.ascontiguousarray(by_sample)))
    return tuple(octaves), kernels.shape[1]


def exact_cqt(samples: FloatArray, hop: int, n_bins: int = N_BINS) -> FloatArray:
    """(T,) samples at 16 kHz → (bins, T // hop + 1); the signal is mirrored at both ends."""
    octaves, width = _octaves(n_bins, hop)
    padded = np.pad(samples, width // 2, mode="reflect")
    n_frames = len(samples) // hop + 1
    padded = np.pad(padded, (0, (n_frames + 1) * hop + width - len(padded)))
    magnitudes = np.empty((n_bins, n_frames), np.float32)
    for first in range(0, n_frames, BLOCK_FRAMES):
        n = min(BLOCK_FRAMES, n_frames - first)
        for octave in octaves:
            magnitudes[octave.bins, first : first + n] = octave.response(padded, first, n)
    return magnitudes


def mean_frames(spectrum: FloatArray, length: int, hop: int) -> FloatArray:
    """(bins, T) → means of ``length`` frames every ``hop``; what is left at the end is dropped."""
    windows = sliding_window_view(spectrum, length, axis=-1)[:, ::hop]
    mean: FloatArray = windows.mean(axis=-1, dtype=np.float32)
    return mean


@dataclass(frozen=True)
class Segments:
    """How a network of the CLEWS repository sees a recording: pooled spectra of its segments."""

    cqt_hop: int  # samples
    pool: tuple[int, int]  # frames in a mean, frames from mean to mean
    length_s: float
    padding: Literal["repeat", "zeros"]  # of the end, and of what is shorter than a segment

    def cut(self, samples: FloatArray, *, exact: bool = False) -> FloatArray:
        """(T,) samples at 16 kHz → (segments, bins, frames), a segment every 5 s."""
        length, hop = round(self.length_s * SAMPLE_RATE), round(HOP_S * SAMPLE_RATE)
        padded = self._padded(samples, length, hop)
        starts = range(0, len(padded) - length + 1, hop)
        if exact:
            spectra = [exact_cqt(padded[start : start + length], self.cqt_hop) for start in starts]
        else:
            whole = exact_cqt(padded, self.cqt_hop)
            n = length // self.cqt_hop + 1
            firsts = [min(round(s / self.cqt_hop), whole.shape[1] - n) for s in starts]
            spectra = [whole[:, first : first + n] for first in firsts]
        return np.stack([mean_frames(spectrum, *self.pool) for spectrum in spectra])

    def _padded(self, samples: FloatArray, length: int, hop: int) -> FloatArray:
        n_more = max(math.ceil((len(samples) - length) / hop), 0) * hop + length - len(samples)
        if self.padding == "zeros":
            return np.pad(samples, (0, n_more))
        return np.concatenate([samples, np.resize(samples, n_more)])


def recursive_cqt(samples: FloatArray, hop: int = 512) -> FloatArray:
    """(T,) samples at 22,050 Hz → (84, T // hop + 1), zeros beyond both ends.

    The highest octave comes from the samples, each lower one from samples at half the rate of the
    one above, all with the spectral kernels of their octave. Within 1e-3 of librosa 0.11.
    """
    hz = frequencies(C1_HZ, N_BINS)
    ratio = 2 ** (2 / BINS_PER_OCTAVE)
    q = (ratio + 1) / (ratio - 1)
    octaves, rate = [], float(LIBROSA_RATE)
    for last in range(N_BINS, 0, -BINS_PER_OCTAVE):
        of_octave = hz[last - BINS_PER_OCTAVE : last]
        octaves.append(_octave_response(samples, of_octave, q, rate, hop))
        hop, rate = hop // 2, rate / 2
        samples = soxr.resample(samples, 2, 1, quality="HQ") * np.float32(math.sqrt(2))
    n_frames = min(octave.shape[1] for octave in octaves)
    stacked = np.concatenate([octave[:, :n_frames] for octave in reversed(octaves)])
    lengths = q * LIBROSA_RATE / hz
    scaled: FloatArray = (stacked / np.sqrt(lengths)[:, None]).astype(np.float32)
    return scaled


def _octave_response(
    samples: FloatArray, hz: NDArray[np.float64], q: float, rate: float, hop: int
) -> NDArray[np.float64]:
    kernels = _spectral_kernels(tuple(hz.tolist()), q, rate)
    width = 2 * (kernels.shape[1] - 1)
    frames = sliding_window_view(np.pad(samples, width // 2), width)[::hop]
    blocks = []
    for first in range(0, len(frames), BLOCK_FRAMES):
        spectra = np.fft.rfft(frames[first : first + BLOCK_FRAMES], axis=1)
        blocks.append(np.abs(spectra.astype(np.complex64) @ kernels.T))
    return np.concatenate(blocks).T * math.sqrt(LIBROSA_RATE / rate)


@lru_cache(maxsize=16)
def _spectral_kernels(hz: tuple[float, ...], q: float, rate: float) -> NDArray[np.complex64]:
    """(bins, width / 2 + 1); the smallest entries, 1 % of each row's sum, are zero."""
    lengths = [q * rate / f for f in hz]
    width = 2 ** math.ceil(math.log2(lengths[0]))
    rows = np.zeros((len(hz), width), np.complex128)
    for row, length, f in zip(rows, lengths, hz, strict=True):
        n = np.arange(math.floor(-length / 2), math.floor(length / 2))
        wave = _hann(len(n)) * np.exp(2j * np.pi * f / rate * n)
        start = (width - len(n)) // 2
        row[start : start + len(n)] = wave / np.abs(wave).sum() * (length / width)
    spectra = np.fft.fft(rows, axis=1)[:, : width // 2 + 1]
    return _without_smallest(spectra, 0.01).astype(np.complex64)


def _without_smallest(spectra: ComplexArray, share: float) -> ComplexArray:
    sizes = np.abs(spectra)
    ascending = np.sort(sizes, axis=1)
    upto = np.cumsum(ascending / sizes.sum(axis=1, keepdims=True), axis=1)
    smallest = ascending[np.arange(len(sizes)), np.argmin(upto < share, axis=1)]
    return np.where(sizes >= smallest[:, None], spectra, 0)


def decibel_cqt(samples: FloatArray, hop: int = 640) -> FloatArray:
    """(T,) samples at 16 kHz → (96, T // hop) in dB below the loudest entry (CoverHunter)."""
    peak = max(float(np.abs(samples).max()), 1e-9)
    padded = np.pad(samples * np.float32(0.999 / peak), (7872, DECIBEL_WIDTH))
    n_frames = len(samples) // hop
    frames = sliding_window_view(padded, DECIBEL_WIDTH)[::hop][:n_frames]
    magnitudes = np.empty((DECIBEL_BINS, n_frames))
    for first in range(0, n_frames, BLOCK_FRAMES):
        half = np.fft.rfft(frames[first : first + BLOCK_FRAMES], axis=1)
        # The kernels of the highest bins reach beyond half the rate, where spectra are mirrored.
        spectra = np.concatenate([half, np.conj(half[:, -2 : -len(half[0]) // 4 : -1])], axis=1)
        for bins, start, kernels in _thresholded_kernels():
            products = spectra[:, start : start + len(kernels)] @ kernels
            magnitudes[bins, first : first + len(half)] = np.abs(products).T / DECIBEL_WIDTH
    decibels = 20 * np.log10(magnitudes + 1e-9)
    below: FloatArray = (decibels - decibels.max()).astype(np.float32)
    return below


@lru_cache(maxsize=1)
def _thresholded_kernels() -> list[tuple[slice, int, ComplexArray]]:
    """For each octave its bins, its first entry that counts, and its kernels (entries, bins)."""
    spectra = np.zeros((DECIBEL_BINS, DECIBEL_WIDTH), np.complex128)
    for row, f in zip(spectra, frequencies(32.0, DECIBEL_BINS), strict=True):
        size = 2 * round(Q * SAMPLE_RATE / f / 2) + 1
        m = np.arange(size) - (size - 1) // 2
        start = (DECIBEL_WIDTH - size + 1) // 2
        row[start : start + size] = np.hamming(size) * np.exp(2j * np.pi * Q * m / size) / size
    spectra = np.fft.fft(spectra, axis=1)
    spectra[np.abs(spectra) < 0.01] = 0
    octaves = []
    for first in range(0, DECIBEL_BINS, BINS_PER_OCTAVE):
        bins = slice(first, first + BINS_PER_OCTAVE)
        used = np.flatnonzero(spectra[bins].any(axis=0))
        kernels = np.conj(spectra[bins, used[0] : used[-1] + 1].T)
        octaves.append((bins, int(used[0]), np.ascontiguousarray(kernels)))
    return octaves


def _hann(size: int) -> NDArray[np.float64]:
    """Periodic."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)
