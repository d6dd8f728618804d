"""How alike two transcripts are: the score of their best local alignment.

What is read of a song in a mix is half wrong, but not wrong in any way: vowels are taken for other
vowels, phones get lost, none is read in another order. So two transcripts are laid over each other
where they agree best, as related proteins are (Smith & Waterman 1981): a pair of phones counts by
the odds that both were read of the same phone sung (Altschul 1991), a phone without a partner costs
a fixed price, and only the best stretch counts, so that a version may lack the rest.

    score = best alignment in nats - what two transcripts of such lengths have by chance

Where the reader was in doubt, a transcript says so. A model that tells what else may have been sung
has ``profiles``, which cost dozens of times as much: only the best are compared by these, and all
by what class of them a phone has, in place of the phone itself. Another one has a second reading;
what is scored is the mean of both, the first with the first and the second with the second, in
which accidents of either count half.

Chance grows with the logarithm of the product of the lengths (Karlin & Altschul 1990). The
numbers are those of the model that reads: it says in a file how it confuses phones.

Alignments are computed by StringZilla: https://github.com/ashvardanian/StringZilla
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from livi_index.errors import BadModel
from livi_index.models import Bundle, verify_file
from livi_index.profiles import Profiles
from livi_index.transcripts import Transcript, second_reading

CLASSES = 32  # that the aligner tells apart; phones that are rare share one
LARGEST_GAP = 127  # steps; the aligner counts in bytes, and says nothing of larger ones
SHARED = 10_000_000  # pairs of phones from which several processors are worth their start
LEAST_REFINED = 30  # best ones by phones alone that are compared by all that is known of them
REFINED_CELLS = 16_000_000  # pairs of phones that may be, 90 ms of one processor
CERTAIN = 20.0  # nats; of 57,000 pairs of training songs that are no versions none had 19
SCHEMA = 1

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Scoring:
    """What pairs of phones are worth.

    ``classes`` (256,) uint8: the class below 32 of each phone. ``pairs`` (32, 32) int8 and ``gap``
    > 0 in steps, of which ``steps_per_nat`` make a nat. By chance an alignment of n with m phones
    has ``chance[0] + chance[1] * ln(n * m)`` nats.
    """

    classes: NDArray[np.uint8]
    pairs: NDArray[np.int8]
    gap: int
    steps_per_nat: float
    chance: tuple[float, float]


def read_scoring(bundle: Bundle, file: str) -> Scoring:
    """The scoring in a bundle's file, verified first. Raises BadModel."""
    verify_file(bundle, file)
    path = bundle.path / file
    try:
        values = json.loads(path.read_bytes())
        schema = values["schema"]
        classes = np.zeros(256, np.uint8)
        classes[: len(values["classes"])] = values["classes"]
        pairs = np.array(values["pairs"], np.int8)
        gap, steps = int(values["gap"]), float(values["steps_per_nat"])
        first, second = map(float, values["chance"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadModel(f"{path} does not say how to align: {error!r}") from error
    if schema != SCHEMA:
        raise BadModel(f"{path} is of schema {schema!r}; a newer version may read it")
    if pairs.shape != (CLASSES, CLASSES) or (pairs != pairs.T).any() or classes.max() >= CLASSES:
        raise BadModel(f"{path} does not say how to align: pairs or classes out of range")
    if not (0 < gap <= LARGEST_GAP and 0 < steps < np.inf and np.isfinite([first, second]).all()):
        raise BadModel(f"{path} does not say how to align: numbers out of range")
    return Scoring(classes, pairs, gap, steps, (first, second))


class Aligner:
    """Compares transcripts by one scoring, on ``threads`` processors where there is much to do."""

    def __init__(
        self, scoring: Scoring, profiles: Profiles | None = None, *, threads: int = 1
    ) -> None:
        # Imported when needed: loading it takes as long as many a command.
        import stringzilla
        import stringzillas

        self._by_class = profiles is not None and profiles.classes is not None
        self._scoring = _of_classes(profiles, scoring) if profiles and self._by_class else scoring
        self.profiles = profiles
        self._threads = threads
        self._strings: Any = stringzilla.Strs
        self._library: Any = stringzillas
        self._alone = self._engine(1)

    def scores(
        self,
        these: Sequence[Transcript],
        those: Sequence[Transcript],
        *,
        once: bool = False,
        whole: bool = False,
    ) -> FloatArray:
        """(N, M) float32: each of N transcripts with each of M, in nats above chance.

        ``once`` is by the phones alone, or their classes, which takes far less time. ``whole`` are
        transcripts of whole recordings: more may be known of chance between these.
        """
        if self.profiles is not None and not once:
            rows = [self.profiles.scores(one, those, whole=whole) for one in these]
            return np.stack(rows) if rows else np.zeros((0, len(those)), np.float32)
        found = np.zeros((len(these), len(those)), np.float32)
        if found.size == 0:
            return found
        if self.profiles is not None and self._by_class:
            of = self.profiles.classes_of
            found[:] = self._steps(*([of(t) for t in side] for side in (these, those)))
            found /= np.float32(self._scoring.steps_per_nat)
            return self.profiles.above_chance(found, these, those, whole=whole)
        found[:] = self._steps(*([t["phone"] for t in side] for side in (these, those)))
        if not once and any(t["other"].any() for side in (these, those) for t in side):
            found += self._steps(*([second_reading(t) for t in side] for side in (these, those)))
            found /= 2
        lengths = np.log([max(len(transcript), 1) for transcript in (*these, *those)])
        sums = np.add.outer(lengths[: len(these)], lengths[len(these) :])
        first, second = self._scoring.chance
        found /= np.float32(self._scoring.steps_per_nat)
        found -= (first + second * sums).astype(np.float32)
        return found

    def ranked(
        self, this: Transcript, those: Sequence[Transcript], always: IntArray | None = None
    ) -> FloatArray:
        """(M,) float32 as ``scores`` of whole recordings: of as many as ``refined`` says of those
        that are best ``once``; of all others as they are once, and with profiles no higher than any
        of the best.

        With profiles, rows ``always`` (n,) are scored like the best, wherever they stand: where
        scores are held against theirs, these must be of one kind.
        """
        found: FloatArray = self.scores([this], those, once=True, whole=True)[0]
        if len(those) == 0:
            return found
        order = np.argsort(-found, kind="stable")
        best = order[: self.refined(len(this) * float(np.mean([*map(len, those)])))]
        found[best] = self._finer(this, those, best)
        if self.profiles is None:
            return found
        rest = order[len(best) :]
        found[rest] = np.minimum(found[rest], found[best].min())
        if always is not None and len(rows := np.intersect1d(rest, always)):
            found[rows] = self._finer(this, those, rows)
        return found

    def _finer(self, this: Transcript, those: Sequence[Transcript], rows: IntArray) -> FloatArray:
        found: FloatArray = self.scores([this], [those[row] for row in rows], whole=True)[0]
        return found

    def refined(self, cells: float) -> int:
        """How many recordings are compared by all that is known where one has so many pairs of
        phones with what is asked."""
        if self.profiles is None:
            return LEAST_REFINED
        return max(LEAST_REFINED, int(REFINED_CELLS / max(1.0, cells)))

    def _steps(self, these: list[NDArray[np.uint8]], those: list[NDArray[np.uint8]]) -> Any:
        """(N, M) scores of best alignments, in steps."""
        strings = [self._strings([phones.tobytes() for phones in side]) for side in (these, those)]
        cells = sum(map(len, these)) * sum(map(len, those))
        shared = self._threads > 1 and cells >= SHARED
        # Kept, its threads would wait for work in a loop.
        engine, device = self._engine(self._threads) if shared else self._alone
        return engine(*strings, device=device)

    def _engine(self, threads: int) -> tuple[Any, Any]:
        """An engine, and the processors that it is for."""
        by = self._scoring
        device = self._library.DeviceScope(cpu_cores=threads)
        engine = self._library.SmithWatermanScores(
            by.classes, by.pairs, -by.gap, -by.gap, capabilities=device
        )
        return engine, device


def _of_classes(profiles: Profiles, by: Scoring) -> Scoring:
    """What pairs of classes are worth, in steps as fine as those of ``by``."""
    worth = np.round(profiles.class_worth() * by.steps_per_nat).clip(-127, 127).astype(np.int8)
    pairs = np.zeros((CLASSES, CLASSES), np.int8)
    pairs[: len(worth), : len(worth)] = worth
    classes = np.arange(256, dtype=np.uint8) % CLASSES
    gap = max(1, round(profiles.gap * by.steps_per_nat))
    return Scoring(classes, pairs, min(gap, LARGEST_GAP), by.steps_per_nat, (0.0, 0.0))
