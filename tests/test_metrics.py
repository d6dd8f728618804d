"""Metrics against values worked out by hand, and against the slow way of published evaluators."""

from __future__ import annotations

import json
import math
import tracemalloc

import numpy as np
import pytest

from livi_index.metrics import (
    SORTED_FROM,
    QueryResults,
    Scores,
    evaluate,
    rank_scores,
    rank_vectors,
    summarise,
)

WORKS = list("aaabbccd")
RANKINGS = [
    [3, 1, 4, 5, 6, 2, 7],
    [0, 2, 3, 4, 5, 6, 7],
    [4, 3, 0, 5, 1, 6, 7],
    [4, 0, 1, 2, 5, 6, 7],
    [0, 1, 2, 5, 6, 7, 3],
    [6, 0, 1, 2, 3, 4, 7],
    [0, 5, 1, 2, 3, 4, 7],
    [0, 1, 2, 3, 4, 5, 6],
]


def worked_example(cut: int) -> QueryResults:
    scores = np.full((8, 8), 9.0, np.float32)  # the query itself would win if it were let in
    for query, ranking in enumerate(RANKINGS):
        scores[query, ranking] = 0.9 - 0.1 * np.arange(7)
    return rank_scores(lambda rows: scores[rows], WORKS, range(8), WORKS, range(8), cut=cut)


def test_the_worked_example_query_by_query() -> None:
    results = worked_example(cut=3)
    np.testing.assert_array_equal(results.first_rank, [2, 1, 3, 1, 7, 1, 2, 0])
    np.testing.assert_array_equal(results.n_relevant, [2, 2, 2, 1, 1, 1, 1, 0])
    ap = [(1 / 2 + 2 / 6) / 2, 1, (1 / 3 + 2 / 5) / 2, 1, 1 / 7, 1, 1 / 2, 0]
    np.testing.assert_allclose(results.ap, ap)
    np.testing.assert_allclose(results.ap_at_cut, [0.25, 1, 1 / 6, 1, 0, 1, 0.5, 0])
    found = results.found_at_cut
    ap_found = results.ap_at_cut * np.minimum(3, results.n_relevant) / np.maximum(found, 1)
    np.testing.assert_allclose(ap_found, [0.5, 1, 1 / 3, 1, 0, 1, 0.5, 0])
    nar = [50, 0, 50, 0, 100, 0, 100 / 6, math.nan]
    np.testing.assert_allclose(results.nar, nar)
    nar_self_last = [41.6667, 0, 41.6667, 0, 85.7143, 0, 14.2857, math.nan]
    np.testing.assert_allclose(results.nar_self_last, nar_self_last, atol=1e-4)


def test_the_worked_example_in_every_convention() -> None:
    three, ten = worked_example(cut=3), worked_example(cut=10)
    scores = summarise(ten, n_items=8)
    ours, published = scores.answerable, scores.published
    assert (scores.n_queries, scores.n_answerable, scores.coverage) == (8, 7, 1.0)
    assert ours.map == pytest.approx(0.6323, abs=5e-5)
    assert published.map == pytest.approx(0.5533, abs=5e-5)
    assert three.ap_at_cut.mean() == pytest.approx(0.4896, abs=5e-5)
    assert three.ap_at_cut[three.answerable].mean() == pytest.approx(0.5595, abs=5e-5)
    assert published.hr1 == 0.375
    assert ours.hr1 == pytest.approx(0.4286, abs=5e-5)
    assert three.hit(3).mean() == 0.75
    assert ours.mr1_mean == published.mr1_mean == pytest.approx(2.4286, abs=5e-5)
    assert ours.mr1_mean - 1 == pytest.approx(1.4286, abs=5e-5)
    assert ours.mr1_median == 2
    assert np.maximum(ten.first_rank, 1).mean() == 2.25
    assert ours.mrr == pytest.approx(0.6395, abs=5e-5)
    assert published.mrr == pytest.approx(0.5595, abs=5e-5)
    assert (1 / np.maximum(ten.first_rank, 1)).mean() == pytest.approx(0.6845, abs=5e-5)
    assert published.nar == pytest.approx(26.19, abs=5e-3)
    assert ours.nar == pytest.approx(30.95, abs=5e-3)
    assert ten.hit(1).sum() == 3 and ten.found_at_cut.sum() == 10
    assert (ten.found_at_cut / 10).mean() == pytest.approx(0.125)
    assert (ours.hr10, ours.hr100, published.hr10) == (1, 1, 0.875)


