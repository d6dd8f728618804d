"""Vectors that can be searched: usearch files, written so that they are whole or absent.

An index holds unit vectors of one space in half precision under int64 keys > 0. Scores are cosine
similarities. Three habits of usearch are dealt with here and nowhere else: its default dtype
depends on the processor (so it is always given), a missing file opens as an empty index (so
existence is checked), and ``save`` writes over its target without fsync or checksum (so files are
written beside, measured, synced and renamed, and come back with their SHA-256).

Nothing is ever removed from an index: what is dead is filtered by the reader of the answers.
``shards.ShardedIndex`` is a row of such files that is filled and asked as one.

usearch: https://github.com/unum-cloud/usearch
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from usearch.compiled import MetricKind, ScalarKind
from usearch.index import BatchMatches, Index

from livi_index.errors import LibraryDamaged, LibraryNotWritable

FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

METRIC = "cos"
DTYPE = "f16"
CONNECTIVITY = 16
EXPANSION_ADD = 128
EXPANSION_SEARCH = 128
EXACT_BELOW = 20_000  # vectors; up to here comparing with all of them takes milliseconds
UNIT_TOLERANCE = 1e-3
PRODUCT = 1 << 18  # multiplications in one product that one thread does


@dataclass(frozen=True)
class Match:
    """One vector that was found; ``score`` is the cosine similarity."""

    key: int
    score: float


@dataclass(frozen=True)
class Matches:
    """What N queries found: row i is valid up to ``counts[i]``, best first, ties by key.

    keys (N, k) int64, 0 where nothing was found; scores (N, k) float32, -inf there; counts (N,).
    """

    keys: IntArray
    scores: NDArray[np.float32]
    counts: IntArray

    def of(self, query: int) -> list[Match]:
        """The matches of one query, best first."""
        found = slice(self.counts[query])
        pairs = zip(self.keys[query, found], self.scores[query, found], strict=True)
        return [Match(int(key), float(score)) for key, score in pairs]


@dataclass(frozen=True)
class SavedFile:
    """A file as it lies on the disk; ``sha256`` in hex, ``size`` in bytes."""

    name: str
    sha256: str
    size: int


class VectorIndex:
    """One usearch file of unit vectors, in memory (grows) or mapped (read only)."""

    def __init__(self, dim: int) -> None:
        self._lookups = True
        self._index = Index(
            ndim=dim,
            metric=METRIC,
            dtype=DTYPE,
            connectivity=CONNECTIVITY,
            expansion_add=EXPANSION_ADD,
            expansion_search=EXPANSION_SEARCH,
        )

    @classmethod
    def open(cls, path: Path, *, dim: int, view: bool = True, lookups: bool = True) -> VectorIndex:
        """Map (``view``) or load a saved file; LibraryDamaged if it is not an index of this kind.

        Without ``lookups`` it can be searched and nothing else: to know where each key is, usearch
        reads the whole file. Damage inside a well-formed file is for the caller to find by its
        SHA-256 *before* opening: usearch checks nothing there and can crash the process.
        """
        if not path.is_file():
            raise LibraryDamaged(f"{path} is missing; `livi-index build` makes it anew")
        opened = cls(dim)
        try:
            # usearch does not save its expansions and falls back to its own.
            index = Index.restore(
                path,
                view=view,
                expansion_add=EXPANSION_ADD,
                expansion_search=EXPANSION_SEARCH,
                enable_key_lookups=lookups,
            )
        except (RuntimeError, ValueError) as error:
            raise LibraryDamaged(f"{path} is not a vector index: {error}") from error
        kind = None if index is None else (index.ndim, index.dtype, index.metric_kind)
        if index is None or kind != (dim, ScalarKind.F16, MetricKind.Cos):
            raise LibraryDamaged(f"{path} holds vectors of another kind: {kind}")
        opened._index, opened._lookups = index, lookups
        return opened

    def __len__(self) -> int:
        return len(self._index)

    @property
    def dim(self) -> int:
        return int(self._index.ndim)

    @property
    def expansion_search(self) -> int:
        return int(self._index.expansion_search)

    @property
    def keys(self) -> IntArray:
        """All keys (n,) int64, ascending."""
        assert self._lookups
        if len(self) == 0:
            return np.zeros(0, np.int64)
        return np.sort(np.asarray(self._index.keys).astype(np.int64))

    def contains(self, keys: IntArray) -> NDArray[np.bool_]:
        """Which of the keys (n,) are here, (n,) bool."""
        assert self._lookups
        if len(keys) == 0 or len(self) == 0:
            return np.zeros(len(keys), np.bool_)
        return np.asarray(self._index.contains(keys.astype(np.uint64)), np.bool_)

    def add(self, keys: IntArray, vectors: FloatArray, *, threads: int = 0) -> None:
        """Add unit vectors (n, dim) under new keys (n,); ``threads`` 0 is all, 1 is reproducible.

        ValueError, before anything is added, for vectors that are not finite or not of unit
        length, and for keys that are not positive, not unique, or already here.
        """
        if len(keys) == 0:
            return
        self._check(keys, vectors)
        self._index.add(
            keys.astype(np.uint64), np.ascontiguousarray(vectors, np.float16), threads=threads
        )

    def _check(self, keys: IntArray, vectors: FloatArray) -> None:
        if keys.shape != (len(vectors),) or vectors.shape != (len(keys), self.dim):
            raise ValueError(f"{keys.shape} keys for vectors {vectors.shape} of dim {self.dim}")
        if keys.min() <= 0 or len(np.unique(keys)) != len(keys) or self.contains(keys).any():
            raise ValueError("keys must be positive, unique and new to the index")
        lengths = np.linalg.norm(vectors.astype(np.float32), axis=1)
        # Written so that NaN fails it too.
        if not (np.abs(lengths - 1) <= UNIT_TOLERANCE).all():
            raise ValueError("vectors must be finite and of unit length")

    def get(self, keys: IntArray) -> NDArray[np.float32]:
        """The stored vectors (n, dim) of the keys (n,); KeyError for a key that is not here."""
        if len(keys) == 0:
            return np.zeros((0, self.dim), np.float32)
        if not (here := self.contains(keys)).all():
            raise KeyError(f"{int((~here).sum())} keys are not in the index")
        found = self._index.get(keys.astype(np.uint64), dtype=DTYPE)
        return np.asarray(found, np.float16).reshape(len(keys), self.dim).astype(np.float32)

    def search(
        self, queries: FloatArray, k: int, *, exact: bool | None = None, threads: int = 0
    ) -> Matches:
        """The k nearest of each query (N, dim); ``exact`` None: exact where the index is small."""
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise ValueError(f"queries {queries.shape} for an index of dim {self.dim}")
        k = min(k, len(self))
        if k <= 0 or len(queries) == 0:
            return nothing(len(queries))
        exact = len(self) <= EXACT_BELOW if exact is None else exact
        asked = np.ascontiguousarray(queries, np.float32)
        found = self._index.search(asked, k, exact=exact, threads=threads)
        if isinstance(found, BatchMatches):
            return _tidy(found.keys, found.distances, np.asarray(found.counts))
        # A single query is answered without the batch axis, and only as far as it was found.
        return _tidy(found.keys[None], found.distances[None], np.array([len(found)]))

    def save(self, path: Path) -> SavedFile:
        """Write the file so that at any moment it is whole or not there.

        LibraryNotWritable where the disk does not take it; an older file then stays as it was.
        """
        draft = path.with_name(f".{path.name}.draft")
        try:
            with refusals(path):
                self._index.save(draft)
                # The last flush of usearch is not checked by it: a full disk can cut the end off.
                if draft.stat().st_size != self._index.serialized_length:
                    raise LibraryNotWritable(
                        f"{path} could not be written whole: is there no space left on the disk?"
                    )
                sync(draft)
                os.replace(draft, path)
                sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        return saved_file(path)


def merge(found: Sequence[Matches], k: int) -> Matches:
    """The k best of several answers to the same queries, which share no key."""
    keys = np.concatenate([matches.keys for matches in found], axis=1)
    scores = np.concatenate([matches.scores for matches in found], axis=1)
    return best(keys, scores, k)


def best(keys: IntArray, scores: NDArray[np.float32], k: int) -> Matches:
    """Order candidates (N, m) by score, then key, and cut to k; a score of -inf is no match."""
    order = np.lexsort((keys, -scores), axis=1)[:, :k]
    scores = np.take_along_axis(scores, order, axis=1)
    counts = np.isfinite(scores).sum(axis=1).astype(np.int64)
    keys = np.where(np.isfinite(scores), np.take_along_axis(keys, order, axis=1), 0)
    return Matches(keys, scores, counts)


def _tidy(keys: NDArray[np.uint64], distances: FloatArray, counts: NDArray[np.integer]) -> Matches:
    # usearch pads short rows with key 0 and leaves their distances undefined.
    padding = np.arange(keys.shape[1]) >= counts[:, None]
    scores = np.clip(1 - distances.astype(np.float32), -1, 1)
    scores[padding] = -np.inf
    return best(keys.astype(np.int64), scores, keys.shape[1])


def nothing(n_queries: int) -> Matches:
    """What N queries find where there is nothing."""
    empty = np.zeros((n_queries, 0))
    counts = np.zeros(n_queries, np.int64)
    return Matches(empty.astype(np.int64), empty.astype(np.float32), counts)


def products(vectors: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """The dot products (S, n) of (S, D) with (n, D), all of them by the calling thread.

    Shared by several, such small products take longer where the processors are busy, by ten times
    or more, and the other threads then wait for work in a loop, in the way of what comes next.
    """
    if len(vectors) == 1:
        single: NDArray[np.float32] = np.einsum("sd,nd->sn", vectors, others)
        return single
    width = max(1, min(len(vectors), math.isqrt(PRODUCT // vectors.shape[1])))
    height = max(1, PRODUCT // (vectors.shape[1] * width))
    found = np.empty((len(others), len(vectors)), np.float32)
    for top in range(0, len(others), height):
        rows = slice(top, top + height)
        for left in range(0, len(vectors), width):
            columns = slice(left, left + width)
            np.matmul(others[rows], vectors[columns].T, out=found[rows, columns])
    return found.T


def saved_file(path: Path) -> SavedFile:
    """Name, SHA-256 and size of a file, read from the disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return SavedFile(path.name, digest, os.fstat(file.fileno()).st_size)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_whole(path: Path, content: bytes) -> None:
    """Replace a small file: readers see the old or the new one, also after a crash."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_bytes(content)
    sync(draft)
    os.replace(draft, path)
    sync(path.parent)


def link(old: Path, new: Path, known: SavedFile | None = None) -> SavedFile:
    """Give a file that does not change a second name, or copy it where that cannot be.

    ``known`` is what it holds, where that was compared: then a linked file is not read.
    """
    try:
        os.link(old, new)
    except OSError:  # a file system without hard links
        shutil.copyfile(old, new)
        sync(new)
        known = None
    return replace(known, name=new.name) if known else saved_file(new)


@contextlib.contextmanager
def refusals(path: Path) -> Iterator[None]:
    """Tell what the disk or usearch says against writing ``path`` as LibraryNotWritable."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, LibraryNotWritable):
            raise
        raise LibraryNotWritable(f"{path} could not be written: {error}") from error
