"""The vocal detector of the small bundle: three seconds of sound → is somebody singing?

    python -m export.detector OUT --stems STEMS [STEMS ...] --backings BACKINGS --steps 5000

It has its own learned front end (64 filters over 25 ms, their power averaged over 20 ms), because
a mel spectrogram by convolution would cost more than all the rest. Trained on the mixes of
``export.mixes``: each accompaniment occurs with a voice and without, and the target of a window
is the share of it in which the voice stem sounds.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from export.mixes import Backings, Mixer, MixOptions, Stems
from export.reader import SAMPLE_RATE

WINDOW_SAMPLES = 3 * SAMPLE_RATE
_FILTERS, _TAPS, _STRIDE = 64, 400, 160
MIXES = MixOptions(
    instrumental=0.1, bare=0.08, voice_db=(-8.0, 9.0), room=0.5, equaliser=0.7, noise=0.3
)


class Detector(nn.Module):
    """(B, 48000) samples → (B,) logit of singing."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, _FILTERS, _TAPS, stride=_STRIDE, padding=_TAPS // 2, bias=False)
        self.filters.weight.data = _first_filters()
        self.norm = nn.BatchNorm2d(1)
        widths = [width, 2 * width, 3 * width, 4 * width]
        layers: list[nn.Module] = [nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(width), nn.ReLU()]
        for narrow, wide in zip(widths, [*widths[1:], widths[-1]], strict=True):
            stride = 2 if wide != narrow else 1
            layers += [
                nn.Conv2d(narrow, narrow, 3, stride, padding=1, groups=narrow, bias=False),
                nn.Conv2d(narrow, wide, 1, bias=False),
                nn.BatchNorm2d(wide),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.decide = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(2 * widths[-1], 64), nn.ReLU(), nn.Linear(64, 1)
        )

    def forward(self, samples: Tensor) -> Tensor:
        power = self.filters(samples[:, None]).square()
        bands = F.avg_pool1d(power, 2).clamp(min=1e-9).log()
        bands = bands - bands.mean(dim=(1, 2), keepdim=True)  # the same at any level
        x = self.layers(self.norm(bands[:, None]))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.decide(pooled)[:, 0]


def _first_filters() -> Tensor:
    """(64, 1, 400): cosines under a Hann window, evenly on the mel scale, as a start."""
    mels = np.linspace(2595 * math.log10(1 + 60 / 700), 2595 * math.log10(1 + 7600 / 700), _FILTERS)
    hertz = 700 * (10 ** (mels / 2595) - 1)
    t = (np.arange(_TAPS) - _TAPS / 2) / SAMPLE_RATE
    rng = np.random.default_rng(0)
    phase = rng.uniform(0, 2 * np.pi, (_FILTERS, 1))
    kernels = np.cos(2 * np.pi * hertz[:, None] * t + phase) * np.hanning(_TAPS)
    return torch.from_numpy(kernels[:, None] / np.sqrt(_TAPS)).float()


class Windows(IterableDataset[tuple[np.ndarray, np.ndarray]]):
    """Endless (6 windows, 6 targets): three of a mix, and the same three without the voice."""

    def __init__(self, stems: list[Path], backings: Path, seed: int, held: int = 0) -> None:
        self._arguments = stems, backings, seed, held

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        stems, backings, seed, held = self._arguments
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([seed, info.id if info else 0, 77])
        mixers = [
            Mixer(Stems(s, shards=slice(held, None)), Backings(backings), MIXES) for s in stems
        ]
        while True:
            mix = mixers[int(rng.integers(len(mixers)))].draw(rng)
            at = int(rng.integers(SAMPLE_RATE))
            starts = [at + i * WINDOW_SAMPLES for i in range(3)]
            level = np.float32(10 ** rng.uniform(-1.5, 0.5))
            cuts = [slice(s, s + WINDOW_SAMPLES) for s in starts]
            windows = [mix.samples[cut] for cut in cuts]
            windows += [(mix.backing[cut] * level).clip(-1, 1) for cut in cuts]
            targets = [_sung(mix.voice[cut]) for cut in cuts] + [np.float32(0)] * len(cuts)
            yield np.stack(windows), np.array(targets)


def _sung(voice: np.ndarray) -> np.float32:
    """The target: 1 from half a second of voice in three on, falling to 0 for none."""
    blocks = voice[: len(voice) // 800 * 800].reshape(-1, 800)
    share = float(np.mean(np.sqrt(np.mean(blocks**2, axis=1)) > 0.01))
    return np.float32(min(1.0, share * 4))


def collate(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    windows = torch.from_numpy(np.concatenate([w for w, _ in rows]))
    return windows, torch.from_numpy(np.concatenate([t for _, t in rows]))


def train(out: Path, stems: list[Path], backings: Path, steps: int) -> None:
    """Train, from where an earlier run left its weights, and leave ``detector.pt`` and a log."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    detector = load_detector(out / "detector.pt") if (out / "detector.pt").exists() else Detector()
    detector.train()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=0.01)
    loader = DataLoader(
        Windows(stems, backings, seed=1, held=1),
        batch_size=16,
        num_workers=1,
        collate_fn=collate,
        prefetch_factor=8,
        multiprocessing_context="spawn",
    )
    log = (out / "log.jsonl").open("w")
    recent: list[float] = []
    for step, (windows, targets) in zip(range(1, steps + 1), loader, strict=False):
        share = step / steps
        for group in optimiser.param_groups:
            group["lr"] = 3e-3 * max(
                0.01, min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * share))
            )
        loss = F.binary_cross_entropy_with_logits(detector(windows), targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        recent.append(loss.item())
        if step % 100 == 0:
            row = {"step": step, "loss": float(np.mean(recent))}
            print(json.dumps(row), file=log, flush=True)
            recent.clear()
            torch.save(detector.state_dict(), out / "detector.pt")
    torch.save(detector.state_dict(), out / "detector.pt")


def load_detector(path: Path) -> Detector:
    """The detector in ``path``; tensors only are read from the file."""
    detector = Detector()
    detector.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return detector.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the small vocal detector.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--stems", type=Path, nargs="+", required=True)
    parser.add_argument("--backings", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    train(arguments.out, arguments.stems, arguments.backings, arguments.steps)


if __name__ == "__main__":
    main()
