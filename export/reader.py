"""The reader: a small network that hears sung words as phones, 25 guesses a second.

    samples ─▶ log-mel ─▶ convolutions, 100 → 12.5 frames/s ─▶ blocks ─▶ two phones a frame

A block is a convolution, an attention within 10 s, and a feed-forward part, all pre-norm residual
(after the conformer, Gulati et al. 2020, with one feed-forward). Nothing depends on absolute
position, so a network trained on 10 s clips reads 30 s windows: attention looks at 10 s at a time
and the convolutions carry over the cuts. Trained with CTC (Graves et al. 2006); phone 0 is blank.
Half-way the network also names the phone of every moment, which synthetic voices tell: with CTC on
letters alone it stayed with blanks and vowels for thousands of steps of singing.

Shapes: B windows, T frames, C channels. All signal processing is inside, so that it is exported
with the network and there is one log-mel only.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.phones import PHONES

SAMPLE_RATE = 16_000
_N_FFT, _MEL_HOP = 400, 160
FRAME_RATE = 12.5
PHONES_PER_FRAME = 2
_CHUNK_FRAMES = 125  # 10 s


@dataclass(frozen=True)
class ReaderOptions:
    """Sizes of the network; stored with every checkpoint."""

    n_mels: int = 80
    width: int = 256
    heads: int = 4
    feed_forward: int = 1024
    kernel: int = 15
    blocks: int = 6
    dropout: float = 0.05


class LogMel(nn.Module):
    """(B, N) samples → (B, n_mels, N // 160) log-mel in about −1…1, the same at any level.

    Power spectrum of 25 ms Hann windows by convolution, mel bands, log10, everything more than 8
    below the loudest of this window raised to there (the maximum is the window's own: a neighbour
    in the batch must not change it).
    """

    def __init__(self, n_mels: int) -> None:
        super().__init__()
        window = torch.hann_window(_N_FFT, dtype=torch.float64)
        n_bins = _N_FFT // 2 + 1
        angle = 2 * math.pi / _N_FFT * torch.outer(torch.arange(n_bins), torch.arange(_N_FFT))
        kernels = torch.cat([angle.cos() * window, -angle.sin() * window]).float()
        self.register_buffer("kernels", kernels[:, None], persistent=False)
        self.register_buffer("window", window.float(), persistent=False)
        self.register_buffer("mel", torch.from_numpy(_mel_bands(n_mels)), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        padded = F.pad(samples[:, None], (_N_FFT // 2, _N_FFT // 2 - _MEL_HOP))
        parts = F.conv1d(padded, self.kernels, stride=_MEL_HOP)
        real, imaginary = parts.chunk(2, dim=1)
        return self._scale(real.square() + imaginary.square())

    def fast(self, samples: Tensor) -> Tensor:
        """``forward`` by FFT, for training; equal to about 1e-4."""
        padded = F.pad(samples, (_N_FFT // 2, _N_FFT // 2 - _MEL_HOP))
        frames = padded.unfold(1, _N_FFT, _MEL_HOP)
        spectrum = torch.fft.rfft(frames * self.window).abs().square()
        return self._scale(spectrum.transpose(1, 2))

    def _scale(self, power: Tensor) -> Tensor:
        bands = torch.matmul(self.mel, power).clamp(min=1e-10).log10()
        loudest = bands.amax(dim=(1, 2), keepdim=True)
        return (torch.maximum(bands, loudest - 8.0) - loudest + 4.0) / 4.0


def _mel_bands(n_mels: int) -> np.ndarray:
    """(n_mels, 201) float32 triangles, equal on the HTK mel scale from 30 Hz to 8 kHz."""
    edges = np.linspace(_to_mel(30.0), _to_mel(SAMPLE_RATE / 2), n_mels + 2)
    hertz = 700.0 * (10 ** (edges / 2595.0) - 1)
    bins = np.arange(_N_FFT // 2 + 1) * (SAMPLE_RATE / _N_FFT)
    rise = (bins - hertz[:-2, None]) / np.maximum(np.diff(hertz)[:-1, None], 20.0)
    fall = (hertz[2:, None] - bins) / np.maximum(np.diff(hertz)[1:, None], 20.0)
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)


def _to_mel(hertz: float) -> float:
    return 2595.0 * math.log10(1 + hertz / 700.0)


class _Attention(nn.Module):
    """Self-attention within chunks of 10 s: (B, T, C) → (B, T, C); T is a multiple of the chunk."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        pieces = self.into(x).reshape(-1, _CHUNK_FRAMES, 3, self.heads, width // self.heads)
        q, k, v = pieces.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).reshape(x.shape))


