"""In which recordings of a generation these words are sung.

A text is read as the model reads letters (``encoders.normalise_text``: no case, accents, line
breaks or punctuation) and cut into passages so short that one segment holds the whole of them,
wherever they lie. A passage is as near to a recording as to the segment of it that is nearest: a
line is sung in one place or a few, and says nothing about the rest of the song.

    score = mean over the passages of the largest cosine with a segment of the recording

So a line has the score of the place where it is sung, and of a whole text a version that leaves
out a half still gets its half. Passages may be found in any order, two of them in one segment.

Where the model reads, the letters of the text are laid over what was read of each recording
(``spelling``), and the score is that of their best alignment; vectors then only choose what is
compared in a library so large that not all of it can be.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from livi_index.alignment import Aligner
from livi_index.encoders import normalise_text
from livi_index.errors import BadInput
from livi_index.generations import Generation
from livi_index.transcripts import Transcript, between
from livi_index.vectors import products

PASSAGE_WORDS = 20  # sung in 15 s, about; segments of 30 s begin every 15 s
MAX_WORDS = 3_000  # more than any song has
SEGMENTS = 200  # that are looked at for each passage, at least
BLOCK = 100  # recordings that are compared at once: some are hours long
CELLS = 500_000_000  # pairs of letters and phones that are compared; about a tenth of a second

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Sought:
    """Recordings (C,), best first, ties by id, with their scores."""

    recording_ids: IntArray
    scores: FloatArray


@dataclass(frozen=True, eq=False)
class Spelt:
    """Passages as letters to align, with what aligns them."""

    passages: list[Transcript]
    aligner: Aligner

    @property
    def whole(self) -> Transcript:
        """The text in one."""
        return np.concatenate(self.passages)


@dataclass(frozen=True, eq=False)
class Places:
    """Segments (n,) of one recording, best first, that do not overlap: times, scores with the
    passage that is nearest to each, and its number."""

    start_s: FloatArray
    end_s: FloatArray
    scores: FloatArray
    passages: IntArray


def cut_passages(text: str, alphabet: str) -> list[str]:
    """What of a text can be read, in passages of nearly equal length.

    Raises BadInput, where there is nothing to read, and for more than ``MAX_WORDS``.
    """
    words = normalise_text(text, alphabet).split()
    if not any(character.isalpha() for word in words for character in word):
        raise BadInput(_nothing_to_read(text, alphabet))
    if len(words) > MAX_WORDS:
        raise BadInput(
            f"this text has {len(words):,} words, and at most {MAX_WORDS:,} can be looked for; give"
            " the words of one song, or a line of it"
        )
    n = -(-len(words) // PASSAGE_WORDS)
    ends = [len(words) * part // n for part in range(n + 1)]
    return [" ".join(words[a:b]) for a, b in pairwise(ends)]


def _nothing_to_read(text: str, alphabet: str) -> str:
    if not text.strip():
        return "no words were given; type a line of the song, or a few words of it"
    return (
        f"{text.strip()[:40]!r} holds no letter that the library's model can read; it reads"
        f" {''.join(filter(str.isalpha, alphabet))}, with or without accents"
    )


def seek(
    generation: Generation,
    space: str,
    passages: FloatArray,
    k: int,
    *,
    spelt: Spelt | None = None,
    threads: int = 0,
) -> Sought:
    """The recordings nearest to passages (P, D) unit float32, at least k where there are so many.

    They are those with one of the nearest segments of any passage, or all where letters can be
    aligned with all.
    """
    if spelt is not None and len(spelt.whole) * generation.phones(space) <= CELLS:
        ids = generation.recording_ids(space)
    else:
        ids = _candidates(generation, space, passages, k, threads)
    finer = spelt is not None and spelt.aligner.profiles is not None
    every = np.zeros(len(ids), np.float32)
    for first in range(0, len(ids), BLOCK):
        part = slice(first, first + BLOCK)
        if spelt is None:
            every[part] = _scores(generation, space, passages, ids[part])
        else:
            read = generation.transcripts_of(ids[part], space)
            every[part] = spelt.aligner.scores([spelt.whole], read, once=finer)[0]
    if spelt is not None and finer:
        _refine(generation, space, spelt, ids, every)
    order = np.lexsort((ids, -every))
    return Sought(ids[order], every[order])


def _refine(
    generation: Generation, space: str, spelt: Spelt, ids: IntArray, scores: FloatArray
) -> None:
    """Compare the best by all that may have been sung, in place; no other is better than these."""
    n_recordings = max(1, len(generation.recording_ids(space)))
    cells = len(spelt.whole) * generation.phones(space) / n_recordings
    top = np.sort(np.argsort(-scores, kind="stable")[: spelt.aligner.refined(cells)])
    if len(top):
        finer = spelt.aligner.scores([spelt.whole], generation.transcripts_of(ids[top], space))[0]
        np.minimum(scores, finer.min(), out=scores)
        scores[top] = finer


def _candidates(
    generation: Generation, space: str, passages: FloatArray, k: int, threads: int
) -> IntArray:
    n_all, wanted = len(generation.segments(space)), min(k, len(generation.recording_ids(space)))
    n = max(SEGMENTS, k)
    while True:
        keys = generation.search_segments(passages, n, space, threads=threads).keys
        ids = np.unique(generation.recordings_of(np.unique(keys[keys > 0]), space))
        if len(ids) >= wanted or n >= n_all:
            return ids
        n *= 2


def _scores(generation: Generation, space: str, passages: FloatArray, ids: IntArray) -> FloatArray:
    table = generation.segments_of(ids, space)
    cosines = products(passages, generation.segment_vectors(table["segment_id"], space))
    first = np.searchsorted(table["recording_id"], ids)
    scores: FloatArray = np.maximum.reduceat(cosines, first, axis=1).mean(axis=0)
    return scores


def places(
    generation: Generation,
    space: str,
    passages: FloatArray,
    recording_id: int,
    n: int,
    *,
    spelt: Spelt | None = None,
) -> Places:
    """The n segments of a recording, or fewer, that are nearest to any of the passages (P, D)."""
    table = generation.segments_of(np.array([recording_id]), space)
    start_s, end_s = table["start_s"], table["end_s"]
    if spelt is None:
        vectors = generation.segment_vectors(table["segment_id"], space)
        likeness = products(passages, vectors)
    else:
        read = generation.transcripts_of(np.array([recording_id]), space)[0]
        spans = zip(start_s.tolist(), end_s.tolist(), strict=True)
        likeness = spelt.aligner.scores(spelt.passages, [between(read, *span) for span in spans])
    scores = likeness.max(axis=0)
    chosen: list[int] = []
    free = np.ones(len(table), np.bool_)
    while len(chosen) < n and free.any():
        best = int(np.where(free, scores, -np.inf).argmax())
        chosen.append(best)
        free &= (end_s <= start_s[best]) | (end_s[best] <= start_s)
    return Places(
        start_s[chosen], end_s[chosen], scores[chosen], likeness.argmax(axis=0)[chosen]
    )  # fmt: skip