def slow_results(
    scores: np.ndarray, works: list[int], ids: list[int], cut: int
) -> dict[str, list[float]]:
    """The way of the published evaluators: Python loops over a full matrix."""
    out: dict[str, list[float]] = {k: [] for k in ("first", "found", "ap", "ap_cut", "nar")}
    for query in range(len(works)):
        others = [i for i in range(len(works)) if i != query]
        ranking = sorted(others, key=lambda i: (-scores[query, i], ids[i]))
        relevant = [i for i in others if works[i] == works[query]]
        ranks = sorted(ranking.index(i) + 1 for i in relevant)
        n, n_negatives = len(ranks), len(others) - len(ranks)
        precisions = [(i + 1) / rank for i, rank in enumerate(ranks)]
        inside = [p for p, rank in zip(precisions, ranks, strict=True) if rank <= cut]
        before = [rank - i - 1 for i, rank in enumerate(ranks)]
        out["first"].append(ranks[0] if n else 0)
        out["found"].append(len(inside))
        out["ap"].append(sum(precisions) / n if n else 0)
        out["ap_cut"].append(sum(inside) / min(cut, n) if n else 0)
        out["nar"].append(100 * sum(before) / n / max(1, n_negatives) if n else math.nan)
    return out


def assert_same(results: QueryResults, slow: dict[str, list[float]]) -> None:
    np.testing.assert_array_equal(results.first_rank, slow["first"])
    np.testing.assert_array_equal(results.found_at_cut, slow["found"])
    np.testing.assert_allclose(results.ap, slow["ap"], rtol=1e-12)
    np.testing.assert_allclose(results.ap_at_cut, slow["ap_cut"], rtol=1e-12)
    np.testing.assert_allclose(results.nar, slow["nar"], rtol=1e-12)


@pytest.mark.parametrize("seed", range(40))
def test_ranks_equal_the_slow_way_with_many_ties(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([1, 2, 3, 17, 60, SORTED_FROM, SORTED_FROM + 1, 300]))
    # Small whole numbers: products are exact in float32 and many scores are equal.
    vectors = rng.integers(-2, 3, (n, 3)).astype(np.float32)
    works = rng.integers(0, int(rng.choice([1, 2, 5, n])), n).tolist()
    ids = rng.permutation(10 * n)[:n].tolist()
    cut = int(rng.choice([1, 3, 10]))
    results = rank_vectors(vectors, works, ids, vectors, works, ids, cut=cut)
    slow = slow_results(vectors @ vectors.T, works, ids, cut)
    assert_same(results, slow)
    scores = vectors @ vectors.T
    given = rank_scores(lambda rows: scores[rows], works, ids, works, ids, cut=cut)
    assert_same(given, slow)


def test_blocks_do_not_change_anything() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(300, 8)).astype(np.float32)
    works = rng.integers(0, 40, 300)
    scores = vectors @ vectors.T
    asked: list[int] = []

    def one_row_or_more(rows: np.ndarray) -> np.ndarray:
        asked.append(len(rows))
        return scores[rows]

    ids = np.arange(300)
    whole = rank_scores(one_row_or_more, works, ids, works, ids)
    parts = [
        rank_scores(lambda rows, q=q: scores[q : q + 1], works[q : q + 1], [q], works, ids)
        for q in range(300)
    ]
    np.testing.assert_array_equal(whole.first_rank, [part.first_rank[0] for part in parts])
    np.testing.assert_allclose(whole.ap, [part.ap[0] for part in parts], rtol=1e-12)
    assert sum(asked) == whole.answerable.sum()


