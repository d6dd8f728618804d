"""From scores to probabilities, by curves that a model's card holds.

A score says little by itself: some songs are a little like everything, and among 200,000 recordings
chance is like anything. So a score is held against those that the query has with a cohort, some
recordings of the library drawn without looking, and the odds are lowered in proportion to the
library's size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

USUAL = 10  # of a cohort that what is usual counts for
ONE_SIGMA = 84.13  # per cent of a normal distribution are below median and standard deviation

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Chance:
    """What alignments of whole recordings that have nothing in common score, in nats.

    ``mean`` and ``log_spread`` are 4 numbers each: at 0; per ln(n * m) of n and m phones; per
    ln(i * j) where these tell i and j nats each of what was sung; and per ln of the odds that two
    of them, drawn at random, are one phone. ``fitted_on`` says where from.
    """

    mean: Sequence[float]
    log_spread: Sequence[float]
    fitted_on: str = ""

    @property
    def is_whole(self) -> bool:
        """False where a file says something else."""
        sides = (self.mean, self.log_spread)
        return all(isinstance(side, list | tuple) and len(side) == 4 for side in sides) and all(
            isinstance(number, int | float) and math.isfinite(number)
            for side in sides
            for number in side
        )


@dataclass(frozen=True)
class Calibration:
    """A logistic curve from scores to the probability that a hit is what was asked for.

    It holds for libraries of ``recordings``: among ten times as many, what is alike by chance is
    ten times as common. 0 is for curves of which that is not known.

    Where there is a ``spread``, the curve is one of scores held against those that the query has
    with a cohort of recordings (``relative``; T-norm, as Auckenthaler et al. 2000 verify speakers).
    ``median`` and ``spread`` are then those of a usual query.
    """

    slope: float
    offset: float
    fitted_on: str
    recordings: int = 0
    median: float = 0.0
    spread: float = 0.0

    def relative(self, scores: FloatArray, cohort: BoolArray) -> FloatArray:
        """How many spreads scores (C,) of one query's candidates are above the median of those
        that are of its cohort.

        A candidate of the cohort is held against the others: in a small library a version would
        else say itself what is usual. With a small cohort, median and spread are drawn to those of
        a usual query. Not a number stays so.
        """
        drawn = cohort & np.isfinite(scores)
        if not self.spread or not drawn.any():
            return scores
        return self._held(scores, np.sort(scores[drawn]), drawn)

    def _held(self, scores: FloatArray, known: FloatArray, drawn: BoolArray) -> FloatArray:
        """Scores (C,) held against ``known`` (n,), ascending, those ``drawn`` against the rest."""
        n = len(known) - drawn
        gone = np.where(drawn, np.searchsorted(known, scores), len(known))
        own = n / (n + USUAL)
        middle, above = (_percentile(known, gone, n, share) for share in (50, ONE_SIGMA))
        median = own * middle + (1 - own) * self.median
        spread = own * (above - middle) + (1 - own) * self.spread
        return np.asarray((scores - median) / spread)

    def logits(self, scores: FloatArray, cohort: BoolArray) -> FloatArray:
        """Log-odds (C,) that one query's candidates are right, among so many ``recordings``."""
        return np.asarray(self.slope * self.relative(scores, cohort) + self.offset)

    def nats(self, scores: FloatArray, cohort: BoolArray) -> FloatArray:
        """What the scores (C,) are worth whatever the size of the library."""
        return self.logits(scores, cohort) + math.log(max(1, self.recordings))

    def probabilities(self, logits: FloatArray, recordings: int) -> FloatArray:
        """How likely hits are right, in a library of so many recordings."""
        crowd = math.log(max(1, recordings) / self.recordings) if self.recordings else 0.0
        return np.asarray(1 / (1 + np.exp(-np.clip(logits - crowd, -700, 700))))


def _percentile(known: FloatArray, gone: IntArray, n: IntArray, share: float) -> FloatArray:
    """Percentiles (C,) of numbers (N,), ascending, each without that at ``gone`` (C,), which leaves
    ``n`` (C,), interpolated as NumPy does; 0 where none is left."""
    place = share / 100 * np.maximum(n - 1, 0)
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(n - 1, 0))
    below, above = (known[np.minimum(i + (i >= gone), len(known) - 1)] for i in (low, high))
    return np.where(n > 0, below + (place - low) * (above - below), 0.0)


@dataclass(frozen=True)
class Fusion:
    """What the scores of two recordings in several spaces say together.

    ``weights`` are by space, of relative scores (``Calibration.relative``), for two recordings that
    have one in all of them. The curve holds for libraries of ``recordings``. Of one in which
    fewer phones were read in a second than ``least_read``, from its beginning to its end, the words
    count for nothing: in a band, some strings and horns are read as a word here and there.
    """

    weights: Mapping[str, float]
    offset: float
    fitted_on: str
    recordings: int
    least_read: float = 0.0


@dataclass(frozen=True)
class Familiar:
    """What is usual of the phones read of the recordings that a model was trained on
    (``familiarity`` says what the figures are).

    Nine in ten of them are nearer than ``far``; none is farther than ``farthest``.
    """

    file: str
    order: float
    order_spread: float
    shares: float
    shares_spread: float
    far: float
    farthest: float
    fitted_on: str


# Of scores that are worth themselves.
IN_NATS = Calibration(slope=1.0, offset=0.0, fitted_on="", recordings=1)
