"""The vocal detector of the small bundle: three seconds of sound → does somebody sing, or speak?

    python -m export.detector OUT --stems STEMS [STEMS ...] --backings BACKINGS --steps 5000

It has its own learned front end (64 filters over 25 ms, their power averaged over 20 ms), because
a mel spectrogram by convolution would cost more than all the rest. Trained on the mixes of
``export.mixes``, and on voices and sounds of ``export.sounds``: each accompaniment, noise and crowd
occurs with a voice and without, some windows begin or end in digital silence, as those at the ends
of files do, and the target of a window is the share of it in which the voice stem sounds.

Most voices come from the first folder of stems, the sung one. A second output tells plain speech
from singing where there is a voice. It learns that from people and from synthetic voices that both
sing and speak, so that no kind of voice means either. Over music, nobody tells it which is which.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from export import sounds
from export.mixes import SILENCE, Backings, Mixer, MixOptions, Stem, Stems, at_level
from export.reader import SAMPLE_RATE
from export.stems import CLIP_SAMPLES, PLAIN_SPEECH

WINDOW_SAMPLES = 3 * SAMPLE_RATE
_FILTERS, _TAPS, _STRIDE = 64, 400, 160
MIXES = MixOptions(bare=0.12, voice_db=(-8.0, 9.0), room=0.5, equaliser=0.7, noise=0.3)
_BARE_SPEECH = 0.6  # share of plain speech that has no music under it
_WITHOUT_VOICE = 0.1  # share of mixes
_FIRST = 0.6  # share of voices that come from the first folder of stems
_OTHER_SOUNDS = 0.15  # share of rows with noise, applause, crowds in place of a band
_CROWD = 16  # voices
_CHANGED = 0.08  # share of voices that whisper, as many that shout, and that are layered
_CUT = 0.1  # share of windows that end, or begin, in digital silence
_UNKNOWN = np.float32(np.nan)  # for a target: nobody can say


class Detector(nn.Module):
    """(B, 48000) samples → (B, 2) logits of a voice, and of its speaking rather than singing."""

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
        self.layers = nn.Sequential(*layers).to(memory_format=torch.channels_last)
        self.decide = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(2 * widths[-1], 64), nn.ReLU(), nn.Linear(64, 2)
        )

    def forward(self, samples: Tensor) -> Tensor:
        power = self.filters(samples[:, None]).square()
        bands = F.avg_pool1d(power, 2).clamp(min=1e-9).log()
        bands = bands - bands.mean(dim=(1, 2), keepdim=True)  # the same at any level
        x = self.layers(self.norm(bands[:, None]))
        pooled = torch.cat([x.mean(dim=(2, 3)), x.amax(dim=(2, 3))], dim=1)
        return self.decide(pooled)


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
    """Endless (6 windows, their targets (6, 2)): three of a mix, and the same without the voice."""

    def __init__(self, stems: list[Path], backings: Path, seed: int, held: int = 0) -> None:
        self._arguments = stems, backings, seed, held

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        folders, backings, seed, held = self._arguments
        info = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([seed, info.id if info else 0, 77])
        stems = [Stems(folder, shards=slice(held, None)) for folder in folders]
        draw = Draw(stems, Backings(backings))
        while True:
            yield draw.row(rng)


class Draw:
    """What training hears, a row of six windows at a time."""

    def __init__(self, stems: list[Stems], backings: Backings) -> None:
        self._stems = stems
        self._mixers = {
            is_speech: Mixer(stems[0], backings, replace(MIXES, bare=bare))
            for is_speech, bare in ((False, MIXES.bare), (True, _BARE_SPEECH))
        }

    def row(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        stem = SILENCE if rng.random() < _WITHOUT_VOICE else self._voice(rng)
        if rng.random() < _OTHER_SOUNDS:
            voice, sound, samples = self._among_others(stem, rng)
        else:
            mix = self._mixers[stem.text == PLAIN_SPEECH].mix(stem, rng)
            voice, sound, samples = mix.voice, mix.backing, mix.samples
        speech = self._speech(stem, sound)
        level = np.float32(10 ** rng.uniform(-1.5, 0.5))
        alone = (sound * level).clip(-1, 1)
        at = int(rng.integers(SAMPLE_RATE))
        rows = []
        for start in range(at, at + 3 * WINDOW_SAMPLES, WINDOW_SAMPLES):
            cut = slice(start, start + WINDOW_SAMPLES)
            heard = _heard(rng)
            rows.append((samples[cut] * heard, _sung(voice[cut] * heard), speech))
            rows.append((alone[cut] * heard, np.float32(0), _UNKNOWN))
        windows, sung, spoken = zip(*rows, strict=True)
        return np.stack(windows), np.stack([sung, spoken], axis=1)

    def _voice(self, rng: np.random.Generator) -> Stem:
        stem = self._pick(rng)
        kind = rng.random() / _CHANGED
        if kind < 1:
            return replace(stem, voice=sounds.whispered(rng, stem.voice))
        if kind < 2:
            return replace(stem, voice=sounds.shouted(rng, stem.voice))
        if kind < 3:
            others = [self._pick(rng) for _ in range(int(rng.integers(1, 4)))]
            mixed = {one.text == PLAIN_SPEECH for one in (stem, *others)} == {True, False}
            together = sounds.layered([one.voice for one in (stem, *others)])
            return replace(stem, voice=together, text="" if mixed else stem.text)
        return stem

    def _pick(self, rng: np.random.Generator) -> Stem:
        first, *others = self._stems
        if not others or rng.random() < _FIRST:
            return first.pick(rng)
        return others[int(rng.integers(len(others)))].pick(rng)

    def _among_others(
        self, stem: Stem, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The voice, a sound that is none, and both together."""
        kind = int(rng.integers(len(sounds.NOT_SUNG) + 1))
        if kind < len(sounds.NOT_SUNG):
            sound = sounds.NOT_SUNG[kind](rng, CLIP_SAMPLES)
        else:
            sound = sounds.crowd(rng, [self._pick(rng).voice for _ in range(_CROWD)])
        sound *= np.float32(10 ** (-rng.uniform(*MIXES.voice_db) / 20))
        voice = at_level(stem.voice, 0.1)
        level = np.float32(10 ** rng.uniform(-1.5, 0.5))
        return voice, sound, ((voice + sound) * level).clip(-1, 1)

    def _speech(self, stem: Stem, sound: np.ndarray) -> np.float32:
        if not stem.text:  # nobody, or some who sing and some who speak
            return _UNKNOWN
        if stem.text != PLAIN_SPEECH:
            return np.float32(0)
        return _UNKNOWN if np.any(sound) else np.float32(1)


