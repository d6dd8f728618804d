"""How well versions are found: MR1, HR@k, MAP@10, MAP, MRR and NAR over full rankings.

Every recording asks for the others of its work. The recording itself is not a candidate, ranks are
1-based, the order is by descending score and then by ascending id. Only queries with at least one
other version can be answered; their number and the coverage stand beside every score. Published
evaluators differ in what they do with the rest: ``Scores.published`` counts them as misses.

The computation is exact and blocked: scores of a block of queries against all items are in memory
at once, never N×N, and a rank is counted over a query's whole row of scores. Definitions:
mir_eval-style averages over queries; NAR as in CLEWS (100 × the share of negatives ranked before a
positive; 0 is best, 50 chance); MAP@10 as in LIVI (divisor min(10, R)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

DEFAULT_CUT = 10
BLOCK_BYTES = 128 << 20  # of scores that are in memory at once
FEW = 8  # versions of a query, up to which one pass over all scores for each is fastest
SORTED_FROM = 160  # low ones, from which sorting all scores is
TOP = 64  # of so many scores one is high, and of so many one is looked at to tell where that begins
N_RESAMPLES = 1000
INTERVAL = (0.025, 0.975)

FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Labels = Sequence[str] | Sequence[int] | npt.NDArray[Any]
# Numbers of queries → their scores against all items, (n, n_items) float32.
ScoreRows = Callable[[IntArray], FloatArray]


@dataclass(frozen=True)
class Summary:
    """Averages over queries; nan where there is no query to average over.

    ``mr1_*`` are ranks of the first version found (1 is best), ``nar`` is 0 to 100 (0 is best),
    the others are 0 to 1 (1 is best).
    """

    mr1_mean: float
    mr1_median: float
    hr1: float
    hr10: float
    hr100: float
    map10: float
    map: float
    mrr: float
    nar: float


@dataclass(frozen=True)
class QueryResults:
    """One value a query, in the order of the queries; arrays of shape (n_queries,).

    ``n_relevant`` 0 marks a query that cannot be answered: its ``first_rank`` is 0, its ``nar`` is
    nan, its precisions are 0. ``found_at_cut`` counts versions among the first ``cut`` hits,
    ``ap_at_cut`` has divisor min(cut, n_relevant), ``clique`` numbers the works.
    """

    cut: int
    clique: IntArray
    n_relevant: IntArray
    n_negatives: IntArray
    first_rank: IntArray
    found_at_cut: IntArray
    ap: DoubleArray
    ap_at_cut: DoubleArray
    nar: DoubleArray

    @property
    def answerable(self) -> npt.NDArray[np.bool_]:
        return self.n_relevant > 0

    def hit(self, k: int) -> npt.NDArray[np.bool_]:
        """Whether a version is among the first k hits."""
        return self.answerable & (self.first_rank <= k)

    @property
    def reciprocal_rank(self) -> DoubleArray:
        return np.where(self.answerable, 1.0 / np.maximum(self.first_rank, 1), 0.0)

    @property
    def nar_self_last(self) -> DoubleArray:
        """NAR where the query itself stays, as one more negative in the last place (CLEWS)."""
        return self.nar * self.n_negatives / (self.n_negatives + 1)


@dataclass(frozen=True)
class Scores:
    """What is published of one evaluation.

    ``answerable`` averages over queries that have an answer; ``low`` and ``high`` are its 95 %
    bootstrap interval over works. ``published`` has the denominators of the published evaluators:
    HR, MAP@10, MAP and MRR over all queries (those without an answer count 0), MR1 over the
    answerable ones, NAR with the query itself as a last negative.
    """

    answerable: Summary
    published: Summary
    low: Summary
    high: Summary
    n_queries: int
    n_answerable: int
    n_items: int
    n_missing: int

    @property
    def coverage(self) -> float:
        """The share of the catalogue's recordings that have a vector at all."""
        return self.n_items / max(1, self.n_items + self.n_missing)

    def as_json(self) -> dict[str, Any]:
        """Plain numbers, None in place of nan."""
        values: dict[str, Any] = asdict(self)
        for name in ("answerable", "published", "low", "high"):
            values[name] = {k: None if v != v else v for k, v in values[name].items()}
        return {**values, "coverage": self.coverage}


