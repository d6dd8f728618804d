"""Bands → semitones in tune → the notes that stand out → chords.

Of the notes of each moment only what exceeds its surroundings counts, so that timbre and equaliser
matter little. A moment's chord is a distribution over 12 major and 12 minor chords, roots from G,
read by comparison with their shapes. Nothing here is learned.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.constant_q import FRAMES_PER_S, N_BANDS, PER_SEMITONE

N_SEMITONES = N_BANDS // PER_SEMITONE
_GAIN = 10.0  # of magnitudes over their mean, before the logarithm
_AROUND = 6  # semitones to each side with which a note is compared
_STRIDE = 2  # frames from moment to moment
MOMENTS_PER_S = FRAMES_PER_S / _STRIDE
_LASTS = 12  # frames that are averaged for a moment, under a Hann window
_SHARPNESS = 12.0


class Semitones(nn.Module):
    """(B, 216, T) bands → (B, 72, T): semitones of the tuning in which a window is played."""

    def forward(self, bands: Tensor) -> Tensor:
        off = self._tuning(bands)
        padded = F.pad(bands, (0, 0, 2, 2))
        semitones = torch.zeros_like(bands[:, ::PER_SEMITONE])
        for step in range(-2, 3):
            first = 2 + PER_SEMITONE // 2 + step
            rows = padded[:, first : first + N_BANDS - 2 : PER_SEMITONE]
            semitones = semitones + torch.exp(-0.5 * ((step - off) / 0.8).square()) * rows
        return semitones

    @staticmethod
    def _tuning(bands: Tensor) -> Tensor:
        """(B, 1, 1) bands that the notes lie above the tempered ones of 440 Hz."""
        energy = bands.square().sum(dim=2).unflatten(1, (N_SEMITONES, PER_SEMITONE)).sum(dim=1)
        angles = torch.tensor([-1.0, 0.0, 1.0]) * (2 * math.pi / PER_SEMITONE)
        sine, cosine = energy @ angles.sin(), energy @ angles.cos() + 1e-12
        return torch.atan2(sine, cosine)[:, None, None] * (PER_SEMITONE / (2 * math.pi))


class Chords(nn.Module):
    """(B, 72, T) semitones → (B, 24, T / 2) chords; those of a moment sum to its presence, 0..1."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("filters_chords", chord_shapes())
        self.register_buffer("filters_lasting", torch.hann_window(_LASTS + 2, periodic=False)[1:-1])

    def forward(self, semitones: Tensor) -> Tensor:
        chroma = self._lasting(folded(prominent(semitones)))
        level = chroma.square().mean(dim=1, keepdim=True).sqrt()
        presence = level / (level + 0.1 * level.mean(dim=2, keepdim=True) + 1e-6)
        even = chroma - chroma.mean(dim=1, keepdim=True)
        size = even.square().sum(dim=1, keepdim=True).sqrt()
        likeness = self.filters_chords @ (even / (size + 0.3 * size.mean(2, keepdim=True) + 1e-6))
        return torch.softmax(_SHARPNESS * likeness, dim=1) * presence

    def _lasting(self, chroma: Tensor) -> Tensor:
        """(B, 12, T) → (B, 12, T / 2)"""
        margin = (_LASTS - _STRIDE) // 2
        weights = (self.filters_lasting / self.filters_lasting.sum())[None, None]
        rows = F.pad(chroma.flatten(0, 1)[:, None], (margin, margin))
        return F.conv1d(rows, weights, stride=_STRIDE)[:, 0].unflatten(0, (-1, 12))


def prominent(semitones: Tensor) -> Tensor:
    """(B, 72, T) → the same, in logarithms, of what exceeds its surroundings."""
    mean = semitones.mean(dim=(1, 2), keepdim=True) + 1e-7
    loud = torch.log1p(_GAIN * semitones / mean)
    below, above = loud[:, :1].expand(-1, _AROUND, -1), loud[:, -1:].expand(-1, _AROUND, -1)
    rows = torch.cat([below, loud, above], dim=1).transpose(1, 2)
    around = F.avg_pool1d(rows, 2 * _AROUND + 1, 1).transpose(1, 2)
    return F.relu(loud - around)


def folded(semitones: Tensor) -> Tensor:
    """(B, 72, T) → (B, 12, T)"""
    return semitones.unflatten(1, (-1, 12)).sum(dim=1)


def chord_shapes() -> Tensor:
    """(24, 12) unit rows: the notes of a chord against the others."""
    shapes = torch.full((2, 12), -0.25)
    shapes[0, [0, 4, 7]] = shapes[1, [0, 3, 7]] = 0.75
    rows = torch.stack([shape.roll(root) for shape in shapes for root in range(12)])
    return rows / rows.norm(dim=1, keepdim=True)
