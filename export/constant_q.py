"""Sound → notes: the constant-Q front end of the harmony space, cheap enough for a whole library.

Six octaves, three bands a semitone. Octave after octave the samples are halved in rate, and one
set of kernels (24 periods long, Hann) answers for each: what is an octave lower at half the rate
looks the same. Frames are a tenth of a second: high octaves are read several times in a frame and
averaged, low ones last longer than it. Everything is convolutions with fixed weights.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

SAMPLE_RATE = 16_000
FRAME = 1600  # samples: ten frames a second
FRAMES_PER_S = SAMPLE_RATE // FRAME
N_OCTAVES, PER_SEMITONE = 6, 3
PER_OCTAVE = 12 * PER_SEMITONE
N_BANDS = N_OCTAVES * PER_OCTAVE
LOWEST_MIDI = 31  # G1, 49 Hz: of the middle band of the first semitone
_PERIODS = 24  # of a kernel
_TAPS, _HALVING_TAPS = 128, 30
_HOPS = (100, 50, 50, 50, 50, 25)  # samples between readings, highest octave first


class ConstantQ(nn.Module):
    """(B, T) samples, T a multiple of ``FRAME`` → (B, 216, T / 1600) magnitudes, lowest first."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters_halving", torch.from_numpy(_halving()))
        self.register_buffer("filters_bands", torch.from_numpy(_kernels()))

    def forward(self, samples: Tensor) -> Tensor:
        octaves, frame = [], FRAME
        for hop in _HOPS:
            samples, frame = self._halved(samples, frame), frame // 2
            octaves.append(self._octave(samples, frame, hop))
        return torch.cat(octaves[::-1], dim=1)

    def _halved(self, samples: Tensor, frame: int) -> Tensor:
        """(B, T) → (B, T / 2) without what half the rate cannot hold, many samples at once."""
        block = int(np.gcd(frame, 64))
        n = block // 2
        weights = torch.zeros(n, 1, 2 * (n - 1) + _HALVING_TAPS)
        weights = torch.stack(
            [F.pad(self.filters_halving, (2 * i, 2 * (n - 1 - i))) for i in range(n)]
        )[:, None]
        margin = (_HALVING_TAPS - 2) // 2
        padded = F.pad(samples[:, None], (margin, margin))
        return F.conv1d(padded, weights, stride=block).transpose(1, 2).flatten(1)

    def _octave(self, samples: Tensor, frame: int, hop: int) -> Tensor:
        margin = (_TAPS - hop) // 2
        padded = F.pad(samples[:, None], (margin, _TAPS - hop - margin))
        both = F.conv1d(padded, self.filters_bands, stride=hop)
        sizes = (both[:, :PER_OCTAVE].square() + both[:, PER_OCTAVE:].square() + 1e-12).sqrt()
        return F.avg_pool1d(sizes, frame // hop) if frame > hop else sizes


def _halving() -> NDArray[np.float32]:
    """A low pass at a quarter of the rate; pass band to 0.185, stop band from 0.315."""
    n = np.arange(_HALVING_TAPS) - (_HALVING_TAPS - 1) / 2
    taps = 0.5 * np.sinc(n / 2) * np.kaiser(_HALVING_TAPS, 6.0)
    return (taps / taps.sum()).astype(np.float32)


def _kernels() -> NDArray[np.float32]:
    """(72, 1, 128) cosines, then sines, of the highest octave at half the rate."""
    midi = LOWEST_MIDI + 12 * (N_OCTAVES - 1) + (np.arange(PER_OCTAVE) - 1) / PER_SEMITONE
    cycles = 440 * 2 ** ((midi - 69) / 12) / (SAMPLE_RATE / 2)  # a sample
    n = np.arange(_TAPS) - (_TAPS - 1) / 2
    length = _PERIODS / cycles[:, None]
    window = np.where(np.abs(n) < length / 2, 0.5 + 0.5 * np.cos(2 * np.pi * n / length), 0)
    window /= window.sum(axis=1, keepdims=True)
    angle = 2 * np.pi * cycles[:, None] * n
    both = np.concatenate([window * np.cos(angle), window * np.sin(angle)])
    return both[:, None].astype(np.float32)
