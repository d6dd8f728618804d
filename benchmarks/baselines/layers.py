"""What the networks share: scaled spectra, half-normed channels, generalised means, batches.

Shapes are (batch, channels, bins, frames). No convolution here has a bias, and every batch norm is
in evaluation mode: the networks are made to be used, not trained.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.baselines.frontend import FloatArray

EPSILON = 1e-6


def scaled(spectra: Tensor) -> Tensor:
    """Each item divided by its own maximum."""
    return spectra / (spectra.amax(dim=(-2, -1), keepdim=True) + EPSILON)


def conv(c_in: int, c_out: int, kernel: int | tuple[int, int], stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the size of odd square kernels, but for its stride."""
    padding = kernel // 2 if isinstance(kernel, int) else 0
    return nn.Conv2d(c_in, c_out, kernel, stride, padding, bias=False)


class HalfNorm(nn.Module):
    """Batch norm for the first half of the channels, instance norm for the second (IBN-a)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels // 2)
        self.inst = nn.InstanceNorm2d(channels // 2, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        return torch.cat([self.bn(first), self.inst(second)], dim=1)


class GeneralisedMean(nn.Module):
    """(B, C, bins, frames) → (B, C), with a learned exponent above 1."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.zeros(1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        exponent = 1 + F.softplus(self.p)
        powers = x.clamp(min=EPSILON).flatten(2) ** exponent
        return powers.mean(dim=2) ** (1 / exponent[0])


@dataclass(frozen=True, eq=False)
class NetworkSystem:
    """A front end and a network: samples → features of each segment → a vector of each.

    ``hear`` takes (T,) samples at 16 kHz and gives (S, ...) features; ``batch`` bounds memory.
    """

    hear: Callable[[FloatArray], FloatArray]
    network: nn.Module
    batch: int = 4

    @property
    def n_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def features(self, samples: FloatArray) -> FloatArray:
        return self.hear(samples)

    def to(self, device: str) -> NetworkSystem:
        """The same system, its network on another device, such as "cuda"."""
        return replace(self, network=self.network.to(device))

    def vectors(self, features: FloatArray) -> FloatArray:
        """(S, ...) features → (S, D) float32."""
        device = next(self.network.parameters()).device
        with torch.inference_mode():
            batches = torch.split(torch.from_numpy(features), self.batch)
            found = torch.cat([self.network(batch.to(device)) for batch in batches])
        vectors: FloatArray = found.cpu().numpy()
        return vectors
