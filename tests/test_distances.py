"""Distances between recordings against those of the originals, and against the plain way."""

from __future__ import annotations

import golden
import numpy as np
import pytest

from benchmarks.baselines.distances import (
    Measure,
    Recordings,
    best_pairs,
    segment_distances,
)
from livi_index.metrics import evaluate, rank_scores, summarise

PAIRS = ("min", "bpwr")


def known_segments(case: str, n_asked: int, n_items: int) -> tuple[np.ndarray, np.ndarray]:
    i, j = np.arange(n_items)[:, None], np.arange(16)
    asked = golden.uniform(f"dq:{case}", 16 * np.arange(n_asked)[:, None] + j)
    items = 0.6 * asked[(5 * i[:, 0] + 2) % n_asked] + 0.8 * golden.uniform(
        f"dc:{case}", 16 * i + j
    )
    return asked.astype(np.float32), items.astype(np.float32)


@pytest.mark.parametrize(("case", "n_asked", "n_items"), [("a", 12, 15), ("b", 7, 4)])
def test_distances_are_those_of_the_originals(case: str, n_asked: int, n_items: int) -> None:
    known = golden.outputs("distances")
    asked, items = known_segments(case, n_asked, n_items)
    both = Recordings([asked, items])
    for kind, name in (("cosine", "cos"), ("euclidean", "nsqeuc")):
        pairs = segment_distances(asked, items, kind)
        assert np.abs(pairs - known[f"{case}_{name}"]).max() < 2e-6
        assert abs(best_pairs(pairs[None], 5)[0] - known[f"{case}_{name}_bpwr-5"][0]) < 2e-6
        for counted, reduction in (("min", "min"), ("bpwr", "bpwr-10")):
            found = -both.scores(Measure(kind, counted))(np.array([0]))[0, 1]
            assert abs(found - known[f"{case}_{name}_{reduction}"][0]) < 2e-6


def test_the_numbers_of_the_facts() -> None:
    """Also where the originals' outputs are not at hand."""
    for case, shape, nearest, best in (
        ("a", (12, 15), 0.154487, 0.243618),
        ("b", (7, 4), 0.258001, 0.198302),
    ):
        both = Recordings(known_segments(case, *shape))
        assert -both.scores(Measure())(np.array([0]))[0, 1] == pytest.approx(nearest, abs=2e-6)
        by_pairs = both.scores(Measure("euclidean", "bpwr"))(np.array([0]))
        assert -by_pairs[0, 1] == pytest.approx(best, abs=2e-6)


@pytest.mark.parametrize("pairs", PAIRS)
def test_many_recordings_at_once_are_as_two_by_two(pairs: str) -> None:
    rng = np.random.default_rng(3)
    vectors = [rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 1, 14, 12, 2)]
    measure = Measure("euclidean", pairs)
    rows = Recordings(vectors).scores(measure)(np.array([2, 0]))
    for row, number in zip(rows, (2, 0), strict=True):
        for score, other in zip(row, vectors, strict=True):
            alone = Recordings([vectors[number], other]).scores(measure)(np.array([0]))[0, 1]
            assert score == pytest.approx(alone, abs=1e-6)


def test_both_ways_agree_where_a_recording_is_one_unit_vector() -> None:
    rng = np.random.default_rng(4)
    vectors = rng.standard_normal((20, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    works, ids = list("abcde" * 4), np.arange(20)
    recordings = Recordings(list(vectors[:, None]))
    ranked = rank_scores(recordings.scores(Measure()), works, ids, works, ids)
    native = summarise(ranked, n_items=20)
    assert native.answerable == evaluate(recordings.means(), works).answerable
