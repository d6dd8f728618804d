"""The paper's head: a learned query attends to frames, layers carry what it took to a text space.

    frames (T, C) ─▶ attention of one learned query ─▶ (C,) ─▶ layers ─▶ unit vector (dim,)

LIVI (arXiv 2601.11262) teaches it, over a frozen encoder, the text vector of the words that are
sung: cosines of pairs, and the cosines within a batch (``paper_loss``). Weights are named and
shaped as the authors' are, so ``HeadOptions.livi()`` takes their checkpoint; the defaults are for
the frames of our reader.

The query depends on weights alone, so a frame's logit is its product with one constant vector per
position, and values need to be computed of the weighted mean only: attention is computed in this
folded form, which is the same function at a fraction of the cost.

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
from export.lexical import unit
from export.mixes import Backings, Stems
from export.reader import Reader

FRAMES_JOINED = 2  # the reader's frames that are averaged into one: 10.4 a second are left
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class HeadOptions:
    """Sizes of a head."""

    width: int = 288  # channels of a frame
    hidden: tuple[int, ...] = (768, 512, 512)
    dim: int = 512

    @classmethod
    def livi(cls) -> HeadOptions:
        """The paper's: Whisper's frames into gte-multilingual-base."""
        return cls(width=1280, hidden=(3072, 2048, 2048, 1536), dim=768)


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


class _QueryAttention(nn.Module):
    """(B, T, C), of which the first is the query and equal in all rows → (B, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ql, self.kl, self.vl = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        logits = (x * self.folded(x[0, 0], x.shape[1])).sum(dim=2)
        mean = (logits.softmax(dim=1)[:, None] @ x)[:, 0]
        return self.proj(self.vl(mean))

    def folded(self, first: Tensor, length: int) -> Tensor:
        """(T, C): the query turned back by each position, through the weights of the keys."""
        query = self.ql(first) / math.sqrt(len(first))
        half = torch.arange(0, len(first), 2, device=first.device)
        positions = torch.arange(length, dtype=torch.float32, device=first.device)
        angles = positions[:, None] * _ROTARY_BASE ** (-half / len(first))
        one, other = query.chunk(2)
        cosine, sine = angles.cos(), angles.sin()
        turned = torch.cat([one * cosine + other * sine, other * cosine - one * sine], dim=1)
        return turned @ self.kl.weight


class _FeedForward(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class _QueryBlock(nn.Module):
    """What the query takes from the frames, both steps scaled up from almost nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma_1, self.gamma_2 = (nn.Parameter(torch.full((width,), 1e-4)) for _ in range(2))
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = _QueryAttention(width), _FeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        query = x[:, 0] + self.gamma_1 * self.attn(self.norm1(x))
        return query + self.gamma_2 * self.mlp(self.norm2(query))


class AttentionPooling(nn.Module):
    """(B, T, C) frames → (B, C): what a learned query takes from them; keys know their place."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.attn = _QueryBlock(width)
        self.norm_layer = nn.LayerNorm(width)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, frames: Tensor) -> Tensor:
        query = self.cls_token.expand(len(frames), -1, -1)
        return self.norm_layer(self.attn(torch.cat([query, frames], dim=1)))


class Projection(nn.Module):
    """(B, C) → (B, dim) through hidden layers."""

    def __init__(self, options: HeadOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = options.width
        for size in options.hidden:
            layers += [nn.Linear(width, size), nn.LayerNorm(size), nn.ReLU()]
            width = size
        self.net = nn.Sequential(*layers, nn.Linear(width, options.dim))

    def forward(self, pooled: Tensor) -> Tensor:
        return self.net(pooled)


class Head(nn.Module):
    """(B, T, C) frames → (B, dim) unit vectors."""

    def __init__(self, options: HeadOptions | None = None) -> None:
        super().__init__()
        self.options = options or HeadOptions()
        self.pooling = AttentionPooling(self.options.width)
        self.audio_proj = Projection(self.options)

    def forward(self, frames: Tensor) -> Tensor:
        return unit(self.audio_proj(self.pooling(frames)))


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
        loss = paper_loss(head(frames[rows, mixes].float()), text[rows], training.alpha)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            losses.append(float(loss.detach()))
        step += 1
        share = (time.process_time() - started) / (60 * training.minutes)
    return head.eval(), losses
