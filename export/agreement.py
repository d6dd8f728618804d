"""How well the sound of segments lies with their words: the paper's cosines, d′, and ranks.

The paper reports the mean and standard deviation of the cosine between what a student makes of a
segment and the vector of its words, and the same of whole tracks. A cosine alone says little: in a
space where everything is alike it is high for anything. So what does not belong together stands
beside it, and d′, how many standard deviations lie between the two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from livi_index.metrics import evaluate, rank_vectors, summarise

FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Cosines:
    """Of ``n`` pairs that belong together, and of those whose works differ: mean and standard
    deviation; ``d_prime`` is the distance of the means in their common deviation."""

    n: int
    mean: float
    std: float
    other_mean: float
    other_std: float
    d_prime: float


@dataclass(frozen=True)
class Agreement:
    """Of segments and of recordings; ``words_hr1``: how often the words nearest to a segment are
    its own; ``versions_*``: how well the vectors of recordings find versions, nan where there are
    none."""

    segments: Cosines
    tracks: Cosines
    words_hr1: float
    versions_hr1: float
    versions_map10: float


def agreement(
    sound: FloatArray, text: FloatArray, recordings: Sequence[str], works: Sequence[str]
) -> Agreement:
    """Of unit vectors (N, dim) of N segments and of their words; a recording's are the means."""
    labels = np.asarray(works)
    first, place = np.unique(np.asarray(recordings), return_index=True, return_inverse=True)[1:]
    tracks, told = means(sound, place), means(text, place)
    numbers = np.arange(len(sound))
    asked = rank_vectors(sound, numbers, numbers, text, numbers, -1 - numbers)
    versions = evaluate(tracks, labels[first]).answerable
    return Agreement(
        cosines(sound, text, labels),
        cosines(tracks, told, labels[first]),
        summarise(asked, n_items=len(text)).answerable.hr1,
        versions.hr1,
        versions.map10,
    )


def cosines(sound: FloatArray, text: FloatArray, works: npt.NDArray[np.str_]) -> Cosines:
    """Row i of (N, dim) unit vectors belongs to row i; N works."""
    every = sound.astype(np.float64) @ text.T
    same, other = np.diagonal(every), every[works[:, None] != works]
    if len(other) == 0:
        return Cosines(len(same), float(same.mean()), float(same.std()), *[math.nan] * 3)
    spread = math.sqrt((same.var() + other.var()) / 2)
    apart = float(same.mean() - other.mean()) / spread if spread > 0 else math.nan
    values = (same.mean(), same.std(), other.mean(), other.std())
    return Cosines(len(same), *map(float, values), apart)


def means(vectors: FloatArray, place: npt.NDArray[np.int64]) -> FloatArray:
    """(N, dim) → (M, dim) unit means of the rows of each place 0 … M − 1."""
    sums = np.zeros((place.max() + 1, vectors.shape[1]))
    np.add.at(sums, place, vectors)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    unit: FloatArray = (sums / np.maximum(norms, 1e-12)).astype(np.float32)
    return unit