class _Convolution(nn.Module):
    """Gated depthwise convolution over time: (B, T, C) → (B, T, C)."""

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        gated = F.glu(self.into(x), dim=-1)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.out(F.silu(self.norm(mixed)))


class _Block(nn.Module):
    def __init__(self, options: ReaderOptions) -> None:
        super().__init__()
        width = options.width
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.convolution = _Convolution(width, options.kernel)
        self.attention = _Attention(width, options.heads)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.feed_forward),
            nn.SiLU(),
            nn.Linear(options.feed_forward, width),
        )
        self.dropout = nn.Dropout(options.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.convolution(self.norms[0](x)))
        x = x + self.dropout(self.attention(self.norms[1](x)))
        return x + self.dropout(self.feed_forward(self.norms[2](x)))


class Subsample(nn.Module):
    """(B, n_mels, 8T) log-mel → (B, T, C): three halvings of time, two of frequency."""

    def __init__(self, n_mels: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 24, 3, stride=2, padding=1)
        self.second = nn.Sequential(
            nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24), nn.Conv2d(24, 32, 1)
        )
        self.flatten = nn.Linear(32 * (n_mels // 4), width)
        self.third = nn.Conv1d(width, width, 5, stride=2, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, width)

    def forward(self, mel: Tensor) -> Tensor:
        x = F.silu(self.second(F.silu(self.first(mel[:, None]))))
        x = F.silu(self.flatten(x.permute(0, 3, 1, 2).flatten(2)))
        return self.out(self.norm(self.third(x.transpose(1, 2)).transpose(1, 2)))


class Reader(nn.Module):
    """(B, N) samples, N a multiple of 160,000 → (B, N / 640, 40) log-probabilities of phones."""

    def __init__(self, options: ReaderOptions | None = None) -> None:
        super().__init__()
        self.options = options or ReaderOptions()
        width = self.options.width
        self.log_mel = LogMel(self.options.n_mels)
        self.subsample = Subsample(self.options.n_mels, width)
        self.blocks = nn.ModuleList(_Block(self.options) for _ in range(self.options.blocks))
        self.norm = nn.LayerNorm(width)
        self.said = nn.Linear(width, PHONES_PER_FRAME * len(PHONES))
        self.moments = nn.Linear(width, PHONES_PER_FRAME * len(PHONES))

    def forward(self, samples: Tensor) -> Tensor:
        x = self.subsample(self.log_mel(samples))
        for block in self.blocks:
            x = block(x)
        return _per_phone(self.said, self.norm(x)).log_softmax(dim=-1)

    def train_forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """(B, n_mels, 8T) → log-probabilities at the end, and logits half-way, both (B, 2T, 40)."""
        x = self.subsample(mel)
        middle = (len(self.blocks) + 1) // 2
        for block in self.blocks[:middle]:
            x = block(x)
        moments = _per_phone(self.moments, x)
        for block in self.blocks[middle:]:
            x = block(x)
        return _per_phone(self.said, self.norm(x)).log_softmax(dim=-1), moments


def _per_phone(head: nn.Linear, x: Tensor) -> Tensor:
    return head(x).reshape(x.shape[0], -1, len(PHONES)).float()


def greedy_phones(log_phones: Tensor) -> list[int]:
    """The best path of one window (T, 40), repeats joined and blanks removed."""
    path = torch.unique_consecutive(log_phones.argmax(dim=-1)).tolist()
    return [phone for phone in path if phone]