def evaluate(
    vectors: FloatArray,
    works: Labels,
    *,
    ids: Labels | None = None,
    n_missing: int = 0,
    seed: int = 0,
) -> Scores:
    """Every recording asks for all others: (N, dim) finite vectors, compared by dot product.

    ``works`` and ``ids`` have one label a vector (ids default to the order given); ``n_missing``
    recordings of the catalogue have no vector. Raises ValueError for arrays that do not fit.
    """
    ids = np.arange(len(vectors)) if ids is None else ids
    results = rank_vectors(vectors, works, ids, vectors, works, ids)
    return summarise(results, n_items=len(vectors), n_missing=n_missing, seed=seed)


def rank_vectors(
    queries: FloatArray,
    query_works: Labels,
    query_ids: Labels,
    items: FloatArray,
    item_works: Labels,
    item_ids: Labels,
    *,
    cut: int = DEFAULT_CUT,
) -> QueryResults:
    """Rank (N, dim) items for (Q, dim) queries by dot product; same id = the query itself."""
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ValueError(f"vectors of shape {queries.shape} cannot ask {items.shape}")
    for vectors in (queries, items):
        if not np.isfinite(vectors).all():
            raise ValueError("vectors hold numbers that are not finite")
    columns = _Columns(query_works, query_ids, item_works, item_ids)
    ordered = items if columns.is_ordered else items[columns.order]
    # One buffer for all blocks: fresh memory of that size is cleared by the system every time.
    buffer = np.empty((columns.block_rows, len(items)), np.result_type(queries, items, np.float32))
    return columns.rank(
        lambda rows: np.matmul(queries[rows], ordered.T, out=buffer[: len(rows)]), cut
    )


def rank_scores(
    score_rows: ScoreRows,
    query_works: Labels,
    query_ids: Labels,
    item_works: Labels,
    item_ids: Labels,
    *,
    cut: int = DEFAULT_CUT,
) -> QueryResults:
    """Rank by scores that are given, such as re-scored candidates (the others below them).

    ``score_rows`` is called with blocks of query numbers, in no particular order.
    """
    columns = _Columns(query_works, query_ids, item_works, item_ids)

    def checked(rows: IntArray) -> FloatArray:
        scores = np.asarray(score_rows(rows), np.float32)
        if scores.shape != (len(rows), len(columns.order)) or not np.isfinite(scores).all():
            raise ValueError(f"scores of shape {scores.shape} do not fit, or are not finite")
        return scores[:, columns.order]  # a copy, to be written into

    return columns.rank(checked, cut)


def summarise(results: QueryResults, *, n_items: int, n_missing: int = 0, seed: int = 0) -> Scores:
    """Averages of the results at cut 10, and their bootstrap intervals over works."""
    if results.cut != DEFAULT_CUT:
        raise ValueError(f"the summary has MAP@{DEFAULT_CUT}, these results MAP@{results.cut}")
    chosen = results.answerable
    first_ranks = results.first_rank[chosen]
    # In the order of Summary's fields after the two of MR1.
    per_query = np.stack(
        [
            results.hit(1),
            results.hit(10),
            results.hit(100),
            results.ap_at_cut,
            results.ap,
            results.reciprocal_rank,
            results.nar,
        ]
    )
    answerable = _summary(first_ranks, per_query[:, chosen])
    published = _summary(first_ranks, per_query)
    nar_self_last = _mean(results.nar_self_last[chosen])
    low, high = _intervals(results.clique[chosen], first_ranks, per_query[:, chosen], seed)
    return Scores(
        answerable=answerable,
        published=replace(published, nar=nar_self_last),
        low=low,
        high=high,
        n_queries=len(chosen),
        n_answerable=int(chosen.sum()),
        n_items=n_items,
        n_missing=n_missing,
    )


