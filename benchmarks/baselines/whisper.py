"""Whisper's encoder, averaged: what speech recognition hears before it looks for words.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022. Names are those
of the weights on Hugging Face, any size of them. A recording is cut in windows of 30 s, the last
one filled with silence; a window's vector is the mean of its 1500 frames.
"""

from __future__ import annotations

import re
from functools import lru_cache, partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.frontend import SAMPLE_RATE, FloatArray
from benchmarks.baselines.layers import NetworkSystem
from benchmarks.baselines.weights import Names, State, load_network

WINDOW = 30 * SAMPLE_RATE  # samples
N_FFT, HOP = 400, 160  # samples
HEAD_DIM = 64
BREAK_HZ = 1000.0  # the mel scale is linear below, logarithmic above

NAMES = Names(
    lambda key: re.sub(r"^(model\.)?encoder\.", "", key),
    training_only=("model.decoder.", "decoder.", "proj_out."),
)


def whisper(state: State) -> NetworkSystem:
    """The encoder of any size."""

    def build(found: State) -> Encoder:
        n_blocks = 1 + max(int(key.split(".")[1]) for key in found if key.startswith("layers."))
        dim, n_mels = found["conv1.weight"].shape[:2]
        return Encoder(n_mels, dim, len(found["layers.0.fc1.weight"]), n_blocks)

    network = load_network(build, NAMES, state)
    n_mels = network.conv1.in_channels
    return NetworkSystem(partial(log_mel, n_mels=n_mels), network, batch=2)


def log_mel(samples: FloatArray, n_mels: int) -> FloatArray:
    """(T,) samples at 16 kHz → (windows, mels, 3000); the floor is 80 dB below a window's peak."""
    windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
    hann = torch.hann_window(N_FFT)
    spectra = torch.stft(torch.from_numpy(windows), N_FFT, HOP, window=hann, return_complex=True)
    power = spectra[..., :-1].abs() ** 2
    level = (_mel_bands(n_mels) @ power).clamp(min=1e-10).log10()
    level = torch.maximum(level, level.amax(dim=(1, 2), keepdim=True) - 8)
    scaled: FloatArray = ((level + 4) / 4).numpy()
    return scaled


@lru_cache(maxsize=2)
def _mel_bands(n_mels: int) -> Tensor:
    """(mels, 201) triangles of equal area, evenly spaced on Slaney's mel scale."""
    per_octave = np.log(6.4) / 27
    top = BREAK_HZ * 3 / 200 + np.log(SAMPLE_RATE / 2 / BREAK_HZ) / per_octave
    mels = np.linspace(0, top, n_mels + 2)
    linear = mels * 200 / 3
    above = np.exp(per_octave * np.maximum(mels - BREAK_HZ * 3 / 200, 0)) * BREAK_HZ
    corners = np.where(linear < BREAK_HZ, linear, above)
    hz = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE)
    width = np.diff(corners)[:, None]
    rising = (hz - corners[:-2, None]) / width[:-1]
    falling = (corners[2:, None] - hz) / width[1:]
    triangles = np.maximum(np.minimum(rising, falling), 0)
    areas = 2 / (corners[2:] - corners[:-2])
    return torch.from_numpy((triangles * areas[:, None]).astype(np.float32))


class Attention(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q_proj, self.v_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.out_proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = F.scaled_dot_product_attention(q, k, v)
        y: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return y


class Layer(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.self_attn_layer_norm, self.self_attn = nn.LayerNorm(dim), Attention(dim)
        self.final_layer_norm = nn.LayerNorm(dim)
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.self_attn_layer_norm(x))
        y: Tensor = x + self.fc2(F.gelu(self.fc1(self.final_layer_norm(x))))
        return y


class Encoder(nn.Module):
    """(B, mels, 3000) → (B, dim), the mean of its 1500 frames."""

    def __init__(self, n_mels: int, dim: int, hidden: int, n_layers: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(n_mels, dim, 3, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.embed_positions = nn.Embedding(WINDOW // HOP // 2, dim)
        self.layers = nn.ModuleList(Layer(dim, hidden) for _ in range(n_layers))
        self.layer_norm = nn.LayerNorm(dim)

    def forward(self, mels: Tensor) -> Tensor:
        x = F.gelu(self.conv2(F.gelu(self.conv1(mels)))).transpose(1, 2)
        x = x + self.embed_positions.weight
        for layer in self.layers:
            x = layer(x)
        y: Tensor = self.layer_norm(x).mean(dim=1)
        return y
