"""Shards in which a direction of the frames stands for each work, and one of the texts too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.shards import Row, Source, write_shards

WIDTH, FRAMES, DIM, WORKS = 16, 10, 12, 40


class Planted(Source):
    """Three rows a work, whose first samples tell the work's number."""

    def __init__(self, works: int = WORKS) -> None:
        self.rows = [Row(f"r{w}-{i}", f"w{w}", 0.0, f"{w}") for w in range(works) for i in range(3)]

    def samples(self, number: int) -> np.ndarray:
        window = np.zeros(480_000, np.float32)
        window[:2] = number // 3 / 100, number / 1000
        return window


class PlantedEars(torch.nn.Module):
    """A direction for each work in every frame, and noise."""

    width, n_frames = WIDTH, FRAMES

    def __init__(self) -> None:
        super().__init__()
        self.places = torch.from_numpy(np.random.default_rng(0).standard_normal((WORKS, WIDTH)))

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        rows = []
        for first, second in samples[:, :2].double().tolist():
            rng = np.random.default_rng(round(1000 * second))
            noise = torch.from_numpy(rng.standard_normal((FRAMES, WIDTH)))
            rows.append(self.places[round(100 * first)] + 0.3 * noise)
        return torch.stack(rows).float()


class PlantedTexts:
    name, dim = "planted", DIM

    def encode(self, texts) -> np.ndarray:
        rng = np.random.default_rng(1)
        vectors = rng.standard_normal((WORKS, DIM)).astype(np.float32)
        chosen = vectors[[int(text) for text in texts]]
        return chosen / np.linalg.norm(chosen, axis=1, keepdims=True)


def written(folder: Path, ears: torch.nn.Module | None = None, **options) -> Path:
    ears = ears or PlantedEars()
    for _ in write_shards(folder, Planted(), PlantedTexts(), ears, {"by": "test"}, **options):
        pass
    return folder
