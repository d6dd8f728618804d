r"""The detector of the paper: MusiCNN's features, and a linear layer with two outputs.

    python -m export.musicnn BUNDLE --wheel musicnn-0.1.0-py3-none-any.whl --like livi-mini \
        --stems STEMS READ --backings BACKINGS

Pons and Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging", 2019.
Three seconds of sound become a log-mel picture; wide filters look for timbre, long ones for rhythm,
three layers over time join them, and what is left of it by its maximum and its mean is the features
of a tagger of MagnaTagATune. Its weights (ISC, Copyright (c) Music Technology Group, Universitat
Pompeu Fabra 2019) are in the wheel of the same name on PyPI, which need not be importable:

    pip download --no-deps musicnn

The linear layer is trained on the windows that train the small detector (``export.detector``), and
BUNDLE is another bundle with this detector in the place of its own.
"""

from __future__ import annotations

import argparse
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers.audio_utils import mel_filter_bank

from export.card import with_vocals
from export.checkpoint import read_checkpoint
from export.detector import Windows, collate
from livi_index.audio import SAMPLE_RATE
from livi_index.models import CARD, find_model

N_FFT, HOP, N_MELS = 512, 256, 96  # samples, samples, bands
N_FRAMES = 187  # of three seconds; the last one that a window has is left out
N_FEATURES, N_TAGS = 200, 50
LOUDNESS = 10_000.0  # by which power is multiplied before its logarithm
EPSILON = 1e-3  # of TensorFlow's normalisation
MODEL = "musicnn/MTT_musicnn/"
WINDOWS = 9600  # that the linear layer is trained on
EPOCHS = 40


