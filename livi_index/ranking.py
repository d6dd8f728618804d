"""Which recordings of a generation are most like what is sung in another one.

Candidates are the recordings nearest by track vector, and those with a segment near to any segment
of the query. What was read of them is then compared with what was read of the query, phone by phone
(``alignment`` says how): vectors say at little cost what may be alike, transcripts say what is. And
what is like the best of them is like the query: a version that can hardly be made out may be plain
beside another one.

    score = the larger of its alignment with the query
                      and the smaller of best's with the query and its own with best, less RELAYED

Where a model does not read, candidates are scored by their vectors: by the best pairs of segments,
one to one, the largest cosine first, then the largest among what does not overlap with it in either
recording, and so on. So a medley, or a version that lacks half of the words, is found by what it
shares.

    score = track_weight × cosine of the tracks + (1 - track_weight) × mean of the best pairs
            - crowding × mean cosine of the candidate with its nearest among the candidates

The last line holds back recordings that are a little like everything (hubs; the scaling is that of
CSLS, Conneau et al. 2018, among the candidates only): they would answer questions of all kinds.
Slices of a song overlap by half; without the rule on overlaps a chance likeness would count twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from livi_index.alignment import CERTAIN, Aligner
from livi_index.encoders import pool
from livi_index.generations import Generation
from livi_index.transcripts import Transcript, between
from livi_index.vectors import products

BLOCK = 1 << 22  # pairs of segments that are compared at once
FURTHER = 10  # times as many candidates, where the nearest are not it
RELAYED = 1.0  # nats by which a candidate stays behind what it was found through

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class RankOptions:
    """How candidates are found and scored; ``track_weight`` 1 is by tracks alone, 0 by pairs.

    ``align`` False leaves transcripts out. With them, all are candidates in a library of at most
    ``all_below`` recordings; in a larger one as many by track vector as ``cells``, pairs of phones
    that are compared, allow, and where none scores ``certain_from``, many more. A best one that
    scores at least ``relay_from`` finds others.
    """

    candidates: int = 100  # recordings by track vector, and again by segments, at least
    cohort: int = 128  # recordings that are drawn, at most, to hold scores against
    align: bool = True
    all_below: int = 5000
    cells: int = 50_000_000
    certain_from: float = CERTAIN
    relay_from: float = 6.0
    pairs: int = 3  # best pairs of segments that count
    track_weight: float = 0.3  # of the cosine of the whole tracks
    crowding: float = 0.5  # of the likeness of a candidate to its neighbours
    neighbours: int = 20  # many, so that it is not the versions of one song that count

    def __post_init__(self) -> None:
        counts = min(self.candidates, self.pairs, self.neighbours)
        if counts < 1 or not 0 <= self.track_weight <= 1 or self.crowding < 0:
            raise ValueError(f"no ranking is possible with {self}")


# In a space of whole recordings.
WHOLE = RankOptions(align=False, crowding=0.0)


@dataclass(frozen=True, eq=False)
class Heard:
    """What was heard of one recording in one space: S segments in order of time.

    vectors (S, D) float32 unit; start_s, end_s, weights (S,); what was read, if the model reads.
    """

    vectors: FloatArray
    start_s: FloatArray
    end_s: FloatArray
    weights: FloatArray
    transcript: Transcript | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """Candidates (C,) with their scores, best first, ties by id; ``by_space`` are what these were
    made of, not a number where a candidate has no vectors in a space. ``cohorts`` mark those that
    were drawn in a space to hold its scores against. ``probabilities``, which fall as scores do,
    are None where the model gives none."""

    recording_ids: IntArray
    scores: NDArray[np.float64]
    by_space: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    cohorts: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    probabilities: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Pairs:
    """The best pairs of segments of C recordings, each (C, P), best first, scores -inf where there
    are no more. ``query_rows`` numbers the query's segment, ``hit_start_s`` is where the other
    begins."""

    scores: FloatArray
    query_rows: IntArray
    hit_start_s: FloatArray


def score_candidates(
    generation: Generation,
    space: str,
    heard: Heard,
    options: RankOptions,
    *,
    aligner: Aligner | None = None,
    also: IntArray | None = None,
    without: Collection[int] = (),
    threads: int = 0,
) -> Scored:
    """All candidates of one space of a generation, with their scores.

    ``aligner`` compares what the generation's model reads; None where it does not. ``also`` are
    candidates whatever their vectors, ``without`` are none. The cohort is compared as well as the
    best are.
    """
    track = pool(heard.vectors, heard.weights)
    named = drawn = cohort(generation, space, options.cohort)
    if also is not None:
        named = np.union1d(drawn, also[generation.holds(also, space)])

    def nearest(n: int, by: FloatArray) -> IntArray:
        ids = np.union1d(_candidates(generation, space, by, track, n, options, threads), named)
        return np.asarray(ids[~np.isin(ids, list(without))], np.int64)

    if aligner is not None and options.align and heard.transcript is not None:
        n_all = len(generation.recording_ids(space))
        n = _affordable(generation, space, heard.transcript, options)
        for n_tracks in (n, FURTHER * n):
            ids = nearest(n_tracks, heard.vectors[_apart(heard)])
            transcripts = generation.transcripts_of(ids, space)
            always = np.flatnonzero(np.isin(ids, drawn))
            scores = _by_transcripts(
                aligner, heard.transcript, transcripts, always, options.relay_from
            )
            if n_tracks >= n_all or (len(scores) and scores.max() >= options.certain_from):
                break
    else:
        ids = nearest(options.candidates, heard.vectors)
        scores = scores_of(generation, space, heard, ids, options)
    return in_order(ids, scores, {space: scores}, {space: np.isin(ids, drawn)})


def cohort(generation: Generation, space: str, n: int) -> IntArray:
    """Up to n recordings, ascending, that every query is compared with: ids are made of hashes, so
    any order of them is that of a draw."""
    ids = generation.recording_ids(space)
    return ids[:: max(1, -(-len(ids) // n))] if n else ids[:0]


def in_order(
    ids: IntArray,
    scores: NDArray[np.float64],
    by_space: Mapping[str, NDArray[np.float64]],
    cohorts: Mapping[str, NDArray[np.bool_]],
) -> Scored:
    """Candidates (C,) in any order, with the best first."""
    order = np.lexsort((ids, -scores))
    parts = {name: values[order] for name, values in by_space.items()}
    drawn = {name: those[order] for name, those in cohorts.items()}
    return Scored(ids[order], scores[order], parts, drawn)


def best_pairs(
    generation: Generation,
    space: str,
    heard: Heard,
    ids: IntArray,
    n_pairs: int,
    aligner: Aligner | None = None,
) -> Pairs:
    """The best pairs of segments of the recordings (n,), ascending, none of which overlap.

    They are scored by what was read of them where there is an ``aligner``, else by their cosine.
    """
    table = generation.segments_of(ids, space)
    if aligner is None or heard.transcript is None:
        likeness = products(heard.vectors, generation.segment_vectors(table["segment_id"], space))
    else:
        of = dict(zip(ids.tolist(), generation.transcripts_of(ids, space), strict=True))
        spans = table[["recording_id", "start_s", "end_s"]].tolist()
        likeness = np.full((len(heard.start_s), len(table)), -np.inf, np.float32)
        rows = _apart(heard)
        times = zip(heard.start_s[rows].tolist(), heard.end_s[rows].tolist(), strict=True)
        likeness[rows] = aligner.scores(
            [between(heard.transcript, *span) for span in times],
            [between(of[number], *span) for number, *span in spans],
            once=True,
        )
    return _best_pairs(heard, likeness, ids, table, n_pairs)


def _by_transcripts(
    aligner: Aligner,
    asked: Transcript,
    transcripts: list[Transcript],
    always: IntArray,
    relay_from: float,
) -> NDArray[np.float64]:
    scores: NDArray[np.float64] = aligner.ranked(asked, transcripts, always).astype(float)
    if len(scores) and scores.max() >= relay_from:
        best = int(scores.argmax())
        if aligner.profiles is None:  # its curves were fitted to the first readings of the others
            through = aligner.scores([transcripts[best]], transcripts, once=True)[0].astype(float)
        else:
            through = aligner.ranked(transcripts[best], transcripts).astype(float)
        scores = np.maximum(scores, np.minimum(scores[best], through) - RELAYED)
    return scores


def _apart(heard: Heard) -> IntArray:
    """Segments of which none overlaps with another, from the first on; they hold nearly all."""
    rows, end_s = [], -np.inf
    for row, start_s in enumerate(heard.start_s.tolist()):
        if start_s >= end_s:
            rows.append(row)
            end_s = float(heard.end_s[row])
    return np.array(rows)


def scores_of(
    generation: Generation, space: str, heard: Heard, ids: IntArray, options: RankOptions
) -> NDArray[np.float64]:
    """The scores (C,) of recordings (C,), ascending, by their vectors."""
    track = pool(heard.vectors, heard.weights)
    counted = best_pairs(generation, space, heard, ids, options.pairs).scores
    real = np.isfinite(counted)
    by_pairs = np.where(real, counted, 0).sum(axis=1, dtype=np.float64) / real.sum(axis=1)
    tracks = generation.recording_vectors(ids, space)
    scores: NDArray[np.float64] = (
        options.track_weight * products(track[None], tracks)[0]
        + (1 - options.track_weight) * by_pairs
    )
    if options.crowding:
        scores -= options.crowding * _crowding(tracks, options.neighbours)
    return scores


def _affordable(
    generation: Generation, space: str, transcript: Transcript, options: RankOptions
) -> int:
    """How many recordings can be compared with a transcript for ``options.cells``."""
    n_recordings = max(1, len(generation.recording_ids(space)))
    if n_recordings <= options.all_below:
        return n_recordings
    cells = max(1.0, len(transcript) * generation.phones(space) / n_recordings)
    return max(options.candidates, int(options.cells / cells))


def _candidates(
    generation: Generation,
    space: str,
    segments: FloatArray,
    track: FloatArray,
    n_tracks: int,
    options: RankOptions,
    threads: int,
) -> IntArray:
    """Recordings (C,) ascending: ``n_tracks`` by track vector and some by ``segments`` (n, D)."""
    if n_tracks >= len(generation.recording_ids(space)):
        return generation.recording_ids(space)
    n = options.candidates
    tracks = generation.search_recordings(track[None], n_tracks, space, threads=threads)
    found = generation.search_segments(segments, n, space, threads=threads)
    keys = found.keys[found.keys > 0]
    best_first = np.argsort(-found.scores[found.keys > 0], kind="stable")
    owners = generation.recordings_of(keys[best_first], space)
    _, first = np.unique(owners, return_index=True)
    return np.union1d(tracks.keys[0, : tracks.counts[0]], owners[np.sort(first)[:n]])


def _crowding(tracks: FloatArray, n: int) -> FloatArray:
    """(C,) mean cosine of each of (C, D) unit vectors with its ``n`` nearest others, 0 if alone."""
    n = min(n, len(tracks) - 1)
    if n < 1:
        return np.zeros(len(tracks), np.float32)
    cosines = products(tracks, tracks)
    np.fill_diagonal(cosines, -np.inf)
    nearest: FloatArray = np.partition(cosines, -n, axis=1)[:, -n:].mean(axis=1)
    return nearest


def _best_pairs(
    heard: Heard, cosines: FloatArray, ids: IntArray, table: NDArray[np.void], n_pairs: int
) -> Pairs:
    """The pairs of each candidate, from cosines (S, n) with the segments (n,) of all of them.

    ``table`` has the segments of the candidates one after the other, in the order of ``ids``.
    """
    first = np.searchsorted(table["recording_id"], ids)
    counts = np.diff(np.append(first, len(table)))
    pairs = Pairs(
        np.full((len(ids), n_pairs), -np.inf, np.float32),
        np.zeros((len(ids), n_pairs), np.int64),
        np.zeros((len(ids), n_pairs), np.float32),
    )
    clash = _overlaps(
        heard.start_s[None], heard.end_s[None], heard.start_s[None], heard.end_s[None]
    )[0]
    for rows in _blocks(counts, len(cosines)):
        slots = np.arange(counts[rows].max())
        real = slots < counts[rows, None]
        place = np.where(real, first[rows, None] + slots, 0)
        start_s, end_s = table["start_s"][place], table["end_s"][place]
        left = np.where(real[:, None], cosines[:, place].transpose(1, 0, 2), -np.inf)
        each = np.arange(len(rows))
        for step in range(n_pairs):
            flat = left.reshape(len(rows), -1).argmax(axis=1)
            row, column = np.divmod(flat, len(slots))
            pairs.scores[rows, step] = left[each, row, column]
            pairs.query_rows[rows, step] = row
            pairs.hit_start_s[rows, step] = start_s[each, column]
            taken = _overlaps(
                start_s, end_s, start_s[each, column][:, None], end_s[each, column][:, None]
            )[:, :, 0]
            left[clash[row]] = -np.inf
            left.transpose(0, 2, 1)[taken] = -np.inf
    return pairs


def _overlaps(
    start_s: FloatArray, end_s: FloatArray, other_start_s: FloatArray, other_end_s: FloatArray
) -> NDArray[np.bool_]:
    """(C, n) spans against (C, m) others: which have a stretch in common, (C, n, m)."""
    before = start_s[:, :, None] < other_end_s[:, None]
    return before & (other_start_s[:, None] < end_s[:, :, None])


def _blocks(counts: IntArray, n_rows: int) -> Iterator[IntArray]:
    """Numbers of candidates of about the same length, in blocks that fit in memory together."""
    order = np.argsort(counts, kind="stable")
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and (stop + 1 - start) * counts[order[stop]] * n_rows <= BLOCK:
            stop += 1
        yield order[start:stop]
        start = stop
