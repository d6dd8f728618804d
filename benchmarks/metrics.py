"""What do all metrics cost? ``python -m benchmarks.metrics``

72,316 vectors of 768 numbers, the size of Discogs-VI in the paper, with works as large as in
Discogs-VI-YT (mean 5, half of them 2, the largest above 600): all metrics and their intervals,
beside the bare blocked matrix product of the same vectors in the same process, into one buffer and
with nothing done to it. The peak of memory is that of the whole process until then, vectors
included.

Then 5,000 such vectors, beside the way of the published evaluator: the whole N×N matrix, a double
loop in Python that takes the query out, a full ranking as a list, ``list.index``.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks.results import arguments, print_table, write_result
from livi_index.metrics import BLOCK_BYTES, evaluate

LARGEST, STEEPNESS = 658, 2.4  # sizes n of works with probabilities n^-2.4, as in Discogs-VI-YT
NOISE = 1.6  # of a version, in lengths of what its work has in common
LOST = 0.08  # of the versions have nothing in common with theirs
CHUNK = 4096  # vectors that are made at once

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int64]
Result = TypeVar("Result")


def made(n: int, dim: int, seed: int = 0) -> tuple[FloatArray, IntArray]:
    """Unit vectors (n, dim) and the number of the work of each."""
    rng = np.random.default_rng(seed)
    sizes = np.arange(2, LARGEST + 1)
    chances = sizes**-STEEPNESS
    drawn = rng.choice(sizes, size=n // 2, p=chances / chances.sum())
    works = np.repeat(np.arange(n // 2), drawn)[:n]
    centres = rng.standard_normal((int(works.max()) + 1, dim), dtype=np.float32)
    vectors = np.empty((n, dim), np.float32)
    for first in range(0, n, CHUNK):
        part = slice(first, first + CHUNK)
        noise = rng.standard_normal(vectors[part].shape, dtype=np.float32)
        common = (rng.random(len(noise)) >= LOST).astype(np.float32)[:, None]
        rows = common * centres[works[part]] + np.float32(NOISE) * noise
        vectors[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    mixed = rng.permutation(n)
    return vectors[mixed], works[mixed]


def bare_product(queries: FloatArray, vectors: FloatArray) -> None:
    """The product of queries with all vectors, in blocks as large as ``metrics`` takes."""
    n = len(vectors)
    rows = max(1, min(n, BLOCK_BYTES // (4 * n)))
    buffer = np.empty((rows, n), np.float32)
    for first in range(0, len(queries), rows):
        block = queries[first : first + rows]
        np.matmul(block, vectors.T, out=buffer[: len(block)])


def timed(work: Callable[[], Result]) -> tuple[Result, float, float]:
    """What it gives, the seconds that it took, and those of processors in all its threads."""
    began, used = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - began, time.process_time() - used


def published_way(vectors: FloatArray, works: list[str], ids: list[str]) -> dict[str, float]:
    """MR1, HR@1, HR@10 and MAP@10 as the published evaluator of LIVI counts them.

    Every query is in the mean of HR and MAP; the divisor of MAP@10 is min(10, max(1, R)).
    """
    n = len(ids)
    similarity = vectors @ vectors.T
    for i in range(n):
        for j in range(n):
            if ids[i] == ids[j]:
                similarity[i, j] = -np.inf
    first_ranks, hits1, hits10, precisions10 = [], [], [], []
    for i in range(n):
        ranking = [ids[j] for j in np.argsort(-similarity[i], kind="stable")]
        relevant = [ids[j] for j in range(n) if works[j] == works[i] and ids[j] != ids[i]]
        if relevant:
            first = next(name for name in ranking if name in relevant)
            first_ranks.append(ranking.index(first) + 1)
        found = [name in relevant for name in ranking[:10]]
        hits1.append(any(found[:1]))
        hits10.append(any(found))
        precision = [sum(found[: k + 1]) / (k + 1) for k in range(len(found)) if found[k]]
        precisions10.append(sum(precision) / min(10, max(1, len(relevant))))
    lists = {"hr1": hits1, "hr10": hits10, "map10": precisions10}
    return {"mr1_mean": float(np.mean(first_ranks))} | {
        k: float(np.mean(v)) for k, v in lists.items()
    }


def beside_the_published_way(vectors: FloatArray, works: IntArray) -> dict[str, Any]:
    """Both times for the same vectors. Raises AssertionError where the numbers are not the same."""
    names = [f"recording-{number:05}" for number in range(len(vectors))]
    ours, ours_s, _ = timed(lambda: evaluate(vectors, works, ids=names))
    labels = [f"work-{work}" for work in works]
    theirs, published_s, _ = timed(lambda: published_way(vectors, labels, names))
    for name, value in theirs.items():
        assert abs(getattr(ours.published, name) - value) < 1e-9, name
    return {
        "n": len(vectors),
        "ours_s": ours_s,
        "published_s": published_s,
        "times_faster": published_s / ours_s,
        "same_numbers": sorted(theirs),
    }


def measure(n: int, dim: int, few: int) -> dict[str, Any]:
    vectors, works = made(n, dim)
    bare_product(vectors[:few], vectors[:few])  # the threads of the product are started by it
    # A half before and a half after, so that a load that comes or goes touches both sides alike.
    halves = vectors[: n // 2], vectors[n // 2 :]
    _, before_s, before_cpu_s = timed(lambda: bare_product(halves[0], vectors))
    scores, metrics_s, metrics_cpu_s = timed(lambda: evaluate(vectors, works))
    _, after_s, after_cpu_s = timed(lambda: bare_product(halves[1], vectors))
    product_s, product_cpu_s = before_s + after_s, before_cpu_s + after_cpu_s
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sizes = np.bincount(works)
    return {
        "n": n,
        "dim": dim,
        "works": int((sizes > 0).sum()),
        "largest_work": int(sizes.max()),
        "versions_of_a_query": float((sizes[works] - 1).mean()),
        "product_s": product_s,
        "metrics_s": metrics_s,
        "ratio": metrics_s / product_s,
        "product_cpu_s": product_cpu_s,
        "metrics_cpu_s": metrics_cpu_s,
        # Linux counts in KiB, macOS in bytes.
        "peak_bytes": peak if sys.platform == "darwin" else 1024 * peak,
        "vectors_bytes": vectors.nbytes,
        "scores": scores.as_json(),
        "published_way": beside_the_published_way(*made(few, dim, seed=1)),
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("-n", type=int, default=72_316)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--few", type=int, default=5000, help="vectors for the published way")
    options = parser.parse_args()
    figures = measure(options.n, options.dim, options.few)
    write_result("metrics", figures, options.out)
    few = figures["published_way"]
    print_table(
        [
            ("bare product, s", figures["product_s"]),
            ("all metrics, s", figures["metrics_s"]),
            ("ratio", figures["ratio"]),
            ("ratio of processor time", figures["metrics_cpu_s"] / figures["product_cpu_s"]),
            ("peak memory, MB", figures["peak_bytes"] / 1e6),
            (f"{few['n']}: all metrics, s", few["ours_s"]),
            (f"{few['n']}: the published way, s", few["published_s"]),
        ]
    )


if __name__ == "__main__":
    main()