class LogMel(nn.Module):
    """(B, 48000) samples → (B, 1, 187, 96)."""

    filters: Tensor
    band_filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        n_bins = N_FFT // 2 + 1
        turns = torch.arange(n_bins)[:, None] * torch.arange(N_FFT) % N_FFT
        angles = 2 * torch.pi / N_FFT * turns.double()
        waves = torch.hann_window(N_FFT, dtype=torch.float64) * torch.cat(
            [angles.cos(), -angles.sin()]
        )
        bands = mel_filter_bank(
            n_bins, N_MELS, 0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
        )
        self.register_buffer("filters", waves[:, None].float(), persistent=False)
        self.register_buffer("band_filters", torch.from_numpy(bands).float(), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        whole = F.pad(samples[:, None], (N_FFT // 2, N_FFT // 2))
        real, imaginary = F.conv1d(whole, self.filters, stride=HOP).chunk(2, dim=1)
        power = (real.square() + imaginary.square())[:, :, :N_FRAMES]
        mel = power.transpose(1, 2) @ self.band_filters
        return torch.log10(LOUDNESS * mel + 1)[:, None]


class _Block(nn.Module):
    """A convolution, rectified, then normalised: (B, I, T, F) → (B, O, T, F')."""

    def __init__(self, inputs: int, outputs: int, height: int, width: int) -> None:
        super().__init__()
        self.before, self.after = (height - 1) // 2, height // 2  # as TensorFlow pads
        self.conv = nn.Conv2d(inputs, outputs, (height, width))
        self.norm = nn.BatchNorm2d(outputs, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        normal: Tensor = self.norm(F.relu(self.conv(F.pad(x, (0, 0, self.before, self.after)))))
        return normal


class MusiCNN(nn.Module):
    """(B, 48000) samples → (B, 200) features, and (B, 50) logits of tags from ``tags``."""

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMel()
        self.norm = nn.BatchNorm2d(1, eps=EPSILON)
        timbres = [_Block(1, 204, 7, 38), _Block(1, 204, 7, 67)]
        rhythms = [_Block(1, 51, length, 1) for length in (128, 64, 32)]
        self.ears = nn.ModuleList([*timbres, *rhythms])
        self.layers = nn.ModuleList([_Block(1, 64, 7, width) for width in (561, 64, 64)])
        self.pooled_norm = nn.BatchNorm1d(2 * 753, eps=EPSILON)
        self.dense = nn.Linear(2 * 753, N_FEATURES)
        self.dense_norm = nn.BatchNorm1d(N_FEATURES, eps=EPSILON)
        self.tag = nn.Linear(N_FEATURES, N_TAGS)

    def forward(self, samples: Tensor) -> Tensor:
        picture = self.norm(self.mel(samples))
        heard = torch.cat([ear(picture).amax(dim=3) for ear in self.ears], dim=1)  # (B, 561, T)
        x, maps, known = heard, [heard], torch.zeros(())
        for layer in self.layers:
            known = known + layer(x.transpose(1, 2)[:, None])[..., 0]
            x = known
            maps.append(x)
        every = torch.cat(maps, dim=1)  # (B, 753, T)
        pooled = torch.stack([every.amax(dim=2), every.mean(dim=2)], dim=2).flatten(1)
        features: Tensor = self.dense_norm(F.relu(self.dense(self.pooled_norm(pooled))))
        return features


class Vocals(nn.Module):
    """(B, 48000) samples → (B,) probability of singing."""

    def __init__(self, musicnn: MusiCNN) -> None:
        super().__init__()
        self.musicnn = musicnn
        self.decide = nn.Linear(N_FEATURES, 2)  # no, yes

    def forward(self, samples: Tensor) -> Tensor:
        return self.decide(self.musicnn(samples)).softmax(dim=1)[:, 1]


def load_musicnn(wheel: Path) -> MusiCNN:
    """The network with the weights of a wheel; ValueError or KeyError where they do not fit."""
    with zipfile.ZipFile(wheel) as members:
        index, data = (members.read(MODEL + name) for name in (".index", ".data-00000-of-00001"))
    network = MusiCNN()
    network.load_state_dict(renamed(network, read_checkpoint(index, data)), strict=True)
    return network.eval()


def renamed(network: MusiCNN, arrays: Mapping[str, npt.NDArray[np.float32]]) -> dict[str, Tensor]:
    """The state of a network from a checkpoint, in which layers are numbered as they are built."""
    blocks = [f"ears.{i}" for i in range(5)] + [f"layers.{i}" for i in range(3)]
    convolutions = [f"{block}.conv" for block in blocks]
    norms = ["norm", *(f"{block}.norm" for block in blocks), "pooled_norm", "dense_norm"]
    state = {key: value for key, value in network.state_dict().items() if "num_batches" in key}
    for kind, names in (
        ("conv2d", convolutions),
        ("batch_normalization", norms),
        ("dense", ["dense", "tag"]),
    ):
        for number, name in enumerate(names):
            source = f"{kind}_{number}" if number else kind
            for part, (wanted, axes) in _PARTS[kind].items():
                values = arrays[f"{source}/{part}"].transpose(axes)
                state[f"{name}.{wanted}"] = torch.from_numpy(values.copy())
    return state


# What a layer calls its arrays here and there, and the order of their axes.
_PARTS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "conv2d": {"kernel": ("weight", (3, 2, 0, 1)), "bias": ("bias", (0,))},
    "dense": {"kernel": ("weight", (1, 0)), "bias": ("bias", (0,))},
    "batch_normalization": {
        "gamma": ("weight", (0,)),
        "beta": ("bias", (0,)),
        "moving_mean": ("running_mean", (0,)),
        "moving_variance": ("running_var", (0,)),
    },
}


@torch.no_grad()
def hear(
    network: MusiCNN, stems: list[Path], backings: Path, n_windows: int
) -> tuple[Tensor, Tensor]:
    """Features (n, 200) and targets (n,) of training windows, as the small detector has them."""
    windows = Windows(stems, backings, seed=1, held=1)
    loader = DataLoader(windows, batch_size=8, collate_fn=collate)
    features, targets = [], []
    for batch, wanted in loader:
        features.append(network(batch))
        targets.append(wanted[:, 0])
        if sum(map(len, targets)) >= n_windows:
            break
    return torch.cat(features), torch.cat(targets)


def teach(vocals: Vocals, features: Tensor, targets: Tensor, epochs: int = EPOCHS) -> float:
    """Train the linear layer; the cross-entropy at the end. Targets are shares of singing."""
    torch.manual_seed(1)
    optimiser = torch.optim.AdamW(vocals.decide.parameters(), lr=3e-3, weight_decay=0.01)
    wanted = torch.stack([1 - targets, targets], dim=1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for rows in torch.randperm(len(features)).split(64):
            loss = F.cross_entropy(vocals.decide(features[rows]), wanted[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    with torch.no_grad():
        return float(F.cross_entropy(vocals.decide(features), wanted))


def write_bundle(out: Path, like: Path, vocals: Vocals, windows: Tensor) -> None:
    """A copy of a bundle with another detector, which answers as its torch module does."""
    shutil.copytree(like, out)
    card = json.loads((out / CARD).read_bytes())
    card = with_vocals(out, card, vocals, windows, tells_speech=False)
    card["name"] += "-musicnn"
    card["licence"] += "; detector: ISC (MusiCNN, Music Technology Group, UPF)"
    (out / CARD).write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Put MusiCNN's detector into a bundle.")
    parser.add_argument("out", type=Path, help="the bundle to write")
    parser.add_argument("--wheel", type=Path, required=True, help="musicnn's, from PyPI")
    parser.add_argument("--like", default="livi-mini", help="the bundle to take the rest from")
    parser.add_argument("--stems", type=Path, nargs="+", required=True)
    parser.add_argument("--backings", type=Path, required=True)
    parser.add_argument("--windows", type=int, default=WINDOWS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    vocals = Vocals(load_musicnn(options.wheel)).eval()
    features, targets = hear(vocals.musicnn, options.stems, options.backings, options.windows)
    print(json.dumps({"windows": len(targets), "loss": teach(vocals, features, targets)}))
    examples, _ = next(iter(Windows(options.stems, options.backings, seed=2, held=1)))
    write_bundle(options.out, find_model(options.like).path, vocals, torch.from_numpy(examples))


if __name__ == "__main__":
    main()
