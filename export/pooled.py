"""Our own reader as ears: what it has before it names phones, for a head such as the paper's.

The head (``export.student``) is taught by ``export.distil``, over a frozen encoder, the text vector
of the words that are sung. Here that encoder is the reader of ``livi-mini``, for comparison.

Shapes: B windows, T frames, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from export.reader import CLIP_SAMPLES, Reader

FRAMES_JOINED = 2  # the reader's frames that are averaged into one: 10.4 a second are left
HIDDEN = (768, 512, 512)  # a head for the frames of our reader


@contextmanager
def hidden_states(reader: Reader) -> Iterator[list[Tensor]]:
    """What the reader has before its last layer, while it reads for others.

    Each call of ``reader`` adds (clips, T, C) float16, pairs of frames averaged.
    """
    states: list[Tensor] = []

    def keep(_module: nn.Module, _input: tuple[Tensor, ...], output: Tensor) -> None:
        parts = output.detach().float().unflatten(1, (-1, FRAMES_JOINED))
        states.append(parts.mean(dim=2).half())

    handle = reader.norm.register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


class ReaderEars(nn.Module):
    """(B, samples) of whole clips → (B, T, C) float32 frames of a frozen reader."""

    def __init__(self, reader: Reader, window_s: float = 30.0) -> None:
        super().__init__()
        self.reader = reader.eval().requires_grad_(False)
        self.width = reader.options.width
        with torch.no_grad():
            silence = torch.zeros(1, CLIP_SAMPLES)
            frames = self(silence).shape[1]
        self.n_frames = frames * round(window_s * 16_000) // CLIP_SAMPLES

    def forward(self, samples: Tensor) -> Tensor:
        with hidden_states(self.reader) as states:
            self.reader(samples)
        return states[0].reshape(len(samples), -1, self.width).float()