def _heard(rng: np.random.Generator) -> np.ndarray:
    """(48000,) ones, or zeros from some moment on, or up to it."""
    heard = np.ones(WINDOW_SAMPLES, np.float32)
    if rng.random() < _CUT:
        at = int(rng.integers(WINDOW_SAMPLES))
        heard[slice(at, None) if rng.random() < 0.75 else slice(at)] = 0
    return heard


def _sung(voice: np.ndarray) -> np.float32:
    """The target: 1 from half a second of voice in three on, falling to 0 for none."""
    blocks = voice[: len(voice) // 800 * 800].reshape(-1, 800)
    share = float(np.mean(np.sqrt(np.mean(blocks**2, axis=1)) > 0.01))
    return np.float32(min(1.0, share * 4))


def collate(rows: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
    windows = torch.from_numpy(np.concatenate([w for w, _ in rows]))
    return windows, torch.from_numpy(np.concatenate([t for _, t in rows]))


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of both answers, (B, 2) each; of speech only where the target is known."""
    known = targets[:, 1].isfinite()
    voice = F.binary_cross_entropy_with_logits(logits[:, 0], targets[:, 0])
    if not known.any():
        return voice
    speech = F.binary_cross_entropy_with_logits(logits[known, 1], targets[known, 1])
    return voice + speech * known.float().mean()


def train(out: Path, stems: list[Path], backings: Path, steps: int, rows: int = 16) -> None:
    """Train, from where an earlier run left its weights, and leave ``detector.pt`` and a log."""
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    detector = load_detector(out / "detector.pt") if (out / "detector.pt").exists() else Detector()
    detector.train()
    optimiser = torch.optim.AdamW(detector.parameters(), lr=3e-3, weight_decay=0.01)
    loader = DataLoader(
        Windows(stems, backings, seed=1, held=1),
        batch_size=rows,
        num_workers=1,
        collate_fn=collate,
        prefetch_factor=8,
        multiprocessing_context="spawn",
    )
    recent: list[float] = []
    with (out / "log.jsonl").open("w") as log:
        for step, (windows, targets) in zip(range(1, steps + 1), loader, strict=False):
            rate = min(1.0, step / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
            for group in optimiser.param_groups:
                group["lr"] = 3e-3 * max(0.01, rate)
            loss = loss_of(detector(windows), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            recent.append(loss.item())
            if step % 100 == 0:
                print(json.dumps({"step": step, "loss": float(np.mean(recent))}), file=log)
                log.flush()
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
