r"""The harmony space: half a minute of music → which notes follow which in it, in any key.

    python -m export.harmony HARMONY.onnx --melody MELODY.pt --fitted HARMONY.npz

A graph takes (B, 480000) samples and gives (B, 256) unit vectors; all signal processing is inside.
A constant-Q front end finds notes (``constant_q``), a melody and chords are read from them
(``melody``, ``chords``), and tables count what follows what in three steps of the same length:
melody, melody, melody; chord, melody, melody; melody, chord, melody. Notes are counted from the
first, so a transposed version has the same tables; short and long steps are added up in wide
bands, so a faster one has similar tables. The vector is a projection of the tables onto
directions in which works differ and versions of a work agree (``harmony_fit``). Where no notes
are heard, as in applause, it points anywhere: two such windows have nothing in common. Windows
cover the whole track, sung or not; a track's vector is the mean of its windows' made unit.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from export.chords import MOMENTS_PER_S, Chords, Semitones
from export.constant_q import SAMPLE_RATE, ConstantQ
from export.melody import Melody, load_melody

WINDOW_S, HOP_S = 30.0, 15.0
MOMENTS = round(WINDOW_S * MOMENTS_PER_S)
N_TABLES = 3
_STEPS_S = tuple(0.2 * 1.17**i for i in range(13))  # to 1.3 s
_NOTE_STEPS, _CHORD_STEPS = slice(0, 11), slice(2, 13)
_DOUBTFUL = 0.08  # a pitch class that is no likelier than by chance
_FAINT = 0.3  # of the roots of a table, which have a length of 1 to 2 where somebody plays
_SILENCE = 1e-4  # of samples; -80 dB
_CHANCE = 0.05  # of a vector of usual length


class Successions(nn.Module):
    """(B, 12, M) melody and (B, 24, M) chords → (B, 1152): three tables, each of unit length.

    They are shorter where there is hardly anything to count.
    """

    def __init__(self) -> None:
        super().__init__()
        root, kind = torch.arange(12), torch.arange(2)
        seen_from = (root[None] + root[:, None]) % 12
        self.register_buffer("notes", seen_from.flatten())
        self.register_buffer("chords", (kind[:, None] * 12 + seen_from[:, None]).flatten())

    def forward(self, melody: Tensor, chords: Tensor) -> Tensor:
        notes = melody[:, self.notes].unflatten(1, (12, 12))  # from each root, each interval
        harmonies = chords[:, self.chords].unflatten(1, (12, 24))
        tables = (
            _counted(melody, notes, notes, _NOTE_STEPS, 2),
            _counted(chords, notes, notes, _NOTE_STEPS, 2),
            _counted(melody, harmonies, notes, _CHORD_STEPS, 1),
        )
        return torch.cat([_unless_faint((table + 1e-12).sqrt()) for table in tables], dim=1)


def _counted(first: Tensor, second: Tensor, third: Tensor, steps: slice, bands: int) -> Tensor:
    """How often ``third`` comes two steps after ``first`` and ``second`` between them.

    ``first`` (B, 12 k, M), the others (B, 12 roots, n, M) → (B, bands × k × n × n').
    """
    tables = [torch.zeros_like(first[:, :1, :1])] * bands
    lengths_s = _STEPS_S[steps]
    for i, length_s in enumerate(lengths_s):
        step = length_s * MOMENTS_PER_S
        n = MOMENTS - math.ceil(2 * step) - 1
        begin = first[..., :n].unflatten(1, (-1, 12)).flatten(2)
        middle, end = (
            _after(rows, step * k, n).transpose(1, 2).flatten(2)
            for k, rows in ((1, second), (2, third))
        )
        both = (begin[:, :, None] * middle[:, None]).flatten(1, 2)
        counts = both @ end.transpose(1, 2) / n
        place = i / (len(lengths_s) - 1) * (bands - 1)
        tables = [t + max(0.0, 1 - abs(place - band)) * counts for band, t in enumerate(tables)]
    return torch.stack(tables, dim=1).flatten(1)


def _unless_faint(rows: Tensor) -> Tensor:
    """Rows almost of length one; those shorter than ``_FAINT`` vanish."""
    power = rows.square().sum(dim=1, keepdim=True)
    return rows * power.sqrt() / (power + _FAINT**2)


def _after(rows: Tensor, step: float, n: int) -> Tensor:
    """The ``n`` moments of ``rows`` (..., M) from ``step`` on, between two moments if need be."""
    whole, part = int(step), step - int(step)
    return (1 - part) * rows[..., whole : whole + n] + part * rows[..., whole + 1 : whole + 1 + n]


class Described(nn.Module):
    """(B, 72, T) semitones → (B, 1152), what the projection is fitted on, and the melody."""

    def __init__(self, melody: Melody) -> None:
        super().__init__()
        self.melody = melody
        self.chords = Chords()
        self.successions = Successions()

    def forward(self, semitones: Tensor) -> tuple[Tensor, Tensor]:
        melody = self.melody(semitones)[:, :12]
        chords = self.chords(semitones)
        return self.successions(F.relu(melody - _DOUBTFUL), chords), melody


class Harmony(nn.Module):
    """(B, 480000) samples → (B, dim) unit vectors; that of silence is the first axis.

    ``mean`` (1152,) and ``projection`` (1152, dim) as ``harmony_fit`` makes them.
    """

    def __init__(self, melody: Melody, mean: Tensor, projection: Tensor) -> None:
        super().__init__()
        self.notes = nn.Sequential(ConstantQ(), Semitones())
        self.described = Described(melody)
        self.register_buffer("mean", mean)
        self.register_buffer("projection", projection)
        generator = torch.Generator().manual_seed(1)
        signs = torch.randint(2, (12 * MOMENTS,), generator=generator) * 2.0 - 1
        self.register_buffer("signs", signs)
        self.register_buffer("first", torch.eye(1, projection.shape[1]))

    def forward(self, samples: Tensor) -> Tensor:
        vectors = self.place(self.notes(samples))
        audible = samples.abs().amax(dim=1, keepdim=True) > _SILENCE
        return torch.where(audible, vectors, self.first)

    def place(self, semitones: Tensor) -> Tensor:
        """(B, 72, T) → (B, dim) unit vectors."""
        tables, melody = self.described(semitones)
        filled = (tables.square().sum(dim=1, keepdim=True) / N_TABLES).sqrt()
        vectors = (tables - filled * self.mean) @ self.projection
        return unit(vectors + _CHANCE * self._anywhere(melody))

    def _anywhere(self, melody: Tensor) -> Tensor:
        """(B, dim) that depend on all of (B, 12, M), and on nothing in particular."""
        dim = self.projection.shape[1]
        rows = (melody - melody.mean(dim=2, keepdim=True)).flatten(1) * self.signs
        folds = F.pad(rows, (0, -rows.shape[1] % dim)).unflatten(1, (-1, dim)).sum(dim=1)
        return unit(folds)


def unit(rows: Tensor) -> Tensor:
    return rows / (rows.square().sum(dim=1, keepdim=True).sqrt() + 1e-9)


def load_harmony(melody: Path, fitted: Path) -> Harmony:
    """What ``export.melody`` and ``export.harmony_fit`` left, in the precision of their file."""
    with np.load(fitted) as arrays:
        mean, projection = (torch.from_numpy(arrays[n]).float() for n in ("mean", "projection"))
    harmony = Harmony(load_melody(melody), mean.half().float(), projection.half().float())
    return harmony.eval()


def windows_of(moments: NDArray[np.generic], per_s: int) -> NDArray[np.generic]:
    """(..., T) at ``per_s`` → (N, ..., window): one each ``HOP_S``, the last filled with zeros."""
    window, hop, length = round(WINDOW_S * per_s), round(HOP_S * per_s), moments.shape[-1]
    n = max(1, math.ceil((length - window) / hop) + 1)
    lacking = max(0, (n - 1) * hop + window - length)
    padded = np.pad(moments, [(0, 0)] * (moments.ndim - 1) + [(0, lacking)])
    return np.stack([padded[..., i * hop : i * hop + window] for i in range(n)])


def export(harmony: Harmony, path: Path) -> None:
    """Write ``harmony`` as ONNX; raises RuntimeError unless it answers as torch does."""
    from export.to_onnx import (
        BATCH_TOLERANCE,
        TORCH_TOLERANCE,
        check_parity,
        export_graph,
        round_weights,
    )

    round_weights(harmony)
    window = round(WINDOW_S * SAMPLE_RATE)
    seconds = torch.arange(window) / SAMPLE_RATE
    noise = 0.1 * torch.randn(2, window, generator=torch.Generator().manual_seed(1))
    tune = torch.sin(2 * torch.pi * 220 * 2 ** (seconds.floor() * 5 % 12 / 12) * seconds)
    examples = torch.stack([noise[0], tune + 0.1 * noise[1], tune, torch.zeros(window)])
    export_graph(harmony, examples[:2], ("samples", "embedding"), path)
    parity = check_parity(harmony, examples, path)
    print(path, path.stat().st_size, parity, flush=True)
    if parity["torch"] > TORCH_TOLERANCE or parity["batch"] > BATCH_TOLERANCE:
        raise RuntimeError(f"not on par with torch: {parity}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the harmony space as ONNX.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--melody", type=Path, required=True, help="as export.melody wrote it")
    parser.add_argument("--fitted", type=Path, required=True, help="as export.harmony_fit wrote it")
    arguments = parser.parse_args()
    export(load_harmony(arguments.melody, arguments.fitted), arguments.out)


if __name__ == "__main__":
    main()
