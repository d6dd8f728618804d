"""How often is something offered that is no version? ``python -m benchmarks.accepts FOLDER …``

A probability is of one pair, and a query meets as many as there are recordings: in a library of
200,000, pairs that are wrong once in a thousand times would be 200 false hits a query. So what is
measured is per query: every recording of the folders (which only measure) asks a library of them,
and what its wrong candidates are worth, in nats above chance, makes a distribution. From that come,
for libraries of 600, 10,000 and 200,000 recordings, the share of queries that have a false hit at a
given probability, and the probability at which 1 % or 0.1 % have. What was met counts as it was
met; where that is less than an exponential tail gives, which is fitted from its 1 % on, or nothing,
the tail counts. ``measured_600`` counts alone.

``--data`` adds real music as a set of its own: the songs and the anthems that only measure, among
each other. No two of them are versions, so that all that they find is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.detector import FIRST_MEASURING
from benchmarks.harmony import SAME_TUNE
from benchmarks.results import (
    arguments,
    bundle_of,
    data_folder,
    model_facts,
    print_table,
    write_result,
)
from benchmarks.truth import Truth, entries_in, truth_of
from catalogs import Entry
from livi_index.calibration import IN_NATS
from livi_index.library import BOTH, Library

SIZES = (600, 10_000, 200_000)
RATES = (0.01, 0.001)
LEVELS = (0.5, 0.9, 0.99)
TAIL = 0.01  # of wrong pairs, from which on it is taken to be exponential

FloatArray = NDArray[np.float64]


class Tail:
    """How probable it is that a wrong pair is worth more than so many nats."""

    def __init__(self, nats: FloatArray, n_pairs: int) -> None:
        """``nats`` of the candidates among ``n_pairs`` wrong pairs; the others are worth less."""
        self._nats = np.sort(nats)
        self._n = n_pairs
        self._begin = float(self._nats[-max(2, round(TAIL * n_pairs))])
        over = self._nats[self._nats > self._begin] - self._begin
        self._share = len(over) / n_pairs
        self.slope = 1 / float(over.mean())

    def __call__(self, nats: float) -> float:
        met = float(len(self._nats) - np.searchsorted(self._nats, nats)) / self._n
        if nats <= self._begin:
            return met
        return max(met, self._share * float(np.exp(-self.slope * (nats - self._begin))))

    def level(self, share: float) -> float:
        """The nats that such a share of wrong pairs exceeds, in the tail."""
        falls = self._begin + float(np.log(self._share / share)) / self.slope
        n_met = int(share * self._n)
        return max(falls, float(self._nats[-n_met])) if n_met else falls


def wrong_nats(library: Library, truth: Truth, space: str) -> tuple[list[FloatArray], list[int]]:
    """For each query, what its wrong candidates are worth, best first; and the number of wrong
    recordings that it could have met."""
    curve = IN_NATS if space == BOTH else library.bundle.card.calibration[space]
    ids = library.recording_ids(space)
    found, met = [], []
    for number in ids.tolist():
        seen = library.score(library.stored(number), space=space, without=(number,))
        right = truth.right(number, seen.recording_ids)
        none = np.zeros(len(right), np.bool_)  # what is worth itself needs none
        found.append(curve.nats(seen.scores, seen.cohorts.get(space, none))[~right])
        met.append(len(ids) - 1 - int(truth.right(number, ids).sum()) + 1)
    return found, met


def figures_of(found: Sequence[FloatArray], met: Sequence[int]) -> dict[str, Any]:
    """False hits per query, by the size of the library."""
    tail = Tail(np.concatenate(found), sum(met))
    best = np.array([nats[0] for nats in found if len(nats)])
    sizes = {}
    for size in SIZES:
        crowd = np.log(size)
        sizes[str(size)] = {
            "false_hits": {
                str(level): _once(tail(np.log(level / (1 - level)) + crowd), size)
                for level in LEVELS
            },
            "least_probability": {
                str(rate): _likely(tail.level(1 - (1 - rate) ** (1 / size)) - crowd)
                for rate in RATES
            },
        }
    measured = {str(level): _counted(found, met, 600, level) for level in LEVELS}
    return {
        "queries": len(found),
        "wrong_pairs": sum(met),
        "tail_slope": tail.slope,
        "sizes": sizes,
        "measured_600": measured if min(met) >= 600 else None,
        "highest_probability": _likely(float(best.max()) - float(np.log(max(met)))),
    }


def _once(share: float, size: int) -> float:
    """The chance that one of so many is such."""
    return float(-np.expm1(size * np.log1p(-share)))


def _likely(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def _counted(found: Sequence[FloatArray], met: Sequence[int], size: int, level: float) -> float:
    """The share of queries with a false hit among so many of the wrong ones that they met."""
    least = np.log(level / (1 - level)) + np.log(size)
    shares = []
    for nats, n in zip(found, met, strict=True):
        n_false = int((nats >= least).sum())
        shares.append(1 - max(0.0, 1 - size / n) ** n_false)
    return float(np.mean(shares))


def real_music(data: Path) -> list[Entry]:
    """Songs and anthems that only measure; what has one tune is one work."""
    anthems = [e for e in entries_in([data / "instrumental"]) if e.path.stem >= FIRST_MEASURING]
    tunes = {name: min(same) for same in SAME_TUNE for name in same}
    songs = entries_in([data / "sung"])
    every = [*songs, *anthems]
    return [Entry(e.recording_id, tunes.get(e.work_id, e.work_id), e.path, "", "", e.split)
            for e in every]  # fmt: skip


def measured(library: Library, truth: Truth) -> dict[str, Any]:
    """The figures of each space, and of both where there are two."""
    spaces = [*library.generation.spaces]
    if library.bundle.card.fusion is not None and len(spaces) > 1:
        spaces.append(BOTH)
    return {space: figures_of(*wrong_nats(library, truth, space)) for space in spaces}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("folders", type=Path, nargs="+", help="rendered, of the test split")
    parser.add_argument("--library", type=Path, help="keep the library of the folders here")
    options = parser.parse_args()
    bundle, data = bundle_of(options), data_folder(options, "sung", "instrumental")
    figures: dict[str, Any] = {"model": model_facts(bundle)}
    with truth_of(entries_in(options.folders), bundle, options.library) as made:
        figures["synthetic"] = measured(*made)
    with truth_of(real_music(data), bundle) as made:
        figures["real"] = measured(*made)
    write_result("accepts", figures, options.out)
    for kind in ("synthetic", "real"):
        for space, found in figures[kind].items():
            print(kind, space, f"highest wrong probability {found['highest_probability']:.3f}")
            rows = [
                (n, *s["false_hits"].values(), *s["least_probability"].values())
                for n, s in found["sizes"].items()
            ]
            print_table([("recordings", *LEVELS, *RATES), *rows])


if __name__ == "__main__":
    main()