class _Columns:
    """Who is relevant for whom, with items numbered in the order of their ids."""

    def __init__(
        self, query_works: Labels, query_ids: Labels, item_works: Labels, item_ids: Labels
    ) -> None:
        n_queries, n_items = len(query_works), len(item_works)
        if (len(query_ids), len(item_ids)) != (n_queries, n_items):
            raise ValueError("works and ids are not of the same number")
        _, ids = np.unique(np.concatenate([item_ids, query_ids]), return_inverse=True)
        _, works = np.unique(np.concatenate([item_works, query_works]), return_inverse=True)
        self.order = np.argsort(ids[:n_items], kind="stable")
        self.is_ordered = bool((np.diff(ids[:n_items]) > 0).all())
        sorted_ids = ids[:n_items][self.order]
        if (np.diff(sorted_ids) == 0).any():
            raise ValueError("an id stands for two items")
        self.query_works = works[n_items:]
        item_works_sorted = works[:n_items][self.order]
        # One more entry that equals nothing stands for "not among the items".
        place = np.searchsorted(sorted_ids, ids[n_items:])
        is_item = np.append(sorted_ids, -1)[place] == ids[n_items:]
        self.self_item = np.where(is_item, place, -1)
        self.members = np.argsort(item_works_sorted, kind="stable")
        grouped = item_works_sorted[self.members]
        self.first = np.searchsorted(grouped, self.query_works, side="left")
        count = np.searchsorted(grouped, self.query_works, side="right") - self.first
        # A query with another label than its own item has no version of itself to leave out.
        self.own = is_item & (np.append(item_works_sorted, -1)[place] == self.query_works)
        self.n_relevant = count - self.own
        self.n_negatives = n_items - is_item - self.n_relevant

    @property
    def block_rows(self) -> int:
        """Queries whose scores are in memory at once."""
        fitting = BLOCK_BYTES // (4 * max(1, len(self.order)))
        return max(1, min(fitting, len(self.query_works)))

    def rank(self, score_rows: ScoreRows, cut: int) -> QueryResults:
        """``score_rows`` gives scores in the order of items here, to be written into."""
        n_queries = len(self.query_works)
        first_rank, found = np.zeros((2, n_queries), np.int64)
        ap, ap_at_cut = np.zeros((2, n_queries))
        nar = np.full(n_queries, np.nan)
        for rows in self._blocks():
            ranks = _ranks(score_rows(rows), self.self_item[rows], self._relevant(rows))
            n_relevant = self.n_relevant[rows]
            nth = np.arange(1, ranks.shape[1] + 1)
            real = nth <= n_relevant[:, None]
            precision = np.where(real, nth / ranks, 0.0)
            inside = real & (ranks <= cut)
            first_rank[rows] = ranks[:, 0]
            found[rows] = inside.sum(axis=1)
            ap[rows] = precision.sum(axis=1) / n_relevant
            ap_at_cut[rows] = (precision * inside).sum(axis=1) / np.minimum(cut, n_relevant)
            before = np.where(real, ranks - nth, 0).sum(axis=1) / n_relevant
            nar[rows] = 100 * before / np.maximum(self.n_negatives[rows], 1)
        counts = self.n_relevant.astype(np.int64), self.n_negatives.astype(np.int64)
        return QueryResults(cut, self.query_works, *counts, first_rank, found, ap, ap_at_cut, nar)

    def _blocks(self) -> Iterator[IntArray]:
        """Answerable queries, those with as many versions together, in blocks that fit."""
        by_size = np.argsort(self.n_relevant, kind="stable")
        rows = by_size[np.count_nonzero(self.n_relevant == 0) :]
        for start in range(0, len(rows), self.block_rows):
            yield rows[start : start + self.block_rows]

    def _relevant(self, rows: IntArray) -> IntArray:
        """(n, most) numbers of the relevant items of each query, -1 where it has fewer."""
        slots = np.arange(self.n_relevant[rows].max())
        place = self.first[rows, None] + slots
        # Members of a work are in ascending order, so those from the query itself on move up.
        last = len(self.members) - 1
        passed = self.members[np.minimum(place, last)] >= self.self_item[rows, None]
        place += passed & self.own[rows, None]
        real = slots < self.n_relevant[rows, None]
        relevant: IntArray = np.where(real, self.members[np.minimum(place, last)], -1)
        return relevant


