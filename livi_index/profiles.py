"""How alike two transcripts are by all that may have been sung: alignments of profiles.

A reader is sure of one phone and in doubt of the next, and where it is in doubt, what was sung is
among the phones that are likely. A transcript keeps how likely each was, in a coarse way: beside a
phone it has a number, and the model's file says what these two stand for. Two transcripts are laid
over each other as ``alignment`` does, but what a pair of moments is worth are the odds that one
phone was sung at both, as families of proteins are compared (Söding 2005):

    ln sum over phones s of P(s | one) P(s | other) / P(s)        less a little

So agreement counts for much where both are sure, and disagreement for little where either is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livi_index.errors import BadModel
from livi_index.models import Bundle, ClipsSpec, verify_file
from livi_index.transcripts import Transcript

STEPS_PER_NAT = 16  # in the file
MOMENTS = 100_000  # of transcripts that are laid over a query together, or a longer one alone
CELLS = 4_000_000  # pairs that are held in memory at once
UNIT = 1024  # of a nat: whole numbers are compared twice as fast, and rounding is nothing here
_NEVER = np.float32(1e-30)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Profiles:
    """What may have been sung where something was read.

    ``likely`` (256, G, S) float32: for a phone and its number how likely each of S phones was
    sung; ``shares`` (S,) float32: how often each is sung. A pair is worth ``shift`` nats less than
    its odds, a phone without a partner costs ``gap`` > 0 nats. By chance an alignment of n with m
    phones has ``chance[0] + chance[1] * ln(n * m)`` nats.
    """

    likely: FloatArray
    shares: FloatArray
    gap: float
    shift: float
    chance: tuple[float, float]

    def scores(self, asked: Transcript, those: Sequence[Transcript]) -> FloatArray:
        """(M,) float32: the best local alignment of one transcript with each of M, in nats above
        chance."""
        found = np.zeros(len(those), np.float32)
        lengths = np.array([len(read) for read in those], np.int64)
        for rows in _blocks(lengths) if len(asked) else ():
            found[rows] = self._best(asked, [those[row] for row in rows])
        first, second = self.chance
        sums = np.log(np.maximum(lengths, 1)) + np.log(max(len(asked), 1))
        found -= (first + second * sums).astype(np.float32)
        return found

    def _best(self, asked: Transcript, those: list[Transcript]) -> FloatArray:
        """(K,) nats of the best local alignment with each of K transcripts.

        All are laid over the query at once, phone by phone of it. A gap in the query would need the
        cells of a row one after the other; as every phone of it costs the same, the best of all
        such gaps is the running maximum of what cells would have at the start of the row.
        """
        codes = np.zeros((len(those), max(map(len, those))), np.int64)  # 0: after the end
        for row, read in zip(codes, those, strict=True):
            row[: len(read)] = self._codes(read)
        known, places = np.unique(codes, return_inverse=True)
        places = places.reshape(codes.shape)
        gap = np.int32(round(self.gap * UNIT))
        ramp = gap * np.arange(codes.shape[1], dtype=np.int32)
        above = np.zeros((len(those), codes.shape[1] + 1), np.int32)
        best, row = np.zeros(codes.shape, np.int32), np.empty(codes.shape, np.int32)
        for worth in self._worth(self._codes(asked), known):
            np.take(worth, places, out=row, mode="clip")
            np.add(row, above[:, :-1], out=row)
            np.maximum(row, above[:, 1:] - gap, out=row)
            np.maximum(row, np.int32(0), out=row)
            np.add(row, ramp, out=row)
            np.maximum.accumulate(row, axis=1, out=row)
            np.subtract(row, ramp, out=above[:, 1:])
            np.maximum(best, above[:, 1:], out=best)
        return np.asarray(best.max(axis=1) / UNIT, np.float32)

    def _codes(self, read: Transcript) -> NDArray[np.int64]:
        """(L,) which rows of ``likely``, laid flat, the phones of a transcript have."""
        phones, numbers = self.likely.shape[:2]
        other = np.minimum(read["other"], numbers - 1)
        return np.asarray(np.minimum(read["phone"], phones - 1) * np.int64(numbers) + other)

    def _worth(self, mine: NDArray[np.int64], known: NDArray[np.int64]) -> Iterator[IntArray]:
        """For each of the codes (L,) what it is worth beside each of the codes (C,), (C,) units."""
        likely = self.likely.reshape(-1, len(self.shares))
        theirs = np.where(known[:, None] > 0, likely[known], 0).T
        several = max(1, CELLS // len(known))
        for first in range(0, len(mine), several):
            odds = (likely[mine[first : first + several]] / self.shares) @ theirs
            np.log(np.maximum(odds, _NEVER, out=odds), out=odds)
            yield from np.rint((odds - np.float32(self.shift)) * UNIT).astype(np.int32)


def _blocks(lengths: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Numbers of transcripts that are not empty, of about one length, as many as fit together."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        n = int(np.count_nonzero(lengths[order] * np.arange(1, len(order) + 1) <= MOMENTS))
        yield order[: max(1, n)]
        order = order[max(1, n) :]


def read_profiles(bundle: Bundle, clips: ClipsSpec) -> Profiles | None:
    """What a bundle says may have been sung, verified first; None where it says nothing of it.

    Raises BadModel.
    """
    if not clips.profiles:
        return None
    for file in (clips.alignment, clips.profiles):
        verify_file(bundle, file)
    path = bundle.path / clips.profiles
    try:
        steps = np.load(path, allow_pickle=False)
        values = json.loads((bundle.path / clips.alignment).read_bytes())["profiles"]
        shares = np.array(values["shares"], np.float32)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadModel(f"{path} does not say what may have been sung: {error!r}") from error
    if steps.ndim != 3 or steps.dtype != np.uint8 or steps.shape[2:] != shares.shape:
        raise BadModel(f"{path} does not say what may have been sung: it is of another shape")
    if not 0 < len(steps) <= 64 or not 0 < steps.shape[1] <= 256 or not (shares > 0).all():
        raise BadModel(f"{path} does not say what may have been sung: numbers out of range")
    likely = np.tile(shares, (256, steps.shape[1], 1))
    likely[: len(steps)] = from_steps(steps)
    return priced(Profiles(likely, shares, 1.0, 0.0, (0.0, 0.0)), values, bundle)


def priced(profiles: Profiles, values: dict[str, Any], bundle: Bundle) -> Profiles:
    """``profiles`` with the prices that a bundle's file gives. Raises BadModel."""
    try:
        gap, shift = float(values["gap"]), float(values["shift"])
        first, second = map(float, values["chance"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadModel(f"{bundle.path} does not say how to align profiles: {error!r}") from error
    if not (gap > 0 and np.isfinite([gap, shift, first, second]).all()):
        raise BadModel(f"{bundle.path} does not say how to align profiles: numbers out of range")
    return Profiles(profiles.likely, profiles.shares, gap, shift, (first, second))


def from_steps(steps: NDArray[np.uint8]) -> FloatArray:
    """Likelihoods from what a file holds; along the last axis they sum to 1."""
    found = np.exp(-steps.astype(np.float32) / STEPS_PER_NAT)
    return np.asarray(found / found.sum(axis=-1, keepdims=True), np.float32)
