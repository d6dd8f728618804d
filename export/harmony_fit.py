r"""Fit the projection of the harmony space: where works differ and their versions agree.

    python -m export.harmony_fit HARMONY.npz --melody MELODY.pt

Linear discriminant analysis of the tables of sketched versions (``sketches``): the within-work
covariance of windows is made white, with a part of its mean added on its diagonal, and of what
remains the directions along which the works' means vary most are kept. Closed form, no epochs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from export.constant_q import FRAMES_PER_S
from export.harmony import Described, windows_of
from export.melody import load_melody
from export.sketches import sketch, versions_of

DIM = 256
RIDGE = 0.5  # of the mean variance within works
_FIRST_WORK = 600_000

Matrix = NDArray[np.float64]


@torch.no_grad()
def tables_of(described: Described, works: int) -> tuple[Matrix, NDArray[np.int64]]:
    """Windows of four versions of each work (N, 1152), and the number of each one's work."""
    rows, labels = [], []
    for work in range(works):
        for version, rng in versions_of(_FIRST_WORK + work, 4):
            windows = windows_of(sketch(version, rng).semitones, FRAMES_PER_S)
            tables, _ = described(torch.from_numpy(windows).float())
            rows.append(tables.double().numpy())
            labels += [work] * len(windows)
        if work % 50 == 49:
            print(work + 1, flush=True)
    return np.concatenate(rows), np.array(labels)


def discriminants(rows: Matrix, labels: NDArray[np.int64], dim: int = DIM) -> tuple[Matrix, Matrix]:
    """(features,) mean and (features, dim) projection; ``labels`` are 0, 1, …

    The median row is of unit length when it is projected.
    """
    counts = np.bincount(labels)
    means = np.zeros((len(counts), rows.shape[1]))
    np.add.at(means, labels, rows)
    means /= counts[:, None]
    mean, inner = rows.mean(axis=0), rows - means[labels]
    within = inner.T @ inner / len(rows)
    within += RIDGE * np.trace(within) / len(within) * np.eye(len(within))
    outer = (means - mean) * np.sqrt(counts / len(rows))[:, None]
    whitening = np.linalg.inv(np.linalg.cholesky(within))
    _, directions = np.linalg.eigh(whitening @ (outer.T @ outer) @ whitening.T)
    projection = whitening.T @ directions[:, ::-1][:, :dim]
    lengths = np.linalg.norm((rows - mean) @ projection, axis=1)
    return mean, projection / np.median(lengths)


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the projection of the harmony space.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--melody", type=Path, required=True, help="as export.melody wrote it")
    parser.add_argument("--works", type=int, default=600)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    described = Described(load_melody(arguments.melody)).eval()
    mean, projection = discriminants(*tables_of(described, arguments.works))
    np.savez(arguments.out, mean=mean.astype(np.float32), projection=projection.astype(np.float32))


if __name__ == "__main__":
    main()