def test_memory_is_that_of_blocks() -> None:
    n = 9_000
    rng = np.random.default_rng(8)
    works = np.repeat(np.arange(n // 4), 4)
    vectors = (rng.normal(size=(n // 4, 4))[works] + rng.normal(0, 0.3, (n, 4))).astype(np.float32)
    tracemalloc.start()
    results = rank_vectors(vectors, works, range(n), vectors, works, range(n))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 190e6 < 0.6 * n * n * 4
    for query in rng.choice(n, 30).tolist():
        scores = vectors @ vectors[query]
        scores[query] = -np.inf
        order = np.argsort(-scores, kind="stable")
        expected = 1 + np.flatnonzero(works[order] == works[query])[0]
        # Another way to the same product may swap neighbours.
        assert abs(results.first_rank[query] - expected) <= 1


def test_an_order_of_items_means_nothing() -> None:
    rng = np.random.default_rng(6)
    vectors = rng.integers(-2, 3, (80, 4)).astype(np.float32)
    works, ids = rng.integers(0, 20, 80), np.array([f"id{i:03}" for i in rng.permutation(80)])
    mixed = rng.permutation(80)
    first = rank_vectors(vectors, works, ids, vectors, works, ids)
    second = rank_vectors(
        vectors[mixed], works[mixed], ids[mixed], vectors[mixed], works[mixed], ids[mixed]
    )
    np.testing.assert_array_equal(first.first_rank[mixed], second.first_rank)
    np.testing.assert_allclose(first.ap[mixed], second.ap)
    assert evaluate(vectors, works, ids=ids).answerable == summarise(first, n_items=80).answerable


def test_queries_from_outside_have_no_self_to_leave_out() -> None:
    items = np.eye(4, dtype=np.float32)
    queries = np.array([[0.5, 0.4, 0.3, 0.2], [0.1, 0.4, 0.3, 0.2]], np.float32)
    results = rank_vectors(queries, ["x", "x"], ["q0", "d"], items, list("wxyx"), list("abcd"))
    # The second query is item d: one other x is left, among three candidates.
    np.testing.assert_array_equal(results.n_relevant, [2, 1])
    np.testing.assert_array_equal(results.n_negatives, [2, 2])
    np.testing.assert_array_equal(results.first_rank, [2, 1])
    assert results.ap[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_perfect_and_worst_rankings() -> None:
    works = np.repeat(np.arange(20), 13)
    vectors = np.eye(20, dtype=np.float32)[works]
    best = evaluate(vectors, works).answerable
    assert (best.mr1_mean, best.mr1_median, best.hr1, best.map, best.mrr) == (1, 1, 1, 1, 1)
    assert (best.map10, best.nar) == (1, 0)
    scores = -(vectors @ vectors.T)
    ids = np.arange(len(works))
    worst = rank_scores(lambda rows: scores[rows], works, ids, works, ids)
    assert summarise(worst, n_items=260).answerable.nar == 100
    assert summarise(worst, n_items=260).answerable.hr100 == 0


def test_nothing_to_answer_is_no_score_at_all() -> None:
    for n in (0, 1, 5):
        scores = evaluate(np.ones((n, 3), np.float32), np.arange(n), n_missing=5)
        assert scores.n_answerable == 0 and math.isnan(scores.answerable.mr1_mean)
        assert math.isnan(scores.low.map) and scores.coverage == n / (n + 5)
        assert json.loads(json.dumps(scores.as_json()))["answerable"]["hr1"] is None
    assert evaluate(np.ones((5, 3), np.float32), np.arange(5)).published.hr1 == 0


def noisy() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    works = np.repeat(np.arange(60), 3)
    vectors = rng.normal(size=(60, 16))[works] + rng.normal(0, 1.2, (180, 16))
    return vectors.astype(np.float32), works


def test_intervals_hold_the_score_and_repeat_with_their_seed() -> None:
    scores: Scores = evaluate(*noisy(), seed=1)
    low, high = scores.low, scores.high
    for name, value in scores.as_json()["answerable"].items():
        assert getattr(low, name) <= value <= getattr(high, name)
    assert low.hr1 < scores.answerable.hr1 < high.hr1
    assert evaluate(*noisy(), seed=1) == scores != evaluate(*noisy(), seed=2)


def test_intervals_are_those_of_whole_works() -> None:
    # Within a work all queries are right or all wrong: 100 works of 4 vary as 100 coins do.
    works = np.repeat(np.arange(100), 4)
    ids = np.arange(400)
    same = works[:, None] == works
    sign = np.where(works < 50, 1, -1).astype(np.float32)[:, None]
    results = rank_scores(lambda rows: (same * sign)[rows], works, ids, works, ids)
    scores = summarise(results, n_items=400)
    assert scores.answerable.hr1 == 0.5
    assert scores.high.hr1 - scores.low.hr1 == pytest.approx(2 * 1.96 * 0.05, rel=0.1)


def test_input_that_does_not_fit_is_refused() -> None:
    vectors = np.ones((3, 2), np.float32)
    with pytest.raises(ValueError, match="not finite"):
        evaluate(vectors * np.nan, [0, 0, 1])
    with pytest.raises(ValueError, match="an id stands for two"):
        evaluate(vectors, [0, 0, 1], ids=[1, 1, 2])
    with pytest.raises(ValueError, match="not of the same number"):
        evaluate(vectors, [0, 0])
    with pytest.raises(ValueError, match="cannot ask"):
        rank_vectors(vectors, [0] * 3, [0, 1, 2], np.ones((3, 5), np.float32), [0] * 3, [0, 1, 2])
    with pytest.raises(ValueError, match="do not fit"):
        rank_scores(lambda rows: vectors, [0, 0], [0, 1], [0, 0], [0, 1])
    with pytest.raises(ValueError, match="MAP@3"):
        summarise(worked_example(cut=3), n_items=8)
