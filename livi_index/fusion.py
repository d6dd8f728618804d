"""One score from several spaces: what the words and the harmony of two recordings say together.

Each space has candidates of its own, and every candidate is scored in all spaces that it and the
query have vectors in. A logistic curve turns these scores, held against what else the query scores,
into log-odds that one is a version of the other, among as many recordings as it was fitted on; with
the logarithm of that number added, they are what the likeness is worth by itself, in nats above
what chance gives, whatever the size of the library:

    in all spaces      nats = log n + offset + sum of weight × relative score   (``Fusion``)
    in one of them     nats = log n + offset + slope × relative score           (``Calibration``)

So a recording without singing, which has no words to compare, stands in one order with the others.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from livi_index.alignment import Aligner
from livi_index.generations import Generation
from livi_index.models import ModelCard
from livi_index.ranking import (
    WHOLE,
    Heard,
    RankOptions,
    Scored,
    in_order,
    score_candidates,
    scores_of,
)

FloatArray = NDArray[np.float64]


def score_in_all(
    generation: Generation,
    heard: Mapping[str, Heard],
    card: ModelCard,
    options: RankOptions,
    *,
    aligner: Aligner | None = None,
    without: Collection[int] = (),
    threads: int = 0,
) -> Scored:
    """The candidates of all spaces in which something was heard, scored together.

    ``options`` and ``aligner`` are for the first space of the model; the card has a ``fusion``.
    """
    assert card.fusion is not None
    first, least = card.spaces[0].name, card.fusion.least_read
    others = [space for space in heard if space != first]
    if others and first in heard and _read_per_s(heard[first], heard[others[0]]) < least:
        heard = {space: heard[space] for space in others}
    ids = np.zeros(0, np.int64)
    found = {}
    # The first space comes last: what others find is worth a closer look there.
    for space in sorted(heard, key=lambda name: name == first):
        found[space] = score_candidates(
            generation,
            space,
            heard[space],
            options if space == first else WHOLE,
            aligner=aligner if space == first else None,
            also=ids,
            without=without,
            threads=threads,
        )
        ids = np.union1d(ids, found[space].recording_ids)
    by_space = {
        space: _completed(generation, space, heard[space], ids, found[space]) for space in heard
    }
    if others and first in heard:
        by_space[first][generation.read_per_s(ids, first, others[0]) < least] = np.nan
    drawn = {
        space: np.isin(ids, part.recording_ids[part.cohorts[space]])
        for space, part in found.items()
    }
    return in_order(ids, nats(card, by_space, drawn), by_space, drawn)


def _read_per_s(read: Heard, whole: Heard) -> float:
    phones = 0 if read.transcript is None else len(read.transcript)
    return phones / max(1.0, float(whole.end_s[-1]))


def _completed(
    generation: Generation, space: str, heard: Heard, ids: NDArray[np.int64], found: Scored
) -> FloatArray:
    """The scores (C,) of all candidates, ascending, in one space; not a number for those that are
    not in it."""
    scores = np.full(len(ids), np.nan)
    scores[np.searchsorted(ids, found.recording_ids)] = found.scores
    lacking = ids[np.isnan(scores) & generation.holds(ids, space)]
    if len(lacking):
        more = scores_of(generation, space, heard, lacking, WHOLE)
        scores[np.searchsorted(ids, lacking)] = more
    return scores


def nats(
    card: ModelCard, by_space: Mapping[str, FloatArray], drawn: Mapping[str, NDArray[np.bool_]]
) -> FloatArray:
    """What scores (C,) in several spaces are worth together; each has one in a space at least."""
    assert card.fusion is not None
    parts = [card.calibration[name].nats(by_space[name], drawn[name]) for name in by_space]
    alone: FloatArray = np.fmax.reduce(parts)
    if set(by_space) != set(card.fusion.weights):
        return alone
    weighted = sum(
        weight * card.calibration[name].relative(by_space[name], drawn[name])
        for name, weight in card.fusion.weights.items()
    )
    together = weighted + card.fusion.offset + math.log(card.fusion.recordings)
    return np.where(np.isnan(together), alone, together)
