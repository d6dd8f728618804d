"""How alike two transcripts are by all that may have been sung: alignments of profiles.

A reader is sure of one phone and in doubt of the next, and where it is in doubt, what was sung is
among the phones that are likely. A transcript keeps how likely each was, in a coarse way: beside a
phone it has a number, and the model's file says what these two stand for. Two transcripts are laid
over each other as ``alignment`` does, but what a pair of moments is worth are the odds that one
phone was sung at both, as families of proteins are compared (Söding 2005):

    ln sum over phones s of P(s | one) P(s | other) / P(s)        less a little

So agreement counts for much where both are sure, and disagreement for little where either is not.

That takes time. Where only the best of many are compared so, the others are compared by classes:
each phone with its number is of one of a few, and a class has a profile too, the mean of what is in
it.

By chance, what is long scores more than what is short, what was read surely more than what was not,
and songs of many like vowels more with each other than with the rest. What chance gives to two such
transcripts is taken off, and the rest is held against how far chance goes astray with such, or the
song that is a little like everything would be the answer to many questions. That holds for whole
recordings; two short stretches are of like phones because the same is sung in them, and are held
against what their lengths give alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livi_index.calibration import Chance
from livi_index.errors import BadModel
from livi_index.models import Bundle, ClipsSpec, verify_file
from livi_index.transcripts import Transcript

STEPS_PER_NAT = 16  # in the file
BAND = 1024  # phones of a query that are laid over others at once
CELLS = 24_000  # pairs that are compared at once: fewer are not worth a call, more leave the cache
MOMENTS = 1_000_000  # of transcripts that are laid over a query together, or a longer one alone
UNIT = 1024  # of a nat: whole numbers are compared twice as fast, and rounding is nothing here
NOTHING = -20 * UNIT  # what no phone at all is worth
MOST_CLASSES = 32  # that the aligner tells apart
LEAST_TOLD = 0.1  # nats a phone; what tells less is as unsure
LEAST_ODDS = np.float32(1e-30)

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]
Codes = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Classes:
    """``of`` (256, G) uint8: the class of a phone and its number, below C; ``typical`` (C, S)
    float32: how likely each phone was sung where a class was read."""

    of: NDArray[np.uint8]
    typical: FloatArray


@dataclass(frozen=True, eq=False)
class Profiles:
    """What may have been sung where something was read.

    ``likely`` (256, G, S) float32: for a phone and its number how likely each of S phones was
    sung; ``shares`` (S,) float32: how often each is sung. A pair is worth ``shift`` nats less than
    its odds, a phone without a partner costs ``gap`` > 0 nats. By chance an alignment of n with m
    phones has ``chance[0] + chance[1] * ln(n * m)`` nats; where there are ``classes``, more may be
    known of that ``between`` recordings.
    """

    likely: FloatArray
    shares: FloatArray
    gap: float
    shift: float
    chance: tuple[float, float]
    classes: Classes | None = None
    between: Chance | None = None

    def scores(
        self, asked: Transcript, those: Sequence[Transcript], *, whole: bool = False
    ) -> FloatArray:
        """(M,) float32: the best local alignment of one transcript with each of M, in nats above
        chance. They are ``whole`` where all are of whole recordings."""
        found = self.above_chance(self.alignments(asked, those)[None], [asked], those, whole=whole)
        return np.asarray(found[0])

    def above_chance(
        self,
        nats: FloatArray,
        these: Sequence[Transcript],
        those: Sequence[Transcript],
        *,
        whole: bool = False,
    ) -> FloatArray:
        """Alignments (N, M) of N transcripts with M, held against what chance gives to such; whole
        ones in nats of a usual pair, where chance is known to have a spread."""
        if not whole or self.between is None:
            first, second = self.chance
            return np.asarray(nats - (first + second * _ln_lengths(these, those)), np.float32)
        features = self.features(these, those)
        mean, log_spread = (
            features @ np.array(by, np.float32)
            for by in (self.between.mean, self.between.log_spread)
        )
        return np.asarray((nats - mean) / np.exp(log_spread), np.float32)

    def alignments(self, asked: Transcript, those: Sequence[Transcript]) -> FloatArray:
        """(M,) nats of the best local alignment of one transcript with each of M."""
        mine, theirs = self.codes(asked), [self.codes(read) for read in those]
        if not len(mine) or not any(map(len, theirs)):
            return np.zeros(len(those), np.float32)
        return np.asarray(self._alignments(mine, theirs) / UNIT, np.float32)

    def features(self, these: Sequence[Transcript], those: Sequence[Transcript]) -> FloatArray:
        """(N, M, 4) what chance between recordings goes by: 1, and the logarithms that ``Chance``
        names. For it there must be classes."""
        found = np.ones((len(these), len(those), 4), np.float32)
        found[..., 1] = _ln_lengths(these, those)
        (my_told, my_share), (told, share) = self._content(these), self._content(those)
        found[..., 2] = np.add.outer(np.log(my_told), np.log(told))
        found[..., 3] = np.log((my_share / self.shares) @ share.T)
        return found

    def _content(self, reads: Sequence[Transcript]) -> tuple[FloatArray, FloatArray]:
        """(M,) the nats that a phone of each transcript tells of what was sung, (M, S) how often it
        has each phone."""
        assert self.classes is not None
        typical = self.classes.typical
        counts = np.zeros((len(reads), len(typical)), np.float32)
        for row, read in zip(counts, reads, strict=True):
            row[:] = np.bincount(self.classes_of(read), minlength=len(row))
        told = counts @ (typical * np.log(typical / self.shares)).sum(axis=1)
        lengths = counts.sum(axis=1)
        is_empty = lengths == 0
        lengths[is_empty] = 1
        share = counts @ typical / lengths[:, None]
        share[is_empty] = self.shares
        return np.maximum(told / lengths, LEAST_TOLD), share

    def classes_of(self, read: Transcript) -> NDArray[np.uint8]:
        """(L,) the classes of a transcript's phones."""
        assert self.classes is not None
        return np.asarray(self.classes.of.reshape(-1)[self.codes(read)])

    def class_worth(self) -> FloatArray:
        """(C, C) nats that a pair of classes is worth."""
        assert self.classes is not None
        typical = self.classes.typical
        return np.asarray(np.log((typical / self.shares) @ typical.T) - np.float32(self.shift))

    def _alignments(self, mine: Codes, theirs: list[Codes]) -> IntArray:
        """(M,) units of the best local alignment of codes with each of M others."""
        known = np.unique(np.concatenate(theirs))
        blocks = [
            (rows, _side_by_side([np.searchsorted(known, theirs[row]) for row in rows], len(known)))
            for rows in _blocks(np.array([*map(len, theirs)]), CELLS // min(len(mine), BAND))
        ]
        rims = [np.zeros((len(codes) + 1, len(rows)), np.int32) for rows, codes in blocks]
        best = np.zeros(len(theirs), np.int32)
        gap = np.int32(round(self.gap * UNIT))
        for first in range(0, len(mine), BAND):
            worth = self._worth(mine[first : first + BAND], known)
            for number, (rows, codes) in enumerate(blocks):
                found, rims[number] = _laid_over(worth, codes, rims[number], gap)
                best[rows] = np.maximum(best[rows], found)
        return best

    def codes(self, read: Transcript) -> Codes:
        """(L,) which rows of ``likely``, laid flat, the phones of a transcript have."""
        phones, numbers = self.likely.shape[:2]
        other = np.minimum(read["other"], numbers - 1)
        return np.asarray(np.minimum(read["phone"], phones - 1) * np.int64(numbers) + other)

    def _worth(self, mine: Codes, known: Codes) -> IntArray:
        """(L, C + 1) units that each of the codes (L,) is worth beside each of (C,), and beside
        none."""
        worth = np.full((len(mine), len(known) + 1), NOTHING, np.int32)
        odds = (self._flat[mine] / self.shares) @ self._flat[known].T
        np.log(np.maximum(odds, LEAST_ODDS, out=odds), out=odds)
        odds -= np.float32(self.shift)
        np.rint(np.multiply(odds, UNIT, out=odds), out=odds)
        worth[:, :-1] = odds
        return worth

    @cached_property
    def _flat(self) -> FloatArray:
        return self.likely.reshape(-1, len(self.shares))


def _laid_over(
    worth: IntArray, codes: Codes, rim: IntArray, gap: np.int32
) -> tuple[IntArray, IntArray]:
    """(K,) the best local alignments of a band of a query with K transcripts, and its lower rim.

    ``worth`` (L, C) is by row of the band, ``codes`` (N, K) from the end of the transcripts on.
    The ``rim`` (N + 1, K) is what alignments up to the row above the band are worth. Cells of one
    diagonal do not depend on each other; those of all transcripts are computed at once.
    """
    n, m = len(worth), len(codes)
    first = np.arange(n)[:, None] * worth.shape[1]
    shape = (n, codes.shape[1])
    last, before, now = (np.zeros((n + 1, shape[1]), np.int32) for _ in range(3))
    best, left_out, below = np.zeros(shape, np.int32), np.empty(shape, np.int32), np.zeros_like(rim)
    pairs = np.empty(shape, np.int64)
    for diagonal in range(n + m - 1):
        low, high = max(0, diagonal - m + 1), min(n, diagonal + 1)
        above, here = slice(low, high), slice(low + 1, high + 1)
        if diagonal < m:
            last[0], before[0] = rim[diagonal + 1], rim[diagonal]
        theirs = codes[m - 1 - diagonal + low : m - 1 - diagonal + high]
        np.take(worth, np.add(theirs, first[above], out=pairs[above]), out=now[here], mode="clip")
        np.add(now[here], before[above], out=now[here])
        np.maximum(last[here], last[above], out=left_out[above])
        np.subtract(left_out[above], gap, out=left_out[above])
        np.maximum(now[here], left_out[above], out=now[here])
        np.maximum(now[here], np.int32(0), out=now[here])
        np.maximum(best[above], now[here], out=best[above])
        if high == n:
            below[diagonal - n + 2] = now[n]
        last, before, now = now, last, before
    return best.max(axis=0), below


def _ln_lengths(these: Sequence[Transcript], those: Sequence[Transcript]) -> FloatArray:
    """(N, M) the logarithm of the product of the lengths."""
    lengths = [[np.log(max(len(read), 1)) for read in side] for side in (these, those)]
    return np.asarray(np.add.outer(*lengths), np.float32)


def _side_by_side(transcripts: list[Codes], nothing: int) -> Codes:
    """(N, K) transcripts from their ends on, ``nothing`` after the ends of the shorter ones."""
    longest = max(map(len, transcripts))
    found = np.full((longest, len(transcripts)), nothing, np.int64)
    for column, codes in enumerate(transcripts):
        found[longest - len(codes) :, column] = codes[::-1]
    return found


def _blocks(lengths: NDArray[np.int64], n: int) -> Iterator[NDArray[np.int64]]:
    """Numbers of transcripts that are not empty, of about one length, ``n`` or as many as fit
    together."""
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    while len(order):
        fit = np.count_nonzero(lengths[order] * np.arange(1, len(order) + 1) <= MOMENTS)
        several = max(1, min(n, int(fit)))
        yield order[:several]
        order = order[several:]


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
    classes = _classes(values, steps.shape[:2], shares, path) if "classes" in values else None
    found = priced(Profiles(likely, shares, 1.0, 0.0, (0.0, 0.0), classes), values, bundle)
    if bundle.card.chance and classes is None:
        raise BadModel(f"{bundle.path} knows what chance makes of classes, and of no classes")
    return replace(found, between=bundle.card.chance)


def _classes(
    values: dict[str, Any], shape: tuple[int, ...], shares: FloatArray, path: Path
) -> Classes:
    try:
        known = np.array(values["classes"], np.uint8)
        typical = from_steps(np.array(values["typical"], np.uint8))
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadModel(f"{path} does not say which phones are of a class: {error!r}") from error
    is_whole = known.shape == shape and typical.shape[1:] == shares.shape
    if not is_whole or not known.max() < len(typical) <= MOST_CLASSES:
        raise BadModel(f"{path} does not say which phones are of a class: numbers out of range")
    of = np.zeros((256, shape[1]), np.uint8)
    of[: len(known)] = known
    return Classes(of, typical)


def priced(profiles: Profiles, values: dict[str, Any], bundle: Bundle) -> Profiles:
    """``profiles`` with the prices that a bundle's file gives. Raises BadModel."""
    try:
        gap, shift = float(values["gap"]), float(values["shift"])
        first, second = map(float, values["chance"])
    except (KeyError, TypeError, ValueError) as error:
        raise BadModel(f"{bundle.path} does not say how to align profiles: {error!r}") from error
    if not (gap > 0 and np.isfinite([gap, shift, first, second]).all()):
        raise BadModel(f"{bundle.path} does not say how to align profiles: numbers out of range")
    return replace(profiles, gap=gap, shift=shift, chance=(first, second))


def from_steps(steps: NDArray[np.uint8]) -> FloatArray:
    """Likelihoods from what a file holds; along the last axis they sum to 1."""
    found = np.exp(-steps.astype(np.float32) / STEPS_PER_NAT)
    return np.asarray(found / found.sum(axis=-1, keepdims=True), np.float32)
