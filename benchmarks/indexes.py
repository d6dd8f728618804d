"""Indexes of vectors behind one face: usearch as a library keeps it, and what it is held against.

All graphs have the same parameters, those of ``livi_index.vectors``: 16 links a node (32 on the
ground), 128 candidates while building. ``effort`` is how many candidates a question looks at (for
inverted lists: how many lists). ``i8`` and ``b1`` keep a byte or a bit a number and give a hundred
candidates, which are compared exactly with the vectors on the disk.

Everything is asked for neighbours by cosine of unit vectors. The packages are those of the extra
``bench``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from livi_index.vectors import CONNECTIVITY, EXPANSION_ADD

EFFORTS = (64, 128, 256, 512, 1024)  # of graphs
CANDIDATES = 100  # of which the best are found exactly, where an index is coarse
TRAINED_ON = 32  # vectors a list, for inverted lists
TRAINING_ROUNDS = 10
BLOCK = 50  # questions whose candidates are in memory at once

FloatArray = NDArray[np.float32]
HalfArray = NDArray[np.float16]
IntArray = NDArray[np.int64]


class Index(Protocol):
    """Vectors (n, dim) are added in order and numbered from 0; a search gives numbers (Q, k)."""

    efforts: tuple[int, ...]

    def add(self, first: int, vectors: FloatArray) -> None: ...

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray: ...

    def save(self, path: Path) -> None: ...

    def load(self, path: Path) -> None: ...


class Usearch:
    """``dtype`` is f16, bf16, i8 or b1; ``metric`` ip leaves out what unit vectors do not need."""

    efforts: tuple[int, ...] = EFFORTS

    def __init__(self, dim: int, dtype: str, metric: str = "cos") -> None:
        from usearch.index import Index as Graph

        self._is_bits = dtype == "b1"
        self._index = Graph(
            ndim=dim,
            metric="hamming" if self._is_bits else metric,
            dtype=dtype,
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_ADD,
        )

    def add(self, first: int, vectors: FloatArray) -> None:
        keys = np.arange(first, first + len(vectors), dtype=np.uint64)
        self._index.add(keys, self._stored(vectors), threads=1)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        self._index.expansion_search = effort
        found = self._index.search(self._stored(queries), k, threads=threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), k)

    def save(self, path: Path) -> None:
        self._index.save(path)

    def load(self, path: Path) -> None:
        self._index.load(path)

    def _stored(self, vectors: FloatArray) -> NDArray[Any]:
        return np.packbits(vectors > 0, axis=1) if self._is_bits else vectors


class Hnswlib:
    """Single precision: it has no other."""

    efforts: tuple[int, ...] = EFFORTS

    def __init__(self, dim: int, count: int) -> None:
        import hnswlib

        self._count = count
        self._empty = lambda: hnswlib.Index("ip", dim)
        self._index = self._empty()
        self._index.init_index(count, M=CONNECTIVITY, ef_construction=EXPANSION_ADD)

    def add(self, first: int, vectors: FloatArray) -> None:
        self._index.add_items(vectors, np.arange(first, first + len(vectors)), num_threads=1)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        self._index.set_ef(effort)
        return self._index.knn_query(queries, k, num_threads=threads)[0].astype(np.int64)

    def save(self, path: Path) -> None:
        self._index.save_index(str(path))

    def load(self, path: Path) -> None:
        self._index = self._empty()
        self._index.load_index(str(path), max_elements=self._count)


class FaissGraph:
    """``dtype`` is f16 or f32."""

    efforts: tuple[int, ...] = EFFORTS

    def __init__(self, dim: int, dtype: str) -> None:
        import faiss

        self._faiss = faiss
        product = faiss.METRIC_INNER_PRODUCT
        if dtype == "f16":
            half = faiss.ScalarQuantizer.QT_fp16
            self._index = faiss.IndexHNSWSQ(dim, half, CONNECTIVITY, product)
            self._index.train(np.zeros((1, dim), np.float32))  # nothing is learned for f16
        else:
            self._index = faiss.IndexHNSWFlat(dim, CONNECTIVITY, product)
        self._index.hnsw.efConstruction = EXPANSION_ADD

    def add(self, first: int, vectors: FloatArray) -> None:
        self._faiss.omp_set_num_threads(1)
        self._index.add(vectors)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        self._faiss.omp_set_num_threads(threads)
        self._index.hnsw.efSearch = effort
        numbers: IntArray = self._index.search(queries, k)[1]
        return numbers

    def save(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))

    def load(self, path: Path) -> None:
        self._index = self._faiss.read_index(str(path))


class FaissLists:
    """Inverted lists of half precision, four times as many as the root of the count."""

    efforts: tuple[int, ...] = (8, 32, 64, 128)

    def __init__(self, dim: int, count: int, sample: Callable[[int], FloatArray]) -> None:
        import faiss

        self._faiss, self._sample = faiss, sample
        self._n_lists = round(4 * math.sqrt(count))
        product = faiss.METRIC_INNER_PRODUCT
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dim), dim, self._n_lists, faiss.ScalarQuantizer.QT_fp16, product
        )
        self._index.cp.niter = TRAINING_ROUNDS

    def add(self, first: int, vectors: FloatArray) -> None:
        self._faiss.omp_set_num_threads(1)
        if not self._index.is_trained:
            self._index.train(self._sample(TRAINED_ON * self._n_lists))
        self._index.add(vectors)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        self._faiss.omp_set_num_threads(threads)
        self._index.nprobe = effort
        numbers: IntArray = self._index.search(queries, k)[1]
        return numbers

    def save(self, path: Path) -> None:
        self._faiss.write_index(self._index, str(path))

    def load(self, path: Path) -> None:
        self._index = self._faiss.read_index(str(path))


class Everything:
    """No index: every question is compared with all vectors, which lie on the disk."""

    efforts: tuple[int, ...] = (0,)

    def __init__(self, vectors: HalfArray) -> None:
        self._vectors = vectors
        self._count = 0

    def add(self, first: int, vectors: FloatArray) -> None:
        self._count = first + len(vectors)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        from usearch.index import search

        asked = np.ascontiguousarray(queries, np.float16)
        every = self._vectors[: self._count]
        found = search(every, asked, k, "ip", exact=True, threads=threads)
        return np.asarray(found.keys).astype(np.int64).reshape(len(queries), k)

    def save(self, path: Path) -> None:
        path.write_text(str(self._count))

    def load(self, path: Path) -> None:
        self._count = int(path.read_text())


@dataclass(frozen=True, eq=False)
class Reranked:
    """A coarse index gives candidates, the vectors on the disk decide."""

    index: Index
    vectors: HalfArray

    @property
    def efforts(self) -> tuple[int, ...]:
        return EFFORTS[1:]

    def add(self, first: int, vectors: FloatArray) -> None:
        self.index.add(first, vectors)

    def search(self, queries: FloatArray, k: int, effort: int, threads: int) -> IntArray:
        candidates = self.index.search(queries, CANDIDATES, effort, threads)
        best = np.empty((len(queries), k), np.int64)
        for first in range(0, len(queries), BLOCK):
            part = slice(first, first + BLOCK)
            rows = self.vectors[candidates[part]].astype(np.float32)
            scores = (rows @ queries[part, :, None])[..., 0]
            order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
            best[part] = np.take_along_axis(candidates[part], order, axis=1)
        return best

    def save(self, path: Path) -> None:
        self.index.save(path)

    def load(self, path: Path) -> None:
        self.index.load(path)


NAMES = (
    "usearch-f16", "usearch-f16-ip", "usearch-bf16-ip", "usearch-i8", "usearch-b1",
    "faiss-hnsw-f16", "faiss-hnsw-f32", "faiss-ivf-f16", "hnswlib-f32", "exact",
)  # fmt: skip


def index_of(name: str, vectors: HalfArray) -> Index:
    """An empty index by its name, for as many vectors as there are. Raises ValueError."""
    count, dim = vectors.shape
    if name not in NAMES:
        raise ValueError(f"there is no index {name!r}; there are: {', '.join(NAMES)}")
    family, *how = name.split("-")
    if family == "exact":
        return Everything(vectors)
    if family == "hnswlib":
        return Hnswlib(dim, count)
    if family == "usearch":
        made = Usearch(dim, *how)
        return made if how[0] in ("f16", "bf16") else Reranked(made, vectors)
    if how[0] == "hnsw":
        return FaissGraph(dim, how[1])
    return FaissLists(dim, count, lambda n: vectors[:n].astype(np.float32))
