"""CoverHunter: a conformer over decibels of a constant-Q spectrum, pooled by attention.

Liu et al., "CoverHunter: cover song identification with refined attention and alignments", ICME
2023. Its position table holds absolute positions and is used as if they were relative, without a
shift: the released weights were trained so.
"""

from __future__ import annotations

import math
import re

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.frontend import FloatArray, decibel_cqt, mean_frames
from benchmarks.baselines.layers import NetworkSystem
from benchmarks.baselines.weights import Names, State, load_network

DIM, HEADS, BLOCKS = 128, 4, 6
HEAD_DIM = DIM // HEADS
CHUNK_FRAMES = 3375  # 135 s
MEAN_FRAMES = 3
SILENCE_DB = -100.0


def _rename(key: str) -> str:
    key = re.sub(r"^_(encoder\.)?", "", key)
    for theirs, ours in (
        ("_linear.linear_layer", "linear"),
        ("_conv.conv", "conv"),
        ("_final_layer", "final"),
    ):
        key = key.replace(theirs, ours)
    return key


NAMES = Names(_rename, training_only=("_bottleneck.", "_ce_layer.", "_center_loss."))


def coverhunter(state: State) -> NetworkSystem:
    """The generator of a checkpoint ``g_…``."""
    network = load_network(lambda _: CoverHunter(), NAMES, state)
    return NetworkSystem(chunks, network)


def chunks(samples: FloatArray) -> FloatArray:
    """(T,) samples at 16 kHz → (S, 1125, 96) decibels, of 135 s each, silence at the end."""
    decibels = decibel_cqt(samples)
    n_more = -decibels.shape[1] % CHUNK_FRAMES
    padded = np.pad(decibels, ((0, 0), (0, n_more)), constant_values=SILENCE_DB)
    means = mean_frames(padded, MEAN_FRAMES, MEAN_FRAMES)
    return np.ascontiguousarray(means.T).reshape(-1, CHUNK_FRAMES // MEAN_FRAMES, len(decibels))


class FeedForward(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w_1, self.w_2 = nn.Linear(DIM, 2 * DIM), nn.Linear(2 * DIM, DIM)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.w_2(F.silu(self.w_1(x)))
        return y


class Attention(nn.Module):
    """Over frames, by what they hold and by where they are."""

    def __init__(self) -> None:
        super().__init__()
        self.linear_q, self.linear_k = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.linear_v, self.linear_out = nn.Linear(DIM, DIM), nn.Linear(DIM, DIM)
        self.linear_pos = nn.Linear(DIM, DIM, bias=False)
        self.pos_bias_u = nn.Parameter(torch.zeros(HEADS, HEAD_DIM))
        self.pos_bias_v = nn.Parameter(torch.zeros(HEADS, HEAD_DIM))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        q, k, v = (
            linear(x).unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
            for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        p = self.linear_pos(positions).unflatten(-1, (HEADS, HEAD_DIM)).transpose(0, 1)
        by_content = (q + self.pos_bias_u[:, None]) @ k.transpose(-2, -1)
        by_place = (q + self.pos_bias_v[:, None]) @ p.transpose(-2, -1)
        weights = ((by_content + by_place) / math.sqrt(HEAD_DIM)).softmax(dim=-1)
        y: Tensor = self.linear_out((weights @ v).transpose(1, 2).flatten(2))
        return y


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.pointwise_conv1 = nn.Conv1d(DIM, 2 * DIM, 1)
        self.depthwise_conv = nn.Conv1d(DIM, DIM, 15, padding=7, groups=DIM)
        self.norm = nn.BatchNorm1d(DIM)
        self.pointwise_conv2 = nn.Conv1d(DIM, DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.glu(self.pointwise_conv1(x.transpose(1, 2)), dim=1)
        y = self.pointwise_conv2(F.silu(self.norm(self.depthwise_conv(y))))
        z: Tensor = y.transpose(1, 2)
        return z


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.feed_forward_macaron, self.feed_forward = FeedForward(), FeedForward()
        self.self_attn, self.conv_module = Attention(), Convolution()
        self.norm_ff_macaron, self.norm_mha = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.norm_conv, self.norm_ff = nn.LayerNorm(DIM), nn.LayerNorm(DIM)
        self.norm_final = nn.LayerNorm(DIM)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        x = x + 0.5 * self.feed_forward_macaron(self.norm_ff_macaron(x))
        x = x + self.self_attn(self.norm_mha(x), positions)
        x = x + self.conv_module(self.norm_conv(x))
        x = x + 0.5 * self.feed_forward(self.norm_ff(x))
        y: Tensor = self.norm_final(x)
        return y


class Embed(nn.Module):
    """(B, T, 96) → (B, T // 4, 128)"""

    def __init__(self) -> None:
        super().__init__()
        convs = nn.Conv2d(1, DIM, 3, 2), nn.ReLU(), nn.Conv2d(DIM, DIM, 3, 2), nn.ReLU()
        self.conv = nn.Sequential(*convs)
        self.out = nn.Sequential(nn.Linear(23 * DIM, DIM))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.conv(x[:, None]).transpose(1, 2).flatten(2))
        return y * math.sqrt(DIM)


class Pooling(nn.Module):
    """Weighted mean and deviation over frames; the weights see the plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * DIM, DIM)
        self.conv = nn.Conv1d(DIM, DIM, 1)
        self.final = nn.Linear(2 * DIM, DIM, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        plain = _mean_and_deviation(x, torch.full_like(x, 1 / x.shape[1]))
        seen = torch.cat([x, plain[:, None].expand(-1, x.shape[1], -1)], dim=2)
        scores = self.conv(torch.tanh(self.linear(seen)).transpose(1, 2))
        y: Tensor = self.final(_mean_and_deviation(x, scores.softmax(dim=2).transpose(1, 2)))
        return y


def _mean_and_deviation(x: Tensor, weights: Tensor) -> Tensor:
    """(B, T, D) → (B, 2 D)"""
    mean = (weights * x).sum(dim=1)
    variance = (weights * (x - mean[:, None]) ** 2).sum(dim=1)
    return torch.cat([mean, variance.clamp(min=1e-12).sqrt()], dim=1)


class CoverHunter(nn.Module):
    """(B, T, 96) decibels → (B, 128)."""

    def __init__(self) -> None:
        super().__init__()
        self.global_cmvn = nn.BatchNorm1d(96)
        self.embed = Embed()
        self.encoders = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.after_norm = nn.LayerNorm(DIM)
        self.pool_layer = Pooling()

    def forward(self, decibels: Tensor) -> Tensor:
        x = self.embed(self.global_cmvn(decibels.transpose(1, 2)).transpose(1, 2))
        positions = _positions(x.shape[1]).to(x.device)
        for block in self.encoders:
            x = block(x, positions)
        y: Tensor = self.pool_layer(self.after_norm(x))
        return y


def _positions(n: int) -> Tensor:
    """(n, 128) sines and cosines in turn."""
    rates = 10_000 ** (-torch.arange(0, DIM, 2, dtype=torch.float32) / DIM)
    angles = torch.arange(n, dtype=torch.float32)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
