r"""The melody of a mixture: which pitch class, if any, does the voice or the leading part have?

    python -m export.melody MELODY.pt --data DATA

A network of 7,000 weights that sees the same everywhere on the keyboard: at each pitch the notes
around it and at its partials, five times a second, over some seconds, compared with what is there
at all pitches. It learns from scores whose melody is known: sketches (``sketches``), bands that a
synthesiser plays with a leading instrument, and sung covers of the training split. Timbres,
equalisers and keys are drawn anew at each step.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from catalogs.backing import play
from catalogs.manifest import make_split
from catalogs.score import Score
from catalogs.sung import render, score_of
from export.chords import Semitones, folded, prominent
from export.constant_q import FRAME, ConstantQ
from export.sketches import NOBODY, Sketch, melody_of, sketch, versions_of

LOWEST, HIGHEST = 9, 57  # semitones of the front end: E2 to D#6
_OFFSETS = (-12, -7, -5, -1, 0, 1, 4, 7, 11, 12, 13, 19, 24, 28, 31, 36)
_BELOW, _ABOVE = 12, 36
_WIDTH = 24
_MOMENTS = 120  # of a training window
_LEARNING_RATE = 6e-3
_SUNG_SEED, _SKETCHED_SEED, _PLAYED_SEED = 778, 300_000, 400_000
_SEMITONES = 72


class _Layer(nn.Module):
    """Looks around each pitch and moment, and at all pitches of the moment together."""

    def __init__(self, apart: int) -> None:
        super().__init__()
        padding, dilation = (1, 2 * apart), (1, apart)
        self.near = nn.Conv2d(
            _WIDTH, _WIDTH, (3, 5), padding=padding, dilation=dilation, groups=_WIDTH
        )
        self.all = nn.Linear(2 * _WIDTH, _WIDTH)
        self.mix = nn.Conv2d(_WIDTH, _WIDTH, 1)
        self.norm = nn.BatchNorm2d(_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        everywhere = self.all(_whole(x)).transpose(1, 2)[:, :, None]
        return F.relu(x + self.norm(self.mix(F.relu(self.near(x) + everywhere))))


class Melody(nn.Module):
    """(B, 72, T) semitones → (B, 13, T / 2): twelve pitch classes from G, and nobody; sum 1."""

    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(len(_OFFSETS), _WIDTH, (1, 3), padding=(0, 1))
        self.norm = nn.BatchNorm2d(_WIDTH)
        self.register = nn.Parameter(torch.zeros(_WIDTH, HIGHEST - LOWEST, 1))
        self.layers = nn.Sequential(_Layer(1), _Layer(3))
        self.pitch = nn.Conv2d(_WIDTH, 1, 1)
        self.nobody = nn.Linear(2 * _WIDTH, 1)

    def forward(self, semitones: Tensor) -> Tensor:
        notes = F.pad(F.avg_pool1d(prominent(semitones), 2), (0, 0, _BELOW, _ABOVE))
        seen = [notes[:, _BELOW + LOWEST + o : _BELOW + HIGHEST + o] for o in _OFFSETS]
        x = self.layers(F.relu(self.norm(self.look(torch.stack(seen, dim=1))) + self.register))
        none = self.nobody(_whole(x)).transpose(1, 2)
        shares = torch.softmax(torch.cat([self.pitch(x)[:, 0], none], dim=1), dim=1)
        whole = F.pad(shares[:, :-1], (0, 0, LOWEST, _SEMITONES - HIGHEST))
        return torch.cat([folded(whole), shares[:, -1:]], dim=1)


def _whole(x: Tensor) -> Tensor:
    """(B, C, pitches, T) → (B, T, 2 C): mean and largest over the pitches."""
    return torch.cat([x.mean(dim=2), x.amax(dim=2)], dim=1).transpose(1, 2)


def load_melody(path: Path) -> Melody:
    melody = Melody()
    melody.load_state_dict(torch.load(path, weights_only=True), strict=True)
    return melody.eval()


def sketched(n: int) -> Iterator[Sketch]:
    """Two versions each of ``n`` works."""
    for seed in range(_SKETCHED_SEED, _SKETCHED_SEED + n):
        for version, rng in versions_of(seed, 2):
            yield sketch(version, rng)


def played(n: int) -> Iterator[Sketch]:
    """One version each of ``n`` works, by a synthesiser, an instrument leading."""
    for seed in range(_PLAYED_SEED, _PLAYED_SEED + n):
        version, rng = next(versions_of(seed, 1))
        lead = version.band.lead or int(rng.choice([40, 56, 60, 68, 72, 73, 78, 80]))
        yield _heard(play(version.score, replace(version.band, lead=lead)), version.score)


def sung(data: Path, works: int) -> Iterator[Sketch]:
    """The sung versions, with a band, of ``works`` works of the training split."""
    for row in make_split(data, "train", seed=_SUNG_SEED, works=works, distractors=0):
        if row.kind == "sung" and row.backing == "band":
            yield _heard(render(row), score_of(row))


def _heard(samples: np.ndarray, score: Score) -> Sketch:
    samples = samples[: len(samples) // (4 * FRAME) * 4 * FRAME]
    listen = nn.Sequential(ConstantQ(), Semitones())
    with torch.no_grad():
        semitones = listen(torch.from_numpy(samples)[None])[0]
    return Sketch(semitones.half().numpy(), melody_of(score, semitones.shape[1] // 2))


class _Batches:
    """Windows of a random source, in another key and through another equaliser."""

    def __init__(self, sources: list[list[Sketch]], seed: int) -> None:
        self._sources = [source for source in sources if source]
        self._rng = np.random.default_rng(seed)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        pairs = [self._window() for _ in range(n)]
        return torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])

    def _window(self) -> tuple[Tensor, Tensor]:
        rng = self._rng
        source = self._sources[int(rng.integers(len(self._sources)))]
        found = source[int(rng.integers(len(source)))]
        n_short = max(0, _MOMENTS - len(found.melody))
        notes = np.pad(found.semitones.astype(np.float32), ((0, 0), (0, 2 * n_short)))
        melody = np.pad(found.melody, (0, n_short), constant_values=NOBODY).astype(np.int64)
        first, up = int(rng.integers(len(melody) - _MOMENTS + 1)), int(rng.integers(-4, 5))
        notes = np.roll(notes[:, 2 * first :][:, : 2 * _MOMENTS], up, axis=0)
        notes[:up] *= up <= 0
        notes[_SEMITONES + up :] *= up >= 0
        melody = melody[first : first + _MOMENTS]
        melody = np.where(melody == NOBODY, NOBODY, (melody + up) % 12)
        curve = np.interp(np.arange(_SEMITONES), np.linspace(0, 71, 7), rng.normal(0, 0.5, 7))
        notes *= np.exp(curve)[:, None].astype(np.float32)
        return torch.from_numpy(notes), torch.from_numpy(melody)


def train(sources: list[list[Sketch]], steps: int) -> Melody:
    torch.manual_seed(1)
    melody, batches = Melody(), _Batches(sources, seed=1)
    optimiser = torch.optim.AdamW(melody.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    weights = torch.ones(NOBODY + 1)
    weights[NOBODY] = 0.5
    recent: list[float] = []
    for step in range(steps):
        rate = _LEARNING_RATE * min(1, step / 30) * 0.5 * (1 + math.cos(math.pi * step / steps))
        for group in optimiser.param_groups:
            group["lr"] = rate + 1e-5
        notes, truth = batches.draw(12)
        loss = F.nll_loss((melody(notes) + 1e-6).log(), truth, weight=weights)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(melody.parameters(), 1.0)
        optimiser.step()
        recent.append(loss.item())
        if step % 50 == 49:
            print(step + 1, round(float(np.mean(recent)), 3), flush=True)
            recent.clear()
    return melody.eval()


@torch.no_grad()
def accuracy(melody: Melody, sketches: list[Sketch]) -> float:
    """Share of the moments with a melody at which its pitch class is the likeliest of twelve."""
    right = total = 0
    for found in sketches:
        likeliest = melody(torch.from_numpy(found.semitones).float()[None])[0, :NOBODY].argmax(0)
        somebody = found.melody != NOBODY
        right += int((likeliest.numpy() == found.melody)[somebody].sum())
        total += int(somebody.sum())
    return right / total


def main() -> None:
    parser = argparse.ArgumentParser(description="Learn to follow the melody of a mixture.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="the folder with poems.jsonl.gz")
    parser.add_argument(
        "--works",
        type=int,
        nargs=3,
        default=(350, 120, 30),
        metavar="N",
        help="sketched, played and sung",
    )
    parser.add_argument("--steps", type=int, default=900)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n_sketched, n_played, n_sung = arguments.works
    sources = [
        list(sketched(n_sketched)),
        list(played(n_played)),
        list(sung(arguments.data, n_sung)),
    ]
    held = [source[: len(source) // 10] for source in sources]
    melody = train([source[len(source) // 10 :] for source in sources], arguments.steps)
    print("held out:", [round(accuracy(melody, part), 3) for part in held if part])
    torch.save(melody.state_dict(), arguments.out)


if __name__ == "__main__":
    main()
