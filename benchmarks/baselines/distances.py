"""How far two recordings are from each other, each a set of segment vectors.

``Measure`` is what a system was published with: cosine or squared Euclidean distances of all pairs
of segments, and what of them counts: the smallest (``min``), or the mean of the best ten pairs that
share no segment, found greedily (``bpwr``, as CLEWS reduces them; without its noise, so equal
distances are taken in order). ``means`` is the other row of every table: the mean vector of a
recording and cosine, as the paper's ranker scored all systems.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]

BEST_PAIRS = 10
ITEMS_AT_ONCE = 1024  # that a query is compared with by their best pairs


@dataclass(frozen=True)
class Measure:
    """``kind`` of distance between segments, and how a recording's ``pairs`` become one number."""

    kind: Literal["cosine", "euclidean"] = "cosine"
    pairs: Literal["min", "bpwr"] = "min"

    def __str__(self) -> str:
        return f"{self.pairs} {self.kind}"


def segment_distances(
    one: FloatArray, other: FloatArray, kind: Literal["cosine", "euclidean"]
) -> FloatArray:
    """(S, D) and (T, D) → (S, T): 1 - cosine, or squared Euclidean divided by D."""
    distances: FloatArray
    if kind == "cosine":
        distances = 1 - unit(one) @ unit(other).T
        return distances
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    distances = np.maximum(squares, 0) / np.float32(one.shape[1])
    return distances


def best_pairs(distances: FloatArray, n: int = BEST_PAIRS) -> FloatArray:
    """(N, S, T) distances, inf where an item has no segment → (N,) means of the best n pairs.

    Fewer than n where a side has fewer segments.
    """
    left = distances.copy()
    items, n_items = np.arange(len(left)), len(left)
    total, count = np.zeros(n_items), np.zeros(n_items)
    for _ in range(min(n, *left.shape[1:])):
        best = left.reshape(n_items, -1).argmin(axis=1)
        row, column = np.divmod(best, left.shape[2])
        value = left[items, row, column]
        real = np.isfinite(value)
        total += np.where(real, value, 0)
        count += real
        left[items, row] = np.inf
        left[items, :, column] = np.inf
    means: FloatArray = (total / count).astype(np.float32)
    return means


class Recordings:
    """The vectors of N recordings, (S, D) each with S ≥ 1, to be asked for all distances."""

    def __init__(self, vectors: Sequence[FloatArray]) -> None:
        self._counts = np.array([len(segments) for segments in vectors])
        self._ends = np.cumsum(self._counts)
        self._segments = np.concatenate(vectors).astype(np.float32)

    def means(self) -> FloatArray:
        """(N, D) unit means, of segments as they come: only some systems make unit vectors."""
        sums = np.add.reduceat(self._segments, self._ends - self._counts, axis=0)
        return unit(sums)

    def scores(self, measure: Measure) -> Callable[[IntArray], FloatArray]:
        """Numbers of recordings → (n, N) negative distances, for ``metrics.rank_scores``."""

        def rows(numbers: IntArray) -> FloatArray:
            return -np.stack([self._distances(int(number), measure) for number in numbers])

        return rows

    def _distances(self, number: int, measure: Measure) -> FloatArray:
        asked = self._segments[self._ends[number] - self._counts[number] : self._ends[number]]
        nearest: list[FloatArray] = []
        for first in range(0, len(self._counts), ITEMS_AT_ONCE):
            counts = self._counts[first : first + ITEMS_AT_ONCE]
            start = self._ends[first] - counts[0]
            segments = self._segments[start : start + counts.sum()]
            pairs = segment_distances(asked, segments, measure.kind)
            if measure.pairs == "min":
                starts = np.cumsum(counts) - counts
                nearest.append(np.minimum.reduceat(pairs.min(axis=0), starts))
            else:
                nearest.append(best_pairs(_by_item(pairs, counts)))
        return np.concatenate(nearest)


def _by_item(pairs: FloatArray, counts: IntArray) -> FloatArray:
    """(S, all segments) → (N, S, most), inf where an item has fewer."""
    padded = np.full((len(counts), counts.max(), len(pairs)), np.inf, np.float32)
    padded[np.arange(counts.max()) < counts[:, None]] = pairs.T
    return padded.transpose(0, 2, 1)


def unit(vectors: FloatArray) -> FloatArray:
    """(N, D), each of unit length; zero stays zero."""
    norms = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
    return scaled
