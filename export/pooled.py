"""The paper's head on the frames of our own reader: how it is heard and taught, for comparison.

The head (``export.student``) is taught, over a frozen encoder, the text vector of the words that
are sung: cosines of pairs, and the cosines within a batch (``paper_loss``).

Shapes: B windows, T frames, C channels.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.fit import Heard, hear
from export.mixes import Backings, Stems
from export.reader import Reader
from export.student import Head, HeadOptions

FRAMES_JOINED = 2  # the reader's frames that are averaged into one: 10.4 a second are left
HIDDEN = (768, 512, 512)  # a head for the frames of our reader


@dataclass(frozen=True)
class HeadTraining:
    """How a head is taught; the paper has 1e-4 and 10,000 steps of warm-up for 31,400 steps."""

    minutes: float = 4.0  # of processor time
    alpha: float = 0.5  # weight of the cosines of pairs, against those within a batch
    batch: int = 128
    learning_rate: float = 1e-3
    warm_up: int = 50
    weight_decay: float = 0.01
    seed: int = 1


def paper_loss(sound: Tensor, text: Tensor, alpha: float) -> Tensor:
    """α (1 − cosine of pairs) + (1 − α) squared error of the cosines within a batch.

    ``sound`` and ``text`` are (B, dim) unit vectors; row i of one belongs to row i of the other.
    """
    pairs = 1 - (sound * text).sum(dim=1).mean()
    return alpha * pairs + (1 - alpha) * F.mse_loss(sound @ sound.T, text @ text.T)


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


def hear_frames(
    reader: Reader, stems: Stems, backings: Backings, n: int, seed: int
) -> tuple[Heard, Tensor]:
    """``n`` windows as ``export.fit`` hears them, and their frames (n, 2, T, C) float16."""
    with hidden_states(reader) as states:
        heard = hear(reader, stems, backings, n, seed)
    width = states[0].shape[2]
    return heard, torch.stack([clips.reshape(2, -1, width) for clips in states])


def train_head(
    frames: Tensor, text: Tensor, options: HeadOptions, training: HeadTraining
) -> tuple[Head, list[float]]:
    """A head for cached frames (N, mixes, T, C) float16 and the text vectors (N, dim) of their
    words, and the losses of every 20th step."""
    torch.manual_seed(training.seed)
    rng = np.random.default_rng([training.seed, 33])
    head = Head(options).train()
    optimiser = torch.optim.AdamW(
        head.parameters(),
        lr=training.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=training.weight_decay,
    )
    losses: list[float] = []
    started, step, share = time.process_time(), 0, 0.0
    while share < 1:
        rate = min(1.0, (step + 1) / training.warm_up) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimiser.param_groups:
            group["lr"] = training.learning_rate * rate
        rows = rng.choice(len(frames), min(training.batch, len(frames)), replace=False)
        mixes = rng.integers(frames.shape[1], size=len(rows))
        sound = head.fold(frames.shape[2])(frames[rows, mixes].float())
        loss = paper_loss(sound, text[rows], training.alpha)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            losses.append(float(loss.detach()))
        step += 1
        share = (time.process_time() - started) / (60 * training.minutes)
    return head.eval(), losses
