"""The two residual networks of sony/clews: ByteCover2 as it is rebuilt there, and CLEWS itself.

Du et al., "ByteCover2: towards dimensionality reduction of latent embedding for efficient cover
song identification", ICASSP 2022; Serrà et al., "Supervised contrastive learning from weakly-
labeled audio segments for musical version matching" (CLEWS), ICML 2025.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from benchmarks.baselines.frontend import Segments
from benchmarks.baselines.layers import (
    EPSILON,
    GeneralisedMean,
    HalfNorm,
    NetworkSystem,
    conv,
    scaled,
)
from benchmarks.baselines.weights import Names, State, load_network

STAGES = ((3, 256, 1), (4, 512, 2), (6, 1024, 2), (3, 2048, 1))  # blocks, channels, first stride
BYTECOVER2_SEGMENTS = Segments(cqt_hop=368, pool=(5, 5), length_s=150.0, padding="zeros")
CLEWS_SEGMENTS = Segments(cqt_hop=320, pool=(5, 5), length_s=20.0, padding="repeat")

BYTECOVER2_NAMES = Names(training_only=("fc.",))
CLEWS_NAMES = Names(lambda key: re.sub(r"\.conv\.weight$", ".weight", key))


def bytecover2(state: State) -> NetworkSystem:
    """``dvi-bytecover2x`` and ``shs-bytecover2x``."""
    network = load_network(
        lambda found: ByteCover2(len(found["bn.weight"])), BYTECOVER2_NAMES, state
    )
    return NetworkSystem(BYTECOVER2_SEGMENTS.cut, network)


def clews(state: State) -> NetworkSystem:
    """``dvi-clews`` and ``shs-clews``."""
    network = load_network(lambda found: Clews(len(found["proj.1.weight"])), CLEWS_NAMES, state)
    return NetworkSystem(CLEWS_SEGMENTS.cut, network, batch=16)


def _blocks() -> Iterator[tuple[int, int, int]]:
    """Channels in, channels out and stride of all sixteen."""
    c_in = STAGES[0][1]
    for n_blocks, channels, first_stride in STAGES:
        for i in range(n_blocks):
            yield c_in, channels, first_stride if i == 0 else 1
            c_in = channels


class Bottleneck(nn.Module):
    """1×1, 3×3, 1×1; what is added is a 3×3 convolution where shapes differ."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        mid = c_out // 4
        last_stage = c_out == STAGES[-1][1]
        self.convs = nn.Sequential(
            conv(c_in, mid, 1),
            nn.BatchNorm2d(mid) if last_stage else HalfNorm(mid),
            nn.ReLU(),
            conv(mid, mid, 3, stride),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            conv(mid, c_out, 1),
            nn.BatchNorm2d(c_out),
        )
        self.residual = nn.Sequential()
        if c_in != c_out:
            self.residual.extend([conv(c_in, c_out, 3, stride), nn.BatchNorm2d(c_out)])

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convs(x) + self.residual(x))


class ByteCover2(nn.Module):
    """(B, 84, frames) magnitudes → (B, 1536)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, last = STAGES[0][1], STAGES[-1][1]
        self.frontend = nn.Sequential(
            nn.Identity(),
            nn.Conv2d(1, first, 7, (1, 2), bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.MaxPool2d(3, 2),
        )
        self.resblocks = nn.Sequential(*(Bottleneck(*block) for block in _blocks()))
        self.embpool = nn.Sequential(GeneralisedMean(), nn.Linear(last, dim))
        self.bn = nn.BatchNorm1d(dim)

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.resblocks(self.frontend(scaled(spectra)[:, None]))
        vectors: Tensor = self.bn(self.embpool(x))
        return vectors


class GainedBlock(nn.Module):
    """Two 3×3 convolutions after their norms, added with a learned gain."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        mid = c_out // 2
        self.gain = nn.Parameter(torch.zeros(1))
        self.convs = nn.Sequential(
            HalfNorm(c_in),
            nn.ReLU(),
            conv(c_in, mid, 3, stride),
            nn.BatchNorm2d(mid),
            nn.ReLU(),
            conv(mid, c_out, 3),
        )
        self.skip = nn.Sequential()
        if c_in != c_out:
            self.skip.extend([nn.BatchNorm2d(c_in), nn.ReLU(), conv(c_in, c_out, 3, stride)])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gain * self.convs(x) + self.skip(x)
        return y


class Loudness(nn.Module):
    """Square roots of magnitudes, 0 to 1 within an item, then a learned gain and bias.

    The authors add noise of 1e-6 between two scalings, when measuring as well; it is left out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, spectra: Tensor) -> Tensor:
        x = spectra.clamp(min=0).sqrt()
        for _ in range(2):
            x = x - x.amin(dim=(-2, -1), keepdim=True)
            x = x / (x.amax(dim=(-2, -1), keepdim=True) + EPSILON)
        return x * self.gain + self.bias


class Clews(nn.Module):
    """(B, 84, frames) magnitudes → (B, dim), not of unit length."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        first, last = STAGES[0][1], STAGES[-1][1]
        self.frontend = nn.Sequential(
            Loudness(),
            nn.Conv2d(1, first // 2, (12, 3), (1, 2), bias=False),
            nn.BatchNorm2d(first // 2),
            nn.ReLU(),
            conv(first // 2, first, (12, 3), 2),
        )
        self.backbone = nn.Sequential(*(GainedBlock(*block) for block in _blocks()))
        self.pool = GeneralisedMean()
        self.proj = nn.Sequential(nn.BatchNorm1d(last), nn.Linear(last, dim, bias=False))

    def forward(self, spectra: Tensor) -> Tensor:
        x = self.backbone(self.frontend(spectra[:, None]))
        vectors: Tensor = self.proj(self.pool(x))
        return vectors
