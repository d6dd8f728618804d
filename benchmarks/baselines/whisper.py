"""Whisper's encoder, averaged: what speech recognition hears before it looks for words.

Radford et al., "Robust speech recognition via large-scale weak supervision", 2022. Names are those
of the weights on Hugging Face, any size of them; network and spectrum are those that the paper's
student hears with. A recording is cut in windows of 30 s, the last one filled with silence; a
window's vector is the mean of its 1500 frames.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from benchmarks.baselines.frontend import FloatArray
from benchmarks.baselines.layers import NetworkSystem
from benchmarks.baselines.weights import State
from export.whisper import WINDOW, LogMel, encoder_of


def whisper(state: State) -> NetworkSystem:
    """The encoder of any size. Raises BadModel where weights are missing or left over."""
    encoder = encoder_of(state)
    spectrum = LogMel(encoder.config.num_mel_bins)

    @torch.no_grad()
    def log_mel(samples: FloatArray) -> FloatArray:
        """(T,) samples at 16 kHz → (windows, mels, 3000)."""
        windows = np.pad(samples, (0, -len(samples) % WINDOW)).reshape(-1, WINDOW)
        levels: FloatArray = spectrum(torch.from_numpy(windows)).numpy()
        return levels

    return NetworkSystem(log_mel, MeanFrame(encoder), batch=2)


class MeanFrame(nn.Module):
    """(B, mels, 3000) → (B, C)."""

    def __init__(self, encoder: WhisperEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, mels: Tensor) -> Tensor:
        mean: Tensor = self.encoder(mels).last_hidden_state.mean(dim=1)
        return mean
