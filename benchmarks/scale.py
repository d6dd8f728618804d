"""What a large index costs: ``python -m benchmarks.scale --keep FOLDER --count 1000000``

Indexes of ``benchmarks.indexes`` are filled in turn, 25,000 vectors each, on one thread, so that
what else the machine does troubles all alike; at 100,000 vectors, at a quarter and at half of the
count (or at ``--looks``), and at the end all are asked in turn. Processor seconds stand beside
seconds of the clock. Memory is what a process grows by that loads the finished file.

The vectors are synthetic: works of as many versions as Discogs-VI-YT has (``benchmarks.metrics``),
cosines about 0.6 within a work and 0.1 between works, the latter with a standard deviation of 0.1,
because a few directions are used more than others (variances fall with the power 0.85, as spectra
of learned embeddings do). One version in twelve has nothing in common with its work. Questions are
versions that are not in the index: recall@10 is the share of the ten nearest that is found, HR@1
how often the first one is of the right work.

All is kept in ``--keep`` while it goes: a run that was stopped goes on from its last measurement.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.indexes import NAMES, FloatArray, HalfArray, Index, IntArray, index_of
from benchmarks.metrics import LARGEST, LOST, STEEPNESS
from benchmarks.results import ROOT, arguments, print_table, write_result

K = 10
CHUNK = 25_000
WITHIN, BETWEEN = 0.6, 0.1  # mean cosines
DECAY = 0.85  # of the variances of directions; gives cosines between works their spread
RECALL = 0.98  # at which indexes are compared
FEW_EXACT = 20  # questions to which comparing with everything is timed
FIRST_LOOK = 100_000
PROJECTED = 100_000_000
ASKED_AT_ONCE = 50


@dataclass(frozen=True, eq=False)
class Data:
    """``vectors`` (N, dim) of ``works`` (N,), ``queries`` (Q, dim) and their works (Q,)."""

    vectors: HalfArray
    works: IntArray
    queries: FloatArray
    query_works: IntArray


def data_in(folder: Path, count: int, dim: int, n_queries: int) -> Data:
    """Made once and kept; the same for the same sizes on every machine with this NumPy."""
    place = folder / f"vectors-{count}-{dim}.npy"
    labels = folder / f"labels-{count}-{dim}-{n_queries}.npz"
    if not (place.exists() and labels.exists()):
        _make(place, labels, count, dim, n_queries)
    with np.load(labels) as found:
        return Data(np.load(place, "r"), found["works"], found["queries"], found["query_works"])


def _make(place: Path, labels: Path, count: int, dim: int, n_queries: int) -> None:
    rng = np.random.default_rng(0)
    sizes = np.arange(2, LARGEST + 1)
    chances = sizes**-STEEPNESS
    drawn = rng.choice(sizes, size=count // 2 + 1, p=chances / chances.sum())
    works = rng.permutation(np.repeat(np.arange(len(drawn)), drawn)[:count])
    spread = np.arange(1, dim + 1) ** np.float32(-DECAY / 2)
    turned = np.linalg.qr(rng.standard_normal((dim, dim)))[0].astype(np.float32)

    def directions(n: int) -> FloatArray:
        return _unit(rng.standard_normal((n, dim), dtype=np.float32) * spread)

    centres = directions(int(works.max()) + 1)
    common = directions(1)

    def versions(of: IntArray, lost: float) -> FloatArray:
        known = (rng.random((len(of), 1)) >= lost).astype(np.float32)
        own = math.sqrt(WITHIN - BETWEEN) * known * centres[of]
        noise = np.sqrt(1 - BETWEEN - (WITHIN - BETWEEN) * known) * directions(len(of))
        return _unit((math.sqrt(BETWEEN) * common + own + noise) @ turned)

    part = place.with_suffix(".part")
    kept = np.lib.format.open_memmap(part, "w+", np.float16, (count, dim))
    for first in range(0, count, CHUNK):
        kept[first : first + CHUNK] = versions(works[first : first + CHUNK], LOST)
    kept.flush()
    part.replace(place)
    # Works that are there from the first look on.
    query_works = rng.choice(works[: min(count, FIRST_LOOK)], n_queries)
    queries = versions(query_works, LOST)
    np.savez(labels, works=works, queries=queries, query_works=query_works)


def _unit(vectors: FloatArray) -> FloatArray:
    scaled: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype("f4")
    return scaled


class Nearest:
    """The true neighbours among the vectors so far: scores and numbers (Q, K), best first."""

    def __init__(self, queries: FloatArray) -> None:
        self._queries = queries
        self._scores = np.full((len(queries), K), -np.inf, np.float32)
        self.numbers = np.zeros((len(queries), K), np.int64)

    def add(self, first: int, vectors: FloatArray) -> None:
        scores = self._queries @ vectors.T
        best = np.argpartition(-scores, K, axis=1)[:, :K]
        scores = np.hstack([self._scores, np.take_along_axis(scores, best, axis=1)])
        numbers = np.hstack([self.numbers, best + first])
        order = np.argsort(-scores, axis=1, kind="stable")[:, :K]
        self._scores = np.take_along_axis(scores, order, axis=1)
        self.numbers = np.take_along_axis(numbers, order, axis=1)


@dataclass
class Filling:
    """An index on its way: how far it is, and what that took."""

    name: str
    index: Index
    place: Path
    n: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0

    @classmethod
    def resumed(cls, name: str, data: Data, folder: Path) -> Filling:
        place = folder / f"{name}-{len(data.vectors)}.index"
        filling = cls(name, index_of(name, data.vectors), place)
        if (state := place.with_suffix(".json")).exists():
            for key, value in json.loads(state.read_text()).items():
                setattr(filling, key, value)
            filling.index.load(place)
        return filling

    def add(self, first: int, vectors: FloatArray) -> None:
        if first < self.n:
            return
        began, used = time.perf_counter(), time.process_time()
        self.index.add(first, vectors)
        self.wall_s += time.perf_counter() - began
        self.cpu_s += time.process_time() - used
        self.n = first + len(vectors)

    def save(self) -> None:
        """The index, then what it took: one is never without the other for long."""
        state = self.place.with_suffix(".json")
        if state.exists() and json.loads(state.read_text())["n"] == self.n:
            return
        part = self.place.with_suffix(".part")
        self.index.save(part)
        state.unlink(missing_ok=True)
        part.replace(self.place)
        told = {"n": self.n, "wall_s": self.wall_s, "cpu_s": self.cpu_s}
        state.write_text(json.dumps(told))


def fill(
    fillings: Sequence[Filling], data: Data, looks: Sequence[int]
) -> Iterator[tuple[int, Nearest]]:
    """Fill all in turn; at each look, how many vectors there are and the true neighbours."""
    nearest = Nearest(data.queries)
    for first in range(0, len(data.vectors), CHUNK):
        vectors = data.vectors[first : first + CHUNK].astype(np.float32)
        nearest.add(first, vectors)
        for filling in fillings:
            filling.add(first, vectors)
        n = first + len(vectors)
        # What was filled further than this by an earlier run was looked at then.
        if n in looks and all(filling.n == n for filling in fillings):
            for filling in fillings:
                filling.save()
            yield n, nearest


class Asked:
    """What one index answered with one effort, and how long it took."""

    def __init__(self) -> None:
        self.found: list[IntArray] = []
        self.single_ms: list[float] = []
        self.cpu_s = 0.0
        self.seconds = {1: 0.0, 2: 0.0}
        self.n = 0

    def ask(self, index: Index, queries: FloatArray, effort: int) -> None:
        used = time.process_time()
        for query in queries:
            began = time.perf_counter()
            self.found.append(index.search(query[None], K, effort, 1)[0])
            self.single_ms.append(1000 * (time.perf_counter() - began))
        self.cpu_s += time.process_time() - used
        for threads in self.seconds:
            began = time.perf_counter()
            index.search(queries, K, effort, threads)
            self.seconds[threads] += time.perf_counter() - began
        self.n += len(queries)

    def figures(self, truth: IntArray, data: Data) -> dict[str, float]:
        found = np.stack(self.found)
        same = found[:, :, None] == truth[: self.n, None]
        right = data.works[found[:, 0]] == data.query_works[: self.n]
        return {
            "recall10": float(same.any(axis=1).mean()),
            "hr1": float(right.mean()),
            "p50_ms": float(np.median(self.single_ms)),
            "p95_ms": float(np.quantile(self.single_ms, 0.95)),
            "cpu_ms": 1000 * self.cpu_s / self.n,
            "per_s_1_thread": self.n / self.seconds[1],
            "per_s_2_threads": self.n / self.seconds[2],
        }


def look(fillings: Sequence[Filling], data: Data, nearest: Nearest) -> dict[str, Any]:
    """All are asked in turn, some questions at a time, with every effort."""
    asked = {(f.name, effort): Asked() for f in fillings for effort in f.index.efforts}
    for first in range(0, len(data.queries), ASKED_AT_ONCE):
        for filling in fillings:
            for effort in filling.index.efforts:
                one = asked[filling.name, effort]
                some = data.queries[first : first + ASKED_AT_ONCE]
                if filling.name == "exact":
                    some = some[: max(0, FEW_EXACT - one.n)]
                if len(some):
                    one.ask(filling.index, some, effort)
    found: dict[str, Any] = {}
    for filling in fillings:
        by_effort = {
            str(effort): asked[filling.name, effort].figures(nearest.numbers, data)
            for effort in filling.index.efforts
        }
        size = filling.place.stat().st_size if filling.name != "exact" else data.vectors[:1].nbytes
        found[filling.name] = {
            "build_wall_s": filling.wall_s,
            "build_cpu_s": filling.cpu_s,
            "file_bytes": size if filling.name != "exact" else size * filling.n,
            "efforts": by_effort,
            "at_recall": at_recall(by_effort),
        }
    right = data.works[nearest.numbers[:, 0]] == data.query_works
    return {"systems": found, "hr1_of_true_neighbours": float(right.mean())}


def at_recall(by_effort: Mapping[str, Mapping[str, float]]) -> dict[str, Any] | None:
    """The least effort that finds enough, None where none does."""
    for effort, figures in by_effort.items():
        if figures["recall10"] >= RECALL:
            return {"effort": int(effort), **figures}
    return None


MEMORY = """
import sys, numpy as np, psutil
from pathlib import Path
from benchmarks.indexes import index_of
name, place, vectors = sys.argv[1:]
index = index_of(name, np.load(vectors, "r")[:int(Path(place).with_suffix(".n").read_text())])
before = psutil.Process().memory_full_info().uss
index.load(Path(place))
print(psutil.Process().memory_full_info().uss - before)
"""


def memory_of(filling: Filling, vectors: Path) -> int:
    """Bytes by which a process grows that loads the index; the vectors on disk do not count."""
    filling.place.with_suffix(".n").write_text(str(filling.n))
    command = [sys.executable, "-c", MEMORY, filling.name, str(filling.place), str(vectors)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return int(told)


def projection(looks: Mapping[int, Any], name: str) -> dict[str, Any]:
    """The same index for a hundred million vectors, with the arithmetic in words.

    Bytes grow with the count. The time of one insertion and of one answer grows by a factor for
    each factor of ten in the count, taken from the first and the last look.
    """
    counts = sorted(n for n in looks if name in looks[n]["systems"])
    low, high = (looks[n]["systems"][name] for n in (counts[0], counts[-1]))
    n = counts[-1]
    tens = math.log10(PROJECTED / n)
    told: dict[str, Any] = {"bytes": high["file_bytes"] / n * PROJECTED}
    text = [f"{high['file_bytes'] / n:.0f} bytes × {PROJECTED:.0e} = {told['bytes'] / 1e9:.0f} GB"]
    if n >= 10 * counts[0]:  # from less, growth cannot be told
        span = math.log10(n / counts[0])
        new = (high["build_cpu_s"] - low["build_cpu_s"]) / (n - counts[0])
        # Lists are learned before the first look, which makes what comes after it look cheaper.
        growth = max(1.0, (new / (low["build_cpu_s"] / counts[0])) ** (1 / span))
        per_vector_s = new * growth**tens
        told["build_cpu_h"] = per_vector_s * PROJECTED / 3600
        text.append(
            f"an insertion {1000 * new:.2f} ms × {growth:.2f} for each ten times, {tens:.1f} times,"
            f" × {PROJECTED:.0e} = {told['build_cpu_h']:.0f} hours of one thread"
        )
        effort = max(low["efforts"], key=int)
        ms = [each["efforts"][effort]["cpu_ms"] for each in (low, high)]
        slower = (ms[1] / ms[0]) ** (1 / span)
        told["cpu_ms"] = ms[1] * slower**tens
        text.append(
            f"an answer {ms[1]:.2f} ms with effort {effort} × {slower:.2f} for each ten times"
            f" = {told['cpu_ms']:.1f} ms of one thread"
        )
    return {**told, "arithmetic": "; ".join(text)}


def bars(systems: Mapping[str, Any]) -> dict[str, Any]:
    """The goals, for usearch in half precision against the others that find as much."""
    ours = systems["usearch-f16"]
    others = {
        name: system["build_cpu_s"]
        for name, system in systems.items()
        if not name.startswith(("usearch", "exact")) and system["at_recall"]
    }
    fastest = min(others, key=lambda name: others[name], default=None)
    return {
        "recall10": max(figures["recall10"] for figures in ours["efforts"].values()),
        "p50_ms_at_recall": ours["at_recall"]["p50_ms"] if ours["at_recall"] else None,
        "cpu_ms_at_recall": ours["at_recall"]["cpu_ms"] if ours["at_recall"] else None,
        "fastest_other": fastest,
        "build_against_it": others[fastest] / ours["build_cpu_s"] if fastest else None,
    }


def looks_at(count: int, chosen: Sequence[int]) -> list[int]:
    """When all are asked: where it was chosen, else at a hundred thousand and on the way; and at
    the end."""
    wanted = chosen or (FIRST_LOOK, count // 4, count // 2)
    least = min(count, CHUNK if chosen else FIRST_LOOK)
    rounded = {n // CHUNK * CHUNK for n in wanted}
    return [*sorted(n for n in rounded if least <= n < count), count]


def measure(options: argparse.Namespace, folder: Path) -> None:
    """Write the result at every look: a run that is stopped has measured what it has."""
    data = data_in(folder, options.count, options.dim, options.queries)
    names = options.systems or list(NAMES)
    fillings = [Filling.resumed(name, data, folder) for name in names]
    kept = folder / f"looks-{options.count}.json"
    looks: dict[int, Any] = {}
    if kept.exists():
        looks = {int(n): found for n, found in json.loads(kept.read_text()).items()}
    vectors = folder / f"vectors-{options.count}-{options.dim}.npy"
    for n, nearest in fill(fillings, data, looks_at(options.count, options.looks)):
        if n not in looks or set(looks[n]["systems"]) != set(names):
            looks[n] = look(fillings, data, nearest)
            for filling in fillings:
                if filling.name != "exact":
                    bytes_ = memory_of(filling, vectors)
                    looks[n]["systems"][filling.name]["memory_bytes"] = bytes_
            kept.write_text(json.dumps(looks))
            _print(n, looks[n]["systems"])
        _write(looks, options)


def _write(looks: Mapping[int, Any], options: argparse.Namespace) -> None:
    n = max(looks)
    systems = looks[n]["systems"]
    figures: dict[str, Any] = {
        "count": n,
        "dim": options.dim,
        "queries": options.queries,
        "looks": looks,
        "projected": {name: projection(looks, name) for name in systems if name != "exact"},
    }
    if "usearch-f16" in systems:
        figures["bars"] = bars(systems)
    write_result(f"scale-{options.count}", figures, options.out, program="scale")


def _print(n: int, systems: Mapping[str, Any]) -> None:
    rows: list[tuple[str | float | None, ...]] = [
        (f"{n:,}", "build CPU s", "MB", "effort", "recall@10", "HR@1", "p50 ms", "/s", "/s, 2")
    ]
    for name, system in systems.items():
        for effort, found in system["efforts"].items():
            times = found["p50_ms"], found["per_s_1_thread"], found["per_s_2_threads"]
            built = system["build_cpu_s"], system["file_bytes"] / 1e6
            rows.append((name, *built, effort, found["recall10"], found["hr1"], *times))
    print_table(rows)
    sys.stdout.flush()


def main() -> None:
    # Before any library counts its threads: what is timed says how many it may have.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=FIRST_LOOK)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--looks", type=int, nargs="*", default=[], help="counts to measure at")
    parser.add_argument("--systems", nargs="*", default=[], choices=NAMES)
    parser.add_argument("--keep", type=Path, help="vectors and indexes, to go on from")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = options.keep or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        measure(options, folder)


if __name__ == "__main__":
    main()
