"""CQTNet and its descendants: ten convolutions over a coarse spectrum, the maximum, a projection.

Five releases differ in width, in the padding of their max-pooling, in the projection and in the
names of their weights; the network is the same. Yu et al., "Learning a representation for cover
song identification using convolutional neural network", ICASSP 2020; as in sony/clews (``cqtnet``,
``dvinetp``); Araz et al., "Discogs-VINet-MIREX" and "Discogs-VI", ISMIR 2024.
"""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import soxr
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.frontend import (
    LIBROSA_RATE,
    SAMPLE_RATE,
    FloatArray,
    Segments,
    mean_frames,
    recursive_cqt,
)
from benchmarks.baselines.layers import NetworkSystem, scaled
from benchmarks.baselines.weights import Names, State, load_network

WIDTHS = (1, 2, 2, 2, 4, 4, 8, 8, 16, 16)  # times the base width
TALL_KERNELS = (12, 13, 13)  # bins, of the first convolutions; 3 of the others
MEAN_FRAMES = 20  # 0.46 s of a whole track
SEGMENTS = Segments(cqt_hop=320, pool=(17, 15), length_s=150.0, padding="zeros")


class CQTNet(nn.Module):
    """(B, 84, frames) magnitudes → (B, dim), of unit length where ``unit``."""

    def __init__(self, base: int, dim: int, *, bias: bool, pool_padding: int, unit: bool) -> None:
        super().__init__()
        widths = [1, *(base * width for width in WIDTHS)]
        self.convs, self.norms = nn.ModuleList(), nn.ModuleList()
        for i in range(10):
            height = TALL_KERNELS[i] if i < len(TALL_KERNELS) else 3
            self.convs.append(
                nn.Conv2d(
                    widths[i],
                    widths[i + 1],
                    (height, 3),
                    padding=(6, 0) if i == 0 else 0,
                    dilation=(1, 1 + i % 2),
                    bias=False,
                )
            )
            self.norms.append(nn.BatchNorm2d(widths[i + 1]))
        self.proj = nn.Linear(widths[-1], dim, bias=bias)
        self.pool = nn.MaxPool2d((1, 2), padding=(0, pool_padding))
        self.unit = unit

    def forward(self, spectra: Tensor) -> Tensor:
        x = scaled(spectra.clamp(min=0))[:, None]
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            if i in (1, 3, 5, 7):
                x = self.pool(x)
        vectors: Tensor = self.proj(x.amax(dim=(2, 3)))
        return F.normalize(vectors) if self.unit else vectors


def _blocks(key: str) -> str:
    """``block2.3.weight`` → ``convs.3.weight``, ``fc0`` or ``fc`` → ``proj``."""

    def place(match: re.Match[str]) -> str:
        block, layer = int(match[1]), int(match[2])
        return f"{'norms' if layer % 3 else 'convs'}.{2 * (block - 1) + layer // 3}."

    return re.sub(r"^fc0?\.", "proj.", re.sub(r"^block(\d)\.(\d)\.", place, key))


def _sequence(key: str) -> str:
    """``front_end.7.weight`` → ``convs.2.weight``: two of three layers, and a pooling in seven."""

    def place(match: re.Match[str]) -> str:
        pair, rest = divmod(int(match[1]), 7)
        return f"{'norms' if rest % 3 else 'convs'}.{2 * pair + rest // 3}."

    key = re.sub(r"^(?:front_end|features)\.(\d+)\.", place, key)
    return re.sub(r"^proj\.(?:lin|0)\.", "proj.", key)


def _features(key: str) -> str:
    """``features.conv3.weight`` → ``convs.3.weight``, ``fc0`` → ``proj``."""
    return re.sub(r"^fc0\.", "proj.", re.sub(r"^features\.(conv|norm)(\d)\.", r"\1s.\2.", key))


CLEWS_REPOSITORY = Names(_blocks, training_only=("fc1.",))
DISCOGS_VINET = Names(_sequence)
ORIGINAL = Names(_features, training_only=("fc1.",))


def cqtnet_clews(state: State) -> NetworkSystem:
    """``dvi-cqtnet`` and ``shs-cqtnet`` of sony/clews."""
    return NetworkSystem(SEGMENTS.cut, _network(CLEWS_REPOSITORY, state, pool_padding=0))


def dvinet(state: State) -> NetworkSystem:
    """``dvi-dvinetp`` and ``shs-dvinetp`` of sony/clews."""
    return NetworkSystem(SEGMENTS.cut, _network(CLEWS_REPOSITORY, state, pool_padding=0, unit=True))


def discogs_vinet(state: State) -> NetworkSystem:
    """Discogs-VINet, as released at ISMIR 2024 and for MIREX: whole tracks of 93 s at least."""
    network = _network(DISCOGS_VINET, state, unit=True)
    return NetworkSystem(partial(whole_track, at_least=4000, half=True), network)


def cqtnet(state: State) -> NetworkSystem:
    """The original CQTNet: whole tracks of 93 s (200 means) at least."""
    return NetworkSystem(partial(whole_track, at_least=4000), _network(ORIGINAL, state))


def _network(names: Names, state: State, *, pool_padding: int = 1, unit: bool = False) -> CQTNet:
    """The network that the weights are of."""

    def build(found: State) -> CQTNet:
        base, dim = len(found["convs.0.weight"]), len(found["proj.weight"])
        bias = "proj.bias" in found
        return CQTNet(base, dim, bias=bias, pool_padding=pool_padding, unit=unit)

    return load_network(build, names, state)


def whole_track(samples: FloatArray, *, at_least: int, half: bool = False) -> FloatArray:
    """(T,) samples at 16 kHz → (1, 84, frames of 0.46 s) of the whole track, zeros at its end.

    ``at_least`` counts frames before the mean. ``half`` rounds to float16, as the release that
    keeps its spectra on disk does. Resampling from 16 kHz loses nothing: the highest bin ends
    below 4.2 kHz.
    """
    resampled = soxr.resample(samples, SAMPLE_RATE, LIBROSA_RATE)
    return pooled_track(recursive_cqt(resampled), at_least=at_least, half=half)


def pooled_track(spectrum: FloatArray, *, at_least: int, half: bool) -> FloatArray:
    """(84, T) at 43 frames a second → (1, 84, frames of 0.46 s)."""
    if half:
        spectrum = spectrum.astype(np.float16).astype(np.float32)
    spectrum = np.pad(spectrum, ((0, 0), (0, max(0, at_least - spectrum.shape[1]))))
    return mean_frames(spectrum, MEAN_FRAMES, MEAN_FRAMES)[None]
