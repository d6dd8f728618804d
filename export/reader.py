"""The reader: a network that hears sung words as phones, 41.6 guesses a second.

    samples ─▶ convolutions, 41.6 frames/s ─▶ 2 blocks ─▶ pairs of frames ─▶ 4 blocks ─▶ phones

Its body is the encoder of a speech recogniser, Moonshine tiny (Jeffries et al. 2024), whose weights
``export.speech`` reads: it has heard far more voices than a synthesiser has. From block three on,
two frames become one at half the cost; positions keep counting in the frames before, so attention
finds the distances that it was trained with. A window is read in clips of 10 s, each for itself.

Trained with CTC (Graves et al. 2006); phone 0 is blank. Half-way the network also names the phone
of every moment, which synthetic voices tell: with CTC alone a network that starts from nothing
stays with blanks and vowels for thousands of steps of singing.

Shapes: B clips or windows, T frames, C channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.phones import PHONES

SAMPLE_RATE = 16_000
CLIP_SAMPLES = 160_000
PHONES_PER_FRAME = 2
GUESSES = 416  # phones guessed in a clip
BOLDNESS = 1.5  # nats off blank: a doubtful phone says more than none to who compares readings
DOUBT = 64  # times the shade of a guess is added to it
_EDGE = 256, 255  # silence around a clip, so that frames are centred in it
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True)
class ReaderOptions:
    """Sizes of the network; stored with every checkpoint."""

    width: int = 288
    heads: int = 8
    feed_forward: int = 1152
    rotated: int = 32  # of the 36 channels of a head
    blocks: int = 6
    fine_blocks: int = 2  # before pairs of frames are joined
    moments_after: int = 4  # blocks before the guess half-way


class Frames(nn.Module):
    """A convolution without edges, (B, T, C) → (B, T', out): one product where it is read, and a
    convolution where it is trained, since the product's gradient costs twice as much."""

    def __init__(self, channels: int, out: int, kernel: int, stride: int, *, bias: bool) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.product = nn.Linear(kernel * channels, out, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self._convolved(x) if self.training else self._multiplied(x)

    def _convolved(self, x: Tensor) -> Tensor:
        kernel = self.product.weight.unflatten(1, (self.kernel, -1)).transpose(1, 2)
        # two dimensions of which one has length 1: this one is fast with channels last
        x = x.transpose(1, 2)[:, :, None]
        x = F.conv2d(x, kernel[:, :, None], self.product.bias, stride=(1, self.stride))
        return x[:, :, 0].transpose(1, 2)

    def _multiplied(self, x: Tensor) -> Tensor:
        batch, length, channels = x.shape
        count = (length - self.kernel) // self.stride + 1
        steps = -(-self.kernel // self.stride)
        # whole strides are cut as one, and a frame is the strides it covers side by side
        rows = F.pad(x, (0, 0, 0, (count + steps - 1) * self.stride - length))
        rows = rows.reshape(batch, count + steps - 1, self.stride * channels)
        rest = (self.kernel - (steps - 1) * self.stride) * channels
        parts = [rows[:, i : i + count] for i in range(steps - 1)]
        parts.append(rows[:, steps - 1 : steps - 1 + count, :rest])
        return self.product(torch.cat(parts, dim=2))


class Stem(nn.Module):
    """(B, 160000) samples → (B, 416, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = Frames(1, width, 127, 64, bias=False)
        self.scale = nn.Parameter(torch.ones(width))
        self.shift = nn.Parameter(torch.zeros(width))
        self.second = Frames(width, 2 * width, 7, 3, bias=True)
        self.third = Frames(2 * width, width, 3, 2, bias=True)

    def forward(self, samples: Tensor) -> Tensor:
        x = torch.tanh(self.first(F.pad(samples, _EDGE)[:, :, None])).float()
        x = F.gelu(self.second(self._normed(x) * self.scale + self.shift))
        return F.gelu(self.third(x))

    def _normed(self, x: Tensor) -> Tensor:
        """One group norm over the clip, time and channels together."""
        if self.training:
            return F.layer_norm(x, x.shape[1:])
        # written out for the graph, where the function would take a scale for every moment
        x = x - x.mean(dim=(1, 2), keepdim=True)
        return x * (x.square().mean(dim=(1, 2), keepdim=True) + 1e-5).rsqrt()


class _Attention(nn.Module):
    """Self-attention within a clip: (B, T, C) and the turns of its positions → (B, T, C)."""

    def __init__(self, options: ReaderOptions) -> None:
        super().__init__()
        self.heads, self.rotated = options.heads, options.rotated
        self.into = nn.Linear(options.width, 3 * options.width, bias=False)
        self.out = nn.Linear(options.width, options.width, bias=False)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        batch, length, width = x.shape
        pieces = self.into(x).reshape(batch, length, 3, self.heads, width // self.heads)
        q, k, v = pieces.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self._turned(q, turns), self._turned(k, turns)
        # written out: in bfloat16 the fused function's gradient is slower
        mixed = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(x.shape))

    def _turned(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        """Rotary positions (Su et al. 2021): a head's channels are two halves and what stays."""
        cosine, sine = turns
        half = self.rotated // 2
        one, other, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
        return torch.cat([one * cosine - other * sine, other * cosine + one * sine, rest], dim=-1)


class _Block(nn.Module):
    def __init__(self, options: ReaderOptions) -> None:
        super().__init__()
        width = options.width
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.attention = _Attention(options)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, options.feed_forward),
            nn.GELU(),
            nn.Linear(options.feed_forward, width),
        )

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attention(self.norms[0](x), turns)
        return x + self.feed_forward(self.norms[1](x))


class Reader(nn.Module):
    """(B, N) samples, N a multiple of 160,000 → (B, N / 160000 · 416, 40) log-probabilities."""

    def __init__(self, options: ReaderOptions | None = None) -> None:
        super().__init__()
        self.options = options or ReaderOptions()
        width = self.options.width
        self.stem = Stem(width)
        self.blocks = nn.ModuleList(_Block(self.options) for _ in range(self.options.blocks))
        self.norm = nn.LayerNorm(width, bias=False)
        self.said = nn.Linear(width, PHONES_PER_FRAME * len(PHONES))
        self.moments = nn.Linear(width, PHONES_PER_FRAME * len(PHONES))

    def forward(self, samples: Tensor) -> Tensor:
        said, _ = self.both(samples.reshape(-1, CLIP_SAMPLES))
        return said.reshape(samples.shape[0], -1, len(PHONES))

    def both(self, clips: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 160000) → log-probabilities at the end, and logits half-way, both (B, 416, 40)."""
        x = self.stem(clips)
        positions = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
        turns = self._turns(positions, x.dtype)
        for block in self.blocks[: self.options.fine_blocks]:
            x = block(x, turns)
        x = x.reshape(x.shape[0], -1, PHONES_PER_FRAME, x.shape[2]).mean(dim=2)
        turns = self._turns(positions.reshape(-1, PHONES_PER_FRAME).mean(dim=1), x.dtype)
        for block in self.blocks[self.options.fine_blocks : self.options.moments_after]:
            x = block(x, turns)
        moments = _per_phone(self.moments, x)
        for block in self.blocks[self.options.moments_after :]:
            x = block(x, turns)
        return _per_phone(self.said, self.norm(x)).log_softmax(dim=-1), moments

    def _turns(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        half = torch.arange(0, self.options.rotated, 2, device=positions.device)
        angles = positions[:, None] * _ROTARY_BASE ** (-half / self.options.rotated)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def _per_phone(head: nn.Linear, x: Tensor) -> Tensor:
    return head(x).reshape(x.shape[0], -1, len(PHONES)).float()


def guess(log_phones: Tensor) -> Tensor:
    """What a bundle reads, (…, 40) → (…,): the phone at each guess, 0 for none."""
    values, phones = log_phones[..., 1:].max(dim=-1)
    return torch.where(values > log_phones[..., 0] - BOLDNESS, phones + 1, 0)


def greedy_phones(log_phones: Tensor) -> list[int]:
    """The best path of one window (T, 40), repeats joined and blanks removed."""
    path = torch.unique_consecutive(log_phones.argmax(dim=-1)).tolist()
    return [phone for phone in path if phone]