def _ranks(scores: FloatArray, self_item: IntArray, relevant: IntArray) -> IntArray:
    """(n, most) ascending ranks of relevant items in (n, n_items) scores; a huge one for none."""
    ranks = np.full(relevant.shape, np.iinfo(np.int64).max)
    for query, (row, itself) in enumerate(zip(scores, self_item.tolist(), strict=True)):
        if itself >= 0:
            row[itself] = -np.inf
        items = relevant[query][relevant[query] >= 0]
        ranks[query, : len(items)] = _ahead(row, items) + 1
    ranks.sort(axis=1)
    return ranks


def _ahead(row: FloatArray, items: IntArray) -> IntArray:
    """How many are before each of the items: those that score higher, or equal by a lower number.

    Versions score high, so most of them are ranked among the few that do.
    """
    if len(items) <= FEW:
        return _counted_ahead(row, items)
    sample = row[::TOP]
    floor = np.partition(sample, -1 - len(sample) // TOP)[-1 - len(sample) // TOP]
    high = row[items] >= floor
    ahead = np.empty(len(items), np.int64)
    top = np.flatnonzero(row >= floor)
    place = np.empty(len(top), np.int64)
    place[np.argsort(-row[top], kind="stable")] = np.arange(len(top))
    ahead[high] = place[np.searchsorted(top, items[high])]
    low = items[~high]
    ahead[~high] = (_counted_ahead if len(low) < SORTED_FROM else _sorted_ahead)(row, low)
    return ahead


def _counted_ahead(row: FloatArray, items: IntArray) -> IntArray:
    """An equal score counts on one side of the item and does not on the other."""
    counts = [
        np.count_nonzero(row[:item] >= row[item]) + np.count_nonzero(row[item + 1 :] > row[item])
        for item in items.tolist()
    ]
    return np.array(counts, np.int64)


def _sorted_ahead(row: FloatArray, items: IntArray) -> IntArray:
    scores, ordered = row[items], np.sort(row)
    above = ordered.searchsorted(scores, "right")
    ahead = len(row) - above
    for tied in np.flatnonzero(above - ordered.searchsorted(scores, "left") > 1):
        ahead[tied] += np.count_nonzero(row[: items[tied]] == scores[tied])
    return ahead


def _summary(first_ranks: IntArray, per_query: DoubleArray) -> Summary:
    median = float(np.median(first_ranks)) if len(first_ranks) else float("nan")
    return Summary(_mean(first_ranks), median, *(_mean(values) for values in per_query))


def _mean(values: npt.NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _intervals(
    cliques: IntArray, first_ranks: IntArray, per_query: DoubleArray, seed: int
) -> tuple[Summary, Summary]:
    """95 % intervals from drawing works, with all their queries, with replacement."""
    if len(cliques) == 0:
        nothing = Summary(*[float("nan")] * len(fields(Summary)))
        return nothing, nothing
    _, clique = np.unique(cliques, return_inverse=True)
    n_cliques = int(clique.max()) + 1
    values = np.vstack([np.ones(len(clique)), first_ranks, per_query])
    sums = np.stack([np.bincount(clique, row, n_cliques) for row in values], axis=1)
    by_rank = np.argsort(first_ranks, kind="stable")
    sorted_ranks, sorted_cliques = first_ranks[by_rank], clique[by_rank]
    rng = np.random.default_rng(seed)
    drawn = np.empty((N_RESAMPLES, len(fields(Summary))))
    for sample in drawn:
        times = np.bincount(rng.integers(n_cliques, size=n_cliques), minlength=n_cliques)
        total = times @ sums
        upto = np.cumsum(times[sorted_cliques])
        middle = [(upto[-1] - 1) // 2, upto[-1] // 2]
        sample[0] = total[1] / total[0]
        sample[1] = sorted_ranks[np.searchsorted(upto, middle, side="right")].mean()
        sample[2:] = total[2:] / total[0]
    low, high = np.quantile(drawn, INTERVAL, axis=0)
    return Summary(*low.tolist()), Summary(*high.tolist())
